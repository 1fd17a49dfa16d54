// tmpfs: super block, inodes, and what directories can do.
#include <linux/fs.h>

#include "sentry/fs/tmpfs/internal.h"

#define TMPFS_MAGIC 0x01021994
#define DIR_SIZE 40 // of an empty directory, as Linux shows it

DEFINE_SLAB(tmpfs_slab, struct tmpfs);
DEFINE_SLAB(inode_slab, struct tinode);

static const struct inode_ops tmpfs_dir_inode_ops, tmpfs_inode_ops;

// --- inodes -----------------------------------------------------------------------------------------

struct tinode *tmpfs_inode_new(struct tmpfs *fs, const struct inode *dir, uint32_t mode)
{
	struct tinode *t;

	if (fs->max_inodes && fs->used_inodes >= fs->max_inodes)
		return NULL;
	t = SLAB_NEW(inode_slab, struct tinode);
	if (!t)
		return NULL;
	inode_init(&t->inode, &fs->sb, mode, &tmpfs_inode_ops, &tmpfs_file_ops);
	t->fs = fs;
	t->inode.ino = ++fs->last_ino;
	LIST_INIT(&t->xattrs);
	fs->used_inodes++;
	if (S_ISDIR(mode)) {
		t->inode.ops = &tmpfs_dir_inode_ops;
		t->inode.fops = &tmpfs_dir_ops;
		t->inode.nlink = 2;
		t->inode.size = DIR_SIZE;
	} else {
		t->file.memfd = -1;
	}
	if (dir)
		inode_init_owner(&t->inode, dir);
	return t;
}

// Inodes to be put: a tree of directories is taken down level by level, not by recursion.
static struct tinode *doomed;
static bool draining;

static void doom(struct inode *inode)
{
	struct tinode *t = tinode_of(inode);

	if (inode->refs.n > 1) {
		inode_put(inode);
		return;
	}
	inode->priv = doomed;
	doomed = t;
}

static void tmpfs_evict(struct inode *inode)
{
	struct tinode *t = tinode_of(inode);

	if (S_ISDIR(inode->mode))
		tdir_free(&t->dir, doom);
	else if (S_ISLNK(inode->mode))
		kfree((char *)inode->link);
	else
		tmpfs_free_data(t);
	tmpfs_free_xattrs(t);
	t->fs->used_inodes--;
	slab_free(&inode_slab, t);
	if (draining)
		return;
	draining = true;
	while (doomed) {
		t = doomed;
		doomed = t->inode.priv;
		inode_put(&t->inode);
	}
	draining = false;
}

static int no_inode(const struct tmpfs *fs)
{
	return fs->max_inodes && fs->used_inodes >= fs->max_inodes ? -ENOSPC : -ENOMEM;
}

static void dir_changed(struct inode *dir)
{
	file_modified(dir);
}

// Makes an inode with a name in dir; ret holds a reference.
static int make(struct inode *dir, struct dentry *d, uint32_t mode, struct tinode **ret)
{
	struct tinode *td = tinode_of(dir), *t = tmpfs_inode_new(td->fs, dir, mode);
	int err;

	if (!t)
		return no_inode(td->fs);
	err = tdir_add(td, d->name, d->namelen, d->hash, inode_get(&t->inode));
	if (err) {
		inode_put(&t->inode);
		inode_put(&t->inode);
		return err;
	}
	if (S_ISDIR(mode))
		dir->nlink++;
	dir->mtime = dir->ctime = t->inode.ctime;
	*ret = t;
	return 0;
}

static int tmpfs_lookup(struct inode *dir, const char *name, struct inode **ret);

static int tmpfs_create(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	struct tinode *t;
	int err = make(dir, d, mode, &t);

	if (!err)
		*ret = &t->inode;
	return err;
}

static int tmpfs_mknod(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret)
{
	struct tinode *t;
	int err = make(dir, d, mode, &t);

	if (err)
		return err;
	t->inode.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0;
	*ret = &t->inode;
	return 0;
}

static int tmpfs_symlink(struct inode *dir, struct dentry *d, const char *target, struct inode **ret)
{
	char *copy = kstrdup(target);
	struct tinode *t;
	int err;

	if (!copy)
		return -ENOMEM;
	err = make(dir, d, S_IFLNK | 0777, &t);
	if (err) {
		kfree(copy);
		return err;
	}
	t->inode.link = copy;
	t->inode.size = strlen(copy);
	*ret = &t->inode;
	return 0;
}

static int tmpfs_tmpfile(struct inode *dir, uint32_t mode, struct inode **ret)
{
	struct tinode *td = tinode_of(dir), *t = tmpfs_inode_new(td->fs, dir, mode);

	if (!t)
		return no_inode(td->fs);
	t->inode.nlink = 0;
	*ret = &t->inode;
	return 0;
}

static int tmpfs_link(struct inode *dir, struct dentry *d, struct inode *target)
{
	struct tinode *td = tinode_of(dir);
	int err;

	if (target->nlink == UINT32_MAX)
		return -EMLINK;
	// A further name costs an inode, so that links cannot use up memory without limit.
	if (td->fs->max_inodes && td->fs->used_inodes >= td->fs->max_inodes)
		return -ENOSPC;
	err = tdir_add(td, d->name, d->namelen, d->hash, inode_get(target));
	if (err) {
		inode_put(target);
		return err;
	}
	target->nlink++;
	target->linkable = false;
	dir_changed(dir);
	target->ctime = dir->ctime;
	return 0;
}

static struct tentry *entry_of(struct inode *dir, const struct dentry *d)
{
	return tdir_find(&tinode_of(dir)->dir, d->name, d->namelen, d->hash);
}

static int tmpfs_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	size_t len = strlen(name);
	struct tentry *e = tdir_find(&tinode_of(dir)->dir, name, len, d_name_hash(name, len));

	if (!e)
		return -ENOENT;
	*ret = inode_get(e->inode);
	return 0;
}

// Takes the entry's name away from its inode.
static void drop(struct inode *dir, struct tentry *e)
{
	struct inode *inode;

	tdir_remove(tinode_of(dir), e, &inode);
	dir_changed(dir);
	inode->ctime = dir->ctime;
	if (S_ISDIR(inode->mode)) {
		inode->nlink = 0;
		dir->nlink--;
	} else {
		inode->nlink--;
	}
	inode_put(inode);
}

static int tmpfs_unlink(struct inode *dir, struct dentry *d)
{
	struct tentry *e = entry_of(dir, d);

	if (!e)
		return -ENOENT;
	drop(dir, e);
	return 0;
}

static int tmpfs_rmdir(struct inode *dir, struct dentry *d)
{
	struct tentry *e = entry_of(dir, d);

	if (!e)
		return -ENOENT;
	if (tinode_of(e->inode)->dir.live)
		return -ENOTEMPTY;
	drop(dir, e);
	return 0;
}

static void exchange(struct inode *odir, struct tentry *oe, struct inode *ndir, struct tentry *ne)
{
	struct inode *oi = oe->inode, *ni = ne->inode;

	oe->inode = ni;
	ne->inode = oi;
	if (odir != ndir) {
		int move = S_ISDIR(oi->mode) - S_ISDIR(ni->mode); // directories that odir loses

		odir->nlink -= (uint32_t)move;
		ndir->nlink += (uint32_t)move;
	}
	ni->ctime = vfs_now();
}

static int tmpfs_rename(struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd, unsigned flags)
{
	struct tentry *oe = entry_of(odir, od), *ne = entry_of(ndir, nd);
	struct inode *inode;
	struct tinode *whiteout = NULL;
	int err;

	if (!oe)
		return -ENOENT;
	inode = oe->inode;
	if (flags & RENAME_EXCHANGE) {
		if (!ne)
			return -ENOENT;
		exchange(odir, oe, ndir, ne);
		goto times;
	}
	if (ne && S_ISDIR(ne->inode->mode) && tinode_of(ne->inode)->dir.live)
		return -ENOTEMPTY;
	if (flags & RENAME_WHITEOUT) {
		whiteout = tmpfs_inode_new(tinode_of(odir)->fs, odir, S_IFCHR);
		if (!whiteout)
			return no_inode(tinode_of(odir)->fs);
	}
	// The new name first: that is all that can fail. For a moment there may be two of it; the newer is found
	// by its inode.
	err = tdir_add(tinode_of(ndir), nd->name, nd->namelen, nd->hash, inode_get(inode));
	if (err) {
		inode_put(inode);
		if (whiteout)
			inode_put(&whiteout->inode);
		return err;
	}
	if (ne)
		drop(ndir, ne);
	if (whiteout) {
		oe->inode = &whiteout->inode; // the old entry stays, for the whiteout
		inode_put(inode);
	} else {
		struct inode *same;

		tdir_remove(tinode_of(odir), oe, &same);
		inode_put(same);
	}
	if (S_ISDIR(inode->mode) && odir != ndir) {
		odir->nlink--;
		ndir->nlink++;
	}
times:
	dir_changed(odir);
	ndir->mtime = ndir->ctime = inode->ctime = odir->ctime;
	return 0;
}

static int tmpfs_setattr(struct inode *inode, const struct iattr *a)
{
	struct tinode *t = tinode_of(inode);
	int err;

	if (a->valid & ATTR_MODE && S_ISREG(inode->mode) && t->file.seals & SEAL_EXEC && (inode->mode ^ a->mode) & 0111)
		return -EPERM;
	if (a->valid & ATTR_SIZE) {
		if (!S_ISREG(inode->mode))
			return -EINVAL;
		err = tmpfs_set_size(t, a->size);
		if (err)
			return err;
	}
	inode_copy_attr(inode, a);
	if (a->valid & ATTR_MODE)
		tmpfs_acl_chmod(t);
	return 0;
}

static const struct inode_ops tmpfs_dir_inode_ops = {
	.lookup = tmpfs_lookup,
	.create = tmpfs_create,
	.mkdir = tmpfs_create,
	.mknod = tmpfs_mknod,
	.symlink = tmpfs_symlink,
	.link = tmpfs_link,
	.unlink = tmpfs_unlink,
	.rmdir = tmpfs_rmdir,
	.rename = tmpfs_rename,
	.tmpfile = tmpfs_tmpfile,
	.setattr = tmpfs_setattr,
	.getxattr = tmpfs_getxattr,
	.setxattr = tmpfs_setxattr,
	.listxattr = tmpfs_listxattr,
};
static const struct inode_ops tmpfs_inode_ops = {
	.setattr = tmpfs_setattr,
	.getxattr = tmpfs_getxattr,
	.setxattr = tmpfs_setxattr,
	.listxattr = tmpfs_listxattr,
};

// --- super block --------------------------------------------------------------------------------------

static struct tmpfs *fs_of(const struct super_block *sb)
{
	return (struct tmpfs *)sb;
}

static int tmpfs_statfs(struct super_block *sb, struct statfs_info *ret)
{
	const struct tmpfs *fs = fs_of(sb);
	uint64_t used;

	*ret = (struct statfs_info){.type = TMPFS_MAGIC, .bsize = PAGE_SIZE, .namelen = 255};
	// Without a limit memory is one: installers look at what is free before they write.
	ret->blocks = fs->max_pages ? fs->max_pages : tmpfs_total() / PAGE_SIZE;
	used = fs->max_pages ? fs->used_pages : fs->used_pages + (fs->used_inodes * sizeof(struct tinode)) / PAGE_SIZE + 1;
	ret->bfree = ret->bavail = ret->blocks > used ? ret->blocks - used : 0;
	if (fs->max_inodes) {
		ret->files = fs->max_inodes;
		ret->ffree = fs->max_inodes - MIN(fs->max_inodes, fs->used_inodes);
	}
	return 0;
}

uint64_t tmpfs_used_bytes(const struct super_block *sb)
{
	return fs_of(sb)->used_pages * PAGE_SIZE;
}

static void tmpfs_put_super(struct super_block *sb)
{
	slab_free(&tmpfs_slab, fs_of(sb));
}

static int tmpfs_show_options(struct super_block *sb, char *buf, size_t size)
{
	const struct tmpfs *fs = fs_of(sb);
	const struct inode *root = sb->root->inode;
	int n = 0;

	buf[0] = 0;
	if (fs->max_pages)
		n += snprintf(buf, size, ",size=%lluk", (unsigned long long)(fs->max_pages * (PAGE_SIZE / 1024)));
	if (fs->max_inodes && (size_t)n < size)
		n += snprintf(buf + n, size - (size_t)n, ",nr_inodes=%llu", (unsigned long long)fs->max_inodes);
	if ((root->mode & 07777) != 01777 && (size_t)n < size)
		n += snprintf(buf + n, size - (size_t)n, ",mode=%03o", root->mode & 07777);
	if (root->uid && (size_t)n < size)
		n += snprintf(buf + n, size - (size_t)n, ",uid=%u", root->uid);
	if (root->gid && (size_t)n < size)
		n += snprintf(buf + n, size - (size_t)n, ",gid=%u", root->gid);
	return 0;
}

static int tmpfs_remount(struct super_block *sb, const struct mount_opts *o)
{
	struct tmpfs *fs = fs_of(sb);
	struct tmpfs_limits lim = {.max_bytes = fs->max_pages * PAGE_SIZE, .max_inodes = fs->max_inodes};
	uint64_t pages;
	int err = tmpfs_parse_options(&lim, o->data);

	if (err)
		return err;
	pages = lim.max_bytes / PAGE_SIZE + (lim.max_bytes % PAGE_SIZE != 0);
	if ((pages && pages < fs->used_pages) || (lim.max_inodes && lim.max_inodes < fs->used_inodes))
		return -EINVAL;
	fs->max_pages = pages;
	fs->max_inodes = lim.max_inodes;
	return 0;
}

static const struct super_ops tmpfs_super_ops = {
	.statfs = tmpfs_statfs,
	.evict = tmpfs_evict,
	.put_super = tmpfs_put_super,
	.show_options = tmpfs_show_options,
	.remount = tmpfs_remount,
};

int tmpfs_new_sb(const struct tmpfs_limits *lim, struct super_block **ret)
{
	struct tmpfs *fs = SLAB_NEW(tmpfs_slab, struct tmpfs);
	struct tinode *root;

	if (!fs)
		return -ENOMEM;
	sb_init(&fs->sb, &tmpfs_type, &tmpfs_super_ops, SB_CACHE);
	fs->sb.magic = TMPFS_MAGIC;
	fs->max_pages = lim->max_bytes / PAGE_SIZE + (lim->max_bytes % PAGE_SIZE != 0);
	fs->max_inodes = lim->max_inodes;
	root = tmpfs_inode_new(fs, NULL, S_IFDIR | (lim->mode & 07777));
	if (!root) {
		slab_free(&tmpfs_slab, fs);
		return -ENOMEM;
	}
	root->inode.uid = lim->uid;
	root->inode.gid = lim->gid;
	fs->sb.root = d_root(&root->inode);
	if (!fs->sb.root) {
		sb_put(&fs->sb);
		return -ENOMEM;
	}
	*ret = &fs->sb;
	return 0;
}

static int tmpfs_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	uint64_t total = tmpfs_total();
	struct tmpfs_limits lim = {.max_bytes = total / 2, .max_inodes = total / 2 / PAGE_SIZE, .mode = 01777};
	struct vfs_task *self = vfs_self();
	int err;

	if (self && self->cred) {
		lim.uid = self->cred->fsuid;
		lim.gid = self->cred->fsgid;
	}
	err = tmpfs_parse_options(&lim, o->data);
	return err ? err : tmpfs_new_sb(&lim, ret);
}

struct fs_type tmpfs_type = {.name = "tmpfs", .flags = FS_NODEV | FS_GUEST, .mount = tmpfs_mount};
