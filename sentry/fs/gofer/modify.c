// Changes to a writable tree, and extended attributes.
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "sentry/fs/gofer/internal.h"

static void set_name1(struct call *c, const char *name)
{
	c->name1 = name;
	c->q.name1_len = (uint16_t)strlen(name);
}

// Owner and mode of a new file in dir, as inode_init_owner() decides.
static void set_owner(struct call *c, struct inode *dir, uint32_t mode)
{
	struct inode tmp = {.mode = mode};

	inode_init_owner(&tmp, dir);
	c->q.uid = tmp.uid;
	c->q.gid = tmp.gid;
	c->q.mode = tmp.mode;
}

static int run_new(struct inode *dir, struct call *c, uint32_t want, const char *target, struct inode **ret)
{
	struct gofer_sb *gs = GSB(dir);
	struct inode *inode;
	int r;

	if (gs->read_only)
		return -EROFS;
	r = call_run(gs->conn, c);
	gofer_dir_changed(dir); // also when it failed: somebody else may have made it
	if (!r) {
		const struct gp_node *n = (const struct gp_node *)call_body(c);

		if ((n->attr.mode & S_IFMT) != want) {
			conn_forget(gs->conn, n->id);
			r = -EIO;
		} else {
			r = gofer_iget(gs, n, target, target ? strlen(target) : 0, &inode);
		}
	}
	if (!r) {
		if (c->fd >= 0) {
			gfd_install(GI(inode), c->fd, true);
			c->fd = -1;
		}
		*ret = inode;
	}
	call_end(c);
	return r;
}

int gofer_create(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	struct call c = {.q = {.h.op = GP_CREATE, .node = GI(dir)->node, .flags = GP_OPEN_READ | GP_OPEN_WRITE}};

	set_name1(&c, d->name);
	set_owner(&c, dir, S_IFREG | (mode & 07777));
	return run_new(dir, &c, S_IFREG, NULL, ret);
}

int gofer_mkdir(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	struct call c = {.q = {.h.op = GP_MKDIR, .node = GI(dir)->node}};

	set_name1(&c, d->name);
	set_owner(&c, dir, S_IFDIR | (mode & 07777));
	return run_new(dir, &c, S_IFDIR, NULL, ret);
}

int gofer_mknod(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret)
{
	struct call c = {.q = {.h.op = GP_MKNOD, .node = GI(dir)->node}};

	if (!S_ISFIFO(mode) && !S_ISSOCK(mode) && !S_ISREG(mode))
		return -EPERM; // no device node reaches the host
	set_name1(&c, d->name);
	set_owner(&c, dir, mode);
	return run_new(dir, &c, mode & S_IFMT, NULL, ret);
}

int gofer_symlink(struct inode *dir, struct dentry *d, const char *target, struct inode **ret)
{
	struct call c = {.q = {.h.op = GP_SYMLINK, .node = GI(dir)->node, .data_len = (uint32_t)strlen(target)}, .data = target};

	if (c.q.data_len > GP_PATH_MAX)
		return -ENAMETOOLONG;
	set_name1(&c, d->name);
	set_owner(&c, dir, S_IFLNK | 0777);
	c.q.mode = 0;
	return run_new(dir, &c, S_IFLNK, target, ret);
}

int gofer_link(struct inode *dir, struct dentry *d, struct inode *target)
{
	struct call c = {.q = {.h.op = GP_LINK, .node = GI(dir)->node, .node2 = GI(target)->node}};
	int r;

	if (GSB(dir)->read_only)
		return -EROFS;
	set_name1(&c, d->name);
	r = call_run(GSB(dir)->conn, &c);
	gofer_dir_changed(dir);
	if (!r)
		gofer_attr_apply(GI(target), (const struct gp_attr *)call_body(&c));
	call_end(&c);
	return r;
}

static int remove_name(struct inode *dir, struct dentry *d, unsigned flags)
{
	struct call c = {.q = {.h.op = GP_UNLINK, .node = GI(dir)->node, .flags = flags}};
	struct gofer_inode *victim = GI(d->inode);
	int r;

	if (GSB(dir)->read_only)
		return -EROFS;
	set_name1(&c, d->name);
	// Named, so that the gofer keeps it usable for those who have it open.
	c.q.node2 = victim->node;
	r = call_run(GSB(dir)->conn, &c);
	call_end(&c);
	if (r)
		return r;
	gofer_dir_changed(dir);
	if (flags & GP_UNLINK_DIR)
		d->inode->nlink = 0;
	else if (d->inode->nlink)
		d->inode->nlink--;
	d->inode->ctime = vfs_now();
	return 0;
}

int gofer_unlink(struct inode *dir, struct dentry *d)
{
	return remove_name(dir, d, 0);
}

int gofer_rmdir(struct inode *dir, struct dentry *d)
{
	return remove_name(dir, d, GP_UNLINK_DIR);
}

int gofer_rename(struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd, unsigned flags)
{
	struct gp_rename x = {.moved = GI(od->inode)->node, .victim = nd->inode ? GI(nd->inode)->node : 0};
	struct call c = {.q = {.h.op = GP_RENAME, .node = GI(odir)->node, .node2 = GI(ndir)->node, .data_len = sizeof(x)}, .data = &x};
	int r;

	if (GSB(odir)->read_only)
		return -EROFS;
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	c.q.flags = ((flags & RENAME_NOREPLACE) ? GP_RENAME_NOREPLACE : 0) | ((flags & RENAME_EXCHANGE) ? GP_RENAME_EXCHANGE : 0);
	set_name1(&c, od->name);
	c.name2 = nd->name;
	c.q.name2_len = (uint16_t)strlen(nd->name);
	r = call_run(GSB(odir)->conn, &c);
	call_end(&c);
	if (r)
		return r;
	gofer_dir_changed(odir);
	gofer_dir_changed(ndir);
	if (nd->inode && !(flags & RENAME_EXCHANGE)) {
		if (S_ISDIR(nd->inode->mode))
			nd->inode->nlink = 0;
		else if (nd->inode->nlink)
			nd->inode->nlink--;
	}
	od->inode->ctime = vfs_now();
	return 0;
}

// --- attributes ---------------------------------------------------------------------------------

int gofer_setattr(struct inode *inode, const struct iattr *a)
{
	struct gp_setattr s = {
		.mode = a->mode & 07777, .uid = a->uid, .gid = a->gid, .size = a->size,
		.atime = {.sec = a->atime.sec, .nsec = a->atime.nsec}, .mtime = {.sec = a->mtime.sec, .nsec = a->mtime.nsec}};
	struct call c = {.q = {.h.op = GP_SETATTR, .node = GI(inode)->node, .data_len = sizeof(s)}, .data = &s};
	static const struct { unsigned vfs, gp; } bits[] = {
		{ATTR_MODE, GP_SET_MODE}, {ATTR_UID, GP_SET_UID}, {ATTR_GID, GP_SET_GID}, {ATTR_SIZE, GP_SET_SIZE},
		{ATTR_ATIME, GP_SET_ATIME}, {ATTR_MTIME, GP_SET_MTIME}};
	int r;

	if (GSB(inode)->read_only)
		return -EROFS;
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		if (a->valid & bits[i].vfs)
			s.valid |= bits[i].gp;
	if (!s.valid) // a change of ctime alone: the host's own affair
		return 0;
	if (!(s.valid & GP_SET_ATIME))
		s.atime = (struct gp_time){0};
	if (!(s.valid & GP_SET_MTIME))
		s.mtime = (struct gp_time){0};
	r = call_run(GSB(inode)->conn, &c);
	if (!r) {
		const struct gp_attr *n = (const struct gp_attr *)call_body(&c);

		if ((n->mode ^ inode->mode) & S_IFMT)
			r = -EIO;
		else
			gofer_attr_apply(GI(inode), n);
	}
	call_end(&c);
	return r;
}

static ssize_t copy_xattr(struct call *c, void *buf, size_t size)
{
	size_t n = call_body_len(c);

	if (size && n > size)
		return -ERANGE;
	if (size)
		memcpy(buf, call_body(c), n);
	return (ssize_t)n;
}

ssize_t gofer_listxattr(struct inode *inode, char *buf, size_t size)
{
	struct call c = {.q = {.h.op = GP_LISTXATTR, .node = GI(inode)->node}};
	ssize_t r;

	if (GI(inode)->no_xattrs)
		return 0;
	r = call_run(GSB(inode)->conn, &c);
	// A list is a row of terminated names, or it is not believed.
	if (!r && call_body_len(&c) && call_body(&c)[call_body_len(&c) - 1])
		r = -EIO;
	if (!r && !call_body_len(&c))
		GI(inode)->no_xattrs = GSB(inode)->exclusive;
	if (!r)
		r = copy_xattr(&c, buf, size);
	call_end(&c);
	return r;
}

ssize_t gofer_getxattr(struct inode *inode, const char *name, void *buf, size_t size)
{
	struct call c = {.q = {.h.op = GP_GETXATTR, .node = GI(inode)->node}};
	ssize_t r;

	// Most files have none at all, and asking for the list tells so once and for good.
	if (GSB(inode)->exclusive && !GI(inode)->no_xattrs) {
		r = gofer_listxattr(inode, NULL, 0);
		if (r < 0)
			return r;
	}
	if (GI(inode)->no_xattrs)
		return -ENODATA;
	set_name1(&c, name);
	r = call_run(GSB(inode)->conn, &c);
	if (!r)
		r = copy_xattr(&c, buf, size);
	call_end(&c);
	return r;
}

int gofer_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags)
{
	struct call c = {.q = {.h.op = GP_SETXATTR, .node = GI(inode)->node}};
	int r;

	if (GSB(inode)->read_only)
		return -EROFS;
	if (size > GP_XATTR_MAX)
		return -E2BIG;
	set_name1(&c, name);
	if (val) {
		c.data = val;
		c.q.data_len = (uint32_t)size;
		c.q.flags = ((flags & XATTR_CREATE) ? GP_XATTR_CREATE : 0) | ((flags & XATTR_REPLACE) ? GP_XATTR_REPLACE : 0);
	} else {
		c.q.flags = GP_XATTR_REMOVE;
	}
	r = call_run(GSB(inode)->conn, &c);
	call_end(&c);
	if (!r)
		GI(inode)->no_xattrs = false;
	return r;
}
