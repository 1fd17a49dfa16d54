// Guest memory through the fake platform: copies, strings, the arena, I/O buffers.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "platform/fake/fake.h"
#include "sentry/sched/sched.h"
#include "sentry/uaccess/uaccess.h"

#define BASE 0x100000ULL
#define PAGES 512ULL
#define SIZE (PAGES * PAGE_SIZE)
#define HOLE (BASE + SIZE) // nothing is mapped from here on

static struct platform *pf;
static struct pf_as *as;
static struct pf_ctx *ctx;
static uint64_t payload_addr;
static size_t payload_len;
static void (*body)(void);

static struct pf_event step(void *arg, struct pf_ctx *c, int64_t last)
{
	if (payload_len)
		assert_true(fake_payload(c, payload_addr, payload_len));
	return fake_syscall(39, 0, 0, 0, 0, 0, 0);
}

// The guest's next system call; what it points to comes along.
static void next_call(uint64_t addr, size_t len)
{
	arena_reset();
	payload_addr = addr;
	payload_len = len;
	pf_resume(ctx);
	sched_ctx_wait(ctx);
	assert_int_equal(ctx->ev.kind, PF_EV_SYSCALL);
}

static void main_task(void *arg)
{
	struct pf_op op = {.kind = PF_OP_MAP_ANON, .addr = BASE, .len = SIZE, .prot = PROT_READ | PROT_WRITE,
			   .flags = MAP_PRIVATE};
	struct pf_op top = {.kind = PF_OP_MAP_ANON, .addr = PF_GUEST_TOP - PAGE_SIZE, .len = PAGE_SIZE,
			    .prot = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE};

	assert_int_equal(pf_as_new(pf, &as, &ctx), 0);
	fake_set_script(ctx, step, NULL);
	sched_current()->ctx = ctx;
	assert_int_equal(pf_queue_op(ctx, &op), 0);
	assert_int_equal(pf_queue_op(ctx, &top), 0);
	assert_int_equal(pf_flush(ctx), 0);
	body();
	pf_ctx_exit(ctx);
	pf_as_free(as);
	sched_stop(0);
}

static void count_live(const char *name, uint32_t live, void *arg)
{
	*(uint32_t *)arg += live;
}

static void run(void (*fn)(void))
{
	struct pf_config pcfg = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait}, .zygote_sock = -1};
	struct sched_config cfg = {.virtual_clock = true};
	struct sched_task t = {0};
	uint32_t live = 0;

	assert_int_equal(pf_create("fake", &pcfg, &pf), 0);
	cfg.pf = pf;
	assert_int_equal(sched_init(&cfg), 0);
	body = fn;
	payload_len = 0;
	assert_int_equal(sched_spawn(&t, "main", main_task, NULL), 0);
	assert_int_equal(sched_run(), 0);
	sched_run(); // until the task has ended as well
	sched_fini();
	pf_destroy(pf);
	slab_report(count_live, &live);
	assert_int_equal(live, 0);
}

static void guest_write(uint64_t addr, const void *p, size_t n)
{
	assert_int_equal(pf_write(as, addr, p, n), n);
}

static void guest_expect(uint64_t addr, const void *p, size_t n)
{
	char *buf = malloc(n);

	assert_int_equal(pf_read(as, addr, buf, n), n);
	assert_memory_equal(buf, p, n);
	free(buf);
}

// --- bounds -------------------------------------------------------------------------------------

static void bounds(void)
{
	char buf[64] = "abc";

	assert_true(access_ok(GADDR(0), PF_GUEST_TOP));
	assert_true(access_ok(GADDR(PF_GUEST_TOP), 0));
	assert_false(access_ok(GADDR(PF_GUEST_TOP), 1));
	assert_false(access_ok(GADDR(PF_GUEST_TOP - 1), 2));
	assert_false(access_ok(GADDR(UINT64_MAX), 2));
	assert_false(access_ok(GADDR(1), UINT64_MAX));
	assert_int_equal(copy_in(buf, GADDR(UINT64_MAX - 3), 8), -EFAULT);
	assert_int_equal(copy_in(buf, GADDR(0xffffffff81000000), 8), -EFAULT);
	assert_int_equal(copy_out(GADDR(PF_GUEST_TOP - 4), buf, 8), -EFAULT);
	assert_int_equal(copy_out(GADDR(PF_GUEST_TOP - 4), buf, 4), 0);
	assert_int_equal(clear_out(GADDR(PF_GUEST_TOP - 4), 5), -EFAULT);
	assert_int_equal(copy_in(buf, GADDR(8), 8), -EFAULT);
	assert_int_equal(copy_in(buf, GNULL, 0), 0);
	// Halfway into a hole.
	assert_int_equal(copy_in(buf, GADDR(HOLE - 4), 8), -EFAULT);
	assert_int_equal(copy_in_some(buf, GADDR(HOLE - 4), 8), 4);
	assert_int_equal(copy_in_some(buf, GADDR(PF_GUEST_TOP - 4), 64), 4);
	assert_int_equal(copy_out_now(GADDR(HOLE - 4), buf, 8), -EFAULT);
	fake_refuse_stores(ctx, 1);
	assert_int_equal(copy_out_some(GADDR(HOLE - 4), buf, 8), 4);
	fake_refuse_stores(ctx, 1);
	assert_int_equal(clear_out(GADDR(HOLE - 4), 8), -EFAULT);
	assert_int_equal(copy_in_as(as, buf, GADDR(HOLE), 4), -EFAULT);
	assert_int_equal(copy_in_as(as, buf, GADDR(HOLE - 2), 4), 2);
	assert_int_equal(copy_out_as(as, GADDR(PF_GUEST_TOP), buf, 4), -EFAULT);
	// A deferred store to a bad address shows on the way back.
	arena_reset();
	assert_int_equal(copy_out(GADDR(HOLE), buf, 8), 0);
	pf_resume(ctx);
	sched_ctx_wait(ctx);
	assert_int_equal(ctx->ev.kind, PF_EV_STORE_FAULT);
	assert_int_equal(ctx->ev.ops.error, -EFAULT);
}

static void test_bounds(void **state)
{
	run(bounds);
}

// --- order of stores and reads ------------------------------------------------------------------

static void order(void)
{
	char buf[16], want[16];

	// A snapshot serves the first read; after a write to it, reads see the write.
	guest_write(BASE, "0123456789abcdef", 16);
	next_call(BASE, 16);
	guest_write(BASE, "################", 16); // another thread; the copy that came along stays
	assert_int_equal(copy_in(buf, GADDR(BASE), 16), 0);
	assert_memory_equal(buf, "0123456789abcdef", 16);
	assert_int_equal(copy_out(GADDR(BASE + 4), "XY", 2), 0);
	assert_int_equal(copy_in(buf, GADDR(BASE), 16), 0);
	assert_memory_equal(buf, "####XY##########", 16);
	assert_int_equal(copy_in(buf, GADDR(BASE + 8), 8), 0); // not overlapping: still the snapshot
	assert_memory_equal(buf, "89abcdef", 8);
	// A direct write after a deferred store wins, and the other way round.
	assert_int_equal(copy_out(GADDR(BASE), "aaaa", 4), 0);
	assert_int_equal(copy_out_now(GADDR(BASE + 2), "bbbb", 4), 0);
	assert_int_equal(copy_out(GADDR(BASE + 5), "c", 1), 0);
	assert_int_equal(copy_out(GADDR(BASE + 100), "later", 5), 0);
	guest_expect(BASE + 100, "\0\0\0\0\0", 5); // deferred indeed
	next_call(BASE, 6);
	guest_expect(BASE, "aabbbc", 6);
	guest_expect(BASE + 100, "later", 5);
	assert_int_equal(copy_in(buf, GADDR(BASE), 6), 0);
	assert_memory_equal(buf, "aabbbc", 6);
	memset(want, 0, sizeof(want));
	assert_int_equal(clear_out(GADDR(BASE), 16), 0);
	assert_int_equal(copy_in(buf, GADDR(BASE), 16), 0);
	assert_memory_equal(buf, want, 16);
}

static void test_order(void **state)
{
	run(order);
}

// Random reads and writes, by every way, against a plain array.
static void random_ops(void)
{
	static char model[SIZE], buf[SIZE];
	uint64_t x = 88172645463325252ULL;

	for (int i = 0; i < 20000; i++) {
		size_t len, at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		len = x % 5 == 0 ? x / 7 % 20000 : x / 7 % 64;
		at = x % 3 == 0 ? x / 11 % 256 : x / 11 % (SIZE - len);
		switch (x / 13 % 8) {
		case 0:
		case 1:
			memset(buf, (int)i, len);
			memset(model + at, (int)i, len);
			assert_int_equal(copy_out(GADDR(BASE + at), buf, len), 0);
			break;
		case 2:
			memset(buf, (int)i, len);
			memset(model + at, (int)i, len);
			assert_int_equal(copy_out_now(GADDR(BASE + at), buf, len), 0);
			break;
		case 3:
			memset(model + at, 0, len);
			assert_int_equal(clear_out(GADDR(BASE + at), len), 0);
			break;
		case 4:
			next_call(BASE + at, MIN(len, 8000UL));
			break;
		default:
			assert_int_equal(copy_in(buf, GADDR(BASE + at), len), 0);
			assert_memory_equal(buf, model + at, len);
		}
	}
}

static void test_random(void **state)
{
	run(random_ops);
}

// --- structs and strings ------------------------------------------------------------------------

static void structs(void)
{
	char dst[24], src[64] = "0123456789abcdefghijklmn";

	guest_write(BASE, src, sizeof(src));
	memset(dst, '!', sizeof(dst));
	assert_int_equal(copy_in_struct(dst, 24, GADDR(BASE), 16), 0);
	assert_memory_equal(dst, "0123456789abcdef\0\0\0\0\0\0\0\0", 24);
	assert_int_equal(copy_in_struct(dst, 24, GADDR(BASE), 64), 0);
	assert_memory_equal(dst, src, 24);
	memset(dst, '!', sizeof(dst));
	assert_int_equal(copy_in_struct(dst, 8, GADDR(BASE), 16), -E2BIG);
	assert_int_equal(dst[0], '!');
	assert_int_equal(copy_in_struct(dst, 24, GADDR(BASE), 4097), -E2BIG);
	assert_int_equal(copy_in_struct(dst, 24, GADDR(HOLE - 8), 24), -EFAULT);
	assert_int_equal(copy_in_struct(dst, 24, GADDR(HOLE - 24), 32), -EFAULT);
}

static void test_structs(void **state)
{
	run(structs);
}

static void strings(void)
{
	static char big[300000];
	char *s = NULL;
	size_t len = 0;

	guest_write(BASE, "hello", 6);
	assert_int_equal(copy_in_str(&s, GADDR(BASE), 100, &len), 0);
	assert_string_equal(s, "hello");
	assert_int_equal(len, 5);
	next_call(BASE, 6); // the same with a snapshot, also when only a part of it came
	assert_int_equal(copy_in_path(&s, GADDR(BASE)), 0);
	assert_string_equal(s, "hello");
	next_call(BASE, 3);
	assert_int_equal(copy_in_path(&s, GADDR(BASE)), 0);
	assert_string_equal(s, "hello");
	assert_int_equal(copy_in_str(&s, GADDR(BASE), 6, NULL), 0);
	assert_int_equal(copy_in_str(&s, GADDR(BASE), 5, NULL), -ENAMETOOLONG);
	assert_int_equal(copy_in_path(&s, GADDR(BASE + 5)), 0);
	assert_string_equal(s, "");
	guest_write(HOLE - 4, "end", 4);
	assert_int_equal(copy_in_path(&s, GADDR(HOLE - 4)), 0);
	assert_string_equal(s, "end");
	guest_write(HOLE - 4, "more", 4);
	assert_int_equal(copy_in_path(&s, GADDR(HOLE - 4)), -EFAULT);
	assert_int_equal(copy_in_path(&s, GADDR(HOLE)), -EFAULT);
	assert_int_equal(copy_in_path(&s, GADDR(UINT64_MAX)), -EFAULT);
	guest_write(PF_GUEST_TOP - 4, "more", 4);
	assert_int_equal(copy_in_path(&s, GADDR(PF_GUEST_TOP - 4)), -EFAULT);
	memset(big, 'x', sizeof(big));
	guest_write(BASE + 5, big, sizeof(big));
	assert_int_equal(copy_in_path(&s, GADDR(BASE + 5)), -ENAMETOOLONG);
	for (size_t n = 4000; n < 140000; n += 3333) {
		guest_write(BASE + 5, big, n + 1);
		guest_write(BASE + 5 + n, "", 1);
		arena_reset();
		assert_int_equal(copy_in_str(&s, GADDR(BASE + 5), 140000, &len), 0);
		assert_int_equal(len, n);
		assert_int_equal(strlen(s), n);
	}
}

static void test_strings(void **state)
{
	run(strings);
}

// --- the arena ----------------------------------------------------------------------------------

static void arenas(void)
{
	for (int round = 0; round < 3; round++) {
		size_t total = 0, n = 1;
		char *p;

		while ((p = arena_alloc(n)) != NULL) {
			assert_int_equal((uintptr_t)p % 16, 0);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(p[i], 0);
			memset(p, 'x', n);
			total += n;
			n = n * 5 / 4 + 1;
		}
		assert_in_range(total, 1 << 20, 4 << 20);
		assert_null(arena_alloc(SIZE_MAX));
		assert_null(arena_alloc(5 << 20));
		arena_reset();
	}
	assert_string_equal(arena_strdup("kept until the call ends"), "kept until the call ends");
}

static void test_arena(void **state)
{
	run(arenas);
}

// --- I/O buffers --------------------------------------------------------------------------------

static void uios(void)
{
	struct giov v[4] = {{GADDR(BASE), 3}, {GADDR(BASE + 100), 0}, {GADDR(BASE + 10), 5}, {GADDR(HOLE - 2), 10}};
	struct giov one, bad[2] = {{GADDR(BASE), 1}, {GADDR(BASE), (uint64_t)SSIZE_MAX + 1}};
	struct giov huge[3] = {{GADDR(BASE), INT_MAX}, {GADDR(BASE), INT_MAX}, {GADDR(BASE), 5}};
	char buf[64], kb[16] = {0};
	struct uio u;
	char *w;

	guest_write(BASE + 0x1000, v, sizeof(v));
	assert_int_equal(copy_in_iov(&u, GADDR(BASE + 0x1000), 4), 0);
	assert_int_equal(u.resid, 18);
	assert_int_equal(uio_put(&u, "abcdef", 6), 6);
	assert_int_equal(u.resid, 12);
	assert_int_equal(uio_put_zero(&u, 1), 1);
	assert_int_equal(uio_put(&u, "g", 1), 1);
	fake_refuse_stores(ctx, 5);
	assert_int_equal(uio_put(&u, "hijk", 4), 2); // runs into the hole
	assert_int_equal(uio_put(&u, "jk", 2), -EFAULT);
	assert_int_equal(u.resid, 8);
	fake_refuse_stores(ctx, 0);
	assert_int_equal(copy_in_iov(&u, GADDR(BASE + 0x1000), 3), 0);
	assert_int_equal(uio_get(&u, buf, sizeof(buf)), 8);
	assert_memory_equal(buf, "abcdef\0g", 8);
	assert_int_equal(uio_get(&u, buf, sizeof(buf)), 0);

	guest_write(BASE + 0x1000, bad, sizeof(bad));
	assert_int_equal(copy_in_iov(&u, GADDR(BASE + 0x1000), 2), -EINVAL);
	assert_int_equal(copy_in_iov(&u, GADDR(BASE + 0x1000), 1025), -EINVAL);
	assert_int_equal(copy_in_iov(&u, GADDR(HOLE), 1), -EFAULT);
	assert_int_equal(copy_in_iov(&u, GNULL, 0), 0);
	assert_int_equal(u.resid, 0);
	guest_write(BASE + 0x1000, huge, sizeof(huge));
	assert_int_equal(copy_in_iov(&u, GADDR(BASE + 0x1000), 3), 0);
	assert_int_equal(u.resid, INT_MAX & PAGE_MASK);

	// Windows.
	u = uio_guest(&one, GADDR(BASE), 32);
	w = uio_put_window(&u, 32);
	assert_non_null(w);
	memcpy(w, "window", 6);
	uio_put_commit(&u, 6);
	assert_int_equal(u.resid, 26);
	assert_int_equal(copy_out(GADDR(BASE + 6), "!", 1), 0);
	next_call(BASE, 0);
	guest_expect(BASE, "window!", 7);
	u = uio_guest(&one, GADDR(PF_GUEST_TOP - 8), 32);
	assert_null(uio_put_window(&u, 32));
	u = uio_kernel(kb, sizeof(kb));
	assert_int_equal(uio_put(&u, "kernel", 6), 6);
	assert_ptr_equal(uio_put_window(&u, 10), kb + 6);
	assert_null(uio_put_window(&u, 11));
	uio_put_commit(&u, 10);
	assert_int_equal(u.resid, 0);
	u = uio_kernel(kb, sizeof(kb));
	assert_int_equal(uio_get(&u, buf, 100), 16);
	assert_string_equal(buf, "kernel");
}

static void test_uio(void **state)
{
	run(uios);
}

static void host_files(void)
{
	static char data[1000000], back[1000000];
	int fd = memfd_create("uio", MFD_CLOEXEC), pfd[2];
	struct giov one;
	struct uio u;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + i / 256);
	// Small and large, both ways, at an offset and at the descriptor's own position.
	for (size_t n = 1; n <= sizeof(data); n = n * 3 + 5) {
		guest_write(BASE + 3, data, n);
		u = uio_guest(&one, GADDR(BASE + 3), n);
		assert_int_equal(uio_host_write(&u, fd, 10, 0), n);
		assert_int_equal(u.resid, 0);
		assert_int_equal(pread(fd, back, n, 10), n);
		assert_memory_equal(back, data, n);
		arena_reset();
		assert_int_equal(clear_out(GADDR(BASE), n), 0);
		u = uio_guest(&one, GADDR(BASE + 9), n);
		assert_int_equal(uio_file_read(&u, fd, 10), n);
		next_call(BASE, 0);
		guest_expect(BASE + 9, data, n);
		assert_int_equal(lseek(fd, 11, SEEK_SET), 11);
		u = uio_guest(&one, GADDR(BASE), n + 100);
		assert_int_equal(uio_host_read(&u, fd, -1, 0), n - 1);
		assert_int_equal(u.resid, 101);
		next_call(BASE, 0);
		guest_expect(BASE, data + 1, n - 1);
	}
	u = uio_kernel(back, sizeof(back));
	assert_int_equal(uio_file_read(&u, fd, 10), lseek(fd, 0, SEEK_END) - 10);
	u = uio_guest(&one, GADDR(BASE), 100);
	assert_int_equal(uio_host_read(&u, -1, 0, 0), -EBADF);
	assert_int_equal(uio_host_write(&u, -1, 0, 0), -EBADF);
	u = uio_guest(&one, GADDR(HOLE), 100);
	assert_int_equal(uio_host_write(&u, fd, 0, 0), -EFAULT);
	close(fd);
	// A pipe gives what it has.
	assert_int_equal(pipe(pfd), 0);
	assert_int_equal(write(pfd[1], "pipe", 4), 4);
	u = uio_guest(&one, GADDR(BASE), 100000);
	assert_int_equal(uio_host_read(&u, pfd[0], -1, 0), 4);
	close(pfd[0]);
	close(pfd[1]);
}

static void test_host(void **state)
{
	run(host_files);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),	cmocka_unit_test(test_order), cmocka_unit_test(test_random),
		cmocka_unit_test(test_structs), cmocka_unit_test(test_strings), cmocka_unit_test(test_arena),
		cmocka_unit_test(test_uio),	cmocka_unit_test(test_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
