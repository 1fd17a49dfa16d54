// Listing merged directories.
//
// A directory that is in one layer only is read from there. A merged one is read once, as a list
// that the directory keeps until something in it changes; an open directory goes on reading the list
// it began with, so positions mean the same throughout, and a rewind takes a new one.
#include <dirent.h>
#include <fcntl.h>

#include "sentry/fs/overlay/internal.h"

#define MLIST_MAX (64UL << 20)     // bytes of one list
#define MLISTS_KEPT (16UL << 20)   // bytes of all that directories keep

struct mentry {
	uint64_t ino;
	uint32_t off, hash;
	uint8_t len, type;
	bool white;
};
struct mlist {
	refcount_t refs;
	bool failed;
	uint32_t n, cap, mask, nslots;
	size_t used, room;
	struct mentry *ents;
	uint32_t *index;   // by hash, open addressing; entry number + 1
	char *names;
};
DEFINE_SLAB(mlist_slab, struct mlist);
static size_t kept;

struct ovl_dirfile {
	struct mlist *list;    // NULL: read from `real`, or not begun
	struct file real;      // ops NULL: not open
	struct path real_path;
	bool upper;            // real is the upper directory
};
DEFINE_SLAB(dirfile_slab, struct ovl_dirfile);

static size_t mlist_bytes(const struct mlist *l)
{
	return l->cap * sizeof(*l->ents) + l->nslots * sizeof(*l->index) + l->room;
}

void ovl_mlist_put(struct mlist *l)
{
	if (!l || !ref_put(&l->refs))
		return;
	kept -= MIN(kept, mlist_bytes(l));
	kfree(l->ents);
	kfree(l->index);
	kfree(l->names);
	slab_free(&mlist_slab, l);
}

// --- the list -----------------------------------------------------------------------------------

static uint32_t name_hash(const char *s, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h;
}

static struct mentry *mlist_find(struct mlist *l, const char *name, size_t len, uint32_t hash)
{
	for (uint32_t i = hash & l->mask; l->nslots && l->index[i]; i = (i + 1) & l->mask) {
		struct mentry *e = &l->ents[l->index[i] - 1];

		if (e->hash == hash && e->len == len && !memcmp(l->names + e->off, name, len))
			return e;
	}
	return NULL;
}

static void index_put(struct mlist *l, uint32_t k)
{
	uint32_t i = l->ents[k].hash & l->mask;

	while (l->index[i])
		i = (i + 1) & l->mask;
	l->index[i] = k + 1;
}

static bool mlist_grow(struct mlist *l, size_t len)
{
	if (mlist_bytes(l) > MLIST_MAX)
		return false;
	if (l->n == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 32;
		struct mentry *e = krealloc(l->ents, l->cap * sizeof(*e), cap * sizeof(*e));
		uint32_t *index;

		if (!e)
			return false;
		l->ents = e;
		l->cap = cap;
		index = kalloc(cap * 2 * sizeof(*index));
		if (!index)
			return false;
		kfree(l->index);
		l->index = index;
		l->nslots = cap * 2;
		l->mask = l->nslots - 1;
		for (uint32_t k = 0; k < l->n; k++)
			index_put(l, k);
	}
	if (l->used + len > l->room) {
		size_t room = MAX(l->room * 2, 1024UL);
		char *p = krealloc(l->names, l->room, room);

		if (!p)
			return false;
		l->names = p;
		l->room = room;
	}
	return true;
}

// --- filling it ---------------------------------------------------------------------------------

struct gather {
	struct dir_context c;
	struct mlist *l;
	struct inode *dir;  // the layer's directory
	bool upper;
};

static bool is_dot(const char *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static bool gather_fill(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next)
{
	struct gather *g = (struct gather *)c;
	uint32_t h = name_hash(name, len);
	struct mentry *e;

	if (is_dot(name, len))
		return true;
	e = mlist_find(g->l, name, len, h);
	if (e) {
		// Copied up: it goes on showing the number it had.
		if (!g->upper && e->type == dtype && e->ino >= OVL_UPPER_INO)
			e->ino = ino;
		return true;
	}
	if (len > 255 || !mlist_grow(g->l, len)) {
		g->l->failed = true;
		return false;
	}
	e = &g->l->ents[g->l->n];
	*e = (struct mentry){.ino = g->upper ? ino + OVL_UPPER_INO : ino, .off = (uint32_t)g->l->used, .hash = h,
			     .len = (uint8_t)len, .type = (uint8_t)dtype, .white = dtype == DT_CHR};
	memcpy(g->l->names + g->l->used, name, len);
	g->l->used += len;
	index_put(g->l, g->l->n++);
	return true;
}

// Character devices are whiteouts until they are looked at.
static int check_whiteouts(struct gather *g, uint32_t from)
{
	for (uint32_t k = from; k < g->l->n; k++) {
		struct mentry *e = &g->l->ents[k];
		struct inode *i;
		char name[256];
		int r;

		if (!e->white)
			continue;
		memcpy(name, g->l->names + e->off, e->len);
		name[e->len] = 0;
		r = g->dir->ops->lookup(g->dir, name, &i);
		if (r && r != -ENOENT)
			return r;
		if (!r) {
			e->white = ovl_is_whiteout(i);
			inode_put(i);
		}
	}
	return 0;
}

static int gather_layer(struct mlist *l, struct inode *dir, struct dentry *d, bool upper)
{
	struct gather g = {.c.fill = gather_fill, .l = l, .dir = dir, .upper = upper};
	struct path p = {.dentry = d};
	uint32_t from = l->n;
	struct file f;
	int r = ovl_real_open(dir, &p, O_RDONLY | O_DIRECTORY, &f);

	if (r)
		return r;
	klock_lock(&dir->lock);
	r = f.ops->iterate ? f.ops->iterate(&f, &g.c) : -ENOTDIR;
	klock_unlock(&dir->lock);
	ovl_real_close(&f);
	if (!r && l->failed)
		r = -ENOMEM;
	return r ? r : check_whiteouts(&g, from);
}

// The merged list of dir. d: its dentry. *ret: a reference.
static int merged_list(struct ovl_inode *dir, struct dentry *d, struct mlist **ret)
{
	struct mlist *l = dir->list;
	uint32_t seq = dir->list_seq;
	int r = 0;

	if (l) {
		ref_get(&l->refs);
		*ret = l;
		return 0;
	}
	l = SLAB_NEW(mlist_slab, struct mlist);
	if (!l)
		return -ENOMEM;
	ref_init(&l->refs, 1);
	if (dir->upper)
		r = gather_layer(l, dir->upper, d, true);
	for (unsigned i = 0; i < dir->ndirs && !r; i++)
		r = gather_layer(l, dir->dirs[i]->inode, dir->dirs[i], false);
	kept += mlist_bytes(l);
	if (r) {
		ovl_mlist_put(l);
		return r;
	}
	if (!dir->list && seq == dir->list_seq && kept <= MLISTS_KEPT) {
		ref_get(&l->refs);
		dir->list = l;
	}
	*ret = l;
	return 0;
}

int ovl_check_empty(struct ovl_inode *dir, struct dentry *d, bool clear)
{
	struct inode *upper = dir->upper;
	struct mlist *l;
	int r = merged_list(dir, d, &l);

	if (r)
		return r;
	for (uint32_t k = 0; k < l->n && !r; k++)
		if (!l->ents[k].white)
			r = -ENOTEMPTY;
	for (uint32_t k = 0; upper && clear && k < l->n && !r; k++) {
		struct dentry w = {.refs = REFCOUNT_INIT(1), .namelen = l->ents[k].len};
		char name[256];

		memcpy(name, l->names + l->ents[k].off, l->ents[k].len);
		name[l->ents[k].len] = 0;
		w.name = name;
		w.hash = d_name_hash(name, w.namelen);
		klock_lock(&upper->lock);
		r = upper->ops->lookup(upper, name, &w.inode);
		if (!r) {
			r = upper->ops->unlink(upper, &w);
			inode_put(w.inode);
		} else if (r == -ENOENT) {
			r = 0; // a whiteout of a lower layer
		}
		klock_unlock(&upper->lock);
	}
	if (clear && l->n) {
		ovl_mlist_put(dir->list);
		dir->list = NULL;
		dir->list_seq++;
	}
	ovl_mlist_put(l);
	return r;
}

// --- open directories ---------------------------------------------------------------------------

static int dir_open(struct inode *inode, struct file *f)
{
	f->priv = SLAB_NEW(dirfile_slab, struct ovl_dirfile);
	return f->priv ? 0 : -ENOMEM;
}

static void dirfile_reset(struct ovl_dirfile *df)
{
	ovl_mlist_put(df->list);
	df->list = NULL;
	if (df->real.ops) {
		ovl_real_close(&df->real);
		path_put(&df->real_path);
	}
}

static void dir_release(struct file *f)
{
	dirfile_reset(f->priv);
	slab_free(&dirfile_slab, f->priv);
}

// Decides what f reads from, when it reads from the start.
static int dirfile_begin(struct file *f)
{
	struct ovl_dirfile *df = f->priv;
	struct ovl_inode *oi = OI(f->inode);
	int r;

	dirfile_reset(df);
	if ((oi->upper && oi->ndirs) || oi->ndirs > 1)
		return merged_list(oi, f->path.dentry, &df->list);
	df->upper = oi->upper != NULL;
	// The layer's own "." and ".." are not shown.
	df->real_path = (struct path){.dentry = d_get(df->upper ? f->path.dentry : oi->dirs[0])};
	r = ovl_real_open(ovl_real(oi), &df->real_path, O_RDONLY | O_DIRECTORY, &df->real);
	if (r)
		path_put(&df->real_path);
	return r;
}

struct pass {
	struct dir_context c, *out;
	struct inode *dir;
	bool upper;
};

static bool pass_fill(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next)
{
	struct pass *p = (struct pass *)c;

	if (is_dot(name, len))
		return true; // shown already, with the numbers of the overlay
	if (unlikely(dtype == DT_CHR)) {
		struct inode *i;
		bool white;

		if (p->dir->ops->lookup(p->dir, name, &i) == 0) {
			white = ovl_is_whiteout(i);
			inode_put(i);
			if (white)
				return true;
		}
	}
	if (!p->out->fill(p->out, name, len, p->upper ? ino + OVL_UPPER_INO : ino, dtype, next))
		return false;
	p->out->pos = next;
	return true;
}

static bool emit_dots(struct file *f, struct dir_context *c)
{
	const struct dentry *up = f->path.dentry->parent;

	if (c->pos == 0) {
		if (!c->fill(c, ".", 1, f->inode->ino, DT_DIR, 1))
			return false;
		c->pos = 1;
	}
	if (c->pos == 1) {
		if (!c->fill(c, "..", 2, up->inode ? up->inode->ino : f->inode->ino, DT_DIR, 2))
			return false;
		c->pos = 2;
	}
	return true;
}

static int dir_iterate(struct file *f, struct dir_context *c)
{
	struct ovl_dirfile *df = f->priv;
	int r = 0;

	if (c->pos < 0)
		return -EINVAL;
	if (c->pos == 0 || (!df->list && !df->real.ops))
		r = dirfile_begin(f);
	if (r || !emit_dots(f, c))
		return r;
	if (!df->list) {
		struct pass p = {.c = {.pos = c->pos, .fill = pass_fill}, .out = c, .dir = df->real.inode, .upper = df->upper};

		klock_lock(&df->real.inode->lock);
		r = df->real.ops->iterate ? df->real.ops->iterate(&df->real, &p.c) : -ENOTDIR;
		klock_unlock(&df->real.inode->lock);
		return r;
	}
	for (uint64_t k = (uint64_t)c->pos - 2; k < df->list->n; k++) {
		const struct mentry *e = &df->list->ents[k];

		if (!e->white && !c->fill(c, df->list->names + e->off, e->len, e->ino, e->type, c->pos + 1))
			break;
		c->pos++;
	}
	return 0;
}

static int64_t dir_llseek(struct file *f, int64_t off, int whence)
{
	if (whence != SEEK_SET && whence != SEEK_CUR)
		return -EINVAL;
	return generic_llseek(f, off, whence, 0);
}

static int dir_fsync(struct file *f, bool datasync)
{
	return 0;
}

const struct file_ops ovl_dir_fops = {
	.open = dir_open,
	.release = dir_release,
	.iterate = dir_iterate,
	.llseek = dir_llseek,
	.fsync = dir_fsync,
};
