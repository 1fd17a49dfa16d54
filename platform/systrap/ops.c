// What the stub does on the way back to the guest: memory operations and deferred stores, in order.
//
// Descriptors travel through one socket an address space, in the order of the operations that use
// them. So at any time at most one context of an address space has operations queued or under way
// (as->ops_ctx); deferred stores and futex wake-ups are each context's own affair.
#include <sys/mman.h>
#include <sys/uio.h>

#include "platform/base/fdpass.h"
#include "platform/systrap/internal.h"

struct stub_op *st_op_add(struct st_ctx *c, enum stub_op_kind kind, uint64_t addr, uint64_t len)
{
	struct stub_op *op;

	if (c->n_ops == STUB_OPS)
		return NULL;
	op = &c->pg->ops[c->n_ops];
	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->addr = addr;
	op->len = len;
	c->notes[c->n_ops] = (struct st_op_note){.addr = addr, .len = len, .kind = (uint8_t)kind};
	c->n_ops++;
	return op;
}

bool st_ops_done(struct st_ctx *o)
{
	return st_is_active(o) && !o->flushing && __atomic_load_n(&o->pg->ops_done, __ATOMIC_ACQUIRE);
}

static bool must_wait(struct st_ctx *c)
{
	struct st_as *as = ctx_as(c);

	if (as->ops_ctx && as->ops_ctx != c && st_ops_done(as->ops_ctx))
		as->ops_ctx = NULL;
	return c->flushing || (as->ops_ctx && as->ops_ctx != c);
}

void st_ops_check_waiters(struct systrap *st)
{
	struct st_ctx *c, *next;

	for (c = TAILQ_FIRST(&st->op_waiters); c; c = next) {
		next = TAILQ_NEXT(c, wlink);
		if (must_wait(c) && !ctx_as(c)->dead)
			continue;
		TAILQ_REMOVE(&st->op_waiters, c, wlink);
		c->waits_ops = false;
		st->base.cfg.hooks.event(&c->base);
	}
}

// Makes sure that o's operations get done, whatever o's task does, and that we hear of it.
static void push_along(struct st_ctx *o)
{
	if (o->flushing)
		return;
	if (st_is_active(o)) {
		__atomic_store_n(&o->pg->notify, 1, __ATOMIC_SEQ_CST);
		return;
	}
	o->flushing = o->flush_for_other = true;
	st_give(o, STUB_CMD_FLUSH);
}

int st_ops_turn(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);
	struct st_as *as = ctx_as(c);

	while (!as->dead && must_wait(c)) {
		if (!c->flushing)
			push_along(as->ops_ctx);
		kassert(!c->waits_ops);
		c->waits_ops = true;
		TAILQ_INSERT_TAIL(&st->op_waiters, c, wlink);
		st->base.cfg.hooks.wait(&c->base);
		if (c->waits_ops) {
			TAILQ_REMOVE(&st->op_waiters, c, wlink);
			c->waits_ops = false;
		}
	}
	return as->dead ? -ESRCH : 0;
}

int st_flush(struct st_ctx *c)
{
	struct pf_event saved = c->base.ev, ev;

	if (ctx_as(c)->dead)
		return -ESRCH;
	c->flushing = true;
	st_give(c, STUB_CMD_FLUSH);
	do
		ctx_st(c)->base.cfg.hooks.wait(&c->base);
	while (c->flushing && !ctx_as(c)->dead);
	ev = c->base.ev;
	c->base.ev = saved;
	switch (ev.kind) {
	case PF_EV_OPS_DONE:
		return 0;
	case PF_EV_OPS_FAILED:
		return ev.ops.error;
	case PF_EV_STORE_FAULT:
		return -EFAULT;
	default:
		return -ESRCH;
	}
}

int systrap_flush(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);
	int r = 0;

	if (c->flushing) // on another's behalf
		r = st_ops_turn(c);
	if (r)
		return r;
	if (c->has_late) {
		c->has_late = false;
		return c->late_ev.kind == PF_EV_STORE_FAULT ? -EFAULT :
		       c->late_ev.kind == PF_EV_OPS_FAILED  ? c->late_ev.ops.error :
							      -ESRCH;
	}
	return c->n_ops ? st_flush(c) : 0;
}

static bool op_is_valid(const struct pf_op *op)
{
	uint64_t end;

	if ((op->addr | op->len) & ~PAGE_MASK || op->len == 0 || __builtin_add_overflow(op->addr, op->len, &end) ||
	    end > PF_GUEST_TOP)
		return false;
	if (op->kind != PF_OP_REMAP)
		return true;
	return !((op->new_addr | op->new_len) & ~PAGE_MASK) && op->new_len &&
	       !__builtin_add_overflow(op->new_addr, op->new_len, &end) && end <= PF_GUEST_TOP;
}

static uint32_t map_flags(uint32_t flags)
{
	// Locked memory is present memory: what the host's limit on it has to say is not the guest's.
	if (flags & MAP_LOCKED)
		flags = (flags & ~(uint32_t)MAP_LOCKED) | MAP_POPULATE;
	return flags & (MAP_SHARED | MAP_PRIVATE | MAP_GROWSDOWN | MAP_NORESERVE | MAP_POPULATE);
}

static void fill_op(struct stub_op *o, const struct pf_op *op)
{
	o->prot = op->prot;
	o->flags = op->flags;
	o->off = op->off;
	o->new_addr = op->new_addr;
	o->new_len = op->new_len;
	if (op->kind == PF_OP_MAP_ANON || op->kind == PF_OP_MAP_FD)
		o->flags = map_flags(op->flags);
	else if (op->kind == PF_OP_REMAP)
		o->flags = op->new_addr == op->addr ? 0 : (op->flags & MREMAP_DONTUNMAP) | MREMAP_MAYMOVE | MREMAP_FIXED;
}

int systrap_queue_op(struct pf_ctx *ctx, const struct pf_op *op)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct st_as *as = ctx_as(c);
	int r;

	if (!op_is_valid(op) || op->kind > PF_OP_MSYNC)
		return -EINVAL;
	r = st_ops_turn(c);
	if (!r && c->n_ops == STUB_OPS)
		r = st_flush(c);
	if (r)
		return r;
	if (op->kind == PF_OP_MAP_FD) {
		r = send_fds(as->sock, "M", 1, &op->fd, 1);
		if (r < 0)
			return r;
	}
	fill_op(st_op_add(c, (enum stub_op_kind)op->kind, op->addr, op->len), op);
	c->notes[c->n_ops - 1].index = (uint8_t)c->n_map_ops++;
	as->ops_ctx = c;
	return 0;
}

// --- payload ------------------------------------------------------------------------------------
static uint8_t *payload(const struct st_ctx *c)
{
	return (uint8_t *)c->pg + STUB_PAYLOAD_OFF;
}

size_t systrap_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret)
{
	struct st_ctx *c = st_ctx_of(ctx);

	for (uint32_t i = 0; i < c->n_snaps; i++) {
		const struct stub_snap *s = &c->snaps[i];

		if (addr >= s->addr && addr - s->addr < s->len) {
			*ret = payload(c) + s->off + (addr - s->addr);
			return s->len - (addr - s->addr);
		}
	}
	return 0;
}

static bool overlaps(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b ? b - a < a_len : a - b < b_len;
}

void *systrap_store(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct stub_op *op;

	if (len == 0 || len > STUB_PAYLOAD_SIZE - c->payload_used || addr >= PF_GUEST_TOP || len > PF_GUEST_TOP - addr ||
	    c->flushing || ctx_as(c)->dead)
		return NULL;
	op = st_op_add(c, STUB_OP_STORE, addr, len);
	if (!op)
		return NULL;
	op->off = c->notes[c->n_ops - 1].off = c->payload_used;
	c->notes[c->n_ops - 1].index = (uint8_t)c->n_stores++;
	c->payload_used += (uint32_t)len;
	// A snapshot of what is about to change would be out of date.
	for (uint32_t i = 0; i < c->n_snaps;) {
		if (overlaps(addr, len, c->snaps[i].addr, c->snaps[i].len))
			c->snaps[i] = c->snaps[--c->n_snaps];
		else
			i++;
	}
	return payload(c) + op->off;
}

void systrap_store_trim(struct pf_ctx *ctx, size_t len)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct st_op_note *n;

	if (!c->n_ops || c->notes[c->n_ops - 1].kind != STUB_OP_STORE)
		return;
	n = &c->notes[c->n_ops - 1];
	if (len >= n->len)
		return;
	c->payload_used = n->off + (uint32_t)len;
	n->len = len;
	c->pg->ops[c->n_ops - 1].len = len;
	if (len == 0) {
		c->n_ops--;
		c->n_stores--;
	}
}

int systrap_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len)
{
	struct st_ctx *c = st_ctx_of(ctx);

	for (uint32_t i = 0; i < c->n_ops; i++) {
		struct st_op_note *n = &c->notes[i];
		struct iovec iov = {payload(c) + n->off, n->len};

		if (n->kind != STUB_OP_STORE || !n->len || !overlaps(addr, len, n->addr, n->len))
			continue;
		// Memory operations before it must come first: then only the stub can do it.
		if (c->n_map_ops)
			return systrap_flush(ctx);
		if (systrap_writev(ctx->as, n->addr, &iov, 1) != (ssize_t)n->len)
			return -EFAULT;
		c->pg->ops[i].len = n->len = 0;
	}
	return 0;
}

int systrap_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct stub_op *op;
	int r = 0;

	if (c->flushing)
		r = st_ops_turn(c);
	if (!r && c->n_ops == STUB_OPS)
		r = st_flush(c);
	if (r)
		return r;
	op = st_op_add(c, STUB_OP_FUTEX_WAKE, addr, count);
	op->flags = shared;
	return 0;
}
