// socket(2) and its family: making sockets, names, options. Messages are in sys_sockmsg.c.
#include "sentry/syscalls/sys_socket.h"

#include <fcntl.h>
#include <stdio.h>

#include "platform/base/base.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/socket/socket.h"
#include "sentry/socket/unix/unix.h"
#include "sentry/syscalls/syscalls.h"

#define SOCK_TYPE_MASK 0xf
#define SOMAXCONN_MAX 4096U

_Static_assert(SOCK_NONBLOCK == O_NONBLOCK && SOCK_CLOEXEC == O_CLOEXEC, "flags are passed through");

int32_t socket_caller_pid(void)
{
	return current_task()->tg->pid->nr;
}

struct unix_lines {
	void (*emit)(const char *line, void *arg);
	void *arg;
};

static void unix_line(const struct unix_info *u, void *arg)
{
	struct unix_lines *l = arg;
	char line[256];

	snprintf(line, sizeof(line), "%016x: %08X %08X %08X %04X %02X %5llu%s%s\n", 0, u->refs, 0, u->flags, u->type, u->state,
		 (unsigned long long)u->ino, *u->name ? " " : "", u->name);
	l->emit(line, l->arg);
}

static void net_unix(void (*emit)(const char *line, void *arg), void *arg)
{
	unix_for_each(unix_line, &(struct unix_lines){emit, arg});
}

void sys_socket_init(void)
{
	proc_net_unix = net_unix;
	socket_self_pid = socket_caller_pid;
	unix_init();
}

int sock_get(int fd, struct file **ret_f, struct socket **ret)
{
	struct file *f = fd_get(fd);

	if (!f)
		return -EBADF;
	*ret = socket_of(f);
	if (!*ret) {
		file_put(f);
		return -ENOTSOCK;
	}
	*ret_f = f;
	return 0;
}


unsigned sock_wait_flag(const struct file *f)
{
	return f->flags & O_NONBLOCK ? MSG_DONTWAIT : 0;
}

int sock_addr_in(struct gaddr g, int64_t len, struct sockaddr_storage *ret)
{
	if (len < 0 || len > (int64_t)sizeof(*ret))
		return -EINVAL;
	return len ? copy_in(ret, g, len) : 0;
}

int sock_addr_out(struct gaddr g, struct gaddr len_addr, const struct sockaddr_storage *sa, unsigned len)
{
	int room, r = copy_in_obj(&room, len_addr);

	if (r)
		return r;
	if (room < 0)
		return -EINVAL;
	r = copy_out(g, sa, MIN((unsigned)room, len));
	return r ? r : copy_out_obj(len_addr, &len);
}

static int sock_peek(int fd, struct socket **ret)
{
	struct file *f = fd_peek(fd);

	if (!f)
		return -EBADF;
	*ret = socket_of(f);
	return *ret ? 0 : -ENOTSOCK;
}

// --- making sockets -----------------------------------------------------------------------------------

static int create(int family, int type, int protocol, struct socket **ret)
{
	const struct sock_family *f;

	if (family < 0 || family >= AF_MAX)
		return -EAFNOSUPPORT;
	if ((type & SOCK_TYPE_MASK) >= 11 || type < 0)
		return -EINVAL;
	f = socket_family(family);
	return f ? f->create(type & SOCK_TYPE_MASK, protocol, ret) : -EAFNOSUPPORT;
}

// Takes over s in any case.
static int file_of(struct socket *s, unsigned flags, struct file **ret)
{
	int r = socket_file_new(s, flags & O_NONBLOCK, ret);

	if (r)
		s->ops->release(s);
	return r;
}

SYSCALL(socket)
{
	int type = arg_int(a[1]), flags = type & ~SOCK_TYPE_MASK, r;
	struct socket *s;
	struct file *f;

	if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	r = create(arg_int(a[0]), type, arg_int(a[2]), &s);
	if (!r)
		r = file_of(s, flags, &f);
	if (r)
		return r;
	r = fd_install(f, flags & O_CLOEXEC);
	if (r < 0)
		file_put(f);
	return r;
}

static int make_pair(int family, int type, int protocol, unsigned flags, struct file *files[2])
{
	const struct sock_family *fam;
	struct socket *s[2];
	int r = create(family, type, protocol, &s[0]);

	if (r)
		return r;
	fam = socket_family(family);
	r = fam->pair ? fam->create(type & SOCK_TYPE_MASK, protocol, &s[1]) : -EOPNOTSUPP;
	if (!r) {
		r = fam->pair(s[0], s[1]);
		if (r)
			s[1]->ops->release(s[1]);
	}
	if (r) {
		s[0]->ops->release(s[0]);
		return r;
	}
	r = file_of(s[0], flags, &files[0]);
	if (r) {
		s[1]->ops->release(s[1]);
		return r;
	}
	r = file_of(s[1], flags, &files[1]);
	if (r)
		file_put(files[0]);
	return r;
}

SYSCALL(socketpair)
{
	int type = arg_int(a[1]), flags = type & ~SOCK_TYPE_MASK, fds[2], r;
	struct file *files[2];

	if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	fds[0] = fd_reserve(flags & O_CLOEXEC);
	if (fds[0] < 0)
		return fds[0];
	fds[1] = fd_reserve(flags & O_CLOEXEC);
	if (fds[1] < 0) {
		r = fds[1];
		goto fail_first;
	}
	r = make_pair(arg_int(a[0]), type, arg_int(a[2]), flags, files);
	if (r)
		goto fail_fds;
	r = copy_out(GADDR(a[3]), fds, sizeof(fds));
	if (r) {
		file_put(files[0]);
		file_put(files[1]);
		goto fail_fds;
	}
	fd_fill(fds[0], files[0]);
	fd_fill(fds[1], files[1]);
	return 0;

fail_fds:
	fd_unreserve(fds[1]);
fail_first:
	fd_unreserve(fds[0]);
	return r;
}

SYSCALL(bind)
{
	struct sockaddr_storage sa = {};
	struct socket *s;
	struct file *f;
	int r = sock_get(arg_int(a[0]), &f, &s);

	if (r)
		return r;
	r = sock_addr_in(GADDR(a[1]), arg_int(a[2]), &sa);
	if (!r)
		r = s->ops->bind ? s->ops->bind(s, &sa, arg_uint(a[2])) : -EOPNOTSUPP;
	file_put(f);
	return r;
}

SYSCALL(connect)
{
	struct sockaddr_storage sa = {};
	struct socket *s;
	struct file *f;
	int r = sock_get(arg_int(a[0]), &f, &s);

	if (r)
		return r;
	r = sock_addr_in(GADDR(a[1]), arg_int(a[2]), &sa);
	if (!r)
		r = s->ops->connect ? s->ops->connect(s, &sa, arg_uint(a[2]), f->flags & O_NONBLOCK) : -EOPNOTSUPP;
	file_put(f);
	return r;
}

SYSCALL(listen)
{
	struct socket *s;
	struct file *f;
	int r = sock_get(arg_int(a[0]), &f, &s);

	if (r)
		return r;
	r = s->ops->listen ? s->ops->listen(s, (int)MIN(arg_uint(a[1]), SOMAXCONN_MAX)) : -EOPNOTSUPP;
	file_put(f);
	return r;
}

// The file of the next connection, the caller's; its peer's name goes out if wanted.
static int accept_file(struct socket *s, bool nonblock, unsigned flags, struct gaddr name, struct gaddr namelen, struct file **ret)
{
	struct sockaddr_storage sa = {};
	struct socket *n;
	unsigned len = 0;
	int r = s->ops->accept ? s->ops->accept(s, nonblock, &n) : -EOPNOTSUPP;

	if (r)
		return r;
	r = file_of(n, flags, ret);
	if (r || gaddr_null(name))
		return r;
	r = s->ops->getname(n, true, &sa, &len);
	r = r ? -ECONNABORTED : sock_addr_out(name, namelen, &sa, len);
	if (r)
		file_put(*ret);
	return r;
}

static int64_t do_accept(const uint64_t *a, int flags)
{
	struct socket *s;
	struct file *f, *nf;
	int fd, r;

	if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
		return -EINVAL;
	r = sock_get(arg_int(a[0]), &f, &s);
	if (r)
		return r;
	fd = fd_reserve(flags & O_CLOEXEC);
	if (fd >= 0) {
		r = accept_file(s, f->flags & O_NONBLOCK, flags, GADDR(a[1]), GADDR(a[2]), &nf);
		if (r)
			fd_unreserve(fd);
		else
			fd_fill(fd, nf);
	}
	file_put(f);
	return r ? r : fd;
}

SYSCALL(accept)
{
	return do_accept(a, 0);
}

SYSCALL(accept4)
{
	return do_accept(a, arg_int(a[3]));
}

SYSCALL(shutdown)
{
	struct socket *s;
	int r = sock_peek(arg_int(a[0]), &s);

	return r ? r : s->ops->shutdown ? s->ops->shutdown(s, arg_int(a[1])) : -EOPNOTSUPP;
}

static int64_t do_getname(const uint64_t *a, bool peer)
{
	struct sockaddr_storage sa = {};
	struct socket *s;
	unsigned len = 0;
	int r = sock_peek(arg_int(a[0]), &s);

	if (!r)
		r = s->ops->getname(s, peer, &sa, &len);
	return r ? r : sock_addr_out(GADDR(a[1]), GADDR(a[2]), &sa, len);
}

SYSCALL(getsockname)
{
	return do_getname(a, false);
}

SYSCALL(getpeername)
{
	return do_getname(a, true);
}

// --- options ------------------------------------------------------------------------------------------

SYSCALL(setsockopt)
{
	char val[SOCK_OPT_MAX] = {};
	int len = arg_int(a[4]), r;
	struct socket *s;
	struct file *f;

	if (len < 0)
		return -EINVAL;
	r = sock_get(arg_int(a[0]), &f, &s);
	if (r)
		return r;
	len = MIN(len, (int)sizeof(val));
	r = copy_in(val, GADDR(a[3]), len);
	if (!r)
		r = socket_set_option(s, arg_int(a[1]), arg_int(a[2]), val, len);
	file_put(f);
	return r;
}

SYSCALL(getsockopt)
{
	char val[SOCK_OPT_MAX] = {};
	unsigned len;
	struct socket *s;
	struct file *f;
	int r = sock_get(arg_int(a[0]), &f, &s), ulen;

	if (r)
		return r;
	r = copy_in_obj(&ulen, GADDR(a[4]));
	if (!r && ulen < 0)
		r = -EINVAL;
	if (!r) {
		len = MIN((unsigned)ulen, (unsigned)sizeof(val));
		r = socket_get_option(s, arg_int(a[1]), arg_int(a[2]), val, &len);
		if (r == -ERANGE && copy_out_obj(GADDR(a[4]), &len))
			r = -EFAULT;
	}
	if (!r)
		r = copy_out(GADDR(a[3]), val, len);
	if (!r)
		r = copy_out_obj(GADDR(a[4]), &len);
	file_put(f);
	return r;
}
