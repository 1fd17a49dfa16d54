// Arithmetic on sizes and addresses that come from outside. Every function returns false on wrap.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
static inline bool add_size(size_t a, size_t b, size_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool mul_size(size_t a, size_t b, size_t *ret) { return !__builtin_mul_overflow(a, b, ret); }
static inline bool add_i64(int64_t a, int64_t b, int64_t *ret) { return !__builtin_add_overflow(a, b, ret); }
static inline bool page_up_checked(uint64_t x, uint64_t *ret)
{
	if (!add_u64(x, 4095, ret))
		return false;
	*ret &= ~4095ULL;
	return true;
}
