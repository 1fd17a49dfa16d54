// Reading, writing, seeking and listing open files: what is common to all file systems.
#include <linux/falloc.h>

#include "sentry/vfs/internal.h"

#define RELATIME_SECONDS (24 * 3600)

void file_accessed(struct file *f)
{
	struct inode *inode = f->inode;
	struct mount *m = f->path.mnt;
	struct ktime now;

	if (f->flags & O_NOATIME || inode->sb->flags & SB_RDONLY)
		return;
	if (m && (m->flags & (MNT_NOATIME | MNT_RDONLY) || (m->flags & MNT_NODIRATIME && S_ISDIR(inode->mode))))
		return;
	now = vfs_now();
	if (!m || m->flags & MNT_RELATIME) {
		const struct ktime *a = &inode->atime, *mt = &inode->mtime, *ct = &inode->ctime;
		bool newer = a->sec > mt->sec || (a->sec == mt->sec && a->nsec > mt->nsec);

		newer = newer && (a->sec > ct->sec || (a->sec == ct->sec && a->nsec > ct->nsec));
		if (newer && now.sec - a->sec < RELATIME_SECONDS)
			return;
	}
	inode->atime = now;
}

void file_modified(struct inode *inode)
{
	inode->mtime = inode->ctime = vfs_now();
}

ssize_t vfs_read(struct file *f, struct uio *u, int64_t *pos)
{
	ssize_t n;

	if (unlikely(!(f->mode & FMODE_READ)))
		return -EBADF;
	if (unlikely(!f->ops->read))
		return S_ISDIR(f->inode->mode) ? -EISDIR : -EINVAL;
	if (unlikely(*pos < 0 && !(f->ops->flags & FOP_STREAM)))
		return -EINVAL;
	n = f->ops->read(f, u, pos);
	if (n > 0)
		fsnotify(f->inode, f->path.dentry, FSN_ACCESS, 0);
	return n;
}

int newsize_ok(const struct inode *inode, uint64_t size)
{
	struct vfs_task *self = vfs_self();

	if (size <= inode->size)
		return 0;
	if (size > self->fsize_limit) {
		if (self->fsize_exceeded)
			self->fsize_exceeded();
		return -EFBIG;
	}
	return size > inode->sb->maxbytes ? -EFBIG : 0;
}

// Regular files: no byte beyond RLIMIT_FSIZE or the largest size; what is below is written.
static int write_limit(struct file *f, struct uio *u, int64_t pos)
{
	struct vfs_task *self = vfs_self();
	struct inode *inode = f->inode;
	uint64_t at = f->flags & O_APPEND ? inode->size : (uint64_t)pos, room;

	if (!u->resid)
		return 0;
	if (at >= self->fsize_limit) {
		if (self->fsize_exceeded)
			self->fsize_exceeded();
		return -EFBIG;
	}
	if (at >= inode->sb->maxbytes)
		return -EFBIG;
	room = MIN(self->fsize_limit, inode->sb->maxbytes) - at;
	u->resid = MIN(u->resid, room);
	return 0;
}

ssize_t vfs_write(struct file *f, struct uio *u, int64_t *pos)
{
	ssize_t n;
	int err;

	if (unlikely(!(f->mode & FMODE_WRITE)))
		return -EBADF;
	if (unlikely(!f->ops->write))
		return -EINVAL;
	if (!(f->ops->flags & FOP_STREAM)) {
		int64_t end;

		if (*pos < 0 || !add_i64(*pos, (int64_t)u->resid, &end))
			return -EINVAL;
	}
	if (S_ISREG(f->inode->mode)) {
		err = write_limit(f, u, *pos);
		if (!err && unlikely(f->inode->mode & (S_ISUID | S_ISGID)) && u->resid)
			err = kill_suid_for_write(f->inode);
		if (err)
			return err;
	}
	n = f->ops->write(f, u, pos);
	if (n > 0) {
		fsnotify(f->inode, f->path.dentry, FSN_MODIFY, 0);
		if (unlikely(f->flags & O_DSYNC) && f->ops->fsync) {
			err = f->ops->fsync(f, (f->flags & O_SYNC) != O_SYNC);
			if (err)
				return err;
		}
	}
	return n;
}

ssize_t kernel_read(struct file *f, void *buf, size_t n, int64_t pos)
{
	size_t done = 0;

	if (!f->ops->read)
		return S_ISDIR(f->inode->mode) ? -EISDIR : -EINVAL;
	while (done < n) {
		struct uio u = uio_kernel((char *)buf + done, n - done);
		ssize_t r = f->ops->read(f, &u, &pos);

		if (r < 0)
			return done ? (ssize_t)done : r;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

int64_t generic_llseek(struct file *f, int64_t off, int whence, uint64_t size)
{
	int64_t base = 0, at;

	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		base = f->pos;
		break;
	case SEEK_END:
		base = (int64_t)size;
		break;
	case SEEK_DATA:
		if (off < 0 || (uint64_t)off >= size)
			return -ENXIO;
		break;
	case SEEK_HOLE:
		if (off < 0 || (uint64_t)off >= size)
			return -ENXIO;
		off = (int64_t)size;
		break;
	default:
		return -EINVAL;
	}
	if (!add_i64(base, off, &at))
		return -EOVERFLOW;
	if (at < 0 || (uint64_t)at > f->inode->sb->maxbytes)
		return -EINVAL;
	f->pos = at;
	return at;
}

int64_t vfs_llseek(struct file *f, int64_t off, int whence)
{
	if (f->ops->llseek)
		return f->ops->llseek(f, off, whence);
	if (f->ops->flags & FOP_STREAM)
		return -ESPIPE;
	if (f->inode->ops->getattr && (whence == SEEK_END || whence > SEEK_END)) {
		int err = f->inode->ops->getattr(f->inode);

		if (err)
			return err;
	}
	return generic_llseek(f, off, whence, f->inode->size);
}

int vfs_iterate(struct file *f, struct dir_context *c)
{
	struct inode *dir = f->inode;
	int err = -ENOENT;

	if (!S_ISDIR(dir->mode) || !f->ops->iterate)
		return -ENOTDIR;
	klock_lock(&dir->lock);
	if (dir->nlink) {
		c->pos = f->pos;
		err = f->ops->iterate(f, c);
		f->pos = c->pos;
		file_accessed(f);
	}
	klock_unlock(&dir->lock);
	if (!err)
		fsnotify(dir, f->path.dentry, FSN_ACCESS, 0);
	return err;
}

int vfs_fsync(struct file *f, bool datasync)
{
	return f->ops->fsync ? f->ops->fsync(f, datasync) : -EINVAL;
}

int64_t vfs_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	return f->ops->ioctl ? f->ops->ioctl(f, cmd, arg) : -ENOTTY;
}

static bool fallocate_mode_ok(int mode)
{
	switch (mode & ~FALLOC_FL_KEEP_SIZE) {
	case 0:
	case FALLOC_FL_ZERO_RANGE:
		return true;
	case FALLOC_FL_PUNCH_HOLE:
		return mode & FALLOC_FL_KEEP_SIZE;
	case FALLOC_FL_COLLAPSE_RANGE:
	case FALLOC_FL_INSERT_RANGE:
	case FALLOC_FL_UNSHARE_RANGE:
		return mode == (mode & ~FALLOC_FL_KEEP_SIZE) || mode & FALLOC_FL_UNSHARE_RANGE;
	default:
		return false;
	}
}

int vfs_fallocate(struct file *f, int mode, int64_t off, int64_t len)
{
	struct inode *inode = f->inode;
	int64_t end;
	int err;

	if (off < 0 || len <= 0)
		return -EINVAL;
	if (!fallocate_mode_ok(mode))
		return -EOPNOTSUPP;
	if (!(f->mode & FMODE_WRITE))
		return -EBADF;
	if (S_ISFIFO(inode->mode))
		return -ESPIPE;
	if (S_ISDIR(inode->mode))
		return -EISDIR;
	if (!S_ISREG(inode->mode) && !S_ISBLK(inode->mode))
		return -ENODEV;
	if (!add_i64(off, len, &end) || (uint64_t)end > inode->sb->maxbytes)
		return -EFBIG;
	if (!f->ops->fallocate)
		return -EOPNOTSUPP;
	if (!(mode & FALLOC_FL_KEEP_SIZE)) {
		err = newsize_ok(inode, (uint64_t)end);
		if (err)
			return err;
	}
	if (inode->mode & (S_ISUID | S_ISGID)) {
		err = kill_suid_for_write(inode);
		if (err)
			return err;
	}
	err = f->ops->fallocate(f, mode, (uint64_t)off, (uint64_t)len);
	if (!err)
		fsnotify(inode, f->path.dentry, FSN_MODIFY, 0);
	return err;
}
