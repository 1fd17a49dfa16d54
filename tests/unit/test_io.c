// Pipes, FIFOs, eventfd, timerfd, epoll.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "abi/linux/restart.h"
#include "sentry/fs/epoll/epoll.h"
#include "sentry/fs/eventfd/eventfd.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/timerfd/timerfd.h"
#include "tests/unit/io_harness.h"

static char big[200000], back[200000];

static void fill_big(void)
{
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 + i / 4096);
}

// --- pipes ----------------------------------------------------------------------------------------

static void pipe_basics(void)
{
	struct file *p[2];
	char c = 0;

	assert_int_equal(pipe_create(O_NONBLOCK, p), 0);
	assert_int_equal(h_read(p[0], &c, 1), -EAGAIN);
	assert_int_equal(file_poll(p[0], NULL), 0);
	assert_int_equal(file_poll(p[1], NULL), EPOLLOUT | EPOLLWRNORM);
	assert_int_equal(h_write(p[1], "x", 1), 1);
	assert_int_equal(pipe_used(p[0]), 1);
	assert_int_equal(file_poll(p[0], NULL), EPOLLIN | EPOLLRDNORM);
	assert_int_equal(h_read(p[0], &c, 1), 1);
	assert_int_equal(c, 'x');
	assert_int_equal(h_read(p[1], &c, 1), -EBADF);
	assert_int_equal(h_write(p[0], &c, 1), -EBADF);
	assert_int_equal(h_write(p[1], "", 0), 0);
	// It takes exactly its capacity, and nothing partial of an atomic write.
	fill_big();
	assert_int_equal(h_write(p[1], big, 65536 - 100), 65536 - 100);
	assert_int_equal(h_write(p[1], big, 101), -EAGAIN);
	assert_int_equal(file_poll(p[1], NULL), 0);
	assert_int_equal(h_write(p[1], big + 65436, 5000), 100);
	assert_int_equal(h_read(p[0], back, sizeof(back)), 65536);
	assert_memory_equal(big, back, 65536);
	file_put(p[1]);
	assert_int_equal(file_poll(p[0], NULL), EPOLLHUP);
	assert_int_equal(h_read(p[0], &c, 1), 0);
	file_put(p[0]);
}

static void pipe_broken(void)
{
	struct file *p[2];

	assert_int_equal(pipe_create(0, p), 0);
	file_put(p[0]);
	assert_int_equal(file_poll(p[1], NULL), EPOLLOUT | EPOLLWRNORM | EPOLLERR);
	assert_int_equal(h_write(p[1], "x", 1), -EPIPE);
	assert_int_equal(h_epipes, 1);
	file_put(p[1]);
}

static struct file *pp[2];
static ssize_t got;

static void reader(void *arg)
{
	size_t n = 0;
	ssize_t r;

	while ((r = h_read(pp[0], back + n, 7001)) > 0)
		n += r;
	got = r < 0 ? r : (ssize_t)n;
}

static void pipe_stream(void)
{
	struct h_task t;

	fill_big();
	assert_int_equal(pipe_create(0, pp), 0);
	h_spawn(&t, reader, NULL);
	assert_int_equal(h_write(pp[1], big, sizeof(big)), sizeof(big)); // blocks in between
	file_put(pp[1]);
	h_end(&t);
	assert_int_equal(got, sizeof(big));
	assert_memory_equal(big, back, sizeof(big));
	file_put(pp[0]);
}

static void pipe_interrupted(void)
{
	struct h_task t;

	assert_int_equal(pipe_create(0, pp), 0);
	h_spawn(&t, reader, NULL);
	h_settle();
	sched_interrupt(&t.vt.st);
	h_end(&t);
	assert_int_equal(got, -ERESTARTSYS);
	file_put(pp[0]);
	file_put(pp[1]);
}

static void pipe_packets(void)
{
	struct file *p[2];
	char buf[100];

	assert_int_equal(pipe_create(O_DIRECT | O_NONBLOCK, p), 0);
	assert_int_equal(h_write(p[1], "hello", 5), 5);
	assert_int_equal(h_write(p[1], "you", 3), 3);
	assert_int_equal(h_read(p[0], buf, 2), 2); // the rest of the packet is lost
	assert_int_equal(h_read(p[0], buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "you", 3);
	assert_int_equal(h_read(p[0], buf, sizeof(buf)), -EAGAIN);
	for (int i = 0; i < 16; i++)
		assert_int_equal(h_write(p[1], "z", 1), 1);
	assert_int_equal(h_write(p[1], "z", 1), -EAGAIN);
	assert_int_equal(file_poll(p[1], NULL), 0);
	assert_int_equal(pipe_set_size(p[0], 8 * 4096, false), -EBUSY);
	assert_int_equal(pipe_set_size(p[0], 32 * 4096, false), 32 * 4096);
	assert_int_equal(h_write(p[1], "z", 1), 1);
	for (int i = 0; i < 17; i++)
		assert_int_equal(h_read(p[0], buf, 50), 1);
	assert_int_equal(h_read(p[0], buf, 50), -EAGAIN);
	file_put(p[0]);
	file_put(p[1]);
}

static void pipe_sizes(void)
{
	struct file *p[2];

	assert_int_equal(pipe_create(O_NONBLOCK, p), 0);
	assert_int_equal(pipe_get_size(p[0]), 65536);
	assert_int_equal(pipe_set_size(p[0], 5000, false), 8192);
	assert_int_equal(h_write(p[1], big, 9000), 8192);
	assert_int_equal(pipe_set_size(p[0], 4096, false), -EBUSY);
	assert_int_equal(pipe_set_size(p[0], 2 << 20, false), -EPERM);
	assert_int_equal(pipe_set_size(p[0], 1 << 20, false), 1 << 20);
	assert_int_equal(h_write(p[1], big + 8192, 100000), 100000);
	assert_int_equal(h_read(p[0], back, sizeof(back)), 108192);
	assert_memory_equal(big, back, 108192);
	file_put(p[0]);
	file_put(p[1]);
}

static void pipe_tees(void)
{
	struct file *a[2], *b[2];
	char buf[16];

	assert_int_equal(pipe_create(O_NONBLOCK, a), 0);
	assert_int_equal(pipe_create(O_NONBLOCK, b), 0);
	assert_int_equal(pipe_tee(a[0], b[1], 10, true), -EAGAIN);
	h_write(a[1], "abcdef", 6);
	assert_int_equal(pipe_tee(a[0], b[1], 4, true), 4);
	assert_int_equal(pipe_tee(a[0], a[1], 4, true), -EINVAL);
	assert_int_equal(h_read(b[0], buf, 16), 4);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(h_read(a[0], buf, 16), 6);
	for (int i = 0; i < 2; i++) {
		file_put(a[i]);
		file_put(b[i]);
	}
}

// --- FIFOs ----------------------------------------------------------------------------------------

static struct inode *fifo;

// What the vfs does at open, for an inode without a name.
static int fifo_file(unsigned flags, struct file **ret)
{
	int r = file_new_anon("fifo", inode_get(fifo), &pipe_fops, flags, NULL, ret);

	if (r)
		return r;
	r = pipe_fops.open(fifo, *ret);
	if (r)
		file_put(*ret);
	return r;
}

static struct file *ff;
static int opened;

static void fifo_reader(void *arg)
{
	opened = fifo_file(O_RDONLY, &ff);
}

static void fifo_opens(void)
{
	struct file *r, *w;
	struct h_task t;
	char c;

	fifo = anon_inode_new(S_IFIFO | 0600);
	assert_int_equal(fifo_file(O_WRONLY | O_NONBLOCK, &w), -ENXIO);
	assert_int_equal(fifo_file(O_RDONLY | O_NONBLOCK, &r), 0);
	assert_int_equal(file_poll(r, NULL), 0); // no writer yet is no hang-up
	assert_int_equal(fifo_file(O_WRONLY | O_NONBLOCK, &w), 0);
	file_put(w);
	assert_int_equal(file_poll(r, NULL), EPOLLHUP);
	assert_int_equal(h_read(r, &c, 1), 0);
	file_put(r);
	assert_null(fifo->pipe);

	opened = 99;
	h_spawn(&t, fifo_reader, NULL);
	h_settle();
	assert_int_equal(opened, 99);
	assert_int_equal(fifo_file(O_WRONLY, &w), 0);
	h_end(&t);
	assert_int_equal(opened, 0);
	file_put(w);
	file_put(ff);

	h_spawn(&t, fifo_reader, NULL);
	h_settle();
	sched_interrupt(&t.vt.st);
	h_end(&t);
	assert_int_equal(opened, -ERESTARTSYS);
	assert_null(fifo->pipe);
	inode_put(fifo);
}

// --- eventfd, timerfd -------------------------------------------------------------------------------

static void eventfds(void)
{
	struct file *f;
	uint64_t v = UINT64_MAX;

	assert_int_equal(eventfd_create(3, false, O_NONBLOCK, &f), 0);
	assert_int_equal(h_read(f, &v, 4), -EINVAL);
	assert_int_equal(h_read(f, &v, 8), 8);
	assert_int_equal(v, 3);
	assert_int_equal(h_read(f, &v, 8), -EAGAIN);
	v = UINT64_MAX;
	assert_int_equal(h_write(f, &v, 8), -EINVAL);
	v = UINT64_MAX - 1;
	assert_int_equal(h_write(f, &v, 8), 8);
	v = 1;
	assert_int_equal(h_write(f, &v, 8), -EAGAIN);
	assert_int_equal(file_poll(f, NULL), EPOLLIN);
	file_put(f);
	assert_int_equal(eventfd_create(2, true, O_NONBLOCK, &f), 0);
	assert_int_equal(h_read(f, &v, 8), 8);
	assert_int_equal(v, 1);
	assert_int_equal(h_read(f, &v, 8), 8);
	assert_int_equal(h_read(f, &v, 8), -EAGAIN);
	file_put(f);
}

static void timerfds(void)
{
	struct itimerspec it = {.it_value.tv_nsec = 5000000, .it_interval.tv_nsec = 2000000}, old;
	struct waitq wq;
	struct file *f;
	uint64_t n;

	assert_int_equal(timerfd_create_file(CLOCK_MONOTONIC, 0, &f), 0);
	assert_int_equal(timerfd_set(f, 0, &it, &old), 0);
	assert_int_equal(old.it_value.tv_nsec, 0);
	assert_int_equal(h_read(f, &n, 8), 8); // sleeps on the virtual clock
	assert_int_equal(n, 1);
	waitq_init(&wq);
	waitq_sleep(&wq, WAIT_INTERRUPTIBLE, sched_now() + 21000000);
	assert_int_equal(h_read(f, &n, 8), 8);
	assert_in_range(n, 10, 11);
	assert_int_equal(timerfd_get(f, &old), 0);
	assert_int_equal(old.it_interval.tv_nsec, 2000000);
	assert_in_range(old.it_value.tv_nsec, 1, 2000000);
	it = (struct itimerspec){};
	assert_int_equal(timerfd_set(f, 0, &it, &old), 0);
	assert_int_equal(file_poll(f, NULL), 0);
	file_put(f);
}

// --- epoll ------------------------------------------------------------------------------------------

static int ep_wait(struct file *ep, struct abi_epoll_event *out, int max, nsec_t deadline)
{
	int n = epoll_fd_wait(ep, GADDR(GUEST), max, deadline);

	if (n > 0)
		assert_int_equal(copy_in(out, GADDR(GUEST), n * sizeof(*out)), 0);
	return n;
}

static int ep_add(struct file *ep, int fd, struct file *f, uint32_t events)
{
	struct abi_epoll_event ev = {events, (uint64_t)fd};

	return epoll_control(ep, EPOLL_CTL_ADD, fd, f, &ev);
}

static void epoll_modes(void)
{
	struct abi_epoll_event ev[8] = {}, arm = {EPOLLIN | EPOLLONESHOT, 7};
	struct file *ep, *p[2];
	char c;

	epoll_fs_init();
	assert_int_equal(epoll_create_file(&ep), 0);
	assert_int_equal(pipe_create(O_NONBLOCK, p), 0);
	assert_int_equal(ep_add(ep, 7, p[0], EPOLLIN), 0);
	assert_int_equal(ep_add(ep, 7, p[0], EPOLLIN), -EEXIST);
	assert_int_equal(ep_add(ep, 3, ep, EPOLLIN), -EINVAL);
	assert_int_equal(epoll_control(ep, EPOLL_CTL_DEL, 9, p[0], NULL), -ENOENT);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	h_write(p[1], "ab", 2);
	for (int i = 0; i < 3; i++) { // level: again and again
		assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
		assert_int_equal(ev[0].events, EPOLLIN);
		assert_int_equal(ev[0].data, 7);
	}
	h_read(p[0], &c, 1);
	h_read(p[0], &c, 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	// one shot
	assert_int_equal(epoll_control(ep, EPOLL_CTL_MOD, 7, p[0], &arm), 0);
	h_write(p[1], "a", 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	assert_int_equal(epoll_control(ep, EPOLL_CTL_MOD, 7, p[0], &arm), 0);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
	// edge
	assert_int_equal(epoll_control(ep, EPOLL_CTL_DEL, 7, p[0], NULL), 0);
	assert_int_equal(ep_add(ep, 7, p[0], EPOLLIN | EPOLLET), 0);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	h_write(p[1], "b", 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	assert_int_equal(ep_wait(ep, ev, 8, sched_now() + 1000000), 0);
	// hang-up comes unasked; a file that goes takes its watch along
	file_put(p[1]);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 1);
	assert_int_equal(ev[0].events, EPOLLIN | EPOLLHUP);
	file_put(p[0]);
	assert_int_equal(ep_wait(ep, ev, 8, 0), 0);
	file_put(ep);
}

static void epoll_nested(void)
{
	struct file *ep[8], *e;
	struct abi_epoll_event ev[8];

	for (int i = 0; i < 8; i++)
		assert_int_equal(epoll_create_file(&ep[i]), 0);
	assert_int_equal(ep_add(ep[0], 1, ep[1], EPOLLIN), 0);
	assert_int_equal(ep_add(ep[1], 0, ep[0], EPOLLIN), -ELOOP);
	for (int i = 1; i < 4; i++)
		assert_int_equal(ep_add(ep[i], i + 1, ep[i + 1], EPOLLIN), 0);
	assert_int_equal(ep_add(ep[4], 5, ep[5], EPOLLIN), -ELOOP);
	assert_int_equal(ep_add(ep[5], 0, ep[0], EPOLLIN), -ELOOP);
	assert_int_equal(eventfd_create(1, false, 0, &e), 0);
	assert_int_equal(ep_add(ep[4], 9, e, EPOLLIN), 0);
	assert_int_equal(ep_wait(ep[0], ev, 8, 0), 1);
	assert_int_equal(ev[0].data, 1);
	assert_int_equal(ep_add(ep[6], 9, e, EPOLLIN | EPOLLEXCLUSIVE), 0);
	assert_int_equal(ep_add(ep[6], 7, ep[7], EPOLLIN | EPOLLEXCLUSIVE), -EINVAL);
	for (int i = 0; i < 8; i++)
		file_put(ep[i]);
	file_put(e);
}

static struct file *shared_ep;
static int woke[3];

static void ep_waiter(void *arg)
{
	struct abi_epoll_event ev;
	int *w = arg;

	sched_current()->ctx = h_ctx;
	*w = ep_wait(shared_ep, &ev, 1, sched_now() + NSEC_PER_SEC);
}

// 10,000 descriptors, of which three are ready; and one event wakes one waiter.
static void epoll_many(void)
{
	static struct file *e[10000];
	struct abi_epoll_event ev[8];
	struct h_task t[3];

	assert_int_equal(epoll_create_file(&shared_ep), 0);
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(eventfd_create(0, false, 0, &e[i]), 0);
		assert_int_equal(ep_add(shared_ep, i, e[i], EPOLLIN | EPOLLET), 0);
	}
	eventfd_signal(e[5], 1);
	eventfd_signal(e[9999], 1);
	eventfd_signal(e[77], 1);
	assert_int_equal(ep_wait(shared_ep, ev, 2, 0), 2);
	assert_int_equal(ev[0].data, 5);
	assert_int_equal(ev[1].data, 9999);
	assert_int_equal(ep_wait(shared_ep, ev, 8, 0), 1);
	for (int i = 0; i < 3; i++)
		h_spawn(&t[i], ep_waiter, &woke[i]);
	h_settle();
	eventfd_signal(e[1], 1);
	h_settle();
	assert_int_equal(t[0].done + t[1].done + t[2].done, 1);
	{
		struct waitq wq;

		waitq_init(&wq);
		waitq_sleep(&wq, WAIT_INTERRUPTIBLE, sched_now() + 2 * NSEC_PER_SEC);
	}
	for (int i = 0; i < 3; i++)
		h_end(&t[i]);
	assert_int_equal(woke[0] + woke[1] + woke[2], 1);
	file_put(shared_ep);
	for (int i = 0; i < 10000; i++)
		file_put(e[i]);
}

#define CASE(fn) \
	static void test_##fn(void **state) { h_run(fn); }
CASE(pipe_basics)
CASE(pipe_broken)
CASE(pipe_stream)
CASE(pipe_interrupted)
CASE(pipe_packets)
CASE(pipe_sizes)
CASE(pipe_tees)
CASE(fifo_opens)
CASE(eventfds)
CASE(timerfds)
CASE(epoll_modes)
CASE(epoll_nested)
CASE(epoll_many)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pipe_basics),	 cmocka_unit_test(test_pipe_broken),
		cmocka_unit_test(test_pipe_stream),	 cmocka_unit_test(test_pipe_interrupted),
		cmocka_unit_test(test_pipe_packets),	 cmocka_unit_test(test_pipe_sizes),
		cmocka_unit_test(test_pipe_tees),	 cmocka_unit_test(test_fifo_opens),
		cmocka_unit_test(test_eventfds),	 cmocka_unit_test(test_timerfds),
		cmocka_unit_test(test_epoll_modes),	 cmocka_unit_test(test_epoll_nested),
		cmocka_unit_test(test_epoll_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
