// Paths, files, directories, descriptors: open(2), rename(2), getdents(2), fcntl(2), stat(2), xattr(7) ...
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char base[64];

static int mk(const char *name, const char *data)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd >= 0 && data && write(fd, data, strlen(data)) < 0)
		perror(name);
	return fd;
}
static void touch(const char *name) { close(mk(name, "")); }

static void opens(void)
{
	struct stat st;
	char buf[64], longname[300];
	int fd, fd2;

	fd = mk("f", "hello");
	CHECK("open.create", fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 5 && S_ISREG(st.st_mode) && (st.st_mode & 0777) == 0644 && st.st_nlink == 1);
	CHECK_ERR("open.excl", open("f", O_CREAT | O_EXCL | O_RDWR, 0600), EEXIST);
	CHECK_ERR("open.enoent", open("nope", O_RDONLY), ENOENT);
	CHECK_ERR("open.notdir", open("f/x", O_RDONLY), ENOTDIR);
	CHECK_ERR("open.o_directory", open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	CHECK_ERR("open.isdir", open(".", O_WRONLY), EISDIR);
	CHECK_ERR("open.trailing_slash", open("f/", O_RDONLY), ENOTDIR);
	CHECK_ERR("open.create_slash", open("new/", O_CREAT | O_RDWR, 0600), EISDIR);
	CHECK_ERR("open.empty", open("", O_RDONLY), ENOENT);
	memset(longname, 'a', sizeof(longname));
	longname[256] = 0;
	CHECK_ERR("open.name_too_long", open(longname, O_RDONLY), ENAMETOOLONG);
	CHECK_ERR("open.efault", open((char *)8, O_RDONLY), EFAULT);
	CHECK("lseek.end", lseek(fd, 0, SEEK_END) == 5 && lseek(fd, -2, SEEK_CUR) == 3);
	CHECK_ERR("lseek.negative", lseek(fd, -1, SEEK_SET), EINVAL);
	CHECK_ERR("lseek.whence", lseek(fd, 0, 9), EINVAL);
	CHECK("pread", pread(fd, buf, 10, 1) == 4 && !memcmp(buf, "ello", 4));
	CHECK("pwrite.hole", pwrite(fd, "x", 1, 10000) == 1 && fstat(fd, &st) == 0 && st.st_size == 10001);
	CHECK("read.hole", pread(fd, buf, 3, 6000) == 3 && !buf[0] && !buf[2]);
	CHECK("ftruncate", ftruncate(fd, 3) == 0 && fstat(fd, &st) == 0 && st.st_size == 3 && pread(fd, buf, 10, 0) == 3);
	CHECK("ftruncate.grow_zero", ftruncate(fd, 8) == 0 && pread(fd, buf, 10, 0) == 8 && buf[4] == 0);
	CHECK_ERR("ftruncate.negative", ftruncate(fd, -1), EINVAL);
	close(fd);
	CHECK_ERR("close.ebadf", close(fd), EBADF);
	fd = open("f", O_RDONLY);
	CHECK_ERR("write.rdonly", write(fd, "x", 1), EBADF);
	close(fd);
	fd = open("f", O_WRONLY | O_APPEND);
	CHECK_ERR("read.wronly", read(fd, buf, 1), EBADF);
	CHECK("append", write(fd, "END", 3) == 3 && lseek(fd, 0, SEEK_CUR) == 11);
	close(fd);
	fd = open("f", O_PATH);
	CHECK_ERR("o_path.read", read(fd, buf, 1), EBADF);
	CHECK("o_path.fstat", fstat(fd, &st) == 0 && st.st_size == 11);
	close(fd);
	fd = open(".", O_TMPFILE | O_RDWR, 0600);
	CHECK("o_tmpfile", fd >= 0 && write(fd, "t", 1) == 1 && fstat(fd, &st) == 0 && st.st_nlink == 0);
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", fd);
	CHECK("o_tmpfile.linkat", linkat(AT_FDCWD, buf, AT_FDCWD, "tmpf", AT_SYMLINK_FOLLOW) == 0 && stat("tmpf", &st) == 0 && st.st_nlink == 1);
	close(fd);
	umask(077);
	fd = open("u", O_CREAT | O_RDWR, 0666);
	umask(022);
	CHECK("umask", fstat(fd, &st) == 0 && (st.st_mode & 0777) == 0600);
	unlink("u");
	CHECK("unlinked.usable", write(fd, "abc", 3) == 3 && fstat(fd, &st) == 0 && st.st_nlink == 0 && st.st_size == 3);
	fd2 = dup(fd);
	CHECK("dup.shares_offset", lseek(fd2, 0, SEEK_CUR) == 3 && lseek(fd, 1, SEEK_SET) == 1 && lseek(fd2, 0, SEEK_CUR) == 1);
	close(fd);
	close(fd2);
	struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
	CHECK_ERR("openat2.beneath", syscall(SYS_openat2, AT_FDCWD, "../etc", &how, sizeof(how)), EXDEV);
	how.resolve = RESOLVE_NO_SYMLINKS;
	symlink("f", "s");
	CHECK_ERR("openat2.no_symlinks", syscall(SYS_openat2, AT_FDCWD, "s", &how, sizeof(how)), ELOOP);
	how.flags = 1ULL << 40;
	CHECK_ERR("openat2.bad_flags", syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof(how)), EINVAL);
}

static void names(void)
{
	struct stat st, st2;
	struct statx sx;
	char buf[PATH_MAX];
	int fd;

	touch("a");
	CHECK("link", link("a", "b") == 0 && stat("b", &st) == 0 && st.st_nlink == 2);
	CHECK_ERR("link.eexist", link("a", "b"), EEXIST);
	CHECK_ERR("link.dir", link(".", "d"), EPERM);
	CHECK("unlink", unlink("b") == 0 && stat("a", &st) == 0 && st.st_nlink == 1);
	CHECK_ERR("unlink.enoent", unlink("b"), ENOENT);
	CHECK("mkdir", mkdir("d", 0755) == 0 && stat("d", &st) == 0 && S_ISDIR(st.st_mode) && st.st_nlink == 2);
	CHECK_ERR("mkdir.eexist", mkdir("d", 0755), EEXIST);
	CHECK_ERR("mkdir.parent", mkdir("no/d", 0755), ENOENT);
	CHECK_ERR("unlink.dir", unlink("d"), EISDIR);
	CHECK_ERR("rmdir.file", rmdir("a"), ENOTDIR);
	touch("d/x");
	CHECK_ERR("rmdir.notempty", rmdir("d"), ENOTEMPTY);
	CHECK_ERR("rmdir.dot", rmdir("d/."), EINVAL);
	unlink("d/x");
	CHECK("rmdir", rmdir("d") == 0);
	CHECK("symlink", symlink("a", "l") == 0 && lstat("l", &st) == 0 && S_ISLNK(st.st_mode) && st.st_size == 1);
	CHECK("readlink", readlink("l", buf, sizeof(buf)) == 1 && buf[0] == 'a');
	CHECK_ERR("readlink.einval", readlink("a", buf, sizeof(buf)), EINVAL);
	CHECK_ERR("open.nofollow", open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	symlink("loop2", "loop1");
	symlink("loop1", "loop2");
	CHECK_ERR("eloop", open("loop1", O_RDONLY), ELOOP);
	symlink("dangling-target", "dangling");
	CHECK_ERR("dangling", open("dangling", O_RDONLY), ENOENT);
	fd = open("dangling", O_CREAT | O_WRONLY, 0600);
	CHECK("dangling.create", fd >= 0 && stat("dangling-target", &st) == 0);
	close(fd);
	CHECK("rename", rename("a", "a2") == 0 && stat("a", &st) == -1 && stat("a2", &st) == 0);
	touch("a3");
	CHECK("rename.replace", rename("a2", "a3") == 0);
	CHECK_ERR("rename.enoent", rename("a2", "a3"), ENOENT);
	mkdir("d1", 0755);
	mkdir("d1/d2", 0755);
	CHECK_ERR("rename.into_self", rename("d1", "d1/d2/x"), EINVAL);
	CHECK_ERR("rename.dir_over_file", rename("d1", "a3"), ENOTDIR);
	CHECK_ERR("rename.file_over_dir", rename("a3", "d1"), EISDIR);
	mkdir("d3", 0755);
	CHECK_ERR("rename.notempty", rename("d3", "d1"), ENOTEMPTY);
	CHECK("rename.dir", rename("d1", "d3") == 0 && stat("d3/d2", &st) == 0);
	touch("e1");
	touch("e2");
	CHECK_ERR("renameat2.noreplace", syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", RENAME_NOREPLACE), EEXIST);
	stat("e1", &st);
	CHECK("renameat2.exchange", syscall(SYS_renameat2, AT_FDCWD, "e1", AT_FDCWD, "e2", RENAME_EXCHANGE) == 0 && stat("e2", &st2) == 0 && st.st_ino == st2.st_ino);
	CHECK("mkfifo", mkfifo("p", 0600) == 0 && stat("p", &st) == 0 && S_ISFIFO(st.st_mode));
	CHECK_ERR("fifo.nonblock_write", open("p", O_WRONLY | O_NONBLOCK), ENXIO);
	CHECK("getcwd", getcwd(buf, sizeof(buf)) && !strcmp(buf, base));
	CHECK_ERR("getcwd.erange", syscall(SYS_getcwd, buf, 2), ERANGE);
	CHECK("chdir", chdir("d3") == 0 && getcwd(buf, sizeof(buf)) && strstr(buf, "/d3") && chdir("..") == 0);
	CHECK("statx", statx(AT_FDCWD, "e1", 0, STATX_BASIC_STATS | STATX_BTIME, &sx) == 0 && (sx.stx_mask & STATX_SIZE) && sx.stx_size == 0);
	CHECK_ERR("statx.flags", statx(AT_FDCWD, "e1", 0x80000, STATX_SIZE, &sx), EINVAL);
	fd = open("e1", O_RDONLY);
	CHECK("fstatat.empty", fstatat(fd, "", &st, AT_EMPTY_PATH) == 0);
	CHECK_ERR("fstatat.notdir", fstatat(fd, "x", &st, 0), ENOTDIR);
	close(fd);
	CHECK("access", access("e1", R_OK | W_OK) == 0);
	CHECK_ERR("access.exec", access("e1", X_OK), EACCES);
	CHECK_ERR("access.mode", access("e1", 64), EINVAL);
	CHECK_ERR("open.execdir_toolong", open("/proc/self/fd/99999", O_RDONLY), ENOENT);
}

static void metadata(void)
{
	struct timespec ts[2] = {{1000, 5}, {2000, 7}};
	struct stat st, before;
	struct statfs sf;
	char buf[64];
	int s, fd = mk("m", "data");
	pid_t pid;

	CHECK("chmod", chmod("m", 04711) == 0 && stat("m", &st) == 0 && (st.st_mode & 07777) == 04711);
	CHECK("chown.clears_suid", chown("m", 1, 2) == 0 && stat("m", &st) == 0 && st.st_uid == 1 && st.st_gid == 2 && !(st.st_mode & 04000));
	CHECK("utimensat", utimensat(AT_FDCWD, "m", ts, 0) == 0 && stat("m", &st) == 0 && st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 7);
	ts[0].tv_nsec = UTIME_OMIT;
	ts[1].tv_nsec = UTIME_NOW;
	CHECK("utimensat.omit_now", utimensat(AT_FDCWD, "m", ts, 0) == 0 && stat("m", &st) == 0 && st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec > 1500000000);
	ts[0].tv_nsec = 2000000000;
	CHECK_ERR("utimensat.einval", utimensat(AT_FDCWD, "m", ts, 0), EINVAL);
	stat(".", &before);
	usleep(15000);
	touch("newentry");
	CHECK("dir.mtime", stat(".", &st) == 0 && (st.st_mtim.tv_sec > before.st_mtim.tv_sec || st.st_mtim.tv_nsec > before.st_mtim.tv_nsec));
	fstat(fd, &before);
	usleep(15000);
	if (pwrite(fd, "x", 1, 0) != 1)
		perror("pwrite");
	CHECK("write.mtime", fstat(fd, &st) == 0 && (st.st_mtim.tv_sec > before.st_mtim.tv_sec || st.st_mtim.tv_nsec > before.st_mtim.tv_nsec));
	CHECK("statfs", statfs(".", &sf) == 0 && sf.f_bsize > 0 && sf.f_namelen == 255);
	CHECK("setxattr", setxattr("m", "user.k", "val", 3, 0) == 0 && getxattr("m", "user.k", buf, sizeof(buf)) == 3 && !memcmp(buf, "val", 3));
	CHECK_ERR("setxattr.create", setxattr("m", "user.k", "v", 1, XATTR_CREATE), EEXIST);
	CHECK_ERR("setxattr.replace", setxattr("m", "user.z", "v", 1, XATTR_REPLACE), ENODATA);
	CHECK_ERR("getxattr.erange", getxattr("m", "user.k", buf, 1), ERANGE);
	CHECK_ERR("getxattr.enodata", getxattr("m", "user.q", buf, 1), ENODATA);
	CHECK("listxattr", listxattr("m", buf, sizeof(buf)) == 7 && !strcmp(buf, "user.k"));
	CHECK("removexattr", removexattr("m", "user.k") == 0 && listxattr("m", buf, sizeof(buf)) == 0);
	pid = fork();
	if (!pid) {
		int bad = 0;
		chmod("m", 0600);
		mkdir("sticky", 01777);
		chmod("sticky", 01777);
		touch("sticky/root");
		chmod(".", 0755);
		if (setgid(1000) || setuid(1000))
			_exit(99);
		bad |= !(open("m", O_RDONLY) == -1 && errno == EACCES) << 0;
		bad |= !(unlink("sticky/root") == -1 && errno == EPERM) << 1;
		bad |= !(chmod("newentry", 0777) == -1 && errno == EPERM) << 2;
		bad |= !(mkdir("x", 0755) == -1 && errno == EACCES) << 3;
		bad |= !(chown("newentry", 1000, 1000) == -1 && errno == EPERM) << 4;
		_exit(bad);
	}
	CHECK("permissions", waitpid(pid, &s, 0) == pid && s == 0);
	struct rlimit rl;
	pid = fork();
	if (!pid) {
		rl.rlim_cur = rl.rlim_max = 1000;
		setrlimit(RLIMIT_FSIZE, &rl);
		signal(SIGXFSZ, SIG_IGN);
		char big[2000] = "";
		int f = open("lim", O_CREAT | O_RDWR, 0600);
		int ok = write(f, big, 2000) == 1000 && write(f, big, 1) == -1 && errno == EFBIG;
		_exit(!ok);
	}
	CHECK("rlimit_fsize", waitpid(pid, &s, 0) == pid && s == 0);
	close(fd);
}

static void data(void)
{
	struct iovec iov[2];
	char a[4], b[8], buf[128];
	int fd = mk("io", NULL), fd2, p[2];
	off_t off = 2;

	iov[0] = (struct iovec){"abc", 3};
	iov[1] = (struct iovec){"defgh", 5};
	CHECK("writev", writev(fd, iov, 2) == 8);
	iov[0] = (struct iovec){a, 4};
	iov[1] = (struct iovec){b, 8};
	CHECK("preadv", preadv(fd, iov, 2, 0) == 8 && !memcmp(a, "abcd", 4) && !memcmp(b, "efgh", 4));
	CHECK_ERR("readv.count", readv(fd, iov, 1025), EINVAL);
	CHECK("pwritev2.append", pwritev2(fd, (struct iovec[1]){{"Z", 1}}, 1, 0, RWF_APPEND) == 1 && pread(fd, buf, 1, 8) == 1 && buf[0] == 'Z');
	CHECK_ERR("preadv2.flags", preadv2(fd, iov, 1, 0, 0x4000), EOPNOTSUPP);
	fd2 = mk("io2", NULL);
	CHECK("sendfile", sendfile(fd2, fd, &off, 4) == 4 && off == 6 && pread(fd2, buf, 9, 0) == 4 && !memcmp(buf, "cdef", 4));
	off_t o1 = 0, o2 = 10;
	CHECK("copy_file_range", copy_file_range(fd, &o1, fd2, &o2, 3, 0) == 3 && pread(fd2, buf, 3, 10) == 3 && !memcmp(buf, "abc", 3));
	CHECK("fallocate", fallocate(fd, 0, 0, 100000) == 0 && lseek(fd, 0, SEEK_END) == 100000);
	CHECK("fallocate.keep_size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 200000) == 0 && lseek(fd, 0, SEEK_END) == 100000);
	CHECK("fallocate.punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 && pread(fd, buf, 4, 0) == 4 && buf[0] == 0);
	CHECK_ERR("fallocate.len", fallocate(fd, 0, 0, 0), EINVAL);
	CHECK("fsync", fsync(fd) == 0 && fdatasync(fd) == 0);
	if (pipe(p) == 0) {
		CHECK("splice.file_to_pipe", splice(fd2, &(loff_t){0}, p[1], NULL, 4, 0) == 4 && read(p[0], buf, 10) == 4 && !memcmp(buf, "cdef", 4));
		CHECK_ERR("lseek.pipe", lseek(p[0], 0, SEEK_CUR), ESPIPE);
		CHECK_ERR("pread.pipe", pread(p[0], buf, 1, 0), ESPIPE);
		CHECK_ERR("fsync.pipe", fsync(p[0]), EINVAL);
		CHECK_ERR("ftruncate.pipe", ftruncate(p[0], 0), EINVAL);
		close(p[0]);
		close(p[1]);
	}
	int sfd = mk("sparse", NULL);
	if (pwrite(sfd, "x", 1, 1 << 20) != 1 || pwrite(sfd, "y", 1, 0) != 1)
		perror("pwrite");
	CHECK("seek_data", lseek(sfd, 4096 * 4, SEEK_DATA) == 1 << 20);
	CHECK("seek_hole", lseek(sfd, 0, SEEK_HOLE) <= 65536);
	CHECK_ERR("seek_data.enxio", lseek(sfd, 2 << 20, SEEK_DATA), ENXIO);
	close(sfd);
	close(fd);
	close(fd2);
}

static void dirs(void)
{
	char name[32];
	struct dirent *e;
	int n = 0, dots = 0, left = 0;
	DIR *d;

	mkdir("many", 0755);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "many/file%03d", i);
		touch(name);
	}
	d = opendir("many");
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			dots++;
		else {
			n++;
			if (e->d_type != DT_REG && e->d_type != DT_UNKNOWN)
				left++;
			snprintf(name, sizeof(name), "many/%s", e->d_name);
			unlink(name);
		}
	}
	CHECK("readdir.while_unlinking", n == 500 && dots == 2 && left == 0);
	rewinddir(d);
	n = 0;
	while ((e = readdir(d)))
		n++;
	CHECK("readdir.rewind", n == 2);
	closedir(d);
	CHECK("rmdir.emptied", rmdir("many") == 0);
	mkdir("gone", 0755);
	int fd = open("gone", O_RDONLY | O_DIRECTORY);
	char buf[512];
	rmdir("gone");
	CHECK_ERR("getdents.removed", syscall(SYS_getdents64, fd, buf, sizeof(buf)), ENOENT);
	CHECK_ERR("openat.removed", openat(fd, "x", O_CREAT | O_RDWR, 0600), ENOENT);
	CHECK_ERR("read.dir", read(fd, buf, 10), EISDIR);
	close(fd);
	fd = open(".", O_RDONLY);
	CHECK_ERR("getdents.small", syscall(SYS_getdents64, fd, buf, 8), EINVAL);
	close(fd);
}

static void descriptors(void)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
	int fd = mk("fd", "0123456789"), fd2, s, p[2];
	pid_t pid;

	CHECK("fcntl.dupfd", (fd2 = fcntl(fd, F_DUPFD, 50)) == 50);
	CHECK("fcntl.cloexec", fcntl(fd2, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd2, F_GETFD) == FD_CLOEXEC && fcntl(fd, F_GETFD) == 0);
	CHECK("fcntl.getfl", (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR);
	CHECK("fcntl.setfl", fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK) == 0 && (fcntl(fd2, F_GETFL) & (O_APPEND | O_NONBLOCK)) == (O_APPEND | O_NONBLOCK));
	CHECK("dup3.cloexec", dup3(fd, 51, O_CLOEXEC) == 51 && fcntl(51, F_GETFD) == FD_CLOEXEC);
	CHECK_ERR("dup3.same", dup3(fd, fd, 0), EINVAL);
	CHECK("dup2.same", dup2(fd, fd) == fd);
	CHECK_ERR("dup.ebadf", dup(500), EBADF);
	CHECK("close_range", syscall(SYS_close_range, 50, 60, 0) == 0 && fcntl(50, F_GETFD) == -1 && fcntl(51, F_GETFD) == -1);
	CHECK_ERR("close_range.einval", syscall(SYS_close_range, 60, 50, 0), EINVAL);
	CHECK("lock.set", fcntl(fd, F_SETLK, &fl) == 0);
	pid = fork();
	if (!pid) {
		struct flock q = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 15, .l_len = 1};
		int ok = fcntl(fd, F_GETLK, &q) == 0 && q.l_type == F_WRLCK && q.l_start == 10 && q.l_len == 10 && q.l_pid == getppid();
		q = (struct flock){.l_type = F_RDLCK, .l_start = 15, .l_len = 1};
		ok = ok && fcntl(fd, F_SETLK, &q) == -1 && (errno == EAGAIN || errno == EACCES);
		q = (struct flock){.l_type = F_WRLCK, .l_start = 20, .l_len = 0};
		_exit(!(ok && fcntl(fd, F_SETLK, &q) == 0));
	}
	CHECK("lock.conflict", waitpid(pid, &s, 0) == pid && s == 0);
	fl.l_type = F_UNLCK;
	CHECK("lock.unlock", fcntl(fd, F_SETLK, &fl) == 0);
	fd2 = open("fd", O_RDWR);
	CHECK("flock", flock(fd, LOCK_EX) == 0);
	CHECK_ERR("flock.wouldblock", flock(fd2, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK("flock.unlock", flock(fd, LOCK_UN) == 0 && flock(fd2, LOCK_SH | LOCK_NB) == 0);
	fl = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 5};
	CHECK("ofd_lock", fcntl(fd, F_OFD_SETLK, &fl) == 0);
	CHECK_ERR("ofd_lock.conflict", fcntl(fd2, F_OFD_SETLK, &fl), EAGAIN);
	close(fd2);
	close(fd);
	CHECK("pipe2", pipe2(p, O_NONBLOCK | O_CLOEXEC) == 0 && fcntl(p[0], F_GETFD) == FD_CLOEXEC && (fcntl(p[1], F_GETFL) & O_NONBLOCK));
	CHECK_ERR("pipe.eagain", read(p[0], &s, 1), EAGAIN);
	CHECK("pipe.size", fcntl(p[1], F_SETPIPE_SZ, 8192) == 8192 && fcntl(p[1], F_GETPIPE_SZ) == 8192);
	close(p[0]);
	close(p[1]);
	CHECK_ERR("pipe2.flags", pipe2(p, 0x1), EINVAL);
	CHECK_ERR("ioctl.enotty", syscall(SYS_ioctl, open("fd", O_RDONLY), 0x5401, &s), ENOTTY);
	fd = open("/dev/null", O_RDWR);
	CHECK("dev.null", fd >= 0 && write(fd, "x", 1) == 1 && read(fd, &s, 1) == 0);
	struct stat st;
	CHECK("dev.null_rdev", fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
	close(fd);
	fd = open("/dev/zero", O_RDONLY);
	s = 1;
	CHECK("dev.zero", read(fd, &s, 4) == 4 && s == 0);
	close(fd);
	fd = open("/dev/full", O_WRONLY);
	CHECK_ERR("dev.full", write(fd, "x", 1), ENOSPC);
	close(fd);
	fd = open("/dev/urandom", O_RDONLY);
	CHECK("dev.urandom", read(fd, &s, 4) == 4);
	close(fd);
}

int main(void)
{
	snprintf(base, sizeof(base), "/tmp/conf_files.%d", getpid());
	if (mkdir(base, 0755) || chdir(base)) {
		perror(base);
		return 1;
	}
	umask(022);
	opens();
	names();
	metadata();
	data();
	dirs();
	descriptors();
	if (chdir("/tmp") == 0) {
		char cmd[128];
		snprintf(cmd, sizeof(cmd), "rm -rf %s", base);
		if (system(cmd))
			perror(cmd);
	}
	CHECK_DONE();
}
