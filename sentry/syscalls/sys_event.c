// eventfd(2), signalfd(2), timerfd_create(2).
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "platform/base/base.h"
#include "sentry/fs/eventfd/eventfd.h"
#include "sentry/fs/signalfd/signalfd.h"
#include "sentry/fs/timerfd/timerfd.h"
#include "sentry/syscalls/syscalls.h"

_Static_assert(EFD_NONBLOCK == O_NONBLOCK && EFD_CLOEXEC == O_CLOEXEC, "flags are passed through");
_Static_assert(TFD_NONBLOCK == O_NONBLOCK && TFD_CLOEXEC == O_CLOEXEC, "flags are passed through");
_Static_assert(SFD_NONBLOCK == O_NONBLOCK && SFD_CLOEXEC == O_CLOEXEC, "flags are passed through");

// Takes over f in any case.
static int64_t install(struct file *f, unsigned flags)
{
	int fd = fd_install(f, flags & O_CLOEXEC);

	if (fd < 0)
		file_put(f);
	return fd;
}

static int64_t do_eventfd(unsigned initval, int flags)
{
	struct file *f;
	int r;

	if (flags & ~(EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK))
		return -EINVAL;
	r = eventfd_create(initval, flags & EFD_SEMAPHORE, flags & O_NONBLOCK, &f);
	return r ? r : install(f, flags);
}

SYSCALL(eventfd)
{
	return do_eventfd(arg_uint(a[0]), 0);
}

SYSCALL(eventfd2)
{
	return do_eventfd(arg_uint(a[0]), arg_int(a[1]));
}

static int64_t do_signalfd(int fd, struct gaddr umask, uint64_t size, int flags)
{
	uint64_t mask;
	struct file *f;
	int r;

	if (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK) || size != sizeof(mask))
		return -EINVAL;
	r = copy_in_obj(&mask, umask);
	if (r)
		return r;
	mask &= ~(SIGBIT(SIGKILL) | SIGBIT(SIGSTOP));
	if (fd != -1) {
		f = fd_peek(fd);
		r = f ? signalfd_set_mask(f, mask) : -EBADF;
		return r ? r : fd;
	}
	r = signalfd_create_file(mask, flags & O_NONBLOCK, &f);
	return r ? r : install(f, flags);
}

SYSCALL(signalfd)
{
	return do_signalfd(arg_int(a[0]), GADDR(a[1]), a[2], 0);
}

SYSCALL(signalfd4)
{
	return do_signalfd(arg_int(a[0]), GADDR(a[1]), a[2], arg_int(a[3]));
}

SYSCALL(timerfd_create)
{
	int clockid = arg_int(a[0]), flags = arg_int(a[1]), r;
	struct file *f;

	if (flags & ~(TFD_CLOEXEC | TFD_NONBLOCK))
		return -EINVAL;
	if ((clockid == CLOCK_REALTIME_ALARM || clockid == CLOCK_BOOTTIME_ALARM) && !task_capable(t, CAP_WAKE_ALARM))
		return -EPERM;
	r = timerfd_create_file(clockid, flags & O_NONBLOCK, &f);
	return r ? r : install(f, flags);
}

SYSCALL(timerfd_settime)
{
	struct itimerspec new_value, old;
	struct file *f;
	int r = copy_in_obj(&new_value, GADDR(a[2]));

	if (r)
		return r;
	f = fd_peek(arg_int(a[0]));
	if (!f)
		return -EBADF;
	r = timerfd_set(f, arg_int(a[1]), &new_value, &old);
	if (!r && a[3])
		r = copy_out_obj(GADDR(a[3]), &old);
	return r;
}

SYSCALL(timerfd_gettime)
{
	struct file *f = fd_peek(arg_int(a[0]));
	struct itimerspec cur;
	int r;

	if (!f)
		return -EBADF;
	r = timerfd_get(f, &cur);
	return r ? r : copy_out_obj(GADDR(a[1]), &cur);
}
