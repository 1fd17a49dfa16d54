// pipe(2), pipe2(2).
#include <fcntl.h>

#include "platform/base/base.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/syscalls/syscalls.h"

#define O_NOTIFICATION_PIPE O_EXCL

static int64_t do_pipe(struct gaddr out, unsigned flags)
{
	struct file *files[2];
	int fds[2], r;

	if (flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT | O_NOTIFICATION_PIPE))
		return -EINVAL;
	if (flags & O_NOTIFICATION_PIPE)
		return -ENOPKG;
	r = fd_reserve(flags & O_CLOEXEC);
	if (r < 0)
		return r;
	fds[0] = r;
	r = fd_reserve(flags & O_CLOEXEC);
	if (r < 0)
		goto fail_first;
	fds[1] = r;
	r = pipe_create(flags, files);
	if (r)
		goto fail_fds;
	r = copy_out(out, fds, sizeof(fds));
	if (r)
		goto fail_files;
	fd_fill(fds[0], files[0]);
	fd_fill(fds[1], files[1]);
	return 0;

fail_files:
	file_put(files[0]);
	file_put(files[1]);
fail_fds:
	fd_unreserve(fds[1]);
fail_first:
	fd_unreserve(fds[0]);
	return r;
}

SYSCALL(pipe)
{
	return do_pipe(GADDR(a[0]), 0);
}

SYSCALL(pipe2)
{
	return do_pipe(GADDR(a[0]), arg_uint(a[1]));
}
