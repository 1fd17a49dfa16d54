// mprotect(2), and the locks and names that change attributes of ranges in the same way.
#include <ctype.h>
#include <stdio.h>

#include "platform/base/checked.h"
#include "platform/base/slab.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"

#ifndef PROT_SEM
#define PROT_SEM 0x8
#endif
#define NAME_MAX_LEN 80 // with its NUL: PR_SET_VMA_ANON_NAME

// --- mprotect ----------------------------------------------------------------------------------

// One VMA, cut to [start, end). 0 or -errno; the host is told by the caller.
static int protect_vma(struct mm *mm, struct vma *v, uint64_t start, uint64_t end, int prot)
{
	bool becomes_data = (prot & PROT_WRITE) && !vma_shared(v) && !vma_is_stack(v) && !(v->prot & PROT_WRITE);
	uint64_t from = MAX(start, v->start), to = MIN(end, v->end);

	if (prot & ~v->max_prot)
		return -EACCES;
	if (v->prot == prot)
		return 0;
	if (becomes_data && (mm->data_pages + ((to - from) >> PAGE_SHIFT)) > mm->lim.data >> PAGE_SHIFT)
		return -ENOMEM;
	if (mm->map_count + (from > v->start) + (to < v->end) > MM_MAX_MAPS)
		return -ENOMEM;
	if (vma_isolate(mm, from, to) < 0)
		return -ENOMEM;
	v = vma_at(mm, from);
	vma_set_prot(mm, v, prot);
	if ((prot & PROT_WRITE) && !vma_shared(v) && !(v->vm_flags & MM_VM_NORESERVE))
		v->vm_flags |= MM_VM_ACCOUNT;
	vma_merge(mm, v);
	return 0;
}

static int protect_locked(struct mm *mm, struct pf_ctx *ctx, uint64_t start, uint64_t end, int prot, bool grows_down)
{
	struct pf_op op = {.kind = PF_OP_PROTECT, .prot = (uint32_t)prot};
	struct vma *v = vma_find(mm, start);
	uint64_t done;
	int r = 0, q;

	if (grows_down) { // down to the lowest page of the stack
		if (!v || v->start >= end)
			return -ENOMEM;
		if (!vma_is_stack(v))
			return -EINVAL;
		start = MIN(start, v->start);
	}
	// As Linux: what lies before the first page that cannot be changed is changed.
	for (done = start; done < end;) {
		uint64_t vend;

		v = vma_at(mm, done);
		if (!v) {
			r = -ENOMEM;
			break;
		}
		vend = MIN(v->end, end);
		r = protect_vma(mm, v, done, vend, prot);
		if (r < 0)
			break;
		done = vend;
	}
	if (done > start) {
		op.addr = start;
		op.len = done - start;
		q = mm_queue(mm, ctx, &op);
		r = r < 0 ? r : q;
	}
	return r;
}

int mm_mprotect(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot)
{
	int grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP), r;

	prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP);
	if (grows == (PROT_GROWSDOWN | PROT_GROWSUP) || PAGE_OFF(addr))
		return -EINVAL;
	if (len == 0)
		return 0;
	if (!page_up_checked(len, &len) || len == 0 || addr + len < addr)
		return -ENOMEM;
	if (prot & ~(PROT_RWX | PROT_SEM) || (grows & PROT_GROWSUP))
		return -EINVAL;
	if (!mm_range_ok(addr, len))
		return -ENOMEM;
	if (mm_patch_overlap(mm, addr, addr + len))
		return -ENOMEM;
	klock_lock(&mm->lock);
	r = protect_locked(mm, ctx, addr, addr + len, prot & PROT_RWX, (grows & PROT_GROWSDOWN) != 0);
	klock_unlock(&mm->lock);
	return r;
}

// --- flags of ranges ---------------------------------------------------------------------------

// Sets and clears vm_flags over the mapped parts of [start, end). -ENOMEM for memory; *ret_hole tells
// whether something in it was not mapped.
int mm_change_vm_flags(struct mm *mm, uint64_t start, uint64_t end, unsigned set, unsigned clear, bool *ret_hole)
{
	struct vma *v = vma_find(mm, start);
	uint64_t at = start;

	*ret_hole = false;
	while (at < end) {
		v = vma_find(mm, at);
		if (!v || v->start >= end) {
			*ret_hole = true;
			break;
		}
		if (v->start > at) {
			*ret_hole = true;
			at = v->start;
		}
		if (((v->vm_flags & ~clear) | set) != v->vm_flags) {
			uint64_t to = MIN(v->end, end);

			if (mm->map_count + 2 > MM_MAX_MAPS || vma_isolate(mm, at, to) < 0)
				return -ENOMEM;
			v = vma_at(mm, at);
			vma_set_vm_flags(mm, v, (v->vm_flags & ~clear) | set);
			at = to;
			vma_merge(mm, v);
		} else {
			at = v->end;
		}
	}
	return 0;
}

// --- mlock -------------------------------------------------------------------------------------

static uint64_t count_locked(struct mm *mm, uint64_t start, uint64_t end)
{
	uint64_t n = 0;

	for (struct vma *v = vma_find(mm, start); v && v->start < end; v = vma_next(v))
		if (v->vm_flags & MM_VM_LOCKED)
			n += (MIN(v->end, end) - MAX(v->start, start)) >> PAGE_SHIFT;
	return n;
}

// mlock(2), mlock2(2), munlock(2): accounting only, the host pins nothing.
int mm_mlock(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int flags, bool lock)
{
	uint64_t end;
	bool hole;
	int r;

	(void)ctx;
	if (flags & ~MLOCK_ONFAULT)
		return -EINVAL;
	if (lock && !mm->lim.may_lock && mm->lim.memlock == 0)
		return -EPERM;
	if (!add_u64(len, PAGE_OFF(addr), &len) || !page_up_checked(len, &len))
		return -EINVAL;
	addr = PAGE_DOWN(addr);
	if (!add_u64(addr, len, &end))
		return -EINVAL;
	if (len == 0)
		return 0;
	if (!mm_range_ok(addr, len))
		return -ENOMEM;
	klock_lock(&mm->lock);
	r = lock ? mm_may_lock(mm, (len >> PAGE_SHIFT) - count_locked(mm, addr, end), -ENOMEM) : 0;
	if (r == 0)
		r = mm_change_vm_flags(mm, addr, end, lock ? MM_VM_LOCKED : 0, lock ? 0 : MM_VM_LOCKED, &hole);
	if (r == 0 && hole)
		r = -ENOMEM;
	klock_unlock(&mm->lock);
	return r;
}

int mm_mlockall(struct mm *mm, struct pf_ctx *ctx, int flags, bool lock)
{
	bool hole;
	int r = 0;

	(void)ctx;
	if (lock && (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) || flags == MCL_ONFAULT))
		return -EINVAL;
	if (lock && !mm->lim.may_lock && mm->lim.memlock == 0)
		return -EPERM;
	klock_lock(&mm->lock);
	if (lock && (flags & MCL_CURRENT) && !mm->lim.may_lock && mm->vm_pages > mm->lim.memlock >> PAGE_SHIFT)
		r = -ENOMEM;
	if (r == 0) {
		mm->lock_future = lock && (flags & MCL_FUTURE);
		if (!lock)
			r = mm_change_vm_flags(mm, 0, PF_GUEST_TOP, 0, MM_VM_LOCKED, &hole);
		else if (flags & MCL_CURRENT)
			r = mm_change_vm_flags(mm, 0, PF_GUEST_TOP, MM_VM_LOCKED, 0, &hole);
	}
	klock_unlock(&mm->lock);
	return r;
}

// --- names -------------------------------------------------------------------------------------

static int name_new(const char *name, struct vma_name **ret)
{
	size_t n = strlen(name), size = sizeof(struct vma_name) + n + sizeof("[anon:]");
	struct vma_name *vn;

	if (n >= NAME_MAX_LEN)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (!isprint((unsigned char)name[i]) || strchr("\\`$[]", name[i]))
			return -EINVAL;
	vn = kalloc(size);
	if (!vn)
		return -ENOMEM;
	ref_init(&vn->refs, 1);
	snprintf(vn->s, size - sizeof(*vn), "[anon:%s]", name);
	*ret = vn;
	return 0;
}

static void name_put(struct vma_name *n)
{
	if (n && ref_put(&n->refs))
		kfree(n);
}

static int name_range(struct mm *mm, uint64_t start, uint64_t end, struct vma_name *name)
{
	uint64_t at = start;
	int r = 0;

	while (at < end) {
		struct vma *v = vma_find(mm, at);
		uint64_t to;

		if (!v || v->start >= end)
			return -ENOMEM;
		if (v->start > at)
			r = -ENOMEM; // a hole: the rest is named all the same
		at = MAX(at, v->start);
		to = MIN(v->end, end);
		if (v->obj && !vma_shared(v))
			return -EBADF;
		if (mm->map_count + 2 > MM_MAX_MAPS || vma_isolate(mm, at, to) < 0)
			return -ENOMEM;
		v = vma_at(mm, at);
		name_put(v->name);
		v->name = name;
		if (name)
			ref_get(&name->refs);
		vma_merge(mm, v);
		at = to;
	}
	return r;
}

int mm_set_vma_name(struct mm *mm, uint64_t addr, uint64_t len, const char *name)
{
	struct vma_name *vn = NULL;
	int r;

	if (PAGE_OFF(addr) || !page_up_checked(len, &len))
		return -EINVAL;
	if (addr + len < addr)
		return -EINVAL;
	if (len == 0)
		return 0;
	if (!mm_range_ok(addr, len))
		return -ENOMEM;
	if (name) {
		r = name_new(name, &vn);
		if (r < 0)
			return r;
	}
	klock_lock(&mm->lock);
	r = name_range(mm, addr, addr + len, vn);
	klock_unlock(&mm->lock);
	name_put(vn);
	return r;
}
