// Requests to a gofer: several in flight, each awaited by the task that sent it.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "platform/base/fdpass.h"
#include "sentry/fs/gofer/internal.h"

#define SLOTS 64u                  // requests in flight
#define ANSWER_MAX (64UL << 20)    // bytes of one answer, all chunks
#define FORGET_ROOM 8192u
#define PREEMPTED_NS 20000         // a few polls never take that long

struct gofer_conn {
	refcount_t refs;
	int sock;
	struct host_fd hfd;
	bool watching, dead;
	void (*on_dead)(void *arg);
	void *on_dead_arg;
	struct call *calls[SLOTS];
	unsigned inflight;
	uint32_t seq;              // upper part of the next id
	struct waitq slot_wq, tx_wq; // for a free slot; for room in the socket
	bool tx_waiting;
	nsec_t spin_ns;
	int spin_credit;
	unsigned unspun;
	uint64_t requests;
	unsigned nforget;
	uint64_t forget[FORGET_ROOM];
};

static char rx_buf[GP_MSG_MAX] __attribute__((aligned(8)));

// --- the end ------------------------------------------------------------------------------------

static void call_finish(struct call *c, int status)
{
	c->status = status;
	c->done = true;
	waitq_wake_all(&c->wq, 0);
}

static void conn_die(struct gofer_conn *conn, const char *why)
{
	if (conn->dead)
		return;
	conn->dead = true;
	log_err("gofer: %s", why);
	if (conn->watching)
		host_fd_remove(&conn->hfd);
	conn->watching = false;
	for (unsigned i = 0; i < SLOTS; i++)
		if (conn->calls[i])
			call_finish(conn->calls[i], -EIO);
	waitq_wake_all(&conn->slot_wq, 0);
	waitq_wake_all(&conn->tx_wq, 0);
	if (conn->on_dead)
		conn->on_dead(conn->on_dead_arg);
}

// --- answers ------------------------------------------------------------------------------------

// A descriptor that is no regular file could block the kernel thread, or worse: the gofer is not believed.
static bool fd_is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static void take_reply(struct gofer_conn *conn, size_t len, int fd)
{
	const struct gp_hdr *h = (const struct gp_hdr *)rx_buf;
	struct call *c = len >= sizeof(*h) ? conn->calls[h->id % SLOTS] : NULL;
	struct rx_chunk *k = NULL;

	if (!c || c->done || c->q.h.id != h->id || !gp_rep_check(rx_buf, len, c->q.h.op) ||
	    (fd >= 0) != !!(h->flags & GP_FD) || (fd >= 0 && !fd_is_file(fd))) {
		if (fd >= 0)
			close(fd);
		conn_die(conn, "malformed reply");
		return;
	}
	c->total += len;
	if (c->total <= ANSWER_MAX)
		k = kalloc(sizeof(*k) + len);
	if (k) {
		k->len = len;
		memcpy(k->msg, rx_buf, len);
		STAILQ_INSERT_TAIL(&c->chunks, k, link);
	} else {
		c->total = ANSWER_MAX + 1; // the rest is dropped as well
	}
	if (c->fd < 0)
		c->fd = fd;
	if (h->flags & GP_MORE)
		return;
	call_finish(c, c->total > ANSWER_MAX ? -ENOMEM : h->status);
}

// Takes in what has come. Never waits unless `block`.
static void conn_pump(struct gofer_conn *conn, bool block)
{
	while (!conn->dead) {
		unsigned nfds;
		int fd;
		ssize_t n = recv_fds(conn->sock, rx_buf, sizeof(rx_buf), block ? 0 : MSG_DONTWAIT, &fd, 1, &nfds);

		if (n == -EAGAIN)
			return;
		if (n <= 0)
			conn_die(conn, n ? strerror((int)-n) : "it has ended");
		else
			take_reply(conn, (size_t)n, fd);
		if (block)
			return;
	}
}

static void conn_event(struct host_fd *h, uint32_t events)
{
	struct gofer_conn *conn = h->arg;

	conn_pump(conn, false);
	if (!conn->dead && (events & EPOLLOUT)) {
		conn->tx_waiting = false;
		host_fd_mod(&conn->hfd, EPOLLIN);
		waitq_wake_all(&conn->tx_wq, 0);
	}
}

// --- requests -----------------------------------------------------------------------------------

static int conn_send(struct gofer_conn *conn, const struct iovec *iov, int n, bool may_block)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	ssize_t r;

	do
		r = sendmsg(conn->sock, &msg, MSG_NOSIGNAL | (may_block ? 0 : MSG_DONTWAIT));
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

// Sends what is to be forgotten; stops when the socket is full.
static void flush_forgets(struct gofer_conn *conn)
{
	while (conn->nforget && !conn->dead) {
		unsigned n = MIN(conn->nforget, GP_FORGET_MAX);
		struct gp_req q = {.h = {.op = GP_FORGET}, .data_len = n * 8};
		struct iovec iov[2] = {{&q, sizeof(q)}, {&conn->forget[conn->nforget - n], n * 8}};

		q.h.len = (uint32_t)sizeof(q) + q.data_len;
		if (conn_send(conn, iov, 2, false))
			return;
		conn->nforget -= n;
	}
}

void conn_forget(struct gofer_conn *conn, uint64_t node)
{
	if (conn->nforget == FORGET_ROOM)
		flush_forgets(conn);
	if (conn->nforget == FORGET_ROOM)
		return; // the gofer is stuck: the node stays named until the end
	conn->forget[conn->nforget++] = node;
}

static int send_call(struct gofer_conn *conn, struct call *c)
{
	struct iovec iov[4] = {{&c->q, sizeof(c->q)}, {(void *)c->name1, c->q.name1_len},
			       {(void *)c->name2, c->q.name2_len}, {(void *)c->data, c->q.data_len}};
	int r;

	c->q.h.len = (uint32_t)(sizeof(c->q) + c->q.name1_len + c->q.name2_len + c->q.data_len);
	for (;;) {
		if (conn->dead)
			return -EIO;
		r = conn_send(conn, iov, 4, !sched_current());
		if (r != -EAGAIN)
			return r ? -EIO : 0;
		if (!conn->tx_waiting) {
			conn->tx_waiting = true;
			host_fd_mod(&conn->hfd, EPOLLIN | EPOLLOUT);
		}
		waitq_sleep(&conn->tx_wq, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
	}
}

// Polls for the answer while it is likely to come before a sleep and the wake-ups would be over. What
// polling has brought lately decides; a poll that takes very long was preempted, so the core is wanted.
static void spin_for(struct gofer_conn *conn, struct call *c)
{
	nsec_t now, before, end;
	bool preempted = false;

	if (!conn->spin_ns || (conn->spin_credit <= 0 && ++conn->unspun % 16))
		return;
	now = sched_now();
	end = now + conn->spin_ns;
	do {
		sched_yield_cpu();
		before = sched_now();
		for (int i = 0; i < 4 && !c->done; i++)
			conn_pump(conn, false);
		now = sched_now();
		preempted = now - before > PREEMPTED_NS;
	} while (!c->done && !preempted && now < end);
	if (c->done && !preempted)
		conn->spin_credit = MIN(conn->spin_credit + 2, 16);
	else
		conn->spin_credit = MAX(conn->spin_credit - (preempted ? 8 : 1), -16);
}

int call_run(struct gofer_conn *conn, struct call *c)
{
	unsigned slot = 0;
	int r;

	STAILQ_INIT(&c->chunks);
	waitq_init(&c->wq);
	c->fd = -1;
	c->done = false;
	c->total = 0;
	if (conn->nforget >= GP_FORGET_MAX / 4)
		flush_forgets(conn);
	if (sched_current())
		may_wait();
	while (conn->inflight == SLOTS && !conn->dead)
		waitq_sleep(&conn->slot_wq, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
	if (conn->dead)
		return -EIO;
	while (conn->calls[slot])
		slot++;
	c->q.h.id = conn->seq++ * SLOTS + slot;
	conn->calls[slot] = c;
	conn->inflight++;
	conn->requests++;
	r = send_call(conn, c);
	if (r)
		conn_die(conn, "cannot send");
	if (!sched_current()) { // boot, before the loop runs
		while (!c->done)
			conn_pump(conn, true);
	} else {
		spin_for(conn, c);
		while (!c->done)
			waitq_sleep(&c->wq, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
	}
	conn->calls[slot] = NULL;
	conn->inflight--;
	waitq_wake(&conn->slot_wq, 0);
	return c->status;
}

void call_end(struct call *c)
{
	struct rx_chunk *k;

	while ((k = STAILQ_FIRST(&c->chunks))) {
		STAILQ_REMOVE_HEAD(&c->chunks, link);
		kfree(k);
	}
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

// --- life ---------------------------------------------------------------------------------------

int gofer_conn_new(int sock, void (*on_dead)(void *arg), void *arg, struct gofer_conn **ret)
{
	struct gofer_conn *conn = kalloc(sizeof(*conn));
	int r;

	if (!conn)
		return -ENOMEM;
	ref_init(&conn->refs, 1);
	conn->sock = sock;
	conn->on_dead = on_dead;
	conn->on_dead_arg = arg;
	waitq_init(&conn->slot_wq);
	waitq_init(&conn->tx_wq);
	conn->hfd = (struct host_fd){.fd = sock, .fn = conn_event, .arg = conn};
	r = host_fd_add(&conn->hfd, EPOLLIN);
	if (r) {
		kfree(conn);
		return r;
	}
	conn->watching = true;
	*ret = conn;
	return 0;
}

struct gofer_conn *conn_get(struct gofer_conn *conn)
{
	ref_get(&conn->refs);
	return conn;
}

void gofer_conn_put(struct gofer_conn *conn)
{
	if (!conn || !ref_put(&conn->refs))
		return;
	kassert(conn->inflight == 0);
	gfd_close_retired();
	if (conn->watching)
		host_fd_remove(&conn->hfd);
	close(conn->sock);
	kfree(conn);
}

void gofer_conn_set_spin(struct gofer_conn *conn, nsec_t ns)
{
	conn->spin_ns = ns;
	conn->spin_credit = 8;
}

uint64_t gofer_conn_requests(const struct gofer_conn *conn)
{
	return conn->requests;
}
