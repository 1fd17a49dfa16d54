// Directory listings: the whole directory in one request, kept and used to answer lookups.
#include <dirent.h>

#include "sentry/fs/gofer/internal.h"

#define WITH_ATTRS 512u             // entries of a listing that come with attributes
#define LISTINGS_BYTES (16UL << 20) // kept over all mounts
#define NO_NODE UINT32_MAX

struct lent {
	uint64_t ino;
	uint32_t hash, off; // of the name in names; a symlink's target follows it
	uint32_t node;      // index into nodes
	uint16_t tlen;
	uint8_t type, len;
};
// Counted: by the directory's inode while it is current, by each open directory that reads it.
struct listing {
	refcount_t refs;
	struct gofer_sb *gs;
	struct gofer_inode *owner; // whose cached one it is; NULL: no longer
	TAILQ_ENTRY(listing) lru;  // while owned
	uint32_t n, nnodes, unused; // unused: nodes that no inode has taken yet
	uint32_t mask;
	size_t bytes, nnames;
	struct lent *ents;
	uint32_t *index;           // by hash, open addressing; entry number + 1
	char *names;
	struct gp_node *nodes;
};
DEFINE_SLAB(listing_slab, struct listing);
static TAILQ_HEAD(listing_head, listing) lru = TAILQ_HEAD_INITIALIZER(lru);
static size_t lru_bytes;

static void nodes_forget(struct listing *l)
{
	for (uint32_t i = 0; i < l->nnodes; i++)
		if (l->nodes[i].id)
			conn_forget(l->gs->conn, l->nodes[i].id);
	kfree(l->nodes);
	l->nodes = NULL;
	l->nnodes = l->unused = 0;
}

static void listing_put(struct listing *l)
{
	if (!l || !ref_put(&l->refs))
		return;
	nodes_forget(l);
	kfree(l->ents);
	kfree(l->index);
	kfree(l->names);
	slab_free(&listing_slab, l);
}

void listing_drop(struct gofer_inode *gi)
{
	struct listing *l = gi->list;

	if (!l)
		return;
	gi->list = NULL;
	l->owner = NULL;
	TAILQ_REMOVE(&lru, l, lru);
	lru_bytes -= l->bytes;
	nodes_forget(l); // what a lookup has not used, none will
	listing_put(l);
}

static uint32_t name_hash(const char *s, size_t n)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h;
}

static int64_t find(const struct listing *l, const char *name, size_t len)
{
	uint32_t h = name_hash(name, len);

	for (uint32_t i = h & l->mask; l->index[i]; i = (i + 1) & l->mask) {
		const struct lent *e = &l->ents[l->index[i] - 1];

		if (e->hash == h && e->len == len && !memcmp(l->names + e->off, name, len))
			return l->index[i] - 1;
	}
	return -1;
}

// --- building -----------------------------------------------------------------------------------

static bool listing_room(struct listing *l, uint32_t n, size_t names, uint32_t nodes)
{
	uint32_t slots = 16;

	while (slots < n * 2)
		slots *= 2;
	l->mask = slots - 1;
	l->ents = kalloc(n * sizeof(*l->ents));
	l->index = kalloc(slots * sizeof(*l->index));
	l->names = kalloc(names);
	l->nodes = nodes ? kalloc(nodes * sizeof(*l->nodes)) : NULL;
	l->bytes = sizeof(*l) + n * sizeof(*l->ents) + slots * sizeof(*l->index) + names + nodes * sizeof(*l->nodes);
	return l->ents && l->index && l->names && (l->nodes || !nodes);
}

static void listing_add(struct listing *l, const struct gp_dirent *d)
{
	const char *name = (const char *)(d + 1);
	struct lent *e = &l->ents[l->n];
	uint32_t i;

	if (find(l, name, d->name_len) >= 0) { // the directory changed while it was read
		if (d->node.id)
			conn_forget(l->gs->conn, d->node.id);
		return;
	}
	e->ino = d->node.id ? gofer_map_ino(l->gs, d->node.attr.dev, d->node.attr.ino) : d->node.attr.ino;
	e->type = (uint8_t)((d->node.attr.mode & S_IFMT) >> 12);
	e->len = (uint8_t)d->name_len;
	e->tlen = d->target_len;
	e->off = (uint32_t)l->nnames;
	e->hash = name_hash(name, d->name_len);
	e->node = NO_NODE;
	memcpy(l->names + l->nnames, name, d->name_len + d->target_len);
	l->nnames += d->name_len + d->target_len;
	if (d->node.id) {
		e->node = l->nnodes;
		l->nodes[l->nnodes++] = d->node;
		l->unused++;
	}
	for (i = e->hash & l->mask; l->index[i]; i = (i + 1) & l->mask)
		;
	l->index[i] = ++l->n;
}

// Calls fn for every entry of an answer; gp_rep_check() has passed all of it.
#define FOREACH_ENTRY(c, k, i, e)                                                                                \
	STAILQ_FOREACH(k, &(c)->chunks, link)                                                                    \
		for (i = 0, e = (const struct gp_dirent *)(k->msg + sizeof(struct gp_dir_rep));                  \
		     i < ((const struct gp_dir_rep *)k->msg)->n;                                                 \
		     i++, e = (const struct gp_dirent *)((const char *)e + gp_dirent_size(e)))

static struct listing *listing_build(struct gofer_sb *gs, struct call *c)
{
	struct listing *l = SLAB_NEW(listing_slab, struct listing);
	uint32_t n = 0, nodes = 0, i;
	const struct gp_dirent *e;
	struct rx_chunk *k;
	size_t names = 0;

	FOREACH_ENTRY(c, k, i, e) { // at most ANSWER_MAX bytes: no sum can wrap
		n++;
		names += e->name_len + e->target_len;
		nodes += e->node.id != 0;
	}
	if (l) {
		ref_init(&l->refs, 1);
		l->gs = gs;
	}
	if (!l || !listing_room(l, n, names, nodes)) {
		FOREACH_ENTRY(c, k, i, e)
			if (e->node.id)
				conn_forget(gs->conn, e->node.id);
		listing_put(l);
		return NULL;
	}
	FOREACH_ENTRY(c, k, i, e)
		listing_add(l, e);
	return l;
}

// A fresh listing; the directory keeps it if it may. *ret: a reference.
static int listing_fetch(struct inode *dir, struct listing **ret)
{
	struct gofer_inode *gi = GI(dir);
	struct gofer_sb *gs = GSB(dir);
	struct call c = {.q = {.h.op = GP_READDIR, .node = gi->node, .arg = gs->exclusive ? WITH_ATTRS : 0}};
	uint64_t seq = gs->sb.change_seq;
	struct listing *l;
	int r = call_run(gs->conn, &c);

	// A failed answer may still have chunks that name nodes.
	l = listing_build(gs, &c);
	call_end(&c);
	if (r || !l) {
		listing_put(l);
		return r ? r : -ENOMEM;
	}
	if (gs->exclusive && seq == gs->sb.change_seq && !gi->list) {
		gi->list = l;
		l->owner = gi;
		ref_get(&l->refs);
		TAILQ_INSERT_HEAD(&lru, l, lru);
		lru_bytes += l->bytes;
		while (lru_bytes > LISTINGS_BYTES && TAILQ_LAST(&lru, listing_head) != l)
			listing_drop(TAILQ_LAST(&lru, listing_head)->owner);
	} else {
		nodes_forget(l);
	}
	*ret = l;
	return 0;
}

int listing_load(struct inode *dir)
{
	struct listing *l;
	int r;

	if (GI(dir)->list)
		return 0;
	r = listing_fetch(dir, &l);
	if (!r)
		listing_put(l);
	return r;
}

int listing_lookup(struct inode *dir, const char *name, size_t len, struct inode **ret)
{
	struct listing *l = GI(dir)->list;
	struct gp_node node;
	struct lent *e;
	int64_t at;
	int r;

	if (!l)
		return -EAGAIN;
	TAILQ_REMOVE(&lru, l, lru);
	TAILQ_INSERT_HEAD(&lru, l, lru);
	at = find(l, name, len);
	if (at < 0)
		return -ENOENT;
	e = &l->ents[at];
	*ret = NULL;
	if (e->node == NO_NODE || !l->nodes)
		return 0;
	node = l->nodes[e->node];
	l->nodes[e->node].id = 0;
	e->node = NO_NODE;
	r = gofer_iget(l->gs, &node, e->tlen ? l->names + e->off + e->len : NULL, e->tlen, ret);
	if (--l->unused == 0) {
		lru_bytes -= l->nnodes * sizeof(*l->nodes);
		l->bytes -= l->nnodes * sizeof(*l->nodes);
		nodes_forget(l);
	}
	return r;
}

// --- reading ------------------------------------------------------------------------------------

static bool emit_dots(struct file *f, struct dir_context *c)
{
	struct dentry *d = f->path.dentry;

	if (c->pos == 0) {
		if (!c->fill(c, ".", 1, f->inode->ino, DT_DIR, 1))
			return false;
		c->pos = 1;
	}
	if (c->pos == 1) {
		const struct inode *up = d && d->parent->inode ? d->parent->inode : f->inode;

		if (!c->fill(c, "..", 2, up->ino, DT_DIR, 2))
			return false;
		c->pos = 2;
	}
	return true;
}

// What an open directory reads is one state of it, so that positions mean the same throughout; a
// rewind takes a new one.
int gofer_iterate(struct file *f, struct dir_context *c)
{
	struct listing *l = f->priv;
	int r;

	if (!l || (c->pos == 0 && l != GI(f->inode)->list)) {
		f->priv = NULL;
		listing_put(l);
		l = GI(f->inode)->list;
		if (l)
			ref_get(&l->refs);
		else if ((r = listing_fetch(f->inode, &l)))
			return r;
		f->priv = l;
	}
	if (c->pos < 0)
		return -EINVAL;
	if (!emit_dots(f, c))
		return 0;
	for (uint64_t i = (uint64_t)c->pos - 2; i < l->n; i++) {
		const struct lent *e = &l->ents[i];

		if (!c->fill(c, l->names + e->off, e->len, e->ino, e->type, c->pos + 1))
			break;
		c->pos++;
	}
	return 0;
}

static void dir_release(struct file *f)
{
	listing_put(f->priv);
	f->priv = NULL;
}

static int dir_fsync(struct file *f, bool datasync)
{
	struct call c = {.q = {.h.op = GP_FSYNC, .node = GI(f->inode)->node}};
	int r;

	if (GSB(f->inode)->read_only)
		return 0;
	r = call_run(GSB(f->inode)->conn, &c);
	call_end(&c);
	return r;
}

const struct file_ops gofer_dir_fops = {
	.iterate = gofer_iterate,
	.release = dir_release,
	.fsync = dir_fsync,
};
