// Objects by type: one slab a type, zeroed on allocation, poisoned on free in debug builds. All
// slabs register themselves on first use, so that a leak report at exit can name what is alive.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct slab {
	const char *name;
	size_t size;
	void *free_list;
	uint32_t live, chunks;
	struct slab *next;
};
#define DEFINE_SLAB(var, type) static struct slab var = {.name = #type, .size = sizeof(type)}
#define SLAB_NEW(var, type) ((type *)slab_alloc(&(var)))

void *slab_alloc(struct slab *s); // NULL: out of memory
void slab_free(struct slab *s, void *obj); // NULL is fine
// Calls fn for every slab with live objects.
void slab_report(void (*fn)(const char *name, uint32_t live, void *arg), void *arg);
// Variable-size memory with the same rules. kfree(NULL) is fine.
void *kalloc(size_t size);  // zeroed; NULL: out of memory
void *krealloc(void *p, size_t old_size, size_t new_size); // the new part is zeroed; NULL: p stays
void kfree(void *p);
char *kstrdup(const char *s);
