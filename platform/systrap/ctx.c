// Contexts: handing over, events, registers.
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>

#include "abi/x86_64/sigcontext.h"
#include "platform/systrap/internal.h"

DEFINE_SLAB(st_ctx_slab, struct st_ctx);

struct st_ctx *st_ctx_new(struct st_as *as, uint32_t slot)
{
	struct systrap *st = st_of(as->base.pf);
	struct st_ctx *c;

	if (st_active_room(st))
		return NULL;
	c = SLAB_NEW(st_ctx_slab, struct st_ctx);
	if (!c)
		return NULL;
	if (slot >= as->cap) {
		uint32_t cap = MAX(slot + 1, as->cap * 2);
		struct st_ctx **n = krealloc(as->ctxs, as->cap * sizeof(*n), cap * sizeof(*n));

		if (!n) {
			slab_free(&st_ctx_slab, c);
			return NULL;
		}
		as->ctxs = n;
		as->cap = cap;
	}
	kassert(!as->ctxs[slot]);
	as->ctxs[slot] = c;
	as->n_ctx++;
	st->n_ctx++;
	c->base.as = &as->base;
	c->slot = slot;
	c->active = -1;
	c->pg = (struct stub_ctx *)(as->map + (size_t)slot * STUB_CTX_SIZE);
	return c;
}

void st_ctx_free(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);
	struct st_as *as = ctx_as(c);

	if (st_is_active(c))
		st_active_remove(c);
	if (c->pending)
		TAILQ_REMOVE(&st->pending, c, link);
	st_expect_none(c);
	if (c->queued)
		TAILQ_REMOVE(&st->spawns, c, link);
	if (st->spawning == c)
		st->spawning = NULL;
	if (c->waits_ops)
		TAILQ_REMOVE(&st->op_waiters, c, wlink);
	if (as->ops_ctx == c)
		as->ops_ctx = NULL;
	as->ctxs[c->slot] = NULL;
	as->n_ctx--;
	st->n_ctx--;
	slab_free(&st_ctx_slab, c);
}

// --- who has it -------------------------------------------------------------------------------
int st_active_room(struct systrap *st)
{
	uint32_t cap = MAX(64U, st->cap_active * 2);
	struct st_ctx **n;

	if (st->n_ctx < st->cap_active)
		return 0;
	n = krealloc(st->active, st->cap_active * sizeof(*n), cap * sizeof(*n));
	if (!n)
		return -ENOMEM;
	st->active = n;
	st->cap_active = cap;
	return 0;
}

void st_active_add(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);

	kassert(c->active < 0 && st->n_active < st->cap_active); // st_ctx_new made room
	c->active = (int)st->n_active;
	st->active[st->n_active++] = c;
	st->n_running++;
}

void st_active_remove(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);
	struct st_ctx *last = st->active[--st->n_active];

	st->active[c->active] = last;
	last->active = c->active;
	c->active = -1;
	if (st->n_running)
		st->n_running--;
}

void st_post(struct st_ctx *c, enum pf_event_kind kind)
{
	struct systrap *st = ctx_st(c);

	if (c->pending)
		return;
	if (st_is_active(c))
		st_active_remove(c);
	c->base.ev.kind = kind;
	c->pending = true;
	TAILQ_INSERT_TAIL(&st->pending, c, link);
}

void st_post_event(struct st_ctx *c, const struct pf_event *ev)
{
	st_post(c, ev->kind);
	c->base.ev = *ev;
}

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void regs_put(struct stub_regs *t, const struct abi_regs *r)
{
	t->r15 = r->r15, t->r14 = r->r14, t->r13 = r->r13, t->r12 = r->r12;
	t->rbp = r->rbp, t->rbx = r->rbx, t->r11 = r->r11, t->r10 = r->r10;
	t->r9 = r->r9, t->r8 = r->r8, t->rax = r->rax, t->rcx = r->rcx;
	t->rdx = r->rdx, t->rsi = r->rsi, t->rdi = r->rdi;
	t->rip = r->rip, t->eflags = r->eflags, t->rsp = r->rsp;
	t->fs_base = r->fs_base, t->gs_base = r->gs_base;
}

// One store and nothing else, as most calls have it: it travels in the line that goes to the stub
// anyway, or with its bytes only. Every line more costs what the hand-over itself does.
static bool give_store(struct st_ctx *c)
{
	const struct st_op_note *n = &c->notes[0];
	struct stub_ctx *pg = c->pg;

	if (c->n_ops != 1 || n->kind != STUB_OP_STORE)
		return false;
	pg->args[0] = n->addr;
	pg->args[1] = n->len;
	if (n->len <= STUB_STORE_INLINE)
		memcpy(&pg->args[2], (uint8_t *)pg + STUB_PAYLOAD_OFF + n->off, n->len);
	else
		pg->args[2] = n->off;
	c->n_given = 1;
	c->n_ops = c->n_stores = 0;
	return true;
}

void st_give(struct st_ctx *c, uint32_t cmd)
{
	struct stub_ctx *pg = c->pg;
	uint32_t old;

	cmd |= c->cmd;
	if (c->n_ops && !(cmd & STUB_CMD_FLUSH) && give_store(c)) {
		cmd |= STUB_CMD_STORE;
	} else if (unlikely(c->n_ops)) {
		pg->n_ops = c->n_ops;
		pg->notify = 0;
		__atomic_store_n(&pg->ops_done, 0, __ATOMIC_RELAXED);
		c->n_given = c->n_ops;
		cmd |= STUB_CMD_OPS;
		c->n_ops = c->n_map_ops = c->n_stores = 0;
	}
	if (!(cmd & STUB_CMD_FLUSH)) {
		if (unlikely(c->regs_dirty)) {
			regs_put(&pg->regs, &c->regs);
			cmd = (cmd | STUB_CMD_REGS) & ~STUB_CMD_RESULT;
		}
		pg->nr = (uint64_t)c->result;
		c->cmd = 0;
		c->regs_dirty = c->regs_valid = false;
		c->n_snaps = 0;
		c->payload_used = 0;
	} else {
		cmd &= ~(uint32_t)(STUB_CMD_RESULT | STUB_CMD_RETRY);
		c->payload_used = 0;
		for (uint32_t i = 0; i < c->n_snaps; i++) // still there, and still valid
			c->payload_used = MAX(c->payload_used, (c->snaps[i].off + c->snaps[i].len + 15) & ~15U);
	}
	if (pg->kick) // written only if need be: the stub reads this line all the time
		pg->kick = 0;
	c->kicked = false;
	pg->kind = cmd;
	st_active_add(c);
	old = __atomic_exchange_n(&pg->state, STUB_GUEST, __ATOMIC_SEQ_CST);
	if (old == STUB_SENTRY_FUTEX)
		futex_wake(&pg->state);
}

void systrap_resume(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);

	if (unlikely(c->flushing)) { // on another task's behalf
		c->resume_after = true;
		return;
	}
	kassert(!st_is_active(c) && !c->pending);
	if (unlikely(c->has_late)) {
		c->has_late = false;
		st_post_event(c, &c->late_ev);
		return;
	}
	if (unlikely(c->failed || ctx_as(c)->dead)) {
		st_post(c, PF_EV_DEAD);
		return;
	}
	st_give(c, 0);
}

void systrap_will_block(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);
	uint32_t want = STUB_SENTRY;

	if (!st_is_active(c))
		__atomic_compare_exchange_n(&c->pg->state, &want, STUB_SENTRY_NOSPIN, false, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED);
}

bool systrap_in_guest(const struct pf_ctx *ctx)
{
	const struct st_ctx *c = st_ctx_of(ctx);

	return st_is_active(c) && !c->flushing;
}

void systrap_kick(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct st_as *as = ctx_as(c);
	uint32_t tid;

	if (!systrap_in_guest(ctx) || c->kicked || as->dead || c->starting)
		return;
	c->kicked = true;
	// A host thread that is yet to start looks at this word before it enters the guest.
	__atomic_store_n(&c->pg->kick, 1, __ATOMIC_SEQ_CST);
	tid = c->leader ? (uint32_t)as->pid : __atomic_load_n(&c->pg->tid, __ATOMIC_SEQ_CST);
	if (tid && as->pid && tid <= INT32_MAX)
		syscall(SYS_tgkill, as->pid, tid, STUB_KICK_SIGNAL);
}

void systrap_retry_call(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);

	c->cmd = (c->cmd & ~STUB_CMD_RESULT) | STUB_CMD_RETRY;
}

// --- rewriting of call sites ------------------------------------------------------------------
static uint64_t area_for(struct st_ctx *c, uint64_t site, bool *ret_fresh)
{
	struct st_as *as = ctx_as(c);
	const struct pf_config *cfg = &as->base.pf->cfg;
	uint64_t area;

	if (!cfg->hooks.patch_area || cfg->no_patching || site >= PF_GUEST_TOP - 16 || c->flushing || c->starting)
		return 0;
	area = cfg->hooks.patch_area(&as->base, site, STUB_AREA_SIZE);
	if (!area)
		return 0;
	kassert(area % PAGE_SIZE == 0 && area < PF_GUEST_TOP - STUB_AREA_SIZE);
	*ret_fresh = false;
	for (uint32_t i = 0; i < as->n_areas; i++)
		if (as->areas[i] == area)
			return area;
	if (as->n_areas == STUB_AREAS)
		return 0;
	as->areas[as->n_areas++] = area;
	*ret_fresh = true;
	return area;
}

// Answers at once; the guest never knows, and a kick that is under way stays so.
static void answer_patch(struct st_ctx *c)
{
	volatile struct stub_ctx *pg = c->pg;
	bool fresh = false;

	pg->nr = area_for(c, pg->args[0], &fresh);
	pg->args[0] = fresh;
	pg->kind = 0;
	if (__atomic_exchange_n(&c->pg->state, STUB_GUEST, __ATOMIC_SEQ_CST) == STUB_SENTRY_FUTEX)
		futex_wake(&c->pg->state);
}

// --- events -----------------------------------------------------------------------------------
static void take_snaps(struct st_ctx *c, uint32_t n)
{
	uint32_t used = 0;

	c->n_snaps = 0;
	for (uint32_t i = 0; i < n && i < STUB_SNAPS; i++) {
		struct stub_snap s = *(volatile struct stub_snap *)&c->pg->snaps[i];

		if (s.len == 0 || s.len > STUB_PAYLOAD_SIZE || s.off > STUB_PAYLOAD_SIZE - s.len)
			continue;
		c->snaps[c->n_snaps++] = s;
		used = MAX(used, (s.off + s.len + 15) & ~15U);
	}
	c->payload_used = used;
}

static void take_syscall(struct st_ctx *c, uint32_t kind)
{
	volatile struct stub_ctx *pg = c->pg;
	struct pf_event *ev = &c->base.ev;

	ev->kind = PF_EV_SYSCALL;
	ev->sc.nr = (uint32_t)pg->nr;
	for (int i = 0; i < 6; i++)
		ev->sc.args[i] = pg->args[i];
	if (kind >> 8)
		take_snaps(c, kind >> 8);
}

static void take_fault(struct st_ctx *c)
{
	volatile struct stub_ctx *pg = c->pg;
	struct pf_event *ev = &c->base.ev;
	int signo = pg->signo;

	if (signo != SIGSEGV && signo != SIGBUS && signo != SIGFPE && signo != SIGILL && signo != SIGTRAP)
		signo = SIGSEGV;
	ev->kind = PF_EV_FAULT;
	ev->fault.signo = signo;
	ev->fault.code = pg->code;
	ev->fault.addr = pg->fault_addr;
	ev->fault.trapno = pg->trapno;
	ev->fault.err = pg->err;
}

static void take_failure(struct st_ctx *c, uint32_t kind)
{
	uint32_t i = *(volatile uint32_t *)&c->pg->fail_index;
	int error = *(volatile int32_t *)&c->pg->fail_error;
	struct pf_event *ev = &c->base.ev;
	const struct st_op_note *n;

	if (i >= c->n_given)
		i = c->n_given - 1;
	if (error >= 0 || error < -4095)
		error = -EIO;
	n = &c->notes[i];
	ev->kind = kind == STUB_EV_STORE_FAULT ? PF_EV_STORE_FAULT : PF_EV_OPS_FAILED;
	ev->ops.index = n->index;
	ev->ops.error = error;
	ev->ops.addr = n->addr;
	ev->ops.len = n->len;
	st_threads_failed(c, i);
}

// Fills base.ev from the page. False: the stub broke the rules.
static bool take_event(struct st_ctx *c)
{
	uint32_t kind = *(volatile uint32_t *)&c->pg->kind;

	switch (kind & 0xff) {
	case STUB_EV_SYSCALL:
		take_syscall(c, kind);
		return !c->flushing && !c->starting;
	case STUB_EV_FAULT:
		take_fault(c);
		return !c->flushing && !c->starting;
	case STUB_EV_INTERRUPT:
		c->base.ev.kind = PF_EV_INTERRUPT;
		return !c->flushing && !c->starting;
	case STUB_EV_READY:
		c->base.ev.kind = PF_EV_READY;
		return c->starting;
	case STUB_EV_OPS_DONE:
		c->base.ev.kind = PF_EV_OPS_DONE;
		return c->flushing;
	case STUB_EV_OPS_FAILED:
	case STUB_EV_STORE_FAULT:
		if (!c->n_given)
			return false;
		take_failure(c, kind & 0xff);
		return true;
	default:
		return false;
	}
}

// The end of a flush that another context's task asked for: this one's task must not notice.
static bool end_flush_for_other(struct st_ctx *c, const struct pf_event *saved)
{
	c->flush_for_other = false;
	if (c->base.ev.kind != PF_EV_OPS_DONE) {
		c->late_ev = c->base.ev;
		c->has_late = true;
	}
	c->base.ev = *saved;
	if (c->exit_after) {
		systrap_ctx_exit(&c->base);
	} else if (c->resume_after) {
		c->resume_after = false;
		systrap_resume(&c->base);
	}
	return false;
}

static bool end_start(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);
	struct st_as *as = ctx_as(c);

	c->starting = false;
	if (as != st->zygote && !st_as_attest(as)) {
		log_warn("systrap: a new stub did not say who it is");
		systrap_as_kill(&as->base);
		c->base.ev.kind = PF_EV_DEAD;
	}
	if (!c->for_pool)
		return true;
	st->pool_coming--;
	c->for_pool = false;
	if (c->base.ev.kind == PF_EV_READY && st->n_pool < ST_POOL_MAX)
		st->pool[st->n_pool++] = c;
	else
		systrap_as_free(&as->base);
	return false;
}

bool st_take(struct st_ctx *c)
{
	struct systrap *st = ctx_st(c);
	struct st_as *as = ctx_as(c);
	struct pf_event saved;

	if (__atomic_load_n(&c->pg->state, __ATOMIC_ACQUIRE) < STUB_SENTRY)
		return false;
	if (unlikely((c->pg->kind & 0xff) == STUB_EV_PATCH)) {
		answer_patch(c);
		return false;
	}
	if (unlikely(c->flush_for_other))
		saved = c->base.ev;
	st_active_remove(c);
	c->kicked = false;
	if (unlikely(c->expected))
		st_expect_none(c);
	if (unlikely(!take_event(c))) {
		log_warn("systrap: stub %d broke the protocol (event %u)", as->pid, c->pg->kind & 0xff);
		systrap_as_kill(&as->base);
		c->base.ev.kind = PF_EV_DEAD;
	}
	if (unlikely(as->ops_ctx == c))
		as->ops_ctx = NULL;
	if (unlikely(c->starting))
		return end_start(c);
	if (unlikely(c->flushing)) {
		c->flushing = false;
		if (c == st->zctx) {
			st_spawn_done(st, c->base.ev.kind == PF_EV_OPS_DONE);
			return false;
		}
		if (c->flush_for_other)
			return end_flush_for_other(c, &saved);
	}
	return true;
}

// --- registers ----------------------------------------------------------------------------------
static void load_regs(struct st_ctx *c)
{
	struct stub_regs t = *(volatile struct stub_regs *)&c->pg->regs;
	struct abi_regs *r = &c->regs;

	r->r15 = t.r15, r->r14 = t.r14, r->r13 = t.r13, r->r12 = t.r12;
	r->rbp = t.rbp, r->rbx = t.rbx, r->r11 = t.r11, r->r10 = t.r10;
	r->r9 = t.r9, r->r8 = t.r8, r->rax = t.rax, r->rcx = t.rcx;
	r->rdx = t.rdx, r->rsi = t.rsi, r->rdi = t.rdi;
	r->rip = t.rip, r->eflags = (t.eflags & ABI_EFLAGS_USER) | ABI_EFLAGS_FIXED, r->rsp = t.rsp;
	r->fs_base = t.fs_base, r->gs_base = t.gs_base;
	r->orig_rax = c->base.ev.kind == PF_EV_SYSCALL ? c->base.ev.sc.nr : UINT64_MAX;
	r->cs = ABI_USER_CS, r->ss = ABI_USER_SS;
	r->ds = r->es = r->fs = r->gs = 0;
	if (c->cmd & STUB_CMD_RESULT)
		r->rax = (uint64_t)c->result;
	c->regs_valid = true;
}

void systrap_get_regs(struct pf_ctx *ctx, struct abi_regs *ret)
{
	struct st_ctx *c = st_ctx_of(ctx);

	if (!c->regs_valid)
		load_regs(c);
	*ret = c->regs;
}

static uint64_t canonical(uint64_t addr)
{
	return (uint64_t)((int64_t)(addr << 16) >> 16) & INT64_MAX;
}

void systrap_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct abi_regs *r = &c->regs;

	*r = *regs;
	r->eflags = (r->eflags & ABI_EFLAGS_USER) | ABI_EFLAGS_FIXED;
	r->cs = ABI_USER_CS, r->ss = ABI_USER_SS;
	r->ds = r->es = r->fs = r->gs = 0;
	if (r->fs_base >= PF_GUEST_TOP)
		r->fs_base = canonical(r->fs_base) & (PF_GUEST_TOP - 1);
	if (r->gs_base >= PF_GUEST_TOP)
		r->gs_base = canonical(r->gs_base) & (PF_GUEST_TOP - 1);
	c->regs_valid = c->regs_dirty = true;
	c->cmd &= ~(uint32_t)STUB_CMD_RESULT;
}

void systrap_set_result(struct pf_ctx *ctx, int64_t rax)
{
	struct st_ctx *c = st_ctx_of(ctx);

	c->result = rax;
	c->cmd |= STUB_CMD_RESULT;
	c->regs.rax = (uint64_t)rax; // counts only if regs_valid
}

void systrap_set_identity(struct pf_ctx *ctx, const struct pf_identity *id)
{
	uint32_t *ids = st_ctx_of(ctx)->pg->ids;

	ids[0] = id->pid, ids[1] = id->tid, ids[2] = id->uid;
	ids[3] = id->euid, ids[4] = id->gid, ids[5] = id->egid;
}

void systrap_set_local_calls(struct pf_ctx *ctx, bool on)
{
	st_ctx_of(ctx)->pg->local = on;
}
