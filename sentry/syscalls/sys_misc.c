// Calls that belong to no family: uname(2), sysinfo(2), getrandom(2), kcmp(2), process_vm_readv(2), unshare(2) ...
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <stdio.h>

#include "platform/base/base.h"
#include "platform/base/random.h"
#include "sentry/kernel/clone.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/sysinfo.h"
#include "sentry/syscalls/syscalls.h"

// --- names --------------------------------------------------------------------------------------

SYSCALL(uname)
{
	struct { char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65]; } w = {0};

	snprintf(w.sysname, sizeof(w.sysname), "Linux");
	memcpy(w.nodename, t->uts->nodename, sizeof(w.nodename));
	snprintf(w.release, sizeof(w.release), "%s", KERNEL_RELEASE);
	snprintf(w.version, sizeof(w.version), "%s", KERNEL_VERSION);
	snprintf(w.machine, sizeof(w.machine), "x86_64");
	memcpy(w.domainname, t->uts->domainname, sizeof(w.domainname));
	return copy_out_obj(GADDR(a[0]), &w);
}

static int64_t set_uts(char field[65], uint64_t addr, int len)
{
	char name[65] = {0};

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (len < 0 || len > 64)
		return -EINVAL;
	if (copy_in(name, GADDR(addr), (size_t)len) < 0)
		return -EFAULT;
	memcpy(field, name, sizeof(name));
	return 0;
}

SYSCALL(sethostname)
{
	return set_uts(t->uts->nodename, a[0], arg_int(a[1]));
}

SYSCALL(setdomainname)
{
	return set_uts(t->uts->domainname, a[0], arg_int(a[1]));
}

SYSCALL(sysinfo)
{
	struct {
		int64_t uptime;
		uint64_t loads[3], totalram, freeram, sharedram, bufferram, totalswap, freeswap;
		uint16_t procs, pad;
		uint32_t pad2;
		uint64_t totalhigh, freehigh;
		uint32_t unit, pad3;
	} w = {0};
	struct kernel_memory m;

	_Static_assert(sizeof(w) == 112, "struct sysinfo");
	kernel_memory_get(&m);
	w.uptime = (int64_t)((sched_now_boot() - kernel_boot_time) / NSEC_PER_SEC);
	w.totalram = m.total;
	w.freeram = m.free;
	w.sharedram = m.shared;
	w.bufferram = m.buffers;
	w.procs = (uint16_t)MIN(kernel_ntasks(), 65535U);
	w.unit = 1;
	return copy_out_obj(GADDR(a[0]), &w);
}

// There is no kernel log for guests.
SYSCALL(syslog)
{
	if (!capable(CAP_SYSLOG) && !capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (arg_int(a[0]) < 0 || arg_int(a[0]) > 10)
		return -EINVAL;
	return 0;
}

// --- random numbers -----------------------------------------------------------------------------

#define GRND_NONBLOCK 1
#define GRND_RANDOM 2
#define GRND_INSECURE 4
#define RANDOM_CHUNK 1024

SYSCALL(getrandom)
{
	unsigned flags = arg_uint(a[2]);
	size_t len = MIN(a[1], (uint64_t)INT32_MAX & PAGE_MASK), done = 0;
	uint8_t buf[RANDOM_CHUNK];
	struct giov one;
	struct uio u;

	if (flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE))
		return -EINVAL;
	if ((flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
		return -EINVAL;
	if (!access_ok(GADDR(a[0]), len))
		return -EFAULT;
	u = uio_guest(&one, GADDR(a[0]), len);
	while (done < len) {
		size_t n = MIN(len - done, sizeof(buf));
		ssize_t put;

		random_bytes(buf, n);
		put = uio_put(&u, buf, n);
		if (put <= 0)
			return done ? (int64_t)done : -EFAULT;
		done += (size_t)put;
		if ((size_t)put < n)
			break;
		if (done >= 256 && signal_pending(t))
			break;
		cond_resched();
	}
	explicit_bzero(buf, sizeof(buf));
	return (int64_t)done;
}

// --- comparing kernel objects -------------------------------------------------------------------

// An order that tells nothing about addresses.
static int64_t order(const void *x, const void *y)
{
	static uint64_t key[2];
	uint64_t a, b;

	if (!key[0]) {
		key[0] = random_u64();
		key[1] = random_u64() | 1;
	}
	a = ((uint64_t)(uintptr_t)x ^ key[0]) * key[1];
	b = ((uint64_t)(uintptr_t)y ^ key[0]) * key[1];
	return a == b ? 0 : a < b ? 1 : 2;
}

SYSCALL(kcmp)
{
	struct task *x = task_find(arg_int(a[0])), *y = task_find(arg_int(a[1]));
	struct file *f, *g;

	if (!x || !y)
		return -ESRCH;
	if (!task_may_inspect(t, x) || !task_may_inspect(t, y))
		return -EPERM;
	switch (arg_int(a[2])) {
	case KCMP_FILE:
		f = x->vt.files ? fd_table_peek(x->vt.files, arg_int(a[3])) : NULL;
		g = y->vt.files ? fd_table_peek(y->vt.files, arg_int(a[4])) : NULL;
		return f && g ? order(f, g) : -EBADF;
	case KCMP_VM:
		return order(x->mm, y->mm);
	case KCMP_FILES:
		return order(x->vt.files, y->vt.files);
	case KCMP_FS:
		return order(x->vt.fs, y->vt.fs);
	case KCMP_SIGHAND:
		return order(x->tg->sighand, y->tg->sighand);
	case KCMP_IO:
	case KCMP_SYSVSEM:
		return order(x->tg, y->tg);
	case KCMP_EPOLL_TFD:
		return -EOPNOTSUPP;
	default:
		return -EINVAL;
	}
}

// --- other processes' memory --------------------------------------------------------------------

#define VM_CHUNK (64UL << 10)
#define IOV_LIMIT 1024

static int64_t copy_remote(struct mm *mm, struct uio *local, const struct giov *remote, size_t n, bool write)
{
	char *buf = arena_alloc(VM_CHUNK);
	int64_t done = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < n && local->resid; i++) {
		for (uint64_t off = 0; off < remote[i].len && local->resid;) {
			size_t want = MIN(remote[i].len - off, VM_CHUNK), len = MIN(want, local->resid);
			struct gaddr at = gaddr_add(remote[i].base, off);
			ssize_t got;

			if (!access_ok(at, len))
				return done ? done : -EFAULT;
			if (write) {
				got = uio_get(local, buf, len);
				if (got > 0)
					got = copy_out_as(mm->as, at, buf, (size_t)got);
			} else {
				got = copy_in_as(mm->as, buf, at, len);
				if (got > 0)
					got = uio_put(local, buf, (size_t)got);
			}
			if (got <= 0)
				return done ? done : -EFAULT;
			done += got;
			off += (uint64_t)got;
			if ((size_t)got < len)
				return done;
			cond_resched();
		}
	}
	return done;
}

static int64_t process_vm(struct task *t, const uint64_t *a, bool write)
{
	struct giov *remote;
	struct uio local;
	struct task *o;
	struct mm *mm;
	int64_t r;

	if (a[5] || a[4] > IOV_LIMIT)
		return -EINVAL;
	r = copy_in_iov(&local, GADDR(a[1]), a[2]);
	if (r < 0)
		return r;
	remote = arena_alloc(MAX(a[4], 1UL) * sizeof(*remote));
	if (!remote)
		return -ENOMEM;
	if (a[4] && copy_in(remote, GADDR(a[3]), a[4] * sizeof(*remote)) < 0)
		return -EFAULT;
	o = task_find(arg_int(a[0]));
	if (!o || !o->mm)
		return -ESRCH;
	if (!task_may_inspect(t, o))
		return -EPERM;
	mm = mm_get(o->mm);
	r = copy_remote(mm, &local, remote, a[4], write);
	mm_put(mm);
	return r;
}

SYSCALL(process_vm_readv)
{
	return process_vm(t, a, false);
}

SYSCALL(process_vm_writev)
{
	return process_vm(t, a, true);
}

// --- namespaces ---------------------------------------------------------------------------------

static int unshare_fs(struct task *t)
{
	struct fs_struct *fs;

	if (ref_read(&t->vt.fs->refs) == 1)
		return 0;
	fs = fs_struct_copy(t->vt.fs);
	if (!fs)
		return -ENOMEM;
	fs_struct_put(t->vt.fs);
	t->vt.fs = fs;
	return 0;
}

static int unshare_files(struct task *t)
{
	struct fd_table *files, *old = t->vt.files;

	if (fd_table_users(old) == 1)
		return 0;
	files = fd_table_copy(old, UINT32_MAX, UINT32_MAX);
	if (!files)
		return -ENOMEM;
	t->vt.files = files;
	fd_table_put(old);
	return 0;
}

#define UNSHARE_FLAGS                                                                              \
	(CLONE_THREAD | CLONE_FS | CLONE_NEWNS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_SYSVSEM |            \
	 CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWCGROUP)

SYSCALL(unshare)
{
	uint64_t flags = a[0];
	struct uts_ns *uts;
	int r;

	if (flags & ~(uint64_t)UNSHARE_FLAGS)
		return -EINVAL;
	// These only say that the process has one thread.
	if ((flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) &&
	    (t->tg->nthreads > 1 || (flags & CLONE_VM && ref_read(&t->mm->users) > 1)))
		return -EINVAL;
	r = clone_check_namespaces(t, flags);
	if (r == 0 && (flags & (CLONE_FS | CLONE_NEWNS)))
		r = unshare_fs(t);
	if (r == 0 && (flags & CLONE_FILES))
		r = unshare_files(t);
	if (r == 0 && (flags & CLONE_NEWNS))
		r = task_new_mnt_ns(t);
	if (r < 0 || !(flags & CLONE_NEWUTS))
		return r;
	uts = uts_ns_new(t->uts->nodename, t->uts->domainname);
	if (!uts)
		return -ENOMEM;
	uts_ns_put(t->uts);
	t->uts = uts;
	return 0;
}

// No file here stands for a namespace yet.
SYSCALL(setns)
{
	return fd_peek(arg_int(a[0])) ? -EINVAL : -EBADF;
}

// --- process descriptors ------------------------------------------------------------------------

#define PIDFD_NONBLOCK O_NONBLOCK

SYSCALL(pidfd_open)
{
	struct pid *pid;
	struct file *f;
	int r;

	if (arg_uint(a[1]) & ~(unsigned)PIDFD_NONBLOCK || arg_int(a[0]) <= 0)
		return -EINVAL;
	pid = pid_find(arg_int(a[0]));
	if (!pid || !pid->task)
		return -ESRCH;
	if (pid->task->tg->leader != pid->task)
		return -EINVAL;
	r = pidfd_new(pid, arg_uint(a[1]) & O_NONBLOCK, &f);
	if (r < 0)
		return r;
	r = fd_install(f, O_CLOEXEC);
	if (r < 0)
		file_put(f);
	return r;
}

SYSCALL(pidfd_getfd)
{
	struct file *pf = fd_peek(arg_int(a[0])), *f;
	struct pid *pid;
	int r;

	if (arg_uint(a[2]))
		return -EINVAL;
	pid = pf ? pidfd_pid(pf) : NULL;
	if (!pid)
		return -EBADF;
	if (!pid->task || !pid->task->vt.files)
		return -ESRCH;
	if (!task_may_inspect(t, pid->task))
		return -EPERM;
	f = fd_table_peek(pid->task->vt.files, arg_int(a[1]));
	if (!f)
		return -EBADF;
	file_get(f);
	r = fd_install(f, O_CLOEXEC);
	if (r < 0)
		file_put(f);
	return r;
}
