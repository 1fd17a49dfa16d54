// epoll(7).
#include <fcntl.h>
#include <limits.h>
#include <sys/epoll.h>
#include <time.h>

#include "platform/base/base.h"
#include "sentry/fs/epoll/epoll.h"
#include "sentry/syscalls/sigmask.h"

static int64_t do_create(int flags)
{
	struct file *f;
	int r;

	if (flags & ~EPOLL_CLOEXEC)
		return -EINVAL;
	r = epoll_create_file(&f);
	if (r)
		return r;
	r = fd_install(f, flags & EPOLL_CLOEXEC ? O_CLOEXEC : 0);
	if (r < 0)
		file_put(f);
	return r;
}

SYSCALL(epoll_create)
{
	return arg_int(a[0]) <= 0 ? -EINVAL : do_create(0);
}

SYSCALL(epoll_create1)
{
	return do_create(arg_int(a[0]));
}

SYSCALL(epoll_ctl)
{
	int op = arg_int(a[1]), fd = arg_int(a[2]), r;
	struct abi_epoll_event ev;
	struct file *epf, *target;

	if (op != EPOLL_CTL_DEL) {
		r = copy_in_obj(&ev, GADDR(a[3]));
		if (r)
			return r;
	}
	epf = fd_peek(arg_int(a[0]));
	target = fd_peek(fd);
	if (!epf || !target)
		return -EBADF;
	return epoll_control(epf, op, fd, target, op == EPOLL_CTL_DEL ? NULL : &ev); // never waits
}

static int64_t do_wait(const uint64_t *a, nsec_t deadline)
{
	int max = arg_int(a[2]);
	struct file *f;
	int64_t r;

	if (max <= 0 || max > (int)(INT_MAX / sizeof(struct abi_epoll_event)))
		return -EINVAL;
	if (!access_ok(GADDR(a[1]), max * sizeof(struct abi_epoll_event)))
		return -EFAULT;
	f = fd_get(arg_int(a[0]));
	if (!f)
		return -EBADF;
	r = file_is_epoll(f) ? epoll_fd_wait(f, GADDR(a[1]), max, deadline) : -EINVAL;
	file_put(f);
	return r;
}

static nsec_t deadline_ms(int ms)
{
	if (ms <= 0)
		return ms ? NSEC_INFINITE : 0;
	return sched_now() + (nsec_t)ms * 1000000;
}

SYSCALL(epoll_wait)
{
	return do_wait(a, deadline_ms(arg_int(a[3])));
}

SYSCALL(epoll_pwait)
{
	int64_t r = sigmask_enter(t, GADDR(a[4]), a[5]);

	if (r)
		return r;
	r = do_wait(a, deadline_ms(arg_int(a[3])));
	sigmask_leave(t, r == -EINTR);
	return r;
}

SYSCALL(epoll_pwait2)
{
	nsec_t deadline = NSEC_INFINITE, now;
	struct timespec ts;
	int64_t r;

	if (a[3]) {
		r = copy_in_obj(&ts, GADDR(a[3]));
		if (r)
			return r;
		if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= (long)NSEC_PER_SEC)
			return -EINVAL;
		now = sched_now();
		if (!ts.tv_sec && !ts.tv_nsec)
			deadline = 0;
		else if ((uint64_t)ts.tv_sec < (NSEC_INFINITE - now) / NSEC_PER_SEC - 1)
			deadline = now + (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
	}
	r = sigmask_enter(t, GADDR(a[4]), a[5]);
	if (r)
		return r;
	r = do_wait(a, deadline);
	sigmask_leave(t, r == -EINTR);
	return r;
}
