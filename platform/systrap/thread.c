// Threads of an address space: the slots they live in, their start and end.
#include "platform/systrap/internal.h"

#define DRAIN_LOOK 16 // slots looked at for one that its host thread has left

static struct stub_ctx *page_of(const struct st_as *as, uint32_t slot)
{
	return (struct stub_ctx *)(as->map + (size_t)slot * STUB_CTX_SIZE);
}

static bool find_slot(struct st_as *as, uint32_t *ret_slot)
{
	for (uint32_t i = 0; i < as->n_drain && i < DRAIN_LOOK; i++) {
		uint32_t slot = as->drain[i];

		if (__atomic_load_n(&page_of(as, slot)->tid, __ATOMIC_ACQUIRE))
			continue; // the host zeroes it when the thread has ended
		as->drain[i] = as->drain[--as->n_drain];
		as->ctxs[slot] = NULL;
		*ret_slot = slot;
		return true;
	}
	while (as->hint < as->cap && (as->ctxs[as->hint] || as->hint == as->leader_slot))
		as->hint++;
	*ret_slot = as->hint;
	return as->hint < STUB_SLOTS;
}

static bool drain_room(struct st_as *as)
{
	uint32_t cap = MAX(16U, as->cap_drain * 2);
	uint16_t *n;

	if (as->n_drain < as->cap_drain)
		return true;
	n = krealloc(as->drain, as->cap_drain * sizeof(*n), cap * sizeof(*n));
	if (!n)
		return false;
	as->drain = n;
	as->cap_drain = cap;
	return true;
}

int systrap_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx)
{
	struct st_ctx *c = st_ctx_of(creator), *n;
	struct st_as *as = ctx_as(c);
	struct stub_op *op;
	uint32_t slot;

	if (as->dead)
		return -ESRCH;
	if (!find_slot(as, &slot))
		return -EAGAIN;
	n = st_ctx_new(as, slot);
	if (!n)
		return -ENOMEM;
	op = st_op_add(c, STUB_OP_CLONE, slot, 0);
	if (!op) {
		st_ctx_free(n);
		return -EAGAIN;
	}
	st_expect_clone(c, false);
	memset(n->pg, 0, sizeof(*n->pg));
	n->pg->local = c->pg->local;
	n->pg->state = STUB_SENTRY;
	n->pg->tid = ST_TID_UNBORN;
	systrap_get_regs(creator, &n->regs);
	n->regs_valid = n->regs_dirty = true;
	n->base.ev.kind = PF_EV_READY;
	*ret_ctx = &n->base;
	return 0;
}

void st_threads_failed(struct st_ctx *c, uint32_t first)
{
	struct st_as *as = ctx_as(c);

	for (uint32_t i = first; i < c->n_given; i++) {
		uint32_t slot = (uint32_t)c->notes[i].addr;
		struct st_ctx *n;

		if (c->notes[i].kind != STUB_OP_CLONE)
			continue;
		n = as->ctxs[slot];
		page_of(as, slot)->tid = 0;
		if (!n || n == ST_DRAINING)
			continue;
		n->failed = true;
		if (st_is_active(n))
			st_post(n, PF_EV_DEAD);
	}
}

void systrap_ctx_exit(struct pf_ctx *ctx)
{
	struct st_ctx *c = st_ctx_of(ctx);
	struct st_as *as = ctx_as(c);
	uint32_t slot = c->slot;

	if (c->flush_for_other && st_is_active(c)) {
		c->exit_after = true;
		return;
	}
	kassert(!st_is_active(c));
	if (!as->dead && !c->failed) {
		if (c->leader) {
			if (c->n_ops) {
				st_give(c, STUB_CMD_FLUSH);
				st_active_remove(c);
			}
		} else {
			c->cmd = 0;
			c->regs_dirty = false;
			st_give(c, STUB_CMD_EXIT);
			st_active_remove(c);
		}
	}
	st_ctx_free(c);
	if (slot == as->leader_slot)
		return;
	if (drain_room(as)) {
		as->drain[as->n_drain++] = (uint16_t)slot;
		as->ctxs[slot] = ST_DRAINING;
	} else {
		as->ctxs[slot] = ST_DRAINING; // lost to this address space
	}
}
