// Path walk: path_resolution(7), symlink(7), openat2(2).
//
// Iterative: a symlink's text is walked by the same loop, and what was left of the name before it
// waits on a stack. See struct walk for how references are avoided while everything is cached.
#include "sentry/vfs/internal.h"

static void mnt_get_if(struct mount *m)
{
	if (m)
		mnt_get(m);
}

void path_get(const struct path *p)
{
	mnt_get_if(p->mnt);
	d_get(p->dentry);
}

void path_put(struct path *p)
{
	if (p->dentry)
		d_put(p->dentry);
	mnt_put(p->mnt);
	*p = (struct path){0};
}

void walk_count(struct walk *w)
{
	if (w->counted)
		return;
	path_get(&w->path);
	path_get(&w->root);
	w->counted = true;
}

void walk_abort(struct walk *w)
{
	if (!w->counted)
		return;
	path_put(&w->path);
	path_put(&w->root);
	w->counted = false;
}

void walk_finish(struct walk *w, struct path *ret)
{
	*ret = w->path;
	if (w->counted)
		path_put(&w->root);
	else
		path_get(ret);
	w->counted = false;
}

static int walk_fail(struct walk *w, int err)
{
	walk_abort(w);
	return err;
}

// Moves w to (mnt, d). d carries a reference if w counts; mnt does not.
static void walk_set(struct walk *w, struct mount *mnt, struct dentry *d)
{
	if (w->counted) {
		if (mnt != w->path.mnt) {
			mnt_get_if(mnt);
			mnt_put(w->path.mnt);
		}
		d_put(w->path.dentry);
	}
	w->path.mnt = mnt;
	w->path.dentry = d;
}

// --- one component --------------------------------------------------------------------------------

struct dentry *lookup_locked(struct dentry *parent, const char *name, size_t len, uint32_t hash, int *ret_err)
{
	struct dentry *d = d_find_hash(parent, name, len, hash);
	struct inode *dir = parent->inode, *inode = NULL;
	char buf[256];
	int err;

	if (d) {
		d_get(d);
		if (likely(!(d->sb->flags & SB_REVALIDATE)) || d->nmounts)
			return d;
		err = d->sb->ops->revalidate ? d->sb->ops->revalidate(d) : 0;
		if (err > 0)
			return d;
		if (err == 0)
			d_invalidate(d);
		d_put(d);
		if (err < 0) {
			*ret_err = err;
			return NULL;
		}
	}
	if (dir->nlink == 0) {
		*ret_err = -ENOENT;
		return NULL;
	}
	if (!dir->ops->lookup) {
		*ret_err = -ENOTDIR;
		return NULL;
	}
	memcpy(buf, name, len);
	buf[len] = 0;
	err = dir->ops->lookup(dir, buf, &inode);
	if (err && err != -ENOENT) {
		*ret_err = err;
		return NULL;
	}
	d = d_add(parent, buf, len, err ? NULL : inode);
	if (!d)
		*ret_err = -ENOMEM;
	return d;
}

// Not in the cache, or to be checked: asks the file system. `rest` is the name from this component on.
static struct dentry *lookup_slow(struct walk *w, const char *name, unsigned len, uint32_t hash, const char *rest, int *ret_err)
{
	struct dentry *parent = w->path.dentry, *d;
	struct inode *dir = parent->inode;

	walk_count(w);
	klock_lock(&dir->lock);
	// What has to be revalidated is better asked for at once, too.
	if (!w->asked_ahead && dir->ops->walk_ahead &&
	    (dir->sb->flags & SB_REVALIDATE || !d_find_hash(parent, name, len, hash))) {
		w->asked_ahead = true;
		dir->ops->walk_ahead(parent, rest, w->open_flags);
	}
	d = lookup_locked(parent, name, len, hash, ret_err);
	klock_unlock(&dir->lock);
	return d;
}

// protected_symlinks: in sticky world-writable directories only links of one's own or of the directory's owner.
static bool may_follow(const struct walk *w, const struct inode *link)
{
	const struct inode *dir = w->path.dentry->inode;

	if (!vfs_protected.symlinks || !w->cred || link->uid == w->cred->fsuid)
		return true;
	if ((dir->mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH))
		return true;
	return dir->uid == link->uid;
}

static int jump_root(struct walk *w)
{
	if (w->flags & WALK_BENEATH)
		return -EXDEV;
	if (w->flags & WALK_NO_XDEV && w->path.mnt != w->root.mnt)
		return -EXDEV;
	if (w->counted)
		d_get(w->root.dentry);
	walk_set(w, w->root.mnt, w->root.dentry);
	return 0;
}

static int follow_magic(struct walk *w, struct inode *inode, struct dentry *d)
{
	struct path p = {0};
	int err;

	if (w->flags & WALK_NO_MAGICLINKS)
		return -ELOOP;
	if (w->scoped)
		return -EXDEV;
	inode_get(inode);
	err = inode->ops->follow(inode, d, &p);
	inode_put(inode);
	if (err)
		return err;
	if (w->flags & WALK_NO_XDEV && p.mnt != w->path.mnt) {
		path_put(&p);
		return -EXDEV;
	}
	path_put(&w->path);
	w->path = p;
	return 0;
}

// d is a symlink in mount mnt: 0 jumped (magic), 1 *ret_link is its text. w still stands at its parent.
static int follow_link(struct walk *w, struct mount *mnt, struct dentry *d, bool trailing, const char **ret_link)
{
	struct inode *inode = d->inode;
	const char *text = inode->link;
	int err;

	if (++w->links > VFS_MAX_LINKS)
		return -ELOOP;
	if (trailing && !may_follow(w, inode))
		return -EACCES;
	if (w->flags & WALK_NO_SYMLINKS || (mnt && mnt->flags & MNT_NOSYMFOLLOW))
		return -ELOOP;
	if (inode->ops->follow || !text) {
		bool was_counted = w->counted;

		walk_count(w);
		if (!was_counted)
			d_get(d);
		inode_get(inode);
		if (inode->ops->follow) {
			err = follow_magic(w, inode, d);
		} else {
			char *s = NULL;

			err = inode->ops->readlink ? inode->ops->readlink(inode, &s) : -EINVAL;
			text = s;
			err = err ? err : 1;
		}
		inode_put(inode);
		if (!was_counted)
			d_put(d);
		if (err <= 0)
			return err;
	}
	if (!*text)
		return -ENOENT;
	if (*text == '/') {
		err = jump_root(w);
		if (err)
			return err;
	}
	// The walk may wait later, and the link may be gone by then: its text must not be.
	*ret_link = arena_strdup(text);
	return *ret_link ? 1 : -ENOMEM;
}

// Goes to the child d, as walk_last(). If w counts, d is a reference, given away; otherwise a plain pointer.
static int step_into(struct walk *w, struct dentry *d, bool follow, bool last, const char **ret_link)
{
	struct mount *mnt = w->path.mnt, *m;
	struct dentry *at = d, *owned = w->counted ? d : NULL;
	int err = -ENOENT;

	if (unlikely(!d->inode))
		goto out;
	if (unlikely(d->nmounts) && !(last && w->flags & WALK_MOUNTPOINT)) {
		while (at->nmounts && (m = mnt_lookup(mnt, at))) {
			mnt = m;
			at = m->root;
		}
		err = -EXDEV;
		if (w->flags & WALK_NO_XDEV && mnt != w->path.mnt)
			goto out;
	}
	if (unlikely(S_ISLNK(at->inode->mode)) && follow) {
		err = follow_link(w, mnt, at, last, ret_link);
		goto out;
	}
	if (owned && at != d) {
		d_get(at);
		d_put(d);
	}
	walk_set(w, mnt, at);
	return 0;
out:
	if (owned)
		d_put(owned);
	return err < 0 ? walk_fail(w, err) : err;
}

static int step(struct walk *w, const char *name, unsigned len, uint32_t hash, bool follow, bool last, const char **ret_link)
{
	struct dentry *d = d_find_hash(w->path.dentry, name, len, hash);
	int err = -ENOENT;

	if (likely(d && !(d->sb->flags & SB_REVALIDATE))) {
		if (w->counted)
			d_get(d);
	} else {
		d = lookup_slow(w, name, len, hash, name, &err);
		if (!d)
			return walk_fail(w, err);
	}
	return step_into(w, d, follow, last, ret_link);
}

int walk_into(struct walk *w, struct dentry *d, bool follow, const char **ret_link)
{
	kassert(w->counted);
	return step_into(w, d, follow, true, ret_link);
}

// "..": up one directory, over the edges of mounts, but never above the root.
static int step_up(struct walk *w)
{
	struct mount *mnt = w->path.mnt, *m;
	struct dentry *d = w->path.dentry;

	for (;;) {
		if (d == w->root.dentry && mnt == w->root.mnt) {
			if (w->flags & WALK_BENEATH)
				return -EXDEV;
			break;
		}
		if (mnt && d == mnt->root) {
			if (!mnt->parent)
				break;
			if (w->flags & WALK_NO_XDEV)
				return -EXDEV;
			d = mnt->mountpoint;
			mnt = mnt->parent;
			continue;
		}
		d = d->parent;
		// A directory that was moved out of a bind mount's part must not lead outside of it.
		if (mnt && mnt->root != mnt->sb->root && !d_is_ancestor(mnt->root, d))
			return -ENOENT;
		break;
	}
	while (d->nmounts && (m = mnt_lookup(mnt, d))) {
		if (w->flags & WALK_NO_XDEV)
			return -EXDEV;
		mnt = m;
		d = m->root;
	}
	if (w->counted)
		d_get(d);
	walk_set(w, mnt, d);
	return 0;
}

static inline int may_search(struct walk *w, struct inode *dir)
{
	if (!w->cred)
		return 0;
	if (likely((dir->mode & 0111) == 0111 && !dir->ops->permission && !dir->has_acl))
		return 0;
	return inode_permission(dir, w->cred, MAY_EXEC);
}

// --- whole names ----------------------------------------------------------------------------------

// Scans one component at name: its length (0: too long) and hash.
static inline unsigned scan(const char *name, uint32_t *ret_hash)
{
	uint64_t h = DHASH_INIT;
	unsigned n = 0;
	char c;

	while ((c = name[n]) && c != '/') {
		h = DHASH_STEP(h, c);
		if (unlikely(++n > NAME_MAX))
			return 0;
	}
	*ret_hash = DHASH_END(h);
	return n;
}

int walk_names(struct walk *w, const char *name)
{
	const char *link;
	uint32_t hash;
	unsigned n;
	int err;

	w->kind = LAST_ROOT;
	w->slash = false;
	for (;;) {
		const char *comp;
		enum last_kind kind = LAST_NORM;

		while (*name == '/')
			name++;
		if (!*name) {
			if (!w->depth)
				return 0; // "/", or a link to it: there is no last component
			name = w->stack[--w->depth];
			continue;
		}
		err = S_ISDIR(w->path.dentry->inode->mode) ? may_search(w, w->path.dentry->inode) : -ENOTDIR;
		if (unlikely(err))
			return walk_fail(w, err);
		comp = name;
		n = scan(name, &hash);
		if (unlikely(!n))
			return walk_fail(w, -ENAMETOOLONG);
		if (unlikely(comp[0] == '.') && n <= 2 && (n == 1 || comp[1] == '.'))
			kind = n == 1 ? LAST_DOT : LAST_DOTDOT;
		name += n;
		w->slash = *name == '/';
		while (*name == '/')
			name++;
		if (!*name && !w->depth) {
			w->last = comp;
			w->last_len = n;
			w->last_hash = hash;
			w->kind = kind;
			return 0;
		}
		if (kind == LAST_DOT)
			continue;
		if (kind == LAST_DOTDOT) {
			err = step_up(w);
			if (err)
				return walk_fail(w, err);
			continue;
		}
		err = step(w, comp, n, hash, true, false, &link);
		if (err < 0)
			return err;
		if (err == 1) {
			if (*name) {
				kassert(w->depth < VFS_MAX_LINKS);
				w->stack[w->depth++] = name;
			}
			name = link;
		}
	}
}

int walk_last(struct walk *w, bool follow, const char **ret_link)
{
	int err = 0;

	switch (w->kind) {
	case LAST_ROOT:
	case LAST_DOT:
		return 0;
	case LAST_DOTDOT:
		err = step_up(w);
		return err ? walk_fail(w, err) : 0;
	case LAST_NORM:
		break;
	}
	return step(w, w->last, w->last_len, w->last_hash, follow, true, ret_link);
}

// Where a walk begins: sets path and root (borrowed), cred and the flags' meaning.
static int walk_init(struct walk *w, const struct path *start, const struct path *root, const struct cred *cred, unsigned flags)
{
	w->path = *start;
	w->root = *root;
	w->scoped = flags & (WALK_BENEATH | WALK_IN_ROOT);
	if (w->scoped)
		w->root = *start;
	w->counted = w->asked_ahead = w->slash = false;
	w->kind = LAST_ROOT;
	w->flags = flags;
	w->open_flags = w->links = w->depth = 0;
	w->cred = flags & WALK_NOPERM ? NULL : cred;
	return 0;
}

int walk_begin(struct walk *w, int dirfd, const char *name, unsigned flags)
{
	struct vfs_task *self = vfs_self();
	struct fs_struct *fs = self->fs;
	struct file *f;

	if (!*name && !(flags & WALK_EMPTY))
		return -ENOENT;
	if (*name == '/' && !(flags & (WALK_BENEATH | WALK_IN_ROOT))) {
		return walk_init(w, &fs->root, &fs->root, self->cred, flags);
	}
	if (dirfd == AT_FDCWD) {
		walk_init(w, &fs->cwd, &fs->root, self->cred, flags);
	} else {
		f = fd_table_peek(self->files, dirfd);
		if (!f)
			return -EBADF;
		if (*name && !S_ISDIR(f->inode->mode))
			return -ENOTDIR;
		walk_init(w, &f->path, &fs->root, self->cred, flags);
	}
	if (*name == '/' && flags & WALK_BENEATH)
		return walk_fail(w, -EXDEV);
	return 0;
}

static int walk_all(struct walk *w, const char *name, struct path *ret)
{
	const char *link;
	bool dir_wanted = w->flags & WALK_DIRECTORY, follow = w->flags & WALK_FOLLOW;
	int err;

	for (;;) {
		err = walk_names(w, name);
		if (err)
			return err;
		dir_wanted |= w->slash;
		follow |= w->slash; // and what the links lead to is followed as well
		err = walk_last(w, follow, &link);
		if (err < 0)
			return err;
		if (!err)
			break;
		name = link;
	}
	if (dir_wanted && !S_ISDIR(w->path.dentry->inode->mode))
		return walk_fail(w, -ENOTDIR);
	walk_finish(w, ret);
	return 0;
}

int path_walk(int dirfd, const char *name, unsigned flags, struct path *ret)
{
	struct walk w __attribute__((uninitialized));
	int err = walk_begin(&w, dirfd, name, flags);

	return err ? err : walk_all(&w, name, ret);
}

int path_walk_at(const struct path *start, const struct path *root, const char *name, unsigned flags, struct path *ret)
{
	struct walk w __attribute__((uninitialized));

	if (!*name && !(flags & WALK_EMPTY))
		return -ENOENT;
	walk_init(&w, *name == '/' ? root : start, root, vfs_self() ? vfs_self()->cred : NULL, flags);
	return walk_all(&w, name, ret);
}

int path_walk_parent(int dirfd, const char *name, unsigned flags, struct path *ret, char **ret_last, enum last_kind *ret_kind,
		     bool *ret_dir_wanted)
{
	struct walk w __attribute__((uninitialized));
	int err = walk_begin(&w, dirfd, name, flags);
	char *last = NULL;

	if (!err)
		err = walk_names(&w, name);
	if (err)
		return err;
	if (w.kind == LAST_NORM) {
		last = arena_alloc(w.last_len + 1);
		if (!last)
			return walk_fail(&w, -ENOMEM);
		memcpy(last, w.last, w.last_len);
	}
	walk_finish(&w, ret);
	*ret_last = last;
	*ret_kind = w.kind;
	*ret_dir_wanted = w.slash;
	return 0;
}
