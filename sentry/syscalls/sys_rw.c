// read(2), write(2) and their relatives, lseek(2), getdents(2), fallocate(2), fsync(2).
#include <dirent.h>
#include <limits.h>
#include <linux/fadvise.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "platform/base/checked.h"
#include "sentry/syscalls/fsutil.h"

#define RWF_KNOWN (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)
#define GETDENTS_CHUNK 8192UL

// Reads or writes at the file's own position.
static ssize_t rw_at_pos(struct file *f, struct uio *u, bool write)
{
	ssize_t n;

	file_get(f);
	fs_pos_lock(f);
	n = write ? vfs_write(f, u, &f->pos) : vfs_read(f, u, &f->pos);
	fs_pos_unlock(f);
	file_put(f);
	return n;
}

static int64_t rw_simple(const uint64_t *a, bool write)
{
	struct file *f = fd_peek(arg_int(a[0]));
	struct giov one;
	struct uio u;

	if (!f)
		return -EBADF;
	if (a[2] > SSIZE_MAX)
		return -EINVAL;
	u = uio_guest(&one, GADDR(a[1]), a[2]);
	if (!access_ok(GADDR(a[1]), u.resid))
		return f->mode & (write ? FMODE_WRITE : FMODE_READ) ? -EFAULT : -EBADF;
	return rw_at_pos(f, &u, write);
}

SYSCALL(read)
{
	return rw_simple(a, false);
}

SYSCALL(write)
{
	return rw_simple(a, true);
}

// Reads or writes at a position of the caller's.
static ssize_t rw_at(struct file *f, struct uio *u, int64_t pos, bool write)
{
	ssize_t n;

	if (f->ops->flags & FOP_STREAM)
		return -ESPIPE;
	file_get(f);
	n = write ? vfs_write(f, u, &pos) : vfs_read(f, u, &pos);
	file_put(f);
	return n;
}

static int64_t rw_positioned(const uint64_t *a, bool write)
{
	int64_t pos = (int64_t)a[3];
	struct file *f;
	struct giov one;
	struct uio u;

	if (pos < 0)
		return -EINVAL;
	f = fd_peek(arg_int(a[0]));
	if (!f)
		return -EBADF;
	if (a[2] > SSIZE_MAX)
		return -EINVAL;
	u = uio_guest(&one, GADDR(a[1]), a[2]);
	if (!access_ok(GADDR(a[1]), u.resid))
		return -EFAULT;
	return rw_at(f, &u, pos, write);
}

SYSCALL(pread64)
{
	return rw_positioned(a, false);
}

SYSCALL(pwrite64)
{
	return rw_positioned(a, true);
}

// RWF_NOWAIT on something that could block: only if it would not.
static bool would_block(struct file *f, bool write)
{
	return f->ops->flags & FOP_STREAM && !(file_poll(f, NULL) & (uint32_t)(write ? EPOLLOUT : EPOLLIN | EPOLLHUP));
}

static ssize_t rw_flagged(struct file *f, struct uio *u, int64_t pos, unsigned flags, bool write)
{
	unsigned append = flags & RWF_APPEND && write ? O_APPEND & ~f->flags : 0;
	ssize_t n;

	if (flags & RWF_NOWAIT && would_block(f, write))
		return -EAGAIN;
	file_get(f);
	f->flags |= append;
	n = pos == -1 ? rw_at_pos(f, u, write) : rw_at(f, u, pos, write);
	f->flags &= ~append;
	if (n > 0 && write && flags & (RWF_DSYNC | RWF_SYNC)) {
		int err = vfs_fsync(f, !(flags & RWF_SYNC));

		if (err && err != -EINVAL)
			n = err;
	}
	file_put(f);
	return n;
}

static int64_t rw_vector(const uint64_t *a, int64_t pos, bool positioned, unsigned flags, bool write)
{
	struct file *f = fd_peek(arg_int(a[0]));
	struct uio u;
	int err;

	if (positioned && pos < (flags == UINT_MAX ? 0 : -1))
		return -EINVAL;
	if (flags == UINT_MAX)
		flags = 0;
	if (!f)
		return -EBADF;
	if (!(f->mode & (write ? FMODE_WRITE : FMODE_READ)))
		return -EBADF;
	err = copy_in_iov(&u, GADDR(a[1]), a[2]);
	if (err)
		return err;
	if (flags & ~(unsigned)RWF_KNOWN)
		return -EOPNOTSUPP;
	f = fd_peek(arg_int(a[0])); // the copy may have waited
	if (!f)
		return -EBADF;
	return rw_flagged(f, &u, positioned ? pos : -1, flags, write);
}

SYSCALL(readv)
{
	return rw_vector(a, -1, false, 0, false);
}

SYSCALL(writev)
{
	return rw_vector(a, -1, false, 0, true);
}

SYSCALL(preadv)
{
	return rw_vector(a, (int64_t)a[3], true, UINT_MAX, false);
}

SYSCALL(pwritev)
{
	return rw_vector(a, (int64_t)a[3], true, UINT_MAX, true);
}

SYSCALL(preadv2)
{
	return rw_vector(a, (int64_t)a[3], true, arg_uint(a[5]) & 0x7fffffff, false);
}

SYSCALL(pwritev2)
{
	return rw_vector(a, (int64_t)a[3], true, arg_uint(a[5]) & 0x7fffffff, true);
}

SYSCALL(lseek)
{
	struct file *f = fd_get(arg_int(a[0]));
	int64_t r;

	if (!f)
		return -EBADF;
	fs_pos_lock(f);
	r = arg_uint(a[2]) > SEEK_HOLE ? -EINVAL : vfs_llseek(f, (int64_t)a[1], arg_int(a[2]));
	fs_pos_unlock(f);
	file_put(f);
	return r;
}

// --- directories --------------------------------------------------------------------------------------

struct dents {
	struct dir_context c;
	char *buf;
	size_t size, used;
	bool old, too_small;
};

struct dirent_64 { // what getdents64(2) writes
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};
struct dirent_old { // getdents(2): the type is the record's last byte
	uint64_t ino, off;
	uint16_t reclen;
	char name[];
};

static bool fill_dent(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next_pos)
{
	struct dents *d = c->arg;
	size_t head = d->old ? offsetof(struct dirent_old, name) : offsetof(struct dirent_64, name);
	size_t reclen = (head + len + (d->old ? 2 : 1) + 7) & ~7UL;
	char *at = d->buf + d->used;

	if (reclen > d->size - d->used) {
		d->too_small = d->used == 0;
		return false;
	}
	memset(at + reclen - 8, 0, 8);
	if (d->old) {
		*(struct dirent_old *)at = (struct dirent_old){.ino = ino, .off = (uint64_t)next_pos, .reclen = (uint16_t)reclen};
		at[reclen - 1] = (char)dtype;
	} else {
		*(struct dirent_64 *)at = (struct dirent_64){ino, next_pos, (uint16_t)reclen, (uint8_t)dtype};
	}
	memcpy(at + head, name, len);
	at[head + len] = 0;
	d->used += reclen;
	return true;
}

static int64_t do_getdents(const uint64_t *a, bool old)
{
	struct file *f = fd_get(arg_int(a[0]));
	struct dents d = {.c.fill = fill_dent, .size = MIN((size_t)arg_uint(a[2]), GETDENTS_CHUNK), .old = old};
	int64_t r, start;

	if (!f)
		return -EBADF;
	d.c.arg = &d;
	d.buf = arena_alloc(GETDENTS_CHUNK);
	if (!d.buf) {
		file_put(f);
		return -ENOMEM;
	}
	klock_lock(&f->pos_lock);
	start = f->pos;
	r = vfs_iterate(f, &d.c);
	if (d.used)
		r = (int64_t)d.used; // an error comes with the next call
	else if (!r && d.too_small)
		r = -EINVAL;
	if (r > 0 && copy_out(GADDR(a[1]), d.buf, d.used)) {
		f->pos = start;
		r = -EFAULT;
	}
	klock_unlock(&f->pos_lock);
	file_put(f);
	return r;
}

SYSCALL(getdents)
{
	return do_getdents(a, true);
}

SYSCALL(getdents64)
{
	return do_getdents(a, false);
}

// --- sizes and storage --------------------------------------------------------------------------------

SYSCALL(truncate)
{
	struct path p;
	int64_t err;

	if ((int64_t)a[1] < 0)
		return -EINVAL;
	err = fs_user_path(AT_FDCWD, GADDR(a[0]), 0, true, &p);
	if (err)
		return err;
	err = vfs_truncate(&p, a[1]);
	path_put(&p);
	return err;
}

SYSCALL(ftruncate)
{
	struct file *f;
	int64_t err;

	if ((int64_t)a[1] < 0)
		return -EINVAL;
	f = fd_get(arg_int(a[0]));
	if (!f)
		return -EBADF;
	err = vfs_ftruncate(f, (int64_t)a[1]);
	file_put(f);
	return err;
}

SYSCALL(fallocate)
{
	struct file *f = fd_get(arg_int(a[0]));
	int64_t err;

	if (!f)
		return -EBADF;
	err = vfs_fallocate(f, arg_int(a[1]), (int64_t)a[2], (int64_t)a[3]);
	file_put(f);
	return err;
}

static int64_t do_fsync(int fd, bool datasync)
{
	struct file *f = fd_get(fd);
	int64_t err;

	if (!f)
		return -EBADF;
	err = vfs_fsync(f, datasync);
	file_put(f);
	return err;
}

SYSCALL(fsync)
{
	return do_fsync(arg_int(a[0]), false);
}

SYSCALL(fdatasync)
{
	return do_fsync(arg_int(a[0]), true);
}

SYSCALL(sync_file_range)
{
	int64_t off = (int64_t)a[1], len = (int64_t)a[2], end;
	struct file *f;

	if (arg_uint(a[3]) & ~7u || off < 0 || len < 0 || !add_i64(off, len, &end))
		return -EINVAL;
	f = fd_peek(arg_int(a[0]));
	if (!f)
		return -EBADF;
	if (!S_ISREG(f->inode->mode) && !S_ISBLK(f->inode->mode) && !S_ISDIR(f->inode->mode) && !S_ISLNK(f->inode->mode))
		return -ESPIPE;
	return do_fsync(arg_int(a[0]), true);
}

SYSCALL(sync)
{
	struct mnt_ns *ns = t->vt.fs->mnt_ns;
	uint64_t seq;
	struct mount *m;
	unsigned done = 0, i;

	if (!ns)
		return 0;
	do { // the list may change while a file system works: find the place again
		seq = ns->seq;
		i = 0;
		TAILQ_FOREACH(m, &ns->mounts, ns_link) {
			struct super_block *sb = m->sb;

			if (i++ < done)
				continue;
			done = i;
			if (!sb->ops->sync)
				continue;
			sb_get(sb);
			sb->ops->sync(sb);
			sb_put(sb);
			if (ns->seq != seq)
				break;
		}
	} while (m);
	return 0;
}

SYSCALL(syncfs)
{
	struct file *f = fd_get(arg_int(a[0]));
	int64_t err = 0;

	if (!f)
		return -EBADF;
	if (f->inode->sb->ops->sync)
		err = f->inode->sb->ops->sync(f->inode->sb);
	file_put(f);
	return err;
}

SYSCALL(fadvise64)
{
	struct file *f = fd_peek(arg_int(a[0]));

	if (!f)
		return -EBADF;
	if (S_ISFIFO(f->inode->mode))
		return -ESPIPE;
	if ((int64_t)a[2] < 0 || arg_uint(a[3]) > POSIX_FADV_NOREUSE)
		return -EINVAL;
	return 0; // advice: the cache is the host's
}

SYSCALL(readahead)
{
	struct file *f = fd_peek(arg_int(a[0]));

	if (!f || !(f->mode & FMODE_READ))
		return -EBADF;
	return S_ISREG(f->inode->mode) ? 0 : -EINVAL;
}
