// Sending, receiving, polling.
#include <errno.h>
#include <sys/epoll.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/socket/unix/internal.h"

DEFINE_SLAB(umsg_slab, struct umsg);

// --- messages -------------------------------------------------------------------------------------

bool unix_writable(const struct unix_sock *u)
{
	return u->state != UNIX_LISTEN && (uint64_t)u->wmem * 4 <= u->s.sndbuf;
}

bool unix_recvq_full(const struct unix_sock *u)
{
	return u->qlen > UNIX_DGRAM_QLEN;
}

void umsg_free(struct umsg *m)
{
	struct unix_sock *from = m->sender;

	if (m->files) {
		unix_inflight_del(m->files);
		scm_files_free(m->files);
	}
	if (m->data != m->inl)
		kfree(m->data);
	from->wmem -= m->charge;
	if (unix_writable(from))
		waitq_wake(&from->wr_wq, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	slab_free(&umsg_slab, m);
	unix_put(from);
}

void unix_purge(struct unix_sock *u)
{
	struct umsg *m;

	while ((m = TAILQ_FIRST(&u->queue))) {
		TAILQ_REMOVE(&u->queue, m, link);
		u->qlen--;
		umsg_free(m);
	}
}

// Waits until u may have more bytes under way. -EPIPE: it may not send any more.
static int wait_for_wmem(struct unix_sock *u, nsec_t deadline)
{
	int r;

	if (u->s.err)
		return socket_take_error(&u->s);
	if (u->shut & UNIX_SEND_SHUT)
		return -EPIPE;
	if (likely(u->wmem < u->s.sndbuf))
		return 0;
	if (!deadline)
		return -EAGAIN;
	r = wait_event_until(&u->wr_wq, u->wmem < u->s.sndbuf || u->shut & UNIX_SEND_SHUT || u->s.err, WAIT_INTERRUPTIBLE, deadline);
	if (r)
		return socket_wait_error(r, u->s.sndtimeo);
	if (u->s.err)
		return socket_take_error(&u->s);
	return u->shut & UNIX_SEND_SHUT ? -EPIPE : 0;
}

// A message with the next n bytes of sm, charged to u. May wait.
static int umsg_make(struct unix_sock *u, struct sock_msg *sm, uint32_t n, nsec_t deadline, struct umsg **ret)
{
	struct umsg *m;
	int r = wait_for_wmem(u, deadline);

	if (r)
		return r;
	m = SLAB_NEW(umsg_slab, struct umsg);
	if (!m)
		return -ENOBUFS;
	m->data = n <= sizeof(m->inl) ? m->inl : kalloc(n);
	if (!m->data) {
		slab_free(&umsg_slab, m);
		return -ENOBUFS;
	}
	m->sender = unix_get(u);
	m->charge = sizeof(*m) + (m->data == m->inl ? 0 : n);
	m->len = n;
	u->wmem += m->charge;
	if (n && uio_get(sm->u, m->data, n) != (ssize_t)n) {
		umsg_free(m);
		return -EFAULT;
	}
	if (sm->has_creds)
		m->creds = sm->creds;
	else
		unix_self_creds(&m->creds);
	*ret = m;
	return 0;
}

static int take_files(struct sock_msg *sm, struct umsg *m)
{
	int r;

	if (!sm->files)
		return 0;
	r = unix_inflight_add(sm->files);
	if (r)
		return r;
	m->files = sm->files;
	sm->files = NULL;
	return 0;
}

static void queue_add(struct unix_sock *to, struct umsg *m)
{
	TAILQ_INSERT_TAIL(&to->queue, m, link);
	to->qlen++;
	waitq_wake(&to->rd_wq, EPOLLIN | EPOLLRDNORM);
}

// --- sending ----------------------------------------------------------------------------------------

static ssize_t stream_send(struct unix_sock *u, struct sock_msg *sm)
{
	nsec_t deadline = socket_deadline(u->s.sndtimeo, sm->flags & MSG_DONTWAIT);
	ssize_t done = 0;
	struct umsg *m;
	int r = 0;

	if (sm->namelen)
		return u->state == UNIX_ESTABLISHED ? -EISCONN : -EOPNOTSUPP;
	if (!u->peer)
		return -ENOTCONN;
	if (u->shut & UNIX_SEND_SHUT)
		r = -EPIPE;
	while (!r && sm->u->resid) {
		uint32_t n = MIN(sm->u->resid, (size_t)UNIX_MAX_CHUNK);

		n = MIN(n, u->s.sndbuf / 2 - 64);
		r = umsg_make(u, sm, n, deadline, &m);
		if (r)
			break;
		if (u->peer->dead || u->peer->shut & UNIX_RCV_SHUT)
			r = -EPIPE;
		else
			r = take_files(sm, m);
		if (r) {
			umsg_free(m);
			break;
		}
		queue_add(u->peer, m);
		done += n;
	}
	if (done)
		return done;
	if (r == -EPIPE && !(sm->flags & MSG_NOSIGNAL))
		vfs_self()->epipe();
	return r;
}

static bool wake_blocked_peer(struct wait_entry *e, uint32_t events)
{
	struct unix_sock *u = container_of(e, struct unix_sock, peer_wake);

	waitq_remove(e);
	waitq_wake(&u->wr_wq, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	return false;
}

void unix_peer_wake_detach(struct unix_sock *u)
{
	waitq_remove(&u->peer_wake);
}

// Has u's waiters woken once there is room at `to` again. The entry goes with either of the two.
static void peer_wake_attach(struct unix_sock *u, struct unix_sock *to)
{
	if (u->peer_wake.wq)
		return;
	u->peer_wake = (struct wait_entry){.wake = wake_blocked_peer};
	waitq_add(&to->peer_wq, &u->peer_wake);
}

// Whom a datagram goes to: a reference.
static int dgram_target(struct unix_sock *u, struct sock_msg *sm, struct unix_sock **ret)
{
	struct sockaddr_un sun;
	unsigned len;
	int r;

	if (sm->namelen && u->s.type == SOCK_DGRAM) {
		r = unix_addr_parse(sm->name, sm->namelen, &sun, &len);
		return r ? r : unix_find(&sun, len, SOCK_DGRAM, ret);
	}
	if (!u->peer)
		return -ENOTCONN;
	*ret = unix_get(u->peer);
	return 0;
}

// May m go to `to` now? 0, -EAGAIN (its queue is full), or an error.
static int dgram_may_go(struct unix_sock *u, struct unix_sock *to, bool named)
{
	if (to->dead) {
		if (u->s.type == SOCK_SEQPACKET)
			return -EPIPE;
		if (!named && u->peer == to) {
			unix_peer_wake_detach(u);
			u->peer = NULL;
			unix_put(to);
		}
		return -ECONNREFUSED;
	}
	if (!unix_may_send(u, to))
		return -EPERM;
	if (to->shut & UNIX_RCV_SHUT)
		return -EPIPE;
	if (to != u && to->peer != u && unix_recvq_full(to))
		return -EAGAIN;
	return 0;
}

static ssize_t dgram_send(struct unix_sock *u, struct sock_msg *sm)
{
	nsec_t deadline = socket_deadline(u->s.sndtimeo, sm->flags & MSG_DONTWAIT);
	size_t n = sm->u->resid;
	struct unix_sock *to;
	struct umsg *m;
	int r;

	if (u->s.type == SOCK_SEQPACKET && u->state != UNIX_ESTABLISHED)
		return -ENOTCONN;
	r = dgram_target(u, sm, &to);
	if (r)
		return r;
	if (u->s.passcred && !u->addr)
		r = unix_autobind(u);
	if (!r && n > u->s.sndbuf - 32)
		r = -EMSGSIZE;
	if (!r)
		r = umsg_make(u, sm, n, deadline, &m);
	if (r) {
		unix_put(to);
		return r;
	}
	for (;;) {
		r = dgram_may_go(u, to, sm->namelen);
		if (r != -EAGAIN)
			break;
		if (!deadline) {
			if (u->peer == to)
				peer_wake_attach(u, to);
			break;
		}
		r = waitq_sleep(&to->peer_wq, WAIT_INTERRUPTIBLE, deadline);
		if (r) {
			r = socket_wait_error(r, u->s.sndtimeo);
			break;
		}
	}
	if (!r)
		r = take_files(sm, m);
	if (r)
		umsg_free(m);
	else
		queue_add(to, m);
	unix_put(to);
	return r ? r : (ssize_t)n;
}

ssize_t unix_sendmsg(struct socket *s, struct sock_msg *m)
{
	if (m->flags & MSG_OOB)
		return -EOPNOTSUPP;
	return s->type == SOCK_STREAM ? stream_send(unix_of(s), m) : dgram_send(unix_of(s), m);
}

// --- receiving ----------------------------------------------------------------------------------------

// The files of m go to the receiver: themselves, or copies for a peek.
static int give_files(struct umsg *m, struct sock_msg *sm, bool peek)
{
	if (!m->files)
		return 0;
	if (peek) {
		sm->files = scm_files_dup(m->files);
		return sm->files ? 0 : -ENOMEM;
	}
	unix_inflight_del(m->files);
	sm->files = m->files;
	m->files = NULL;
	return 0;
}

static void give_creds(const struct unix_sock *u, const struct umsg *m, struct sock_msg *sm)
{
	sm->creds = m->creds;
	sm->has_creds = u->s.passcred;
}

static bool creds_equal(const struct sock_creds *a, const struct sock_creds *b)
{
	return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid;
}

static void queue_del(struct unix_sock *u, struct umsg *m)
{
	TAILQ_REMOVE(&u->queue, m, link);
	u->qlen--;
	umsg_free(m);
}

// Waits for a message, without the lock. 1: go on; 0: end of file; -errno.
static int wait_readable(struct unix_sock *u, nsec_t deadline)
{
	int r;

	if (u->s.err)
		return socket_take_error(&u->s);
	if (u->shut & UNIX_RCV_SHUT)
		return 0;
	if (!deadline)
		return -EAGAIN;
	klock_unlock(&u->iolock);
	r = wait_event_until(&u->rd_wq, !TAILQ_EMPTY(&u->queue) || u->shut & UNIX_RCV_SHUT || u->s.err, WAIT_INTERRUPTIBLE, deadline);
	klock_lock(&u->iolock);
	return r ? socket_wait_error(r, u->s.rcvtimeo) : 1;
}

static ssize_t stream_recv_locked(struct unix_sock *u, struct sock_msg *sm)
{
	nsec_t deadline = socket_deadline(u->s.rcvtimeo, sm->flags & MSG_DONTWAIT);
	bool peek = sm->flags & MSG_PEEK, first = true;
	size_t target = sm->flags & MSG_WAITALL ? sm->u->resid : MIN((size_t)u->s.rcvlowat, sm->u->resid);
	struct umsg *m = TAILQ_FIRST(&u->queue), *next;
	size_t done = 0;
	ssize_t r;

	do {
		uint32_t n;

		if (!m) {
			if (done && done >= target)
				break;
			r = wait_readable(u, deadline);
			if (r <= 0)
				return done ? (ssize_t)done : r;
			m = TAILQ_FIRST(&u->queue);
			for (size_t skip = peek ? done : 0; m && skip; m = TAILQ_NEXT(m, link)) {
				// What has been peeked at lies before what we wait for.
				if (skip < m->len - m->off)
					break;
				skip -= m->len - m->off;
			}
			continue;
		}
		if (!first && u->s.passcred && !creds_equal(&m->creds, &sm->creds))
			break;
		if (first)
			give_creds(u, m, sm);
		n = MIN((size_t)(m->len - m->off), sm->u->resid);
		r = n ? uio_put(sm->u, m->data + m->off, n) : 0;
		if (n && r <= 0)
			return done ? (ssize_t)done : -EFAULT;
		first = false;
		done += r;
		if (m->files) {
			int e = give_files(m, sm, peek);
			bool all = (size_t)r == m->len - m->off;

			if (e && !done)
				return e;
			if (!peek) {
				m->off += r;
				if (all)
					queue_del(u, m);
			}
			break;
		}
		next = TAILQ_NEXT(m, link);
		if (!peek) {
			m->off += r;
			if (m->off < m->len)
				break;
			queue_del(u, m);
		} else if ((size_t)r < m->len - m->off) {
			break;
		}
		m = next;
	} while (sm->u->resid);
	return done;
}

static ssize_t stream_recv(struct unix_sock *u, struct sock_msg *sm)
{
	ssize_t r;

	if (u->state != UNIX_ESTABLISHED)
		return -EINVAL;
	klock_lock(&u->iolock);
	r = stream_recv_locked(u, sm);
	klock_unlock(&u->iolock);
	return r;
}

static ssize_t dgram_recv_locked(struct unix_sock *u, struct sock_msg *sm)
{
	nsec_t deadline = socket_deadline(u->s.rcvtimeo, sm->flags & MSG_DONTWAIT);
	bool peek = sm->flags & MSG_PEEK;
	struct umsg *m;
	ssize_t r;
	size_t n, len;

	while (!(m = TAILQ_FIRST(&u->queue))) {
		// A datagram socket that was shut down and must not wait has no end of file, oddly.
		if (u->s.type == SOCK_DGRAM && !deadline && !u->s.err)
			return -EAGAIN;
		r = wait_readable(u, deadline);
		if (r <= 0)
			return r;
	}
	give_creds(u, m, sm);
	if (sm->name)
		unix_addr_out(m->sender->addr, sm->name, &sm->namelen);
	if (!m->sender->addr)
		sm->namelen = 0;
	len = m->len;
	n = MIN(len, sm->u->resid);
	if (n < len)
		sm->ret_flags |= MSG_TRUNC;
	r = n ? uio_put(sm->u, m->data, n) : 0;
	if (r == (ssize_t)n)
		r = give_files(m, sm, peek) ?: r;
	else
		r = -EFAULT;
	if (!peek) {
		queue_del(u, m);
		waitq_wake(&u->peer_wq, 0);
	}
	if (r < 0)
		return r;
	return sm->flags & MSG_TRUNC ? (ssize_t)len : r;
}

static ssize_t dgram_recv(struct unix_sock *u, struct sock_msg *sm)
{
	ssize_t r;

	if (u->s.type == SOCK_SEQPACKET && u->state != UNIX_ESTABLISHED)
		return -ENOTCONN;
	klock_lock(&u->iolock);
	r = dgram_recv_locked(u, sm);
	klock_unlock(&u->iolock);
	return r;
}

ssize_t unix_recvmsg(struct socket *s, struct sock_msg *m)
{
	if (m->flags & MSG_OOB)
		return -EOPNOTSUPP;
	return s->type == SOCK_STREAM ? stream_recv(unix_of(s), m) : dgram_recv(unix_of(s), m);
}

// --- poll -----------------------------------------------------------------------------------------------

uint32_t unix_poll(struct socket *s, struct file *f, struct poll_table *pt)
{
	struct unix_sock *u = unix_of(s), *to = u->peer;
	uint32_t mask = 0;
	bool writable = unix_writable(u);

	if (pt) {
		pt->queue(pt, &u->rd_wq);
		pt->queue(pt, &u->wr_wq);
	}
	if (s->err)
		mask |= EPOLLERR;
	if (u->shut == UNIX_SHUT_BOTH)
		mask |= EPOLLHUP;
	if (u->shut & UNIX_RCV_SHUT)
		mask |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM;
	if (!TAILQ_EMPTY(&u->queue) || !TAILQ_EMPTY(&u->accept_q))
		mask |= EPOLLIN | EPOLLRDNORM;
	if (s->type != SOCK_DGRAM && u->state == UNIX_CLOSE)
		mask |= EPOLLHUP;
	if (s->type == SOCK_DGRAM && writable && to && to->peer != u && to != u && !to->dead && unix_recvq_full(to)) {
		peer_wake_attach(u, to);
		writable = false;
	}
	if (writable)
		mask |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
	return mask;
}
