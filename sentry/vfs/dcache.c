// The dentry cache: a hash of (parent, name), and an LRU of the dentries that nobody uses.
//
// A dentry with refs == 0 is cached and nothing else. It may still be on the LRU when it comes into
// use again; the shrinker drops it from there then. Each dentry holds its parent, so whatever has
// cached children is itself in use.
#include "sentry/vfs/internal.h"

#define DCACHE_MAX_UNUSED 65536
#define DCACHE_FIRST_BITS 11

DEFINE_SLAB(dentry_slab, struct dentry);

LIST_HEAD(dhash_head, dentry);
static struct dhash_head *dhash;
static unsigned dhash_bits, dhash_count;
static TAILQ_HEAD(, dentry) lru = TAILQ_HEAD_INITIALIZER(lru);
static unsigned lru_count;

static inline unsigned bucket_of(const struct dentry *parent, uint32_t hash)
{
	uint64_t mixed = (hash ^ (uintptr_t)parent >> 4) * 0x9e3779b97f4a7c15ULL;

	return (unsigned)(mixed >> (64 - dhash_bits));
}

uint32_t d_name_hash(const char *name, size_t len)
{
	uint64_t h = DHASH_INIT;

	for (size_t i = 0; i < len; i++)
		h = DHASH_STEP(h, name[i]);
	return DHASH_END(h);
}

struct dentry *d_find_hash(const struct dentry *parent, const char *name, size_t len, uint32_t hash)
{
	struct dentry *d;

	if (unlikely(!dhash))
		return NULL;
	LIST_FOREACH(d, &dhash[bucket_of(parent, hash)], hash_link)
		if (d->hash == hash && d->parent == parent && d->namelen == len && memcmp(d->name, name, len) == 0)
			return d;
	return NULL;
}

// Doubles the table; when there is no memory for that the chains get longer, and nothing else.
static bool dhash_grow(void)
{
	unsigned bits = dhash ? dhash_bits + 1 : DCACHE_FIRST_BITS;
	unsigned old_size = dhash ? 1u << dhash_bits : 0;
	struct dhash_head *old = dhash, *table = kalloc(sizeof(*table) << bits);
	struct dentry *d;

	if (!table)
		return old != NULL;
	dhash = table;
	dhash_bits = bits;
	for (unsigned i = 0; i < old_size; i++) {
		while ((d = LIST_FIRST(&old[i]))) {
			LIST_REMOVE(d, hash_link);
			LIST_INSERT_HEAD(&dhash[bucket_of(d->parent, d->hash)], d, hash_link);
		}
	}
	kfree(old);
	return true;
}

static bool d_hash_insert(struct dentry *d)
{
	if (unlikely(!dhash || dhash_count >> dhash_bits) && !dhash_grow())
		return false;
	LIST_INSERT_HEAD(&dhash[bucket_of(d->parent, d->hash)], d, hash_link);
	dhash_count++;
	d->hashed = true;
	return true;
}

static void d_unhash(struct dentry *d)
{
	if (!d->hashed)
		return;
	LIST_REMOVE(d, hash_link);
	dhash_count--;
	d->hashed = false;
}

static void lru_remove(struct dentry *d)
{
	if (!d->on_lru)
		return;
	TAILQ_REMOVE(&lru, d, lru);
	d->on_lru = false;
	lru_count--;
}

static bool d_set_name(struct dentry *d, const char *name, size_t len)
{
	char *to = d->inline_name;

	if (len >= sizeof(d->inline_name)) {
		to = kalloc(len + 1);
		if (!to)
			return false;
	}
	memcpy(to, name, len);
	to[len] = 0;
	d->name = to;
	d->namelen = (uint8_t)MIN(len, 255UL);
	return true;
}

static void d_free_name(struct dentry *d)
{
	if (d->name != d->inline_name)
		kfree(d->name);
}

static struct dentry *d_alloc(struct dentry *parent, struct super_block *sb, const char *name, size_t len)
{
	struct dentry *d = SLAB_NEW(dentry_slab, struct dentry);

	if (!d)
		return NULL;
	ref_init(&d->refs, 1);
	if (!d_set_name(d, name, len)) {
		slab_free(&dentry_slab, d);
		return NULL;
	}
	d->sb = sb;
	LIST_INIT(&d->children);
	d->parent = d;
	if (parent) {
		d->parent = d_get(parent);
		LIST_INSERT_HEAD(&parent->children, d, sibling);
	}
	return d;
}

// Drops the inode of d; the last name of a deleted file tells its watchers so.
static void d_iput(struct dentry *d)
{
	struct inode *inode = d->inode;

	if (!inode)
		return;
	if (unlikely(inode->watches) && inode->nlink == 0)
		fsnotify(inode, NULL, FSN_DELETE_SELF, 0);
	d->inode = NULL;
	inode_put(inode);
}

// Frees a dentry without users; hands back its parent, whose reference the caller has to put.
static struct dentry *d_free(struct dentry *d)
{
	struct dentry *parent = d->parent == d ? NULL : d->parent;

	kassert(LIST_EMPTY(&d->children) && d->nmounts == 0);
	d_unhash(d);
	lru_remove(d);
	if (parent)
		LIST_REMOVE(d, sibling);
	d_iput(d);
	d_free_name(d);
	slab_free(&dentry_slab, d);
	return parent;
}

struct dentry *d_get(struct dentry *d)
{
	if (d->refs.n < REFCOUNT_SATURATED)
		d->refs.n++;
	return d;
}

void d_put(struct dentry *d)
{
	while (d) {
		kassert(d->refs.n != 0);
		if (d->refs.n > 1) {
			ref_put(&d->refs);
			return;
		}
		d->refs.n = 0;
		if (likely(d->hashed && d->sb->flags & SB_CACHE)) {
			if (d->on_lru) {
				d->referenced = true;
			} else {
				TAILQ_INSERT_TAIL(&lru, d, lru);
				d->on_lru = true;
				d->referenced = false;
				lru_count++;
			}
			return;
		}
		d = d_free(d);
	}
}

// Frees a few of the dentries that were not used for longest. May wait (inodes are evicted).
static void d_shrink(void)
{
	for (int i = 0; i < 16 && lru_count > DCACHE_MAX_UNUSED; i++) {
		struct dentry *d = TAILQ_FIRST(&lru);

		if (d->refs.n) {
			lru_remove(d);
		} else if (d->referenced) {
			d->referenced = false;
			TAILQ_REMOVE(&lru, d, lru);
			TAILQ_INSERT_TAIL(&lru, d, lru);
		} else {
			d_put(d_free(d));
		}
	}
}

struct dentry *d_root(struct inode *inode)
{
	struct dentry *d = d_alloc(NULL, inode->sb, "/", 1);

	if (d)
		d->inode = inode;
	else
		inode_put(inode);
	return d;
}

struct dentry *d_anon(struct inode *inode, const char *name)
{
	struct dentry *d = d_alloc(NULL, inode->sb, name, strlen(name));

	if (d)
		d->inode = inode;
	else
		inode_put(inode);
	return d;
}

struct dentry *d_unhashed_child(struct dentry *parent, const char *name, struct inode *inode)
{
	struct dentry *d = d_alloc(parent, parent->sb, name, strlen(name));

	if (d)
		d->inode = inode;
	else
		inode_put(inode);
	return d;
}

struct dentry *d_find(struct dentry *parent, const char *name, size_t len)
{
	struct dentry *d = d_find_hash(parent, name, len, d_name_hash(name, len));

	return d ? d_get(d) : NULL;
}

struct dentry *d_add(struct dentry *parent, const char *name, size_t len, struct inode *inode)
{
	uint32_t hash = d_name_hash(name, len);
	struct dentry *d = d_find_hash(parent, name, len, hash);

	if (d) {
		d_get(d);
		if (inode && !d->inode)
			d->inode = inode;
		else
			inode_put(inode);
		return d;
	}
	d = d_alloc(parent, parent->sb, name, len);
	if (!d) {
		inode_put(inode);
		return NULL;
	}
	d->hash = hash;
	d->inode = inode;
	if (!d_hash_insert(d)) {
		d_put(d);
		return NULL;
	}
	if (unlikely(lru_count > DCACHE_MAX_UNUSED))
		d_shrink();
	return d;
}

void d_instantiate(struct dentry *d, struct inode *inode)
{
	kassert(!d->inode);
	d->inode = inode;
}

void d_delete(struct dentry *d)
{
	d->sb->change_seq++;
	if (d->refs.n == 1 && d->hashed && d->sb->flags & SB_CACHE)
		d_iput(d);
	else
		d_unhash(d);
}

static void d_set_parent(struct dentry *d, struct dentry *parent)
{
	struct dentry *old = d->parent;

	if (old == parent)
		return;
	kassert(old != d);
	LIST_REMOVE(d, sibling);
	d->parent = d_get(parent);
	LIST_INSERT_HEAD(&parent->children, d, sibling);
	d_put(old);
}

void d_move(struct dentry *d, struct dentry *new_parent, const char *new_name)
{
	size_t len = strlen(new_name);
	uint32_t hash = d_name_hash(new_name, len);
	struct dentry *there = d_find_hash(new_parent, new_name, len, hash);
	char *old_name = d->name == d->inline_name ? NULL : d->name;
	char buf[256];
	bool was_hashed = d->hashed;

	kassert(len < sizeof(buf));
	memcpy(buf, new_name, len + 1); // new_name may be d's own
	d->sb->change_seq++;
	if (there && there != d) {
		d_get(there);
		d_unhash(there);
		d_put(there);
	}
	d_unhash(d);
	if (d_set_name(d, buf, len)) {
		kfree(old_name);
		d->hash = hash;
		d_set_parent(d, new_parent);
		if (was_hashed)
			d_hash_insert(d);
		return;
	}
	// No memory for the name: the dentry stays unhashed, and the next lookup makes a new one.
	log_warn("dcache: no memory for a name");
}

// RENAME_EXCHANGE: two dentries of one super block change places.
void d_exchange(struct dentry *a, struct dentry *b)
{
	struct dentry *pa = d_get(a->parent), *pb = d_get(b->parent);
	char tmp[sizeof(a->inline_name)], *na = a->name, *nb = b->name;
	uint32_t hash = a->hash;
	uint8_t len = a->namelen;

	a->sb->change_seq++;
	d_unhash(a);
	d_unhash(b);
	memcpy(tmp, a->inline_name, sizeof(tmp));
	memcpy(a->inline_name, b->inline_name, sizeof(tmp));
	memcpy(b->inline_name, tmp, sizeof(tmp));
	a->name = nb == b->inline_name ? a->inline_name : nb;
	b->name = na == a->inline_name ? b->inline_name : na;
	a->hash = b->hash;
	a->namelen = b->namelen;
	b->hash = hash;
	b->namelen = len;
	d_set_parent(a, pb);
	d_set_parent(b, pa);
	d_hash_insert(a);
	d_hash_insert(b);
	d_put(pa);
	d_put(pb);
}

bool d_is_ancestor(const struct dentry *a, const struct dentry *d)
{
	for (; d != a; d = d->parent)
		if (d->parent == d)
			return false;
	return true;
}

// Leaves d, to which the caller holds a reference: frees it if that was the only one.
static void prune_leave(struct dentry *d)
{
	if (d->refs.n == 1 && !d->nmounts && LIST_EMPTY(&d->children))
		d_unhash(d);
	d_put(d);
}

// Frees every unused dentry below top, children first. Holds a reference to where it is and to all
// that lies above, so that nothing it stands on goes away in a wait.
void d_prune_children(struct dentry *top)
{
	struct dentry *d = LIST_FIRST(&top->children), *next, *parent;

	d_get(top);
	if (d)
		d_get(d);
	while (d) {
		next = LIST_FIRST(&d->children);
		if (next) {
			d = d_get(next);
			continue;
		}
		for (;;) { // d is done: its next sibling, or back to its parent
			next = LIST_NEXT(d, sibling);
			parent = d->parent;
			if (next)
				d_get(next);
			prune_leave(d);
			if (next || parent == top || parent == d)
				break;
			d = parent;
		}
		d = next;
	}
	d_put(top);
}

void d_kill_tree(struct dentry *root)
{
	d_prune_children(root);
}

void d_invalidate(struct dentry *d)
{
	d_get(d);
	d->sb->change_seq++;
	d_prune_children(d);
	if (!d->nmounts)
		d_unhash(d);
	d_put(d);
}
