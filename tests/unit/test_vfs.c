// The vfs over a tmpfs root: walking, opening, changing directories, descriptors, mounts, locks.
#include "tests/unit/vfs_env.h"

#include <linux/fs.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <time.h>

#include "sentry/sched/sched.h"
#include "sentry/vfs/locks.h"

#define FL WALK_FOLLOW

static void walk_body(void)
{
	struct path p;
	char name[300];

	OK(vfs_mkdir(AT_FDCWD, "a", 0755));
	OK(vfs_mkdir(AT_FDCWD, "a/b", 0755));
	OK(vfs_mkdir(AT_FDCWD, "/a/b/c/", 0755));
	OK(t_creat("a/b/c/f", "x"));
	OK(t_lookup("/a/b/c/f", FL));
	OK(t_lookup("//a///b/./c/../c/f", FL));
	OK(t_lookup("/../../a", FL));
	OK(t_lookup("a/b/c/", FL));
	ERR(t_lookup("a/b/c/f/", FL), ENOTDIR);
	ERR(t_lookup("a/b/c/f/.", FL), ENOTDIR);
	ERR(t_lookup("a/b/c/f/..", FL), ENOTDIR);
	ERR(t_lookup("a/b/c/f/x", FL), ENOTDIR);
	ERR(t_lookup("a/none", FL), ENOENT);
	ERR(t_lookup("a/none/x", FL), ENOENT);
	ERR(t_lookup("a/none/", FL), ENOENT);
	ERR(t_lookup("", FL), ENOENT);
	ERR(t_lookup("a/b/c/f", WALK_DIRECTORY), ENOTDIR);
	memset(name, 'n', sizeof(name));
	name[256] = 0;
	ERR(t_lookup(name, FL), ENAMETOOLONG);
	name[255] = 0;
	ERR(t_lookup(name, FL), ENOENT);
	OK(t_creat(name, NULL));
	OK(t_lookup(name, FL));
	assert_string_equal(t_name("a/b/c/f"), "/a/b/c/f");
	assert_string_equal(t_name("/"), "/");
	assert_string_equal(t_name("a/.."), "/");
	ERR(path_walk(77, "x", 0, &p), EBADF);
	OK(path_walk(77, "/a", 0, &p));
	path_put(&p);
}

static void test_walk(void **state)
{
	env_run(walk_body);
}

static void links_body(void)
{
	char name[16];

	OK(vfs_mkdir(AT_FDCWD, "d", 0755));
	OK(t_creat("d/f", "hello"));
	OK(vfs_symlink(AT_FDCWD, "abs", "/d"));
	OK(vfs_symlink(AT_FDCWD, "rel", "d/"));
	OK(vfs_symlink(AT_FDCWD, "d/up", "../d/f"));
	OK(vfs_symlink(AT_FDCWD, "dangling", "nowhere"));
	OK(vfs_symlink(AT_FDCWD, "loop", "loop"));
	OK(vfs_symlink(AT_FDCWD, "root", "/"));
	OK(t_lookup("abs/f", 0));
	OK(t_lookup("rel/f", 0));
	OK(t_lookup("rel/up", FL));
	OK(t_lookup("root/root/root/abs/up", FL));
	OK(t_lookup("abs", WALK_DIRECTORY | FL));
	ERR(t_lookup("abs", WALK_DIRECTORY), ENOTDIR);
	OK(t_lookup("abs/", 0)); // a trailing slash follows
	assert_true(S_ISLNK(t_inode("abs")->mode));
	OK(t_lookup("dangling", 0));
	ERR(t_lookup("dangling", FL), ENOENT);
	ERR(t_lookup("loop", FL), ELOOP);
	ERR(t_lookup("loop/x", FL), ELOOP);
	// Forty links are fine, one more is not.
	OK(vfs_symlink(AT_FDCWD, "l0", "d"));
	for (int i = 1; i <= 40; i++) {
		char to[16];

		snprintf(name, sizeof(name), "l%d", i);
		snprintf(to, sizeof(to), "l%d", i - 1);
		OK(vfs_symlink(AT_FDCWD, name, to));
	}
	OK(t_lookup("l39", FL));
	ERR(t_lookup("l40", FL), ELOOP);
	OK(t_lookup("l39/f", FL));
	ERR(t_open("abs", O_RDONLY | O_NOFOLLOW, 0), ELOOP);
	ERR(t_open("abs", O_RDONLY | O_NOFOLLOW | O_DIRECTORY, 0), ENOTDIR);
	ERR(t_lookup("abs/f", WALK_NO_SYMLINKS), ELOOP);
	ERR(t_open("dangling", O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
	fd_close(t_open("dangling", O_CREAT | O_WRONLY, 0600)); // creates what it points to
	OK(t_lookup("nowhere", 0));
}

static void test_links(void **state)
{
	env_run(links_body);
}

static void resolve_body(void)
{
	struct path p;
	int fd;

	OK(vfs_mkdir(AT_FDCWD, "jail", 0755));
	OK(vfs_mkdir(AT_FDCWD, "jail/sub", 0755));
	OK(t_creat("jail/f", NULL));
	OK(t_creat("out", NULL));
	OK(vfs_symlink(AT_FDCWD, "jail/abs", "/f"));
	OK(vfs_symlink(AT_FDCWD, "jail/esc", "../out"));
	fd = t_open("jail", O_RDONLY | O_DIRECTORY, 0);
	assert_true(fd >= 0);
	ERR(path_walk(fd, "../out", WALK_BENEATH, &p), EXDEV);
	ERR(path_walk(fd, "/f", WALK_BENEATH, &p), EXDEV);
	ERR(path_walk(fd, "abs", WALK_BENEATH | FL, &p), EXDEV);
	ERR(path_walk(fd, "esc", WALK_BENEATH | FL, &p), EXDEV);
	OK(path_walk(fd, "sub/../f", WALK_BENEATH, &p));
	path_put(&p);
	OK(path_walk(fd, "abs", WALK_IN_ROOT | FL, &p));
	path_put(&p);
	OK(path_walk(fd, "/../../f", WALK_IN_ROOT, &p));
	path_put(&p);
	ERR(path_walk(fd, "esc", WALK_IN_ROOT | FL, &p), ENOENT);
	OK(path_walk(fd, "", WALK_EMPTY, &p));
	path_put(&p);
	fd_close(fd);
}

static void test_resolve(void **state)
{
	env_run(resolve_body);
}

static void open_body(void)
{
	char buf[16];
	int fd, fd2;

	ERR(t_open("f", O_RDWR, 0), ENOENT);
	fd = t_open("f", O_RDWR | O_CREAT | O_EXCL, 0666);
	assert_int_equal(fd, 0);
	assert_int_equal(t_inode("f")->mode, S_IFREG | 0644); // umask 022
	ERR(t_open("f", O_RDWR | O_CREAT | O_EXCL, 0666), EEXIST);
	assert_int_equal(t_write(fd, "hello", 5), 5);
	assert_int_equal(vfs_llseek(fd_peek(fd), 1, SEEK_SET), 1);
	assert_int_equal(t_read(fd, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "ello", 4);
	assert_int_equal(t_read(fd, buf, sizeof(buf)), 0);
	ERR(vfs_llseek(fd_peek(fd), -1, SEEK_SET), EINVAL);
	ERR(vfs_llseek(fd_peek(fd), 0, 99), EINVAL);
	fd2 = t_open("f", O_WRONLY | O_APPEND, 0);
	assert_int_equal(t_pwrite(fd2, "!", 1, 0), 1);
	assert_int_equal(t_inode("f")->size, 6);
	ERR(t_read(fd2, buf, 1), EBADF);
	fd_close(fd2);
	fd2 = t_open("f", O_RDONLY, 0);
	ERR(t_write(fd2, buf, 1), EBADF);
	fd_close(fd2);
	fd2 = t_open("f", O_RDONLY | O_TRUNC, 0);
	assert_int_equal(t_inode("f")->size, 0);
	fd_close(fd2);
	ERR(t_open("f/", O_RDONLY, 0), ENOTDIR);
	ERR(t_open("g/", O_RDWR | O_CREAT, 0644), EISDIR);
	ERR(t_open("f", O_RDONLY | O_DIRECTORY, 0), ENOTDIR);
	OK(vfs_mkdir(AT_FDCWD, "d", 0755));
	ERR(t_open("d", O_RDWR, 0), EISDIR);
	ERR(t_open("d", O_RDONLY | O_CREAT, 0644), EISDIR);
	ERR(t_open(".", O_RDONLY | O_CREAT, 0644), EISDIR);
	ERR(t_open(".", O_RDONLY | O_CREAT | O_EXCL, 0644), EEXIST);
	fd2 = t_open("d", O_RDONLY, 0);
	ERR(t_read(fd2, buf, 1), EISDIR);
	fd_close(fd2);
	// A file being executed cannot be written, and the other way round.
	ERR(inode_deny_write(t_inode("f")), ETXTBSY);
	fd_close(fd);
	OK(inode_deny_write(t_inode("f")));
	ERR(t_open("f", O_WRONLY, 0), ETXTBSY);
	inode_allow_write(t_inode("f"));
	OK(vfs_mknod(AT_FDCWD, "sock", S_IFSOCK | 0644, 0, NULL));
	ERR(t_open("sock", O_RDONLY, 0), ENXIO);
	OK(vfs_mknod(AT_FDCWD, "chr", S_IFCHR | 0644, 0x123, NULL));
	ERR(t_open("chr", O_RDONLY, 0), ENXIO);
	fd = t_open("f", O_PATH, 0);
	assert_null(fd_peek(fd));
	assert_non_null(fd_table_peek(env_task.files, fd));
	fd_close(fd);
}

static void test_open(void **state)
{
	env_run(open_body);
}

static void tmpfile_body(void)
{
	struct path p;
	int fd;

	OK(vfs_mkdir(AT_FDCWD, "d", 0755));
	fd = t_open("d", O_TMPFILE | O_RDWR, 0600);
	assert_true(fd >= 0);
	assert_int_equal(t_write(fd, "abc", 3), 3);
	assert_int_equal(fd_peek(fd)->inode->nlink, 0);
	p = fd_peek(fd)->path;
	OK(vfs_link(&p, AT_FDCWD, "d/named"));
	assert_int_equal(t_inode("d/named")->size, 3);
	assert_int_equal(t_inode("d/named")->nlink, 1);
	fd_close(fd);
	fd = t_open("d", O_TMPFILE | O_RDWR | O_EXCL, 0600);
	p = fd_peek(fd)->path;
	ERR(vfs_link(&p, AT_FDCWD, "d/no"), ENOENT);
	fd_close(fd);
	ERR(t_open("d/named", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

static void test_tmpfile(void **state)
{
	env_run(tmpfile_body);
}

static void dirs_body(void)
{
	struct path p;

	OK(vfs_mkdir(AT_FDCWD, "d", 01777));
	assert_int_equal(t_inode("d")->mode, S_IFDIR | 01755);
	assert_int_equal(t_inode("d")->nlink, 2);
	ERR(vfs_mkdir(AT_FDCWD, "d", 0755), EEXIST);
	ERR(vfs_mkdir(AT_FDCWD, "/", 0755), EEXIST);
	ERR(vfs_mkdir(AT_FDCWD, "d/.", 0755), EEXIST);
	ERR(vfs_mkdir(AT_FDCWD, "x/y", 0755), ENOENT);
	OK(vfs_mkdir(AT_FDCWD, "d/e", 0755));
	assert_int_equal(t_inode("d")->nlink, 3);
	ERR(vfs_unlink(AT_FDCWD, "d", true), ENOTEMPTY);
	ERR(vfs_unlink(AT_FDCWD, "d", false), EISDIR);
	ERR(vfs_unlink(AT_FDCWD, "d/e/.", true), EINVAL);
	ERR(vfs_unlink(AT_FDCWD, "d/e/..", true), ENOTEMPTY);
	ERR(vfs_unlink(AT_FDCWD, "/", true), EBUSY);
	ERR(vfs_unlink(AT_FDCWD, "/", false), EISDIR);
	ERR(vfs_unlink(AT_FDCWD, "none", false), ENOENT);
	ERR(vfs_unlink(AT_FDCWD, "none/", false), ENOENT);
	OK(t_creat("d/f", NULL));
	ERR(vfs_unlink(AT_FDCWD, "d/f", true), ENOTDIR);
	ERR(vfs_unlink(AT_FDCWD, "d/f/", false), ENOTDIR);
	ERR(vfs_unlink(AT_FDCWD, "d/f/x", false), ENOTDIR);
	OK(vfs_unlink(AT_FDCWD, "d/f", false));
	ERR(t_lookup("d/f", 0), ENOENT);
	// A removed directory that is still in use: nothing can be found or made in it.
	OK(path_walk(AT_FDCWD, "d/e", 0, &p));
	OK(t_lookup("d/e", 0));
	ERR(t_lookup("d/e/neg", 0), ENOENT);
	OK(vfs_unlink(AT_FDCWD, "d/e/", true));
	assert_int_equal(p.dentry->inode->nlink, 0);
	path_put(&env_task.fs->cwd);
	env_task.fs->cwd = p;
	ERR(t_creat("new", NULL), ENOENT);
	ERR(vfs_mkdir(AT_FDCWD, "new", 0755), ENOENT);
	OK(t_lookup("..", 0));
	assert_string_equal(t_name("."), "/d/e (deleted)");
	env_task.fs->cwd = env_task.fs->root;
	path_get(&env_task.fs->cwd);
	path_put(&p);
	// Open, unlinked files go on.
	{
		int fd = t_open("gone", O_RDWR | O_CREAT, 0600);
		char c;

		OK(vfs_unlink(AT_FDCWD, "gone", false));
		assert_int_equal(t_write(fd, "z", 1), 1);
		assert_int_equal(t_pread(fd, &c, 1, 0), 1);
		OK(t_creat("gone", "new"));
		assert_int_equal(fd_peek(fd)->inode->size, 1);
		fd_close(fd);
	}
	// What was negative is found when it comes, and created again and again.
	for (int i = 0; i < 3; i++) {
		ERR(t_lookup("cycle", 0), ENOENT);
		OK(t_creat("cycle", NULL));
		OK(vfs_unlink(AT_FDCWD, "cycle", false));
	}
}

static void test_dirs(void **state)
{
	env_run(dirs_body);
}

static void link_body(void)
{
	struct path p, d;

	OK(t_creat("f", "data"));
	OK(vfs_mkdir(AT_FDCWD, "d", 0755));
	OK(path_walk(AT_FDCWD, "f", 0, &p));
	OK(path_walk(AT_FDCWD, "d", 0, &d));
	OK(vfs_link(&p, AT_FDCWD, "d/g"));
	assert_int_equal(t_inode("f")->nlink, 2);
	assert_ptr_equal(t_inode("f"), t_inode("d/g"));
	ERR(vfs_link(&p, AT_FDCWD, "d/g"), EEXIST);
	ERR(vfs_link(&p, AT_FDCWD, "d/h/"), ENOENT);
	ERR(vfs_link(&d, AT_FDCWD, "e"), EPERM);
	OK(vfs_unlink(AT_FDCWD, "f", false));
	assert_int_equal(t_inode("d/g")->nlink, 1);
	path_put(&p);
	path_put(&d);
}

static void test_link(void **state)
{
	env_run(link_body);
}

static int ren(const char *a, const char *b, unsigned flags)
{
	return vfs_rename(AT_FDCWD, a, AT_FDCWD, b, flags);
}

static void rename_body(void)
{
	struct inode *f;

	OK(vfs_mkdir(AT_FDCWD, "a", 0755));
	OK(vfs_mkdir(AT_FDCWD, "b", 0755));
	OK(vfs_mkdir(AT_FDCWD, "a/sub", 0755));
	OK(t_creat("f", "1"));
	f = t_inode("f");
	OK(ren("f", "a/g", 0));
	assert_ptr_equal(t_inode("a/g"), f);
	ERR(t_lookup("f", 0), ENOENT);
	ERR(ren("f", "g", 0), ENOENT);
	ERR(ren("a", "a/sub/x", 0), EINVAL);
	ERR(ren("a/sub", "a", 0), ENOTEMPTY);
	ERR(ren("a", "b/..", 0), EBUSY);
	ERR(ren("a/.", "c", 0), EBUSY);
	ERR(ren("a/g", "b", 0), EISDIR);
	ERR(ren("b", "a/g", 0), ENOTDIR);
	ERR(ren("a/g", "x/", 0), ENOTDIR);
	ERR(ren("a/g/", "x", 0), ENOTDIR);
	ERR(ren("b", "a", 0), ENOTEMPTY);
	OK(ren("b", "a/sub", 0)); // over an empty directory
	ERR(t_lookup("b", 0), ENOENT);
	assert_int_equal(t_inode("/")->nlink, 3);
	assert_int_equal(t_inode("a")->nlink, 3);
	OK(t_creat("h", "2"));
	ERR(ren("a/g", "h", RENAME_NOREPLACE), EEXIST);
	OK(ren("a/g", "h", RENAME_EXCHANGE));
	assert_ptr_equal(t_inode("h"), f);
	OK(ren("h", "a/sub", RENAME_EXCHANGE));
	assert_ptr_equal(t_inode("a/sub"), f);
	assert_true(S_ISDIR(t_inode("h")->mode));
	assert_int_equal(t_inode("a")->nlink, 2);
	assert_int_equal(t_inode("/")->nlink, 4);
	ERR(ren("h", "zzz", RENAME_EXCHANGE), ENOENT);
	ERR(ren("h", "zzz", RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
	ERR(ren("h", "zzz", 64), EINVAL);
	OK(ren("a/sub", "w", RENAME_WHITEOUT));
	assert_true(S_ISCHR(t_inode("a/sub")->mode));
	assert_int_equal(t_inode("a/sub")->rdev, 0);
	// Two names of one file: nothing happens.
	{
		struct path p;

		OK(path_walk(AT_FDCWD, "w", 0, &p));
		OK(vfs_link(&p, AT_FDCWD, "w2"));
		path_put(&p);
		OK(ren("w", "w2", 0));
		OK(t_lookup("w", 0));
		OK(t_lookup("w2", 0));
	}
	OK(ren("w", "a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry", 0));
	assert_string_equal(t_name("a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry"),
			    "/a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry");
	OK(ren("a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry", "w", 0));
	OK(ren("w", "a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry", 0));
	OK(ren("a-name-that-is-long-enough-to-need-memory-of-its-own-in-a-dentry", "h", RENAME_EXCHANGE));
	assert_ptr_equal(t_inode("h"), f);
}

static void test_rename(void **state)
{
	env_run(rename_body);
}

static void perm_body(void)
{
	struct path p;
	struct iattr a;

	OK(vfs_mkdir(AT_FDCWD, "priv", 0700));
	OK(t_creat("priv/f", NULL));
	OK(t_creat("ro", NULL));
	env_task.fs->umask = 0;
	OK(vfs_mkdir(AT_FDCWD, "tmp", 01777));
	OK(t_creat("tmp/roots", NULL));
	env_task.fs->umask = 022;
	env_as(1000, 1000);
	ERR(t_lookup("priv/f", 0), EACCES);
	ERR(t_open("ro", O_WRONLY, 0), EACCES);
	assert_int_equal(t_open("ro", O_RDONLY, 0), 0);
	fd_close(0);
	ERR(t_open("ro", O_RDONLY | O_NOATIME, 0), EPERM);
	ERR(t_creat("no", NULL), EACCES);
	ERR(vfs_mkdir(AT_FDCWD, "ro", 0755), EEXIST); // existence is told before the lack of rights
	ERR(vfs_unlink(AT_FDCWD, "ro", false), EACCES);
	ERR(vfs_unlink(AT_FDCWD, "tmp/roots", false), EPERM); // sticky
	ERR(vfs_mknod(AT_FDCWD, "tmp/dev", S_IFCHR | 0666, 0x103, NULL), EPERM);
	OK(vfs_mknod(AT_FDCWD, "tmp/fifo", S_IFIFO | 0666, 0, NULL));
	OK(t_creat("tmp/mine", NULL));
	OK(path_walk(AT_FDCWD, "tmp/mine", 0, &p));
	a = (struct iattr){.valid = ATTR_UID, .uid = 0};
	ERR(vfs_setattr(&p, &a), EPERM);
	a = (struct iattr){.valid = ATTR_MODE, .mode = 06755};
	OK(vfs_setattr(&p, &a));
	assert_int_equal(p.dentry->inode->mode & 07777, 06755);
	path_put(&p);
	env_as(0, 0);
	OK(t_lookup("priv/f", 0));
}

static void suid_body(void)
{
	struct path p;
	struct iattr a;
	int fd;

	env_task.fs->umask = 0;
	OK(vfs_mkdir(AT_FDCWD, "t", 0777));
	env_as(1000, 1000);
	OK(t_creat("t/f", "x"));
	OK(path_walk(AT_FDCWD, "t/f", 0, &p));
	a = (struct iattr){.valid = ATTR_MODE, .mode = 06777};
	OK(vfs_setattr(&p, &a));
	fd = t_open("t/f", O_WRONLY, 0);
	assert_int_equal(t_write(fd, "y", 1), 1);
	assert_int_equal(p.dentry->inode->mode & 07777, 0777); // a write takes suid and sgid away
	fd_close(fd);
	a = (struct iattr){.valid = ATTR_MODE, .mode = 06777};
	OK(vfs_setattr(&p, &a));
	a = (struct iattr){.valid = ATTR_GID, .gid = 1000};
	OK(vfs_setattr(&p, &a));
	assert_int_equal(p.dentry->inode->mode & 07777, 0777);
	a = (struct iattr){.valid = ATTR_GID, .gid = 7};
	ERR(vfs_setattr(&p, &a), EPERM);
	a = (struct iattr){.valid = ATTR_MODE, .mode = 02755}; // not in the file's group: no sgid
	env_as(0, 0);
	p.dentry->inode->gid = 7;
	env_as(1000, 1000);
	OK(vfs_setattr(&p, &a));
	assert_int_equal(p.dentry->inode->mode & 07777, 0755);
	env_as(1001, 1001);
	a = (struct iattr){.valid = ATTR_ATIME | ATTR_MTIME | ATTR_TIMES_NOW};
	ERR(vfs_setattr(&p, &a), EACCES);
	a = (struct iattr){.valid = ATTR_ATIME | ATTR_MTIME};
	ERR(vfs_setattr(&p, &a), EPERM);
	ERR(vfs_truncate(&p, 0), EACCES);
	env_as(0, 0);
	path_put(&p);
	// A directory with S_ISGID hands its group down.
	OK(path_walk(AT_FDCWD, "t", 0, &p));
	a = (struct iattr){.valid = ATTR_MODE | ATTR_GID, .mode = 02777, .gid = 50};
	OK(vfs_setattr(&p, &a));
	path_put(&p);
	OK(vfs_mkdir(AT_FDCWD, "t/sub", 0755));
	assert_int_equal(t_inode("t/sub")->gid, 50);
	assert_int_equal(t_inode("t/sub")->mode & 07777, 02755);
	OK(t_creat("t/g", NULL));
	assert_int_equal(t_inode("t/g")->gid, 50);
}

static void test_suid(void **state)
{
	env_run(suid_body);
}

static void limit_body(void)
{
	struct path p;
	char buf[100] = {0};
	int fd = t_open("f", O_RDWR | O_CREAT, 0644);

	env_task.fsize_limit = 50;
	env_sigxfsz = 0;
	assert_int_equal(t_pwrite(fd, buf, 100, 0), 50);
	ERR(t_pwrite(fd, buf, 1, 50), EFBIG);
	assert_int_equal(env_sigxfsz, 1);
	ERR(vfs_ftruncate(fd_peek(fd), 51), EFBIG);
	assert_int_equal(env_sigxfsz, 2);
	OK(vfs_ftruncate(fd_peek(fd), 10));
	env_task.fsize_limit = UINT64_MAX;
	ERR(vfs_ftruncate(fd_peek(fd), -1), EINVAL);
	ERR(t_pwrite(fd, buf, 1, INT64_MAX), EINVAL);
	ERR(t_pwrite(fd, buf, 1, -5), EINVAL);
	OK(path_walk(AT_FDCWD, "/", 0, &p));
	ERR(vfs_truncate(&p, 0), EISDIR);
	path_put(&p);
	fd_close(fd);
}

static void test_limit(void **state)
{
	env_run(limit_body);
}

static void fd_body(void)
{
	struct fd_table *copy;
	struct file *f;
	int fds[70], r;

	for (int i = 0; i < 70; i++)
		fds[i] = t_open("/", O_RDONLY | (i == 5 ? O_CLOEXEC : 0), 0);
	for (int i = 0; i < 70; i++)
		assert_int_equal(fds[i], i);
	OK(fd_close(3));
	OK(fd_close(66));
	ERR(fd_close(66), EBADF);
	ERR(fd_close(-1), EBADF);
	ERR(fd_close(100000), EBADF);
	f = fd_get(0);
	assert_int_equal(fd_install(file_get(f), 0), 3);
	assert_int_equal(fd_install_from(file_get(f), 10, O_CLOEXEC), 66);
	ERR(fd_install_from(f, 5000, 0), EINVAL);
	assert_int_equal(fd_get_flags(66), FD_CLOEXEC);
	assert_int_equal(fd_replace(f, 200, 0), 200);
	assert_int_equal(fd_replace(f, 1, 0), 1);
	ERR(fd_replace(f, 1024, 0), EBADF);
	assert_int_equal(fd_table_next(env_task.files, 70), 200);
	r = fd_reserve(0);
	assert_int_equal(r, 70);
	assert_null(fd_peek(r));
	ERR(fd_close(r), EBADF);
	fd_unreserve(r);
	env_task.nofile_limit = 70;
	ERR(fd_install(f, 0), EMFILE);
	env_task.nofile_limit = 1024;
	copy = fd_table_copy(env_task.files, 10, 100);
	assert_non_null(fd_table_peek(copy, 200));
	assert_null(fd_table_peek(copy, 10));
	assert_non_null(fd_table_peek(copy, 9));
	fd_table_put(copy);
	fd_close_on_exec(env_task.files);
	assert_null(fd_peek(5));
	assert_null(fd_peek(66));
	assert_non_null(fd_peek(4));
	file_put(f);
}

static void test_fd(void **state)
{
	env_run(fd_body);
}

static void mount_body(void)
{
	struct mnt_ns *ns = env_task.fs->mnt_ns, *copy;
	struct tmpfs_limits lim = {.mode = 0755};
	struct super_block *sb;
	struct path at, p, q;

	OK(vfs_mkdir(AT_FDCWD, "mnt", 0755));
	OK(vfs_mkdir(AT_FDCWD, "mnt/below", 0755));
	OK(vfs_mkdir(AT_FDCWD, "other", 0755));
	OK(t_creat("file", NULL));
	OK(tmpfs_new_sb(&lim, &sb));
	OK(path_walk(AT_FDCWD, "mnt", 0, &at));
	OK(vfs_mount(ns, &at, sb, NULL, 0));
	path_put(&at);
	ERR(t_lookup("mnt/below", 0), ENOENT);
	OK(t_creat("mnt/f", "in"));
	assert_string_equal(t_name("mnt/f"), "/mnt/f");
	OK(t_lookup("mnt/../other", 0));
	ERR(t_lookup("mnt/f", WALK_NO_XDEV), EXDEV);
	ERR(ren("mnt/f", "g", 0), EXDEV);
	ERR(vfs_unlink(AT_FDCWD, "mnt", true), EBUSY);
	ERR(ren("mnt", "mnt2", 0), EBUSY);
	OK(path_walk(AT_FDCWD, "file", 0, &p));
	ERR(vfs_mount(ns, &p, sb, NULL, 0), ENOTDIR);
	path_put(&p);
	// Bind: the same files in another place; read-only there alone.
	OK(path_walk(AT_FDCWD, "mnt", 0, &p));
	OK(path_walk(AT_FDCWD, "other", 0, &at));
	OK(vfs_bind_mount(&p, &at, false));
	path_put(&at);
	OK(path_walk(AT_FDCWD, "other", 0, &at));
	OK(vfs_remount_bind(&at, MNT_RDONLY));
	path_put(&at);
	path_put(&p);
	OK(t_lookup("other/f", 0));
	ERR(t_creat("other/new", NULL), EROFS);
	ERR(t_open("other/f", O_WRONLY, 0), EROFS);
	ERR(vfs_mkdir(AT_FDCWD, "other/f", 0755), EEXIST);
	ERR(vfs_unlink(AT_FDCWD, "other/f", false), EROFS);
	OK(t_creat("mnt/new", NULL));
	OK(t_lookup("other/new", 0));
	// Umount: busy while something is open.
	OK(path_walk(AT_FDCWD, "mnt", 0, &p));
	OK(path_walk(AT_FDCWD, "mnt/f", 0, &q));
	ERR(vfs_umount(&q, 0), EINVAL);
	ERR(vfs_umount(&p, 0), EBUSY);
	path_put(&q);
	OK(vfs_umount(&p, 0));
	path_put(&p);
	OK(t_lookup("mnt/below", 0));
	OK(path_walk(AT_FDCWD, "other", 0, &p));
	OK(path_walk(AT_FDCWD, "other/f", 0, &q));
	OK(vfs_umount(&p, MNT_DETACH));
	ERR(t_lookup("other/f", 0), ENOENT);
	path_put(&p);
	path_put(&q);
	// A namespace of one's own.
	OK(path_walk(AT_FDCWD, "mnt", 0, &at));
	OK(vfs_mount(ns, &at, sb, NULL, 0));
	path_put(&at);
	sb_put(sb);
	{
		struct fs_struct *fs = fs_struct_copy(env_task.fs), *old = env_task.fs;

		OK(mnt_ns_copy(ns, fs, &copy));
		mnt_ns_put(fs->mnt_ns);
		fs->mnt_ns = copy;
		env_task.fs = fs;
		OK(t_lookup("mnt/f", 0));
		OK(path_walk(AT_FDCWD, "mnt", 0, &p));
		OK(vfs_umount(&p, 0));
		path_put(&p);
		ERR(t_lookup("mnt/f", 0), ENOENT);
		env_task.fs = old;
		OK(t_lookup("mnt/f", 0));
		fs_struct_put(fs);
	}
}

static void test_mount(void **state)
{
	env_run(mount_body);
}

static void pivot_body(void)
{
	struct mnt_ns *ns = env_task.fs->mnt_ns;
	struct tmpfs_limits lim = {.mode = 0755};
	struct super_block *sb;
	struct path at, p;

	OK(vfs_mkdir(AT_FDCWD, "new", 0755));
	OK(t_creat("oldfile", NULL));
	OK(tmpfs_new_sb(&lim, &sb));
	OK(path_walk(AT_FDCWD, "new", 0, &at));
	ERR(vfs_pivot_root(&at, &at), EBUSY);
	OK(vfs_mount(ns, &at, sb, NULL, 0));
	sb_put(sb);
	path_put(&at);
	OK(vfs_mkdir(AT_FDCWD, "new/old", 0755));
	OK(path_walk(AT_FDCWD, "new", 0, &at));
	OK(path_walk(AT_FDCWD, "new/old", 0, &p));
	OK(vfs_pivot_root(&at, &p));
	path_put(&at);
	path_put(&p);
	ERR(t_lookup("/oldfile", 0), ENOENT);
	OK(t_lookup("/old/oldfile", 0));
	assert_string_equal(t_name("/old/new"), "/old/new");
	OK(path_walk(AT_FDCWD, "/old", 0, &p));
	OK(vfs_umount(&p, MNT_DETACH));
	path_put(&p);
	ERR(t_lookup("/old/oldfile", 0), ENOENT);
}

static void test_pivot(void **state)
{
	env_run(pivot_body);
}

static void shared_body(void)
{
	struct mnt_ns *ns = env_task.fs->mnt_ns;
	struct tmpfs_limits lim = {.mode = 0755};
	struct super_block *sb, *sb2;
	struct path at, a, b;

	OK(vfs_mkdir(AT_FDCWD, "a", 0755));
	OK(vfs_mkdir(AT_FDCWD, "b", 0755));
	OK(tmpfs_new_sb(&lim, &sb));
	OK(tmpfs_new_sb(&lim, &sb2));
	OK(path_walk(AT_FDCWD, "a", 0, &at));
	OK(vfs_mount(ns, &at, sb, NULL, 0));
	path_put(&at);
	OK(vfs_mkdir(AT_FDCWD, "a/m", 0755));
	OK(path_walk(AT_FDCWD, "a", 0, &a));
	OK(vfs_set_propagation(&a, MS_SHARED));
	OK(path_walk(AT_FDCWD, "b", 0, &b));
	OK(vfs_bind_mount(&a, &b, false));
	path_put(&b);
	OK(path_walk(AT_FDCWD, "a/m", 0, &at));
	OK(vfs_mount(ns, &at, sb2, NULL, 0));
	path_put(&at);
	OK(t_creat("a/m/x", NULL));
	OK(t_lookup("b/m/x", 0)); // it came along
	OK(path_walk(AT_FDCWD, "a/m", 0, &at));
	OK(vfs_umount(&at, 0));
	path_put(&at);
	ERR(t_lookup("b/m/x", 0), ENOENT);
	path_put(&a);
	sb_put(sb);
	sb_put(sb2);
}

static void test_shared(void **state)
{
	env_run(shared_body);
}

struct lock_try {
	struct vfs_task t;
	struct file *f;
	struct posix_lock l;
	int result;
	bool done;
};

static void lock_task(void *arg)
{
	struct lock_try *lt = arg;

	lt->result = lock_posix_set(lt->f, &lt->l, true);
	lt->done = true;
	sched_exit(NULL, NULL);
}

static void lock_body(void)
{
	struct file *f, *g;
	struct posix_lock a = {.type = F_WRLCK, .start = 0, .end = 9, .owner = "A", .pid = 1};
	struct posix_lock b = {.type = F_WRLCK, .start = 5, .end = 20, .owner = "B", .pid = 2};
	struct lock_try other = {0};

	OK(t_creat("f", NULL));
	OK(vfs_openat(AT_FDCWD, "f", O_RDWR, 0, 0, &f));
	OK(vfs_openat(AT_FDCWD, "f", O_RDWR, 0, 0, &g));
	OK(lock_posix_set(f, &a, false));
	ERR(lock_posix_set(f, &b, false), EAGAIN);
	lock_posix_get(f, &b);
	assert_int_equal(b.pid, 1);
	assert_int_equal(b.end, 9);
	// Unlocking the middle splits the lock.
	a.type = F_UNLCK;
	a.start = 3;
	a.end = 5;
	OK(lock_posix_set(f, &a, false));
	b = (struct posix_lock){.type = F_RDLCK, .start = 3, .end = 5, .owner = "B", .pid = 2};
	OK(lock_posix_set(f, &b, false));
	b.end = 6;
	ERR(lock_posix_set(f, &b, false), EAGAIN);
	// B waits for A's first part; A asking for B's range would never end.
	other.f = f;
	other.l = (struct posix_lock){.type = F_WRLCK, .start = 0, .end = 1, .owner = "B", .pid = 2};
	env_spawn(&other.t, lock_task, &other);
	sched_yield_cpu();
	assert_false(other.done);
	a = (struct posix_lock){.type = F_WRLCK, .start = 4, .end = 4, .owner = "A", .pid = 1};
	ERR(lock_posix_set(f, &a, true), EDEADLK);
	a = (struct posix_lock){.type = F_UNLCK, .start = 0, .end = UINT64_MAX, .owner = "A", .pid = 1};
	OK(lock_posix_set(f, &a, false));
	sched_yield_cpu();
	sched_yield_cpu();
	assert_true(other.done);
	OK(other.result);
	// flock belongs to the open file.
	OK(lock_flock(f, LOCK_SH));
	OK(lock_flock(g, LOCK_SH | LOCK_NB));
	ERR(lock_flock(f, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	OK(lock_flock(g, LOCK_UN));
	OK(lock_flock(f, LOCK_EX | LOCK_NB));
	ERR(lock_flock(g, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	file_put(f); // ends its lock
	OK(lock_flock(g, LOCK_EX | LOCK_NB));
	file_put(g);
}

static void test_locks(void **state)
{
	env_run(lock_body);
}

static uint64_t nsec_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void speed_body(void)
{
	enum { N = 200000 };
	struct path p;
	uint64_t t;
	int fd;

	OK(vfs_mkdir(AT_FDCWD, "usr", 0755));
	OK(vfs_mkdir(AT_FDCWD, "usr/lib", 0755));
	OK(vfs_mkdir(AT_FDCWD, "usr/lib/x86_64-linux-gnu", 0755));
	OK(vfs_mkdir(AT_FDCWD, "usr/lib/x86_64-linux-gnu/perl", 0755));
	OK(t_creat("usr/lib/x86_64-linux-gnu/perl/libfoo.so", "x"));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		OK(path_walk(AT_FDCWD, "/usr/lib/x86_64-linux-gnu/perl/libfoo.so", FL, &p));
		path_put(&p);
	}
	print_message("walk of 5 components: %llu ns\n", (unsigned long long)((nsec_now() - t) / N));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		struct file *f;

		OK(vfs_openat(AT_FDCWD, "/usr/lib/x86_64-linux-gnu/perl/libfoo.so", O_RDONLY, 0, 0, &f));
		file_put(f);
	}
	print_message("open and close: %llu ns\n", (unsigned long long)((nsec_now() - t) / N));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		struct file *f;

		OK(vfs_openat(AT_FDCWD, "newfile", O_RDWR | O_CREAT, 0644, 0, &f));
		file_put(f);
		OK(vfs_unlink(AT_FDCWD, "newfile", false));
	}
	print_message("creat, close and unlink: %llu ns\n", (unsigned long long)((nsec_now() - t) / N));
	fd = t_open("/usr/lib/x86_64-linux-gnu/perl/libfoo.so", O_RDONLY, 0);
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		char c;

		t_pread(fd, &c, 1, 0);
	}
	print_message("pread of 1 byte: %llu ns\n", (unsigned long long)((nsec_now() - t) / N));
	fd_close(fd);
}

static void test_speed(void **state)
{
	env_run(speed_body);
}

static void test_perms(void **state)
{
	env_run(perm_body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk),   cmocka_unit_test(test_links),  cmocka_unit_test(test_resolve),
		cmocka_unit_test(test_open),   cmocka_unit_test(test_tmpfile), cmocka_unit_test(test_dirs),
		cmocka_unit_test(test_link),   cmocka_unit_test(test_rename), cmocka_unit_test(test_perms),
		cmocka_unit_test(test_suid),   cmocka_unit_test(test_limit),  cmocka_unit_test(test_fd),
		cmocka_unit_test(test_mount),  cmocka_unit_test(test_pivot),  cmocka_unit_test(test_shared),
		cmocka_unit_test(test_locks),  cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
