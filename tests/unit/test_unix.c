// AF_UNIX sockets.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/epoll.h>
#include <sys/un.h>

#include "abi/linux/restart.h"
#include "sentry/socket/socket.h"
#include "sentry/socket/unix/unix.h"
#include "tests/unit/io_harness.h"

static struct socket *sock(struct file *f)
{
	return socket_of(f);
}

static struct file *make(int type)
{
	const struct sock_family *fam;
	struct socket *s;
	struct file *f;

	unix_init();
	fam = socket_family(AF_UNIX);
	assert_int_equal(fam->create(type, 0, &s), 0);
	assert_int_equal(socket_file_new(s, 0, &f), 0);
	return f;
}

static void pair(int type, struct file *f[2])
{
	f[0] = make(type);
	f[1] = make(type);
	assert_int_equal(socket_family(AF_UNIX)->pair(sock(f[0]), sock(f[1])), 0);
}

static ssize_t send_fl(struct file *f, const void *buf, size_t n, unsigned flags, struct scm_files **files)
{
	struct uio u = uio_kernel((void *)buf, n);
	struct sock_msg m = {.u = &u, .flags = flags, .files = files ? *files : NULL};
	ssize_t r = sock(f)->ops->sendmsg(sock(f), &m);

	if (files)
		*files = m.files;
	return r;
}

static ssize_t recv_fl(struct file *f, void *buf, size_t n, unsigned flags, struct scm_files **files, unsigned *ret_flags)
{
	struct uio u = uio_kernel(buf, n);
	struct sock_msg m = {.u = &u, .flags = flags};
	ssize_t r = sock(f)->ops->recvmsg(sock(f), &m);

	if (ret_flags)
		*ret_flags = m.ret_flags;
	if (files)
		*files = m.files;
	else
		scm_files_free(m.files);
	return r;
}

static unsigned abstract(struct sockaddr_storage *sa, const char *name)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)sa;

	memset(sa, 0, sizeof(*sa));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path + 1, name, strlen(name));
	return 2 + 1 + strlen(name);
}

static char big[300000], back[300000];

static void stream_basics(void)
{
	struct file *f[2];
	char buf[16];

	pair(SOCK_STREAM, f);
	assert_int_equal(recv_fl(f[0], buf, 16, MSG_DONTWAIT, NULL, NULL), -EAGAIN);
	assert_int_equal(file_poll(f[0], NULL), EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	assert_int_equal(h_write(f[0], "hello", 5), 5);
	assert_int_equal(h_write(f[0], "world", 5), 5);
	assert_int_equal(recv_fl(f[1], buf, 8, MSG_PEEK, NULL, NULL), 8);
	assert_memory_equal(buf, "hellowor", 8);
	assert_int_equal(h_read(f[1], buf, 3), 3);
	assert_int_equal(h_read(f[1], buf, 16), 7);
	assert_memory_equal(buf, "loworld", 7);
	assert_int_equal(h_write(f[1], "x", 1), 1);
	assert_int_equal(sock(f[1])->ops->shutdown(sock(f[1]), SHUT_WR), 0);
	assert_int_equal(h_read(f[0], buf, 16), 1);
	assert_int_equal(h_read(f[0], buf, 16), 0);
	assert_int_equal(file_poll(f[0], NULL) & (EPOLLRDHUP | EPOLLIN | EPOLLHUP), EPOLLRDHUP | EPOLLIN);
	assert_int_equal(h_write(f[1], "x", 1), -EPIPE);
	assert_int_equal(h_epipes, 1);
	assert_int_equal(send_fl(f[1], "x", 1, MSG_NOSIGNAL, NULL), -EPIPE);
	assert_int_equal(h_epipes, 1);
	assert_int_equal(h_write(f[0], "unread", 6), 6);
	file_put(f[1]);
	assert_int_equal(h_read(f[0], buf, 16), -ECONNRESET);
	assert_int_equal(h_read(f[0], buf, 16), 0);
	assert_true(file_poll(f[0], NULL) & EPOLLHUP);
	file_put(f[0]);
}

static struct file *sp[2];
static size_t got;

static void drain(void *arg)
{
	ssize_t r;

	for (got = 0; (r = h_read(sp[1], back + got, 9999)) > 0;)
		got += r;
}

static void stream_bulk(void)
{
	struct h_task t;

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7 + i / 4096);
	pair(SOCK_STREAM, sp);
	while (send_fl(sp[0], big, 5000, MSG_DONTWAIT, NULL) > 0)
		;
	assert_int_equal(file_poll(sp[0], NULL), 0);
	while (recv_fl(sp[1], back, sizeof(back), MSG_DONTWAIT, NULL, NULL) > 0)
		;
	h_spawn(&t, drain, NULL);
	assert_int_equal(h_write(sp[0], big, sizeof(big)), sizeof(big));
	file_put(sp[0]);
	h_end(&t);
	assert_int_equal(got, sizeof(big));
	assert_memory_equal(big, back, sizeof(big));
	file_put(sp[1]);
}

static void datagrams(void)
{
	struct sockaddr_storage sa, from;
	struct file *a = make(SOCK_DGRAM), *b = make(SOCK_DGRAM);
	unsigned len = abstract(&sa, "dg"), fl;
	char buf[16];
	int n = 0;

	assert_int_equal(sock(a)->ops->bind(sock(a), &sa, len), 0);
	assert_int_equal(sock(b)->ops->bind(sock(b), &sa, len), -EADDRINUSE);
	assert_int_equal(h_write(b, "x", 1), -ENOTCONN);
	assert_int_equal(sock(b)->ops->connect(sock(b), &sa, len, false), 0);
	assert_int_equal(h_write(b, "four", 4), 4);
	assert_int_equal(h_write(b, "", 0), 0);
	assert_int_equal(h_write(b, "sixsix", 6), 6);
	assert_int_equal(recv_fl(a, buf, 2, MSG_TRUNC, NULL, &fl), 4);
	assert_int_equal(fl, MSG_TRUNC);
	assert_int_equal(recv_fl(a, buf, 16, 0, NULL, &fl), 0);
	{
		struct uio u = uio_kernel(buf, 16);
		struct sock_msg m = {.u = &u, .name = &from};

		assert_int_equal(sock(a)->ops->recvmsg(sock(a), &m), 6);
		assert_int_equal(m.namelen, 0); // b has no name
	}
	while (send_fl(b, "z", 1, MSG_DONTWAIT, NULL) == 1)
		n++;
	assert_int_equal(n, 11);
	assert_int_equal(file_poll(b, NULL) & EPOLLOUT, 0);
	assert_int_equal(recv_fl(a, buf, 16, 0, NULL, NULL), 1);
	assert_int_equal(file_poll(b, NULL) & EPOLLOUT, EPOLLOUT);
	assert_int_equal(send_fl(b, big, 250000, 0, NULL), -EMSGSIZE);
	file_put(a);
	assert_int_equal(h_write(b, "x", 1), -ECONNREFUSED);
	assert_int_equal(h_write(b, "x", 1), -ENOTCONN);
	file_put(b);
}

static struct file *listener, *client;
static int connected;

static void connecter(void *arg)
{
	struct sockaddr_storage sa;
	unsigned len = abstract(&sa, "srv");

	connected = sock(client)->ops->connect(sock(client), &sa, len, false);
}

static void connections(void)
{
	struct sockaddr_storage sa;
	unsigned len = abstract(&sa, "srv"), n;
	struct file *c[3], *srv;
	struct socket *s;
	struct h_task t;
	char buf[8];

	listener = make(SOCK_STREAM);
	client = make(SOCK_STREAM);
	assert_int_equal(sock(client)->ops->connect(sock(client), &sa, len, false), -ECONNREFUSED);
	assert_int_equal(sock(listener)->ops->listen(sock(listener), 1), -EINVAL);
	assert_int_equal(sock(listener)->ops->bind(sock(listener), &sa, len), 0);
	assert_int_equal(sock(client)->ops->connect(sock(client), &sa, len, false), -ECONNREFUSED);
	assert_int_equal(sock(listener)->ops->listen(sock(listener), 1), 0);
	assert_int_equal(sock(listener)->ops->accept(sock(listener), true, &s), -EAGAIN);
	for (int i = 0; i < 2; i++) {
		c[i] = make(SOCK_STREAM);
		assert_int_equal(sock(c[i])->ops->connect(sock(c[i]), &sa, len, true), 0);
	}
	assert_int_equal(sock(client)->ops->connect(sock(client), &sa, len, true), -EAGAIN);
	h_spawn(&t, connecter, NULL);
	connected = 1;
	h_settle();
	assert_int_equal(connected, 1); // waits for room
	assert_int_equal(h_write(c[0], "hi", 2), 2);
	assert_int_equal(sock(listener)->ops->accept(sock(listener), true, &s), 0);
	assert_int_equal(socket_file_new(s, 0, &srv), 0);
	h_end(&t);
	assert_int_equal(connected, 0);
	assert_int_equal(h_read(srv, buf, 8), 2);
	assert_int_equal(s->ops->getname(s, false, &sa, &n), 0);
	assert_int_equal(n, len);
	assert_int_equal(sock(c[0])->ops->getname(sock(c[0]), true, &sa, &n), 0);
	assert_int_equal(n, len);
	file_put(listener); // c[1] and client were never accepted
	assert_int_equal(h_read(c[1], buf, 8), -ECONNRESET);
	assert_int_equal(h_read(client, buf, 8), -ECONNRESET);
	file_put(srv);
	assert_int_equal(h_read(c[0], buf, 8), 0);
	file_put(c[0]);
	file_put(c[1]);
	file_put(client);
}

static struct scm_files *files_of(struct file *f)
{
	struct scm_files *s = scm_files_new(1);

	s->f[0] = file_get(f);
	return s;
}

static void descriptors(void)
{
	struct file *a[2], *x[2];
	struct scm_files *s;
	char buf[8];

	pair(SOCK_STREAM, a);
	pair(SOCK_DGRAM, x);
	s = files_of(x[0]);
	assert_int_equal(send_fl(a[0], "1", 1, 0, &s), 1);
	assert_null(s);
	assert_int_equal(h_write(a[0], "2", 1), 1);
	assert_int_equal(recv_fl(a[1], buf, 8, MSG_PEEK, &s, NULL), 1);
	assert_ptr_equal(s->f[0], x[0]);
	scm_files_free(s);
	assert_int_equal(recv_fl(a[1], buf, 8, 0, &s, NULL), 1); // bytes with descriptors stand alone
	assert_ptr_equal(s->f[0], x[0]);
	scm_files_free(s);
	assert_int_equal(h_read(a[1], buf, 8), 1);
	// Sent into its own pair and closed: only the collector can find it.
	s = files_of(x[0]);
	assert_int_equal(send_fl(x[1], "c", 1, 0, &s), 1);
	s = files_of(x[1]);
	assert_int_equal(send_fl(x[0], "d", 1, 0, &s), 1);
	file_put(x[0]);
	file_put(x[1]);
	// A long chain: each in the queue of the one before.
	file_put(a[0]);
	file_put(a[1]);
	pair(SOCK_DGRAM, a);
	for (int i = 0; i < 5000; i++) {
		pair(SOCK_DGRAM, x);
		s = files_of(a[0]);
		assert_int_equal(send_fl(x[1], "n", 1, 0, &s), 1);
		file_put(x[1]);
		file_put(a[0]);
		a[0] = x[0];
	}
	file_put(a[0]);
	file_put(a[1]);
}

static void seqpackets(void)
{
	struct file *f[2];
	char buf[8];
	unsigned fl;

	pair(SOCK_SEQPACKET, f);
	assert_int_equal(h_write(f[0], "abc", 3), 3);
	assert_int_equal(h_write(f[0], "de", 2), 2);
	assert_int_equal(recv_fl(f[1], buf, 2, 0, NULL, &fl), 2);
	assert_int_equal(fl & MSG_TRUNC, MSG_TRUNC);
	assert_int_equal(h_read(f[1], buf, 8), 2);
	file_put(f[0]);
	assert_int_equal(h_read(f[1], buf, 8), 0);
	assert_int_equal(recv_fl(f[1], buf, 8, MSG_DONTWAIT, NULL, NULL), 0);
	assert_int_equal(send_fl(f[1], "x", 1, MSG_NOSIGNAL, NULL), -EPIPE);
	file_put(f[1]);
}

static void options(void)
{
	struct timeval tv = {.tv_usec = 50000};
	struct file *f[2];
	int v = 4096;
	unsigned len = sizeof(v);
	char buf[8];

	pair(SOCK_STREAM, f);
	assert_int_equal(socket_set_option(sock(f[0]), SOL_SOCKET, SO_SNDBUF, &v, 4), 0);
	assert_int_equal(socket_get_option(sock(f[0]), SOL_SOCKET, SO_SNDBUF, &v, &len), 0);
	assert_int_equal(v, 8192);
	assert_int_equal(socket_set_option(sock(f[0]), SOL_SOCKET, SO_TYPE, &v, 4), -ENOPROTOOPT);
	assert_int_equal(socket_set_option(sock(f[0]), 6, 1, &v, 4), -EOPNOTSUPP);
	assert_int_equal(socket_set_option(sock(f[0]), SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	assert_int_equal(h_read(f[0], buf, 8), -EAGAIN); // after 50 ms of virtual time
	file_put(f[0]);
	file_put(f[1]);
}

#define CASE(fn) \
	static void test_##fn(void **state) { h_run(fn); }
CASE(stream_basics)
CASE(stream_bulk)
CASE(datagrams)
CASE(connections)
CASE(descriptors)
CASE(seqpackets)
CASE(options)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream_basics), cmocka_unit_test(test_stream_bulk), cmocka_unit_test(test_datagrams),
		cmocka_unit_test(test_connections),   cmocka_unit_test(test_descriptors), cmocka_unit_test(test_seqpackets),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
