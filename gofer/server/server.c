// The gofer's loop: one request after the other.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "gofer/filter/filter.h"
#include "gofer/server/server.h"
#include "platform/base/base.h"
#include "platform/base/fdpass.h"
#include "platform/base/log.h"

#define PREEMPTED_NS 20000 // no poll takes that long
#define FDS_RESERVE 128 // descriptors kept free of the directory cache: roots, files under way

char tx_buf[GP_MSG_MAX] __attribute__((aligned(8)));
static char rx_buf[GP_MSG_MAX] __attribute__((aligned(8)));

static ssize_t (*const handlers[GP_OP_END])(const struct rx *r, int *ret_fd) = {
	[GP_ATTACH] = do_attach, [GP_WALK] = do_walk, [GP_OPEN] = do_open, [GP_READDIR] = do_readdir,
	[GP_READLINK] = do_readlink, [GP_GETATTR] = do_getattr, [GP_STATFS] = do_statfs, [GP_GETXATTR] = do_getxattr,
	[GP_LISTXATTR] = do_listxattr, [GP_CREATE] = do_create, [GP_MKDIR] = do_mkdir, [GP_SYMLINK] = do_symlink,
	[GP_MKNOD] = do_mknod, [GP_LINK] = do_link, [GP_UNLINK] = do_unlink, [GP_RENAME] = do_rename,
	[GP_SETATTR] = do_setattr, [GP_SETXATTR] = do_setxattr, [GP_FSYNC] = do_fsync,
};

static int tx_send(const struct gp_req *q, ssize_t body, uint16_t flags, int fd)
{
	struct gp_hdr *h = (struct gp_hdr *)tx_buf;
	size_t len = sizeof(*h) + (body > 0 ? (size_t)body : 0);

	*h = (struct gp_hdr){.len = (uint32_t)len, .op = q->h.op, .flags = flags, .id = q->h.id,
			     .status = body < 0 ? (int32_t)body : 0};
	return send_fds(GOFER_FD_SOCK, tx_buf, len, &fd, fd >= 0 ? 1 : 0);
}

int tx_more(const struct rx *r, size_t body)
{
	return tx_send(r->q, (ssize_t)body, GP_MORE, -1);
}

static bool may_modify(const struct gp_req *q)
{
	const struct gnode *n = node_find(q->node), *n2 = q->node2 ? node_find(q->node2) : NULL;

	return !(n && n->read_only) && !(n2 && n2->read_only);
}

static void forget(const struct rx *r)
{
	for (uint32_t i = 0; i < r->q->data_len; i += 8) {
		struct gnode *n;
		uint64_t id;

		memcpy(&id, r->p.data + i, sizeof(id));
		n = node_find(id);
		if (n)
			node_forget(n);
	}
}

// 0, or -errno when the sentry is gone or has broken the protocol.
static int serve_one(size_t len)
{
	struct rx r = {.q = (const struct gp_req *)rx_buf};
	ssize_t body;
	int fd = -1, e;

	if (!gp_req_check(rx_buf, len, &r.p)) {
		log_err("gofer: malformed request of %zu bytes", len);
		return -EPROTO;
	}
	if (r.q->h.op == GP_FORGET) {
		forget(&r);
		return 0;
	}
	memcpy(r.name1, r.p.name1, r.q->name1_len);
	memcpy(r.name2, r.p.name2, r.q->name2_len);
	if (gp_op_modifies(r.q->h.op) && !may_modify(r.q))
		body = -EROFS;
	else
		body = handlers[r.q->h.op](&r, &fd);
	e = tx_send(r.q, body, fd >= 0 ? GP_FD : 0, fd);
	if (fd >= 0)
		close(fd);
	return e;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

// The next request. Polls for it a while first, since waking a process costs more than serving one does;
// but only while that pays, as the last times have shown, and while a core is idle for it: having been
// preempted between two polls tells that somebody else needs it.
static ssize_t next_request(uint32_t spin_ns)
{
	static int credit = 8;
	static unsigned unspun;
	bool poll = spin_ns && (credit > 0 || ++unspun % 16 == 0), preempted = false;
	uint64_t now = poll ? now_ns() : 0, until = now + spin_ns;
	ssize_t n;

	for (;;) {
		n = recv(GOFER_FD_SOCK, rx_buf, sizeof(rx_buf), MSG_TRUNC | (poll ? MSG_DONTWAIT : 0));
		if (n >= 0) {
			if (poll)
				credit = MIN(credit + 2, 16);
			break;
		}
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
		if (poll) {
			uint64_t before = now;

			now = now_ns();
			preempted |= now - before > PREEMPTED_NS;
			poll = now < until && !preempted;
			if (!poll)
				credit = MAX(credit - (preempted ? 8 : 1), -16);
			__builtin_ia32_pause();
		}
	}
	return n;
}

// Moves fd to the number the filter knows; whatever was there moves out of the way.
static int place_fd(int fd, int at, struct gofer_tree *trees, unsigned n, int *other)
{
	if (fd == at)
		return 0;
	for (unsigned i = 0; i <= n; i++) {
		int *p = i < n ? &trees[i].root_fd : other;

		if (*p != at)
			continue;
		*p = fcntl(at, F_DUPFD_CLOEXEC, GOFER_FD_LOG + 1);
		if (*p < 0)
			return -errno;
	}
	if (dup3(fd, at, O_CLOEXEC) < 0)
		return -errno;
	close(fd);
	return 0;
}

static int serve(const struct gofer_config *cfg, unsigned max_fds)
{
	int r = nodes_init(cfg, max_fds);

	if (r) {
		log_err("gofer: tree cannot be used: %s", strerror(-r));
		return 1;
	}
	if (!cfg->no_filter) {
		r = gofer_filter_install();
		if (r) {
			log_err("gofer: cannot install the filter: %s", strerror(-r));
			return 1;
		}
	}
	for (;;) {
		ssize_t n = next_request(cfg->spin_ns);

		if (n == 0 || n == -ECONNRESET)
			return 0;
		if (n < 0 || (size_t)n > sizeof(rx_buf))
			r = n < 0 ? (int)n : -EMSGSIZE;
		else
			r = serve_one((size_t)n);
		if (r == -EPIPE || r == -ECONNRESET)
			return 0;
		if (r) {
			log_err("gofer: stopping: %s", strerror(-r));
			return 1;
		}
	}
}

int gofer_main(const struct gofer_config *cfg)
{
	static struct gofer_tree trees[GOFER_MAX_TREES];
	struct gofer_config c = *cfg;
	struct rlimit rl;
	int r;

	if (c.ntrees == 0 || c.ntrees > GOFER_MAX_TREES)
		return 1;
	memcpy(trees, cfg->trees, c.ntrees * sizeof(*trees));
	c.trees = trees;
	r = place_fd(c.sock, GOFER_FD_SOCK, trees, c.ntrees, &c.log_fd);
	if (!r && c.log_fd >= 0) {
		int none = -1;

		r = place_fd(c.log_fd, GOFER_FD_LOG, trees, c.ntrees, &none);
		log_init(GOFER_FD_LOG, LOG_INFO, "gofer");
	}
	if (!r && !c.max_fds && getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &rl); // the directory cache is what uses them
		c.max_fds = (unsigned)MIN(rl.rlim_max, (rlim_t)65536);
	}
	if (r || c.max_fds < FDS_RESERVE + c.ntrees + 16) {
		log_err("gofer: too few descriptors");
		return 1;
	}
	// Half for directories of the cache, half for files whose names are gone.
	r = serve(&c, (c.max_fds - FDS_RESERVE - c.ntrees) * 2 / 3);
	nodes_fini();
	return r;
}
