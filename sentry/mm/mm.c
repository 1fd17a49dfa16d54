// Life of an mm: creation and layout, fork, the last user; operations that failed; growing stacks.
#include "sentry/mm/mm.h"

#include "platform/base/assert.h"
#include "platform/base/log.h"
#include "platform/base/random.h"
#include "platform/base/slab.h"
#include "sentry/mm/vma.h"

#define STACK_RND_PAGES (1UL << 22)
#define MMAP_RND_PAGES (1UL << 28)
#define HUGE_SIZE (2UL << 20)
#define MIN_GAP (128UL << 20)
#define PIE_BASE PAGE_DOWN(PF_GUEST_TOP / 3 * 2)
#define STACK_DEFAULT_LIMIT (8UL << 20)
#define STACK_STRIDE (256UL << 10) // a stack that grows does so in steps: each costs a trip to the sentry

DEFINE_SLAB(mm_slab, struct mm);

// As Linux: the stack at the top, the mappings below the room that it may need, a PIE at two thirds.
void mm_layout(struct mm *mm)
{
	uint64_t pad = STACK_GUARD_GAP + (mm->no_aslr ? 0 : STACK_RND_PAGES << PAGE_SHIFT);
	uint64_t gap = mm->lim.stack, gap_max = PF_GUEST_TOP / 6 * 5;

	if (gap < UINT64_MAX - pad)
		gap += pad;
	gap = MIN(MAX(gap, MIN_GAP), gap_max);
	mm->mmap_base = PAGE_DOWN(PF_GUEST_TOP - gap - mm->mmap_rnd);
}

static void layout_randomise(struct mm *mm)
{
	mm->stack_top = PF_GUEST_TOP - HUGE_SIZE / 4;
	mm->pie_base = PIE_BASE;
	if (!mm->no_aslr) {
		mm->stack_top -= random_below(STACK_RND_PAGES) << PAGE_SHIFT;
		mm->mmap_rnd = random_below(MMAP_RND_PAGES) << PAGE_SHIFT;
		// The stack is mapped to its full size at once. Where its top lies just above a border of huge
		// pages, a host that uses them freely would give a whole one to every small program.
		if (mm->stack_top % HUGE_SIZE < HUGE_SIZE / 4)
			mm->stack_top -= HUGE_SIZE / 4;
		mm->pie_base += random_below(MMAP_RND_PAGES) << PAGE_SHIFT;
	}
	mm_layout(mm);
}

int mm_new(struct platform *pf, bool no_aslr, struct mm **ret_mm, struct pf_ctx **ret_ctx)
{
	struct mm *mm = SLAB_NEW(mm_slab, struct mm);
	struct pf_ctx *ctx;
	int r;

	if (!mm)
		return -ENOMEM;
	r = pf_as_new(pf, &mm->as, &ctx);
	if (r < 0) {
		slab_free(&mm_slab, mm);
		return r;
	}
	mm->as->owner = mm;
	ref_init(&mm->users, 1);
	klock_init(&mm->lock);
	mm->no_aslr = no_aslr;
	mm->dumpable = true;
	mm->lim = (struct mm_limits){.as = UINT64_MAX, .data = UINT64_MAX, .stack = STACK_DEFAULT_LIMIT, .memlock = 8UL << 20};
	layout_randomise(mm);
	*ret_mm = mm;
	*ret_ctx = ctx;
	return 0;
}

struct mm *mm_get(struct mm *mm)
{
	ref_get(&mm->users);
	return mm;
}

static void mm_free(struct mm *mm)
{
	struct vma *dead = NULL;

	kassert(vma_clear(mm, 0, PF_GUEST_TOP, &dead) == 0);
	vma_free_list(dead);
	kassert(mm->map_count == 0 && mm->vm_pages == 0 && mm->data_pages == 0 && mm->locked_pages == 0);
	mobj_put(mm->exe);
	slab_free(&mm_slab, mm);
}

void mm_put(struct mm *mm)
{
	if (!mm || !ref_put(&mm->users))
		return;
	pf_as_free(mm->as);
	mm_free(mm);
}

// --- fork --------------------------------------------------------------------------------------

static struct mm *mm_dup_fields(const struct mm *p)
{
	struct mm *mm = SLAB_NEW(mm_slab, struct mm);

	if (!mm)
		return NULL;
	*mm = *p;
	ref_init(&mm->users, 1);
	klock_init(&mm->lock);
	mm->vmas = NULL;
	mm->map_count = mm->vm_pages = mm->data_pages = mm->locked_pages = mm->peak_pages = 0;
	mm->lock_future = false; // mlockall(2): not inherited, and neither are the locks
	mm->owner = NULL;
	mm->npending = 0;
	if (mm->exe)
		mobj_get(mm->exe);
	return mm;
}

static int fork_vma(struct mm *mm, struct pf_ctx *ctx, const struct vma *v)
{
	struct pf_op op = {.addr = v->start, .len = v->end - v->start};
	struct vma *n;

	if (v->vm_flags & MM_VM_DONTFORK) {
		op.kind = PF_OP_UNMAP;
		return mm_queue(mm, ctx, &op);
	}
	n = vma_dup(v);
	if (!n)
		return -ENOMEM;
	n->vm_flags &= (uint16_t)~MM_VM_LOCKED;
	vma_link(mm, n);
	if (!(v->vm_flags & MM_VM_WIPEONFORK))
		return 0;
	op.kind = PF_OP_ADVISE;
	op.flags = MADV_DONTNEED;
	return mm_queue(mm, ctx, &op);
}

int mm_fork(struct mm *parent, struct pf_as *child_as, struct pf_ctx *child_ctx, struct mm **ret)
{
	struct mm *mm = mm_dup_fields(parent);
	int r;

	if (!mm)
		return -ENOMEM;
	mm->as = child_as;
	child_as->owner = mm;
	for (struct vma *v = vma_first(parent); v; v = vma_next(v)) {
		r = fork_vma(mm, child_ctx, v);
		if (r < 0) {
			child_as->owner = NULL;
			mm_free(mm); // the address space stays the caller's
			return r;
		}
	}
	*ret = mm;
	return 0;
}

// --- operations and their failures -------------------------------------------------------------

int mm_queue(struct mm *mm, struct pf_ctx *ctx, const struct pf_op *op)
{
	unsigned i = mm->npending++ % MM_PENDING;

	mm->pending[i].addr = op->addr;
	mm->pending[i].len = op->len;
	mm->pending[i].kind = (int)op->kind;
	return pf_queue_op(ctx, op);
}

int mm_op_failed(struct mm *mm, uint64_t addr, uint64_t len, int error)
{
	struct vma *dead = NULL;
	int kind = -1;

	for (unsigned i = 0; i < MM_PENDING && i < mm->npending; i++) {
		unsigned k = (mm->npending - 1 - i) % MM_PENDING;

		if (mm->pending[k].addr == addr && mm->pending[k].len == len) {
			kind = mm->pending[k].kind;
			break;
		}
	}
	log_debug("mm: operation %d on %#lx+%#lx failed: %s", kind, addr, len, strerror(-error));
	// A mapping that the host refused is not there. Protections and advice need no repair: the host's
	// are the stricter ones, and a guest that saw the error expects nothing of the range.
	if ((kind == PF_OP_MAP_ANON || kind == PF_OP_MAP_FD) && mm_range_ok(addr, len)) {
		klock_lock(&mm->lock);
		if (vma_clear(mm, addr, addr + len, &dead) < 0)
			log_warn("mm: no memory to forget a refused mapping");
		klock_unlock(&mm->lock);
		vma_free_list(dead);
	}
	return error < 0 ? error : -ENOMEM;
}

// --- growing stacks ----------------------------------------------------------------------------

static bool gap_below_ok(struct vma *below, uint64_t start)
{
	if (!below)
		return true;
	if (below->end > start)
		return false;
	return vma_is_stack(below) || below->prot == PROT_NONE || start - below->end >= STACK_GUARD_GAP;
}

bool mm_fault_grow(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t sp)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .flags = MAP_PRIVATE};
	uint64_t start = PAGE_DOWN(addr), want = start, lowest;
	struct vma *v, *below;
	bool grown = false;

	(void)sp; // Linux asks no longer how far below the stack pointer it is
	if (addr >= PF_GUEST_TOP || addr < PF_GUEST_MIN)
		return false;
	klock_lock(&mm->lock);
	v = vma_find(mm, addr);
	if (!v || !vma_is_stack(v))
		goto out;
	if (v->start <= addr) { // another thread's fault was first; or a real violation
		grown = false;
		goto out;
	}
	below = vma_prev(v);
	lowest = mm->lim.stack < v->end ? PAGE_UP(v->end - mm->lim.stack) : 0;
	if (start < lowest || !gap_below_ok(below, start))
		goto out;
	if (v->start - start < STACK_STRIDE && v->start > STACK_STRIDE + PF_GUEST_MIN)
		want = MAX(v->start - STACK_STRIDE, lowest);
	if (want > start || !gap_below_ok(below, want) || !mm_may_expand(mm, (v->start - want) >> PAGE_SHIFT, false))
		want = start;
	if (!mm_may_expand(mm, (v->start - want) >> PAGE_SHIFT, false))
		goto out;
	if ((v->vm_flags & MM_VM_LOCKED) && mm_may_lock(mm, (v->start - want) >> PAGE_SHIFT, -EAGAIN) < 0)
		goto out;
	op.addr = want;
	op.len = v->start - want;
	op.prot = v->prot;
	vma_set_bounds(mm, v, want, v->end);
	grown = mm_queue(mm, ctx, &op) == 0;
out:
	klock_unlock(&mm->lock);
	return grown;
}

// --- looking -----------------------------------------------------------------------------------

static const char *special_name(const struct mm *mm, const struct vma *v)
{
	if (v->name)
		return v->name->s;
	if (v->obj)
		return "";
	if (v->start < mm->brk && v->end > mm->start_brk)
		return "[heap]";
	if (v->start <= mm->start_stack && v->end > mm->start_stack)
		return "[stack]";
	return "";
}

bool mm_next_vma(struct mm *mm, uint64_t addr, struct vma_info *ret)
{
	const struct vma *v = vma_find(mm, addr);

	while (v && v->vm_flags & MM_VM_PATCH)
		v = vma_find(mm, v->end);
	if (!v)
		return false;
	*ret = (struct vma_info){.start = v->start, .end = v->end, .off = v->off, .prot = v->prot, .max_prot = v->max_prot, .flags = (int)v->flags,
				 .obj = v->obj, .name = special_name(mm, v), .vm_flags = v->vm_flags};
	return true;
}
