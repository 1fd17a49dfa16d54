// stat(2) and its relatives, statx(2), access(2), statfs(2), readlink(2).
#include <linux/capability.h>
#include <linux/limits.h>
#include <linux/securebits.h>
#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "sentry/syscalls/fsutil.h"

_Static_assert(sizeof(struct stat) == 144, "struct stat");
_Static_assert(sizeof(struct statx) == 256, "struct statx");
_Static_assert(sizeof(struct statfs) == 120, "struct statfs");

static int stat_out(const struct path *p, struct gaddr to)
{
	const struct inode *i = p->dentry->inode;
	struct stat st;
	int err = vfs_getattr(p);

	if (unlikely(err))
		return err;
	st = (struct stat){
		.st_dev = i->sb->dev,
		.st_ino = i->ino,
		.st_nlink = i->nlink,
		.st_mode = i->mode,
		.st_uid = i->uid,
		.st_gid = i->gid,
		.st_rdev = i->rdev,
		.st_size = (off_t)i->size,
		.st_blksize = i->blksize,
		.st_blocks = (blkcnt_t)i->blocks,
		.st_atim = {i->atime.sec, i->atime.nsec},
		.st_mtim = {i->mtime.sec, i->mtime.nsec},
		.st_ctim = {i->ctime.sec, i->ctime.nsec},
	};
	return copy_out(to, &st, sizeof(st));
}

static int64_t stat_path(int dfd, struct gaddr name, bool follow, struct gaddr to)
{
	struct path p;
	char *s;
	int err = copy_in_path(&s, name);

	if (!err)
		err = path_walk(dfd, s, follow ? WALK_FOLLOW : 0, &p);
	if (err)
		return err;
	err = stat_out(&p, to);
	path_put(&p);
	return err;
}

static int64_t stat_fd(int fd, struct gaddr to)
{
	struct file *f = fd_table_peek(vfs_self()->files, fd);
	int64_t err;

	if (!f)
		return -EBADF;
	file_get(f);
	err = stat_out(&f->path, to);
	file_put(f);
	return err;
}

SYSCALL(stat)
{
	return stat_path(AT_FDCWD, GADDR(a[0]), true, GADDR(a[1]));
}

SYSCALL(lstat)
{
	return stat_path(AT_FDCWD, GADDR(a[0]), false, GADDR(a[1]));
}

SYSCALL(fstat)
{
	return stat_fd(arg_int(a[0]), GADDR(a[1]));
}

#define STAT_FLAGS (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT)

SYSCALL(newfstatat)
{
	unsigned flags = arg_uint(a[3]);
	struct path p;
	char *name;
	int err;

	if (unlikely(flags & ~(unsigned)STAT_FLAGS))
		return -EINVAL;
	if (flags & AT_EMPTY_PATH) {
		if (fs_path_empty(GADDR(a[1]), flags, &name, &err) && arg_int(a[0]) >= 0)
			return stat_fd(arg_int(a[0]), GADDR(a[2]));
		if (err)
			return err;
		err = path_walk(arg_int(a[0]), name, WALK_EMPTY | (flags & AT_SYMLINK_NOFOLLOW ? 0 : WALK_FOLLOW), &p);
		if (err)
			return err;
		err = stat_out(&p, GADDR(a[2]));
		path_put(&p);
		return err;
	}
	return stat_path(arg_int(a[0]), GADDR(a[1]), !(flags & AT_SYMLINK_NOFOLLOW), GADDR(a[2]));
}

static struct statx_timestamp statx_time(struct ktime t)
{
	return (struct statx_timestamp){.tv_sec = t.sec, .tv_nsec = t.nsec};
}

#define STATX_MNT_ID_BIT 0x1000u
#define STATX_ATTR_MOUNT_ROOT_BIT 0x2000u

static int statx_out(const struct path *p, struct gaddr to)
{
	const struct inode *i = p->dentry->inode;
	struct statx sx = {.stx_mask = STATX_BASIC_STATS | STATX_BTIME};
	int err = vfs_getattr(p);

	if (err)
		return err;
	sx.stx_blksize = i->blksize;
	sx.stx_attributes_mask = STATX_ATTR_MOUNT_ROOT_BIT;
	sx.stx_nlink = i->nlink;
	sx.stx_uid = i->uid;
	sx.stx_gid = i->gid;
	sx.stx_mode = (uint16_t)i->mode;
	sx.stx_ino = i->ino;
	sx.stx_size = i->size;
	sx.stx_blocks = i->blocks;
	sx.stx_atime = statx_time(i->atime);
	sx.stx_btime = statx_time(i->btime);
	sx.stx_ctime = statx_time(i->ctime);
	sx.stx_mtime = statx_time(i->mtime);
	sx.stx_rdev_major = major(i->rdev);
	sx.stx_rdev_minor = minor(i->rdev);
	sx.stx_dev_major = major(i->sb->dev);
	sx.stx_dev_minor = minor(i->sb->dev);
	if (!i->btime.sec)
		sx.stx_mask &= ~STATX_BTIME;
	if (p->mnt) {
		// stx_mnt_id, by its place: not every libc's struct has it by name.
		const uint64_t id = (uint64_t)p->mnt->id;

		memcpy((char *)&sx + 0x90, &id, sizeof(id));
		sx.stx_mask |= STATX_MNT_ID_BIT;
		if (p->dentry == p->mnt->root)
			sx.stx_attributes |= STATX_ATTR_MOUNT_ROOT_BIT;
	}
	return copy_out(to, &sx, sizeof(sx));
}

SYSCALL(statx)
{
	unsigned flags = arg_uint(a[2]), mask = arg_uint(a[3]);
	struct path p;
	int err;

	if (mask & STATX__RESERVED)
		return -EINVAL;
	if ((flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE || flags & ~(unsigned)(STAT_FLAGS | AT_STATX_SYNC_TYPE))
		return -EINVAL;
	err = fs_user_path(arg_int(a[0]), GADDR(a[1]), flags, !(flags & AT_SYMLINK_NOFOLLOW), &p);
	if (err)
		return err;
	err = statx_out(&p, GADDR(a[4]));
	path_put(&p);
	return err;
}

// --- access -------------------------------------------------------------------------------------------

// The credentials that access(2) asks about: the real ids. *ret: a reference, or NULL: the same as now.
static int real_cred(const struct task *t, const struct cred **ret)
{
	const struct cred *c = t->vt.cred;
	uint64_t caps = c->cap_effective;
	struct cred *n;

	if (!(c->securebits & SECBIT_NO_SETUID_FIXUP))
		caps = c->uid == 0 ? c->cap_permitted : 0;
	*ret = NULL;
	if (c->fsuid == c->uid && c->fsgid == c->gid && c->cap_effective == caps)
		return 0;
	n = cred_dup(c);
	if (!n)
		return -ENOMEM;
	n->fsuid = n->uid;
	n->fsgid = n->gid;
	n->cap_effective = caps;
	*ret = n;
	return 0;
}

static int access_path(struct task *t, const struct path *p, unsigned mode)
{
	static const uint8_t may[8] = {0, MAY_EXEC, MAY_WRITE, MAY_WRITE | MAY_EXEC, MAY_READ, MAY_READ | MAY_EXEC,
				       MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE | MAY_EXEC};
	int mask = may[mode], err;

	if (!mask)
		return 0;
	if (mask & MAY_EXEC && S_ISREG(p->dentry->inode->mode)) {
		err = path_permission(p, t->vt.cred, MAY_EXEC); // noexec mounts come first
		if (err)
			return err;
	}
	// Without MAY_WRITE, so that lacking rights are told before a read-only file system is.
	err = inode_permission(p->dentry->inode, t->vt.cred, mask | MAY_ACCESS);
	return err ? err : path_permission(p, t->vt.cred, mask | MAY_ACCESS);
}

static int64_t do_access(struct task *t, int dfd, struct gaddr name, unsigned mode, unsigned flags)
{
	const struct cred *over = NULL, *own = t->vt.cred;
	struct path p;
	int err;

	if (mode & ~7u || flags & ~(unsigned)(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (!(flags & AT_EACCESS)) {
		err = real_cred(t, &over);
		if (err)
			return err;
	}
	if (over)
		t->vt.cred = over;
	err = fs_user_path(dfd, name, flags, !(flags & AT_SYMLINK_NOFOLLOW), &p);
	if (!err) {
		err = access_path(t, &p, mode);
		path_put(&p);
	}
	if (over) {
		t->vt.cred = own;
		cred_put(over);
	}
	return err;
}

SYSCALL(access)
{
	return do_access(t, AT_FDCWD, GADDR(a[0]), arg_uint(a[1]), 0);
}

SYSCALL(faccessat)
{
	return do_access(t, arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), 0);
}

SYSCALL(faccessat2)
{
	return do_access(t, arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), arg_uint(a[3]));
}

// --- file systems ---------------------------------------------------------------------------------------

static unsigned statfs_flags(const struct path *p)
{
	unsigned m = p->mnt ? p->mnt->flags : 0, f = 0x20; // ST_VALID

	f |= m & MNT_RDONLY || p->dentry->sb->flags & SB_RDONLY ? 1 : 0;
	f |= m & MNT_NOSUID ? 2 : 0;
	f |= m & MNT_NODEV ? 4 : 0;
	f |= m & MNT_NOEXEC ? 8 : 0;
	f |= m & MNT_NOATIME ? 1024 : 0;
	f |= m & MNT_NODIRATIME ? 2048 : 0;
	f |= m & MNT_RELATIME ? 4096 : 0;
	f |= m & MNT_NOSYMFOLLOW ? 8192 : 0;
	return f;
}

static int statfs_out(const struct path *p, struct gaddr to)
{
	struct super_block *sb = p->dentry->sb;
	struct statfs_info i = {.type = sb->magic, .bsize = sb->blocksize, .namelen = NAME_MAX};
	struct statfs st;
	int err = sb->ops->statfs ? sb->ops->statfs(sb, &i) : 0;

	if (err)
		return err;
	st = (struct statfs){
		.f_type = (__fsword_t)i.type,
		.f_bsize = (__fsword_t)i.bsize,
		.f_blocks = i.blocks,
		.f_bfree = i.bfree,
		.f_bavail = i.bavail,
		.f_files = i.files,
		.f_ffree = i.ffree,
		.f_fsid = {{(int)sb->dev, 0}},
		.f_namelen = (__fsword_t)i.namelen,
		.f_frsize = (__fsword_t)i.bsize,
		.f_flags = statfs_flags(p),
	};
	return copy_out(to, &st, sizeof(st));
}

SYSCALL(statfs)
{
	struct path p;
	int err = fs_user_path(AT_FDCWD, GADDR(a[0]), 0, true, &p);

	if (err)
		return err;
	err = statfs_out(&p, GADDR(a[1]));
	path_put(&p);
	return err;
}

SYSCALL(fstatfs)
{
	struct file *f = fd_get_path_ok(arg_int(a[0]));
	int err;

	if (!f)
		return -EBADF;
	err = statfs_out(&f->path, GADDR(a[1]));
	file_put(f);
	return err;
}

// --- links -----------------------------------------------------------------------------------------------

static int64_t do_readlink(int dfd, struct gaddr name, struct gaddr buf, int size)
{
	struct path p;
	char *target, *s;
	int64_t n;
	int err;

	if (size <= 0)
		return -EINVAL;
	err = copy_in_path(&s, name);
	if (!err)
		err = path_walk(dfd, s, WALK_EMPTY, &p); // "" is the link that an O_PATH descriptor stands for
	if (err)
		return err;
	if (!*s && !S_ISLNK(p.dentry->inode->mode))
		err = -ENOENT;
	if (!err)
		err = vfs_readlink(&p, &target);
	path_put(&p);
	if (err)
		return err;
	n = (int64_t)MIN(strlen(target), (size_t)size);
	return copy_out(buf, target, (size_t)n) ? -EFAULT : n;
}

SYSCALL(readlink)
{
	return do_readlink(AT_FDCWD, GADDR(a[0]), GADDR(a[1]), arg_int(a[2]));
}

SYSCALL(readlinkat)
{
	return do_readlink(arg_int(a[0]), GADDR(a[1]), GADDR(a[2]), arg_int(a[3]));
}
