// Life of AF_UNIX sockets: creation, connections, shutdown, options.
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/socket/unix/internal.h"

DEFINE_SLAB(unix_slab, struct unix_sock);
struct unix_list unix_all = LIST_HEAD_INITIALIZER(unix_all);

void unix_self_creds(struct sock_creds *ret)
{
	const struct cred *c = vfs_self()->cred;

	*ret = (struct sock_creds){socket_self_pid ? socket_self_pid() : 0, c->euid, c->egid};
}

struct unix_sock *unix_new(int type)
{
	struct unix_sock *u = SLAB_NEW(unix_slab, struct unix_sock);

	if (!u)
		return NULL;
	socket_init(&u->s, &unix_ops, AF_UNIX, type, 0);
	ref_init(&u->refs, 1);
	TAILQ_INIT(&u->queue);
	TAILQ_INIT(&u->accept_q);
	klock_init(&u->iolock);
	klock_init(&u->bindlock);
	waitq_init(&u->rd_wq);
	waitq_init(&u->wr_wq);
	waitq_init(&u->peer_wq);
	u->peer_creds = (struct sock_creds){0, UINT32_MAX, UINT32_MAX};
	LIST_INSERT_HEAD(&unix_all, u, all);
	return u;
}

struct unix_sock *unix_get(struct unix_sock *u)
{
	ref_get(&u->refs);
	return u;
}

// A peer's last reference may be ours, and so on: at most two deep, as a dead socket has no peer.
void unix_put(struct unix_sock *u)
{
	if (!u || !ref_put(&u->refs))
		return;
	kassert(u->dead && TAILQ_EMPTY(&u->queue) && !u->wmem);
	if (u->peer_cred)
		cred_put((struct cred *)u->peer_cred);
	unix_addr_put(u->addr);
	LIST_REMOVE(u, all);
	slab_free(&unix_slab, u);
}

static void creds_from_self(struct unix_sock *u)
{
	unix_self_creds(&u->peer_creds);
	if (u->peer_cred)
		cred_put((struct cred *)u->peer_cred);
	u->peer_cred = cred_get(vfs_self()->cred);
}

static void creds_copy(struct unix_sock *to, const struct unix_sock *from)
{
	to->peer_creds = from->peer_creds;
	if (to->peer_cred)
		cred_put((struct cred *)to->peer_cred);
	to->peer_cred = from->peer_cred ? cred_get(from->peer_cred) : NULL;
}

// --- release --------------------------------------------------------------------------------------

static void unix_close(struct unix_sock *u);

static void leave_peer(struct unix_sock *u, bool reset)
{
	struct unix_sock *peer = u->peer;

	if (!peer)
		return;
	if (u->s.type != SOCK_DGRAM) {
		peer->shut = UNIX_SHUT_BOTH;
		if (reset)
			peer->s.err = ECONNRESET;
		unix_wake_all(peer);
	}
	unix_peer_wake_detach(u);
	u->peer = NULL;
	unix_put(peer);
}

static void unix_close(struct unix_sock *u)
{
	struct unix_sock *e;
	struct wait_entry *w;
	bool unread = !TAILQ_EMPTY(&u->queue);

	unix_unbind(u);
	u->dead = true;
	u->shut = UNIX_SHUT_BOTH;
	u->state = UNIX_CLOSE;
	waitq_wake_all(&u->peer_wq, 0);
	while ((w = TAILQ_FIRST(&u->peer_wq.head)))
		waitq_remove(w);
	leave_peer(u, unread || u->embryo);
	while ((e = TAILQ_FIRST(&u->accept_q))) {
		TAILQ_REMOVE(&u->accept_q, e, accept_link);
		u->accept_len--;
		unix_close(e); // an embryo has no accept queue: no deeper than this
	}
	unix_purge(u);
	unix_put(u);
}

static void unix_release(struct socket *s)
{
	unix_close(unix_of(s));
	unix_gc();
}

// --- connect, listen, accept ------------------------------------------------------------------------

static int unix_listen(struct socket *s, int backlog)
{
	struct unix_sock *u = unix_of(s);

	if (s->type != SOCK_STREAM && s->type != SOCK_SEQPACKET)
		return -EOPNOTSUPP;
	if (!u->addr || (u->state != UNIX_CLOSE && u->state != UNIX_LISTEN))
		return -EINVAL;
	u->backlog = (unsigned)backlog > 4096 ? 4096 : backlog; // net.core.somaxconn
	waitq_wake_all(&u->peer_wq, 0);
	u->state = UNIX_LISTEN;
	creds_from_self(u); // who connects sees these
	return 0;
}

// A listener that has room, referenced; or an error.
static int wait_for_room(struct unix_sock *u, const struct sockaddr_un *sun, unsigned len, nsec_t deadline, struct unix_sock **ret)
{
	struct unix_sock *l;
	int r;

	for (;;) {
		r = unix_find(sun, len, u->s.type, &l);
		if (r)
			return r;
		if (l->state != UNIX_LISTEN || l->shut & UNIX_RCV_SHUT) {
			unix_put(l);
			return -ECONNREFUSED;
		}
		if ((int)l->accept_len <= l->backlog) {
			*ret = l;
			return 0;
		}
		r = deadline ? waitq_sleep(&l->peer_wq, WAIT_INTERRUPTIBLE, deadline) : -ETIMEDOUT;
		unix_put(l);
		if (r)
			return socket_wait_error(r, u->s.sndtimeo);
	}
}

static int stream_connect(struct unix_sock *u, const struct sockaddr_un *sun, unsigned len, bool nonblock)
{
	struct unix_sock *l, *n;
	int r;

	r = wait_for_room(u, sun, len, socket_deadline(u->s.sndtimeo, nonblock), &l);
	if (r)
		return r;
	// Nothing waits from here on: the listener has room, still.
	if (u->state != UNIX_CLOSE) {
		r = u->state == UNIX_ESTABLISHED ? -EISCONN : -EINVAL;
		unix_put(l);
		return r;
	}
	n = unix_new(u->s.type);
	if (!n) {
		unix_put(l);
		return -ENOMEM;
	}
	n->embryo = true;
	n->peer = unix_get(u);
	n->state = UNIX_ESTABLISHED;
	n->s.passcred = l->s.passcred;
	n->s.sndbuf = l->s.sndbuf;
	creds_from_self(n);
	n->addr = l->addr;
	ref_get(&l->addr->refs);
	creds_copy(u, l);
	u->peer = unix_get(n);
	u->state = UNIX_ESTABLISHED;
	TAILQ_INSERT_TAIL(&l->accept_q, n, accept_link);
	l->accept_len++;
	waitq_wake(&l->rd_wq, EPOLLIN | EPOLLRDNORM);
	unix_put(l);
	return 0;
}

static void dgram_set_peer(struct unix_sock *u, struct unix_sock *peer)
{
	struct unix_sock *old = u->peer;

	u->peer = peer;
	unix_peer_wake_detach(u);
	if (!old || old == peer) {
		unix_put(old);
		return;
	}
	unix_purge(u);
	waitq_wake_all(&u->peer_wq, 0);
	if (!old->dead && old->peer == u)
		old->s.err = ECONNRESET;
	unix_put(old);
}

static int dgram_connect(struct unix_sock *u, const struct sockaddr_un *sun, unsigned len)
{
	struct unix_sock *to;
	int r;

	if (u->s.passcred && !u->addr) {
		r = unix_autobind(u);
		if (r)
			return r;
	}
	r = unix_find(sun, len, SOCK_DGRAM, &to);
	if (r)
		return r;
	if (!unix_may_send(u, to)) {
		unix_put(to);
		return -EPERM;
	}
	dgram_set_peer(u, to);
	return 0;
}

static int unix_connect(struct socket *s, const struct sockaddr_storage *sa, unsigned len, bool nonblock)
{
	struct unix_sock *u = unix_of(s);
	struct sockaddr_un sun;
	int r;

	if (s->type == SOCK_DGRAM && len >= sizeof(sa->ss_family) && sa->ss_family == AF_UNSPEC) {
		dgram_set_peer(u, NULL);
		return 0;
	}
	r = unix_addr_parse(sa, len, &sun, &len);
	if (r)
		return r;
	if (s->type == SOCK_DGRAM)
		return dgram_connect(u, &sun, len);
	if (s->passcred && !u->addr) {
		r = unix_autobind(u);
		if (r)
			return r;
	}
	return stream_connect(u, &sun, len, nonblock);
}

static int unix_accept(struct socket *s, bool nonblock, struct socket **ret)
{
	struct unix_sock *u = unix_of(s), *n;
	int r;

	if (s->type == SOCK_DGRAM)
		return -EOPNOTSUPP;
	if (u->state != UNIX_LISTEN)
		return -EINVAL;
	if (TAILQ_EMPTY(&u->accept_q) && !(u->shut & UNIX_RCV_SHUT)) {
		if (nonblock)
			return -EAGAIN;
		r = wait_event_until(&u->rd_wq, !TAILQ_EMPTY(&u->accept_q) || u->shut & UNIX_RCV_SHUT, WAIT_INTERRUPTIBLE,
				     socket_deadline(s->rcvtimeo, false));
		if (r)
			return socket_wait_error(r, s->rcvtimeo);
	}
	n = TAILQ_FIRST(&u->accept_q);
	if (!n)
		return -EINVAL;
	TAILQ_REMOVE(&u->accept_q, n, accept_link);
	u->accept_len--;
	n->embryo = false;
	waitq_wake(&u->peer_wq, 0);
	*ret = &n->s;
	return 0;
}

static int unix_pair(struct socket *sa, struct socket *sb)
{
	struct unix_sock *a = unix_of(sa), *b = unix_of(sb);

	a->peer = unix_get(b);
	b->peer = unix_get(a);
	creds_from_self(a);
	creds_from_self(b);
	a->state = b->state = UNIX_ESTABLISHED;
	return 0;
}

static int unix_shutdown(struct socket *s, int how)
{
	struct unix_sock *u = unix_of(s), *peer = u->peer;
	uint8_t mode = (uint8_t)(how + 1);

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	u->shut |= mode;
	if (peer && s->type != SOCK_DGRAM) {
		if (mode & UNIX_RCV_SHUT)
			peer->shut |= UNIX_SEND_SHUT;
		if (mode & UNIX_SEND_SHUT)
			peer->shut |= UNIX_RCV_SHUT;
		unix_wake_all(peer);
	}
	unix_wake_all(u);
	waitq_wake_all(&u->peer_wq, 0);
	return 0;
}

static int unix_getname(struct socket *s, bool peer, struct sockaddr_storage *sa, unsigned *ret_len)
{
	struct unix_sock *u = unix_of(s);

	if (peer) {
		u = u->peer;
		if (!u)
			return -ENOTCONN;
	}
	unix_addr_out(u->addr, sa, ret_len);
	return 0;
}

// --- options, ioctl -----------------------------------------------------------------------------------

static int get_peergroups(const struct unix_sock *u, void *val, unsigned *len)
{
	const struct cred *c = u->peer_cred;
	unsigned n;

	if (!c)
		return -ENODATA;
	n = c->ngroups * sizeof(uint32_t);
	if (*len < n) {
		*len = n;
		return -ERANGE;
	}
	if (n)
		memcpy(val, c->groups, n);
	*len = n;
	return 0;
}

static int unix_getsockopt(struct socket *s, int level, int name, void *val, unsigned *len)
{
	struct unix_sock *u = unix_of(s);
	int v;

	if (level != SOL_SOCKET)
		return -ENOPROTOOPT;
	switch (name) {
	case SO_PEERCRED:
		*len = MIN(*len, (unsigned)sizeof(u->peer_creds));
		memcpy(val, &u->peer_creds, *len);
		return 0;
	case SO_PEERGROUPS:
		return get_peergroups(u, val, len);
	case SO_ACCEPTCONN:
		v = u->state == UNIX_LISTEN;
		*len = MIN(*len, (unsigned)sizeof(v));
		memcpy(val, &v, *len);
		return 0;
	default:
		return -ENOPROTOOPT;
	}
}

static int64_t unix_ioctl(struct socket *s, unsigned cmd, uint64_t arg)
{
	struct unix_sock *u = unix_of(s);
	struct umsg *m;
	uint64_t n = 0;
	int v;

	switch (cmd) {
	case FIONREAD: // SIOCINQ
		if (u->state == UNIX_LISTEN)
			return -EINVAL;
		TAILQ_FOREACH(m, &u->queue, link) {
			n += m->len - m->off;
			if (s->type == SOCK_DGRAM)
				break;
		}
		v = (int)MIN(n, (uint64_t)INT32_MAX);
		return copy_out_obj(GADDR(arg), &v);
	case TIOCOUTQ: // SIOCOUTQ
		v = (int)u->wmem;
		return copy_out_obj(GADDR(arg), &v);
	default:
		return -ENOTTY;
	}
}

const struct proto_ops unix_ops = {
	.bind = unix_bind,
	.connect = unix_connect,
	.listen = unix_listen,
	.accept = unix_accept,
	.getname = unix_getname,
	.shutdown = unix_shutdown,
	.sendmsg = unix_sendmsg,
	.recvmsg = unix_recvmsg,
	.poll = unix_poll,
	.ioctl = unix_ioctl,
	.getsockopt = unix_getsockopt,
	.release = unix_release,
};

// --- the family ------------------------------------------------------------------------------------------

static int unix_create(int type, int protocol, struct socket **ret)
{
	struct unix_sock *u;

	if (protocol && protocol != AF_UNIX)
		return -EPROTONOSUPPORT;
	switch (type) {
	case SOCK_STREAM:
	case SOCK_DGRAM:
	case SOCK_SEQPACKET:
		break;
	case SOCK_RAW: // BSD's name for it
		type = SOCK_DGRAM;
		break;
	default:
		return -ESOCKTNOSUPPORT;
	}
	u = unix_new(type);
	if (!u)
		return -ENOMEM;
	*ret = &u->s;
	return 0;
}

void unix_init(void)
{
	static struct sock_family family = {.family = AF_UNIX, .create = unix_create, .pair = unix_pair};

	if (!socket_family(AF_UNIX))
		socket_register(&family);
}

void unix_for_each(void (*fn)(const struct unix_info *info, void *arg), void *arg)
{
	struct unix_sock *u;
	char name[sizeof(u->addr->sun.sun_path) + 2];

	LIST_FOREACH(u, &unix_all, all) {
		struct unix_info info = {
			.refs = ref_read(&u->refs),
			.flags = u->state == UNIX_LISTEN ? 0x10000 : 0,
			.type = u->s.type,
			// SS_UNCONNECTED, SS_CONNECTED; of sockets not yet accepted SS_CONNECTING.
			.state = u->embryo ? 2 : u->state == UNIX_ESTABLISHED ? 3 : 1,
			.ino = u->s.file ? u->s.file->inode->ino : 0,
			.name = name,
		};
		size_t n = 0;

		if (u->addr) {
			n = u->addr->len - offsetof(struct sockaddr_un, sun_path);
			memcpy(name, u->addr->sun.sun_path, n);
			for (size_t i = 0; i < n; i++)
				if (!name[i])
					name[i] = '@';
			if (u->addr->sun.sun_path[0])
				n = strnlen(u->addr->sun.sun_path, n);
		}
		name[n] = 0;
		fn(&info, arg);
	}
}
