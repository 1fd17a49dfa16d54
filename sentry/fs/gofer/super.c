// Mounts, inodes and attributes.
#include "sentry/fs/gofer/internal.h"

#define HASH_FIRST_BITS 8

LIST_HEAD(ghash, gofer_inode);
DEFINE_SLAB(gofer_inode_slab, struct gofer_inode);
DEFINE_SLAB(gofer_sb_slab, struct gofer_sb);

// --- the inode table: one inode a host file, whatever its names --------------------------------------

static struct ghash *bucket(struct gofer_sb *gs, uint64_t dev, uint64_t ino)
{
	uint64_t mixed = (ino ^ dev << 40) * 0x9e3779b97f4a7c15ULL;

	return (struct ghash *)&gs->hash[mixed >> (64 - gs->hash_bits)];
}

static bool hash_grow(struct gofer_sb *gs)
{
	unsigned bits = gs->hash ? gs->hash_bits + 1 : HASH_FIRST_BITS, old_size = gs->hash ? 1u << gs->hash_bits : 0;
	struct ghash *old = (struct ghash *)gs->hash, *table = kalloc(sizeof(*table) << bits);
	struct gofer_inode *gi;

	if (!table)
		return old != NULL; // longer chains, nothing else
	gs->hash = (void *)table;
	gs->hash_bits = bits;
	for (unsigned i = 0; i < old_size; i++) {
		while ((gi = LIST_FIRST(&old[i]))) {
			LIST_REMOVE(gi, hash);
			LIST_INSERT_HEAD(bucket(gs, gi->dev, gi->ino), gi, hash);
		}
	}
	kfree(old);
	return true;
}

static bool same_file(const struct gofer_inode *gi, const struct gp_attr *a)
{
	return gi->ino == a->ino && gi->dev == a->dev && ((gi->inode.mode ^ a->mode) & S_IFMT) == 0 &&
	       gi->inode.btime.sec == a->btime.sec && gi->inode.btime.nsec == a->btime.nsec;
}

// --- attributes ---------------------------------------------------------------------------------

static struct ktime time_of(const struct gp_time *t)
{
	return (struct ktime){.sec = t->sec, .nsec = t->nsec};
}

uint64_t gofer_map_ino(const struct gofer_sb *gs, uint64_t dev, uint64_t ino)
{
	if (likely(dev == gs->dev))
		return ino;
	// A mount below the root: the same number there is another file.
	return ino ^ ((dev * 0x9e3779b97f4a7c15ULL) >> 48 | 1) << 47;
}

void gofer_attr_apply(struct gofer_inode *gi, const struct gp_attr *a)
{
	struct inode *i = &gi->inode;

	i->mode = a->mode;
	i->uid = a->uid;
	i->gid = a->gid;
	i->nlink = a->nlink;
	i->rdev = a->rdev;
	i->size = a->size;
	i->blocks = a->blocks;
	i->blksize = a->blksize;
	i->atime = time_of(&a->atime);
	i->mtime = time_of(&a->mtime);
	i->ctime = time_of(&a->ctime);
	gi->valid_until = sched_now() + GOFER_VALID_NS;
}

static bool is_current(const struct gofer_inode *gi)
{
	return GSB(&gi->inode)->exclusive ? gi->valid_until != 0 : gi->valid_until > sched_now();
}

int gofer_getattr(struct inode *inode)
{
	struct gofer_inode *gi = GI(inode);
	struct call c = {.q = {.h.op = GP_GETATTR, .node = gi->node}};
	int r;

	if (is_current(gi))
		return 0;
	r = call_run(GSB(inode)->conn, &c);
	if (!r) {
		const struct gp_attr *a = (const struct gp_attr *)call_body(&c);

		if ((a->mode ^ inode->mode) & S_IFMT)
			r = -ESTALE;
		else
			gofer_attr_apply(gi, a);
	}
	call_end(&c);
	return r;
}

void gofer_dir_changed(struct inode *dir)
{
	listing_drop(GI(dir));
	GI(dir)->valid_until = 0;
	GI(dir)->misses = 0;
}

// --- inodes -------------------------------------------------------------------------------------

static void set_ops(struct inode *i)
{
	switch (i->mode & S_IFMT) {
	case S_IFDIR:
		i->ops = &gofer_dir_ops;
		i->fops = &gofer_dir_fops;
		break;
	case S_IFREG:
		i->ops = &gofer_file_ops;
		i->fops = &gofer_reg_fops;
		break;
	case S_IFLNK:
		i->ops = &gofer_link_ops;
		break;
	default:
		i->ops = &gofer_special_ops;
	}
}

static int set_link(struct inode *i, const char *target, size_t tlen)
{
	char *s;

	if (!target || i->link || !S_ISLNK(i->mode))
		return 0;
	s = kalloc(tlen + 1);
	if (!s)
		return -ENOMEM;
	memcpy(s, target, tlen);
	i->link = s;
	return 0;
}

int gofer_iget(struct gofer_sb *gs, const struct gp_node *n, const char *target, size_t tlen, struct inode **ret)
{
	struct gofer_inode *gi;
	struct inode *i;

	LIST_FOREACH(gi, bucket(gs, n->attr.dev, n->attr.ino), hash) {
		if (!same_file(gi, &n->attr))
			continue;
		// The name that was just seen is the one that is sure to work.
		if (gi->node != n->id && gi->node != gs->root_node) {
			conn_forget(gs->conn, gs->exclusive ? n->id : gi->node);
			if (!gs->exclusive)
				gi->node = n->id;
		}
		if (!gs->exclusive)
			gofer_attr_apply(gi, &n->attr);
		*ret = inode_get(&gi->inode);
		return 0;
	}
	gi = SLAB_NEW(gofer_inode_slab, struct gofer_inode);
	if (!gi || (gs->count >> gs->hash_bits && !hash_grow(gs))) {
		slab_free(&gofer_inode_slab, gi);
		conn_forget(gs->conn, n->id);
		return -ENOMEM;
	}
	i = &gi->inode;
	inode_init(i, &gs->sb, n->attr.mode, NULL, NULL);
	i->ino = gofer_map_ino(gs, n->attr.dev, n->attr.ino);
	i->btime = time_of(&n->attr.btime);
	gi->node = n->id;
	gi->dev = n->attr.dev;
	gi->ino = n->attr.ino;
	gofer_attr_apply(gi, &n->attr);
	set_ops(i);
	i->priv = gs;
	LIST_INSERT_HEAD(bucket(gs, gi->dev, gi->ino), gi, hash);
	gs->count++;
	if (set_link(i, target, tlen))
		log_debug("gofer: no memory for a link's target: it will be asked for");
	*ret = i;
	return 0;
}

static void gofer_evict(struct inode *inode)
{
	struct gofer_inode *gi = GI(inode);
	struct gofer_sb *gs = GSB(inode);

	LIST_REMOVE(gi, hash);
	gs->count--;
	gfd_drop(gi);
	listing_drop(gi);
	kfree((void *)inode->link);
	conn_forget(gs->conn, gi->node);
	slab_free(&gofer_inode_slab, gi);
}

// --- super blocks -------------------------------------------------------------------------------

static int gofer_statfs(struct super_block *sb, struct statfs_info *ret)
{
	struct gofer_sb *gs = (struct gofer_sb *)sb;
	struct call c = {.q = {.h.op = GP_STATFS, .node = gs->root_node}};
	int r = call_run(gs->conn, &c);

	if (!r) {
		const struct gp_statfs *s = (const struct gp_statfs *)call_body(&c);

		*ret = (struct statfs_info){.type = sb->magic, .bsize = s->bsize, .blocks = s->blocks, .bfree = s->bfree,
					    .bavail = s->bavail, .files = s->files, .ffree = s->ffree, .namelen = s->namelen};
	}
	call_end(&c);
	return r;
}

static void gofer_put_super(struct super_block *sb)
{
	struct gofer_sb *gs = (struct gofer_sb *)sb;

	gofer_conn_put(gs->conn);
	kfree(gs->hash);
	slab_free(&gofer_sb_slab, gs);
}

static const struct super_ops gofer_super_ops = {
	.statfs = gofer_statfs,
	.evict = gofer_evict,
	.put_super = gofer_put_super,
	.revalidate = gofer_revalidate,
};

static int attach(struct gofer_sb *gs, uint32_t tree)
{
	struct call c = {.q = {.h.op = GP_ATTACH, .arg = tree}};
	const struct gp_node *n;
	struct inode *root;
	int r = call_run(gs->conn, &c);

	if (!r) {
		n = (const struct gp_node *)call_body(&c);
		gs->dev = n->attr.dev;
		gs->root_node = n->id;
		gs->sb.magic = 0xef53;
		r = S_ISDIR(n->attr.mode) || S_ISREG(n->attr.mode) ? gofer_iget(gs, n, NULL, 0, &root) : -ENOTDIR;
	}
	call_end(&c);
	if (r)
		return r;
	gs->sb.root = d_root(root);
	return gs->sb.root ? 0 : -ENOMEM;
}

static int gofer_mount_sb(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	const struct gofer_mount *m = o->internal;
	struct gofer_sb *gs;
	int r;

	if (!m)
		return -EPERM; // a guest cannot name a host directory
	gs = SLAB_NEW(gofer_sb_slab, struct gofer_sb);
	if (!gs)
		return -ENOMEM;
	sb_init(&gs->sb, type, &gofer_super_ops, SB_CACHE | (m->exclusive ? 0 : SB_REVALIDATE) | (m->read_only ? SB_RDONLY : 0));
	gs->conn = conn_get(m->conn);
	gs->exclusive = m->exclusive;
	gs->read_only = m->read_only;
	gs->sb.source = kstrdup(o->source ? o->source : "none");
	r = gs->sb.source && hash_grow(gs) ? attach(gs, m->tree) : -ENOMEM;
	if (r) {
		sb_put(&gs->sb);
		return r;
	}
	*ret = &gs->sb;
	return 0;
}

struct fs_type gofer_fs_type = {.name = "gofer", .flags = FS_NODEV, .mount = gofer_mount_sb};
