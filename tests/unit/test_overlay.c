// The overlay file system: tmpfs over tmpfs, with a random comparison against a plain tmpfs.
#include "fs_harness.h"

#include <linux/fs.h>
#include <sys/mman.h>

#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/internal.h" // d_prune_children()

static struct super_block *new_tmpfs(uint64_t max_bytes)
{
	struct super_block *sb;

	assert_int_equal(tmpfs_new_sb(&(struct tmpfs_limits){.max_bytes = max_bytes, .mode = 0755}, &sb), 0);
	return sb;
}

static void link_name(const char *old, const char *name, int want)
{
	struct path p;

	assert_int_equal(path_walk(AT_FDCWD, old, 0, &p), 0);
	assert_int_equal(vfs_link(&p, AT_FDCWD, name), want);
	path_put(&p);
}

static void rename_to(const char *old, const char *name, int want)
{
	assert_int_equal(vfs_rename(AT_FDCWD, old, AT_FDCWD, name, 0), want);
}

static void chmod_to(const char *name, uint32_t mode)
{
	struct iattr a = {.valid = ATTR_MODE, .mode = mode};
	struct path p;

	assert_int_equal(path_walk(AT_FDCWD, name, 0, &p), 0);
	assert_int_equal(vfs_setattr(&p, &a), 0);
	path_put(&p);
}

static void set_xattr(const char *name, const char *key, const char *val)
{
	struct path p;

	assert_int_equal(path_walk(AT_FDCWD, name, 0, &p), 0);
	assert_int_equal(vfs_setxattr(&p, key, val, strlen(val), 0), 0);
	path_put(&p);
}

// A lower layer, filled through a mount of its own. Returns a reference.
static struct super_block *lower_sb;
static void fill_lower(void (*fill)(void))
{
	lower_sb = new_tmpfs(0);
	sb_get(lower_sb);
	fs_enter(lower_sb);
	fill();
	fs_leave();
}

static void enter_overlay(uint64_t size)
{
	struct super_block *upper = new_tmpfs(size), *sb;

	assert_int_equal(overlay_mount_layers(upper, &lower_sb, 1, &sb), 0);
	sb_put(upper);
	fs_enter(sb);
}

static void leave_overlay(void)
{
	fs_leave();
	sb_put(lower_sb);
}

static void fill_basic(void)
{
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/d", 0755), 0);
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/d/e", 0750), 0);
	fs_put_file("/d/e/f", "lower f");
	fs_put_file("/d/g", "lower g");
	fs_put_file("/top", "lower top");
	chmod_to("/top", 0741);
	set_xattr("/top", "user.k", "v");
	set_xattr("/d/e", "user.d", "dir");
	assert_int_equal(vfs_symlink(AT_FDCWD, "/s", "d/e"), 0);
	assert_int_equal(vfs_mknod(AT_FDCWD, "/p", S_IFIFO | 0600, 0, NULL), 0);
	fs_put_file("/h1", "hard");
	link_name("/h1", "/h2", 0);
}

// Forgets every unused dentry, so that the next walk sees what the layers have.
static void drop_caches(void)
{
	d_prune_children(fs_root.mnt->sb->root);
}

static uint64_t ino(const char *name)
{
	return fs_stat(name, 0)->ino;
}

static void basic_main(void *arg)
{
	uint64_t inos[4];
	const struct inode *i;
	struct file *f, *g;
	struct path p;
	char buf[64];
	uint64_t off;
	int fd;

	fill_lower(fill_basic);
	enter_overlay(0);
	fs_check_file("/d/e/f", "lower f");
	fs_check_file("/s/f", "lower f");
	inos[0] = ino("/top");
	inos[1] = ino("/d/e/f");
	inos[2] = ino("/d/e");
	inos[3] = ino("/d");
	// Open files see what is written through another one later.
	f = fs_open("/top", O_RDONLY, 0, 0);
	assert_int_equal(kernel_read(f, buf, 9, 0), 9);
	g = fs_open("/top", O_RDWR, 0, 0);
	assert_int_equal(fs_write(g, "UPPER", 0), 5);
	assert_int_equal(kernel_read(f, buf, 9, 0), 9);
	assert_memory_equal(buf, "UPPER top", 9);
	assert_int_equal(g->ops->map_fd(g, 0, 4096, PROT_READ | PROT_WRITE, true, &fd, &off), 0);
	file_put(f);
	file_put(g);
	i = fs_stat("/top", 0);
	assert_int_equal(i->mode, S_IFREG | 0741);
	assert_int_equal(i->size, 9);
	assert_int_equal(i->nlink, 1);
	assert_int_equal(path_walk(AT_FDCWD, "/top", 0, &p), 0);
	assert_int_equal(vfs_getxattr(&p, "user.k", buf, sizeof(buf)), 1);
	assert_int_equal(vfs_listxattr(&p, buf, sizeof(buf)), 7);
	assert_int_equal(vfs_getxattr(&p, "trusted.overlay.origin", buf, sizeof(buf)), -EOPNOTSUPP);
	path_put(&p);
	// Truncating copies nothing; the directories above come along with all they have.
	f = fs_open("/d/e/f", O_WRONLY | O_TRUNC, 0, 0);
	assert_int_equal(fs_write(f, "new", 0), 3);
	file_put(f);
	for (int round = 0; round < 2; round++) {
		fs_check_file("/d/e/f", "new");
		fs_check_file("/d/g", "lower g");
		assert_int_equal(fs_stat("/d/e", 0)->mode, S_IFDIR | 0750);
		assert_int_equal(ino("/top"), inos[0]);
		assert_int_equal(ino("/d/e/f"), inos[1]);
		assert_int_equal(ino("/d/e"), inos[2]);
		assert_int_equal(ino("/d"), inos[3]);
		drop_caches();
	}
	assert_int_equal(path_walk(AT_FDCWD, "/d/e", 0, &p), 0);
	assert_int_equal(vfs_getxattr(&p, "user.d", buf, sizeof(buf)), 3);
	path_put(&p);
	// The lower layer is as it was.
	sb_get(lower_sb);
	leave_overlay();
	fs_enter(lower_sb);
	fs_check_file("/top", "lower top");
	fs_check_file("/d/e/f", "lower f");
	fs_leave();
	sched_stop(0);
}

static void test_basic(void **state)
{
	fs_run(basic_main);
	assert_int_equal(fs_live(), 0);
}

static void remove_main(void *arg)
{
	fill_lower(fill_basic);
	enter_overlay(0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/top", false), 0);
	fs_stat("/top", -ENOENT);
	drop_caches();
	fs_stat("/top", -ENOENT);
	assert_false(fs_lists("/", "top"));
	fs_put_file("/top", "again");
	drop_caches();
	fs_check_file("/top", "again");
	assert_true(fs_lists("/", "top"));
	assert_int_equal(vfs_unlink(AT_FDCWD, "/top", false), 0);
	drop_caches();
	fs_stat("/top", -ENOENT);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d", true), -ENOTEMPTY);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/e/f", false), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/e", true), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/g", false), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d", true), 0);
	fs_stat("/d", -ENOENT);
	// A new directory of the name shows nothing of the old one.
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/d", 0700), 0);
	for (int round = 0; round < 2; round++) {
		fs_stat("/d/e", -ENOENT);
		fs_stat("/d/g", -ENOENT);
		assert_false(fs_lists("/d", "g"));
		assert_int_equal(fs_stat("/d", 0)->mode, S_IFDIR | 0700);
		drop_caches();
	}
	fs_put_file("/d/g", "mine");
	drop_caches();
	fs_check_file("/d/g", "mine");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/s", false), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/p", false), 0);
	drop_caches();
	fs_stat("/s", -ENOENT);
	assert_int_equal(vfs_mknod(AT_FDCWD, "/w", S_IFCHR, 0, NULL), -EPERM);
	leave_overlay();
	sched_stop(0);
}

static void test_remove(void **state)
{
	fs_run(remove_main);
	assert_int_equal(fs_live(), 0);
}

static void rename_main(void *arg)
{
	uint64_t e;

	fill_lower(fill_basic);
	enter_overlay(0);
	e = ino("/d/e");
	// A lower directory moves without a copy of what is in it.
	rename_to("/d/e", "/moved", 0);
	for (int round = 0; round < 2; round++) {
		fs_stat("/d/e", -ENOENT);
		fs_check_file("/moved/f", "lower f");
		assert_int_equal(ino("/moved"), e);
		assert_true(fs_lists("/moved", "f"));
		drop_caches();
	}
	rename_to("/moved", "/d/twice", 0);
	drop_caches();
	fs_check_file("/d/twice/f", "lower f");
	rename_to("/d", "/dd", 0); // and within another that moves
	drop_caches();
	fs_check_file("/dd/twice/f", "lower f");
	fs_check_file("/dd/g", "lower g");
	fs_put_file("/dd/twice/f", "changed");
	fs_put_file("/dd/twice/new", "n");
	drop_caches();
	fs_check_file("/dd/twice/f", "changed");
	// A new directory where the old one was is empty.
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/d", 0755), 0);
	drop_caches();
	fs_stat("/d/g", -ENOENT);
	// Files, over lower files.
	fs_put_file("/new", "new");
	rename_to("/new", "/top", 0);
	drop_caches();
	fs_check_file("/top", "new");
	rename_to("/top", "/elsewhere", 0);
	drop_caches();
	fs_stat("/top", -ENOENT);
	fs_check_file("/elsewhere", "new");
	// A fresh directory onto a name that hides a lower one.
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/fresh", 0755), 0);
	fs_put_file("/fresh/x", "x");
	rename_to("/fresh", "/d", 0);
	drop_caches();
	fs_stat("/d/g", -ENOENT);
	fs_check_file("/d/x", "x");
	// A directory over the whiteout of a file.
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/fresh", 0755), 0);
	rename_to("/fresh", "/top", 0);
	drop_caches();
	assert_true(S_ISDIR(fs_stat("/top", 0)->mode));
	assert_int_equal(vfs_rename(AT_FDCWD, "/d", AT_FDCWD, "/dd", RENAME_EXCHANGE), 0);
	drop_caches();
	fs_check_file("/dd/x", "x");
	fs_check_file("/d/twice/new", "n");
	fs_check_file("/d/g", "lower g");
	leave_overlay();
	sched_stop(0);
}

static void test_rename(void **state)
{
	fs_run(rename_main);
	assert_int_equal(fs_live(), 0);
}

// All names of a lower file go on meaning one file.
static void hard_links_main(void *arg)
{
	struct file *f;

	fill_lower(fill_basic);
	enter_overlay(0);
	assert_int_equal(ino("/h1"), ino("/h2"));
	f = fs_open("/h1", O_WRONLY | O_APPEND, 0, 0);
	assert_int_equal(fs_write(f, "+up", 4), 3);
	file_put(f);
	drop_caches();
	fs_check_file("/h2", "hard+up");
	fs_check_file("/h1", "hard+up");
	assert_int_equal(fs_stat("/h1", 0)->nlink, 2);
	link_name("/h2", "/d/h3", 0);
	assert_int_equal(fs_stat("/h1", 0)->nlink, 3);
	drop_caches();
	fs_check_file("/d/h3", "hard+up");
	rename_to("/h1", "/d/h4", 0);
	drop_caches();
	fs_stat("/h1", -ENOENT);
	fs_check_file("/d/h4", "hard+up");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/h2", false), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/h3", false), 0);
	assert_int_equal(fs_stat("/d/h4", 0)->nlink, 1);
	fs_put_file("/d/h4", "last");
	drop_caches();
	fs_check_file("/d/h4", "last");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/h4", false), 0);
	drop_caches();
	fs_stat("/h2", -ENOENT);
	fs_stat("/d/h4", -ENOENT);
	// Pure upper files.
	fs_put_file("/u", "u");
	link_name("/u", "/u2", 0);
	drop_caches();
	assert_int_equal(ino("/u"), ino("/u2"));
	// Open, removed, then changed.
	f = fs_open("/top", O_RDWR, 0, 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/top", false), 0);
	assert_int_equal(fs_write(f, "ghost", 0), 5);
	assert_int_equal(f->inode->nlink, 0);
	drop_caches();
	fs_stat("/top", -ENOENT);
	file_put(f);
	leave_overlay();
	sched_stop(0);
}

static void test_hard_links(void **state)
{
	fs_run(hard_links_main);
	assert_int_equal(fs_live(), 0);
}

static void fill_big(void)
{
	struct file *f = fs_open("/big", O_WRONLY | O_CREAT, 0644, 0);
	char buf[1024];

	memset(buf, 'b', sizeof(buf) - 1);
	buf[sizeof(buf) - 1] = 0;
	for (int i = 0; i < 1024; i++)
		fs_write(f, buf, i * 1023);
	file_put(f);
	f = fs_open("/sparse", O_WRONLY | O_CREAT, 0644, 0);
	fs_write(f, "middle", 5 << 20);
	assert_int_equal(vfs_ftruncate(f, 10 << 20), 0);
	file_put(f);
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/list", 0755), 0);
	for (int i = 0; i < 300; i++) {
		snprintf(buf, sizeof(buf), "/list/file%d", i);
		fs_put_file(buf, "");
	}
}

// No room: the lower file stays what it was.
static void quota_main(void *arg)
{
	struct file *f;
	char buf[8];

	fill_lower(fill_big);
	enter_overlay(256 << 10);
	f = fs_open("/big", O_RDWR, 0, 0);
	assert_int_equal(fs_write(f, "x", 0), -ENOSPC);
	file_put(f);
	drop_caches();
	assert_int_equal(fs_stat("/big", 0)->size, 1023 * 1024);
	f = fs_open("/big", O_RDWR | O_TRUNC, 0, 0);
	assert_int_equal(fs_write(f, "x", 0), 1);
	file_put(f);
	fs_check_file("/big", "x");
	// Holes take no room.
	f = fs_open("/sparse", O_RDWR, 0, 0);
	assert_int_equal(fs_write(f, "x", 0), 1);
	assert_int_equal(f->inode->size, 10 << 20);
	assert_int_equal(kernel_read(f, buf, 6, 5 << 20), 6);
	assert_memory_equal(buf, "middle", 6);
	assert_int_equal(kernel_read(f, buf, 6, (10 << 20) - 3), 3);
	assert_true(f->inode->blocks <= 64);
	file_put(f);
	leave_overlay();
	sched_stop(0);
}

static void test_quota(void **state)
{
	fs_run(quota_main);
	assert_int_equal(fs_live(), 0);
}

// rm -r while reading: an open directory neither repeats nor loses what is left.
static void listing_main(void *arg)
{
	struct fs_names l = {.c.fill = fs_fill};
	struct file *f;
	unsigned seen = 0;
	char name[64];

	fill_lower(fill_big);
	enter_overlay(0);
	fs_put_file("/list/upper", "");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/list/file7", false), 0);
	f = fs_open("/list", O_RDONLY | O_DIRECTORY, 0, 0);
	for (;;) {
		l.n = 0;
		l.limit = 10;
		l.buf[0] = 0;
		assert_int_equal(vfs_iterate(f, &l.c), 0);
		if (!l.n)
			break;
		seen += l.n;
		for (char *save, *p = strtok_r(l.buf, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
			snprintf(name, sizeof(name), "/list/%s", p);
			assert_int_equal(vfs_unlink(AT_FDCWD, name, false), 0);
		}
	}
	file_put(f);
	assert_int_equal(seen, 302);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/list", true), 0);
	drop_caches();
	fs_stat("/list", -ENOENT);
	leave_overlay();
	sched_stop(0);
}

static void test_listing(void **state)
{
	fs_run(listing_main);
	assert_int_equal(fs_live(), 0);
}

// Several lower layers: an overlay of overlays' layers.
static void layers_main(void *arg)
{
	struct super_block *lowers[2], *sb;

	fill_lower(fill_basic);
	lowers[1] = lower_sb;
	enter_overlay(0); // makes the upper layer that is the first lower one below
	fs_put_file("/d/e/f", "middle f");
	fs_put_file("/d/only", "middle");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/d/g", false), 0);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/s", false), 0);
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/s", 0755), 0);
	lowers[0] = sb_get(fs_root.mnt->sb);
	fs_leave();
	assert_int_equal(overlay_mount_layers(NULL, lowers, 2, &sb), 0);
	sb_put(lowers[0]);
	sb_put(lowers[1]);
	fs_enter(sb);
	fs_check_file("/d/e/f", "middle f");
	fs_check_file("/d/only", "middle");
	fs_check_file("/top", "lower top");
	assert_true(fs_lists("/d", "e"));
	assert_true(S_ISDIR(fs_stat("/s", 0)->mode));
	fs_open("/new", O_CREAT | O_WRONLY, 0644, -EROFS);
	fs_leave();
	sched_stop(0);
}

static void test_layers(void **state)
{
	fs_run(layers_main);
	assert_int_equal(fs_live(), 0);
}

// An overlay that a guest mounts: it can see the upper layer, which must show what was done.
static void guest_main(void *arg)
{
	static const char *const bad[] = {"", "lowerdir=/l1,upperdir=/u", "lowerdir=/l1,what=1", "upperdir=/u,workdir=/w",
					  "lowerdir=/l1::/l2", "lowerdir=/l1,upperdir=/u,workdir=/u"};
	struct mount_opts o = {.source = "overlay"};
	struct super_block *sb;
	struct path at;
	char buf[128];

	fs_enter(new_tmpfs(0));
	for (const char *const *d = (const char *const[]){"/l1", "/l:2", "/u", "/w", "/m", "/l1/d", "/l1/d/e", "/l:2/d", NULL}; *d; d++)
		assert_int_equal(vfs_mkdir(AT_FDCWD, *d, 0755), 0);
	fs_put_file("/l1/d/f", "one");
	fs_put_file("/l1/d/e/x", "x");
	fs_put_file("/l:2/d/f", "two");
	fs_put_file("/l:2/d/g", "two g");
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		o.data = bad[i];
		assert_int_equal(overlay_fs_type.mount(&overlay_fs_type, &o, &sb), -EINVAL);
	}
	o.data = "lowerdir=/none";
	assert_int_equal(overlay_fs_type.mount(&overlay_fs_type, &o, &sb), -ENOENT);
	o.data = "lowerdir=/l1:/l\\:2,upperdir=/u,workdir=/w,index=off";
	assert_int_equal(overlay_fs_type.mount(&overlay_fs_type, &o, &sb), 0);
	assert_int_equal(sb->ops->show_options(sb, buf, sizeof(buf)), 0);
	assert_string_equal(buf + 1, o.data);
	assert_int_equal(path_walk(AT_FDCWD, "/m", 0, &at), 0);
	assert_int_equal(vfs_mount(fs_ns, &at, sb, NULL, 0), 0);
	sb_put(sb);
	path_put(&at);
	fs_check_file("/m/d/f", "one");
	fs_check_file("/m/d/g", "two g");
	fs_stat("/u/d", -ENOENT); // cached as missing
	fs_put_file("/m/d/f", "three");
	fs_check_file("/u/d/f", "three");
	fs_stat("/u/d/new", -ENOENT);
	fs_put_file("/m/d/new", "new");
	fs_check_file("/u/d/new", "new");
	rename_to("/m/d/new", "/m/d/newer", 0);
	fs_stat("/u/d/new", -ENOENT);
	fs_check_file("/u/d/newer", "new");
	assert_int_equal(vfs_unlink(AT_FDCWD, "/m/d/newer", false), 0);
	fs_stat("/u/d/newer", -ENOENT);
	assert_int_equal(vfs_unlink(AT_FDCWD, "/m/d/g", false), 0);
	assert_true(S_ISCHR(fs_stat("/u/d/g", 0)->mode)); // a whiteout, as on Linux
	fs_stat("/u/d/e", -ENOENT);
	rename_to("/m/d/e", "/m/e2", 0);
	fs_stat("/u/e2", 0);
	fs_stat("/u/e2/y", -ENOENT);
	fs_put_file("/m/e2/y", "y");
	fs_check_file("/u/e2/y", "y");
	fs_check_file("/m/e2/x", "x");
	assert_int_equal(vfs_mkdir(AT_FDCWD, "/m/n", 0755), 0);
	fs_stat("/u/n/z", -ENOENT);
	assert_int_equal(vfs_rename(AT_FDCWD, "/m/n", AT_FDCWD, "/m/e2", RENAME_EXCHANGE), 0);
	fs_put_file("/m/n/z", "z");
	fs_check_file("/u/n/z", "z");
	fs_check_file("/u/n/y", "y");
	fs_stat("/u/e2/y", -ENOENT);
	fs_leave();
	sched_stop(0);
}

static void test_guest(void **state)
{
	fs_run(guest_main);
	assert_int_equal(fs_live(), 0);
}

// --- against a model ----------------------------------------------------------------------------

// The same random operations on an overlay and on a plain tmpfs that began with the same files must
// have the same results, and leave the same tree.
enum { NAMES = 5, OPS = 400, TASK_SEEDS = 40 };

static unsigned rnd(unsigned n)
{
	return (unsigned)random() % n;
}

static void rnd_path(char *buf, size_t size)
{
	unsigned depth = 1 + rnd(3);
	size_t at = 0;

	for (unsigned i = 0; i < depth; i++)
		at += (size_t)snprintf(buf + at, size - at, "/%c", 'a' + (int)rnd(NAMES));
}

static void fill_random(void)
{
	char name[64], name2[64];
	struct path p;

	for (int i = 0; i < 60; i++) {
		rnd_path(name, sizeof(name));
		rnd_path(name2, sizeof(name2));
		switch (rnd(4)) {
		case 0: case 1:
			(void)vfs_mkdir(AT_FDCWD, name, 0755);
			break;
		case 2: {
			struct file *f;

			if (vfs_openat(AT_FDCWD, name, O_WRONLY | O_CREAT, 0644, 0, &f))
				break;
			fs_write(f, name, 0);
			file_put(f);
			break;
		}
		case 3:
			if (path_walk(AT_FDCWD, name, 0, &p))
				break;
			(void)vfs_link(&p, AT_FDCWD, name2);
			path_put(&p);
		}
	}
}

static int random_op(unsigned op, const char *a, const char *b, const char *text)
{
	struct file *f;
	struct path p;
	int r;

	switch (op) {
	case 0:
		return vfs_mkdir(AT_FDCWD, a, 0755);
	case 1:
		return vfs_unlink(AT_FDCWD, a, false);
	case 2:
		return vfs_unlink(AT_FDCWD, a, true);
	case 3: case 4:
		return vfs_rename(AT_FDCWD, a, AT_FDCWD, b, 0);
	case 5:
		return vfs_rename(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
	case 6:
		r = path_walk(AT_FDCWD, a, 0, &p);
		if (!r) {
			r = vfs_link(&p, AT_FDCWD, b);
			path_put(&p);
		}
		return r;
	case 7: case 8: case 9: {
		static const unsigned flags[] = {O_WRONLY | O_CREAT | O_TRUNC, O_RDWR, O_WRONLY | O_APPEND};

		r = vfs_openat(AT_FDCWD, a, flags[op - 7], 0644, 0, &f);
		if (!r) {
			r = (int)fs_write(f, text, 0);
			file_put(f);
		}
		return r;
	}
	default:
		return vfs_symlink(AT_FDCWD, a, text);
	}
}

struct tree {
	char *text;
	size_t len;
	struct fs_names l;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void describe(FILE *out, const char *dir)
{
	struct fs_names *l = calloc(1, sizeof(*l));
	struct file *f = fs_open(*dir ? dir : "/", O_RDONLY | O_DIRECTORY, 0, 0);
	char *names[64], path[128], buf[512];
	unsigned n = 0;

	l->c.fill = fs_fill;
	l->limit = UINT32_MAX;
	assert_int_equal(vfs_iterate(f, &l->c), 0);
	file_put(f);
	for (char *save, *p = strtok_r(l->buf, " ", &save); p; p = strtok_r(NULL, " ", &save))
		names[n++] = p;
	qsort(names, n, sizeof(*names), by_name);
	for (unsigned i = 0; i < n; i++) {
		const struct inode *inode;

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		inode = fs_stat(path, 0);
		fprintf(out, "%s %o", path, inode->mode);
		if (S_ISDIR(inode->mode)) {
			fprintf(out, "\n");
			describe(out, path);
			continue;
		}
		fprintf(out, " %u %llu", inode->nlink, (unsigned long long)inode->size);
		if (S_ISREG(inode->mode)) {
			memset(buf, 0, sizeof(buf));
			f = fs_open(path, O_RDONLY, 0, 0);
			assert_true(kernel_read(f, buf, sizeof(buf) - 1, 0) >= 0);
			file_put(f);
			fprintf(out, " %s", buf);
		}
		fprintf(out, "\n");
	}
	free(l);
}

static void random_main(void *arg)
{
	for (unsigned seed = 1; seed <= 60; seed++) {
		struct super_block *model, *lowers[1], *sb, *upper = new_tmpfs(0);
		struct fs_struct *fs[2];
		char a[64], b[64], text[16], *tree[2];
		size_t len;

		// The same files twice: the overlay's lower layer, and the model.
		for (int k = 0; k < 2; k++) {
			srandom(seed);
			sb = new_tmpfs(0);
			fs_enter(sb_get(sb));
			fill_random();
			fs_leave();
			if (k)
				model = sb;
			else
				lowers[0] = sb;
		}
		assert_int_equal(overlay_mount_layers(upper, lowers, 1, &sb), 0);
		sb_put(upper);
		sb_put(lowers[0]);
		fs_enter(sb);
		fs[0] = fs_task.fs;
		fd_table_put(fs_task.files);
		cred_put(fs_task.cred);
		fs_enter(model);
		fs[1] = fs_task.fs;
		for (int i = 0; i < OPS; i++) {
			unsigned op = rnd(11);
			int r[2];

			rnd_path(a, sizeof(a));
			rnd_path(b, sizeof(b));
			snprintf(text, sizeof(text), "t%d", i);
			for (int k = 0; k < 2; k++) {
				fs_task.fs = fs[k];
				r[k] = random_op(op, a, b, text);
			}
			if (r[0] != r[1])
				print_message("seed %u, step %d: op %u %s %s: overlay %d, model %d\n", seed, i, op, a, b, r[0], r[1]);
			assert_int_equal(r[0], r[1]);
			if (rnd(20) == 0)
				d_prune_children(fs[0]->root.dentry);
			arena_reset();
		}
		for (int k = 0; k < 2; k++) {
			FILE *out = open_memstream(&tree[k], &len);

			fs_task.fs = fs[k];
			describe(out, "");
			fclose(out);
		}
		if (strcmp(tree[0], tree[1]))
			print_message("seed %u\n--- overlay\n%s--- model\n%s", seed, tree[0], tree[1]);
		assert_string_equal(tree[0], tree[1]);
		free(tree[0]);
		free(tree[1]);
		fs_struct_put(fs[0]);
		fs_task.fs = fs[1];
		fs_leave();
	}
	sched_stop(0);
}

static void test_random(void **state)
{
	fs_run(random_main);
	assert_int_equal(fs_live(), 0);
}

// --- several tasks at once ----------------------------------------------------------------------

// A lower layer that waits in every lookup, read and listing, as a gofer's does.
static const struct inode_ops *fast_dir_ops;
static const struct file_ops *fast_dir_fops, *fast_reg_fops;
static struct inode_ops slow_dir_ops;
static struct file_ops slow_dir_fops, slow_reg_fops;

static void make_slow(struct inode *i);

static int slow_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	int r;

	sched_yield_cpu();
	r = fast_dir_ops->lookup(dir, name, ret);
	if (!r)
		make_slow(*ret);
	sched_yield_cpu();
	return r;
}

static int slow_iterate(struct file *f, struct dir_context *c)
{
	sched_yield_cpu();
	return fast_dir_fops->iterate(f, c);
}

static ssize_t slow_read(struct file *f, struct uio *u, int64_t *pos)
{
	ssize_t n;

	sched_yield_cpu();
	n = fast_reg_fops->read(f, u, pos);
	sched_yield_cpu();
	return n;
}

static void make_slow(struct inode *i)
{
	if (S_ISDIR(i->mode)) {
		if (!fast_dir_ops) {
			fast_dir_ops = i->ops;
			slow_dir_ops = *i->ops;
			slow_dir_ops.lookup = slow_lookup;
			fast_dir_fops = i->fops;
			slow_dir_fops = *i->fops;
			slow_dir_fops.iterate = slow_iterate;
		}
		i->ops = &slow_dir_ops;
		i->fops = &slow_dir_fops;
	} else if (S_ISREG(i->mode)) {
		if (!fast_reg_fops) {
			fast_reg_fops = i->fops;
			slow_reg_fops = *i->fops;
			slow_reg_fops.read = slow_read;
		}
		i->fops = &slow_reg_fops;
	}
}

enum { TASKS = 4, TASK_OPS = 150 };
static struct vfs_task workers[TASKS];
static unsigned working;

static void worker_main(void *arg)
{
	char a[64], b[64], text[16], buf[128];
	struct file *f;

	for (int i = 0; i < TASK_OPS; i++) {
		rnd_path(a, sizeof(a));
		rnd_path(b, sizeof(b));
		snprintf(text, sizeof(text), "t%d", i);
		(void)random_op(rnd(11), a, b, text);
		if (vfs_openat(AT_FDCWD, b, O_RDWR, 0, 0, &f) == 0) {
			(void)kernel_read(f, buf, sizeof(buf), 0);
			(void)fs_write(f, "w", 1);
			(void)kernel_read(f, buf, sizeof(buf), 0);
			file_put(f);
		}
		if (rnd(8) == 0 && vfs_openat(AT_FDCWD, a, O_RDONLY | O_DIRECTORY, 0, 0, &f) == 0) {
			struct fs_names l = {.c.fill = fs_fill, .limit = UINT32_MAX};

			assert_int_equal(vfs_iterate(f, &l.c), 0);
			file_put(f);
		}
		if (rnd(30) == 0)
			d_prune_children(fs_root.dentry);
		arena_reset();
	}
	working--;
	sched_exit(NULL, NULL);
}

static void tasks_main(void *arg)
{
	struct super_block *upper = new_tmpfs(0), *sb;
	char *tree[2];
	size_t len;

	fill_lower(fill_random);
	make_slow(lower_sb->root->inode);
	assert_int_equal(overlay_mount_layers(upper, &lower_sb, 1, &sb), 0);
	sb_put(upper);
	fs_enter(sb);
	for (int i = 0; i < TASKS; i++) {
		struct sched_task st = {0};

		workers[i] = fs_task;
		workers[i].st = st;
		assert_int_equal(sched_spawn(&workers[i].st, "worker", worker_main, NULL), 0);
		working++;
	}
	while (working)
		sched_yield_cpu();
	for (int k = 0; k < 2; k++) {
		FILE *out = open_memstream(&tree[k], &len);

		describe(out, "");
		fclose(out);
		drop_caches();
	}
	assert_string_equal(tree[0], tree[1]);
	free(tree[0]);
	free(tree[1]);
	leave_overlay();
	sched_stop(0);
}

static void test_tasks(void **state)
{
	for (uint64_t seed = 1; seed <= TASK_SEEDS; seed++) {
		struct sched_config cfg = {.virtual_clock = true, .seed = seed};

		srandom((unsigned)seed);
		assert_int_equal(sched_init(&cfg), 0);
		memset(&fs_task, 0, sizeof(fs_task));
		assert_int_equal(sched_spawn(&fs_task.st, "test", tasks_main, NULL), 0);
		assert_int_equal(sched_run(), 0);
		sched_fini();
		assert_int_equal(fs_live(), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_basic),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_rename),
		cmocka_unit_test(test_hard_links),
		cmocka_unit_test(test_quota),
		cmocka_unit_test(test_listing),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_guest),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_tasks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
