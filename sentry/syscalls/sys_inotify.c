// inotify(7).
#include <fcntl.h>
#include <sys/inotify.h>

#include "platform/base/base.h"
#include "sentry/fs/inotify/inotify.h"
#include "sentry/syscalls/syscalls.h"

#define WATCH_FLAGS (IN_ALL_EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ISDIR | IN_ONESHOT | IN_UNMOUNT)

static int64_t do_init(int flags)
{
	struct file *f;
	int r;

	if (flags & ~(IN_CLOEXEC | IN_NONBLOCK))
		return -EINVAL;
	r = inotify_create_file(flags & IN_NONBLOCK, &f);
	if (r)
		return r;
	r = fd_install(f, flags & IN_CLOEXEC);
	if (r < 0)
		file_put(f);
	return r;
}

SYSCALL(inotify_init)
{
	return do_init(0);
}

SYSCALL(inotify_init1)
{
	return do_init(arg_int(a[0]));
}

SYSCALL(inotify_add_watch)
{
	uint32_t mask = arg_uint(a[2]);
	unsigned walk = (mask & IN_DONT_FOLLOW ? 0 : WALK_FOLLOW) | (mask & IN_ONLYDIR ? WALK_DIRECTORY : 0);
	struct file *f;
	struct path p;
	char *name;
	int r;

	if (mask & ~WATCH_FLAGS || !(mask & IN_ALL_EVENTS) || (mask & IN_MASK_ADD && mask & IN_MASK_CREATE))
		return -EINVAL;
	f = fd_get(arg_int(a[0]));
	if (!f)
		return -EBADF;
	r = file_is_inotify(f) ? copy_in_path(&name, GADDR(a[1])) : -EINVAL;
	if (!r)
		r = path_walk(AT_FDCWD, name, walk, &p);
	if (!r) {
		r = path_permission(&p, t->vt.cred, MAY_READ);
		if (!r)
			r = inotify_watch(f, p.dentry->inode, mask);
		path_put(&p);
	}
	file_put(f);
	return r;
}

SYSCALL(inotify_rm_watch)
{
	struct file *f = fd_get(arg_int(a[0]));
	int r;

	if (!f)
		return -EBADF;
	r = file_is_inotify(f) ? inotify_unwatch(f, arg_int(a[1])) : -EINVAL;
	file_put(f);
	return r;
}
