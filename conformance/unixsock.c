// AF_UNIX sockets and the socket calls.
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

static char big[1 << 20], back[1 << 20], dir[64];

static int pevents(int fd, short ev)
{
	struct pollfd p = {fd, ev};

	return poll(&p, 1, 0) < 0 ? -1 : p.revents;
}

static socklen_t path_addr(struct sockaddr_un *a, const char *p)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, p);
	return sizeof(*a);
}

static socklen_t abstract_addr(struct sockaddr_un *a, const char *p)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path + 1, p);
	return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(p);
}

static void creation(void)
{
	int sp[2], v, s;
	socklen_t l = sizeof(v);
	struct stat st;

	CHECK_ERR("bad type", socket(AF_UNIX, 77, 0), EINVAL);
	CHECK_ERR("rdm", socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
	CHECK_ERR("bad proto", socket(AF_UNIX, SOCK_STREAM, 9), EPROTONOSUPPORT);
	CHECK_ERR("bad family", socket(99, SOCK_STREAM, 0), EAFNOSUPPORT);
	CHECK_ERR("pair fault", socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)8), EFAULT);
	CHECK("pair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sp) == 0);
	CHECK("flags", fcntl(sp[0], F_GETFL) == (O_RDWR | O_NONBLOCK) && fcntl(sp[1], F_GETFD) == FD_CLOEXEC);
	CHECK("fstat", fstat(sp[0], &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0777);
	CHECK("type", getsockopt(sp[0], SOL_SOCKET, SO_TYPE, &v, &l) == 0 && v == SOCK_STREAM && l == 4);
	CHECK("domain", getsockopt(sp[0], SOL_SOCKET, SO_DOMAIN, &v, &l) == 0 && v == AF_UNIX);
	CHECK("error", getsockopt(sp[0], SOL_SOCKET, SO_ERROR, &v, &l) == 0 && v == 0);
	CHECK("accepting", getsockopt(sp[0], SOL_SOCKET, SO_ACCEPTCONN, &v, &l) == 0 && v == 0);
	CHECK("sndbuf", getsockopt(sp[0], SOL_SOCKET, SO_SNDBUF, &v, &l) == 0 && v == 212992);
	v = 8192;
	CHECK("set sndbuf", setsockopt(sp[0], SOL_SOCKET, SO_SNDBUF, &v, 4) == 0 && getsockopt(sp[0], SOL_SOCKET, SO_SNDBUF, &v, &l) == 0 && v == 16384);
	CHECK_ERR("set type", setsockopt(sp[0], SOL_SOCKET, SO_TYPE, &v, 4), ENOPROTOOPT);
	CHECK_ERR("set short", setsockopt(sp[0], SOL_SOCKET, SO_SNDBUF, &v, 2), EINVAL);
	CHECK_ERR("other level", setsockopt(sp[0], IPPROTO_TCP, 1, &v, 4), EOPNOTSUPP);
	CHECK_ERR("lseek", lseek(sp[0], 0, SEEK_SET), ESPIPE);
	CHECK_ERR("no socket", getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &l), ENOTSOCK);
	CHECK_ERR("badf", getsockopt(200, SOL_SOCKET, SO_TYPE, &v, &l), EBADF);
	close(sp[0]);
	close(sp[1]);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK("unconnected poll", pevents(s, POLLIN | POLLOUT) == (POLLOUT | POLLHUP));
	CHECK_ERR("unconnected read", read(s, &v, 1), EINVAL);
	CHECK_ERR("unconnected write", write(s, &v, 1), ENOTCONN);
	CHECK_ERR("unconnected accept", accept(s, NULL, NULL), EINVAL);
	CHECK_ERR("unbound listen", listen(s, 1), EINVAL);
	CHECK_ERR("peername", getpeername(s, (void *)&st, &l), ENOTCONN);
	close(s);
}

static void streams(void)
{
	int sp[2], n, st;
	pid_t pid;
	char b[16];
	struct timeval tv = {0, 50000};

	signal(SIGPIPE, SIG_IGN);
	socketpair(AF_UNIX, SOCK_STREAM, 0, sp);
	CHECK("send", send(sp[0], "hello", 5, 0) == 5);
	CHECK("inq", ioctl(sp[1], SIOCINQ, &n) == 0 && n == 5);
	CHECK("peek", recv(sp[1], b, 16, MSG_PEEK) == 5 && recv(sp[1], b, 2, 0) == 2);
	CHECK("glue", send(sp[0], "more", 4, 0) == 4 && recv(sp[1], b, 16, 0) == 7 && !memcmp(b, "llomore", 7));
	CHECK_ERR("dontwait", recv(sp[1], b, 16, MSG_DONTWAIT), EAGAIN);
	CHECK_ERR("sendto", sendto(sp[0], "x", 1, 0, (void *)&(struct sockaddr_un){AF_UNIX, "x"}, sizeof(struct sockaddr_un)), EISCONN);
	setsockopt(sp[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	CHECK_ERR("rcvtimeo", recv(sp[1], b, 16, 0), EAGAIN);
	CHECK("shutdown wr", shutdown(sp[0], SHUT_WR) == 0 && recv(sp[1], b, 16, 0) == 0);
	CHECK("rdhup", pevents(sp[1], POLLIN | POLLRDHUP | POLLOUT) == (POLLIN | POLLRDHUP | POLLOUT));
	CHECK_ERR("write after", write(sp[0], "x", 1), EPIPE);
	CHECK("other way", write(sp[1], "y", 1) == 1 && read(sp[0], b, 1) == 1);
	CHECK("unread", write(sp[1], "zz", 2) == 2);
	close(sp[0]);
	CHECK("hup", pevents(sp[1], POLLIN | POLLOUT) == (POLLIN | POLLOUT | POLLHUP | POLLERR));
	CHECK("no reset on shutdown", recv(sp[1], b, 16, 0) == 0 || errno == ECONNRESET);
	CHECK_ERR("gone", write(sp[1], "x", 1), EPIPE);
	close(sp[1]);

	socketpair(AF_UNIX, SOCK_STREAM, 0, sp);
	pid = fork();
	if (!pid) {
		close(sp[1]);
		_exit(write(sp[0], big, sizeof(big)) != sizeof(big));
	}
	close(sp[0]);
	CHECK("waitall", recv(sp[1], back, sizeof(back), MSG_WAITALL) == sizeof(back) && !memcmp(big, back, sizeof(big)));
	waitpid(pid, &st, 0);
	CHECK("writer", st == 0);
	close(sp[1]);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sp);
	for (n = 0; write(sp[0], big, 1000) > 0; n++)
		;
	CHECK("fills", errno == EAGAIN && n > 50 && !(pevents(sp[0], POLLOUT)));
	close(sp[0]);
	close(sp[1]);
}

static void datagrams(void)
{
	struct sockaddr_un a, from;
	socklen_t l = path_addr(&a, "dg"), fl = sizeof(from);
	int r = socket(AF_UNIX, SOCK_DGRAM, 0), s = socket(AF_UNIX, SOCK_DGRAM, 0), n;
	struct iovec iv[2] = {{"ab", 2}, {"cde", 3}};
	struct msghdr m = {.msg_name = &a, .msg_namelen = l, .msg_iov = iv, .msg_iovlen = 2};
	struct stat st;
	char b[64];

	CHECK_ERR("no target", sendto(s, "x", 1, 0, (void *)&a, l), ENOENT);
	CHECK("bind", bind(r, (void *)&a, l) == 0 && stat("dg", &st) == 0 && S_ISSOCK(st.st_mode));
	CHECK_ERR("bind twice", bind(r, (void *)&a, l), EADDRINUSE);
	CHECK_ERR("bind again", bind(r, (void *)&from, path_addr(&from, "other")), EINVAL);
	CHECK_ERR("in use", bind(s, (void *)&a, l), EADDRINUSE);
	CHECK_ERR("open a socket", open("dg", O_RDWR), ENXIO);
	CHECK("name", getsockname(r, (void *)&from, &fl) == 0 && fl == offsetof(struct sockaddr_un, sun_path) + 3 && !strcmp(from.sun_path, "dg"));
	fl = sizeof(from);
	CHECK("no name", getsockname(s, (void *)&from, &fl) == 0 && fl == 2);
	CHECK("sendmsg", sendmsg(s, &m, 0) == 5);
	fl = sizeof(from);
	CHECK("recvfrom", recvfrom(r, b, 64, 0, (void *)&from, &fl) == 5 && !memcmp(b, "abcde", 5) && fl == 0);
	CHECK_ERR("not connected", send(s, "x", 1, 0), ENOTCONN);
	CHECK("connect", connect(s, (void *)&a, l) == 0);
	CHECK("autobind", bind(s, (void *)&(sa_family_t){AF_UNIX}, 2) == 0);
	CHECK("send", send(s, "one", 3, 0) == 3 && send(s, "", 0, 0) == 0 && send(s, "three", 5, 0) == 5);
	fl = sizeof(from);
	CHECK("trunc", recvfrom(r, b, 1, MSG_TRUNC, (void *)&from, &fl) == 3 && fl == 8 && from.sun_path[0] == 0);
	CHECK("empty", recv(r, b, 64, 0) == 0);
	m = (struct msghdr){.msg_iov = &(struct iovec){b, 2}, .msg_iovlen = 1};
	CHECK("trunc flag", recvmsg(r, &m, 0) == 2 && m.msg_flags == MSG_TRUNC);
	for (n = 0; send(s, "q", 1, MSG_DONTWAIT) == 1; n++)
		;
	CHECK("queue full", errno == EAGAIN && n > 0 && pevents(s, POLLOUT) == 0);
	recv(r, b, 1, 0);
	CHECK("room", pevents(s, POLLOUT) == POLLOUT);
	CHECK_ERR("too long", send(s, big, 300000, 0), EMSGSIZE);
	CHECK_ERR("listen", listen(r, 1), EOPNOTSUPP);
	close(r);
	CHECK_ERR("refused", send(s, "x", 1, 0), ECONNREFUSED);
	close(s);
	s = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_ERR("dead socket file", connect(s, (void *)&a, l), ECONNREFUSED);
	close(s);
	unlink("dg");
}

static void *connect_late(void *arg)
{
	struct sockaddr_un a;
	socklen_t l = abstract_addr(&a, "conf-srv");
	int s = socket(AF_UNIX, SOCK_STREAM, 0);

	usleep(30000);
	if (connect(s, (void *)&a, l))
		return (void *)-1L;
	write(s, "late", 4);
	return (void *)(long)s;
}

static void connections(void)
{
	struct sockaddr_un a, p;
	socklen_t l = abstract_addr(&a, "conf-srv"), pl = sizeof(p);
	int srv = socket(AF_UNIX, SOCK_STREAM, 0), c[3], n, dg = socket(AF_UNIX, SOCK_DGRAM, 0);
	struct ucred uc;
	pthread_t th;
	void *ret;
	char b[16];

	c[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_ERR("refused", connect(c[0], (void *)&a, l), ECONNREFUSED);
	CHECK("bind", bind(srv, (void *)&a, l) == 0);
	CHECK("same name, other type", bind(dg, (void *)&a, l) == 0);
	CHECK_ERR("not listening", connect(c[0], (void *)&a, l), ECONNREFUSED);
	CHECK("listen", listen(srv, 1) == 0);
	CHECK_ERR("short addr", connect(c[0], (void *)&a, 1), EINVAL);
	CHECK_ERR("wrong family", connect(c[0], (void *)&(struct sockaddr_in){AF_INET}, sizeof(struct sockaddr_in)), EINVAL);
	for (int i = 1; i < 3; i++)
		c[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	CHECK("connect", connect(c[0], (void *)&a, l) == 0 && connect(c[1], (void *)&a, l) == 0);
	CHECK_ERR("backlog", connect(c[2], (void *)&a, l), EAGAIN);
	CHECK("pollin", pevents(srv, POLLIN | POLLOUT) == POLLIN);
	n = accept4(srv, (void *)&p, &pl, SOCK_NONBLOCK | SOCK_CLOEXEC);
	CHECK("accept", n >= 0 && pl == 2 && fcntl(n, F_GETFL) == (O_RDWR | O_NONBLOCK));
	pl = sizeof(uc);
	CHECK("peercred", getsockopt(n, SOL_SOCKET, SO_PEERCRED, &uc, &pl) == 0 && uc.pid == getpid() && uc.uid == getuid());
	pl = sizeof(p);
	CHECK("peername", getpeername(c[0], (void *)&p, &pl) == 0 && pl == l && !memcmp(&p, &a, l));
	CHECK_ERR("again", connect(c[0], (void *)&a, l), EISCONN);
	CHECK("talk", write(c[0], "hey", 3) == 3 && read(n, b, 16) == 3);
	close(n);
	CHECK("eof", read(c[0], b, 16) == 0);
	n = accept(srv, NULL, NULL);
	close(n);
	pthread_create(&th, NULL, connect_late, NULL);
	n = accept(srv, NULL, NULL);
	CHECK("blocking accept", n >= 0 && read(n, b, 16) == 4);
	pthread_join(th, &ret);
	close(n);
	close((long)ret);
	CHECK("pending", connect(c[2], (void *)&a, l) == 0);
	close(srv);
	CHECK_ERR("reset", read(c[2], b, 1), ECONNRESET);
	for (int i = 0; i < 3; i++)
		close(c[i]);
	close(dg);
}

static ssize_t send_fds(int s, const int *fds, int n, const void *data, size_t len, int flags)
{
	char ctl[CMSG_SPACE(sizeof(int) * 260)] = {};
	struct iovec iv = {(void *)data, len};
	struct msghdr m = {.msg_iov = &iv, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	return sendmsg(s, &m, flags);
}

static ssize_t recv_fds(int s, int *fds, int *n, char *b, size_t len, size_t ctl_len, int flags, int *ret_flags, struct ucred *uc)
{
	char ctl[2048] = {};
	struct iovec iv = {b, len};
	struct msghdr m = {.msg_iov = &iv, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = ctl_len};
	ssize_t r = recvmsg(s, &m, flags);

	*n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); r >= 0 && c; c = CMSG_NXTHDR(&m, c)) {
		if (c->cmsg_type == SCM_RIGHTS) {
			*n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(fds, CMSG_DATA(c), *n * sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS && uc) {
			memcpy(uc, CMSG_DATA(c), sizeof(*uc));
		}
	}
	*ret_flags = m.msg_flags;
	return r;
}

static void passing(void)
{
	int sp[2], p[2], fds[300], n, fl, one = 1;
	struct ucred uc = {};
	char b[64];

	socketpair(AF_UNIX, SOCK_STREAM, 0, sp);
	pipe(p);
	CHECK("send fd", send_fds(sp[0], p, 2, "xy", 2, 0) == 2 && write(sp[0], "z", 1) == 1);
	CHECK("recv fd", recv_fds(sp[1], fds, &n, b, 64, 200, MSG_CMSG_CLOEXEC, &fl, NULL) == 2 && n == 2 && fl == MSG_CMSG_CLOEXEC);
	CHECK("cloexec", fcntl(fds[0], F_GETFD) == FD_CLOEXEC);
	CHECK("works", write(fds[1], "k", 1) == 1 && read(p[0], b, 1) == 1 && b[0] == 'k');
	close(fds[0]);
	close(fds[1]);
	CHECK("rest", read(sp[1], b, 64) == 1);
	send_fds(sp[0], p, 2, "a", 1, 0);
	CHECK("room for one", recv_fds(sp[1], fds, &n, b, 64, CMSG_LEN(4), 0, &fl, NULL) == 1 && n == 1 && (fl & MSG_CTRUNC));
	close(fds[0]);
	send_fds(sp[0], p, 1, "a", 1, 0);
	CHECK("no control", recv_fds(sp[1], fds, &n, b, 64, 0, 0, &fl, NULL) == 1 && n == 0 && (fl & MSG_CTRUNC));
	send_fds(sp[0], p, 1, "a", 1, 0);
	CHECK("dropped by read", read(sp[1], b, 64) == 1);
	for (int i = 0; i < 254; i++)
		fds[i] = p[0];
	CHECK_ERR("254 fds", send_fds(sp[0], fds, 254, "a", 1, 0), EINVAL);
	CHECK("253 fds", send_fds(sp[0], fds, 253, "a", 1, 0) == 1);
	CHECK_ERR("bad fd", send_fds(sp[0], &(int){777}, 1, "a", 1, 0), EBADF);
	close(sp[0]);
	close(sp[1]);

	// A cycle that only the kernel can find: the pipe's write end is inside.
	socketpair(AF_UNIX, SOCK_DGRAM, 0, sp);
	send_fds(sp[0], &p[1], 1, "a", 1, 0);
	send_fds(sp[0], &sp[1], 1, "a", 1, 0);
	close(p[1]);
	close(sp[0]);
	close(sp[1]);
	socketpair(AF_UNIX, SOCK_DGRAM, 0, sp);
	close(sp[0]);
	close(sp[1]);
	CHECK("cycle collected", poll(&(struct pollfd){p[0], POLLIN}, 1, 2000) == 1);
	close(p[0]);

	socketpair(AF_UNIX, SOCK_STREAM, 0, sp);
	setsockopt(sp[1], SOL_SOCKET, SO_PASSCRED, &one, 4);
	write(sp[0], "c", 1);
	CHECK("creds", recv_fds(sp[1], fds, &n, b, 64, 200, 0, &fl, &uc) == 1 && uc.pid == getpid() && uc.uid == getuid() && uc.gid == getgid());
	close(sp[0]);
	close(sp[1]);
}

static void seqpackets(void)
{
	int sp[2];
	char b[64];

	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sp);
	send(sp[0], "abc", 3, 0);
	send(sp[0], "de", 2, 0);
	CHECK("boundary", recv(sp[1], b, 64, 0) == 3 && recv(sp[1], b, 1, MSG_TRUNC) == 2);
	CHECK_ERR("empty", recv(sp[1], b, 64, MSG_DONTWAIT), EAGAIN);
	close(sp[0]);
	CHECK("eof", recv(sp[1], b, 64, 0) == 0);
	CHECK_ERR("gone", send(sp[1], "x", 1, MSG_NOSIGNAL), EPIPE);
	close(sp[1]);
}

static void many(void)
{
	int sp[2];
	struct iovec iv[4] = {{"a", 1}, {"bb", 2}, {"ccc", 3}, {"dddd", 4}};
	struct mmsghdr m[4] = {};
	char b[4][8];

	socketpair(AF_UNIX, SOCK_DGRAM, 0, sp);
	for (int i = 0; i < 4; i++)
		m[i].msg_hdr = (struct msghdr){.msg_iov = &iv[i], .msg_iovlen = 1};
	CHECK("sendmmsg", sendmmsg(sp[0], m, 4, 0) == 4 && m[3].msg_len == 4);
	for (int i = 0; i < 4; i++)
		iv[i] = (struct iovec){b[i], 8};
	CHECK("recvmmsg", recvmmsg(sp[1], m, 4, MSG_WAITFORONE, NULL) == 4 && m[2].msg_len == 3 && !memcmp(b[3], "dddd", 4));
	CHECK_ERR("recvmmsg none", recvmmsg(sp[1], m, 4, MSG_DONTWAIT, NULL), EAGAIN);
	close(sp[0]);
	close(sp[1]);
}

int main(void)
{
	snprintf(dir, sizeof(dir), "/tmp/conf-us-%d", getpid());
	if (mkdir(dir, 0700) || chdir(dir))
		return 2;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 31 + i / 4096);
	creation();
	streams();
	datagrams();
	connections();
	passing();
	seqpackets();
	many();
	CHECK_DONE();
}
