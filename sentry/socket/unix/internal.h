// What the files of the room share.
//
// Invariants
//  - A unix_sock lives as long as somebody refers to it: its file (or the accept queue that it is
//    in), its peer's ->peer, messages that it has sent, lookups.
//  - A message is charged to its sender (->wmem) until it is received or dropped.
//  - ->peer of a stream socket never changes once set; that of a datagram socket may.
//  - Readers hold iolock while bytes are copied; nobody else takes messages off a queue.
#pragma once
#include <sys/un.h>

#include "sentry/socket/socket.h"
#include "sentry/socket/unix/unix.h"

#define UNIX_DGRAM_QLEN 10  // net.unix.max_dgram_qlen
#define UNIX_MAX_CHUNK 32768U
#define UNIX_INFLIGHT_MAX 65536U // descriptors in flight, whoever asks

enum unix_state { UNIX_CLOSE, UNIX_LISTEN, UNIX_ESTABLISHED };
enum { UNIX_RCV_SHUT = 1, UNIX_SEND_SHUT = 2, UNIX_SHUT_BOTH = 3 };

struct unix_addr {
	refcount_t refs;
	unsigned len; // of sun in use; abstract names have no end but this
	struct sockaddr_un sun;
};
struct umsg {
	TAILQ_ENTRY(umsg) link;
	struct unix_sock *sender; // counted
	uint32_t len, off, charge;
	struct sock_creds creds;
	struct scm_files *files;  // owned; counted as in flight
	char *data;               // inl, or owned
	char inl[160];
};
TAILQ_HEAD(umsg_queue, umsg);

struct unix_sock {
	struct socket s; // first
	refcount_t refs;
	enum unix_state state;
	uint8_t shut;
	bool dead, embryo;       // embryo: in an accept queue, no file yet
	struct unix_sock *peer;  // counted
	struct unix_addr *addr;  // counted; never changes once set
	struct path path;        // what it is bound to; inode->sock leads here
	LIST_ENTRY(unix_sock) hash_link, all;
	struct umsg_queue queue;
	unsigned qlen;
	uint32_t wmem;
	TAILQ_HEAD(, unix_sock) accept_q;
	TAILQ_ENTRY(unix_sock) accept_link;
	unsigned accept_len;
	int backlog;
	struct klock iolock, bindlock;
	struct waitq rd_wq, wr_wq;
	struct waitq peer_wq;         // who waits for room in our queue
	struct wait_entry peer_wake;  // ours in the queue of a peer that is full
	struct sock_creds peer_creds; // SO_PEERCRED
	const struct cred *peer_cred; // counted; SO_PEERGROUPS
	// Descriptors in flight
	unsigned inflight;
	bool candidate;
	SLIST_ENTRY(unix_sock) work;
};
static inline struct unix_sock *unix_of(struct socket *s) { return (struct unix_sock *)s; }

extern const struct proto_ops unix_ops;
LIST_HEAD(unix_list, unix_sock);
extern struct unix_list unix_all;
struct unix_sock *unix_new(int type);
struct unix_sock *unix_get(struct unix_sock *u);
void unix_put(struct unix_sock *u); // NULL is fine
void unix_self_creds(struct sock_creds *ret);

// names.c
int unix_addr_parse(const struct sockaddr_storage *sa, unsigned len, struct sockaddr_un *ret, unsigned *ret_len);
int unix_bind(struct socket *s, const struct sockaddr_storage *sa, unsigned len);
int unix_autobind(struct unix_sock *u);
void unix_unbind(struct unix_sock *u); // nobody finds it by name any more
void unix_addr_put(struct unix_addr *a);
// The socket with this name, referenced. -ECONNREFUSED, -EPROTOTYPE and what the walk says. May wait.
int unix_find(const struct sockaddr_un *sun, unsigned len, int type, struct unix_sock **ret);
void unix_addr_out(const struct unix_addr *a, struct sockaddr_storage *sa, unsigned *ret_len);

// io.c
ssize_t unix_sendmsg(struct socket *s, struct sock_msg *m);
ssize_t unix_recvmsg(struct socket *s, struct sock_msg *m);
uint32_t unix_poll(struct socket *s, struct file *f, struct poll_table *pt);
void umsg_free(struct umsg *m);
void unix_purge(struct unix_sock *u);
bool unix_writable(const struct unix_sock *u);
static inline bool unix_may_send(const struct unix_sock *u, const struct unix_sock *to)
{
	return !to->peer || to->peer == u;
}
bool unix_recvq_full(const struct unix_sock *u);
void unix_peer_wake_detach(struct unix_sock *u);
static inline void unix_wake_all(struct unix_sock *u)
{
	waitq_wake_all(&u->rd_wq, 0);
	waitq_wake_all(&u->wr_wq, 0);
}

// gc.c
int unix_inflight_add(struct scm_files *files);  // -ETOOMANYREFS
void unix_inflight_del(struct scm_files *files);
void unix_gc(void); // closes sockets that only messages in each other's queues refer to
