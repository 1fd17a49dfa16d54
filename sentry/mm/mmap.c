// mmap(2), munmap(2), brk(2).
#include "platform/base/assert.h"
#include "platform/base/checked.h"
#include "sentry/mm/mm.h"
#include "sentry/mm/vma.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#define LOW32_START 0x40000000UL
#define LOW32_END 0x80000000UL
#define THP_SIZE (2UL << 20)
#define BRK_FLUSH (256UL << 20)
// Flags that MAP_SHARED_VALIDATE accepts; MAP_SYNC is for persistent memory.
#define KNOWN_FLAGS                                                                                                    \
	(MAP_TYPE | MAP_FIXED | MAP_ANONYMOUS | MAP_32BIT | MAP_GROWSDOWN | MAP_DENYWRITE | MAP_EXECUTABLE |           \
	 MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK | MAP_STACK | MAP_HUGETLB | MAP_FIXED_NOREPLACE |    \
	 MAP_UNINITIALIZED | (int)(0x3fU << 26))
#ifndef MAP_UNINITIALIZED
#define MAP_UNINITIALIZED 0x4000000
#endif

struct map_req {
	uint64_t addr, len, off;
	int prot, max_prot, flags;
	struct mobj *obj;
	uint32_t vflags;
	unsigned vm_flags;
};

bool mm_may_expand(const struct mm *mm, uint64_t n, bool data)
{
	uint64_t total, d;

	if (!add_u64(mm->vm_pages, n, &total) || total > mm->lim.as >> PAGE_SHIFT)
		return false;
	return !data || (add_u64(mm->data_pages, n, &d) && d <= mm->lim.data >> PAGE_SHIFT);
}

int mm_may_lock(const struct mm *mm, uint64_t n, int full)
{
	if (mm->lim.may_lock)
		return 0;
	if (mm->lim.memlock == 0)
		return -EPERM;
	return mm->locked_pages + n > mm->lim.memlock >> PAGE_SHIFT ? full : 0;
}

// --- where -------------------------------------------------------------------------------------

uint64_t mm_find_place(const struct mm *mm, uint64_t len, bool low32)
{
	uint64_t a;

	if (low32)
		return vma_find_gap(mm, LOW32_START, LOW32_END, len, false);
	// Whole huge pages are only of use to the host when they are aligned.
	if (len % THP_SIZE == 0 && len < PF_GUEST_TOP - THP_SIZE) {
		a = vma_find_gap(mm, PF_GUEST_MIN, mm->mmap_base, len + THP_SIZE - PAGE_SIZE, true);
		if (a)
			return (a + THP_SIZE - 1) & ~(THP_SIZE - 1);
	}
	a = vma_find_gap(mm, PF_GUEST_MIN, mm->mmap_base, len, true);
	return a ? a : vma_find_gap(mm, PAGE_DOWN(PF_GUEST_TOP / 3), PF_GUEST_TOP, len, false);
}

uint64_t mm_find_free(const struct mm *mm, uint64_t len, uint64_t align)
{
	uint64_t padded, a;

	if (align <= PAGE_SIZE)
		return mm_find_place(mm, len, false);
	if (!add_u64(len, align - PAGE_SIZE, &padded))
		return 0;
	a = mm_find_place(mm, padded, false);
	return a ? (a + align - 1) & ~(align - 1) : 0;
}

static int64_t choose_addr(const struct mm *mm, const struct map_req *q)
{
	uint64_t addr = PAGE_DOWN(q->addr);
	const struct vma *v;

	if (q->len > PF_GUEST_TOP - PF_GUEST_MIN)
		return -ENOMEM;
	if (q->flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
		if (PAGE_OFF(q->addr))
			return -EINVAL;
		if (!mm_range_ok(addr, q->len))
			return -ENOMEM;
		if (addr < PF_GUEST_MIN)
			return -EPERM;
		if (mm_patch_overlap(mm, addr, addr + q->len))
			return -ENOMEM;
		if ((q->flags & MAP_FIXED_NOREPLACE) && vma_overlap(mm, addr, addr + q->len))
			return -EEXIST;
		return (int64_t)addr;
	}
	if (addr) {
		addr = MAX(addr, PF_GUEST_MIN);
		v = vma_find(mm, addr);
		if (mm_range_ok(addr, q->len) && (!v || addr + q->len <= vma_guard_start(v)) &&
		    (!(q->flags & MAP_32BIT) || addr + q->len <= LOW32_END))
			return (int64_t)addr;
	}
	addr = mm_find_place(mm, q->len, (q->flags & MAP_32BIT) != 0);
	return addr ? (int64_t)addr : -ENOMEM;
}

// --- mmap --------------------------------------------------------------------------------------

// Checks what can be checked without the tree, and fills in the VMA's flags.
static int map_check(struct map_req *q)
{
	int type = q->flags & MAP_TYPE;
	uint64_t end;

	if (q->len == 0)
		return -EINVAL;
	if (!page_up_checked(q->len, &q->len) || q->len == 0)
		return -ENOMEM;
	if (PAGE_OFF(q->off))
		return -EINVAL;
	if (!add_u64(q->off, q->len, &end) || end > INT64_MAX)
		return -EOVERFLOW;
	q->prot &= PROT_RWX;
	if (q->flags & MAP_HUGETLB)
		return -ENOMEM; // there is no huge page pool
	if (type == MAP_SHARED_VALIDATE) {
		if (!q->obj)
			return -EINVAL;
		if (q->flags & ~KNOWN_FLAGS)
			return -EOPNOTSUPP;
		type = MAP_SHARED;
	}
	if (type == MAP_DROPPABLE && !q->obj) {
		type = MAP_PRIVATE; // pages may be dropped; ours never are, like those of a host without pressure
		q->vm_flags |= MM_VM_NORESERVE | MM_VM_WIPEONFORK | MM_VM_DONTDUMP;
	}
	if (type != MAP_SHARED && type != MAP_PRIVATE)
		return -EINVAL;
	if ((q->flags & MAP_GROWSDOWN) && (q->obj || type == MAP_SHARED))
		return -EINVAL;
	if (q->prot & ~q->max_prot)
		return -EACCES;
	if (q->flags & MAP_NORESERVE)
		q->vm_flags |= MM_VM_NORESERVE;
	q->vflags = (uint32_t)(type | (q->flags & MAP_GROWSDOWN));
	if (type == MAP_PRIVATE && (q->prot & PROT_WRITE) && !(q->vm_flags & MM_VM_NORESERVE))
		q->vm_flags |= MM_VM_ACCOUNT;
	return 0;
}

static int check_limits(const struct mm *mm, struct map_req *q)
{
	bool data = (q->prot & PROT_WRITE) && q->vflags == MAP_PRIVATE;
	uint64_t pages = q->len >> PAGE_SHIFT, old = 0, old_data = 0;
	int r;

	if (mm->map_count >= MM_MAX_MAPS)
		return -ENOMEM;
	if (q->flags & MAP_FIXED)
		old = vma_count_pages(mm, q->addr, q->addr + q->len, &old_data);
	if (mm->vm_pages - old + pages > mm->lim.as >> PAGE_SHIFT)
		return -ENOMEM;
	if (data && mm->data_pages - old_data + pages > mm->lim.data >> PAGE_SHIFT)
		return -ENOMEM;
	if ((q->flags & MAP_LOCKED) && !mm->lim.may_lock && mm->lim.memlock == 0)
		return -EPERM;
	if ((q->flags & MAP_LOCKED) || mm->lock_future) {
		r = mm_may_lock(mm, pages, -EAGAIN);
		if (r < 0)
			return r;
		q->vm_flags |= MM_VM_LOCKED;
	}
	return 0;
}

static int map_op(const struct map_req *q, struct pf_op *op)
{
	*op = (struct pf_op){.kind = PF_OP_MAP_ANON, .addr = q->addr, .len = q->len, .prot = (uint32_t)q->prot, .fd = -1};
	op->flags = (q->vflags & MAP_TYPE) | (uint32_t)(q->flags & MAP_NORESERVE);
	if ((q->flags & MAP_POPULATE) && !(q->flags & MAP_NONBLOCK))
		op->flags |= MAP_POPULATE;
	if (!q->obj)
		return 0;
	op->kind = PF_OP_MAP_FD;
	if (!q->obj->ops->map_fd)
		return -ENODEV;
	return q->obj->ops->map_fd(q->obj, q->off, q->len, q->vflags & MAP_SHARED ? q->max_prot : q->prot,
				   (q->vflags & MAP_SHARED) != 0, &op->fd, &op->off);
}

static int64_t map_locked(struct mm *mm, struct pf_ctx *ctx, struct map_req *q, struct vma **dead)
{
	int64_t r = choose_addr(mm, q);
	struct pf_op op;
	struct vma *v;

	if (r < 0)
		return r;
	q->addr = (uint64_t)r;
	r = check_limits(mm, q);
	if (r == 0)
		r = map_op(q, &op);
	if (r < 0)
		return r;
	v = vma_new(q->addr, q->addr + q->len, q->vflags, q->obj, q->off);
	if (!v)
		return -ENOMEM;
	v->vm_flags = (uint16_t)q->vm_flags;
	v->prot = (uint8_t)q->prot;
	v->max_prot = (uint8_t)q->max_prot;
	if ((q->flags & MAP_FIXED) && vma_clear(mm, q->addr, q->addr + q->len, dead) < 0) {
		vma_free(v);
		return -ENOMEM;
	}
	vma_add(mm, v);
	r = mm_queue(mm, ctx, &op);
	return r < 0 ? r : (int64_t)q->addr;
}

int64_t mm_mmap_max(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot, int max_prot, int flags,
		    struct mobj *obj, uint64_t off)
{
	struct map_req q = {.addr = addr, .len = len, .off = obj ? off : 0, .prot = prot,
			    .max_prot = max_prot & PROT_RWX, .flags = flags, .obj = obj};
	struct mobj *shmem = NULL;
	struct vma *dead = NULL;
	int64_t r = map_check(&q);

	if (r < 0)
		return r;
	if (!obj && (q.vflags & MAP_SHARED)) {
		r = mobj_new_shmem("/dev/zero", q.len, &shmem);
		if (r < 0)
			return r;
		q.obj = shmem;
	}
	klock_lock(&mm->lock);
	r = map_locked(mm, ctx, &q, &dead);
	klock_unlock(&mm->lock);
	vma_free_list(dead);
	mobj_put(shmem);
	return r;
}

int64_t mm_mmap(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len, int prot, int flags, struct mobj *obj,
		uint64_t off)
{
	return mm_mmap_max(mm, ctx, addr, len, prot, PROT_RWX, flags, obj, off);
}

// --- munmap ------------------------------------------------------------------------------------

int mm_unmap_locked(struct mm *mm, struct pf_ctx *ctx, uint64_t start, uint64_t end, struct vma **dead)
{
	struct pf_op op = {.kind = PF_OP_UNMAP, .addr = start, .len = end - start};
	struct vma *v = vma_overlap(mm, start, end);
	int r;

	if (!v)
		return 0;
	if (mm_patch_overlap(mm, start, end))
		return -ENOMEM;
	if (v->start < start && v->end > end && mm->map_count >= MM_MAX_MAPS)
		return -ENOMEM;
	r = vma_clear(mm, start, end, dead);
	return r < 0 ? r : mm_queue(mm, ctx, &op);
}

int mm_munmap(struct mm *mm, struct pf_ctx *ctx, uint64_t addr, uint64_t len)
{
	struct vma *dead = NULL;
	int r;

	if (PAGE_OFF(addr) || len == 0 || !page_up_checked(len, &len) || !mm_range_ok(addr, len))
		return -EINVAL;
	klock_lock(&mm->lock);
	r = mm_unmap_locked(mm, ctx, addr, addr + len, &dead);
	klock_unlock(&mm->lock);
	vma_free_list(dead);
	return r;
}

// --- brk ---------------------------------------------------------------------------------------

static int brk_grow(struct mm *mm, struct pf_ctx *ctx, uint64_t from, uint64_t to, struct vma **dead)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .addr = from, .len = to - from, .prot = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE};
	const struct vma *next = vma_find(mm, from);
	struct vma *v;
	int r;

	// A page stays free above the heap, and the guard of a stack above it.
	if (next && vma_guard_start(next) < to + PAGE_SIZE)
		return -ENOMEM;
	if (mm->map_count >= MM_MAX_MAPS || !mm_may_expand(mm, (to - from) >> PAGE_SHIFT, true))
		return -ENOMEM;
	if (mm->lock_future && mm_may_lock(mm, (to - from) >> PAGE_SHIFT, -EAGAIN) < 0)
		return -EAGAIN;
	v = vma_new(from, to, MAP_PRIVATE, NULL, 0);
	if (!v)
		return -ENOMEM;
	v->vm_flags = MM_VM_ACCOUNT | (mm->lock_future ? MM_VM_LOCKED : 0);
	v->prot = PROT_READ | PROT_WRITE;
	v->max_prot = PROT_RWX;
	vma_add(mm, v);
	r = mm_queue(mm, ctx, &op);
	// brk cannot tell an error later on: where the host might refuse the sheer size, ask it now.
	if (r == 0 && to - from >= BRK_FLUSH) {
		r = pf_flush(ctx);
		if (r < 0)
			vma_clear(mm, from, to, dead);
	}
	return r;
}

uint64_t mm_brk(struct mm *mm, struct pf_ctx *ctx, uint64_t brk)
{
	struct vma *dead = NULL;
	uint64_t old, new, size;
	int r = 0;

	klock_lock(&mm->lock);
	if (brk < mm->start_brk || brk > PF_GUEST_TOP - PAGE_SIZE)
		goto out;
	if (!add_u64(brk - mm->start_brk, mm->end_data - mm->start_data, &size) || size > mm->lim.data)
		goto out;
	old = PAGE_UP(mm->brk);
	new = PAGE_UP(brk);
	if (new < old)
		r = mm_unmap_locked(mm, ctx, new, old, &dead);
	else if (new > old)
		r = brk_grow(mm, ctx, old, new, &dead);
	if (r == 0)
		mm->brk = brk;
out:
	brk = mm->brk;
	klock_unlock(&mm->lock);
	vma_free_list(dead);
	return brk;
}
