// Memory: mmap(2), munmap(2), mprotect(2), mremap(2), brk(2), madvise(2), msync(2), mincore(2),
// mlock(2), remap_file_pages(2), process_madvise(2).
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "platform/base/base.h"
#include "platform/base/checked.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/syscalls/syscalls.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define MINCORE_CHUNK 4096UL

// The address space, with this task's limits.
static struct mm *task_mm(struct task *t)
{
	const struct rlimits *l = &t->tg->rlim;

	t->mm->lim = (struct mm_limits){.as = l->v[RLIMIT_AS].cur, .data = l->v[RLIMIT_DATA].cur, .stack = l->v[RLIMIT_STACK].cur,
					.memlock = l->v[RLIMIT_MEMLOCK].cur, .may_lock = task_capable(t, CAP_IPC_LOCK)};
	return t->mm;
}

static int personal_prot(const struct task *t, int prot)
{
	return (prot & PROT_READ) && (t->tg->personality & READ_IMPLIES_EXEC) ? prot | PROT_EXEC : prot;
}

// --- mmap ----------------------------------------------------------------------------------------

static bool is_dev_zero(const struct file *f)
{
	return S_ISCHR(f->inode->mode) && f->inode->rdev == makedev(1, 5);
}

static int64_t map_file(struct task *t, const uint64_t *a, int prot, int flags)
{
	struct file *f = fd_get(arg_int(a[4]));
	struct mm *mm = task_mm(t);
	int64_t r;
	int max;

	if (!f)
		return -EBADF;
	r = flags & MAP_HUGETLB ? -EINVAL : file_mmap_prot(f, prot, flags, &max);
	if (r == 0 && is_dev_zero(f)) // the same as no file at all
		r = mm_mmap(mm, t->ctx, a[0], a[1], prot, flags | MAP_ANONYMOUS, NULL, 0);
	else if (r == 0)
		r = mm_mmap_max(mm, t->ctx, a[0], a[1], prot, max, flags, &f->mobj, a[5]);
	file_put(f);
	return r;
}

SYSCALL(mmap)
{
	int prot = personal_prot(t, arg_int(a[2])), flags = arg_int(a[3]);

	if (PAGE_OFF(a[5]))
		return -EINVAL;
	if (flags & MAP_ANONYMOUS)
		return mm_mmap(task_mm(t), t->ctx, a[0], a[1], prot, flags, NULL, 0);
	return map_file(t, a, prot, flags);
}

SYSCALL(munmap)
{
	return mm_munmap(t->mm, t->ctx, a[0], a[1]);
}

SYSCALL(mprotect)
{
	return mm_mprotect(task_mm(t), t->ctx, a[0], a[1], personal_prot(t, arg_int(a[2])));
}

SYSCALL(mremap)
{
	return mm_mremap(task_mm(t), t->ctx, a[0], a[1], a[2], arg_int(a[3]), a[4]);
}

SYSCALL(brk)
{
	return (int64_t)mm_brk(task_mm(t), t->ctx, a[0]);
}

// The old call for nonlinear mappings: a new mapping of another part of the same object.
SYSCALL(remap_file_pages)
{
	uint64_t start = PAGE_DOWN(a[0]), size = PAGE_DOWN(a[1]), pgoff = a[3], off, end;
	struct vma_info v, next;
	int64_t r;

	if (arg_int(a[2]) || !add_u64(start, size, &end) || end <= start || pgoff > UINT64_MAX >> PAGE_SHIFT)
		return -EINVAL;
	off = pgoff << PAGE_SHIFT;
	if (!add_u64(off, size, &off) || !mm_next_vma(t->mm, start, &v) || v.start > start || !(v.flags & MAP_SHARED) || !v.obj)
		return -EINVAL;
	for (uint64_t at = v.end; at < end; at = next.end)
		if (!mm_next_vma(t->mm, at, &next) || next.start > at || next.obj != v.obj || next.flags != v.flags || next.prot != v.prot)
			return -EINVAL;
	mobj_get(v.obj);
	r = mm_mmap_max(task_mm(t), t->ctx, start, size, v.prot, v.max_prot,
			MAP_SHARED | MAP_FIXED | MAP_POPULATE | (arg_int(a[4]) & MAP_NONBLOCK), v.obj, pgoff << PAGE_SHIFT);
	mobj_put(v.obj);
	return r < 0 ? r : 0;
}

// --- advice, state, locks --------------------------------------------------------------------------

SYSCALL(madvise)
{
	return mm_madvise(task_mm(t), t->ctx, a[0], a[1], arg_int(a[2]));
}

// process_madvise(2): hints only, so nothing has to reach the other process's memory.
SYSCALL(process_madvise)
{
	int advice = arg_int(a[3]);
	struct task *target;
	struct mm *mm = NULL;
	struct file *f;
	struct pid *pid;
	struct uio u;
	uint64_t done = 0;
	int64_t r;

	if (a[4])
		return -EINVAL;
	r = copy_in_iov(&u, GADDR(a[1]), a[2]);
	if (r < 0)
		return r;
	f = fd_get(arg_int(a[0]));
	if (!f)
		return -EBADF;
	pid = pidfd_pid(f);
	target = pid ? pid->task : NULL;
	if (!pid)
		r = -EBADF;
	else if (!target || !target->mm)
		r = -ESRCH;
	else if (advice != MADV_COLD && advice != MADV_PAGEOUT && advice != MADV_WILLNEED && advice != MADV_COLLAPSE)
		r = -EINVAL;
	else if (target->mm != t->mm && (!task_may_inspect(t, target) || !capable(CAP_SYS_NICE)))
		r = -EPERM;
	else
		mm = mm_get(target->mm);
	file_put(f);
	for (unsigned i = 0; mm && i < u.niov; i++) {
		// WILLNEED is checked like the others, and left at that: its pages come when they are touched.
		r = mm_madvise(mm, t->ctx, u.iov[i].base.a, u.iov[i].len, advice == MADV_WILLNEED ? MADV_COLD : advice);
		if (r < 0)
			break;
		done += u.iov[i].len;
	}
	mm_put(mm);
	return done ? (int64_t)done : r;
}

SYSCALL(msync)
{
	return mm_msync(t->mm, t->ctx, a[0], a[1], arg_int(a[2]));
}

SYSCALL(mincore)
{
	uint64_t addr = a[0], pages, len;
	unsigned char *vec;
	int r;

	if (PAGE_OFF(addr))
		return -EINVAL;
	if (!page_up_checked(a[1], &len) || !access_ok(GADDR(addr), len))
		return -ENOMEM;
	pages = len >> PAGE_SHIFT;
	vec = arena_alloc(MIN(pages, MINCORE_CHUNK) + 1);
	if (!vec)
		return -EAGAIN;
	for (uint64_t done = 0; done < pages;) {
		uint64_t n = MIN(pages - done, MINCORE_CHUNK);

		r = mm_mincore(t->mm, addr + (done << PAGE_SHIFT), n << PAGE_SHIFT, vec);
		if (r == 0)
			r = copy_out(GADDR(a[2] + done), vec, n);
		if (r < 0)
			return r;
		done += n;
		cond_resched();
	}
	return 0;
}

SYSCALL(mlock)
{
	return mm_mlock(task_mm(t), t->ctx, a[0], a[1], 0, true);
}

SYSCALL(mlock2)
{
	return mm_mlock(task_mm(t), t->ctx, a[0], a[1], arg_int(a[2]), true);
}

SYSCALL(munlock)
{
	return mm_mlock(task_mm(t), t->ctx, a[0], a[1], 0, false);
}

SYSCALL(mlockall)
{
	return mm_mlockall(task_mm(t), t->ctx, arg_int(a[0]), true);
}

SYSCALL(munlockall)
{
	return mm_mlockall(task_mm(t), t->ctx, 0, false);
}
