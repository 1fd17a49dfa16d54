// Random calls on a small tree, told one a line: what a seed gives on Linux it must give in the sandbox.
//
//   fsdiff SEED CALLS USER DIR    USER 1: changes between root and uid 1000 on the way. DIR is chrooted into.
//
// Few names and many links, dots and slashes, so that calls meet in the corners where the order of the
// kernel's checks shows. The tree is printed every 500 calls.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LONG "longname-longname-longname-longname-longname-longname"
#define DEPTH 8 // of the start below the root, so that ".." has somewhere to go
#define NFDS 8
#define PATH_LEN 512

static uint64_t rng;
static int fds[NFDS];
static char base[64], a[PATH_LEN], b[PATH_LEN], out[PATH_LEN];
static unsigned arg;

static unsigned rnd(unsigned below)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned)(rng >> 33) % below;
}

static void random_path(char *p)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "a", "b", "c", ".", "..", LONG};
	unsigned n = 1 + rnd(4);

	p[0] = 0;
	if (rnd(24) == 0)
		return;
	for (unsigned i = 0; i < n; i++) {
		if (i)
			strcat(p, rnd(10) ? "/" : "//");
		strcat(p, names[rnd(i || n > 1 ? 11 : 8)]);
	}
	if (rnd(7) == 0)
		strcat(p, "/");
}

static int by_name(const void *x, const void *y)
{
	return strcmp(*(char *const *)x, *(char *const *)y);
}

static void dump(const char *dir, int depth)
{
	char *names[512], path[4096], link[300];
	struct dirent *e;
	struct stat st;
	DIR *d = opendir(dir);
	int n = 0;

	if (!d || depth > 30) {
		printf("%s: %d\n", dir, d ? 0 : errno);
		return;
	}
	while ((e = readdir(d)) && n < 512)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			names[n++] = strdup(e->d_name);
	closedir(d);
	qsort(names, n, sizeof(names[0]), by_name);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		free(names[i]);
		if (lstat(path, &st)) {
			printf("%s: %d\n", path, errno);
			continue;
		}
		memset(link, 0, sizeof(link));
		if (S_ISLNK(st.st_mode) && readlink(path, link, sizeof(link) - 1) < 0)
			strcpy(link, "?");
		// A directory's link count says something else on an overlay.
		printf("%s %o %d %u %u %ld %s\n", path, st.st_mode, S_ISDIR(st.st_mode) ? 0 : (int)st.st_nlink, st.st_uid, st.st_gid,
		       S_ISREG(st.st_mode) ? (long)st.st_size : 0L, link);
		if (S_ISDIR(st.st_mode))
			dump(path, depth + 1);
	}
}

static void tell_stat(const struct stat *st)
{
	snprintf(out, sizeof(out), "%o %d %ld", st->st_mode, S_ISDIR(st->st_mode) ? 0 : (int)st->st_nlink,
		 S_ISREG(st->st_mode) ? (long)st->st_size : 0L);
}

static int some_dirfd(void)
{
	int fd = fds[rnd(NFDS)];

	return fd >= 0 && rnd(2) ? fd : AT_FDCWD;
}

// Each call: its result, or -1 with errno. What else it gave goes to out.
static long do_open(void)
{
	static const unsigned flags[] = {O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY, O_APPEND, O_PATH, O_CREAT, O_CREAT};
	int *fd = &fds[rnd(NFDS)];
	struct stat st;

	arg = rnd(3) | O_NONBLOCK; // FIFOs must not make it wait
	for (int k = rnd(4); k > 0; k--)
		arg |= flags[rnd(9)];
	if (rnd(30) == 0)
		arg |= O_TMPFILE;
	if (*fd >= 0)
		close(*fd);
	*fd = open(a, arg, rnd(2) ? 0644 : 0700);
	if (*fd < 0)
		return -1;
	fstat(*fd, &st);
	tell_stat(&st);
	snprintf(out + strlen(out), 32, " flags %x", fcntl(*fd, F_GETFL) & ~0100000);
	return 0;
}

static long do_openat2(void)
{
	struct open_how how = {.flags = O_NONBLOCK | rnd(3) | (rnd(3) ? 0 : O_CREAT)};
	long r;

	how.resolve = rnd(32) & ~(rnd(4) ? 3 : 0);
	how.mode = how.flags & O_CREAT ? 0644 : 0;
	arg = (unsigned)how.resolve;
	r = syscall(SYS_openat2, some_dirfd(), a, &how, sizeof(how));
	if (r >= 0)
		close((int)r);
	return r >= 0 ? 0 : r;
}

static long do_mknod(void)
{
	static const unsigned modes[] = {S_IFIFO | 0644, S_IFREG | 0600, S_IFSOCK | 0644, S_IFCHR | 0600, 0644, S_IFDIR | 0755};

	arg = modes[rnd(6)];
	return mknod(a, arg, 0x103);
}

static long do_fd(void)
{
	int fd = fds[rnd(NFDS)];
	char buf[32];
	struct stat st;
	long r;

	arg = rnd(6);
	if (fd < 0)
		return 0;
	switch (arg) {
	case 0:
		return write(fd, "hello world", rnd(12));
	case 1:
		return pread(fd, buf, 20, rnd(20));
	case 2:
		return ftruncate(fd, rnd(5000));
	case 3:
		return fchmod(fd, 0755);
	case 4:
		r = fstat(fd, &st);
		tell_stat(&st);
		return r;
	default:
		r = lseek(fd, (off_t)rnd(100) - 10, (int)rnd(3));
		return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : r;
	}
}

static long do_xattr(void)
{
	char buf[PATH_LEN];

	arg = rnd(4);
	switch (arg) {
	case 0:
		return lsetxattr(a, "user.x", b, strlen(b), (int)rnd(3));
	case 1:
		return lgetxattr(a, "user.x", buf, rnd(2) * 300);
	case 2:
		return lremovexattr(a, "user.x");
	default:
		return lsetxattr(a, "trusted.y", "1", 1, 0);
	}
}

static long do_utimens(void)
{
	struct timespec ts[2] = {{rnd(1000), rnd(3) ? UTIME_NOW : 5}, {7, rnd(2) ? UTIME_NOW : rnd(2) ? UTIME_OMIT : 9}};

	return utimensat(AT_FDCWD, a, ts, rnd(2) ? AT_SYMLINK_NOFOLLOW : 0);
}

static long do_chdir(void)
{
	long r;

	if (rnd(3))
		return chdir(base);
	r = chdir(a);
	if (!r && !getcwd(out, sizeof(out)))
		strcpy(out, "?");
	return r;
}

static long do_stat(unsigned how)
{
	static const int flags[] = {0, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, 1};
	struct stat st;
	long r;

	if (how < 2) {
		r = how ? lstat(a, &st) : stat(a, &st);
	} else {
		arg = flags[rnd(5)];
		r = fstatat(some_dirfd(), rnd(3) ? a : "", &st, (int)arg);
	}
	if (!r)
		tell_stat(&st);
	return r;
}

static long do_readlink(void)
{
	long r = readlink(a, out, rnd(3) ? sizeof(out) - 1 : 0);

	out[r > 0 ? r : 0] = 0;
	return r;
}

static long call(unsigned which, const char **name)
{
	static const char *const names[] = {"open", "open", "open", "mkdir", "mkdir", "rmdir", "unlink", "rename", "rename", "rename",
					    "renameat2", "link", "linkat", "symlink", "symlink", "stat", "lstat", "readlink", "chmod", "chown",
					    "truncate", "access", "mknod", "openat2", "fd", "xattr", "utimensat", "chdir", "unlinkat", "fstatat"};

	*name = names[which];
	switch (which) {
	case 0: case 1: case 2: return do_open();
	case 3: case 4: return mkdir(a, rnd(2) ? 0755 : 0700);
	case 5: return rmdir(a);
	case 6: return unlink(a);
	case 7: case 8: case 9: return rename(a, b);
	case 10: arg = rnd(4); return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, arg);
	case 11: return link(a, b);
	case 12: arg = rnd(2) ? AT_SYMLINK_FOLLOW : 0; return linkat(AT_FDCWD, a, AT_FDCWD, b, (int)arg);
	case 13: case 14: return symlink(a, b);
	case 15: return do_stat(0);
	case 16: return do_stat(1);
	case 17: return do_readlink();
	case 18: arg = rnd(2) ? 0700 : rnd(010000) & ~01000; return chmod(a, arg); // sticky: sysctls differ
	case 19: arg = rnd(3) * 500; return chown(a, arg, rnd(2) ? 1000 : (gid_t)-1);
	case 20: arg = rnd(10000); return truncate(a, arg);
	case 21: arg = rnd(9); return access(a, (int)arg);
	case 22: return do_mknod();
	case 23: return do_openat2();
	case 24: return do_fd();
	case 25: return do_xattr();
	case 26: return do_utimens();
	case 27: return do_chdir();
	case 28: arg = rnd(2) ? AT_REMOVEDIR : 0; return unlinkat(some_dirfd(), a, (int)arg);
	default: return do_stat(2);
	}
}

static void be(uid_t uid)
{
	if (uid == 0 ? seteuid(0) || setegid(0) : setegid(uid) || seteuid(uid))
		exit(99);
}

static void start(const char *dir)
{
	char way[PATH_LEN];

	umask(0);
	strcpy(way, dir);
	for (int i = 0; i < DEPTH; i++) {
		strcat(way, "/z");
		strcat(base, "/z");
		if (mkdir(way, 0777) && errno != EEXIST)
			exit(98);
	}
	umask(022);
	if (chroot(dir) || chdir(base))
		exit(97);
	for (int i = 0; i < NFDS; i++)
		fds[i] = -1;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	rng = strtoull(argv[1], NULL, 0);
	start(argv[4]);
	for (int i = 0; i < atoi(argv[2]); i++) {
		const char *name;
		long r;

		random_path(a);
		random_path(b);
		out[0] = 0;
		arg = 0;
		if (argv[3][0] == '1' && rnd(40) == 0)
			be(geteuid() ? 0 : 1000);
		errno = 0;
		r = call(rnd(30), &name);
		printf("%d %u %s(%s, %s, %x) = %ld %d %s\n", i, geteuid(), name, a, b, arg, r, r < 0 ? errno : 0, out);
		if (i % 500 == 499) {
			be(0);
			dump("/", 0);
		}
	}
	return 0;
}
