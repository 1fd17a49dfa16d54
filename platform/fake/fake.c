#include "platform/fake/fake.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "platform/backend.h"
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "platform/fake/mem.h"

#define PAYLOAD_MAX 8192
#define STORE_BYTES 12288
#define QUEUE_MAX 64
#define FP_SIZE 576 // the legacy area and the XSAVE header

struct fake_platform {
	struct platform p;
	TAILQ_HEAD(fake_ctx_head, fake_ctx) ready; // in the guest, with a step to take
	struct fake_ctx_head futex;                // in the guest, waiting in a futex call
	unsigned live;
	fake_step_fn default_step; // of contexts that come from pf_as_new()
	void *default_arg;
};

struct fake_as {
	struct pf_as as;
	struct fake_maps maps;
	unsigned nr_ctx;
	bool dead;
	LIST_HEAD(, fake_ctx) ctxs;
};

// One thing to do on the way back: a memory operation, or (len > 0) a deferred store.
struct queued {
	struct pf_op op;
	bool is_store, done;
	uint64_t addr;
	size_t len, at; // in store_buf
};

struct fake_ctx {
	struct pf_ctx ctx;
	TAILQ_ENTRY(fake_ctx) ready_link;
	LIST_ENTRY(fake_ctx) as_link;
	fake_step_fn step;
	void *step_arg;
	struct abi_regs regs;
	char fp[FP_SIZE];
	bool in_guest, is_ready, kicked;
	bool again;     // the last event comes once more; a futex call is performed instead
	const void *futex; // waits on this word, in host memory
	TAILQ_ENTRY(fake_ctx) futex_link;
	bool has_event; // of a failed operation: comes instead of the script's next step
	struct pf_event event;
	struct queued queue[QUEUE_MAX];
	unsigned nr_queued, refuse_stores;
	char store_buf[STORE_BYTES];
	size_t store_used;
	char payload[PAYLOAD_MAX];
	uint64_t payload_addr;
	size_t payload_len;
};
DEFINE_SLAB(as_slab, struct fake_as);
DEFINE_SLAB(ctx_slab, struct fake_ctx);
DEFINE_SLAB(pf_slab, struct fake_platform);

static struct fake_platform *to_pf(const struct platform *pf) { return (struct fake_platform *)pf; }
static struct fake_as *to_as(const struct pf_as *as) { return (struct fake_as *)as; }
static struct fake_ctx *to_ctx(const struct pf_ctx *ctx) { return (struct fake_ctx *)ctx; }
static struct fake_as *ctx_as(const struct fake_ctx *c) { return to_as(c->ctx.as); }
static struct fake_platform *ctx_pf(const struct fake_ctx *c) { return to_pf(c->ctx.as->pf); }

static void own(const struct fake_ctx *c)
{
	kassert(!c->in_guest);
}

static void make_ready(struct fake_ctx *c)
{
	if (c->is_ready)
		return;
	c->is_ready = true;
	TAILQ_INSERT_TAIL(&ctx_pf(c)->ready, c, ready_link);
}

static void make_unready(struct fake_ctx *c)
{
	if (c->is_ready)
		TAILQ_REMOVE(&ctx_pf(c)->ready, c, ready_link);
	c->is_ready = false;
}

// --- the platform -------------------------------------------------------------------------------

static int fake_create(const struct pf_config *cfg, struct platform **ret_pf)
{
	struct fake_platform *f = SLAB_NEW(pf_slab, struct fake_platform);

	if (!f)
		return -ENOMEM;
	f->p.ops = &fake_backend;
	f->p.cfg = *cfg;
	TAILQ_INIT(&f->ready);
	TAILQ_INIT(&f->futex);
	*ret_pf = &f->p;
	return 0;
}

static void fake_destroy(struct platform *pf)
{
	kassert(to_pf(pf)->live == 0);
	slab_free(&pf_slab, to_pf(pf));
}

unsigned fake_live(const struct platform *pf)
{
	return to_pf(pf)->live;
}

// --- futexes --------------------------------------------------------------------------------------

static void futex_leave(struct fake_ctx *c)
{
	if (c->futex)
		TAILQ_REMOVE(&ctx_pf(c)->futex, c, futex_link);
	c->futex = NULL;
}

static uint32_t futex_wake(struct fake_platform *f, const void *word, uint32_t n)
{
	struct fake_ctx *c, *next;
	uint32_t woken = 0;

	for (c = TAILQ_FIRST(&f->futex); c && woken < n; c = next) {
		next = TAILQ_NEXT(c, futex_link);
		if (c->futex != word)
			continue;
		futex_leave(c);
		c->regs.rax = 0;
		make_ready(c);
		woken++;
	}
	return woken;
}

static uint32_t futex_requeue(struct fake_platform *f, const void *from, const void *to, uint32_t n)
{
	struct fake_ctx *c;
	uint32_t moved = 0;

	TAILQ_FOREACH(c, &f->futex, futex_link)
		if (c->futex == from && moved < n) {
			c->futex = to;
			moved++;
		}
	return moved;
}

static bool is_futex(const struct pf_event *ev)
{
	return ev->kind == PF_EV_SYSCALL && ev->sc.nr == SYS_futex;
}

// Performs the futex call of the last event, without bit sets and without timeouts: time is not the
// platform's. False: it waits.
static bool futex_call(struct fake_ctx *c, int64_t *ret)
{
	struct fake_platform *f = ctx_pf(c);
	const uint64_t *a = c->ctx.ev.sc.args;
	const uint32_t *word = fake_mem_host(&ctx_as(c)->maps, a[0]), *word2;
	uint32_t cmd = (uint32_t)a[1] & (uint32_t)FUTEX_CMD_MASK, n = (uint32_t)MIN(a[2], 0x7fffffffUL);

	if (!word || a[0] & 3) {
		*ret = a[0] & 3 ? -EINVAL : -EFAULT;
		return true;
	}
	*ret = -EAGAIN;
	switch (cmd) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
		if (*word != (uint32_t)a[2])
			return true;
		c->futex = word;
		TAILQ_INSERT_TAIL(&f->futex, c, futex_link);
		return false;
	case FUTEX_WAKE:
	case FUTEX_WAKE_BITSET:
		*ret = futex_wake(f, word, n);
		return true;
	case FUTEX_CMP_REQUEUE:
		if (*word != (uint32_t)a[5])
			return true;
		__attribute__((fallthrough));
	case FUTEX_REQUEUE:
		word2 = fake_mem_host(&ctx_as(c)->maps, a[4]);
		*ret = -EFAULT;
		if (word2) {
			n = futex_wake(f, word, n);
			*ret = n + futex_requeue(f, word, word2, (uint32_t)MIN(a[3], 0x7fffffffUL));
		}
		return true;
	}
	*ret = -ENOSYS;
	return true;
}

static struct pf_event next_event(struct fake_ctx *c)
{
	int64_t r;

	if (ctx_as(c)->dead) {
		futex_leave(c);
		return (struct pf_event){.kind = PF_EV_DEAD};
	}
	if (c->has_event) {
		c->has_event = false;
		return c->event;
	}
	if (c->futex && c->kicked) { // as an interrupted call is reported
		futex_leave(c);
		return c->ctx.ev;
	}
	if (c->again) {
		c->again = false;
		if (!is_futex(&c->ctx.ev) || c->kicked)
			return c->ctx.ev;
		if (!futex_call(c, &r))
			return (struct pf_event){.kind = PF_EV_NONE};
		c->regs.rax = (uint64_t)r;
	}
	if (c->kicked)
		return (struct pf_event){.kind = PF_EV_INTERRUPT};
	c->payload_len = 0;
	if (!c->step)
		return (struct pf_event){.kind = PF_EV_NONE};
	return c->step(c->step_arg, &c->ctx, (int64_t)c->regs.rax);
}

static unsigned fake_poll(struct platform *pf)
{
	struct fake_platform *f = to_pf(pf);
	struct fake_ctx *c, *last = TAILQ_LAST(&f->ready, fake_ctx_head);
	unsigned n = 0;
	bool end = false;

	while (!end && (c = TAILQ_FIRST(&f->ready))) {
		struct pf_event ev;

		end = c == last;
		make_unready(c);
		ev = next_event(c);
		if (ev.kind == PF_EV_NONE)
			continue;
		c->in_guest = c->kicked = false;
		if (ev.kind == PF_EV_SYSCALL) {
			c->regs.orig_rax = ev.sc.nr;
			c->regs.rax = (uint64_t)-ENOSYS;
		}
		c->ctx.ev = ev;
		n++;
		f->p.cfg.hooks.event(&c->ctx);
	}
	return n;
}

static bool fake_prepare_sleep(struct platform *pf)
{
	return TAILQ_EMPTY(&to_pf(pf)->ready);
}

static void fake_woke(struct platform *pf)
{
}

static int fake_poll_fd(const struct platform *pf)
{
	return -1;
}

static uint64_t fake_spin_ns(const struct platform *pf)
{
	return 0;
}

// --- scripts ------------------------------------------------------------------------------------

void fake_set_script(struct pf_ctx *ctx, fake_step_fn step, void *arg)
{
	to_ctx(ctx)->step = step;
	to_ctx(ctx)->step_arg = arg;
}

struct abi_regs *fake_regs(struct pf_ctx *ctx)
{
	return &to_ctx(ctx)->regs;
}

void fake_default_script(struct platform *pf, fake_step_fn step, void *arg)
{
	to_pf(pf)->default_step = step;
	to_pf(pf)->default_arg = arg;
}

void fake_unpark(struct pf_ctx *ctx)
{
	if (to_ctx(ctx)->in_guest)
		make_ready(to_ctx(ctx));
}

bool fake_payload(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct fake_ctx *c = to_ctx(ctx);

	if (len > PAYLOAD_MAX || fake_mem_copy(&ctx_as(c)->maps, addr, c->payload, len, false) != len)
		return false;
	c->payload_addr = addr;
	c->payload_len = len;
	return true;
}

void fake_refuse_stores(struct pf_ctx *ctx, unsigned n)
{
	to_ctx(ctx)->refuse_stores = n;
}

// --- address spaces and contexts ----------------------------------------------------------------

static struct fake_ctx *ctx_new(struct fake_as *as, const struct fake_ctx *like)
{
	struct fake_ctx *c = SLAB_NEW(ctx_slab, struct fake_ctx);

	if (!c)
		return NULL;
	c->ctx.as = &as->as;
	c->ctx.ev.kind = PF_EV_READY;
	if (like) {
		c->regs = like->regs;
		memcpy(c->fp, like->fp, sizeof(c->fp));
		c->step = like->step;
		c->step_arg = like->step_arg;
	} else {
		c->step = to_pf(as->as.pf)->default_step;
		c->step_arg = to_pf(as->as.pf)->default_arg;
		c->regs.cs = 0x33;
		c->regs.ss = 0x2b;
		c->regs.eflags = 0x202;
	}
	as->nr_ctx++;
	LIST_INSERT_HEAD(&as->ctxs, c, as_link);
	ctx_pf(c)->live++;
	return c;
}

static int as_create(struct platform *pf, const struct fake_ctx *parent, struct pf_as **ret_as,
		     struct pf_ctx **ret_ctx)
{
	struct fake_as *as = SLAB_NEW(as_slab, struct fake_as);
	struct fake_ctx *c;
	int r = 0;

	if (!as)
		return -ENOMEM;
	as->as.pf = pf;
	LIST_INIT(&as->ctxs);
	if (parent)
		r = fake_mem_fork(&ctx_as(parent)->maps, &as->maps);
	else
		fake_mem_init(&as->maps);
	c = r ? NULL : ctx_new(as, parent);
	if (!c) {
		if (!r)
			fake_mem_fini(&as->maps);
		slab_free(&as_slab, as);
		return -ENOMEM;
	}
	to_pf(pf)->live++;
	*ret_as = &as->as;
	*ret_ctx = &c->ctx;
	return 0;
}

static int fake_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	return as_create(pf, NULL, ret_as, ret_ctx);
}

static int fake_flush(struct pf_ctx *ctx);

static int fake_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx)
{
	int r = fake_flush(parent);

	return r ? r : as_create(parent->as->pf, to_ctx(parent), ret_as, ret_ctx);
}

static int fake_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx)
{
	struct fake_ctx *c;

	own(to_ctx(creator));
	c = ctx_new(to_as(creator->as), to_ctx(creator));
	if (!c)
		return -ENOMEM;
	*ret_ctx = &c->ctx;
	return 0;
}

static void queue_clear(struct fake_ctx *c)
{
	for (unsigned i = 0; i < c->nr_queued; i++)
		if (!c->queue[i].is_store && c->queue[i].op.kind == PF_OP_MAP_FD)
			close(c->queue[i].op.fd);
	c->nr_queued = 0;
	c->store_used = 0;
}

static int queue_run(struct fake_ctx *c, struct pf_event *ret_ev);

static void fake_ctx_exit(struct pf_ctx *ctx)
{
	struct fake_ctx *c = to_ctx(ctx);

	own(c);
	queue_run(c, &(struct pf_event){0});
	LIST_REMOVE(c, as_link);
	ctx_as(c)->nr_ctx--;
	ctx_pf(c)->live--;
	slab_free(&ctx_slab, c);
}

static void fake_as_kill(struct pf_as *as)
{
	struct fake_ctx *c;

	to_as(as)->dead = true;
	LIST_FOREACH(c, &to_as(as)->ctxs, as_link)
		if (c->in_guest)
			make_ready(c);
}

static void fake_as_free(struct pf_as *as)
{
	kassert(to_as(as)->nr_ctx == 0);
	fake_mem_fini(&to_as(as)->maps);
	to_pf(as->pf)->live--;
	slab_free(&as_slab, to_as(as));
}

// --- what is done on the way back -----------------------------------------------------------------

static int queued_run(struct fake_ctx *c, struct queued *q)
{
	if (q->done)
		return 0;
	q->done = true;
	if (!q->is_store)
		return fake_mem_op(&ctx_as(c)->maps, &q->op);
	if (fake_mem_copy(&ctx_as(c)->maps, q->addr, c->store_buf + q->at, q->len, true) != q->len)
		return -EFAULT;
	return 0;
}

// Runs the queue; the first failure ends it and is described in ret_ev.
static int queue_run(struct fake_ctx *c, struct pf_event *ret_ev)
{
	int r = 0;

	for (unsigned i = 0; i < c->nr_queued && !r; i++) {
		struct queued *q = &c->queue[i];

		r = queued_run(c, q);
		if (r)
			*ret_ev = (struct pf_event){
				.kind = q->is_store ? PF_EV_STORE_FAULT : PF_EV_OPS_FAILED,
				.ops = {.index = i,
					.error = r,
					.addr = q->is_store ? q->addr : q->op.addr,
					.len = q->is_store ? q->len : q->op.len}};
	}
	queue_clear(c);
	return r;
}

static void fake_resume(struct pf_ctx *ctx)
{
	struct fake_ctx *c = to_ctx(ctx);

	own(c);
	c->has_event = queue_run(c, &c->event) != 0;
	c->in_guest = true;
	c->kicked = false;
	make_ready(c);
}

static void fake_retry_call(struct pf_ctx *ctx)
{
	struct fake_ctx *c = to_ctx(ctx);

	own(c);
	kassert(c->ctx.ev.kind == PF_EV_SYSCALL);
	c->again = true;
}

static void fake_will_block(struct pf_ctx *ctx)
{
	own(to_ctx(ctx));
}

static void fake_kick(struct pf_ctx *ctx)
{
	struct fake_ctx *c = to_ctx(ctx);

	if (!c->in_guest)
		return;
	c->kicked = true;
	make_ready(c);
}

static bool fake_in_guest(const struct pf_ctx *ctx)
{
	return to_ctx(ctx)->in_guest;
}

static struct queued *queue_slot(struct fake_ctx *c)
{
	own(c);
	return c->nr_queued < QUEUE_MAX ? &c->queue[c->nr_queued] : NULL;
}

static int fake_queue_op(struct pf_ctx *ctx, const struct pf_op *op)
{
	struct fake_ctx *c = to_ctx(ctx);
	struct queued *q = queue_slot(c);
	int r, fd = -1;

	if (!q) {
		r = fake_flush(ctx);
		if (r)
			return r;
		q = queue_slot(c);
	}
	if (op->kind == PF_OP_MAP_FD) {
		fd = fcntl(op->fd, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return -errno;
	}
	*q = (struct queued){.op = *op};
	q->op.fd = fd;
	c->nr_queued++;
	return 0;
}

static int fake_flush(struct pf_ctx *ctx)
{
	struct pf_event ev;

	own(to_ctx(ctx));
	return queue_run(to_ctx(ctx), &ev);
}

static void *fake_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct fake_ctx *c = to_ctx(ctx);
	struct queued *q = queue_slot(c);

	if (c->refuse_stores) {
		c->refuse_stores--;
		return NULL;
	}
	if (!q || len > STORE_BYTES - c->store_used)
		return NULL;
	*q = (struct queued){.is_store = true, .addr = addr, .len = len, .at = c->store_used};
	c->nr_queued++;
	c->store_used += len;
	return c->store_buf + q->at;
}

static void fake_store_trim(struct pf_ctx *ctx, size_t len)
{
	struct fake_ctx *c = to_ctx(ctx);
	struct queued *q;

	own(c);
	kassert(c->nr_queued > 0);
	q = &c->queue[c->nr_queued - 1];
	kassert(q->is_store && len <= q->len);
	c->store_used -= q->len - len;
	q->len = len;
}

static int fake_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct fake_ctx *c = to_ctx(ctx);
	unsigned end = 0;
	int r = 0;

	own(c);
	for (unsigned i = 0; i < c->nr_queued; i++) {
		struct queued *q = &c->queue[i];

		if (q->is_store && q->addr < addr + len && addr < q->addr + q->len)
			end = i + 1;
	}
	// Those before as well: an older store must not undo a newer one that it overlaps.
	for (unsigned i = 0; i < end && !r; i++)
		if (c->queue[i].is_store)
			r = queued_run(c, &c->queue[i]);
	return r;
}

// --- memory -------------------------------------------------------------------------------------

static ssize_t copyv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n, bool write)
{
	ssize_t done = 0;

	if (to_as(as)->dead)
		return -ESRCH;
	for (int i = 0; i < n; i++) {
		size_t got = fake_mem_copy(&to_as(as)->maps, addr + (uint64_t)done, local[i].iov_base,
					   local[i].iov_len, write);

		done += (ssize_t)got;
		if (got < local[i].iov_len)
			return done ? done : -EFAULT;
	}
	return done;
}

static ssize_t fake_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return copyv(as, addr, local, n, false);
}

static ssize_t fake_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n)
{
	return copyv(as, addr, local, n, true);
}

static size_t fake_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret)
{
	struct fake_ctx *c = to_ctx(ctx);

	own(c);
	if (addr < c->payload_addr || addr - c->payload_addr >= c->payload_len)
		return 0;
	*ret = c->payload + (addr - c->payload_addr);
	return c->payload_len - (size_t)(addr - c->payload_addr);
}

static int fake_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared)
{
	const void *word = fake_mem_host(&to_as(ctx->as)->maps, addr);

	own(to_ctx(ctx));
	if (fake_flush(ctx) == 0 && word)
		futex_wake(to_pf(ctx->as->pf), word, count);
	return 0;
}

// --- registers ----------------------------------------------------------------------------------

static void fake_get_regs(struct pf_ctx *ctx, struct abi_regs *ret)
{
	own(to_ctx(ctx));
	*ret = to_ctx(ctx)->regs;
}

static void fake_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs)
{
	struct fake_ctx *c = to_ctx(ctx);

	own(c);
	c->regs = *regs;
	c->regs.cs = 0x33;
	c->regs.ss = 0x2b;
	c->regs.eflags = (regs->eflags & 0x240dd5) | 0x202;
}

static void fake_set_result(struct pf_ctx *ctx, int64_t rax)
{
	own(to_ctx(ctx));
	to_ctx(ctx)->regs.rax = (uint64_t)rax;
}

static size_t fake_fp_size(const struct platform *pf)
{
	return FP_SIZE;
}

static int fake_get_fp(struct pf_ctx *ctx, void *buf)
{
	own(to_ctx(ctx));
	memcpy(buf, to_ctx(ctx)->fp, FP_SIZE);
	return 0;
}

static int fake_set_fp(struct pf_ctx *ctx, const void *buf)
{
	uint64_t bv;

	own(to_ctx(ctx));
	memcpy(&bv, (const char *)buf + 512, sizeof(bv));
	if (bv & ~3ULL)
		return -EINVAL;
	memcpy(to_ctx(ctx)->fp, buf, FP_SIZE);
	return 0;
}

static int fake_reset_fp(struct pf_ctx *ctx)
{
	own(to_ctx(ctx));
	memset(to_ctx(ctx)->fp, 0, FP_SIZE);
	return 0;
}

static void fake_set_identity(struct pf_ctx *ctx, const struct pf_identity *id)
{
	own(to_ctx(ctx));
}

static void fake_set_local_calls(struct pf_ctx *ctx, bool on)
{
	own(to_ctx(ctx));
}

static uint64_t fake_as_cpu_ns(struct pf_as *as)
{
	return 0;
}

static uint64_t fake_ctx_cpu_ns(struct pf_ctx *ctx)
{
	return 0;
}

static uint64_t fake_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end)
{
	return 0;
}

const struct pf_backend fake_backend = {
	.name = "fake",
	.create = fake_create,
	.destroy = fake_destroy,
	.poll = fake_poll,
	.prepare_sleep = fake_prepare_sleep,
	.woke = fake_woke,
	.poll_fd = fake_poll_fd,
	.spin_ns = fake_spin_ns,
	.as_new = fake_as_new,
	.fork = fake_fork,
	.thread_new = fake_thread_new,
	.ctx_exit = fake_ctx_exit,
	.as_kill = fake_as_kill,
	.as_free = fake_as_free,
	.resume = fake_resume,
	.retry_call = fake_retry_call,
	.will_block = fake_will_block,
	.kick = fake_kick,
	.in_guest = fake_in_guest,
	.get_regs = fake_get_regs,
	.set_regs = fake_set_regs,
	.set_result = fake_set_result,
	.fp_size = fake_fp_size,
	.get_fp = fake_get_fp,
	.set_fp = fake_set_fp,
	.reset_fp = fake_reset_fp,
	.set_identity = fake_set_identity,
	.set_local_calls = fake_set_local_calls,
	.queue_op = fake_queue_op,
	.flush = fake_flush,
	.readv = fake_readv,
	.writev = fake_writev,
	.snapshot = fake_snapshot,
	.store = fake_store,
	.store_trim = fake_store_trim,
	.store_sync = fake_store_sync,
	.futex_wake = fake_futex_wake,
	.as_cpu_ns = fake_as_cpu_ns,
	.ctx_cpu_ns = fake_ctx_cpu_ns,
	.vdso = fake_vdso,
};
