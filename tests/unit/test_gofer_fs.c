// The gofer file system, over a real gofer in a forked process.
#include "fs_harness.h"

#include <ftw.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "gofer/proto/proto.h"
#include "gofer/server/gofer.h"
#include "platform/base/fdpass.h"
#include "sentry/fs/gofer/gofer.h"

static char top[64];
static int topfd, deaths;
static pid_t child;
static struct gofer_conn *conn;
static bool exclusive, read_only;

static int unlink_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	return remove(path);
}

static void host_file(const char *name, const char *text)
{
	int fd = openat(topfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int setup(void **state)
{
	char name[64];

	snprintf(top, sizeof(top), "/tmp/test-gofer-fs.XXXXXX");
	assert_non_null(mkdtemp(top));
	chmod(top, 0755);
	topfd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mkdirat(topfd, "a", 0755);
	mkdirat(topfd, "a/b", 0755);
	mkdirat(topfd, "a/b/c", 0755);
	host_file("a/b/c/file", "hello");
	assert_int_equal(symlinkat("b/c", topfd, "a/link"), 0);
	assert_int_equal(symlinkat("/a/b/c/file", topfd, "abs"), 0);
	mkdirat(topfd, "lib", 0755);
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "lib/m%d.py", i);
		host_file(name, name);
	}
	assert_int_equal(linkat(topfd, "lib/m1.py", topfd, "lib/hard", 0), 0);
	deaths = 0;
	return 0;
}

static int teardown(void **state)
{
	close(topfd);
	return nftw(top, unlink_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void died(void *arg)
{
	deaths++;
}

// The gofer, unless `fake` says that the test plays it on the other end of the socket.
static int start_gofer(bool fake)
{
	struct gofer_tree tree = {.read_only = read_only};
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	child = fake ? 0 : fork();
	if (child == 0 && !fake) {
		close(sv[0]);
		tree.root_fd = open(top, O_PATH | O_DIRECTORY | O_CLOEXEC);
		_exit(gofer_main(&(struct gofer_config){.sock = sv[1], .log_fd = -1, .trees = &tree, .ntrees = 1,
							.spin_ns = 20000, .no_filter = true}));
	}
	assert_int_equal(gofer_conn_new(sv[0], died, NULL, &conn), 0);
	if (fake)
		return sv[1];
	close(sv[1]);
	return -1;
}

static void mount_root(void)
{
	struct gofer_mount m = {.conn = conn, .exclusive = exclusive, .read_only = read_only};
	struct super_block *sb;

	assert_int_equal(gofer_fs_type.mount(&gofer_fs_type, &(struct mount_opts){.internal = &m}, &sb), 0);
	fs_enter(sb);
}

static void finish(void)
{
	fs_leave();
	gofer_conn_put(conn);
}

static void run(void (*body)(void *), bool excl, bool ro)
{
	int st;

	exclusive = excl;
	read_only = ro;
	fs_run(body);
	if (child > 0)
		assert_int_equal(waitpid(child, &st, 0), child);
	child = 0;
}

static uint64_t asked(void)
{
	static uint64_t last;
	uint64_t n = gofer_conn_requests(conn), r = n - last;

	last = n;
	return r;
}

static void read_main(void *arg)
{
	const struct inode *i, *j;
	struct file *f;
	uint64_t off;
	char buf[16];
	int fd;

	start_gofer(false);
	mount_root();
	asked();
	// One request a path, descriptor included.
	fs_check_file("/a/b/c/file", "hello");
	assert_int_equal(asked(), 1);
	fs_check_file("/a/b/c/file", "hello");
	fs_stat("/a/b/c", 0);
	assert_int_equal(asked(), 0);
	fs_stat("/a/b/none", -ENOENT);
	assert_int_equal(asked(), 1);
	fs_stat("/a/b/none", -ENOENT);
	assert_int_equal(asked(), 0);
	fs_check_file("/a/link/file", "hello");
	fs_check_file("/abs", "hello");
	fs_stat("/a/b/c/file/x", -ENOTDIR);
	fs_stat("/a/../a/./b//c", 0);
	asked();
	// The second miss in a directory lists it, and then nothing in it needs asking.
	fs_stat("/lib/m5.py", 0);
	fs_stat("/lib/m6.py", 0);
	asked();
	for (int k = 0; k < 100; k++) {
		snprintf(buf, sizeof(buf), "/lib/m%d.py", k);
		fs_stat(buf, 0);
		snprintf(buf, sizeof(buf), "/lib/x%d.py", k);
		fs_stat(buf, -ENOENT);
	}
	assert_int_equal(asked(), 0);
	i = fs_stat("/lib/m1.py", 0);
	j = fs_stat("/lib/hard", 0);
	assert_int_equal(i->ino, j->ino);
	assert_int_equal(i->nlink, 2);
	f = fs_open("/lib/m7.py", O_RDONLY, 0, 0);
	assert_int_equal(f->ops->map_fd(f, 0, 4096, PROT_READ, false, &fd, &off), 0);
	assert_int_equal(pread(fd, buf, 9, (off_t)off), 9);
	assert_memory_equal(buf, "lib/m7.py", 9);
	file_put(f);
	if (read_only)
		fs_open("/lib/m7.py", O_RDWR, 0, -EROFS);
	fs_open("/lib/new", O_RDWR | O_CREAT, 0644, read_only ? -EROFS : 0);
	if (!read_only)
		assert_true(faccessat(topfd, "lib/new", F_OK, 0) == 0);
	finish();
	sched_stop(0);
}

static void test_read(void **state)
{
	run(read_main, true, true);
	assert_int_equal(fs_live(), 0);
}

static void list_main(void *arg)
{
	struct fs_names l = {.c.fill = fs_fill, .limit = 7};
	struct file *f;
	unsigned total = 0;

	start_gofer(false);
	mount_root();
	asked();
	f = fs_open("/lib", O_RDONLY | O_DIRECTORY, 0, 0);
	do { // in small pieces
		total += l.n;
		l.n = 0;
		assert_int_equal(vfs_iterate(f, &l.c), 0);
	} while (l.n);
	assert_int_equal(total, 103);
	file_put(f);
	asked();
	fs_stat("/lib/m50.py", 0);
	if (exclusive)
		assert_int_equal(asked(), 0);
	assert_true(fs_lists("/", "abs"));
	assert_false(fs_lists("/", "nothing"));
	finish();
	sched_stop(0);
}

static void test_list(void **state)
{
	run(list_main, true, true);
	run(list_main, false, true);
	assert_int_equal(fs_live(), 0);
}

static void shared_main(void *arg)
{
	struct timespec ts = {.tv_nsec = 3000000};

	start_gofer(false);
	mount_root();
	fs_stat("/a/new", -ENOENT);
	host_file("a/new", "one");
	nanosleep(&ts, NULL);
	fs_check_file("/a/new", "one"); // a missing name is not believed for long
	asked();
	for (int i = 0; i < 5; i++) {
		nanosleep(&ts, NULL);
		fs_stat("/a/b/c/file", 0);
		nanosleep(&ts, NULL);
		fs_stat("/a/b/c/none", -ENOENT);
	}
	assert_true(asked() <= 10); // one a path
	fs_check_file("/a/b/c/file", "hello");
	host_file("a/new", "three");
	nanosleep(&ts, NULL);
	assert_int_equal(fs_stat("/a/new", 0)->size, 5);
	fs_check_file("/a/new", "three");
	assert_int_equal(unlinkat(topfd, "a/new", 0), 0);
	nanosleep(&ts, NULL);
	fs_stat("/a/new", -ENOENT);
	assert_int_equal(renameat(topfd, "a", topfd, "z"), 0);
	nanosleep(&ts, NULL);
	fs_stat("/a/b", -ENOENT);
	fs_check_file("/z/b/c/file", "hello");
	finish();
	sched_stop(0);
}

static void test_shared(void **state)
{
	run(shared_main, false, true);
	assert_int_equal(fs_live(), 0);
}

static void write_main(void *arg)
{
	struct iattr a = {.valid = ATTR_MODE, .mode = 0600};
	struct file *f, *g;
	struct stat st;
	struct path p;
	char *target;
	char buf[8];

	start_gofer(false);
	mount_root();
	f = fs_open("/a/f", O_RDWR | O_CREAT | O_EXCL, 0666, 0);
	assert_int_equal(fs_write(f, "abcdef", 0), 6);
	assert_int_equal(fs_stat("/a/f", 0)->size, 6);
	assert_int_equal(fs_stat("/a/f", 0)->mode, S_IFREG | 0644);
	fs_open("/a/f", O_RDWR | O_CREAT | O_EXCL, 0666, -EEXIST);
	assert_int_equal(vfs_ftruncate(f, 2), 0);
	g = fs_open("/a/f", O_WRONLY | O_APPEND, 0, 0);
	assert_int_equal(fs_write(g, "XY", 0), 2);
	file_put(g);
	fs_check_file("/a/f", "abXY");
	assert_int_equal(path_walk(AT_FDCWD, "/a/f", 0, &p), 0);
	assert_int_equal(vfs_setattr(&p, &a), 0);
	assert_int_equal(vfs_setxattr(&p, "user.k", "v", 1, 0), 0);
	assert_int_equal(vfs_getxattr(&p, "user.k", buf, sizeof(buf)), 1);
	assert_int_equal(vfs_listxattr(&p, buf, sizeof(buf)), 7);
	assert_int_equal(vfs_getxattr(&p, "user.none", buf, sizeof(buf)), -ENODATA);
	path_put(&p);
	assert_int_equal(fstatat(topfd, "a/f", &st, 0), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	// Open, unlinked, and still a file.
	assert_int_equal(vfs_unlink(AT_FDCWD, "/a/f", false), 0);
	fs_stat("/a/f", -ENOENT);
	assert_int_equal(kernel_read(f, buf, 4, 0), 4);
	assert_int_equal(vfs_ftruncate(f, 1), 0);
	assert_int_equal(f->inode->size, 1);
	assert_int_equal(f->inode->nlink, 0);
	file_put(f);
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/d", 0755), 0);
	assert_int_equal(vfs_symlink(AT_FDCWD, "/d/s", "../a"), 0);
	assert_int_equal(path_walk(AT_FDCWD, "/d/s", 0, &p), 0);
	assert_int_equal(vfs_readlink(&p, &target), 0);
	assert_string_equal(target, "../a");
	path_put(&p);
	assert_int_equal(vfs_mknod(AT_FDCWD, "/d/c", S_IFCHR | 0600, 0x103, NULL), -EPERM);
	assert_int_equal(vfs_mknod(AT_FDCWD, "/d/p", S_IFIFO | 0600, 0, NULL), 0);
	fs_put_file("/d/x", "x");
	assert_int_equal(vfs_rename(AT_FDCWD, "/d/x", AT_FDCWD, "/a/y", 0), 0);
	fs_check_file("/a/y", "x");
	fs_stat("/d/x", -ENOENT);
	assert_int_equal(vfs_rename(AT_FDCWD, "/a/b", AT_FDCWD, "/d/b2", 0), 0);
	fs_check_file("/d/b2/c/file", "hello");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d", true), -ENOTEMPTY);
	assert_true(fs_lists("/d", "b2"));
	assert_int_equal(path_walk(AT_FDCWD, "/a/y", 0, &p), 0);
	assert_int_equal(vfs_link(&p, AT_FDCWD, "/d/hard"), 0);
	path_put(&p);
	assert_int_equal(fs_stat("/a/y", 0)->nlink, 2);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/a/y", false), 0);
	fs_check_file("/d/hard", "x");
	assert_int_equal(fs_stat("/d/hard", 0)->nlink, 1);
	finish();
	sched_stop(0);
}

static void test_write(void **state)
{
	run(write_main, true, false);
	teardown(state);
	setup(state);
	run(write_main, false, false);
	assert_int_equal(fs_live(), 0);
}

// Many files through few descriptors.
static void few_fds_main(void *arg)
{
	struct file *f[100];
	char name[32], buf[16];

	gofer_set_fd_limit(16);
	start_gofer(false);
	mount_root();
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/lib/m%d.py", i);
		f[i] = fs_open(name, O_RDONLY, 0, 0);
	}
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 100; i++) {
			memset(buf, 0, sizeof(buf));
			snprintf(name, sizeof(name), "lib/m%d.py", i);
			assert_int_equal(kernel_read(f[i], buf, sizeof(buf), 0), strlen(name));
			assert_string_equal(buf, name);
		}
	}
	for (int i = 0; i < 100; i++)
		file_put(f[i]);
	gofer_set_fd_limit(1024);
	finish();
	sched_stop(0);
}

static void test_few_fds(void **state)
{
	run(few_fds_main, true, true);
	assert_int_equal(fs_live(), 0);
}

static void dead_main(void *arg)
{
	start_gofer(false);
	mount_root();
	fs_stat("/a", 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	fs_stat("/lib/m1.py", -EIO);
	fs_stat("/lib/m2.py", -EIO);
	assert_int_equal(deaths, 1);
	fs_stat("/a", 0); // what is known stays known
	finish();
	sched_stop(0);
}

static void test_dead(void **state)
{
	run(dead_main, true, true);
	assert_int_equal(fs_live(), 0);
}

// A gofer that answers nonsense is given up, and what it sent is used for nothing.
static int hostile_fd;
static unsigned hostile_kind;
static struct sched_task hostile_task;

static void hostile_task_main(void *arg)
{
	static char q[GP_MSG_MAX] __attribute__((aligned(8))), r[GP_MSG_MAX] __attribute__((aligned(8)));
	const struct gp_req *req = (const struct gp_req *)q;
	struct gp_hdr *h = (struct gp_hdr *)r;
	struct gp_node *n = (struct gp_node *)(h + 1);
	int pfd[2], nfds = 0, fd = -1;

	while (recv(hostile_fd, q, sizeof(q), MSG_DONTWAIT) < 0)
		sched_yield_cpu();
	*h = (struct gp_hdr){.len = sizeof(*h) + sizeof(*n), .op = GP_ATTACH, .id = req->h.id};
	*n = (struct gp_node){.id = 1, .attr = {.ino = 1, .mode = S_IFDIR | 0755, .blksize = 4096, .nlink = 2}};
	assert_int_equal(pipe(pfd), 0);
	switch (hostile_kind) {
	case 0: h->id++; break;
	case 1: h->op = GP_WALK; break;
	case 2: h->len--; break;
	case 3: n->attr.mode = 0; break;
	case 4: n->attr.size = UINT64_MAX; break;
	case 5: n->id = 0; break;
	case 6: n->attr.atime.nsec = 1000000000; break;
	case 7: h->flags = GP_MORE; break;
	case 8: h->flags = GP_FD; break;
	case 9: nfds = 1; fd = pfd[0]; break; // a descriptor nobody asked for
	case 10: h->status = 1; break;
	case 11: h->flags = GP_FD; nfds = 1; fd = pfd[0]; break;
	}
	send_fds(hostile_fd, r, sizeof(*h) + sizeof(*n), &fd, (unsigned)nfds);
	close(pfd[0]);
	close(pfd[1]);
	sched_exit(NULL, NULL);
}

static void hostile_main(void *arg)
{
	struct gofer_mount m = {.exclusive = true};
	struct super_block *sb;

	for (hostile_kind = 0; hostile_kind < 12; hostile_kind++) {
		deaths = 0;
		hostile_fd = start_gofer(true);
		m.conn = conn;
		memset(&hostile_task, 0, sizeof(hostile_task));
		assert_int_equal(sched_spawn(&hostile_task, "hostile", hostile_task_main, NULL), 0);
		assert_int_equal(gofer_fs_type.mount(&gofer_fs_type, &(struct mount_opts){.internal = &m}, &sb), -EIO);
		assert_int_equal(deaths, 1);
		gofer_conn_put(conn);
		close(hostile_fd);
		sched_yield_cpu();
	}
	sched_stop(0);
}

static void test_hostile(void **state)
{
	run(hostile_main, true, true);
	assert_int_equal(fs_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_list, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_few_fds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
