// mremap(2). The host moves the pages, and at once: only it can say whether it sees one mapping where
// the tree has one, and the caller must learn of a refusal before anything is changed here.
#include "platform/base/checked.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"

struct remap {
	uint64_t old, old_len, new, new_len;
	int flags;
};

static int remap_check(struct remap *q)
{
	if (q->flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
		return -EINVAL;
	if ((q->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(q->flags & MREMAP_MAYMOVE))
		return -EINVAL;
	if (PAGE_OFF(q->old))
		return -EINVAL;
	if (!page_up_checked(q->old_len, &q->old_len) || !page_up_checked(q->new_len, &q->new_len) || q->new_len == 0)
		return -EINVAL;
	if ((q->flags & MREMAP_DONTUNMAP) && q->old_len != q->new_len)
		return -EINVAL;
	if (!(q->flags & MREMAP_FIXED))
		return 0;
	if (PAGE_OFF(q->new) || !mm_range_ok(q->new, q->new_len))
		return -EINVAL;
	if (q->new < PF_GUEST_MIN)
		return -EPERM;
	if (q->old < q->new + q->new_len && q->new < q->old + q->old_len)
		return -EINVAL;
	return 0;
}

// The VMA that the request is about, and whether it may be made longer.
static int remap_vma(struct mm *mm, const struct remap *q, struct vma **ret)
{
	struct vma *v = vma_at(mm, q->old);
	uint64_t more = q->new_len > q->old_len ? (q->new_len - q->old_len) >> PAGE_SHIFT : 0, end;
	uint64_t extra = q->flags & MREMAP_DONTUNMAP ? q->old_len >> PAGE_SHIFT : more;

	if (!v || v->vm_flags & MM_VM_PATCH)
		return -EFAULT;
	if (q->old_len == 0 && !vma_shared(v))
		return -EINVAL;
	if (q->old_len > v->end - q->old)
		return -EFAULT;
	if (v->obj && more && (!add_u64(v->off + (q->old - v->start), q->new_len, &end) || end > INT64_MAX))
		return -EINVAL;
	if ((v->vm_flags & MM_VM_LOCKED) && more) {
		int r = mm_may_lock(mm, more, -EAGAIN);

		if (r < 0)
			return r == -EPERM ? -EAGAIN : r;
	}
	if (!mm_may_expand(mm, extra, vma_is_data(v)))
		return -ENOMEM;
	*ret = v;
	return 0;
}

static int remap_op(struct mm *mm, struct pf_ctx *ctx, const struct remap *q)
{
	struct pf_op op = {.kind = PF_OP_REMAP, .addr = q->old, .len = q->old_len, .new_addr = q->new, .new_len = q->new_len,
			   .flags = (uint32_t)(q->flags & MREMAP_DONTUNMAP), .fd = -1};
	int r = mm_queue(mm, ctx, &op);

	return r < 0 ? r : pf_flush(ctx);
}

// old_len == 0: a second mapping of the same shared object.
static int remap_duplicate(struct mm *mm, struct pf_ctx *ctx, const struct remap *q, struct vma *nv)
{
	struct pf_op op = {.kind = PF_OP_MAP_FD, .addr = q->new, .len = q->new_len, .prot = nv->prot, .flags = MAP_SHARED};
	int r = nv->obj->ops->map_fd(nv->obj, nv->off, q->new_len, nv->max_prot, true, &op.fd, &op.off);

	if (r == 0)
		r = mm_queue(mm, ctx, &op);
	return r < 0 ? r : pf_flush(ctx);
}

// Moves (and resizes) to q->new, which is free by now.
static int64_t remap_move(struct mm *mm, struct pf_ctx *ctx, const struct remap *q, struct vma *v, struct vma **dead)
{
	struct vma *nv;
	int r;

	if (mm->map_count + 3 > MM_MAX_MAPS)
		return -ENOMEM;
	nv = vma_dup(v);
	if (!nv)
		return -ENOMEM;
	if (nv->obj)
		nv->off += q->old - v->start;
	nv->start = q->new;
	nv->end = q->new + q->new_len;
	// Taking the old range out may have to split: make sure of that before the host acts.
	r = q->old_len ? vma_isolate(mm, q->old, q->old + q->old_len) : 0;
	if (r == 0)
		r = q->old_len ? remap_op(mm, ctx, q) : remap_duplicate(mm, ctx, q, nv);
	if (r < 0) {
		vma_free(nv);
		if (q->old_len)
			vma_merge(mm, vma_at(mm, q->old));
		return r;
	}
	if (q->old_len && !(q->flags & MREMAP_DONTUNMAP))
		(void)vma_clear(mm, q->old, q->old + q->old_len, dead); // isolated: cannot fail
	vma_add(mm, nv);
	return (int64_t)q->new;
}

static int64_t remap_to(struct mm *mm, struct pf_ctx *ctx, struct remap *q, struct vma **dead)
{
	struct vma *v;
	int r = remap_vma(mm, q, &v);

	if (r < 0)
		return r;
	if (q->flags & MREMAP_FIXED) {
		r = mm_unmap_locked(mm, ctx, q->new, q->new + q->new_len, dead);
	} else { // DONTUNMAP alone: new is a hint
		q->new = PAGE_DOWN(q->new);
		if (q->new < PF_GUEST_MIN || !mm_range_ok(q->new, q->new_len) || vma_overlap(mm, q->new, q->new + q->new_len))
			q->new = mm_find_place(mm, q->new_len, false);
		r = q->new ? 0 : -ENOMEM;
	}
	if (r < 0)
		return r;
	if (q->old_len > q->new_len) {
		r = mm_unmap_locked(mm, ctx, q->old + q->new_len, q->old + q->old_len, dead);
		if (r < 0)
			return r;
		q->old_len = q->new_len;
	}
	v = vma_at(mm, q->old);
	return v ? remap_move(mm, ctx, q, v, dead) : -EFAULT;
}

// Makes v longer where it is. Anonymous memory that follows is the same to the host as a longer mapping
// (it merges the two), and needs no answer from it; what else must grow in one piece is resized there.
static int grow_in_place(struct mm *mm, struct pf_ctx *ctx, struct remap *q, const struct vma *v)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .addr = v->end, .len = q->new_len - q->old_len, .prot = v->prot,
			   .flags = MAP_PRIVATE | (v->vm_flags & MM_VM_NORESERVE ? MAP_NORESERVE : 0), .fd = -1};

	if (!v->obj && !(v->vm_flags & (MM_VM_HUGEPAGE | MM_VM_NOHUGEPAGE)))
		return mm_queue(mm, ctx, &op);
	q->new = q->old;
	return remap_op(mm, ctx, q);
}

static int64_t remap_in_place(struct mm *mm, struct pf_ctx *ctx, struct remap *q, struct vma **dead)
{
	struct vma *v, *next;
	int r;

	if (q->old_len >= q->new_len) {
		if (!mm_range_ok(q->old, q->old_len))
			return -EINVAL;
		if (!vma_at(mm, q->old))
			return -EFAULT;
		r = q->old_len > q->new_len ? mm_unmap_locked(mm, ctx, q->old + q->new_len, q->old + q->old_len, dead) : 0;
		return r < 0 ? r : (int64_t)q->old;
	}
	r = remap_vma(mm, q, &v);
	if (r < 0)
		return r;
	next = vma_next(v);
	if (q->old_len && q->old + q->old_len == v->end && mm_range_ok(q->old, q->new_len) &&
	    (!next || q->old + q->new_len <= vma_guard_start(next))) {
		r = grow_in_place(mm, ctx, q, v);
		if (r < 0)
			return r;
		vma_set_bounds(mm, v, v->start, q->old + q->new_len);
		vma_merge(mm, v);
		return (int64_t)q->old;
	}
	if (!(q->flags & MREMAP_MAYMOVE))
		return -ENOMEM;
	q->new = mm_find_place(mm, q->new_len, false);
	return q->new ? remap_move(mm, ctx, q, v, dead) : -ENOMEM;
}

int64_t mm_mremap(struct mm *mm, struct pf_ctx *ctx, uint64_t old, uint64_t old_len, uint64_t new_len, int flags, uint64_t new_addr)
{
	struct remap q = {.old = old, .old_len = old_len, .new = new_addr, .new_len = new_len, .flags = flags};
	struct vma *dead = NULL;
	int64_t r = remap_check(&q);

	if (r < 0)
		return r;
	klock_lock(&mm->lock);
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		r = remap_to(mm, ctx, &q, &dead);
	else
		r = remap_in_place(mm, ctx, &q, &dead);
	klock_unlock(&mm->lock);
	vma_free_list(dead);
	return r;
}
