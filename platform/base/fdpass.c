#include "platform/base/fdpass.h"

#include <sys/socket.h>

#include "platform/base/base.h"

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int) * FDPASS_MAX)];
};

int send_fds(int sock, const void *buf, size_t len, const int *fds, unsigned nfds)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control ctl = {0};
	ssize_t n;

	if (len == 0 || nfds > FDPASS_MAX)
		return -EINVAL;
	if (nfds) {
		msg.msg_control = ctl.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		ctl.align = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
					     .cmsg_len = CMSG_LEN(sizeof(int) * nfds)};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(int) * nfds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EMSGSIZE;
}

// Takes the descriptors of one control message; those without room are closed.
static bool take_fds(const struct cmsghdr *c, int *fds, unsigned max_fds, unsigned *n)
{
	size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	bool fits = true;

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
		if (*n < max_fds) {
			fds[(*n)++] = fd;
		} else {
			close(fd);
			fits = false;
		}
	}
	return fits;
}

ssize_t recv_fds(int sock, void *buf, size_t len, int flags, int *fds, unsigned max_fds, unsigned *ret_nfds)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	union control ctl = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf,
			     .msg_controllen = sizeof(ctl.buf)};
	unsigned nfds = 0;
	bool fits;
	ssize_t n;

	do
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	fits = !(msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC));
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			fits = take_fds(c, fds, max_fds, &nfds) && fits;
	if (!fits)
		for (; nfds > 0; nfds--)
			close(fds[nfds - 1]);
	for (unsigned i = nfds; i < max_fds; i++)
		fds[i] = -1;
	if (!fits)
		return -EMSGSIZE;
	if (ret_nfds)
		*ret_nfds = nfds;
	return n;
}
