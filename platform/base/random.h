// Random numbers from getrandom(2), fetched a page at a time: keys, address layout, AT_RANDOM, sequence
// numbers. One thread, and not across a fork: a child would repeat its parent's buffer.
#pragma once
#include <stddef.h>
#include <stdint.h>

void random_bytes(void *buf, size_t len);
uint64_t random_u64(void);
// Uniform in [0, n); n > 0.
uint64_t random_below(uint64_t n);
// Tests: from now on a reproducible sequence. 0 goes back to getrandom.
void random_seed_for_tests(uint64_t seed);
