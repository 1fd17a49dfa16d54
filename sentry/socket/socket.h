// Sockets: what all families share (socket(7)): the file, the options of SOL_SOCKET, the shape of a
// message. A family gives a proto_ops table and embeds struct socket in its own object.
//
// Nothing here touches guest memory but through the uio of a message: sys_socket.c decodes addresses
// and control messages first.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "sentry/vfs/vfs.h"

#define SCM_MAX_FDS 253
#define SOCK_DEFAULT_BUF 212992
#define SOCK_MAX_BUF (4U << 20) // twice net.core.wmem_max, roughly; memory is the sentry's

struct socket;
struct sock_creds {
	int32_t pid;
	uint32_t uid, gid;
};
struct scm_files {
	unsigned n;
	struct scm_files *next; // scm_files_free()'s
	struct file *f[];       // owned
};
struct sock_msg { // one send or receive
	struct uio *u;
	unsigned flags;           // MSG_*; MSG_DONTWAIT is set for O_NONBLOCK files
	unsigned ret_flags;       // receive: MSG_TRUNC, MSG_EOR ...
	struct sockaddr_storage *name; // send: NULL or the destination; receive: room for the source
	unsigned namelen;
	struct scm_files *files;  // send: taken over on success; receive: the caller's then
	bool has_creds;           // send: given by SCM_CREDENTIALS (and checked); receive: to be passed on
	struct sock_creds creds;
};

struct proto_ops { // NULL: the errno in brackets. All may wait.
	int (*bind)(struct socket *s, const struct sockaddr_storage *sa, unsigned len);         // [EOPNOTSUPP]
	int (*connect)(struct socket *s, const struct sockaddr_storage *sa, unsigned len, bool nonblock);
	int (*listen)(struct socket *s, int backlog);
	int (*accept)(struct socket *s, bool nonblock, struct socket **ret); // a socket without a file, the caller's
	int (*getname)(struct socket *s, bool peer, struct sockaddr_storage *sa, unsigned *ret_len);
	int (*shutdown)(struct socket *s, int how);
	ssize_t (*sendmsg)(struct socket *s, struct sock_msg *m);
	ssize_t (*recvmsg)(struct socket *s, struct sock_msg *m);
	uint32_t (*poll)(struct socket *s, struct file *f, struct poll_table *pt); // must not wait
	int64_t (*ioctl)(struct socket *s, unsigned cmd, uint64_t arg);
	// Options that the family knows; -ENOPROTOOPT: not this one (SOL_SOCKET goes on to the common ones).
	int (*setsockopt)(struct socket *s, int level, int name, const void *val, unsigned len);
	int (*getsockopt)(struct socket *s, int level, int name, void *val, unsigned *len);
	void (*release)(struct socket *s); // the file is gone (or never came)
};
struct socket {
	const struct proto_ops *ops;
	int family, type, protocol;
	struct file *file;      // not counted; NULL: none (yet)
	int err;                // SO_ERROR: a positive errno, reported once
	uint32_t sndbuf, rcvbuf, priority, mark;
	int rcvlowat;
	nsec_t rcvtimeo, sndtimeo; // NSEC_INFINITE: none
	bool passcred, reuseaddr, reuseport, keepalive, broadcast, oobinline, timestamp, passsec;
	struct linger linger;
};

// Families register at boot; create gives a socket without a file. -ESOCKTNOSUPPORT, -EPROTONOSUPPORT.
struct sock_family {
	int family;
	int (*create)(int type, int protocol, struct socket **ret);
	int (*pair)(struct socket *a, struct socket *b); // socketpair(2); NULL: EOPNOTSUPP
	struct sock_family *next;
};
void socket_register(struct sock_family *f);
const struct sock_family *socket_family(int family); // NULL: EAFNOSUPPORT

void socket_init(struct socket *s, const struct proto_ops *ops, int family, int type, int protocol);
// Takes over s on success. flags: O_NONBLOCK.
int socket_file_new(struct socket *s, unsigned flags, struct file **ret);
struct socket *socket_of(const struct file *f); // NULL: -ENOTSOCK
int socket_set_option(struct socket *s, int level, int name, const void *val, unsigned len);
// val has room for *len bytes (at most SOCK_OPT_MAX); *len becomes what is in it.
int socket_get_option(struct socket *s, int level, int name, void *val, unsigned *len);
#define SOCK_OPT_MAX 1024
// The pending error, once: 0 or -errno.
int socket_take_error(struct socket *s);
// When a wait that starts now ends; what an interrupted or timed-out one returns.
nsec_t socket_deadline(nsec_t timeo, bool nonblock);
int socket_wait_error(int r, nsec_t timeo);

struct scm_files *scm_files_new(unsigned n); // n slots, all NULL
struct scm_files *scm_files_dup(const struct scm_files *s);
// Puts the files, not from within a release (chains of sockets in flight would recurse): iteratively.
void scm_files_free(struct scm_files *s);

// The layers above: the pid of the calling process as peers see it. Set at boot; NULL: 0.
extern int32_t (*socket_self_pid)(void);
