// open(2), openat2(2): from a name or a path to an open file.
#include "sentry/vfs/internal.h"

// Flags that act at open time and are not part of the file's status.
#define OPEN_ONLY_FLAGS (O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC | VFS_O_EXEC)
#define TMPFILE_BIT (O_TMPFILE & ~O_DIRECTORY)

static int open_access(unsigned flags)
{
	static const uint8_t acc[4] = {MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE};
	int a = flags & VFS_O_EXEC ? MAY_EXEC : acc[flags & O_ACCMODE];

	if (flags & O_TRUNC)
		a |= MAY_WRITE;
	if (flags & O_APPEND)
		a |= MAY_APPEND;
	return a;
}

static int may_open(const struct path *p, int acc, unsigned flags)
{
	struct inode *inode = p->dentry->inode;
	const struct cred *c = vfs_self()->cred;
	int err;

	switch (inode->mode & S_IFMT) {
	case S_IFLNK:
		return -ELOOP;
	case S_IFDIR:
		if (acc & MAY_WRITE)
			return -EISDIR;
		if (acc & MAY_EXEC)
			return -EACCES;
		break;
	case S_IFCHR:
	case S_IFBLK:
		if ((p->mnt && p->mnt->flags & MNT_NODEV) || inode->sb->flags & SB_NOEXEC_FAKE)
			return -EACCES;
		break;
	default:
		break;
	}
	if (acc & MAY_EXEC && !S_ISREG(inode->mode))
		return -EACCES;
	err = acc ? path_permission(p, c, acc) : 0;
	if (err)
		return err;
	if (flags & O_NOATIME && !inode_owner_or_capable(inode, c))
		return -EPERM;
	return 0;
}

static int open_ops(struct inode *inode, const struct file_ops **ret)
{
	if (inode->sb->flags & SB_OWN_FOPS) {
		*ret = inode->fops;
		return *ret ? 0 : -ENXIO;
	}
	switch (inode->mode & S_IFMT) {
	case S_IFCHR:
		*ret = chrdev_find(inode->rdev);
		return *ret ? 0 : -ENXIO;
	case S_IFIFO:
		*ret = vfs_fifo_ops;
		return *ret ? 0 : -ENXIO;
	case S_IFSOCK:
	case S_IFBLK:
		return -ENXIO;
	default:
		*ret = inode->fops;
		return *ret ? 0 : -ENXIO;
	}
}

// The last part of every open: permissions were checked. May wait.
static int do_open(const struct path *p, unsigned flags, struct file **ret)
{
	struct inode *inode = p->dentry->inode;
	struct file *f = file_alloc();
	int err;

	if (!f)
		return -ENOMEM;
	f->path = *p;
	path_get(&f->path);
	f->inode = inode_get(inode);
	f->flags = flags & ~(OPEN_ONLY_FLAGS & ~O_NOCTTY); // O_NOCTTY is for ops->open() to see
	f->mode = (flags + 1) & O_ACCMODE;
	if (flags & VFS_O_EXEC)
		f->mode |= FMODE_EXEC;
	err = open_ops(inode, &f->ops);
	if (!err && f->mode & FMODE_WRITE && S_ISREG(inode->mode)) {
		err = inode->writers < 0 ? -ETXTBSY : 0;
		if (!err) {
			inode->writers++;
			f->mode |= FMODE_WRITER;
		}
	}
	if (!err && f->ops->open) {
		const struct file_ops *ops = f->ops;

		err = ops->open(inode, f);
		if (err)
			f->ops = NULL; // nothing to release
	}
	if (err) {
		f->ops = NULL;
		f->mode |= FMODE_PATH; // no close event for what was never open
		file_put(f);
		return err;
	}
	f->flags &= ~(unsigned)O_NOCTTY;
	fsnotify(inode, p->dentry, FSN_OPEN, 0);
	*ret = f;
	return 0;
}

static int open_path_only(const struct path *p, unsigned flags, struct file **ret)
{
	struct file *f = file_alloc();

	if (!f)
		return -ENOMEM;
	f->path = *p;
	path_get(&f->path);
	f->inode = inode_get(p->dentry->inode);
	f->flags = flags & (O_PATH | O_DIRECTORY | O_NOFOLLOW);
	f->mode = FMODE_PATH;
	*ret = f;
	return 0;
}

int file_open_path(const struct path *p, unsigned flags, bool created, struct file **ret)
{
	struct inode *inode = p->dentry->inode;
	struct file *f;
	int err;

	if (flags & O_PATH)
		return open_path_only(p, flags, ret);
	if (created)
		flags &= ~(unsigned)O_TRUNC;
	err = may_open(p, created ? 0 : open_access(flags), flags); // O_TRUNC needs the right to write even to a FIFO
	if (!err)
		err = do_open(p, flags, &f);
	if (err)
		return err;
	if (flags & O_TRUNC && S_ISREG(inode->mode)) {
		err = do_truncate(inode, p->dentry, 0);
		if (err) {
			file_put(f);
			return err;
		}
	}
	*ret = f;
	return 0;
}

int vfs_open(const struct path *p, unsigned flags, struct file **ret)
{
	return file_open_path(p, flags, false, ret);
}

// The last component with O_CREAT; w stands at the directory. *ret_d: a reference to the child.
static int open_create(struct walk *w, unsigned flags, uint32_t mode, struct dentry **ret_d, bool *ret_created)
{
	struct dentry *parent = w->path.dentry, *d;
	struct inode *dir = parent->inode, *inode = NULL;
	int err = -ENOENT;

	klock_lock(&dir->lock);
	d = lookup_locked(parent, w->last, w->last_len, w->last_hash, &err);
	if (!d || d->inode) {
		klock_unlock(&dir->lock);
		*ret_d = d;
		return d ? 0 : err;
	}
	if (sb_or_mnt_rdonly(&w->path))
		err = -EROFS;
	else
		err = may_create_in(dir, vfs_self()->cred);
	if (!err && !dir->ops->create)
		err = -EACCES;
	mode = S_IFREG | (mode & 07777 & ~vfs_self()->fs->umask);
	if (!err)
		err = dir->ops->create(dir, d, mode, &inode);
	if (!err) {
		d_instantiate(d, inode);
		fsnotify(inode, d, FSN_CREATE, 0);
	}
	klock_unlock(&dir->lock);
	if (err) {
		d_put(d);
		return err;
	}
	*ret_created = true;
	*ret_d = d;
	return 0;
}

// The last component with O_CREAT, links followed once: as walk_last().
static int open_last_create(struct walk *w, unsigned flags, uint32_t mode, bool follow, const char **ret_link, bool *ret_created)
{
	struct dentry *d;
	int err;

	if (w->kind != LAST_NORM)
		return walk_last(w, follow, ret_link);
	if (w->slash) {
		walk_abort(w);
		return -EISDIR;
	}
	d = d_find_hash(w->path.dentry, w->last, w->last_len, w->last_hash);
	if (d && d->inode && !(d->sb->flags & SB_REVALIDATE))
		return walk_last(w, follow, ret_link);
	walk_count(w);
	err = open_create(w, flags, mode, &d, ret_created);
	if (err) {
		walk_abort(w);
		return err;
	}
	return walk_into(w, d, follow, ret_link);
}

static int open_tmpfile(int dirfd, const char *name, unsigned flags, uint32_t mode, unsigned walk_flags, struct file **ret)
{
	struct path p, fp;
	struct inode *dir, *inode;
	char tmp[24];
	int err;

	err = path_walk(dirfd, name, walk_flags | (flags & O_NOFOLLOW ? 0 : WALK_FOLLOW) | WALK_DIRECTORY, &p);
	if (err)
		return err;
	dir = p.dentry->inode;
	err = sb_or_mnt_rdonly(&p) ? -EROFS : may_create_in(dir, vfs_self()->cred);
	if (!err && !dir->ops->tmpfile)
		err = -EOPNOTSUPP;
	if (!err)
		err = dir->ops->tmpfile(dir, S_IFREG | (mode & 07777 & ~vfs_self()->fs->umask), &inode);
	if (err) {
		path_put(&p);
		return err;
	}
	inode->nlink = 0;
	inode->linkable = !(flags & O_EXCL);
	snprintf(tmp, sizeof(tmp), "#%llu", (unsigned long long)inode->ino);
	fp.mnt = p.mnt;
	fp.dentry = d_unhashed_child(p.dentry, tmp, inode);
	err = fp.dentry ? do_open(&fp, flags, ret) : -ENOMEM;
	if (fp.dentry)
		d_put(fp.dentry);
	path_put(&p);
	return err;
}

int vfs_openat(int dirfd, const char *name, unsigned flags, uint32_t mode, unsigned walk_flags, struct file **ret)
{
	struct walk w __attribute__((uninitialized));
	const char *link;
	bool created = false, dir_wanted = flags & O_DIRECTORY;
	bool creating = (flags & (O_CREAT | O_PATH)) == O_CREAT;
	bool follow = !(flags & O_NOFOLLOW) && !(creating && flags & O_EXCL);
	uint32_t dir_mode, dir_uid;
	struct path p;
	int err;

	if (flags & TMPFILE_BIT && !(flags & O_PATH))
		return open_tmpfile(dirfd, name, flags, mode, walk_flags, ret);
	err = walk_begin(&w, dirfd, name, walk_flags);
	if (err)
		return err;
	w.open_flags = flags;
	for (;;) {
		err = walk_names(&w, name);
		if (err)
			return err;
		dir_wanted |= w.slash;
		follow |= w.slash && !creating;
		dir_mode = w.path.dentry->inode->mode;
		dir_uid = w.path.dentry->inode->uid;
		if (creating)
			err = open_last_create(&w, flags, mode, follow, &link, &created);
		else
			err = walk_last(&w, follow, &link);
		if (err < 0)
			return err;
		if (!err)
			break;
		name = link;
	}
	walk_finish(&w, &p);
	if (creating && !created && flags & O_EXCL)
		err = -EEXIST;
	else if (creating && S_ISDIR(p.dentry->inode->mode))
		err = -EISDIR;
	else if (creating && !created && (err = may_open_in_sticky(dir_mode, dir_uid, p.dentry->inode, vfs_self()->cred)))
		;
	else if (dir_wanted && !S_ISDIR(p.dentry->inode->mode))
		err = -ENOTDIR;
	else
		err = file_open_path(&p, flags, created, ret);
	path_put(&p);
	return err;
}
