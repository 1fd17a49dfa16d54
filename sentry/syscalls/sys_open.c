// open(2), openat2(2), close(2), close_range(2), dup(2), memfd_create(2).
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sys/mman.h>

#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/syscalls/fsutil.h"

#define TMPFILE_BIT (O_TMPFILE & ~O_DIRECTORY)
#define O_LARGE 0100000u // what O_LARGEFILE is to the kernel; glibc's is 0 on amd64
#define O_PATH_FLAGS (O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC)
#define O_KNOWN \
	((unsigned)(O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC | O_DSYNC | O_ASYNC | O_DIRECT | \
		    O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE) | O_LARGE)
#define MFD_NAME_MAX 249

static int64_t do_open(int dfd, const char *name, unsigned flags, uint32_t mode, unsigned walk_flags)
{
	struct file *f;
	int err, fd;

	// A number first: with none left, Linux creates no file either.
	fd = fd_reserve(flags & O_CLOEXEC);
	if (fd < 0)
		return fd;
	err = vfs_openat(dfd, name, flags, mode, walk_flags, &f);
	if (err) {
		fd_unreserve(fd);
		return err;
	}
	fd_fill(fd, f);
	return fd;
}

// What open and openat make of their flags: the unknown are ignored. -EINVAL.
static int lenient_flags(unsigned *flags, uint32_t *mode)
{
	unsigned f = (*flags & O_KNOWN) | O_LARGE;

	if (f & O_PATH)
		f &= O_PATH_FLAGS;
	if (!(f & (O_CREAT | TMPFILE_BIT)))
		*mode = 0;
	if ((f & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY))
		return -EINVAL;
	if (f & TMPFILE_BIT && (!(f & O_DIRECTORY) || (f & O_ACCMODE) == O_RDONLY))
		return -EINVAL;
	*flags = f;
	*mode &= 07777;
	return 0;
}

static int64_t open_call(int dfd, struct gaddr path, unsigned flags, uint32_t mode)
{
	char *name;
	int err = lenient_flags(&flags, &mode);

	if (!err)
		err = copy_in_path(&name, path);
	return err ? err : do_open(dfd, name, flags, mode, 0);
}

SYSCALL(open)
{
	return open_call(AT_FDCWD, GADDR(a[0]), arg_uint(a[1]), arg_uint(a[2]));
}

SYSCALL(openat)
{
	return open_call(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), arg_uint(a[3]));
}

SYSCALL(creat)
{
	return open_call(AT_FDCWD, GADDR(a[0]), O_CREAT | O_WRONLY | O_TRUNC, arg_uint(a[1]));
}

static int resolve_flags(uint64_t resolve, unsigned *ret)
{
	unsigned w = 0;

	if (resolve & ~(uint64_t)(RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT |
				  RESOLVE_CACHED))
		return -EINVAL;
	if ((resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) == (RESOLVE_BENEATH | RESOLVE_IN_ROOT))
		return -EINVAL;
	if (resolve & RESOLVE_CACHED)
		return -EAGAIN; // never promised: the caller asks again without
	w |= resolve & RESOLVE_NO_XDEV ? WALK_NO_XDEV : 0;
	w |= resolve & RESOLVE_NO_MAGICLINKS ? WALK_NO_MAGICLINKS : 0;
	w |= resolve & RESOLVE_NO_SYMLINKS ? WALK_NO_SYMLINKS | WALK_NO_MAGICLINKS : 0;
	w |= resolve & RESOLVE_BENEATH ? WALK_BENEATH : 0;
	w |= resolve & RESOLVE_IN_ROOT ? WALK_IN_ROOT : 0;
	*ret = w;
	return 0;
}

SYSCALL(openat2)
{
	struct open_how how;
	unsigned walk_flags, flags;
	uint32_t mode;
	char *name;
	int err;

	if (a[3] < sizeof(how))
		return -EINVAL;
	if (a[3] > PAGE_SIZE)
		return -E2BIG;
	err = copy_in_struct(&how, sizeof(how), GADDR(a[2]), a[3]);
	if (err)
		return err;
	if (how.flags & ~(uint64_t)O_KNOWN)
		return -EINVAL;
	flags = (unsigned)how.flags;
	if (flags & (O_CREAT | TMPFILE_BIT) ? how.mode & ~07777ULL : how.mode != 0)
		return -EINVAL;
	if (flags & O_PATH && flags & ~(unsigned)O_PATH_FLAGS)
		return -EINVAL;
	mode = (uint32_t)how.mode;
	err = lenient_flags(&flags, &mode);
	if (!err)
		err = resolve_flags(how.resolve, &walk_flags);
	if (!err)
		err = copy_in_path(&name, GADDR(a[1]));
	return err ? err : do_open(arg_int(a[0]), name, flags, mode, walk_flags);
}

SYSCALL(close)
{
	int err = fd_close(arg_int(a[0]));

	return err == -ERESTARTSYS ? -EINTR : err;
}

static int unshare_table(struct task *t, uint32_t from, uint32_t to)
{
	struct fd_table *old = t->vt.files, *copy;

	if (fd_table_users(old) == 1)
		return 0;
	copy = fd_table_copy(old, from, to);
	if (!copy)
		return -ENOMEM;
	t->vt.files = copy;
	fd_table_put(old);
	return 0;
}

SYSCALL(close_range)
{
	uint32_t from = arg_uint(a[0]), to = arg_uint(a[1]);
	unsigned flags = arg_uint(a[2]);
	int fd;

	if (flags & ~(unsigned)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) || from > to)
		return -EINVAL;
	if (flags & CLOSE_RANGE_UNSHARE) {
		// With CLOEXEC the copy keeps the range; otherwise it need not have it.
		int err = flags & CLOSE_RANGE_CLOEXEC ? unshare_table(t, UINT32_MAX, 0) : unshare_table(t, from, to);

		if (err)
			return err;
	}
	if (from > INT32_MAX)
		return 0;
	for (fd = fd_table_next(t->vt.files, (int)from); fd >= 0 && (uint32_t)fd <= to; fd = fd_table_next(t->vt.files, fd + 1)) {
		if (flags & CLOSE_RANGE_CLOEXEC)
			fd_set_flags(fd, FD_CLOEXEC);
		else
			fd_close(fd);
	}
	return 0;
}

SYSCALL(dup)
{
	struct file *f = fd_get_path_ok(arg_int(a[0]));
	int fd;

	if (!f)
		return -EBADF;
	fd = fd_install(f, 0);
	if (fd < 0)
		file_put(f);
	return fd;
}

static int64_t do_dup3(int old, int new, unsigned o_cloexec)
{
	struct file *f = fd_get_path_ok(old);
	int fd;

	if (!f)
		return -EBADF;
	fd = fd_replace(f, new, o_cloexec);
	file_put(f);
	return fd;
}

SYSCALL(dup2)
{
	int old = arg_int(a[0]);

	if (old == arg_int(a[1]))
		return fd_table_peek(t->vt.files, old) ? old : -EBADF;
	return do_dup3(old, arg_int(a[1]), 0);
}

SYSCALL(dup3)
{
	if (arg_uint(a[2]) & ~(unsigned)O_CLOEXEC || arg_int(a[0]) == arg_int(a[1]))
		return -EINVAL;
	return do_dup3(arg_int(a[0]), arg_int(a[1]), arg_uint(a[2]));
}

SYSCALL(umask)
{
	uint32_t old = t->vt.fs->umask;

	t->vt.fs->umask = arg_uint(a[0]) & 0777;
	return old;
}

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC 0x10u
#endif

SYSCALL(memfd_create)
{
	unsigned flags = arg_uint(a[1]);
	struct file *f;
	size_t len;
	char *name;
	int err, fd;

	if (flags & MFD_HUGETLB)
		return -ENOSYS; // as a Linux without hugetlbfs
	if (flags & ~(unsigned)(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC))
		return -EINVAL;
	if ((flags & (MFD_NOEXEC_SEAL | MFD_EXEC)) == (MFD_NOEXEC_SEAL | MFD_EXEC))
		return -EINVAL;
	err = copy_in_str(&name, GADDR(a[0]), MFD_NAME_MAX + 1, &len);
	if (err)
		return err == -ENAMETOOLONG ? -EINVAL : err;
	fd = fd_reserve(flags & MFD_CLOEXEC);
	if (fd < 0)
		return fd;
	err = memfd_new(name, flags, &f);
	if (err) {
		fd_unreserve(fd);
		return err;
	}
	fd_fill(fd, f);
	return fd;
}

// File handles are not given out.
SYSCALL(name_to_handle_at)
{
	return -EOPNOTSUPP;
}

SYSCALL(open_by_handle_at)
{
	return capable(2) ? -ESTALE : -EPERM; // CAP_DAC_READ_SEARCH
}
