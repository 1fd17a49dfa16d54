// The gofer: a forked server over a scratch tree, spoken to in raw messages.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "gofer/filter/filter.h"
#include "gofer/proto/proto.h"
#include "gofer/server/gofer.h"
#include "platform/base/base.h"
#include "platform/base/fdpass.h"
#include "platform/filter/filter.h"

#ifdef __SANITIZE_ADDRESS__
#define NO_FILTER true
#else
#define NO_FILTER false
#endif

static char top[64];
static int sock, dirfd_top;
static pid_t child;
static uint32_t last_id;
static char rep[GP_MSG_MAX] __attribute__((aligned(8)));
static char req[2 * GP_MSG_MAX] __attribute__((aligned(8)));
static int rep_fd;

static void put_file(const char *name, const char *text)
{
	int fd = openat(dirfd_top, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int unlink_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static int setup(void **state)
{
	snprintf(top, sizeof(top), "/tmp/test-gofer.XXXXXX");
	assert_non_null(mkdtemp(top));
	dirfd_top = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(dirfd_top, "a", 0755), 0);
	assert_int_equal(mkdirat(dirfd_top, "a/b", 0755), 0);
	put_file("a/b/file", "hello");
	assert_int_equal(symlinkat("b/file", dirfd_top, "a/link"), 0);
	assert_int_equal(symlinkat("/etc", dirfd_top, "etc"), 0);
	assert_int_equal(mkfifoat(dirfd_top, "fifo", 0644), 0);
	return 0;
}

static int teardown(void **state)
{
	close(dirfd_top);
	return nftw(top, unlink_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void start(bool read_only, unsigned max_fds)
{
	struct gofer_tree trees[2] = {{.read_only = read_only}, {.read_only = true}};
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(sv[0]);
		trees[0].root_fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
		trees[1].root_fd = openat(dirfd_top, "a/b/file", O_RDONLY | O_CLOEXEC);
		_exit(gofer_main(&(struct gofer_config){.sock = sv[1], .log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC), .trees = trees, .ntrees = 2,
							.max_fds = max_fds, .no_filter = NO_FILTER}));
	}
	close(sv[1]);
	sock = sv[0];
}

static int stop(void)
{
	int st;

	close(sock);
	assert_int_equal(waitpid(child, &st, 0), child);
	return st;
}

// Reads one reply and checks that the client would take it.
static int get_reply(enum gp_op op)
{
	const struct gp_hdr *h = (const struct gp_hdr *)rep;
	unsigned nfds;
	ssize_t n;

	if (rep_fd >= 0)
		close(rep_fd);
	n = recv_fds(sock, rep, sizeof(rep), 0, &rep_fd, 1, &nfds);
	assert_true(n > 0);
	assert_true(gp_rep_check(rep, (size_t)n, op));
	assert_int_equal(h->id, last_id);
	assert_int_equal(nfds, !!(h->flags & GP_FD));
	return h->status;
}

static int call(struct gp_req q, const char *name1, const char *name2, const void *data, size_t len)
{
	char *p = req + sizeof(q);

	q.h.id = ++last_id;
	q.name1_len = (uint16_t)strlen(name1 ? name1 : "");
	q.name2_len = (uint16_t)strlen(name2 ? name2 : "");
	q.data_len = (uint32_t)len;
	p = mempcpy(p, name1 ? name1 : "", q.name1_len);
	p = mempcpy(p, name2 ? name2 : "", q.name2_len);
	p = mempcpy(p, data ? data : "", len);
	q.h.len = (uint32_t)(p - req);
	memcpy(req, &q, sizeof(q));
	assert_int_equal(send_fds(sock, req, q.h.len, NULL, 0), 0);
	return get_reply(q.h.op);
}

#define BODY(type) ((const type *)(rep + sizeof(struct gp_hdr)))
static uint64_t attach(unsigned tree)
{
	assert_int_equal(call((struct gp_req){.h.op = GP_ATTACH, .arg = tree}, NULL, NULL, NULL, 0), 0);
	return BODY(struct gp_node)->id;
}

static const struct gp_walk_rep *walk(uint64_t from, const char *path, unsigned flags)
{
	assert_int_equal(call((struct gp_req){.h.op = GP_WALK, .node = from, .flags = flags}, NULL, NULL, path, strlen(path)), 0);
	return (const struct gp_walk_rep *)rep;
}
#define WALK_NODE(w, i) (((const struct gp_node *)((w) + 1))[i])

static uint64_t node_of(uint64_t root, const char *path)
{
	const struct gp_walk_rep *w = walk(root, path, 0);

	assert_true(w->nnodes > 0 && w->stop != GP_STOP_NOENT);
	return WALK_NODE(w, w->nnodes - 1).id;
}

static int simple(enum gp_op op, uint64_t node)
{
	return call((struct gp_req){.h.op = op, .node = node}, NULL, NULL, NULL, 0);
}

static void test_walk(void **state)
{
	const struct gp_walk_rep *w;
	char buf[16];
	uint64_t root;

	start(true, 0);
	root = attach(0);
	w = walk(root, "a/b/file", GP_WALK_OPEN);
	assert_int_equal(w->nnodes, 3);
	assert_int_equal(w->stop, GP_STOP_DONE);
	assert_int_equal(WALK_NODE(w, 2).attr.size, 5);
	assert_true(rep_fd >= 0);
	assert_int_equal(pread(rep_fd, buf, sizeof(buf), 0), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(fcntl(rep_fd, F_GETFL) & O_ACCMODE, O_RDONLY);

	w = walk(root, "a/none/x", 0);
	assert_int_equal(w->nnodes, 1);
	assert_int_equal(w->stop, GP_STOP_NOENT);
	w = walk(root, "a/link/more", 0);
	assert_int_equal(w->nnodes, 2);
	assert_int_equal(w->stop, GP_STOP_SYMLINK);
	assert_int_equal(w->target_len, 6);
	assert_memory_equal((const char *)&WALK_NODE(w, 2), "b/file", 6);
	w = walk(root, "etc", 0); // the last component too is told, not followed
	assert_int_equal(w->stop, GP_STOP_SYMLINK);
	assert_memory_equal((const char *)&WALK_NODE(w, 1), "/etc", 4);
	w = walk(root, "a/b/file/x", 0);
	assert_int_equal(w->nnodes, 3);
	assert_int_equal(w->stop, GP_STOP_NOTDIR);
	w = walk(root, "fifo", GP_WALK_OPEN); // named, but not opened
	assert_int_equal(w->stop, GP_STOP_DONE);
	assert_int_equal(rep_fd, -1);
	assert_int_equal(call((struct gp_req){.h.op = GP_OPEN, .node = WALK_NODE(w, 0).id, .flags = GP_OPEN_READ}, NULL, NULL, NULL, 0), -ENXIO);

	root = attach(1);
	assert_int_equal(simple(GP_GETATTR, root), 0);
	assert_int_equal(BODY(struct gp_attr)->size, 5);
	assert_int_equal(call((struct gp_req){.h.op = GP_OPEN, .node = root, .flags = GP_OPEN_READ}, NULL, NULL, NULL, 0), 0);
	assert_int_equal(pread(rep_fd, buf, 5, 0), 5);
	assert_int_equal(call((struct gp_req){.h.op = GP_ATTACH, .arg = 2}, NULL, NULL, NULL, 0), -ENOENT);
	assert_int_equal(stop(), 0);
}

static unsigned list(uint64_t node, unsigned attrs, unsigned *ret_with_attr)
{
	unsigned n = 0;

	*ret_with_attr = 0;
	assert_int_equal(call((struct gp_req){.h.op = GP_READDIR, .node = node, .arg = attrs}, NULL, NULL, NULL, 0), 0);
	for (;;) {
		const struct gp_dir_rep *d = (const struct gp_dir_rep *)rep;
		const char *p = (const char *)(d + 1);

		n += d->n;
		for (unsigned i = 0; i < d->n; i++) {
			const struct gp_dirent *e = (const struct gp_dirent *)p;

			*ret_with_attr += e->node.id != 0;
			p += gp_dirent_size(e);
		}
		if (!(d->h.flags & GP_MORE))
			return n;
		assert_int_equal(get_reply(GP_READDIR), 0);
	}
}

static void test_readdir(void **state)
{
	uint64_t root, node;
	unsigned with;
	char name[32];

	assert_int_equal(mkdirat(dirfd_top, "many", 0755), 0);
	for (int i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "many/file-%d", i);
		put_file(name, "");
	}
	start(true, 256);
	root = attach(0);
	node = node_of(root, "many");
	assert_int_equal(list(node, 0, &with), 3000);
	assert_int_equal(with, 0);
	assert_int_equal(list(node, 1000, &with), 3000);
	assert_int_equal(with, 1000);
	assert_int_equal(list(root, 1000, &with), 4);
	assert_int_equal(with, 4);
	assert_int_equal(stop(), 0);
}

// More directories in use than there are descriptors: they are closed and opened again.
static void test_few_fds(void **state)
{
	enum { N = 300 };
	uint64_t root, ids[N];
	char name[32];

	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		assert_int_equal(mkdirat(dirfd_top, name, 0755), 0);
		snprintf(name, sizeof(name), "d%d/f", i);
		put_file(name, "x");
	}
	start(true, 192);
	root = attach(0);
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		ids[i] = node_of(root, name);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(walk(ids[i], "f", GP_WALK_OPEN)->nnodes, 1);
		assert_true(rep_fd >= 0);
	}
	// A directory that was replaced meanwhile is not the one the id means.
	assert_int_equal(renameat(dirfd_top, "d0", dirfd_top, "d0.old"), 0);
	assert_int_equal(mkdirat(dirfd_top, "d0", 0755), 0);
	for (int i = 1; i < N; i++)
		(void)walk(ids[i], "f", 0);
	assert_int_equal(walk(ids[0], "f", 0)->error, -ESTALE);
	assert_int_equal(stop(), 0);
}

static void test_read_only(void **state)
{
	struct gp_setattr s = {.valid = GP_SET_MODE, .mode = 0600};
	uint64_t root, file;

	start(true, 0);
	root = attach(0);
	file = node_of(root, "a/b/file");
	assert_int_equal(call((struct gp_req){.h.op = GP_CREATE, .node = root, .mode = 0644, .flags = GP_OPEN_READ}, "new", NULL, NULL, 0), -EROFS);
	assert_int_equal(call((struct gp_req){.h.op = GP_UNLINK, .node = root}, "fifo", NULL, NULL, 0), -EROFS);
	assert_int_equal(call((struct gp_req){.h.op = GP_SETATTR, .node = file}, NULL, NULL, &s, sizeof(s)), -EROFS);
	assert_int_equal(call((struct gp_req){.h.op = GP_OPEN, .node = file, .flags = GP_OPEN_WRITE}, NULL, NULL, NULL, 0), -EROFS);
	walk(root, "a/b/file", GP_WALK_OPEN_RDWR);
	assert_int_equal(fcntl(rep_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_int_equal(stop(), 0);
}

static void test_write(void **state)
{
	struct gp_setattr s = {.valid = GP_SET_MODE | GP_SET_SIZE | GP_SET_MTIME, .mode = 04750, .size = 3, .mtime = {.sec = 1000, .nsec = 5}};
	struct gp_rename x = {0};
	uint64_t root, dir, file, other;
	struct stat st;
	char buf[16];

	start(false, 0);
	root = attach(0);
	assert_int_equal(call((struct gp_req){.h.op = GP_MKDIR, .node = root, .mode = 01777, .uid = getuid(), .gid = getgid()}, "new", NULL, NULL, 0), 0);
	dir = BODY(struct gp_node)->id;
	assert_int_equal(BODY(struct gp_node)->attr.mode, S_IFDIR | 01777);
	assert_int_equal(call((struct gp_req){.h.op = GP_CREATE, .node = dir, .mode = 0640, .flags = GP_OPEN_READ | GP_OPEN_WRITE,
					      .uid = getuid(), .gid = getgid()}, "f", NULL, NULL, 0), 0);
	file = BODY(struct gp_node)->id;
	assert_int_equal(write(rep_fd, "abcdef", 6), 6);
	assert_int_equal(call((struct gp_req){.h.op = GP_CREATE, .node = dir, .mode = 0640, .flags = GP_OPEN_READ}, "f", NULL, NULL, 0), -EEXIST);
	assert_int_equal(call((struct gp_req){.h.op = GP_SETATTR, .node = file}, NULL, NULL, &s, sizeof(s)), 0);
	assert_int_equal(BODY(struct gp_attr)->size, 3);
	assert_int_equal(BODY(struct gp_attr)->mode, S_IFREG | 04750);
	assert_int_equal(BODY(struct gp_attr)->mtime.sec, 1000);
	assert_int_equal(call((struct gp_req){.h.op = GP_SETXATTR, .node = file}, "user.k", NULL, "v", 1), 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_GETXATTR, .node = file}, "user.k", NULL, NULL, 0), 0);
	assert_memory_equal(BODY(char), "v", 1);
	assert_int_equal(call((struct gp_req){.h.op = GP_SETXATTR, .node = file}, "security.capability", NULL, "v", 1), -EOPNOTSUPP);
	assert_int_equal(call((struct gp_req){.h.op = GP_SYMLINK, .node = dir, .uid = getuid(), .gid = getgid()}, "s", NULL, "../t", 4), 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_MKNOD, .node = dir, .mode = S_IFIFO | 0600, .uid = getuid(), .gid = getgid()}, "p", NULL, NULL, 0), 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_MKNOD, .node = dir, .mode = S_IFCHR | 0600}, "c", NULL, NULL, 0), -EPERM);
	assert_int_equal(call((struct gp_req){.h.op = GP_LINK, .node = root, .node2 = file}, "hard", NULL, NULL, 0), 0);
	assert_int_equal(BODY(struct gp_attr)->nlink, 2);
	// A file stays usable once its name is gone.
	other = node_of(root, "hard");
	assert_int_equal(call((struct gp_req){.h.op = GP_UNLINK, .node = root, .node2 = other}, "hard", NULL, NULL, 0), 0);
	x.moved = dir;
	assert_int_equal(call((struct gp_req){.h.op = GP_RENAME, .node = root, .node2 = root}, "new", "newer", &x, sizeof(x)), 0);
	assert_int_equal(simple(GP_GETATTR, file), 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_UNLINK, .node = dir, .node2 = file}, "f", NULL, NULL, 0), 0);
	assert_int_equal(simple(GP_GETATTR, file), 0);
	assert_int_equal(BODY(struct gp_attr)->nlink, 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_OPEN, .node = other, .flags = GP_OPEN_READ}, NULL, NULL, NULL, 0), 0);
	assert_int_equal(pread(rep_fd, buf, sizeof(buf), 0), 3);
	// A directory cannot move below itself, whatever ids the sentry names.
	assert_int_equal(call((struct gp_req){.h.op = GP_RENAME, .node = root, .node2 = dir}, "newer", "x", &x, sizeof(x)), -EINVAL);
	x = (struct gp_rename){.moved = dir};
	assert_int_equal(call((struct gp_req){.h.op = GP_RENAME, .node = root, .node2 = dir}, "fifo", "x", &x, sizeof(x)), 0);
	assert_int_equal(fstatat(dirfd_top, "newer/x", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(call((struct gp_req){.h.op = GP_UNLINK, .node = root, .flags = GP_UNLINK_DIR}, "newer", NULL, NULL, 0), -ENOTEMPTY);
	assert_int_equal(simple(GP_FSYNC, dir), 0);
	assert_int_equal(simple(GP_STATFS, dir), 0);
	assert_int_equal(stop(), 0);
}

static void test_forget(void **state)
{
	uint64_t root, ids[2];

	start(true, 0);
	root = attach(0);
	ids[0] = node_of(root, "a/b");
	ids[1] = root; // roots stay
	memcpy(req + sizeof(struct gp_req), ids, sizeof(ids));
	*(struct gp_req *)req = (struct gp_req){.h = {.len = sizeof(struct gp_req) + sizeof(ids), .op = GP_FORGET}, .data_len = sizeof(ids)};
	assert_int_equal(send_fds(sock, req, sizeof(struct gp_req) + sizeof(ids), NULL, 0), 0);
	assert_int_equal(simple(GP_GETATTR, ids[0]), -ESTALE);
	assert_int_equal(simple(GP_GETATTR, root), 0);
	assert_int_equal(simple(GP_GETATTR, root + 12345), -ESTALE);
	assert_int_equal(simple(GP_GETATTR, UINT64_MAX), -ESTALE);
	assert_int_equal(stop(), 0);
}

// Requests that break the rules end the gofer; none of them gets out of the tree.
static void refuse(struct gp_req q, const char *name, size_t name_len, const void *data, size_t len, int delta)
{
	char *p = req + sizeof(q);

	start(false, 0);
	if (q.node == 1)
		q.node = attach(0);
	q.name1_len = (uint16_t)name_len;
	q.data_len = (uint32_t)len;
	p = mempcpy(p, name, name_len);
	p = mempcpy(p, data, len);
	q.h.len = (uint32_t)(p - req) + (uint32_t)delta;
	memcpy(req, &q, sizeof(q));
	assert_int_equal(send_fds(sock, req, (size_t)(p - req), NULL, 0), 0);
	assert_int_equal(recv(sock, rep, sizeof(rep), 0), 0);
	assert_int_equal(stop(), 1 << 8);
}

static void test_malformed(void **state)
{
	static const char *const paths[] = {"..", ".", "a/..", "a//b", "/a", "a/", "", "a/../..", "./a"};
	char longname[300];

	for (unsigned i = 0; i < ARRAY_SIZE(paths); i++)
		refuse((struct gp_req){.h.op = GP_WALK, .node = 1}, "", 0, paths[i], strlen(paths[i]), 0);
	refuse((struct gp_req){.h.op = GP_WALK, .node = 1}, "", 0, "a\0b", 3, 0);
	refuse((struct gp_req){.h.op = GP_MKDIR, .node = 1}, "..", 2, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_MKDIR, .node = 1}, "a/x", 3, "", 0, 0);
	memset(longname, 'x', sizeof(longname));
	refuse((struct gp_req){.h.op = GP_MKDIR, .node = 1}, longname, 256, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_GETATTR, .node = 1}, "", 0, "", 0, 8);   // truncated
	refuse((struct gp_req){.h.op = GP_GETATTR, .node = 1}, "", 0, "x", 1, 0);  // more than there should be
	refuse((struct gp_req){.h.op = GP_GETATTR, .node = 1, .node2 = 7}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_GETATTR, .node = 0}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_GETATTR, .node = 1, .flags = 1}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_OP_END, .node = 1}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = 0, .node = 1}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_OPEN, .node = 1}, "", 0, "", 0, 0);
	refuse((struct gp_req){.h.op = GP_FORGET}, "", 0, "12345678x", 9, 0);
	start(false, 0);
	memset(req, 'x', sizeof(req));
	assert_int_equal(send_fds(sock, req, GP_MSG_MAX + 100, NULL, 0), 0);
	assert_int_equal(stop(), 1 << 8);
	start(false, 0);
	assert_int_equal(send_fds(sock, req, 3, NULL, 0), 0);
	assert_int_equal(stop(), 1 << 8);
}

// Random bytes over valid headers: the parser never crashes, and what it lets through is well-formed.
static void test_parse_random(void **state)
{
	struct gp_parts p;
	unsigned taken = 0;

	srandom(1);
	for (unsigned i = 0; i < 300000; i++) {
		struct gp_req *q = (struct gp_req *)req;
		size_t n = sizeof(*q) + (size_t)random() % 64;

		for (size_t j = 0; j < n; j++)
			req[j] = (char)(random() % 4 ? 0 : random());
		q->h = (struct gp_hdr){.len = (uint32_t)n, .op = (uint16_t)(random() % (GP_OP_END + 1))};
		q->node = (uint64_t)random() % 2;
		q->name1_len %= 64;
		q->name2_len %= 64;
		q->data_len = (uint32_t)(n - sizeof(*q)) - q->name1_len - q->name2_len;
		q->pad = 0;
		taken += gp_req_check(req, n, &p);
		((struct gp_hdr *)req)->flags = (uint16_t)(random() % 4);
		taken += gp_rep_check(req, n, q->h.op);
	}
	assert_true(taken > 100);
}

static void test_filter(void **state)
{
	int st;

	assert_true(gofer_filter.calls <= 45);
	if (NO_FILTER)
		skip();
	for (int i = 0; i < 3; i++) {
		child = fork();
		if (child == 0) {
			if (gofer_filter_install())
				_exit(9);
			if (i == 1)
				(void)socket(AF_INET, SOCK_STREAM, 0);
			if (i == 2) // would follow a symlink
				(void)openat(AT_FDCWD, "etc", O_RDONLY | O_CLOEXEC);
			_exit(0);
		}
		assert_int_equal(waitpid(child, &st, 0), child);
		assert_true(i ? WIFSIGNALED(st) && WTERMSIG(st) == SIGSYS : st == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
		cmocka_unit_test_setup_teardown(test_readdir, setup, teardown),
		cmocka_unit_test_setup_teardown(test_few_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forget, setup, teardown),
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test(test_parse_random),
		cmocka_unit_test(test_filter),
	};

	rep_fd = -1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
