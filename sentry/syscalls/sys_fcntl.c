// fcntl(2), ioctl(2)'s part that is the same for all files, flock(2).
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>

#include "platform/base/checked.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/syscalls/fsutil.h"
#include "sentry/vfs/locks.h"

#include <linux/capability.h>

#define SETFL_MASK ((unsigned)(O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC))
#define LOCK_MAX ((uint64_t)INT64_MAX)

struct flock_abi { // struct flock of amd64
	int16_t type, whence;
	int64_t start, len;
	int32_t pid;
};
_Static_assert(sizeof(struct flock_abi) == 32, "struct flock");

// --- record locks ---------------------------------------------------------------------------------------

static int lock_range(struct file *f, const struct flock_abi *fl, struct posix_lock *l)
{
	int64_t start = fl->start, end;

	switch (fl->whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		if (!add_i64(f->pos, start, &start))
			return -EOVERFLOW;
		break;
	case SEEK_END:
		if (!add_i64((int64_t)f->inode->size, start, &start))
			return -EOVERFLOW;
		break;
	default:
		return -EINVAL;
	}
	if (start < 0)
		return -EINVAL;
	if (fl->len > 0) {
		if (!add_i64(start, fl->len - 1, &end))
			return -EOVERFLOW;
	} else if (fl->len < 0) {
		if (start + fl->len < 0)
			return -EINVAL;
		end = start - 1;
		start += fl->len;
	} else {
		end = INT64_MAX;
	}
	l->start = (uint64_t)start;
	l->end = (uint64_t)end;
	return 0;
}

static int decode_lock(struct task *t, struct file *f, struct gaddr from, bool ofd, struct flock_abi *fl, struct posix_lock *l)
{
	if (copy_in(fl, from, sizeof(*fl)))
		return -EFAULT;
	*l = (struct posix_lock){.type = fl->type, .ofd = ofd, .pid = ofd ? -1 : t->tg->pid->nr};
	l->owner = ofd ? (const void *)f : (const void *)t->vt.files;
	if (ofd && fl->pid)
		return -EINVAL;
	return lock_range(f, fl, l);
}

static int64_t set_lock(struct task *t, struct file *f, struct gaddr arg, bool ofd, bool wait)
{
	struct flock_abi fl;
	struct posix_lock l;
	int err = decode_lock(t, f, arg, ofd, &fl, &l);

	if (err)
		return err;
	switch (l.type) {
	case F_RDLCK:
		if (!(f->mode & FMODE_READ))
			return -EBADF;
		break;
	case F_WRLCK:
		if (!(f->mode & FMODE_WRITE))
			return -EBADF;
		break;
	case F_UNLCK:
		break;
	default:
		return -EINVAL;
	}
	err = lock_posix_set(f, &l, wait);
	return err == -EINTR ? -ERESTARTSYS : err;
}

static int64_t get_lock(struct task *t, struct file *f, struct gaddr arg, bool ofd)
{
	struct flock_abi fl;
	struct posix_lock l;
	int err = decode_lock(t, f, arg, ofd, &fl, &l);

	if (err)
		return err;
	if (l.type != F_RDLCK && l.type != F_WRLCK)
		return -EINVAL;
	lock_posix_get(f, &l);
	fl.type = (int16_t)l.type;
	if (l.type != F_UNLCK) {
		fl.whence = SEEK_SET;
		fl.start = (int64_t)l.start;
		fl.len = l.end >= LOCK_MAX ? 0 : (int64_t)(l.end - l.start + 1);
		fl.pid = l.pid;
	}
	return copy_out(arg, &fl, sizeof(fl));
}

// --- flags and owners -----------------------------------------------------------------------------------

static int64_t set_flags(struct task *t, struct file *f, unsigned arg)
{
	unsigned flags = (f->flags & ~SETFL_MASK) | (arg & SETFL_MASK);

	if (flags & ~f->flags & O_NOATIME && !inode_owner_or_capable(f->inode, t->vt.cred))
		return -EPERM;
	if (flags & ~f->flags & O_DIRECT && !S_ISREG(f->inode->mode) && !S_ISBLK(f->inode->mode) && !f->ops->set_flags)
		return -EINVAL;
	if (f->ops->set_flags) {
		int err = f->ops->set_flags(f, flags);

		if (err)
			return err;
	}
	if ((flags ^ f->flags) & O_ASYNC && vfs_fasync)
		vfs_fasync(f, flags & O_ASYNC);
	f->flags = flags;
	return 0;
}

static int64_t set_owner(struct task *t, struct file *f, int who, int type)
{
	// A process that is gone is no error to F_SETOWN_EX's caller but ESRCH.
	if (who && !pid_find(who))
		return -ESRCH;
	f->owner.pid = (uint32_t)who;
	f->owner.type = type;
	f->owner.uid = t->vt.cred->uid;
	f->owner.euid = t->vt.cred->euid;
	return 0;
}

struct owner_ex {
	int32_t type, pid;
};

static int64_t set_owner_ex(struct task *t, struct file *f, struct gaddr arg)
{
	struct owner_ex o;

	if (copy_in(&o, arg, sizeof(o)))
		return -EFAULT;
	if (o.type < F_OWNER_TID || o.type > F_OWNER_PGRP)
		return -EINVAL;
	return set_owner(t, f, o.pid, o.type);
}

static int64_t file_fcntl(struct task *t, struct file *f, unsigned cmd, uint64_t arg)
{
	switch (cmd) {
	case F_SETFL:
		return set_flags(t, f, (unsigned)arg);
	case F_GETLK:
		return get_lock(t, f, GADDR(arg), false);
	case F_SETLK:
	case F_SETLKW:
		return set_lock(t, f, GADDR(arg), false, cmd == F_SETLKW);
	case F_OFD_GETLK:
		return get_lock(t, f, GADDR(arg), true);
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return set_lock(t, f, GADDR(arg), true, cmd == F_OFD_SETLKW);
	case F_SETOWN:
		if ((int)arg == INT32_MIN)
			return -EINVAL;
		return (int)arg < 0 ? set_owner(t, f, -(int)arg, F_OWNER_PGRP) : set_owner(t, f, (int)arg, F_OWNER_PID);
	case F_GETOWN:
		return f->owner.type == F_OWNER_PGRP ? -(int64_t)f->owner.pid : (int64_t)f->owner.pid;
	case F_SETOWN_EX:
		return set_owner_ex(t, f, GADDR(arg));
	case F_GETOWN_EX: {
		struct owner_ex o = {f->owner.pid ? f->owner.type : F_OWNER_PID, (int32_t)f->owner.pid};

		return copy_out(GADDR(arg), &o, sizeof(o));
	}
	case F_SETSIG:
		if (arg > KNSIG)
			return -EINVAL;
		f->owner.sig = (int)arg;
		return 0;
	case F_GETSIG:
		return f->owner.sig;
	case F_SETPIPE_SZ:
		return pipe_set_size(f, (unsigned)arg, task_capable(t, CAP_SYS_RESOURCE));
	case F_GETPIPE_SZ:
		return pipe_get_size(f);
	case F_ADD_SEALS:
		return tmpfs_add_seals(f, (unsigned)arg);
	case F_GET_SEALS:
		return tmpfs_get_seals(f);
	case F_GETLEASE:
		return F_UNLCK; // no lease was ever given
	default:
		return -EINVAL; // leases and dnotify too, as on a Linux without them
	}
}

SYSCALL(fcntl)
{
	int fd = arg_int(a[0]), r;
	unsigned cmd = arg_uint(a[1]);
	struct file *f = fd_table_peek(t->vt.files, fd);
	int64_t ret;

	if (!f)
		return -EBADF;
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC:
		r = fd_install_from(file_get(f), arg_int(a[2]), cmd == F_DUPFD_CLOEXEC ? O_CLOEXEC : 0);
		if (r < 0)
			file_put(f);
		return r;
	case F_GETFD:
		return fd_get_flags(fd);
	case F_SETFD:
		return fd_set_flags(fd, arg_int(a[2]));
	case F_GETFL:
		return f->flags;
	case 1027: // F_DUPFD_QUERY
		return fd_table_peek(t->vt.files, arg_int(a[2])) == f;
	default:
		break;
	}
	if (f->mode & FMODE_PATH)
		return -EBADF;
	file_get(f);
	ret = file_fcntl(t, f, cmd, a[2]);
	file_put(f);
	return ret;
}

SYSCALL(flock)
{
	struct file *f = fd_get(arg_int(a[0]));
	int err;

	if (!f)
		return -EBADF;
	err = lock_flock(f, arg_int(a[1]));
	file_put(f);
	return err == -EINTR ? -ERESTARTSYS : err;
}

// --- ioctl ------------------------------------------------------------------------------------------------

static int64_t set_flag_from_int(struct task *t, struct file *f, struct gaddr arg, unsigned flag)
{
	int on;

	if (copy_in(&on, arg, sizeof(on)))
		return -EFAULT;
	return set_flags(t, f, on ? f->flags | flag : f->flags & ~flag);
}

static int64_t file_ioctl(struct task *t, struct file *f, int fd, unsigned cmd, uint64_t arg)
{
	uint32_t mode = f->inode->mode;
	int value;

	switch (cmd) {
	case FIOCLEX:
		return fd_set_flags(fd, FD_CLOEXEC);
	case FIONCLEX:
		return fd_set_flags(fd, 0);
	case FIONBIO:
		return set_flag_from_int(t, f, GADDR(arg), O_NONBLOCK);
	case FIOASYNC:
		return set_flag_from_int(t, f, GADDR(arg), O_ASYNC);
	case FIOQSIZE: {
		int64_t size = (int64_t)f->inode->size;

		if (!S_ISDIR(mode) && !S_ISREG(mode) && !S_ISLNK(mode))
			return -ENOTTY;
		return copy_out(GADDR(arg), &size, sizeof(size));
	}
	case FIONREAD:
		if (!S_ISREG(mode))
			break;
		value = (int)((int64_t)f->inode->size - f->pos);
		return copy_out(GADDR(arg), &value, sizeof(value));
	case FIGETBSZ:
		if (!f->inode->sb->blocksize)
			return -EINVAL;
		value = (int)f->inode->sb->blocksize;
		return copy_out(GADDR(arg), &value, sizeof(value));
	case FICLONE:
	case FICLONERANGE:
		return -EOPNOTSUPP;
	default:
		break;
	}
	return vfs_ioctl(f, cmd, arg);
}

SYSCALL(ioctl)
{
	struct file *f = fd_get(arg_int(a[0]));
	int64_t r;

	if (!f)
		return -EBADF;
	r = file_ioctl(t, f, arg_int(a[0]), arg_uint(a[1]), a[2]);
	file_put(f);
	return r;
}
