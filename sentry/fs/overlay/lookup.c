// Names: which layers have them, and what they make together.
#include <fcntl.h>

#include "sentry/fs/overlay/internal.h"

// --- lower layers -------------------------------------------------------------------------------

// The name in a lower directory: a reference. -ENOENT, also for whiteouts; *ret_white tells of those.
static int lower_child(struct dentry *dir, const char *name, struct inode **ret, bool *ret_white)
{
	struct dentry *d = d_find(dir, name, strlen(name));
	struct inode *inode = NULL;
	int r = 0;

	*ret_white = false;
	if (d) {
		inode = d->inode ? inode_get(d->inode) : NULL;
		d_put(d);
		if (!inode)
			return -ENOENT;
	} else {
		r = dir->inode->ops->lookup ? dir->inode->ops->lookup(dir->inode, name, &inode) : -ENOENT;
		if (r)
			return r;
	}
	if (ovl_is_whiteout(inode)) {
		inode_put(inode);
		*ret_white = true;
		return -ENOENT;
	}
	*ret = inode;
	return 0;
}

int ovl_name_hides(struct ovl_inode *dir, struct dentry *d)
{
	int r = -ENOENT;

	if (d->fs_priv)
		return (uintptr_t)d->fs_priv == OVL_NAME_HIDES;
	for (unsigned i = 0; i < dir->ndirs && r == -ENOENT; i++) {
		struct inode *inode;
		bool white;

		r = lower_child(dir->dirs[i], d->name, &inode, &white);
		if (!r)
			inode_put(inode);
		if (white)
			break;
	}
	if (r && r != -ENOENT)
		return r;
	ovl_set_name(d, r ? OVL_NAME_FREE : OVL_NAME_HIDES);
	return !r;
}

// --- redirects ----------------------------------------------------------------------------------

static bool is_layer_root(const struct ovl_sb *os, const struct dentry *d)
{
	if (d == d->parent)
		return true;
	for (unsigned i = 0; i < os->nlowers; i++)
		if (os->lower_roots[i] == d)
			return true;
	return false;
}

char *ovl_redirect_of(const struct ovl_sb *os, const struct dentry *lower)
{
	const struct dentry *d;
	size_t len = 1;
	char *s;

	for (d = lower; !is_layer_root(os, d); d = d->parent)
		len += (size_t)d->namelen + 1;
	s = kalloc(len);
	if (!s)
		return NULL;
	s += --len;
	for (d = lower; !is_layer_root(os, d); d = d->parent) {
		s -= d->namelen;
		memcpy(s, d->name, d->namelen);
		*--s = '/';
	}
	return s;
}

// The directory at path below root. -ENOENT, -ENOTDIR ...; *ret: a reference.
static int walk_lower(struct dentry *root, const char *path, struct dentry **ret)
{
	struct dentry *cur = d_get(root), *next;

	while (*path) {
		size_t len = strcspn(path, "/");
		struct inode *inode;
		char name[256];
		bool white;
		int r;

		if (len == 0) {
			path++;
			continue;
		}
		if (len >= sizeof(name)) {
			d_put(cur);
			return -ENAMETOOLONG;
		}
		memcpy(name, path, len);
		name[len] = 0;
		path += len;
		r = lower_child(cur, name, &inode, &white);
		if (!r && !S_ISDIR(inode->mode)) {
			inode_put(inode);
			r = -ENOTDIR;
		}
		next = r ? NULL : d_add(cur, name, len, inode);
		d_put(cur);
		if (!next)
			return r ? r : -ENOMEM;
		cur = next;
	}
	*ret = cur;
	return 0;
}

// --- lookup -------------------------------------------------------------------------------------

struct stack { // what a name is made of
	struct inode *upper, *lower;
	struct dentry *dirs[OVERLAY_MAX_LOWER];
	unsigned ndirs;
	bool done; // what is further down is hidden
};

static void stack_drop(struct stack *s)
{
	inode_put(s->upper);
	inode_put(s->lower);
	for (unsigned i = 0; i < s->ndirs; i++)
		d_put(s->dirs[i]);
}

static bool has_opaque(struct inode *dir)
{
	char c;

	return dir->ops->getxattr && dir->ops->getxattr(dir, OVL_OPAQUE, &c, 1) == 1 && c == 'y';
}

// Adds one lower layer's idea of the name, below what s has. last: no layer is further down.
static int stack_lower(struct stack *s, struct dentry *ldir, const char *name, bool last)
{
	struct inode *inode;
	struct dentry *d;
	bool white;
	int r = lower_child(ldir, name, &inode, &white);

	if (r) {
		s->done = white;
		return r == -ENOENT ? 0 : r;
	}
	if (!S_ISDIR(inode->mode)) {
		s->done = true;
		if (s->upper || s->ndirs)
			inode_put(inode); // hidden by a directory
		else
			s->lower = inode;
		return 0;
	}
	d = d_add(ldir, name, strlen(name), inode);
	if (!d)
		return -ENOMEM;
	s->dirs[s->ndirs++] = d;
	s->done = !last && has_opaque(d->inode);
	return 0;
}

// The upper directory was renamed: it is merged with what it was merged with before.
static int stack_redirected(struct ovl_sb *os, struct stack *s, const char *path)
{
	for (unsigned i = 0; i < os->nlowers && !s->done; i++) {
		struct dentry *d;
		int r = walk_lower(os->lower_roots[i], path, &d);

		if (r == -ENOENT || r == -ENOTDIR)
			continue;
		if (r)
			return r;
		s->dirs[s->ndirs++] = d;
		s->done = i + 1 < os->nlowers && has_opaque(d->inode);
	}
	s->done = true;
	return 0;
}

static int stack_upper(struct ovl_inode *dir, struct stack *s, const char *name)
{
	char *path;
	ssize_t n;
	int r = ovl_upper_child(dir, name, &s->upper);

	if (r)
		return r == -ENOENT ? 0 : r;
	if (!S_ISDIR(s->upper->mode)) {
		s->done = true;
		if (!ovl_is_whiteout(s->upper))
			return 0;
		inode_put(s->upper);
		s->upper = NULL;
		return 0;
	}
	if (has_opaque(s->upper)) {
		s->done = true;
		return 0;
	}
	n = s->upper->ops->getxattr ? s->upper->ops->getxattr(s->upper, OVL_REDIRECT, NULL, 0) : -ENODATA;
	if (n <= 0)
		return 0;
	path = kalloc((size_t)n + 1);
	if (!path)
		return -ENOMEM;
	n = s->upper->ops->getxattr(s->upper, OVL_REDIRECT, path, (size_t)n);
	r = n <= 0 ? -EIO : stack_redirected(OSB(dir), s, path);
	kfree(path);
	return r;
}

int ovl_lookup(struct inode *dir_inode, const char *name, struct inode **ret)
{
	struct ovl_inode *dir = OI(dir_inode);
	struct stack s = {.ndirs = 0};
	int r = stack_upper(dir, &s, name);

	for (unsigned i = 0; i < dir->ndirs && !s.done && !r; i++)
		r = stack_lower(&s, dir->dirs[i], name, i + 1 == dir->ndirs);
	if (r) {
		stack_drop(&s);
		return r;
	}
	if (s.ndirs || (s.upper && S_ISDIR(s.upper->mode))) {
		r = ovl_iget_dir(OSB(dir), s.upper, s.dirs, s.ndirs, dir, ret);
		if (!r)
			ovl_upper_dir(dir, name, OI(*ret));
		return r;
	}
	if (!s.upper && !s.lower)
		return -ENOENT;
	return ovl_iget(OSB(dir), s.upper, s.lower, dir, name, ret);
}

// The rest of the path in the first lower layer, whose dentries then answer the lookups.
void ovl_walk_ahead(struct dentry *d, const char *rest, unsigned open_flags)
{
	struct ovl_inode *dir = OI(d->inode);
	struct dentry *ld = dir->ndirs ? dir->dirs[0] : NULL;
	size_t len = strcspn(rest, "/");
	struct inode *upper;
	char name[256];

	if (!ld || !ld->inode->ops->walk_ahead || len == 0 || len >= sizeof(name))
		return;
	memcpy(name, rest, len);
	name[len] = 0;
	if (ovl_upper_child(dir, name, &upper) == 0) {
		bool is_dir = S_ISDIR(upper->mode);

		inode_put(upper);
		if (!is_dir)
			return;
	}
	if (open_flags & (O_CREAT | O_TRUNC)) // no need of its data
		open_flags = 0;
	ld->inode->ops->walk_ahead(ld, rest, open_flags);
}
