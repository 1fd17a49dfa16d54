// Mounting, and the overlay's inodes.
#include <stdio.h>

#include "sentry/fs/overlay/internal.h"

#define OVERLAYFS_SUPER_MAGIC 0x794c7630
#define TABLE_FIRST_BITS 8

LIST_HEAD(otable, ovl_inode);
DEFINE_SLAB(ovl_inode_slab, struct ovl_inode);
DEFINE_SLAB(ovl_sb_slab, struct ovl_sb);

// --- the tables of real inodes ---------------------------------------------------------------------

static struct otable *slot(const struct ovl_sb *os, void *table, const struct inode *real)
{
	return &((struct otable *)table)[((uintptr_t)real >> 4) * 0x9e3779b97f4a7c15ULL >> (64 - os->bits)];
}

static void table_add_upper(struct ovl_inode *oi)
{
	LIST_INSERT_HEAD(slot(OSB(oi), OSB(oi)->upper_table, oi->upper), oi, by_upper);
	oi->in_upper_table = true;
}

static void table_add_lower(struct ovl_inode *oi)
{
	LIST_INSERT_HEAD(slot(OSB(oi), OSB(oi)->lower_table, oi->lower), oi, by_lower);
	oi->in_lower_table = true;
}

// Doubles the tables; without memory for it the chains get longer, and nothing else.
static bool tables_grow(struct ovl_sb *os)
{
	unsigned bits = os->upper_table ? os->bits + 1 : TABLE_FIRST_BITS, old = os->upper_table ? 1u << os->bits : 0;
	struct otable *u = kalloc(sizeof(*u) << bits), *l = kalloc(sizeof(*l) << bits);
	struct otable *ou = (void *)os->upper_table, *ol = (void *)os->lower_table;
	struct ovl_inode *oi;

	if (!u || !l) {
		kfree(u);
		kfree(l);
		return old != 0;
	}
	os->upper_table = (void *)u;
	os->lower_table = (void *)l;
	os->bits = bits;
	for (unsigned i = 0; i < old; i++) {
		while ((oi = LIST_FIRST(&ou[i]))) {
			LIST_REMOVE(oi, by_upper);
			table_add_upper(oi);
		}
		while ((oi = LIST_FIRST(&ol[i]))) {
			LIST_REMOVE(oi, by_lower);
			table_add_lower(oi);
		}
	}
	kfree(ou);
	kfree(ol);
	return true;
}

static struct ovl_inode *find_known(struct ovl_sb *os, const struct inode *upper, const struct inode *lower)
{
	struct ovl_inode *oi;

	if (upper) {
		LIST_FOREACH(oi, slot(os, os->upper_table, upper), by_upper)
			if (oi->upper == upper)
				return oi;
		return NULL;
	}
	LIST_FOREACH(oi, slot(os, os->lower_table, lower), by_lower)
		if (oi->lower == lower)
			return oi;
	return NULL;
}

// --- inodes -------------------------------------------------------------------------------------

void ovl_sync_attr(struct ovl_inode *oi)
{
	const struct inode *r = ovl_real(oi);
	struct inode *i = &oi->inode;

	i->mode = r->mode;
	i->uid = r->uid;
	i->gid = r->gid;
	i->size = r->size;
	i->blocks = r->blocks;
	i->atime = oi->upper ? r->atime : ovl_later(i->atime, r->atime); // reads of lower files are noted here only
	i->mtime = r->mtime;
	i->ctime = r->ctime;
	i->has_acl = r->has_acl;
}

int ovl_getattr(struct inode *inode)
{
	struct ovl_inode *oi = OI(inode);
	struct inode *real = ovl_real(oi);
	int r = real->ops->getattr ? real->ops->getattr(real) : 0;

	if (!r)
		ovl_sync_attr(oi);
	return r;
}

// The number it shows: the one it was first seen with.
static uint64_t ino_of(struct inode *upper, const struct inode *lower)
{
	uint64_t origin;

	if (!upper)
		return lower->ino;
	if (upper->ops->getxattr && upper->ops->getxattr(upper, OVL_ORIGIN, &origin, sizeof(origin)) == sizeof(origin))
		return origin;
	return upper->ino + OVL_UPPER_INO;
}

static void set_ops(struct inode *i)
{
	switch (i->mode & S_IFMT) {
	case S_IFDIR:
		i->ops = &ovl_dir_ops;
		i->fops = &ovl_dir_fops;
		break;
	case S_IFREG:
		i->ops = &ovl_file_ops;
		i->fops = &ovl_reg_fops;
		break;
	case S_IFLNK:
		i->ops = &ovl_link_ops;
		break;
	default:
		i->ops = &ovl_special_ops;
	}
}

static struct ovl_inode *inode_new(struct ovl_sb *os, struct inode *upper, struct inode *lower, struct dentry **dirs, unsigned ndirs)
{
	struct ovl_inode *oi = SLAB_NEW(ovl_inode_slab, struct ovl_inode);
	struct inode *real = upper ? upper : ndirs ? dirs[0]->inode : lower;

	if (!oi)
		return NULL;
	inode_init(&oi->inode, &os->sb, real->mode, NULL, NULL);
	klock_init(&oi->copy_lock);
	oi->upper = upper;
	oi->lower = lower;
	if (ndirs == 1) {
		oi->first = dirs[0];
		oi->dirs = &oi->first;
	} else if (ndirs) {
		oi->dirs = kalloc(ndirs * sizeof(*dirs));
		if (!oi->dirs) {
			oi->upper = oi->lower = NULL;
			inode_put(&oi->inode);
			return NULL;
		}
		memcpy(oi->dirs, dirs, ndirs * sizeof(*dirs));
	}
	oi->ndirs = ndirs;
	oi->inode.atime = (struct ktime){0};
	ovl_sync_attr(oi);
	oi->inode.nlink = upper && ndirs ? 1 : real->nlink; // merged directories: as Linux, "unknown"
	oi->inode.rdev = real->rdev;
	oi->inode.btime = real->btime;
	oi->inode.blksize = real->blksize;
	oi->inode.link = real->link;
	oi->inode.ino = ino_of(upper, ndirs ? dirs[0]->inode : lower);
	set_ops(&oi->inode);
	return oi;
}

static void set_place(struct ovl_inode *oi, struct ovl_inode *parent, const char *name)
{
	if (oi->upper || !OSB(oi)->upper)
		return;
	oi->parent = OI(inode_get(&parent->inode));
	oi->name = name ? kstrdup(name) : NULL;
}

void ovl_forget_place(struct ovl_inode *oi)
{
	struct ovl_inode *parent = steal_ptr(&oi->parent);

	kfree(oi->name);
	oi->name = NULL;
	if (parent)
		inode_put(&parent->inode);
}

int ovl_iget(struct ovl_sb *os, struct inode *upper, struct inode *lower, struct ovl_inode *parent, const char *name, struct inode **ret)
{
	struct ovl_inode *oi = find_known(os, upper, lower);

	if (oi) {
		inode_put(upper);
		inode_put(lower);
		*ret = inode_get(&oi->inode);
		return 0;
	}
	if (os->count >> os->bits)
		tables_grow(os);
	oi = inode_new(os, upper, lower, NULL, 0);
	if (!oi) {
		inode_put(upper);
		inode_put(lower);
		return -ENOMEM;
	}
	set_place(oi, parent, name);
	if (upper)
		table_add_upper(oi);
	else if (lower->nlink > 1)
		table_add_lower(oi);
	os->count++;
	*ret = &oi->inode;
	return 0;
}

int ovl_iget_dir(struct ovl_sb *os, struct inode *upper, struct dentry **dirs, unsigned ndirs, struct ovl_inode *parent, struct inode **ret)
{
	struct ovl_inode *oi = inode_new(os, upper, NULL, dirs, ndirs);

	if (!oi) {
		inode_put(upper);
		for (unsigned i = 0; i < ndirs; i++)
			d_put(dirs[i]);
		return -ENOMEM;
	}
	os->count++;
	if (parent)
		set_place(oi, parent, NULL);
	*ret = &oi->inode;
	return 0;
}

void ovl_set_upper(struct ovl_inode *oi, struct inode *upper)
{
	oi->upper = upper;
	if (!S_ISDIR(oi->inode.mode))
		table_add_upper(oi);
	oi->inode.link = upper->link;
	if (S_ISDIR(oi->inode.mode))
		oi->inode.nlink = 1;
	ovl_forget_place(oi);
	ovl_sync_attr(oi);
}

int ovl_pin(struct ovl_inode *oi)
{
	struct ovl_sb *os = OSB(oi);

	if (oi->pinned)
		return 0;
	if (os->npinned == os->pinned_cap) {
		unsigned cap = os->pinned_cap ? os->pinned_cap * 2 : 16;
		struct ovl_inode **p = krealloc(os->pinned, os->pinned_cap * sizeof(*p), cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		os->pinned = p;
		os->pinned_cap = cap;
	}
	os->pinned[os->npinned++] = OI(inode_get(&oi->inode));
	oi->pinned = true;
	return 0;
}

void ovl_unpin(struct ovl_inode *oi)
{
	struct ovl_sb *os = OSB(oi);

	if (!oi->pinned)
		return;
	oi->pinned = false;
	for (unsigned i = 0; i < os->npinned; i++) {
		if (os->pinned[i] == oi) {
			os->pinned[i] = os->pinned[--os->npinned];
			break;
		}
	}
	inode_put(&oi->inode);
}

static void ovl_evict(struct inode *inode)
{
	struct ovl_inode *oi = OI(inode);

	if (oi->in_upper_table)
		LIST_REMOVE(oi, by_upper);
	if (oi->in_lower_table)
		LIST_REMOVE(oi, by_lower);
	if (inode->ops)
		OSB(oi)->count--;
	ovl_mlist_put(oi->list);
	ovl_forget_place(oi);
	inode_put(oi->upper);
	inode_put(oi->lower);
	for (unsigned i = 0; oi->dirs && i < oi->ndirs; i++)
		d_put(oi->dirs[i]);
	if (oi->dirs != &oi->first)
		kfree(oi->dirs);
	if (oi->udentry)
		d_put(oi->udentry);
	slab_free(&ovl_inode_slab, oi);
}

// --- super blocks -------------------------------------------------------------------------------

static int ovl_statfs(struct super_block *sb, struct statfs_info *ret)
{
	struct ovl_sb *os = (struct ovl_sb *)sb;
	struct super_block *real = os->upper ? os->upper : os->lowers[0];
	int r = real->ops->statfs ? real->ops->statfs(real, ret) : -ENOSYS;

	if (!r)
		ret->type = sb->magic;
	return r;
}

static void ovl_kill_sb(struct super_block *sb)
{
	struct ovl_sb *os = (struct ovl_sb *)sb;

	while (os->npinned)
		ovl_unpin(os->pinned[os->npinned - 1]);
}

static void ovl_put_super(struct super_block *sb)
{
	struct ovl_sb *os = (struct ovl_sb *)sb;

	inode_put(os->upper_root);
	if (os->upper_dentry)
		d_put(os->upper_dentry);
	kfree(os->options);
	for (unsigned i = 0; i < os->nlowers; i++) {
		if (os->lower_roots[i])
			d_put(os->lower_roots[i]);
		sb_put(os->lowers[i]);
	}
	if (os->upper)
		sb_put(os->upper);
	kfree(os->upper_table);
	kfree(os->lower_table);
	kfree(os->pinned);
	slab_free(&ovl_sb_slab, os);
}

static int ovl_show_options(struct super_block *sb, char *buf, size_t size)
{
	const struct ovl_sb *os = (struct ovl_sb *)sb;
	int n = os->options ? snprintf(buf, size, ",%s", os->options) : 0;

	if (!os->options && size)
		*buf = 0;
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

static const struct super_ops ovl_super_ops = {
	.show_options = ovl_show_options,
	.statfs = ovl_statfs,
	.evict = ovl_evict,
	.kill_sb = ovl_kill_sb,
	.put_super = ovl_put_super,
};

// The upper root of a new overlay looks like the lower one.
static int dress_root(struct inode *upper, const struct inode *lower)
{
	struct iattr a = {.valid = ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_ATIME | ATTR_MTIME | ATTR_CTIME,
			  .mode = lower->mode, .uid = lower->uid, .gid = lower->gid,
			  .atime = lower->atime, .mtime = lower->mtime, .ctime = lower->ctime};
	uint64_t ino = lower->ino;
	int r;

	if (upper->ops->getxattr && upper->ops->getxattr(upper, OVL_ORIGIN, &ino, sizeof(ino)) == sizeof(ino))
		return 0; // an overlay has been here before
	// Nobody else knows the root yet: no lock, for boot has no task to hold one.
	r = upper->ops->setxattr ? upper->ops->setxattr(upper, OVL_ORIGIN, &ino, sizeof(ino), 0) : -EOPNOTSUPP;
	if (r || !upper->ops->setattr)
		return r;
	return upper->ops->setattr(upper, &a);
}

static int make_root(struct ovl_sb *os)
{
	struct dentry *dirs[OVERLAY_MAX_LOWER];
	struct inode *root;
	int r;

	for (unsigned i = 0; i < os->nlowers; i++)
		dirs[i] = d_get(os->lower_roots[i]);
	if (os->upper_root)
		inode_get(os->upper_root);
	r = ovl_iget_dir(os, os->upper_root, dirs, os->nlowers, NULL, &root);
	if (r)
		return r;
	if (os->upper_dentry)
		OI(root)->udentry = d_get(os->upper_dentry);
	os->sb.root = d_root(root);
	return os->sb.root ? 0 : -ENOMEM;
}

int ovl_mount_dentries(struct dentry *upper, bool shared, struct dentry *const *lowers, unsigned n, struct super_block **ret)
{
	struct ovl_sb *os;
	int r = 0;

	if (n == 0 || n > OVERLAY_MAX_LOWER)
		return -EINVAL;
	if (upper && !S_ISDIR(upper->inode->mode))
		return -ENOTDIR;
	for (unsigned i = 0; i < n; i++)
		if (!lowers[i]->inode || !S_ISDIR(lowers[i]->inode->mode))
			return -ENOTDIR;
	os = SLAB_NEW(ovl_sb_slab, struct ovl_sb);
	if (!os)
		return -ENOMEM;
	sb_init(&os->sb, &overlay_fs_type, &ovl_super_ops, SB_CACHE | (upper ? 0 : SB_RDONLY));
	os->sb.magic = OVERLAYFS_SUPER_MAGIC;
	if (upper) {
		os->upper = sb_get(upper->sb);
		os->upper_root = inode_get(upper->inode);
		os->sb.maxbytes = upper->sb->maxbytes;
		if (shared)
			os->upper_dentry = d_get(upper);
	}
	for (; os->nlowers < n; os->nlowers++) {
		os->lower_roots[os->nlowers] = d_get(lowers[os->nlowers]);
		os->lowers[os->nlowers] = sb_get(lowers[os->nlowers]->sb);
	}
	os->sb.source = kstrdup("overlay");
	if (!os->sb.source || !tables_grow(os))
		r = -ENOMEM;
	if (!r && upper && !shared)
		r = dress_root(upper->inode, lowers[0]->inode);
	if (!r)
		r = make_root(os);
	if (r) {
		sb_put(&os->sb);
		return r;
	}
	*ret = &os->sb;
	return 0;
}

int overlay_mount_layers(struct super_block *upper, struct super_block *const *lowers, unsigned n, struct super_block **ret)
{
	struct dentry *roots[OVERLAY_MAX_LOWER];

	if (n == 0 || n > OVERLAY_MAX_LOWER)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		roots[i] = lowers[i]->root;
	return ovl_mount_dentries(upper ? upper->root : NULL, false, roots, n, ret);
}

static int ovl_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	const struct overlay_mount *m = o->internal;

	return m ? overlay_mount_layers(m->upper, m->lowers, m->n, ret) : overlay_mount_guest(type, o, ret);
}

struct fs_type overlay_fs_type = {.name = "overlay", .flags = FS_NODEV | FS_GUEST, .mount = ovl_mount};
