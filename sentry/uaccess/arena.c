// The arena: memory that lives as long as a system call. A task keeps its first chunk.
#include "platform/base/slab.h"
#include "sentry/uaccess/internal.h"

#define FIRST_CHUNK 2048UL
#define NEXT_CHUNK (16UL << 10)
#define ARENA_MAX (4UL << 20)

struct chunk {
	struct chunk *next;
	size_t size, used; // bytes of data[]
	char data[] __attribute__((aligned(16)));
};

struct arena {
	struct chunk *now; // the newest chunk; `first` is the last of the list
	size_t total;
	struct chunk *first;
};
DEFINE_SLAB(arena_slab, struct arena);

static struct chunk *chunk_new(size_t size)
{
	struct chunk *c = kalloc(sizeof(*c) + size);

	if (c)
		c->size = size;
	return c;
}

static void free_all_but_first(struct arena *a)
{
	while (a->now != a->first) {
		struct chunk *c = a->now;

		a->now = c->next;
		kfree(c);
	}
	a->total = a->first->size;
}

static void arena_free(struct sched_task *t)
{
	struct arena *a = t->arena;

	t->arena = NULL;
	if (!a)
		return;
	free_all_but_first(a);
	kfree(a->first);
	slab_free(&arena_slab, a);
}

static struct arena *arena_get(struct sched_task *t)
{
	struct arena *a = t->arena;

	if (likely(a))
		return a;
	a = SLAB_NEW(arena_slab, struct arena);
	if (!a)
		return NULL;
	a->first = a->now = chunk_new(FIRST_CHUNK);
	if (!a->first) {
		slab_free(&arena_slab, a);
		return NULL;
	}
	a->total = FIRST_CHUNK;
	t->arena = a;
	t->at_exit = arena_free;
	return a;
}

void *arena_alloc(size_t size)
{
	struct arena *a = arena_get(sched_current());
	struct chunk *c;
	char *p;

	if (!a || size > ARENA_MAX)
		return NULL;
	size = (size + 15) & ~15UL;
	c = a->now;
	if (size > c->size - c->used) {
		size_t n = MAX(size, NEXT_CHUNK);

		if (n > ARENA_MAX - a->total)
			return NULL;
		c = chunk_new(n);
		if (!c)
			return NULL;
		c->next = a->now;
		a->now = c;
		a->total += n;
	}
	p = c->data + c->used;
	c->used += size;
	if (c == a->first)
		memset(p, 0, size); // used before; other chunks are new
	return p;
}

char *arena_strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = arena_alloc(n);

	if (p)
		memcpy(p, s, n);
	return p;
}

void arena_reset(void)
{
	struct sched_task *t = sched_current();
	struct arena *a = t->arena;

	t->wrote_lo = t->wrote_hi = 0;
	if (!a)
		return;
	if (a->now != a->first)
		free_all_but_first(a);
	a->first->used = 0;
}
