// Calls that change directories: mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rmdir(2), rename(2).
//
// The order of the checks is Linux's, since programs see it in the errors.
#include "sentry/vfs/internal.h"

// --- creating ---------------------------------------------------------------------------------------

// Walks to the directory of `name`, locks it, and finds that the name is free. *ret_d: a reference to the
// negative dentry. Ended by create_end(). The right to create is still to be checked.
static int create_begin(struct walk *w, int dirfd, const char *name, bool want_dir, struct dentry **ret_d)
{
	struct inode *dir;
	struct dentry *d;
	int err = walk_begin(w, dirfd, name, 0);

	if (!err)
		err = walk_names(w, name);
	if (err)
		return err;
	if (w->kind != LAST_NORM) {
		walk_abort(w);
		return -EEXIST;
	}
	walk_count(w);
	dir = w->path.dentry->inode;
	klock_lock(&dir->lock);
	err = -ENOENT;
	d = lookup_locked(w->path.dentry, w->last, w->last_len, w->last_hash, &err);
	if (d) {
		if (d->inode)
			err = -EEXIST;
		else if (w->slash && !want_dir)
			err = -ENOENT;
		else
			err = sb_or_mnt_rdonly(&w->path) ? -EROFS : 0;
		if (!err) {
			*ret_d = d;
			return 0;
		}
		d_put(d);
	}
	klock_unlock(&dir->lock);
	walk_abort(w);
	return err;
}

static void create_end(struct walk *w, struct dentry *d)
{
	klock_unlock(&w->path.dentry->inode->lock);
	d_put(d);
	walk_abort(w);
}

static void created(struct dentry *d, struct inode *inode)
{
	d_instantiate(d, inode);
	fsnotify(inode, d, FSN_CREATE, 0);
}

int vfs_mkdir(int dirfd, const char *name, uint32_t mode)
{
	struct walk w __attribute__((uninitialized));
	struct dentry *d;
	struct inode *dir, *inode;
	int err = create_begin(&w, dirfd, name, true, &d);

	if (err)
		return err;
	dir = w.path.dentry->inode;
	mode = S_IFDIR | (mode & (S_ISVTX | 0777) & ~vfs_self()->fs->umask);
	err = may_create_in(dir, vfs_self()->cred);
	if (!err)
		err = dir->ops->mkdir ? dir->ops->mkdir(dir, d, mode, &inode) : -EPERM;
	if (!err)
		created(d, inode);
	create_end(&w, d);
	return err;
}

int vfs_mknod(int dirfd, const char *name, uint32_t mode, uint64_t rdev, struct path *ret_or_null)
{
	struct walk w __attribute__((uninitialized));
	struct dentry *d;
	struct inode *dir, *inode;
	int err;

	switch (mode & S_IFMT) {
	case 0:
		mode |= S_IFREG;
		break;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFDIR:
		return -EPERM;
	default:
		return -EINVAL;
	}
	err = create_begin(&w, dirfd, name, false, &d);
	if (err)
		return err;
	dir = w.path.dentry->inode;
	mode = (mode & S_IFMT) | (mode & 07777 & ~vfs_self()->fs->umask);
	err = may_create_in(dir, vfs_self()->cred);
	// A whiteout (character device 0/0) may be made by anybody, as on Linux.
	if (err)
		;
	else if ((S_ISCHR(mode) || S_ISBLK(mode)) && !(S_ISCHR(mode) && rdev == 0) && !capable_over(dir, vfs_self()->cred, CAP_MKNOD))
		err = -EPERM;
	else if (S_ISREG(mode))
		err = dir->ops->create ? dir->ops->create(dir, d, mode, &inode) : -EACCES;
	else
		err = dir->ops->mknod ? dir->ops->mknod(dir, d, mode, rdev, &inode) : -EPERM;
	if (!err) {
		created(d, inode);
		if (ret_or_null) {
			*ret_or_null = (struct path){w.path.mnt, d};
			path_get(ret_or_null);
		}
	}
	create_end(&w, d);
	return err;
}

int vfs_symlink(int dirfd, const char *name, const char *target)
{
	struct walk w __attribute__((uninitialized));
	struct dentry *d;
	struct inode *dir, *inode;
	int err = create_begin(&w, dirfd, name, false, &d);

	if (err)
		return err;
	dir = w.path.dentry->inode;
	err = may_create_in(dir, vfs_self()->cred);
	if (!err)
		err = dir->ops->symlink ? dir->ops->symlink(dir, d, target, &inode) : -EPERM;
	if (!err)
		created(d, inode);
	create_end(&w, d);
	return err;
}

// protected_hardlinks: only what one owns, or a plain file that one may read and write.
static bool may_link(struct inode *inode, const struct cred *c)
{
	if (inode_owner_or_capable(inode, c))
		return true;
	if (!S_ISREG(inode->mode) || inode->mode & S_ISUID)
		return false;
	if ((inode->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		return false;
	return inode_permission(inode, c, MAY_READ | MAY_WRITE) == 0;
}

int vfs_link(const struct path *old, int dirfd, const char *name)
{
	struct walk w __attribute__((uninitialized));
	struct inode *inode = old->dentry->inode, *dir;
	struct dentry *d;
	int err = create_begin(&w, dirfd, name, false, &d);

	if (err)
		return err;
	dir = w.path.dentry->inode;
	if (old->mnt != w.path.mnt || inode->sb != dir->sb)
		err = -EXDEV;
	else if (vfs_protected.hardlinks && !may_link(inode, vfs_self()->cred))
		err = -EPERM;
	else
		err = may_create_in(dir, vfs_self()->cred);
	if (err)
		;
	else if (!dir->ops->link || S_ISDIR(inode->mode))
		err = -EPERM;
	else if (inode->nlink == 0 && !inode->linkable)
		err = -ENOENT;
	else
		err = dir->ops->link(dir, d, inode);
	if (!err) {
		fsnotify(inode, NULL, FSN_ATTRIB, 0);
		created(d, inode_get(inode));
	}
	create_end(&w, d);
	return err;
}

// --- removing ---------------------------------------------------------------------------------------

static int unlink_kind_error(enum last_kind kind, bool dir)
{
	switch (kind) {
	case LAST_ROOT:
		return dir ? -EBUSY : -EISDIR;
	case LAST_DOT:
		return dir ? -EINVAL : -EISDIR;
	case LAST_DOTDOT:
		return dir ? -ENOTEMPTY : -EISDIR;
	case LAST_NORM:
		break;
	}
	return 0;
}

// The directory is locked; d is its child.
static int remove_locked(struct walk *w, struct dentry *d, bool want_dir)
{
	struct dentry *parent = w->path.dentry;
	struct inode *dir = parent->inode, *inode = d->inode;
	int err;

	if (!inode)
		return -ENOENT;
	if (!want_dir && w->slash)
		return S_ISDIR(inode->mode) ? -EISDIR : -ENOTDIR;
	err = may_delete(parent, d, want_dir, vfs_self()->cred);
	if (err)
		return err;
	if (want_dir ? !dir->ops->rmdir : !dir->ops->unlink)
		return -EPERM;
	if (d->nmounts)
		return -EBUSY;
	inode_get(inode);
	if (want_dir) {
		klock_lock(&inode->lock); // nothing is created in it meanwhile
		err = dir->ops->rmdir(dir, d);
		if (!err)
			inode->nlink = 0;
		klock_unlock(&inode->lock);
	} else {
		err = dir->ops->unlink(dir, d);
	}
	if (!err) {
		if (want_dir)
			d_prune_children(d);
		else
			fsnotify(inode, NULL, FSN_ATTRIB, 0);
		d_delete(d); // tells those who watch the file itself, before those who watch the directory
		fsnotify(inode, d, FSN_DELETE, 0);
	}
	inode_put(inode);
	return err;
}

int vfs_unlink(int dirfd, const char *name, bool want_dir)
{
	struct walk w __attribute__((uninitialized));
	struct dentry *d;
	struct inode *dir;
	int err = walk_begin(&w, dirfd, name, 0);

	if (!err)
		err = walk_names(&w, name);
	if (err)
		return err;
	err = unlink_kind_error(w.kind, want_dir);
	if (!err && sb_or_mnt_rdonly(&w.path))
		err = -EROFS;
	if (err) {
		walk_abort(&w);
		return err;
	}
	walk_count(&w);
	dir = w.path.dentry->inode;
	klock_lock(&dir->lock);
	err = -ENOENT;
	d = lookup_locked(w.path.dentry, w.last, w.last_len, w.last_hash, &err);
	if (d)
		err = remove_locked(&w, d, want_dir);
	klock_unlock(&dir->lock);
	if (d)
		d_put(d);
	walk_abort(&w);
	return err;
}

// --- renaming ---------------------------------------------------------------------------------------

struct rename {
	struct walk from, to;
	struct dentry *od, *nd; // references
	unsigned flags;
};

// Both directories, the upper one first; across directories the tree's shape is held still.
static void rename_lock(struct dentry *a, struct dentry *b)
{
	if (a == b) {
		klock_lock(&a->inode->lock);
		return;
	}
	klock_lock(&a->sb->rename_lock);
	if (d_is_ancestor(b, a)) {
		struct dentry *t = a;

		a = b;
		b = t;
	}
	klock_lock(&a->inode->lock);
	klock_lock(&b->inode->lock);
}

static void rename_unlock(struct dentry *a, struct dentry *b)
{
	klock_unlock(&a->inode->lock);
	if (a != b) {
		klock_unlock(&b->inode->lock);
		klock_unlock(&a->sb->rename_lock);
	}
}

// What do_renameat2() checks before vfs_rename().
static int rename_check_names(const struct rename *r)
{
	const struct dentry *op = r->from.path.dentry, *np = r->to.path.dentry;
	const struct inode *oi = r->od->inode, *ni = r->nd->inode;
	bool exchange = r->flags & RENAME_EXCHANGE;

	if (!oi)
		return -ENOENT;
	if (r->flags & RENAME_NOREPLACE && ni)
		return -EEXIST;
	if (exchange) {
		if (!ni)
			return -ENOENT;
		if (!S_ISDIR(ni->mode) && r->to.slash)
			return -ENOTDIR;
	}
	if (!S_ISDIR(oi->mode)) {
		if (r->from.slash || (!exchange && r->to.slash))
			return -ENOTDIR;
	}
	if (op != np && d_is_ancestor(r->od, np))
		return -EINVAL;
	if (op != np && ni && d_is_ancestor(r->nd, op))
		return exchange ? -EINVAL : -ENOTEMPTY;
	return 0;
}

static int rename_check_rights(const struct rename *r)
{
	struct dentry *op = r->from.path.dentry, *np = r->to.path.dentry;
	struct inode *oi = r->od->inode, *ni = r->nd->inode;
	const struct cred *c = vfs_self()->cred;
	bool is_dir = S_ISDIR(oi->mode), exchange = r->flags & RENAME_EXCHANGE;
	int err = may_delete(op, r->od, is_dir, c);

	if (err)
		return err;
	if (!ni)
		err = may_create_in(np->inode, c);
	else
		err = may_delete(np, r->nd, exchange ? S_ISDIR(ni->mode) : is_dir, c);
	if (!err && !op->inode->ops->rename)
		err = -EPERM;
	if (!err && is_dir && op != np) // ".." of it changes
		err = inode_permission(oi, c, MAY_WRITE);
	if (!err && exchange && S_ISDIR(ni->mode) && op != np)
		err = inode_permission(ni, c, MAY_WRITE);
	if (!err && (r->od->nmounts || r->nd->nmounts))
		err = -EBUSY;
	return err;
}

static int rename_locked(struct rename *r)
{
	static uint32_t cookie;
	struct dentry *op = r->from.path.dentry, *np = r->to.path.dentry;
	struct inode *oi, *ni;
	char name[256];
	int err = rename_check_names(r);

	if (err)
		return err;
	oi = r->od->inode;
	ni = r->nd->inode;
	if (oi == ni)
		return 0;
	err = rename_check_rights(r);
	if (err)
		return err;
	inode_get(oi);
	if (ni)
		inode_get(ni);
	err = op->inode->ops->rename(op->inode, r->od, np->inode, r->nd, r->flags);
	if (!err) {
		cookie++;
		fsnotify(oi, r->od, FSN_MOVED_FROM, cookie);
		if (r->flags & RENAME_EXCHANGE) {
			fsnotify(ni, r->nd, FSN_MOVED_FROM, cookie + 1);
			d_exchange(r->od, r->nd);
			fsnotify(ni, r->nd, FSN_MOVED_TO, cookie + 1);
			cookie++;
		} else {
			if (ni && S_ISDIR(ni->mode)) {
				ni->nlink = 0;
				d_prune_children(r->nd);
			}
			memcpy(name, r->nd->name, (size_t)r->nd->namelen + 1);
			d_move(r->od, np, name);
			if (ni)
				fsnotify(ni, NULL, FSN_ATTRIB, 0);
		}
		fsnotify(oi, r->od, FSN_MOVED_TO, cookie);
		fsnotify(oi, NULL, FSN_MOVE_SELF, 0);
	}
	inode_put(oi);
	inode_put(ni);
	return err;
}

static int rename_begin(struct rename *r, int odirfd, const char *oname, int ndirfd, const char *nname)
{
	int err = walk_begin(&r->from, odirfd, oname, 0);

	if (!err)
		err = walk_names(&r->from, oname);
	if (err)
		return err;
	walk_count(&r->from);
	err = walk_begin(&r->to, ndirfd, nname, 0);
	if (!err)
		err = walk_names(&r->to, nname);
	if (err) {
		walk_abort(&r->from);
		return err;
	}
	walk_count(&r->to);
	if (r->from.path.mnt != r->to.path.mnt)
		err = -EXDEV;
	else if (r->from.kind != LAST_NORM)
		err = -EBUSY;
	else if (r->to.kind != LAST_NORM)
		err = r->flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	else if (sb_or_mnt_rdonly(&r->from.path))
		err = -EROFS;
	if (err) {
		walk_abort(&r->from);
		walk_abort(&r->to);
	}
	return err;
}

int vfs_rename(int odirfd, const char *oname, int ndirfd, const char *nname, unsigned flags)
{
	struct rename *r;
	struct dentry *op, *np;
	int err;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	if (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) && flags & RENAME_EXCHANGE)
		return -EINVAL;
	r = arena_alloc(sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->flags = flags;
	err = rename_begin(r, odirfd, oname, ndirfd, nname);
	if (err)
		return err;
	op = r->from.path.dentry;
	np = r->to.path.dentry;
	rename_lock(op, np);
	err = -ENOENT;
	r->od = lookup_locked(op, r->from.last, r->from.last_len, r->from.last_hash, &err);
	if (r->od)
		r->nd = lookup_locked(np, r->to.last, r->to.last_len, r->to.last_hash, &err);
	if (r->od && r->nd)
		err = rename_locked(r);
	rename_unlock(op, np);
	if (r->od)
		d_put(r->od);
	if (r->nd)
		d_put(r->nd);
	walk_abort(&r->from);
	walk_abort(&r->to);
	return err;
}

// --- links and names -----------------------------------------------------------------------------------

int vfs_readlink(const struct path *p, char **ret)
{
	struct inode *inode = p->dentry->inode;
	struct path to;
	char *s;
	int err;

	if (!S_ISLNK(inode->mode))
		return -EINVAL;
	if (inode->ops->follow && !inode->ops->readlink) {
		err = inode->ops->follow(inode, p->dentry, &to);
		if (err)
			return err;
		err = path_name(&to, &vfs_self()->fs->root, ret);
		path_put(&to);
		return err;
	}
	if (inode->link) {
		s = arena_strdup(inode->link);
		if (!s)
			return -ENOMEM;
		*ret = s;
		return 0;
	}
	return inode->ops->readlink ? inode->ops->readlink(inode, ret) : -EINVAL;
}

// Puts `s` in front of what is in buf from *at on.
static bool prepend(char *buf, size_t *at, const char *s, size_t len)
{
	if (len > *at)
		return false;
	*at -= len;
	memcpy(buf + *at, s, len);
	return true;
}

int path_name(const struct path *p, const struct path *root, char **ret)
{
	const struct dentry *d = p->dentry;
	const struct mount *mnt = p->mnt;
	size_t at = PATH_MAX - 1;
	bool ok = true;
	char *buf;

	if (!mnt) { // a file without a name: what it was called when it was made
		buf = arena_strdup(d->name);
		if (!buf)
			return -ENOMEM;
		*ret = buf;
		return 0;
	}
	buf = arena_alloc(PATH_MAX);
	if (!buf)
		return -ENOMEM;
	if (!d->hashed && d->parent != d)
		ok = prepend(buf, &at, " (deleted)", 10);
	while (ok && !(d == root->dentry && mnt == root->mnt)) {
		if (d == mnt->root) {
			if (!mnt->parent) {
				if (mnt->ns != (root->mnt ? root->mnt->ns : NULL) || mnt != root->mnt) {
					if (buf[at] != '/')
						ok = prepend(buf, &at, "/", 1);
					ok = ok && prepend(buf, &at, "(unreachable)", 13);
				}
				break;
			}
			d = mnt->mountpoint;
			mnt = mnt->parent;
			continue;
		}
		if (d->parent == d)
			break;
		ok = prepend(buf, &at, d->name, d->namelen) && prepend(buf, &at, "/", 1);
		d = d->parent;
	}
	if (!ok)
		return -ENAMETOOLONG;
	if (buf[at] != '/' && buf[at] != '(')
		ok = prepend(buf, &at, "/", 1);
	*ret = buf + at;
	return 0;
}
