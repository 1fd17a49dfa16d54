// Slabs, variable-size memory, descriptor passing.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "platform/base/base.h"
#include "platform/base/fdpass.h"
#include "platform/base/slab.h"

struct small {
	char c[24];
};
struct large {
	char c[9000];
};
struct huge {
	char c[100000];
};
DEFINE_SLAB(small_slab, struct small);
DEFINE_SLAB(large_slab, struct large);
DEFINE_SLAB(huge_slab, struct huge);

static void count_live(const char *name, uint32_t live, void *arg)
{
	*(uint32_t *)arg += live;
}

static uint32_t live_total(void)
{
	uint32_t n = 0;

	slab_report(count_live, &n);
	return n;
}

static void exercise(struct slab *s)
{
	enum { N = 300 };
	unsigned char *p[N];

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++) {
			p[i] = slab_alloc(s);
			assert_non_null(p[i]);
			assert_int_equal((uintptr_t)p[i] % 16, 0);
			for (size_t j = 0; j < s->size; j++)
				assert_int_equal(p[i][j], 0);
			memset(p[i], i + 1, s->size);
		}
		for (int i = 0; i < N; i++)
			for (size_t j = 0; j < s->size; j++)
				assert_int_equal(p[i][j], (unsigned char)(i + 1));
		assert_int_equal(s->live, N);
		for (int i = 0; i < N; i++)
			slab_free(s, p[(i * 7) % N]);
		assert_int_equal(s->live, 0);
	}
}

static void test_slab(void **state)
{
	exercise(&small_slab);
	exercise(&large_slab);
	exercise(&huge_slab);
	slab_free(&small_slab, NULL);
	assert_int_equal(live_total(), 0);
}

static void test_kalloc(void **state)
{
	char *p = kalloc(10), *s = kstrdup("hello");

	assert_int_equal(live_total(), 2);
	for (int i = 0; i < 10; i++)
		assert_int_equal(p[i], 0);
	memset(p, 'x', 10);
	p = krealloc(p, 10, 5000);
	assert_int_equal(p[9], 'x');
	for (int i = 10; i < 5000; i++)
		assert_int_equal(p[i], 0);
	assert_string_equal(s, "hello");
	assert_null(kalloc(SIZE_MAX));
	assert_null(krealloc(p, 5000, SIZE_MAX));
	kfree(p);
	kfree(s);
	kfree(NULL);
	assert_int_equal(live_total(), 0);
}

static void test_fdpass(void **state)
{
	int sv[2], pfd[2], got[2] = {7, 7};
	unsigned n = 99;
	char buf[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(pipe2(pfd, O_CLOEXEC), 0);
	assert_int_equal(send_fds(sv[0], "ab", 2, pfd, 2), 0);
	assert_int_equal(recv_fds(sv[1], buf, sizeof(buf), 0, got, 2, &n), 2);
	assert_int_equal(n, 2);
	assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(got[1], "z", 1), 1);
	assert_int_equal(read(pfd[0], buf, 1), 1);
	assert_int_equal(buf[0], 'z');
	close(got[0]);
	close(got[1]);
	// Too many descriptors: refused, and none leaks.
	assert_int_equal(send_fds(sv[0], "c", 1, pfd, 2), 0);
	assert_int_equal(recv_fds(sv[1], buf, sizeof(buf), 0, got, 1, &n), -EMSGSIZE);
	assert_int_equal(got[0], -1);
	assert_int_equal(send_fds(sv[0], "d", 1, NULL, 0), 0);
	assert_int_equal(recv_fds(sv[1], buf, sizeof(buf), 0, got, 2, &n), 1);
	assert_int_equal(n, 0);
	assert_int_equal(send_fds(sv[0], "", 0, NULL, 0), -EINVAL);
	close(sv[0]);
	assert_int_equal(recv_fds(sv[1], buf, sizeof(buf), 0, got, 2, &n), 0);
	close(sv[1]);
	close(pfd[0]);
	close(pfd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slab),
		cmocka_unit_test(test_kalloc),
		cmocka_unit_test(test_fdpass),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
