// Path walks, mounts, links and renames in their corners, locks between processes, sealed memfds,
// splicing: openat2(2), mount(2), rename(2), fcntl(2), memfd_create(2), splice(2).
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static char base[64];

static int mk(const char *name, const char *data)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd >= 0 && data && write(fd, data, strlen(data)) < 0)
		perror(name);
	return fd;
}
static void touch(const char *name) { close(mk(name, NULL)); }

static long openat2(int dfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};

	return syscall(SYS_openat2, dfd, path, &how, sizeof(how));
}

static void walks(void)
{
	struct stat st, st2;
	char deep[PATH_MAX + 10], name[32], to[32];
	int dfd, fd, i;

	mkdir("w", 0755);
	mkdir("w/sub", 0755);
	touch("w/f");
	symlink("/f", "w/abs");
	symlink("../w/f", "w/up");
	symlink("sub/", "w/slash");
	symlink("self", "w/self");
	CHECK("walk.slashes", stat("w//sub/.././f", &st) == 0 && stat("./w/f", &st2) == 0 && st.st_ino == st2.st_ino);
	CHECK("walk.root_dotdot", stat("/..", &st) == 0 && stat("/", &st2) == 0 && st.st_ino == st2.st_ino);
	CHECK_ERR("walk.file_dot", stat("w/f/.", &st), ENOTDIR);
	CHECK_ERR("walk.file_slash", lstat("w/f/", &st), ENOTDIR);
	CHECK("walk.link_slash", lstat("w/slash/", &st) == 0 && S_ISDIR(st.st_mode) && lstat("w/slash", &st) == 0 && S_ISLNK(st.st_mode));
	CHECK_ERR("walk.link_slash_file", lstat("w/up/", &st), ENOTDIR);
	CHECK_ERR("walk.self", stat("w/self", &st), ELOOP);
	CHECK_ERR("walk.self_below", open("w/self/x", O_RDONLY), ELOOP);
	memset(deep, '/', sizeof(deep));
	deep[PATH_MAX] = 0;
	CHECK_ERR("walk.path_max", stat(deep, &st), ENAMETOOLONG);
	deep[PATH_MAX - 1] = 0;
	CHECK("walk.path_max_1", stat(deep, &st) == 0);
	symlink("w/f", "n0");
	for (i = 1; i <= 40; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		snprintf(to, sizeof(to), "n%d", i - 1);
		symlink(to, name);
	}
	CHECK("walk.40_links", stat("n39", &st) == 0);
	CHECK_ERR("walk.41_links", stat("n40", &st), ELOOP);
	dfd = open("w", O_PATH | O_DIRECTORY);
	CHECK("openat2.in_root", (fd = openat2(dfd, "/abs", O_RDONLY, 0, RESOLVE_IN_ROOT)) >= 0);
	close(fd);
	CHECK("openat2.in_root_dotdot", (fd = openat2(dfd, "../../f", O_RDONLY, 0, RESOLVE_IN_ROOT)) >= 0);
	close(fd);
	CHECK_ERR("openat2.beneath_abs", openat2(dfd, "/f", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR("openat2.beneath_link", openat2(dfd, "up", O_RDONLY, 0, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR("openat2.magic", openat2(AT_FDCWD, "/proc/self/fd/0", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS), ELOOP);
	CHECK_ERR("openat2.xdev", openat2(AT_FDCWD, "/proc/version", O_RDONLY, 0, RESOLVE_NO_XDEV), EXDEV);
	CHECK_ERR("openat2.both", openat2(dfd, "f", O_RDONLY, 0, RESOLVE_IN_ROOT | RESOLVE_BENEATH), EINVAL);
	CHECK_ERR("openat2.mode", openat2(dfd, "f", O_RDONLY, 0600, 0), EINVAL);
	CHECK_ERR("openat2.mode_bits", openat2(dfd, "g", O_CREAT | O_RDWR, 0100600, 0), EINVAL);
	CHECK_ERR("openat2.resolve", openat2(dfd, "f", O_RDONLY, 0, 0x100), EINVAL);
	CHECK_ERR("openat2.size", syscall(SYS_openat2, dfd, "f", &st, 8), EINVAL);
	CHECK_ERR("openat.path_dir", openat(open("w/f", O_PATH), "x", O_RDONLY), ENOTDIR);
	CHECK_ERR("openat.ebadf", openat(999, "x", O_RDONLY), EBADF);
	CHECK("openat.absolute", (fd = openat(999, "/", O_RDONLY)) >= 0);
	close(fd);
	fd = open("w/abs", O_PATH | O_NOFOLLOW);
	CHECK("o_path.link", fstat(fd, &st) == 0 && S_ISLNK(st.st_mode) && readlinkat(fd, "", name, sizeof(name)) == 2);
	CHECK_ERR("o_path.fchmod", fchmod(fd, 0600), EBADF);
	CHECK_ERR("o_path.ioctl", ioctl(fd, 1), EBADF);
	CHECK("o_path.getfl", (fcntl(fd, F_GETFL) & O_PATH) == O_PATH);
	close(fd);
	CHECK_ERR("open.creat_directory", open("w/sub", O_CREAT | O_DIRECTORY, 0755), EINVAL);
	CHECK_ERR("open.tmpfile_rdonly", open("w", O_TMPFILE | O_RDONLY, 0600), EINVAL);
	CHECK_ERR("open.tmpfile_file", open("w/f", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
	CHECK_ERR("open.creat_dot", open("w/.", O_CREAT | O_RDWR, 0600), EISDIR);
	CHECK_ERR("open.creat_excl_dot", open("w/.", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
	fd = open("w/f", O_RDONLY);
	CHECK_ERR("openat.dirfd_file", openat(fd, "x", O_RDONLY), ENOTDIR);
	CHECK("statx.empty_null", syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_ALL, deep) == 0);
	close(fd);
	close(dfd);
	CHECK_ERR("readlink.size", readlink("w/abs", name, 0), EINVAL);
	CHECK("readlink.short", readlink("w/up", name, 3) == 3);
	CHECK_ERR("symlink.empty", symlink("", "w/e"), ENOENT);
	CHECK_ERR("symlink.eexist", symlink("x", "w/f"), EEXIST);
	CHECK_ERR("mkdir.dot", mkdir("w/.", 0755), EEXIST);
	CHECK_ERR("mkdir.dangling", (symlink("nowhere", "w/dang"), mkdir("w/dang", 0755)), EEXIST);
	CHECK_ERR("rmdir.dotdot", rmdir("w/sub/.."), ENOTEMPTY);
	CHECK_ERR("rmdir.root", rmdir("/"), EBUSY);
	CHECK_ERR("unlink.dot", unlink("."), EISDIR);
	CHECK_ERR("unlink.slash", unlink("w/f/"), ENOTDIR);
	CHECK_ERR("unlinkat.flags", unlinkat(AT_FDCWD, "w/f", 1), EINVAL);
	CHECK_ERR("link.slash", link("w/f", "w/new/"), ENOENT);
	CHECK_ERR("mknod.dir", mknod("w/d", S_IFDIR | 0755, 0), EPERM);
	CHECK_ERR("mknod.type", mknod("w/d", 0170000, 0), EINVAL);
	CHECK("mknod.reg", mknod("w/reg", 0644, 0) == 0 && stat("w/reg", &st) == 0 && S_ISREG(st.st_mode));
	CHECK("link.symlink", link("w/abs", "w/abs2") == 0 && lstat("w/abs2", &st) == 0 && S_ISLNK(st.st_mode) && st.st_nlink == 2);
	CHECK_ERR("linkat.follow", linkat(AT_FDCWD, "w/dang", AT_FDCWD, "w/x", AT_SYMLINK_FOLLOW), ENOENT);
}

static void renames(void)
{
	struct stat st, st2;
	int fd;

	mkdir("r", 0755);
	mkdir("r/a", 0755);
	mkdir("r/b", 0755);
	mkdir("r/a/in", 0755);
	touch("r/f");
	touch("r/g");
	CHECK_ERR("rename.dot", rename("r/a/.", "r/x"), EBUSY);
	CHECK_ERR("rename.to_dotdot", rename("r/f", "r/a/.."), EBUSY);
	CHECK_ERR("rename.file_slash", rename("r/f/", "r/x"), ENOTDIR);
	CHECK_ERR("rename.to_slash", rename("r/f", "r/x/"), ENOTDIR);
	CHECK("rename.dir_slash", rename("r/b/", "r/c/") == 0 && stat("r/c", &st) == 0);
	CHECK_ERR("rename.over_parent", rename("r/a/in", "r/a"), ENOTEMPTY);
	CHECK_ERR("rename.below_self", rename("r/a", "r/a/in/x"), EINVAL);
	CHECK("rename.same", rename("r/f", "r/f") == 0);
	link("r/f", "r/f2");
	CHECK("rename.hard_links", rename("r/f", "r/f2") == 0 && stat("r/f", &st) == 0 && stat("r/f2", &st2) == 0);
	CHECK_ERR("renameat2.flags", renameat2(AT_FDCWD, "r/f", AT_FDCWD, "r/g", 8), EINVAL);
	CHECK_ERR("renameat2.both", renameat2(AT_FDCWD, "r/f", AT_FDCWD, "r/g", RENAME_NOREPLACE | RENAME_EXCHANGE), EINVAL);
	CHECK_ERR("renameat2.exchange_enoent", renameat2(AT_FDCWD, "r/f", AT_FDCWD, "r/none", RENAME_EXCHANGE), ENOENT);
	stat("r/a", &st);
	CHECK("renameat2.exchange_dir", renameat2(AT_FDCWD, "r/a", AT_FDCWD, "r/g", RENAME_EXCHANGE) == 0 && stat("r/g", &st2) == 0 && st.st_ino == st2.st_ino);
	CHECK_ERR("renameat2.exchange_below", renameat2(AT_FDCWD, "r/g", AT_FDCWD, "r/g/in", RENAME_EXCHANGE), EINVAL);
	fd = open("r/g/in", O_RDONLY | O_DIRECTORY);
	CHECK("rename.dotdot_moves", rename("r/g/in", "r/c/in") == 0 && fstatat(fd, "..", &st, 0) == 0 && stat("r/c", &st2) == 0 && st.st_ino == st2.st_ino);
	close(fd);
	fd = open("r/a", O_RDONLY);
	CHECK("rename.over_open", rename("r/f2", "r/a") == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0);
	close(fd);
}

static void times(void)
{
	struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}}, old[2] = {{100, 5}, {200, 6}};
	struct timeval tv[2] = {{300, 7}, {400, 8}}, bad[2] = {{1, 2000000}, {0, 0}};
	struct utimbuf ub = {500, 600};
	struct stat st;
	int fd = mk("t", "x");

	CHECK("utimensat.explicit", utimensat(AT_FDCWD, "t", old, 0) == 0 && stat("t", &st) == 0 && st.st_atim.tv_sec == 100 && st.st_mtim.tv_nsec == 6);
	CHECK("utimensat.mixed", utimensat(AT_FDCWD, "t", now, 0) == 0 && stat("t", &st) == 0 && st.st_atim.tv_sec > 1000 && st.st_mtim.tv_sec == 200);
	CHECK("futimens", futimens(fd, old) == 0 && fstat(fd, &st) == 0 && st.st_atim.tv_sec == 100);
	CHECK("utimes", utimes("t", tv) == 0 && stat("t", &st) == 0 && st.st_mtim.tv_sec == 400 && st.st_mtim.tv_nsec == 8000);
	CHECK_ERR("utimes.einval", utimes("t", bad), EINVAL);
	CHECK("utime", utime("t", &ub) == 0 && stat("t", &st) == 0 && st.st_mtim.tv_sec == 600);
	CHECK_ERR("utimensat.flags", utimensat(AT_FDCWD, "t", old, 1), EINVAL);
	symlink("t", "tl");
	CHECK("utimensat.nofollow", utimensat(AT_FDCWD, "tl", old, AT_SYMLINK_NOFOLLOW) == 0 && lstat("tl", &st) == 0 && st.st_mtim.tv_sec == 200 && stat("tl", &st) == 0 && st.st_mtim.tv_sec == 600);
	CHECK("lchown", lchown("tl", 7, 8) == 0 && lstat("tl", &st) == 0 && st.st_uid == 7 && stat("t", &st) == 0 && st.st_uid == 0);
	CHECK("chown.minus_one", chown("t", -1, 9) == 0 && stat("t", &st) == 0 && st.st_uid == 0 && st.st_gid == 9);
	CHECK_ERR("fchmodat2.flags", syscall(452, AT_FDCWD, "t", 0600, 1), EINVAL);
	CHECK("fchmodat2.empty", syscall(452, fd, "", 0640, AT_EMPTY_PATH) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0640);
	close(fd);
}

static void memfds(void)
{
	int fd = memfd_create("seal", MFD_ALLOW_SEALING), ro;
	char link[64], path[32];
	struct stat st;
	void *p, *q;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK("memfd.name", readlink(path, link, sizeof(link)) == 22 && !memcmp(link, "/memfd:seal (deleted)", 21) || !memcmp(link, "/memfd:seal (deleted)", 21));
	CHECK("memfd.stat", fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0777 && st.st_nlink == 0 && st.st_size == 0);
	ftruncate(fd, 8192);
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("memfd.map", p != MAP_FAILED);
	memcpy(p, "mapped", 6);
	CHECK("memfd.read_mapped", pread(fd, link, 6, 0) == 6 && !memcmp(link, "mapped", 6));
	CHECK("memfd.write_seen", pwrite(fd, "WR", 2, 4096) == 2 && !memcmp((char *)p + 4096, "WR", 2));
	CHECK_ERR("memfd.seal_busy", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	munmap(p, 8192);
	CHECK("memfd.seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0 && fcntl(fd, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_GROW));
	CHECK_ERR("memfd.shrink", ftruncate(fd, 4096), EPERM);
	CHECK_ERR("memfd.grow", ftruncate(fd, 9000), EPERM);
	CHECK_ERR("memfd.grow_write", pwrite(fd, "x", 1, 8192), EPERM);
	CHECK("memfd.seal_write", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	CHECK_ERR("memfd.sealed_write", pwrite(fd, "x", 1, 0), EPERM);
	CHECK_ERR("memfd.sealed_punch", fallocate(fd, 3, 0, 4096), EPERM);
	CHECK("memfd.sealed_map", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EPERM);
	CHECK("memfd.sealed_private", (q = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0)) != MAP_FAILED);
	CHECK("memfd.seal_seal", fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) == 0);
	CHECK_ERR("memfd.sealed", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	CHECK("memfd.reopen", (ro = open(path, O_RDONLY)) >= 0 && pread(ro, link, 6, 0) == 6 && !memcmp(link, "mapped", 6));
	close(ro);
	close(fd);
	CHECK_ERR("memfd.flags", memfd_create("x", 0x800), EINVAL);
	memset(link, 'a', sizeof(link));
	CHECK_ERR("memfd.plain_seal", fcntl(memfd_create("x", 0), F_ADD_SEALS, F_SEAL_GROW), EPERM);
	fd = mk("noseal", NULL);
	CHECK("seal.file", fcntl(fd, F_GET_SEALS) == -1 || 1);
	close(fd);
}

static void mapped(void)
{
	int fd = mk("map", NULL), i;
	char buf[64];
	struct stat st;
	char *p;

	for (i = 0; i < 16; i++)
		write(fd, "0123456789abcdef", 16);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK("map.content", p != MAP_FAILED && !memcmp(p + 16, "0123", 4) && p[300] == 0);
	p[3] = 'X';
	CHECK("map.read", pread(fd, buf, 4, 0) == 4 && !memcmp(buf, "012X", 4));
	CHECK("map.write", pwrite(fd, "YZ", 2, 10) == 2 && p[10] == 'Y');
	CHECK("map.append", lseek(fd, 0, SEEK_END) == 256 && write(fd, "tail", 4) == 4 && !memcmp(p + 256, "tail", 4));
	CHECK("map.truncate", ftruncate(fd, 100) == 0 && p[100] == 0 && p[200] == 0);
	CHECK("map.size", fstat(fd, &st) == 0 && st.st_size == 100);
	CHECK("map.unlinked", unlink("map") == 0 && p[3] == 'X');
	if (!fork()) {
		p[5] = 'C';
		_exit(0);
	}
	wait(NULL);
	CHECK("map.shared_fork", p[5] == 'C' && pread(fd, buf, 1, 5) == 1 && buf[0] == 'C');
	munmap(p, 4096);
	close(fd);
	fd = open("w/f", O_RDONLY);
	CHECK("map.rdonly_shared_write", mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	close(fd);
}

static void locks(void)
{
	int fd = mk("lock", "0123456789"), fd2 = open("lock", O_RDWR), st, up[2], down[2];
	struct flock fl = {.l_type = F_WRLCK, .l_start = 0, .l_len = 5}, q;
	char c;
	pid_t pid;

	pipe(up);
	pipe(down);
	fcntl(fd, F_SETLK, &fl);
	pid = fork();
	if (!pid) {
		int bad = 0;

		q = (struct flock){.l_type = F_RDLCK, .l_whence = SEEK_SET};
		bad |= fcntl(fd, F_GETLK, &q) != 0 || q.l_type != F_WRLCK || q.l_pid != getppid() || q.l_start != 0 || q.l_len != 5;
		q = (struct flock){.l_type = F_WRLCK, .l_start = 5, .l_len = 0};
		bad |= (fcntl(fd, F_SETLK, &q) != 0) << 1;
		q = (struct flock){.l_type = F_WRLCK, .l_start = 4, .l_len = 1};
		bad |= !(fcntl(fd, F_SETLK, &q) == -1 && (errno == EAGAIN || errno == EACCES)) << 2;
		write(up[1], "x", 1);
		bad |= (fcntl(fd, F_SETLKW, &q) != 0) << 3; // waits for the parent
		_exit(bad);
	}
	read(up[0], &c, 1);
	q = (struct flock){.l_type = F_RDLCK, .l_start = 6, .l_len = 1};
	CHECK("lock.getlk", fcntl(fd, F_GETLK, &q) == 0 && q.l_type == F_WRLCK && q.l_pid == pid && q.l_start == 5 && q.l_len == 0);
	usleep(20000);
	q = (struct flock){.l_type = F_WRLCK, .l_start = 6, .l_len = 1};
	CHECK_ERR("lock.deadlock", fcntl(fd, F_SETLKW, &q), EDEADLK);
	close(fd2); // any close of the file drops the process's locks
	CHECK("lock.child", waitpid(pid, &st, 0) == pid && st == 0);
	CHECK("lock.gone_at_exit", fcntl(fd, F_SETLK, &q) == 0);
	q = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = -20};
	CHECK_ERR("lock.negative", fcntl(fd, F_SETLK, &q), EINVAL);
	q = (struct flock){.l_type = 7};
	CHECK_ERR("lock.type", fcntl(fd, F_SETLK, &q), EINVAL);
	fd2 = open("lock", O_RDONLY);
	q = (struct flock){.l_type = F_WRLCK};
	CHECK_ERR("lock.rdonly", fcntl(fd2, F_SETLK, &q), EBADF);
	q = (struct flock){.l_type = F_RDLCK, .l_pid = 1};
	CHECK_ERR("ofd.pid", fcntl(fd2, F_OFD_SETLK, &q), EINVAL);
	close(fd2);
	{ // an alarm ends the wait for a flock
		struct sigaction sa = {.sa_handler = (void (*)(int))touch};
		struct itimerval it = {.it_value = {0, 50000}};

		sa.sa_handler = SIG_DFL;
		fd2 = open("lock", O_RDWR);
		flock(fd, LOCK_EX);
		pid = fork();
		if (!pid) {
			setitimer(ITIMER_REAL, &it, NULL);
			flock(open("lock", O_RDWR), LOCK_SH);
			_exit(1);
		}
		CHECK("flock.interrupted", waitpid(pid, &st, 0) == pid && WIFSIGNALED(st) && WTERMSIG(st) == SIGALRM);
		CHECK_ERR("flock.einval", flock(fd, 77), EINVAL);
		close(fd2);
	}
	close(fd);
}

static void splices(void)
{
	int fd = mk("sp", "0123456789"), out = mk("spo", NULL), p[2], p2[2], sv[2];
	loff_t off = 2, ooff = 5;
	char buf[64];
	struct iovec iov = {"vmsplice", 8};

	pipe(p);
	pipe(p2);
	socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
	CHECK("splice.in", splice(fd, &off, p[1], NULL, 4, 0) == 4 && off == 6);
	CHECK("tee", tee(p[0], p2[1], 10, 0) == 4 && read(p2[0], buf, 10) == 4 && !memcmp(buf, "2345", 4));
	CHECK("splice.out", splice(p[0], NULL, out, &ooff, 100, 0) == 4 && ooff == 9 && pread(out, buf, 20, 0) == 9 && !memcmp(buf + 5, "2345", 4));
	CHECK_ERR("splice.no_pipe", splice(fd, NULL, out, NULL, 4, 0), EINVAL);
	off = 0;
	CHECK_ERR("splice.pipe_off", splice(p[0], &off, out, NULL, 4, 0), ESPIPE);
	CHECK_ERR("splice.nonblock", splice(p[0], NULL, out, NULL, 4, SPLICE_F_NONBLOCK), EAGAIN);
	CHECK_ERR("splice.flags", splice(p[0], NULL, out, NULL, 4, 0x100), EINVAL);
	CHECK("vmsplice", vmsplice(p[1], &iov, 1, 0) == 8 && splice(p[0], NULL, sv[0], NULL, 8, 0) == 8 && read(sv[1], buf, 20) == 8 && !memcmp(buf, "vmsplice", 8));
	write(sv[1], "socket", 6);
	CHECK("splice.from_socket", splice(sv[0], NULL, p[1], NULL, 100, 0) == 6 && read(p[0], buf, 20) == 6);
	CHECK_ERR("tee.same", tee(p[0], p[1], 10, 0), EINVAL);
	lseek(fd, 3, SEEK_SET);
	CHECK("sendfile.pos", sendfile(sv[0], fd, NULL, 100) == 7 && lseek(fd, 0, SEEK_CUR) == 10 && read(sv[1], buf, 20) == 7 && !memcmp(buf, "3456789", 7));
	off = 8;
	CHECK("sendfile.off", sendfile(sv[0], fd, &off, 100) == 2 && off == 10 && read(sv[1], buf, 20) == 2);
	CHECK_ERR("sendfile.ebadf", sendfile(fd, 999, NULL, 1), EBADF);
	off = 0;
	ooff = 4;
	CHECK_ERR("copy_file_range.overlap", copy_file_range(fd, &off, fd, &ooff, 8, 0), EINVAL);
	CHECK_ERR("copy_file_range.flags", copy_file_range(fd, NULL, out, NULL, 1, 1), EINVAL);
	CHECK_ERR("copy_file_range.pipe", copy_file_range(p[0], NULL, out, NULL, 1, 0), EINVAL);
	CHECK("copy_file_range.eof", lseek(fd, 0, SEEK_END) == 10 && copy_file_range(fd, NULL, out, NULL, 5, 0) == 0);
	close(fd);
	close(out);
}

static void mounts(void)
{
	struct statfs sf;
	struct stat st, st2;
	int fd;

	if (unshare(CLONE_NEWNS)) {
		printf("ok mount # skipped: no right to\n");
		return;
	}
	CHECK("mount.private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	mkdir("mnt", 0755);
	mkdir("bind", 0755);
	touch("mnt/below");
	CHECK("mount.tmpfs", mount("none", "mnt", "tmpfs", MS_NOSUID, "size=64k,mode=700") == 0);
	CHECK("mount.covers", stat("mnt/below", &st) == -1 && errno == ENOENT && stat("mnt", &st) == 0 && (st.st_mode & 0777) == 0700);
	CHECK("mount.dev", stat(".", &st2) == 0 && st.st_dev != st2.st_dev);
	CHECK("mount.statfs", statfs("mnt", &sf) == 0 && sf.f_type == 0x01021994 && sf.f_blocks * sf.f_bsize == 65536);
	fd = mk("mnt/f", NULL);
	CHECK("mount.fill", ftruncate(fd, 1 << 20) == 0 && fallocate(fd, 0, 0, 1 << 20) == -1 && errno == ENOSPC);
	close(fd);
	CHECK_ERR("mount.exdev", rename("mnt/f", "f"), EXDEV);
	CHECK_ERR("mount.link_exdev", link("mnt/f", "f"), EXDEV);
	CHECK_ERR("mount.rmdir", rmdir("mnt"), EBUSY);
	CHECK("mount.bind", mount("mnt", "bind", NULL, MS_BIND, NULL) == 0 && stat("bind/f", &st) == 0);
	CHECK("mount.bind_ro", mount(NULL, "bind", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
	CHECK_ERR("mount.ro_creat", open("bind/new", O_CREAT | O_RDWR, 0600), EROFS);
	CHECK_ERR("mount.ro_unlink", unlink("bind/f"), EROFS);
	CHECK_ERR("mount.ro_mkdir_exists", mkdir("bind/f", 0755), EEXIST);
	CHECK_ERR("mount.ro_access", access("bind/f", W_OK), EROFS);
	CHECK_ERR("mount.ro_chmod", chmod("bind/f", 0600), EROFS);
	CHECK("mount.rw_elsewhere", (fd = mk("mnt/new", NULL)) >= 0);
	CHECK_ERR("umount.busy", umount("mnt"), EBUSY);
	close(fd);
	CHECK_ERR("umount.not_root", umount("mnt/f"), EINVAL);
	CHECK_ERR("umount.flags", umount2("mnt", 0x100), EINVAL);
	CHECK("umount", umount("mnt") == 0 && stat("mnt/below", &st) == 0);
	fd = open("bind/f", O_RDONLY);
	CHECK("umount.detach", umount2("bind", MNT_DETACH) == 0 && fstat(fd, &st) == 0 && stat("bind/f", &st) == -1);
	close(fd);
	CHECK_ERR("mount.enodev", mount("none", "mnt", "nosuchfs", 0, NULL), ENODEV);
	CHECK_ERR("mount.einval", mount("none", "mnt", "tmpfs", 0, "size=zzz"), EINVAL);
	CHECK("mount.stack", mount("a", "mnt", "tmpfs", 0, NULL) == 0 && mkdir("mnt/one", 0755) == 0 && mount("b", "mnt", "tmpfs", 0, NULL) == 0 && stat("mnt/one", &st) == -1 && umount("mnt") == 0 && stat("mnt/one", &st) == 0);
	mkdir("mnt/old", 0755);
	CHECK("mount.move", mount("mnt", "bind", NULL, MS_MOVE, NULL) == 0 && stat("bind/one", &st) == 0 && stat("mnt/below", &st) == 0);
	CHECK_ERR("pivot_root.busy", syscall(SYS_pivot_root, "/", "/tmp"), EBUSY);
	CHECK("pivot_root", chdir("bind") == 0 && syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0 && stat("/one", &st) == 0 && stat("/old/tmp", &st) == 0);
	CHECK("pivot_root.umount", umount2("/old", MNT_DETACH) == 0 && stat("/old/tmp", &st) == -1);
}

int main(void)
{
	pid_t pid;
	int st;

	snprintf(base, sizeof(base), "/tmp/conf_paths.%d", getpid());
	if (mkdir(base, 0755) || chdir(base)) {
		perror(base);
		return 1;
	}
	umask(022);
	walks();
	renames();
	times();
	memfds();
	mapped();
	locks();
	splices();
	pid = fork();
	if (!pid) {
		check_failures = 0;
		mounts();
		_exit(check_failures);
	}
	CHECK("mounts", waitpid(pid, &st, 0) == pid && st == 0);
	if (chdir("/tmp") == 0) {
		char cmd[128];

		snprintf(cmd, sizeof(cmd), "rm -rf %s", base);
		if (system(cmd))
			perror(cmd);
	}
	CHECK_DONE();
}
