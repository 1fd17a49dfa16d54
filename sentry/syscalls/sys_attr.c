// Calls that change attributes: chmod(2), chown(2), utimensat(2), extended attributes (xattr(7)).
#include <linux/limits.h>
#include <linux/xattr.h>
#include <sys/time.h>
#include <utime.h>

#include "sentry/syscalls/fsutil.h"

// Applies *attr to the object named; what most of these calls do.
static int64_t set_at(int dfd, struct gaddr path, unsigned at_flags, bool follow, struct iattr *attr)
{
	struct path p;
	int err = fs_user_path(dfd, path, at_flags, follow, &p);

	if (err)
		return err;
	if (attr->valid & ATTR_MODE && S_ISLNK(p.dentry->inode->mode))
		err = -EOPNOTSUPP;
	else
		err = vfs_setattr(&p, attr);
	path_put(&p);
	return err;
}

static int64_t set_fd(int fd, struct iattr *attr)
{
	struct file *f = fd_get(fd);
	int err;

	if (!f)
		return -EBADF;
	err = vfs_setattr(&f->path, attr);
	file_put(f);
	return err;
}

static struct iattr mode_attr(uint64_t mode)
{
	return (struct iattr){.valid = ATTR_MODE, .mode = (uint32_t)mode & 07777};
}

SYSCALL(chmod)
{
	struct iattr attr = mode_attr(a[1]);

	return set_at(AT_FDCWD, GADDR(a[0]), 0, true, &attr);
}

SYSCALL(fchmod)
{
	struct iattr attr = mode_attr(a[1]);

	return set_fd(arg_int(a[0]), &attr);
}

SYSCALL(fchmodat)
{
	struct iattr attr = mode_attr(a[2]);

	return set_at(arg_int(a[0]), GADDR(a[1]), 0, true, &attr);
}

SYSCALL(fchmodat2)
{
	struct iattr attr = mode_attr(a[2]);
	unsigned flags = arg_uint(a[3]);

	if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return set_at(arg_int(a[0]), GADDR(a[1]), flags, !(flags & AT_SYMLINK_NOFOLLOW), &attr);
}

static struct iattr owner_attr(uint64_t uid, uint64_t gid)
{
	struct iattr attr = {.uid = (uint32_t)uid, .gid = (uint32_t)gid};

	attr.valid = (attr.uid != UINT32_MAX ? ATTR_UID : 0) | (attr.gid != UINT32_MAX ? ATTR_GID : 0);
	return attr;
}

SYSCALL(chown)
{
	struct iattr attr = owner_attr(a[1], a[2]);

	return set_at(AT_FDCWD, GADDR(a[0]), 0, true, &attr);
}

SYSCALL(lchown)
{
	struct iattr attr = owner_attr(a[1], a[2]);

	return set_at(AT_FDCWD, GADDR(a[0]), 0, false, &attr);
}

SYSCALL(fchown)
{
	struct iattr attr = owner_attr(a[1], a[2]);

	return set_fd(arg_int(a[0]), &attr);
}

SYSCALL(fchownat)
{
	struct iattr attr = owner_attr(a[2], a[3]);
	unsigned flags = arg_uint(a[4]);

	if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return set_at(arg_int(a[0]), GADDR(a[1]), flags, !(flags & AT_SYMLINK_NOFOLLOW), &attr);
}

// --- times --------------------------------------------------------------------------------------------

static const struct iattr now_attr = {.valid = ATTR_ATIME | ATTR_MTIME | ATTR_TIMES_NOW};

// utimensat's two timespecs. -EINVAL.
static int times_attr(const struct timespec ts[2], struct iattr *attr)
{
	struct ktime *to[2] = {&attr->atime, &attr->mtime}, now = vfs_now();
	static const unsigned bit[2] = {ATTR_ATIME, ATTR_MTIME};

	*attr = (struct iattr){0};
	if (ts[0].tv_nsec == UTIME_NOW && ts[1].tv_nsec == UTIME_NOW) {
		*attr = now_attr;
		return 0;
	}
	for (int i = 0; i < 2; i++) {
		if (ts[i].tv_nsec == UTIME_OMIT)
			continue;
		if (ts[i].tv_nsec != UTIME_NOW && (ts[i].tv_nsec < 0 || ts[i].tv_nsec > 999999999))
			return -EINVAL;
		attr->valid |= bit[i];
		*to[i] = ts[i].tv_nsec == UTIME_NOW ? now : (struct ktime){ts[i].tv_sec, (uint32_t)ts[i].tv_nsec};
	}
	return 0;
}

SYSCALL(utimensat)
{
	unsigned flags = arg_uint(a[3]);
	struct iattr attr = now_attr;
	struct timespec ts[2];
	int err;

	if (!gaddr_null(GADDR(a[2]))) {
		if (copy_in(ts, GADDR(a[2]), sizeof(ts)))
			return -EFAULT;
		if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
			return 0;
		err = times_attr(ts, &attr);
		if (err)
			return err;
	}
	if (gaddr_null(GADDR(a[1])) && arg_int(a[0]) != AT_FDCWD) {
		if (flags)
			return -EINVAL;
		return set_fd(arg_int(a[0]), &attr);
	}
	if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	return set_at(arg_int(a[0]), GADDR(a[1]), flags, !(flags & AT_SYMLINK_NOFOLLOW), &attr);
}

static int64_t set_timevals(int dfd, struct gaddr path, struct gaddr times)
{
	struct iattr attr = now_attr;
	struct timeval tv[2];

	if (!gaddr_null(times)) {
		if (copy_in(tv, times, sizeof(tv)))
			return -EFAULT;
		if (tv[0].tv_usec < 0 || tv[0].tv_usec >= 1000000 || tv[1].tv_usec < 0 || tv[1].tv_usec >= 1000000)
			return -EINVAL;
		attr.valid = ATTR_ATIME | ATTR_MTIME;
		attr.atime = (struct ktime){tv[0].tv_sec, (uint32_t)tv[0].tv_usec * 1000};
		attr.mtime = (struct ktime){tv[1].tv_sec, (uint32_t)tv[1].tv_usec * 1000};
	}
	if (gaddr_null(path) && dfd != AT_FDCWD)
		return set_fd(dfd, &attr);
	return set_at(dfd, path, 0, true, &attr);
}

SYSCALL(utimes)
{
	return set_timevals(AT_FDCWD, GADDR(a[0]), GADDR(a[1]));
}

SYSCALL(futimesat)
{
	return set_timevals(arg_int(a[0]), GADDR(a[1]), GADDR(a[2]));
}

SYSCALL(utime)
{
	struct iattr attr = now_attr;
	struct utimbuf tb;

	if (!gaddr_null(GADDR(a[1]))) {
		if (copy_in(&tb, GADDR(a[1]), sizeof(tb)))
			return -EFAULT;
		attr.valid = ATTR_ATIME | ATTR_MTIME;
		attr.atime = (struct ktime){tb.actime, 0};
		attr.mtime = (struct ktime){tb.modtime, 0};
	}
	return set_at(AT_FDCWD, GADDR(a[0]), 0, true, &attr);
}

// --- extended attributes ------------------------------------------------------------------------------

static int copy_in_name(char **ret, struct gaddr name)
{
	int err = copy_in_str(ret, name, XATTR_NAME_MAX + 1, NULL);

	if (err == -ENAMETOOLONG || (!err && !**ret))
		return -ERANGE;
	return err;
}

static int64_t do_setxattr(const struct path *p, struct gaddr name, struct gaddr value, uint64_t size, unsigned flags)
{
	char *s, *val;
	int err;

	if (flags & ~(unsigned)(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	err = copy_in_name(&s, name);
	if (err)
		return err;
	if (size > XATTR_SIZE_MAX)
		return -E2BIG;
	val = arena_alloc(size + 1);
	if (!val)
		return -ENOMEM;
	if (size && copy_in(val, value, size))
		return -EFAULT;
	return vfs_setxattr(p, s, val, size, (int)flags);
}

static int64_t do_getxattr(const struct path *p, struct gaddr name, struct gaddr value, uint64_t size)
{
	char *s, *val = NULL;
	int64_t n;
	int err = copy_in_name(&s, name);

	if (err)
		return err;
	size = MIN(size, (uint64_t)XATTR_SIZE_MAX);
	if (size && !(val = arena_alloc(size)))
		return -ENOMEM;
	n = vfs_getxattr(p, s, val, size);
	if (n > 0 && size && copy_out(value, val, (size_t)n))
		return -EFAULT;
	return n;
}

static int64_t do_listxattr(const struct path *p, struct gaddr list, uint64_t size)
{
	char *buf = NULL;
	int64_t n;

	size = MIN(size, (uint64_t)XATTR_LIST_MAX);
	if (size && !(buf = arena_alloc(size)))
		return -ENOMEM;
	n = vfs_listxattr(p, buf, size);
	if (n > 0 && size && copy_out(list, buf, (size_t)n))
		return -EFAULT;
	return n;
}

static int64_t do_removexattr(const struct path *p, struct gaddr name)
{
	char *s;
	int err = copy_in_name(&s, name);

	return err ? err : vfs_setxattr(p, s, NULL, 0, XATTR_REPLACE);
}

// Runs body with a path p for (dfd, name, flags).
#define WITH_PATH(dfd, name, at_flags, follow, body)                                             \
	struct path p;                                                                           \
	int64_t r = fs_user_path(dfd, name, at_flags, follow, &p);                               \
                                                                                                 \
	if (r)                                                                                   \
		return r;                                                                        \
	r = (body);                                                                              \
	path_put(&p);                                                                            \
	return r
#define WITH_FD(fd, body)                                                                        \
	struct file *f = fd_get(fd);                                                             \
	struct path p;                                                                           \
	int64_t r;                                                                               \
                                                                                                 \
	if (!f)                                                                                  \
		return -EBADF;                                                                   \
	p = f->path;                                                                             \
	r = (body);                                                                              \
	file_put(f);                                                                             \
	return r

SYSCALL(setxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, true, do_setxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3], arg_uint(a[4])));
}

SYSCALL(lsetxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, false, do_setxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3], arg_uint(a[4])));
}

SYSCALL(fsetxattr)
{
	WITH_FD(arg_int(a[0]), do_setxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3], arg_uint(a[4])));
}

SYSCALL(getxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, true, do_getxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3]));
}

SYSCALL(lgetxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, false, do_getxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3]));
}

SYSCALL(fgetxattr)
{
	WITH_FD(arg_int(a[0]), do_getxattr(&p, GADDR(a[1]), GADDR(a[2]), a[3]));
}

SYSCALL(listxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, true, do_listxattr(&p, GADDR(a[1]), a[2]));
}

SYSCALL(llistxattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, false, do_listxattr(&p, GADDR(a[1]), a[2]));
}

SYSCALL(flistxattr)
{
	WITH_FD(arg_int(a[0]), do_listxattr(&p, GADDR(a[1]), a[2]));
}

SYSCALL(removexattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, true, do_removexattr(&p, GADDR(a[1])));
}

SYSCALL(lremovexattr)
{
	WITH_PATH(AT_FDCWD, GADDR(a[0]), 0, false, do_removexattr(&p, GADDR(a[1])));
}

SYSCALL(fremovexattr)
{
	WITH_FD(arg_int(a[0]), do_removexattr(&p, GADDR(a[1])));
}

// The *xattrat calls (6.13): struct xattr_args is value, size, flags.
struct xattr_args_ {
	uint64_t value;
	uint32_t size, flags;
};

static int copy_in_xattr_args(struct xattr_args_ *ret, struct gaddr from, uint64_t size)
{
	if (size < sizeof(*ret))
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	return copy_in_struct(ret, sizeof(*ret), from, size);
}

#define XATTRAT_FLAGS (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)

SYSCALL(setxattrat)
{
	struct xattr_args_ x;
	int err = arg_uint(a[2]) & ~(unsigned)XATTRAT_FLAGS ? -EINVAL : copy_in_xattr_args(&x, GADDR(a[4]), a[5]);

	if (err)
		return err;
	WITH_PATH(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), !(a[2] & AT_SYMLINK_NOFOLLOW),
		  do_setxattr(&p, GADDR(a[3]), GADDR(x.value), x.size, x.flags));
}

SYSCALL(getxattrat)
{
	struct xattr_args_ x;
	int err = arg_uint(a[2]) & ~(unsigned)XATTRAT_FLAGS ? -EINVAL : copy_in_xattr_args(&x, GADDR(a[4]), a[5]);

	if (err)
		return err;
	if (x.flags)
		return -EINVAL;
	WITH_PATH(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), !(a[2] & AT_SYMLINK_NOFOLLOW),
		  do_getxattr(&p, GADDR(a[3]), GADDR(x.value), x.size));
}

SYSCALL(listxattrat)
{
	if (arg_uint(a[2]) & ~(unsigned)XATTRAT_FLAGS)
		return -EINVAL;
	WITH_PATH(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), !(a[2] & AT_SYMLINK_NOFOLLOW), do_listxattr(&p, GADDR(a[3]), a[4]));
}

SYSCALL(removexattrat)
{
	if (arg_uint(a[2]) & ~(unsigned)XATTRAT_FLAGS)
		return -EINVAL;
	WITH_PATH(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), !(a[2] & AT_SYMLINK_NOFOLLOW), do_removexattr(&p, GADDR(a[3])));
}
