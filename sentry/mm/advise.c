// madvise(2), msync(2), mincore(2).
#include "platform/base/checked.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#define MADV_SOFT_OFFLINE_NR 101

enum act { ACT_BAD, ACT_REMOVE, ACT_TRACK, ACT_HOST, ACT_BOTH, ACT_NOP, ACT_PERM };
struct advice {
	enum act act;
	unsigned set, clear; // MM_VM_*
};

// What Linux 6.12 knows. Only advice that changes contents or the host's paging goes there: fork and
// dump flags are the sentry's own, and merging equal pages across tenants would be a side channel.
static struct advice advice_of(int advice)
{
	switch (advice) {
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_WILLNEED:
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
	case MADV_DONTNEED_LOCKED:
		return (struct advice){.act = ACT_HOST};
	case MADV_REMOVE:
		return (struct advice){.act = ACT_REMOVE};
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_COLLAPSE:
		return (struct advice){.act = ACT_NOP}; // hints, which may be refused in silence
	case MADV_DONTFORK:
		return (struct advice){.act = ACT_TRACK, .set = MM_VM_DONTFORK};
	case MADV_DOFORK:
		return (struct advice){.act = ACT_TRACK, .clear = MM_VM_DONTFORK};
	case MADV_WIPEONFORK:
		return (struct advice){.act = ACT_TRACK, .set = MM_VM_WIPEONFORK};
	case MADV_KEEPONFORK:
		return (struct advice){.act = ACT_TRACK, .clear = MM_VM_WIPEONFORK};
	case MADV_DONTDUMP:
		return (struct advice){.act = ACT_TRACK, .set = MM_VM_DONTDUMP};
	case MADV_DODUMP:
		return (struct advice){.act = ACT_TRACK, .clear = MM_VM_DONTDUMP};
	case MADV_MERGEABLE:
		return (struct advice){.act = ACT_TRACK, .set = MM_VM_MERGEABLE};
	case MADV_UNMERGEABLE:
		return (struct advice){.act = ACT_TRACK, .clear = MM_VM_MERGEABLE};
	case MADV_HUGEPAGE:
		return (struct advice){.act = ACT_BOTH, .set = MM_VM_HUGEPAGE, .clear = MM_VM_NOHUGEPAGE};
	case MADV_NOHUGEPAGE:
		return (struct advice){.act = ACT_BOTH, .set = MM_VM_NOHUGEPAGE, .clear = MM_VM_HUGEPAGE};
	case MADV_HWPOISON:
	case MADV_SOFT_OFFLINE_NR:
		return (struct advice){.act = ACT_PERM};
	default: // MADV_GUARD_* came after 6.12
		return (struct advice){.act = ACT_BAD};
	}
}

// May this VMA be advised so? 0 or -errno.
static int advise_vma_ok(const struct vma *v, int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
		return v->vm_flags & MM_VM_LOCKED ? -EINVAL : 0;
	case MADV_FREE:
		return v->obj || (v->vm_flags & MM_VM_LOCKED) ? -EINVAL : 0;
	case MADV_WIPEONFORK:
		return v->obj ? -EINVAL : 0;
	case MADV_REMOVE: // punches a hole into the object
		if (v->vm_flags & MM_VM_LOCKED || !v->obj)
			return -EINVAL;
		return vma_shared(v) && (v->max_prot & PROT_WRITE) ? 0 : -EACCES;
	case MADV_POPULATE_WRITE:
		return v->prot & PROT_WRITE ? 0 : -EINVAL;
	case MADV_POPULATE_READ:
		return v->prot & (PROT_READ | PROT_EXEC | PROT_WRITE) ? 0 : -EINVAL;
	default:
		return 0;
	}
}

// Hands the mapped parts of [start, end) to the host, one operation per run of adjacent VMAs.
static int advise_host(struct mm *mm, struct pf_ctx *ctx, uint64_t start, uint64_t end, int advice)
{
	struct pf_op op = {.kind = PF_OP_ADVISE, .flags = (uint32_t)(advice == MADV_DONTNEED_LOCKED ? MADV_DONTNEED : advice)};
	bool populate = advice == MADV_POPULATE_READ || advice == MADV_POPULATE_WRITE;
	uint64_t at = start;
	int r = 0, hole = 0;

	while (at < end && r == 0) {
		struct vma *v = vma_find(mm, at);
		uint64_t run;

		if (!v || v->start > at)
			hole = -ENOMEM;
		if (!v || v->start >= end || (hole && populate))
			break;
		at = MAX(at, v->start);
		for (run = at; v && v->start <= run && run < end; v = vma_next(v)) {
			r = advise_vma_ok(v, advice);
			if (r < 0)
				break;
			run = MIN(v->end, end);
		}
		if (run > at) {
			int q;

			op.addr = at;
			op.len = run - at;
			q = mm_queue(mm, ctx, &op);
			r = r < 0 ? r : q;
		}
		at = run;
	}
	return r < 0 ? r : hole;
}

// Punches holes into the objects of shared mappings; every mapping of them sees it.
static int advise_remove(struct mm *mm, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end;) {
		const struct vma *v = vma_at(mm, at);
		uint64_t to;
		int r;

		if (!v)
			return -ENOMEM;
		to = MIN(v->end, end);
		r = advise_vma_ok(v, MADV_REMOVE);
		if (r == 0)
			r = v->obj->ops->punch ? v->obj->ops->punch(v->obj, v->off + (at - v->start), to - at) : -EOPNOTSUPP;
		if (r < 0)
			return r;
		at = to;
	}
	return 0;
}

static int advise_track(struct mm *mm, uint64_t start, uint64_t end, int advice, const struct advice *a)
{
	bool hole;
	int r;

	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v)) {
		r = advise_vma_ok(v, advice);
		if (r < 0)
			return r;
	}
	r = mm_change_vm_flags(mm, start, end, a->set, a->clear, &hole);
	if (r < 0)
		return r == -ENOMEM ? -EAGAIN : r;
	return hole ? -ENOMEM : 0;
}

static int check_mapped(struct mm *mm, uint64_t start, uint64_t end)
{
	uint64_t at = start;

	while (at < end) {
		const struct vma *v = vma_at(mm, at);

		if (!v)
			return -ENOMEM;
		at = v->end;
	}
	return 0;
}

int mm_madvise(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int advice)
{
	struct advice a = advice_of(advice);
	uint64_t end;
	int r = 0;

	if (a.act == ACT_BAD || PAGE_OFF(addr) || !page_up_checked(len, &len) || !add_u64(addr, len, &end))
		return -EINVAL;
	if (a.act == ACT_PERM)
		return -EPERM;
	if (len == 0)
		return 0;
	if (!mm_range_ok(addr, len) || mm_patch_overlap(mm, addr, end))
		return -ENOMEM;
	klock_lock(&mm->lock);
	if (a.act == ACT_REMOVE)
		r = advise_remove(mm, addr, end);
	if (a.act == ACT_NOP)
		r = check_mapped(mm, addr, end);
	if (a.act == ACT_TRACK || a.act == ACT_BOTH)
		r = advise_track(mm, addr, end, advice, &a);
	if (a.act == ACT_HOST || (a.act == ACT_BOTH && (r == 0 || r == -ENOMEM))) {
		int h = advise_host(mm, ctx, addr, end, advice);

		r = r < 0 ? r : h;
	}
	klock_unlock(&mm->lock);
	return r;
}

// --- msync -------------------------------------------------------------------------------------

int mm_msync(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int flags)
{
	struct pf_op op = {.kind = PF_OP_MSYNC, .flags = MS_SYNC};
	uint64_t end, at;
	int r = 0, hole = 0;

	if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) || PAGE_OFF(addr) || (flags & (MS_ASYNC | MS_SYNC)) == (MS_ASYNC | MS_SYNC))
		return -EINVAL;
	if (!page_up_checked(len, &len) || !add_u64(addr, len, &end))
		return -ENOMEM;
	if (len == 0)
		return 0;
	if (!mm_range_ok(addr, len))
		return -ENOMEM;
	klock_lock(&mm->lock);
	for (at = addr; at < end && r == 0;) {
		struct vma *v = vma_find(mm, at);

		if (!v || v->start > at)
			hole = -ENOMEM;
		if (!v || v->start >= end)
			break;
		if ((flags & MS_INVALIDATE) && (v->vm_flags & MM_VM_LOCKED)) {
			r = -EBUSY;
			break;
		}
		op.addr = MAX(at, v->start);
		at = MIN(v->end, end);
		op.len = at - op.addr;
		// Only shared mappings have something to write back.
		if ((flags & MS_SYNC) && v->obj && vma_shared(v))
			r = mm_queue(mm, ctx, &op);
	}
	klock_unlock(&mm->lock);
	return r < 0 ? r : hole;
}

// --- mincore -----------------------------------------------------------------------------------

// Which pages are resident only the host knows: what is mapped counts as resident.
int mm_mincore(struct mm *mm, uint64_t addr, uint64_t len, unsigned char *vec)
{
	if (PAGE_OFF(addr))
		return -EINVAL;
	if (!page_up_checked(len, &len) || !mm_range_ok(addr, len) || check_mapped(mm, addr, addr + len) < 0)
		return -ENOMEM;
	memset(vec, 1, len >> PAGE_SHIFT);
	return 0;
}
