// Reference counts for objects of the one kernel thread (plain, not atomic). They saturate instead
// of wrapping (a leak is better than a use after free) and stop the process on underflow.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "platform/base/assert.h"

typedef struct {
	uint32_t n;
} refcount_t;

#define REFCOUNT_SATURATED 0xc0000000u
#define REFCOUNT_INIT(v) ((refcount_t){v})

static inline void ref_init(refcount_t *r, uint32_t n) { r->n = n; }
static inline void ref_get(refcount_t *r)
{
	kassert(r->n != 0);
	if (r->n < REFCOUNT_SATURATED)
		r->n++;
}
// True when this was the last reference.
static inline bool ref_put(refcount_t *r)
{
	kassert(r->n != 0);
	if (r->n >= REFCOUNT_SATURATED)
		return false;
	return --r->n == 0;
}
static inline uint32_t ref_read(const refcount_t *r) { return r->n; }
