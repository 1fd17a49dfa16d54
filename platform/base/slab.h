// Objects by type: one slab a type, zeroed on allocation, poisoned on free in debug builds. All
// slabs register themselves on first use, so that a leak report at exit can name what is alive.
//
// Every object lies in a chunk whose first word names its slab, so a free into the wrong slab, or
// of something that never came from one, stops the process in release builds as well. Objects of
// the one kernel thread only: nothing here is locked. Under AddressSanitizer each object is an
// allocation of its own, so that the tool sees its end.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct slab {
	const char *name;
	size_t size;
	void *free_list;
	uint32_t live, chunks;
	struct slab *next;
	char *bump, *bump_end; // objects of the newest chunk that were never handed out
	size_t stride, chunk_size; // set at first use
};
#define DEFINE_SLAB(var, type) static struct slab var = {.name = #type, .size = sizeof(type)}
#define SLAB_NEW(var, type) ((type *)slab_alloc(&(var)))

void *slab_alloc(struct slab *s); // NULL: out of memory; 16-byte aligned
void slab_free(struct slab *s, void *obj); // NULL is fine
// Calls fn for every slab with live objects; variable-size memory counts as "kalloc".
void slab_report(void (*fn)(const char *name, uint32_t live, void *arg), void *arg);
// Variable-size memory with the same rules. kfree(NULL) is fine.
void *kalloc(size_t size);  // zeroed; NULL: out of memory
void *krealloc(void *p, size_t old_size, size_t new_size); // the new part is zeroed; NULL: p stays
void kfree(void *p);
char *kstrdup(const char *s);
