#include "platform/base/slab.h"

#include <malloc.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "platform/base/assert.h"
#include "platform/base/base.h"

#define POISON 0x6b
#define REGION_SIZE (256UL << 10) // what is asked of the host at a time
#define CHUNK_MIN 4096UL
#define CHUNK_MAX (64UL << 10)
#define KALLOC_MAX (1UL << 30)
#define LIVE_MAGIC 0x6b616c6c6f63a11eULL
#define DEAD_MAGIC 0x6b616c6c6f63deadULL

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_PER_OBJECT true
#else
#define SLAB_PER_OBJECT false
#endif
#ifdef CASEMATE_DEBUG
#define SLAB_DEBUG true
#else
#define SLAB_DEBUG false
#endif

struct chunk {
	struct slab *owner;
	uint64_t pad; // keeps objects 16-byte aligned
};

// What a free object holds; the rest of it is poison in debug builds.
struct free_obj {
	struct free_obj *next;
};

static struct slab *all_slabs;
static uint32_t kalloc_live;
static char *region, *region_end;

static void slab_setup(struct slab *s)
{
	kassert(s->size > 0);
	s->stride = (MAX(s->size, sizeof(struct free_obj)) + 15) & ~15UL;
	s->chunk_size = CHUNK_MIN;
	while (s->chunk_size < CHUNK_MAX && s->chunk_size < s->stride * 8)
		s->chunk_size *= 2;
	s->next = all_slabs;
	all_slabs = s;
}

// Objects that would leave a chunk mostly empty, or need one to themselves, come from malloc.
static bool slab_is_direct(const struct slab *s)
{
	return SLAB_PER_OBJECT || s->stride * 2 > CHUNK_MAX - sizeof(struct chunk);
}

// A chunk aligned to its size. Chunks are never given back: their types will be needed again.
static char *chunk_new(size_t size)
{
	uintptr_t at = ((uintptr_t)region + size - 1) & ~(size - 1);

	if (!region || at + size > (uintptr_t)region_end) {
		char *p = mmap(NULL, REGION_SIZE + CHUNK_MAX, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (p == MAP_FAILED)
			return NULL;
		region_end = p + REGION_SIZE + CHUNK_MAX;
		at = ((uintptr_t)p + size - 1) & ~(size - 1);
	}
	region = (char *)(at + size);
	return (char *)at;
}

static void *slab_grow(struct slab *s)
{
	char *c = chunk_new(s->chunk_size);

	if (!c)
		return NULL;
	((struct chunk *)c)->owner = s;
	s->chunks++;
	s->bump = c + sizeof(struct chunk);
	s->bump_end = c + s->chunk_size;
	return c;
}

static bool is_poison(const struct slab *s, const char *obj)
{
	for (size_t i = sizeof(struct free_obj); i < s->size; i++)
		if (obj[i] != POISON)
			return false;
	return true;
}

void *slab_alloc(struct slab *s)
{
	struct free_obj *o;

	if (unlikely(!s->stride))
		slab_setup(s);
	if (slab_is_direct(s)) {
		o = calloc(1, s->size);
		if (o)
			s->live++;
		return o;
	}
	o = s->free_list;
	if (likely(o)) {
		s->free_list = o->next;
		if (SLAB_DEBUG && !is_poison(s, (char *)o))
			panic("slab %s: object %p was written after its free", s->name, (void *)o);
		memset(o, 0, s->size);
		s->live++;
		return o;
	}
	if ((size_t)(s->bump_end - s->bump) < s->stride && !slab_grow(s))
		return NULL;
	o = (struct free_obj *)s->bump; // fresh from the host: zero already
	s->bump += s->stride;
	s->live++;
	return o;
}

void slab_free(struct slab *s, void *obj)
{
	struct free_obj *o = obj;
	struct chunk *c;

	if (!obj)
		return;
	kassert(s->live > 0);
	if (slab_is_direct(s)) {
		s->live--;
		free(obj);
		return;
	}
	c = (struct chunk *)((uintptr_t)obj & ~(s->chunk_size - 1));
	if (unlikely(c->owner != s || ((uintptr_t)obj - (uintptr_t)(c + 1)) % s->stride != 0))
		panic("slab %s: free of %p, which is not one of its objects", s->name, obj);
	if (unlikely((void *)o == s->free_list))
		panic("slab %s: double free of %p", s->name, obj);
	if (SLAB_DEBUG) {
		if (s->size > 2 * sizeof(*o) && is_poison(s, obj))
			panic("slab %s: double free of %p", s->name, obj);
		memset(obj, POISON, s->size);
	}
	s->live--;
	o->next = s->free_list;
	s->free_list = o;
}

void slab_report(void (*fn)(const char *name, uint32_t live, void *arg), void *arg)
{
	for (struct slab *s = all_slabs; s; s = s->next)
		if (s->live)
			fn(s->name, s->live, arg);
	if (kalloc_live)
		fn("kalloc", kalloc_live, arg);
}

// --- variable size ----------------------------------------------------------------------------

// Debug builds keep the size, and whether the memory is alive, in front of it.
struct khead {
	uint64_t magic, size;
};
#define HEAD (SLAB_DEBUG ? sizeof(struct khead) : 0)

static struct khead *khead_check(void *p, const char *what)
{
	struct khead *h = (struct khead *)((char *)p - HEAD);

	if (SLAB_DEBUG && h->magic != LIVE_MAGIC)
		panic("%s of %p, which is %s", what, p, h->magic == DEAD_MAGIC ? "free" : "not from kalloc");
	return h;
}

void *kalloc(size_t size)
{
	char *p;

	if (size > KALLOC_MAX)
		return NULL;
	p = calloc(1, MAX(size, 1UL) + HEAD);
	if (!p)
		return NULL;
	if (SLAB_DEBUG)
		*(struct khead *)p = (struct khead){LIVE_MAGIC, size};
	kalloc_live++;
	return p + HEAD;
}

void *krealloc(void *p, size_t old_size, size_t new_size)
{
	struct khead *h;
	char *n;

	if (!p) {
		kassert(old_size == 0);
		return kalloc(new_size);
	}
	if (new_size > KALLOC_MAX)
		return NULL;
	h = khead_check(p, "krealloc");
	if (SLAB_DEBUG)
		kassert(h->size == old_size);
	n = realloc(h, MAX(new_size, 1UL) + HEAD);
	if (!n)
		return NULL;
	if (SLAB_DEBUG)
		((struct khead *)n)->size = new_size;
	if (new_size > old_size)
		memset(n + HEAD + old_size, 0, new_size - old_size);
	return n + HEAD;
}

void kfree(void *p)
{
	struct khead *h;

	if (!p)
		return;
	h = khead_check(p, "kfree");
	kassert(kalloc_live > 0);
	kalloc_live--;
	if (SLAB_DEBUG) {
		memset(p, POISON, h->size);
		h->magic = DEAD_MAGIC;
	}
	free(h);
}

char *kstrdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = kalloc(n);

	if (p)
		memcpy(p, s, n);
	return p;
}
