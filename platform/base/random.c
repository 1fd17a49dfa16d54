#include "platform/base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "platform/base/assert.h"
#include "platform/base/base.h"

static unsigned char pool[2048];
static size_t pool_left; // fresh bytes, at the end of pool
static uint64_t test_seed;

static void host_random(unsigned char *p, size_t len)
{
	while (len) {
		ssize_t n = getrandom(p, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		kassert(n > 0); // the host's pool is ready long before a sandbox starts
		p += n;
		len -= (size_t)n;
	}
}

static uint64_t test_next(void)
{
	uint64_t z = (test_seed += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

void random_seed_for_tests(uint64_t seed)
{
	test_seed = seed;
}

void random_bytes(void *buf, size_t len)
{
	unsigned char *out = buf;

	if (test_seed) {
		for (size_t i = 0; i < len; i++)
			out[i] = (unsigned char)(test_next() >> 24);
		return;
	}
	if (len > sizeof(pool) / 4) {
		host_random(out, len);
		return;
	}
	if (pool_left < len) {
		host_random(pool, sizeof(pool));
		pool_left = sizeof(pool);
	}
	// What was handed out is wiped, so that a later leak of this process cannot tell past values.
	unsigned char *from = pool + sizeof(pool) - pool_left;
	memcpy(out, from, len);
	memset(from, 0, len);
	pool_left -= len;
}

uint64_t random_u64(void)
{
	uint64_t v;

	random_bytes(&v, sizeof(v));
	return v;
}

uint64_t random_below(uint64_t n)
{
	uint64_t limit = n * (UINT64_MAX / n), v; // a multiple of n, so that no residue is favoured

	kassert(n > 0);
	do
		v = random_u64();
	while (v >= limit);
	return v % n;
}
