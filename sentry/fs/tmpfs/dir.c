// Directories of tmpfs: entries in the order of their cookies, and a hash once there are many.
//
// A cookie is given out once and never again, so a getdents that goes on after changes neither
// repeats nor skips what was there all along. Removed entries leave a gap, closed when half are gaps.
#include "sentry/fs/tmpfs/internal.h"

#define FIRST_COOKIE 2u // 0 and 1 are "." and ".."
#define HASH_FROM 12u   // entries
#define DIRENT_SIZE 20u // what one entry adds to st_size, as Linux's tmpfs counts it

DEFINE_SLAB(entry_slab, struct tentry);

static inline struct tentry **bucket(const struct tdir *d, uint32_t hash)
{
	return &d->hash[(hash * 0x9e3779b1u) >> (32 - d->hash_bits)];
}

struct tentry *tdir_find(const struct tdir *d, const char *name, size_t len, uint32_t hash)
{
	if (d->hash) {
		for (struct tentry *e = *bucket(d, hash); e; e = e->hash_next)
			if (e->hash == hash && e->len == len && memcmp(e->name, name, len) == 0)
				return e;
		return NULL;
	}
	for (uint32_t i = 0; i < d->nslots; i++) {
		struct tentry *e = d->slots[i].e;

		if (e && e->hash == hash && e->len == len && memcmp(e->name, name, len) == 0)
			return e;
	}
	return NULL;
}

// Builds a hash of 2^bits chains; without memory the old one, or the search, goes on working.
static void rehash(struct tdir *d, uint32_t bits)
{
	struct tentry **table = kalloc(sizeof(*table) << bits);

	if (!table)
		return;
	kfree(d->hash);
	d->hash = table;
	d->hash_bits = bits;
	for (uint32_t i = 0; i < d->nslots; i++) {
		struct tentry *e = d->slots[i].e;

		if (!e)
			continue;
		e->hash_next = *bucket(d, e->hash);
		*bucket(d, e->hash) = e;
	}
}

static void compact(struct tdir *d)
{
	uint32_t to = 0;

	for (uint32_t i = 0; i < d->nslots; i++) {
		if (!d->slots[i].e)
			continue;
		d->slots[to] = d->slots[i];
		d->slots[to].e->slot = to;
		to++;
	}
	d->nslots = to;
}

static bool slots_reserve(struct tdir *d)
{
	struct tslot *s;
	uint32_t cap;

	if (d->nslots < d->cap)
		return true;
	if (d->live < d->nslots / 2) {
		compact(d);
		return true;
	}
	cap = d->cap ? d->cap * 2 : 4;
	s = krealloc(d->slots, d->cap * sizeof(*s), cap * sizeof(*s));
	if (!s)
		return false;
	d->slots = s;
	d->cap = cap;
	return true;
}

int tdir_add(struct tinode *dir, const char *name, size_t len, uint32_t hash, struct inode *inode)
{
	struct tdir *d = &dir->dir;
	struct tentry *e;

	if (!slots_reserve(d))
		return -ENOMEM;
	e = SLAB_NEW(entry_slab, struct tentry);
	if (!e)
		return -ENOMEM;
	e->name = e->inl;
	if (len >= sizeof(e->inl)) {
		e->name = kalloc(len + 1);
		if (!e->name) {
			slab_free(&entry_slab, e);
			return -ENOMEM;
		}
	}
	memcpy(e->name, name, len);
	e->name[len] = 0;
	e->len = (uint8_t)len;
	e->hash = hash;
	e->inode = inode;
	e->slot = d->nslots;
	if (!d->next_cookie)
		d->next_cookie = FIRST_COOKIE;
	d->slots[d->nslots++] = (struct tslot){d->next_cookie++, e};
	d->live++;
	if (d->hash) {
		e->hash_next = *bucket(d, hash);
		*bucket(d, hash) = e;
		if (unlikely(d->live >> d->hash_bits > 1))
			rehash(d, d->hash_bits + 2);
	} else if (d->live > HASH_FROM) {
		rehash(d, 5);
	}
	dir->inode.size += DIRENT_SIZE;
	return 0;
}

static void entry_free(struct tentry *e)
{
	if (e->name != e->inl)
		kfree(e->name);
	slab_free(&entry_slab, e);
}

void tdir_remove(struct tinode *dir, struct tentry *e, struct inode **ret_inode)
{
	struct tdir *d = &dir->dir;

	if (d->hash) {
		struct tentry **p = bucket(d, e->hash);

		while (*p != e)
			p = &(*p)->hash_next;
		*p = e->hash_next;
	}
	d->slots[e->slot].e = NULL;
	while (d->nslots && !d->slots[d->nslots - 1].e)
		d->nslots--;
	d->live--;
	dir->inode.size -= DIRENT_SIZE;
	*ret_inode = e->inode;
	entry_free(e);
	if (!d->live) {
		kfree(d->hash);
		d->hash = NULL;
	}
}

void tdir_free(struct tdir *d, void (*each)(struct inode *))
{
	for (uint32_t i = 0; i < d->nslots; i++) {
		struct tentry *e = d->slots[i].e;

		if (!e)
			continue;
		each(e->inode);
		entry_free(e);
	}
	kfree(d->slots);
	kfree(d->hash);
	*d = (struct tdir){0};
}

static uint32_t first_slot(const struct tdir *d, uint64_t cookie)
{
	uint32_t lo = 0, hi = d->nslots;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (d->slots[mid].cookie < cookie)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static unsigned dtype(uint32_t mode)
{
	return (mode & S_IFMT) >> 12;
}

static int tmpfs_iterate(struct file *f, struct dir_context *c)
{
	struct tinode *t = tinode_of(f->inode);
	const struct tdir *d = &t->dir;
	const struct dentry *parent = f->path.dentry->parent;

	if (c->pos < 0)
		return -EINVAL;
	if (c->pos == 0) {
		if (!c->fill(c, ".", 1, t->inode.ino, dtype(S_IFDIR), 1))
			return 0;
		c->pos = 1;
	}
	if (c->pos == 1) {
		if (!c->fill(c, "..", 2, parent->inode ? parent->inode->ino : t->inode.ino, dtype(S_IFDIR), 2))
			return 0;
		c->pos = 2;
	}
	for (uint32_t i = first_slot(d, (uint64_t)c->pos); i < d->nslots; i++) {
		const struct tentry *e = d->slots[i].e;
		int64_t next = (int64_t)d->slots[i].cookie + 1;

		if (!e)
			continue;
		if (!c->fill(c, e->name, e->len, e->inode->ino, dtype(e->inode->mode), next))
			return 0;
		c->pos = next;
	}
	return 0;
}

static int dir_fsync(struct file *f, bool datasync)
{
	return 0;
}

static int64_t dir_llseek(struct file *f, int64_t off, int whence)
{
	if (whence != SEEK_SET && whence != SEEK_CUR)
		return -EINVAL;
	return generic_llseek(f, off, whence, 0);
}

const struct file_ops tmpfs_dir_ops = {
	.iterate = tmpfs_iterate,
	.llseek = dir_llseek,
	.fsync = dir_fsync,
};
