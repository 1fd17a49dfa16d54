// sendmsg(2), recvmsg(2) and the rest of their family; control messages (cmsg(3)).
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sys/uio.h>

#include "platform/base/base.h"
#include "sentry/syscalls/sys_socket.h"
#include "sentry/syscalls/wire.h"

#define CONTROL_MAX 65536UL

struct abi_msghdr {
	uint64_t name;
	int32_t namelen, pad;
	uint64_t iov, iovlen, control, controllen;
	uint32_t flags, pad2;
};
struct abi_cmsghdr {
	uint64_t len;
	int32_t level, type;
};
#define CMSG_HDR sizeof(struct abi_cmsghdr)
static uint64_t cmsg_align(uint64_t n) { return (n + 7) & ~7ULL; }

// --- control messages, out of the guest ------------------------------------------------------------------

static int creds_check(const struct sock_creds *c)
{
	const struct cred *me = vfs_self()->cred;

	if (c->pid != socket_caller_pid() && !cred_capable(me, CAP_SYS_ADMIN))
		return -EPERM;
	if (c->uid != me->uid && c->uid != me->euid && c->uid != me->suid && !cred_capable(me, CAP_SETUID))
		return -EPERM;
	if (c->gid != me->gid && c->gid != me->egid && c->gid != me->sgid && !cred_capable(me, CAP_SETGID))
		return -EPERM;
	return 0;
}

static int rights_in(struct sock_msg *m, const char *data, size_t len)
{
	unsigned n = len / sizeof(int), have = m->files ? m->files->n : 0;
	struct scm_files *all;
	int fd;

	if (have + n > SCM_MAX_FDS)
		return -EINVAL;
	if (!n)
		return 0;
	all = scm_files_new(have + n);
	if (!all)
		return -ENOMEM;
	for (unsigned i = 0; i < have; i++)
		all->f[i] = file_get(m->files->f[i]);
	scm_files_free(m->files);
	m->files = all;
	for (unsigned i = 0; i < n; i++) {
		memcpy(&fd, data + i * sizeof(fd), sizeof(fd));
		all->f[have + i] = fd_get_path_ok(fd);
		if (!all->f[have + i])
			return -EBADF; // the set is freed as it is
	}
	return 0;
}

static int control_in(const struct socket *s, struct sock_msg *m, struct gaddr g, uint64_t len)
{
	uint64_t off = 0, data;
	struct abi_cmsghdr h;
	char *buf;
	int r;

	if (len > CONTROL_MAX)
		return -ENOBUFS;
	if (len < CMSG_HDR)
		return 0;
	buf = arena_alloc(len);
	if (!buf)
		return -ENOBUFS;
	r = copy_in(buf, g, len);
	if (r)
		return r;
	for (; off + CMSG_HDR <= len; off += cmsg_align(h.len)) {
		memcpy(&h, buf + off, sizeof(h));
		if (h.len < CMSG_HDR || h.len > len - off)
			return -EINVAL;
		if (h.level != SOL_SOCKET)
			continue;
		data = h.len - CMSG_HDR;
		switch (h.type) {
		case SCM_RIGHTS:
			r = s->family == AF_UNIX ? rights_in(m, buf + off + CMSG_HDR, data) : -EINVAL;
			break;
		case SCM_CREDENTIALS:
			if (data != sizeof(m->creds))
				return -EINVAL;
			memcpy(&m->creds, buf + off + CMSG_HDR, sizeof(m->creds));
			m->has_creds = true;
			r = creds_check(&m->creds);
			break;
		default:
			r = -EINVAL;
		}
		if (r)
			return r;
	}
	return 0;
}

// --- and back ---------------------------------------------------------------------------------------------

struct control {
	struct gaddr at;
	uint64_t room, used;
	unsigned flags; // MSG_CTRUNC
};

static int control_put(struct control *c, int type, const void *data, uint64_t len)
{
	struct abi_cmsghdr h = {CMSG_HDR + len, SOL_SOCKET, type};
	int r;

	if (gaddr_null(c->at) || c->room < CMSG_HDR) {
		c->flags |= MSG_CTRUNC;
		return 0;
	}
	if (c->room < h.len) {
		c->flags |= MSG_CTRUNC;
		h.len = c->room;
	}
	r = copy_out_obj(c->at, &h);
	if (!r)
		r = copy_out(gaddr_add(c->at, CMSG_HDR), data, h.len - CMSG_HDR);
	if (r)
		return r;
	len = MIN(cmsg_align(h.len), c->room);
	c->at = gaddr_add(c->at, len);
	c->room -= len;
	c->used += len;
	return 0;
}

static int rights_out(struct control *c, struct scm_files *files, unsigned cloexec)
{
	unsigned n = gaddr_null(c->at) || c->room < CMSG_HDR ? 0 : (c->room - CMSG_HDR) / sizeof(int), i;
	int fds[SCM_MAX_FDS];

	n = MIN(n, files->n);
	for (i = 0; i < n; i++) {
		fds[i] = fd_install(files->f[i], cloexec);
		if (fds[i] < 0)
			break;
		files->f[i] = NULL;
	}
	if (i < files->n)
		c->flags |= MSG_CTRUNC;
	return i ? control_put(c, SCM_RIGHTS, fds, i * sizeof(int)) : 0;
}

static int control_out(struct control *c, struct sock_msg *m)
{
	int r = 0;

	if (m->has_creds)
		r = control_put(c, SCM_CREDENTIALS, &m->creds, sizeof(m->creds));
	if (!r && m->files)
		r = rights_out(c, m->files, m->flags & MSG_CMSG_CLOEXEC ? O_CLOEXEC : 0);
	return r;
}

// --- send ---------------------------------------------------------------------------------------------------

#define SEND_FLAGS (MSG_OOB | MSG_DONTROUTE | MSG_DONTWAIT | MSG_EOR | MSG_CONFIRM | MSG_NOSIGNAL | MSG_MORE | MSG_FASTOPEN | MSG_ZEROCOPY | MSG_BATCH)

static int64_t send_one(struct file *f, struct socket *s, struct gaddr umsg, unsigned flags)
{
	struct sockaddr_storage sa = {};
	struct abi_msghdr h;
	struct uio u;
	struct sock_msg m = {.u = &u, .flags = (flags & (SEND_FLAGS & ~MSG_BATCH)) | sock_wait_flag(f)};
	int64_t r = copy_in_obj(&h, umsg);

	if (r)
		return r;
	if (h.namelen < 0)
		return -EINVAL;
	if (h.name && h.namelen) {
		m.namelen = MIN((size_t)h.namelen, sizeof(sa));
		m.name = &sa;
		r = sock_addr_in(GADDR(h.name), m.namelen, &sa);
	}
	if (!r && h.iovlen > 1024)
		r = -EMSGSIZE;
	if (!r)
		r = copy_in_iov(&u, GADDR(h.iov), h.iovlen);
	if (!r)
		r = control_in(s, &m, GADDR(h.control), h.controllen);
	if (!r)
		r = s->ops->sendmsg(s, &m);
	scm_files_free(m.files);
	return r;
}

SYSCALL(sendmsg)
{
	struct socket *s;
	struct file *f;
	int64_t r = sock_get(arg_int(a[0]), &f, &s);

	if (r)
		return r;
	r = send_one(f, s, GADDR(a[1]), arg_uint(a[2]));
	file_put(f);
	return r;
}

SYSCALL(sendmmsg)
{
	unsigned n = MIN(arg_uint(a[2]), (unsigned)IOV_MAX), i;
	struct gaddr v = GADDR(a[1]);
	struct socket *s;
	struct file *f;
	int64_t r = sock_get(arg_int(a[0]), &f, &s);
	uint32_t len;

	if (r)
		return r;
	for (i = 0; i < n; i++, v = gaddr_add(v, 64)) {
		r = send_one(f, s, v, arg_uint(a[3]));
		if (r < 0)
			break;
		len = (uint32_t)r;
		r = copy_out_obj(gaddr_add(v, sizeof(struct abi_msghdr)), &len);
		if (r)
			break;
		cond_resched();
	}
	file_put(f);
	return i ? (int64_t)i : r;
}

SYSCALL(sendto)
{
	struct sockaddr_storage sa = {};
	struct giov iov;
	struct uio u;
	struct sock_msg m = {.u = &u};
	struct socket *s;
	struct file *f;
	int64_t r;

	if (!access_ok(GADDR(a[1]), MIN(a[2], (uint64_t)INT_MAX)))
		return -EFAULT;
	r = sock_get(arg_int(a[0]), &f, &s);
	if (r)
		return r;
	u = uio_guest(&iov, GADDR(a[1]), a[2]);
	m.flags = (arg_uint(a[3]) & (SEND_FLAGS & ~MSG_BATCH)) | sock_wait_flag(f);
	if (a[4]) {
		m.name = &sa;
		m.namelen = arg_uint(a[5]);
		r = sock_addr_in(GADDR(a[4]), arg_int(a[5]), &sa);
	}
	if (!r)
		r = s->ops->sendmsg(s, &m);
	file_put(f);
	return r;
}

// --- receive --------------------------------------------------------------------------------------------------

// h: copied in already.
static int64_t recv_one(struct file *f, struct socket *s, struct gaddr umsg, unsigned flags)
{
	struct sockaddr_storage sa = {};
	struct control c;
	struct abi_msghdr h;
	struct uio u;
	struct sock_msg m = {.u = &u, .flags = flags | sock_wait_flag(f), .name = &sa};
	int64_t r = copy_in_obj(&h, umsg), n;

	if (r)
		return r;
	if (h.namelen < 0)
		return -EINVAL;
	if (h.iovlen > 1024)
		return -EMSGSIZE;
	r = copy_in_iov(&u, GADDR(h.iov), h.iovlen);
	if (r)
		return r;
	n = s->ops->recvmsg(s, &m);
	if (n < 0) {
		scm_files_free(m.files);
		return n;
	}
	c = (struct control){.at = GADDR(h.control), .room = h.control ? h.controllen : 0};
	r = control_out(&c, &m);
	scm_files_free(m.files);
	if (!r && h.name) {
		r = copy_out(GADDR(h.name), &sa, MIN((unsigned)h.namelen, m.namelen));
		if (!r)
			r = copy_out_obj(gaddr_add(umsg, offsetof(struct abi_msghdr, namelen)), &m.namelen);
	}
	h.flags = m.ret_flags | c.flags | (flags & MSG_CMSG_CLOEXEC);
	if (!r)
		r = copy_out_obj(gaddr_add(umsg, offsetof(struct abi_msghdr, flags)), &h.flags);
	if (!r)
		r = copy_out_obj(gaddr_add(umsg, offsetof(struct abi_msghdr, controllen)), &c.used);
	return r ? r : n;
}

SYSCALL(recvmsg)
{
	struct socket *s;
	struct file *f;
	int64_t r = sock_get(arg_int(a[0]), &f, &s);

	if (r)
		return r;
	r = recv_one(f, s, GADDR(a[1]), arg_uint(a[2]));
	file_put(f);
	return r;
}

// The time-out is looked at after each message only, as on Linux (see BUGS in recvmmsg(2)).
SYSCALL(recvmmsg)
{
	unsigned n = MIN(arg_uint(a[2]), (unsigned)IOV_MAX), flags = arg_uint(a[3]), i;
	struct gaddr v = GADDR(a[1]);
	nsec_t deadline, now;
	struct socket *s;
	struct file *f;
	int64_t r = wire_deadline_in(GADDR(a[4]), &deadline);
	uint32_t len;

	if (!r)
		r = sock_get(arg_int(a[0]), &f, &s);
	if (r)
		return r;
	r = socket_take_error(s);
	for (i = 0; !r && i < n; v = gaddr_add(v, 64)) {
		r = recv_one(f, s, v, flags & ~MSG_WAITFORONE);
		if (r < 0)
			break;
		len = (uint32_t)r;
		r = copy_out_obj(gaddr_add(v, sizeof(struct abi_msghdr)), &len);
		if (r)
			break;
		i++;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		if (deadline != NSEC_INFINITE && sched_now() >= deadline)
			break;
		cond_resched();
	}
	file_put(f);
	if (i && deadline != NSEC_INFINITE) {
		struct timespec left;

		now = sched_now();
		now = deadline > now ? deadline - now : 0;
		left = (struct timespec){(time_t)(now / NSEC_PER_SEC), (long)(now % NSEC_PER_SEC)};
		if (copy_out_obj(GADDR(a[4]), &left))
			return -EFAULT;
	}
	return i ? (int64_t)i : r;
}

SYSCALL(recvfrom)
{
	struct sockaddr_storage sa = {};
	struct giov iov;
	struct uio u;
	struct sock_msg m = {.u = &u, .name = a[4] ? &sa : NULL};
	struct socket *s;
	struct file *f;
	int64_t r;
	int e;

	if (!access_ok(GADDR(a[1]), MIN(a[2], (uint64_t)INT_MAX)))
		return -EFAULT;
	r = sock_get(arg_int(a[0]), &f, &s);
	if (r)
		return r;
	u = uio_guest(&iov, GADDR(a[1]), a[2]);
	m.flags = arg_uint(a[3]) | sock_wait_flag(f);
	r = s->ops->recvmsg(s, &m);
	scm_files_free(m.files); // nobody asked for them
	if (r >= 0 && a[4]) {
		e = sock_addr_out(GADDR(a[4]), GADDR(a[5]), &sa, m.namelen);
		r = e ? e : r;
	}
	file_put(f);
	return r;
}
