// The common part of all sockets: the file, SOL_SOCKET options, passed descriptors.
#include "sentry/socket/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/slab.h"

int32_t (*socket_self_pid)(void);
static struct sock_family *families;

void socket_register(struct sock_family *f)
{
	f->next = families;
	families = f;
}

const struct sock_family *socket_family(int family)
{
	const struct sock_family *f = families;

	while (f && f->family != family)
		f = f->next;
	return f;
}

void socket_init(struct socket *s, const struct proto_ops *ops, int family, int type, int protocol)
{
	s->ops = ops;
	s->family = family;
	s->type = type;
	s->protocol = protocol;
	s->sndbuf = s->rcvbuf = SOCK_DEFAULT_BUF;
	s->rcvtimeo = s->sndtimeo = NSEC_INFINITE;
	s->rcvlowat = 1;
}

int socket_take_error(struct socket *s)
{
	int e = s->err;

	s->err = 0;
	return -e;
}

nsec_t socket_deadline(nsec_t timeo, bool nonblock)
{
	nsec_t now, at;

	if (nonblock)
		return 0;
	if (timeo == NSEC_INFINITE)
		return timeo;
	now = sched_now();
	return __builtin_add_overflow(now, timeo, &at) ? NSEC_INFINITE : at;
}

int socket_wait_error(int r, nsec_t timeo)
{
	if (r == -ETIMEDOUT)
		return -EAGAIN;
	if (r == -EINTR)
		return timeo == NSEC_INFINITE ? -ERESTARTSYS : -EINTR;
	return r;
}

// --- the file -------------------------------------------------------------------------------------

static ssize_t sock_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct socket *s = f->priv;
	struct sock_msg m = {.u = u, .flags = f->flags & O_NONBLOCK ? MSG_DONTWAIT : 0};
	ssize_t r;

	if (!u->resid)
		return 0;
	r = s->ops->recvmsg(s, &m);
	scm_files_free(m.files);
	return r;
}

static ssize_t sock_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct socket *s = f->priv;
	struct sock_msg m = {.u = u, .flags = f->flags & O_NONBLOCK ? MSG_DONTWAIT : 0};

	if (s->type == SOCK_SEQPACKET)
		m.flags |= MSG_EOR;
	return s->ops->sendmsg(s, &m);
}

static uint32_t sock_poll(struct file *f, struct poll_table *pt)
{
	struct socket *s = f->priv;

	return s->ops->poll(s, f, pt);
}

static int64_t sock_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct socket *s = f->priv;

	return s->ops->ioctl ? s->ops->ioctl(s, cmd, arg) : -ENOTTY;
}

static void sock_release(struct file *f)
{
	struct socket *s = f->priv;

	s->file = NULL;
	s->ops->release(s);
}

static const struct file_ops socket_fops = {
	.release = sock_release,
	.read = sock_read,
	.write = sock_write,
	.poll = sock_poll,
	.ioctl = sock_ioctl,
	.flags = FOP_STREAM,
};

int socket_file_new(struct socket *s, unsigned flags, struct file **ret)
{
	struct inode *inode = anon_inode_new(S_IFSOCK | 0777);
	char name[32];
	int r;

	if (!inode)
		return -ENOMEM;
	snprintf(name, sizeof(name), "socket:[%llu]", (unsigned long long)inode->ino);
	r = file_new_anon(name, inode, &socket_fops, O_RDWR | flags, s, ret);
	if (!r)
		s->file = *ret;
	return r;
}

struct socket *socket_of(const struct file *f)
{
	return f->ops == &socket_fops ? f->priv : NULL;
}

// --- descriptors on their way -----------------------------------------------------------------------

struct scm_files *scm_files_new(unsigned n)
{
	struct scm_files *s = n <= SCM_MAX_FDS ? kalloc(sizeof(*s) + n * sizeof(s->f[0])) : NULL;

	if (s)
		s->n = n;
	return s;
}

struct scm_files *scm_files_dup(const struct scm_files *s)
{
	struct scm_files *d = scm_files_new(s->n);

	for (unsigned i = 0; d && i < s->n; i++)
		d->f[i] = file_get(s->f[i]);
	return d;
}

// A file that goes may be a socket with more descriptors in its queue, and so on: the sets that come
// up meanwhile wait in a list.
void scm_files_free(struct scm_files *s)
{
	static struct scm_files *pending;
	static bool draining;

	if (!s)
		return;
	s->next = pending;
	pending = s;
	if (draining)
		return;
	draining = true;
	while ((s = pending)) {
		pending = s->next;
		for (unsigned i = 0; i < s->n; i++)
			file_put(s->f[i]);
		kfree(s);
	}
	draining = false;
}

// --- options of SOL_SOCKET ----------------------------------------------------------------------------

static int timeo_set(nsec_t *timeo, const void *val, unsigned len)
{
	struct timeval tv;

	if (len < sizeof(tv))
		return -EINVAL;
	memcpy(&tv, val, sizeof(tv));
	if (tv.tv_usec < 0 || tv.tv_usec >= 1000000)
		return -EDOM;
	if (tv.tv_sec < 0)
		*timeo = 0;
	else if ((!tv.tv_sec && !tv.tv_usec) || tv.tv_sec >= INT64_MAX / (int64_t)NSEC_PER_SEC)
		*timeo = NSEC_INFINITE;
	else
		*timeo = (nsec_t)tv.tv_sec * NSEC_PER_SEC + (nsec_t)tv.tv_usec * 1000;
	return 0;
}

static bool capable_self(unsigned cap)
{
	return cred_capable(vfs_self()->cred, cap);
}

// Linux doubles what is asked for, for its book-keeping, and shows the double.
static uint32_t buf_size(int v, bool force)
{
	uint32_t max = force ? SOCK_MAX_BUF / 2 : SOCK_DEFAULT_BUF;
	uint32_t n = v < 0 ? max : MIN((uint32_t)v, max);

	return n * 2;
}

static int set_int(struct socket *s, int name, int v)
{
	switch (name) {
	case SO_SNDBUFFORCE:
	case SO_RCVBUFFORCE:
		if (!capable_self(CAP_NET_ADMIN))
			return -EPERM;
		if (name == SO_SNDBUFFORCE)
			s->sndbuf = MAX(buf_size(v, true), 4608U);
		else
			s->rcvbuf = MAX(buf_size(v, true), 2304U);
		return 0;
	case SO_SNDBUF:
		s->sndbuf = MAX(buf_size(v, false), 4608U);
		return 0;
	case SO_RCVBUF:
		s->rcvbuf = MAX(buf_size(v, false), 2304U);
		return 0;
	case SO_REUSEADDR:
		s->reuseaddr = v;
		return 0;
	case SO_REUSEPORT:
		s->reuseport = v;
		return 0;
	case SO_KEEPALIVE:
		s->keepalive = v;
		return 0;
	case SO_BROADCAST:
		s->broadcast = v;
		return 0;
	case SO_OOBINLINE:
		s->oobinline = v;
		return 0;
	case SO_PASSCRED:
		s->passcred = v;
		return 0;
	case SO_PASSSEC:
		s->passsec = v;
		return 0;
	case SO_TIMESTAMP:
		s->timestamp = v;
		return 0;
	case SO_PRIORITY:
		if ((v < 0 || v > 6) && !capable_self(CAP_NET_ADMIN))
			return -EPERM;
		s->priority = v;
		return 0;
	case SO_MARK:
		if (!capable_self(CAP_NET_ADMIN))
			return -EPERM;
		s->mark = v;
		return 0;
	case SO_RCVLOWAT:
		s->rcvlowat = v < 0 ? INT32_MAX : v ? v : 1;
		return 0;
	case SO_DONTROUTE:
	case SO_NO_CHECK:
	case SO_BUSY_POLL:
		return 0;
	case SO_TYPE:
	case SO_PROTOCOL:
	case SO_DOMAIN:
	case SO_ERROR:
	case SO_ACCEPTCONN:
	default:
		return -ENOPROTOOPT;
	}
}

int socket_set_option(struct socket *s, int level, int name, const void *val, unsigned len)
{
	int v, r = s->ops->setsockopt ? s->ops->setsockopt(s, level, name, val, len) : -ENOPROTOOPT;

	if (r != -ENOPROTOOPT || level != SOL_SOCKET)
		return r == -ENOPROTOOPT && s->family == AF_UNIX ? -EOPNOTSUPP : r;
	switch (name) {
	case SO_RCVTIMEO:
		return timeo_set(&s->rcvtimeo, val, len);
	case SO_SNDTIMEO:
		return timeo_set(&s->sndtimeo, val, len);
	case SO_LINGER:
		if (len < sizeof(s->linger))
			return -EINVAL;
		memcpy(&s->linger, val, sizeof(s->linger));
		s->linger.l_onoff = !!s->linger.l_onoff;
		return 0;
	case SO_ATTACH_FILTER:
	case SO_ATTACH_BPF:
		return -ENOPROTOOPT;
	default:
		break;
	}
	if (len < sizeof(v))
		return -EINVAL;
	memcpy(&v, val, sizeof(v));
	return set_int(s, name, v);
}

static int get_int(struct socket *s, int name, int *ret)
{
	switch (name) {
	case SO_TYPE:
		*ret = s->type;
		return 0;
	case SO_DOMAIN:
		*ret = s->family;
		return 0;
	case SO_PROTOCOL:
		*ret = s->protocol;
		return 0;
	case SO_ERROR:
		*ret = -socket_take_error(s);
		return 0;
	case SO_SNDBUF:
		*ret = (int)s->sndbuf;
		return 0;
	case SO_RCVBUF:
		*ret = (int)s->rcvbuf;
		return 0;
	case SO_REUSEADDR:
		*ret = s->reuseaddr;
		return 0;
	case SO_REUSEPORT:
		*ret = s->reuseport;
		return 0;
	case SO_KEEPALIVE:
		*ret = s->keepalive;
		return 0;
	case SO_BROADCAST:
		*ret = s->broadcast;
		return 0;
	case SO_OOBINLINE:
		*ret = s->oobinline;
		return 0;
	case SO_PASSCRED:
		*ret = s->passcred;
		return 0;
	case SO_PASSSEC:
		*ret = s->passsec;
		return 0;
	case SO_TIMESTAMP:
		*ret = s->timestamp;
		return 0;
	case SO_PRIORITY:
		*ret = (int)s->priority;
		return 0;
	case SO_MARK:
		*ret = (int)s->mark;
		return 0;
	case SO_RCVLOWAT:
		*ret = s->rcvlowat;
		return 0;
	case SO_SNDLOWAT:
		*ret = 1;
		return 0;
	case SO_ACCEPTCONN:
	case SO_DONTROUTE:
	case SO_NO_CHECK:
	case SO_BUSY_POLL:
	case SO_INCOMING_CPU:
		*ret = 0;
		return 0;
	default:
		return -ENOPROTOOPT;
	}
}

static int put_opt(void *val, unsigned *len, const void *src, unsigned n)
{
	*len = MIN(*len, n);
	memcpy(val, src, *len);
	return 0;
}

int socket_get_option(struct socket *s, int level, int name, void *val, unsigned *len)
{
	int v, r = s->ops->getsockopt ? s->ops->getsockopt(s, level, name, val, len) : -ENOPROTOOPT;
	struct timeval tv;
	nsec_t t;

	if (r != -ENOPROTOOPT || level != SOL_SOCKET)
		return r == -ENOPROTOOPT && s->family == AF_UNIX ? -EOPNOTSUPP : r;
	switch (name) {
	case SO_RCVTIMEO:
	case SO_SNDTIMEO:
		t = name == SO_RCVTIMEO ? s->rcvtimeo : s->sndtimeo;
		t = t == NSEC_INFINITE ? 0 : t;
		tv = (struct timeval){(time_t)(t / NSEC_PER_SEC), (suseconds_t)(t % NSEC_PER_SEC / 1000)};
		return put_opt(val, len, &tv, sizeof(tv));
	case SO_LINGER:
		return put_opt(val, len, &s->linger, sizeof(s->linger));
	default:
		r = get_int(s, name, &v);
		return r ? r : put_opt(val, len, &v, sizeof(v));
	}
}
