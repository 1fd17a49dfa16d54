// tmpfs and memfd: data and holes, limits, directories that change while they are read, attributes.
#include "tests/unit/vfs_env.h"

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>

#include "sentry/sched/sched.h"

static struct inode *inode_of(int fd)
{
	return fd_peek(fd)->inode;
}

static void fill(char *buf, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)(seed + i * 7 + (i >> 8));
}

// --- data against a plain array -------------------------------------------------------------------------

#define MODEL (600u << 10)

struct model {
	char *data;
	size_t size;
	int fd;
	uint32_t rng;
};

static uint32_t rnd(struct model *m, uint32_t below)
{
	m->rng = m->rng * 1664525 + 1013904223;
	return (m->rng >> 8) % below;
}

static void model_check(struct model *m)
{
	static char buf[MODEL];

	assert_int_equal(inode_of(m->fd)->size, m->size);
	assert_int_equal(t_pread(m->fd, buf, MODEL, 0), (ssize_t)m->size);
	assert_memory_equal(buf, m->data, m->size);
}

static void model_step(struct model *m)
{
	static char buf[MODEL];
	uint32_t off = rnd(m, MODEL), n = rnd(m, rnd(m, 3) ? 9000 : 150000) + 1;

	n = MIN(n, MODEL - off);
	switch (rnd(m, 6)) {
	case 0:
	case 1:
	case 2:
		fill(buf, n, m->rng);
		assert_int_equal(t_pwrite(m->fd, buf, n, off), n);
		memcpy(m->data + off, buf, n);
		m->size = MAX(m->size, (size_t)off + n);
		break;
	case 3:
		OK(vfs_ftruncate(fd_peek(m->fd), off));
		if (off < m->size)
			memset(m->data + off, 0, m->size - off);
		m->size = off;
		break;
	case 4:
		OK(vfs_fallocate(fd_peek(m->fd), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, n));
		memset(m->data + off, 0, n);
		break;
	case 5:
		OK(vfs_fallocate(fd_peek(m->fd), FALLOC_FL_ZERO_RANGE, off, n));
		memset(m->data + off, 0, n);
		m->size = MAX(m->size, (size_t)off + n);
		break;
	}
}

static void model_run(bool mapped, uint32_t seed)
{
	struct model m = {.data = kalloc(MODEL), .fd = t_open("m", O_RDWR | O_CREAT | O_TRUNC, 0600), .rng = seed};
	int fd;
	uint64_t off;

	if (mapped)
		OK(fd_peek(m.fd)->ops->map_fd(fd_peek(m.fd), 0, 4096, PROT_READ, true, &fd, &off));
	for (int i = 0; i < 150; i++) {
		model_step(&m);
		model_check(&m);
		if (!mapped && i == 120) // moves to a memfd with all its holes
			OK(fd_peek(m.fd)->ops->map_fd(fd_peek(m.fd), 0, 4096, PROT_READ, true, &fd, &off));
	}
	model_check(&m);
	fd_close(m.fd);
	kfree(m.data);
}

static void data_body(void)
{
	for (uint32_t seed = 1; seed <= 6; seed++)
		model_run(seed & 1, seed);
	assert_int_equal(tmpfs_used_bytes(env_task.fs->root.mnt->sb) > 0, 1);
	OK(vfs_unlink(AT_FDCWD, "m", false));
	assert_int_equal(tmpfs_used_bytes(env_task.fs->root.mnt->sb), 0);
}

static void test_data(void **state)
{
	env_run(data_body);
}

static void holes_body(void)
{
	int fd = t_open("h", O_RDWR | O_CREAT, 0600), host;
	struct file *f = fd_peek(fd);
	char buf[4096] = "x";
	uint64_t off;

	assert_int_equal(t_pwrite(fd, buf, 4096, 8192), 4096);
	OK(vfs_ftruncate(f, 100000));
	assert_int_equal(inode_of(fd)->blocks, 8);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(vfs_llseek(f, 0, SEEK_DATA), 8192);
		assert_int_equal(vfs_llseek(f, 0, SEEK_HOLE), 0);
		assert_int_equal(vfs_llseek(f, 8192, SEEK_HOLE), 12288);
		assert_int_equal(vfs_llseek(f, 9000, SEEK_DATA), 9000);
		ERR(vfs_llseek(f, 12288, SEEK_DATA), ENXIO);
		ERR(vfs_llseek(f, 100000, SEEK_HOLE), ENXIO);
		ERR(vfs_llseek(f, -1, SEEK_DATA), ENXIO);
		OK(f->ops->map_fd(f, 0, 4096, PROT_READ, true, &host, &off)); // the same again from a memfd
		assert_int_equal(inode_of(fd)->blocks, 8);
	}
	fd_close(fd);
	// A byte very far away costs a page, not an array.
	fd = t_open("far", O_RDWR | O_CREAT, 0600);
	assert_int_equal(t_pwrite(fd, "z", 1, 1LL << 42), 1);
	assert_int_equal(inode_of(fd)->size, (1ULL << 42) + 1);
	assert_int_equal(inode_of(fd)->blocks, 8);
	assert_int_equal(t_pread(fd, buf, 2, (1LL << 42) - 1), 2);
	assert_int_equal(buf[0], 0);
	assert_int_equal(buf[1], 'z');
	fd_close(fd);
	ERR(vfs_fallocate(fd_peek(t_open("h", O_RDWR, 0)), FALLOC_FL_COLLAPSE_RANGE, 0, 4096), EOPNOTSUPP);
}

static void test_holes(void **state)
{
	env_run(holes_body);
}

static int mount_small(const char *options, struct super_block **ret)
{
	struct path at;
	int err;

	OK(path_walk(AT_FDCWD, "mnt", 0, &at));
	err = vfs_new_mount(&at, "tmpfs", "small", 0, MNT_NOSUID, options);
	path_put(&at);
	if (!err) {
		OK(path_walk(AT_FDCWD, "mnt", 0, &at));
		*ret = at.mnt->sb;
		path_put(&at);
	}
	return err;
}

static void limits_body(void)
{
	static char buf[64 << 10];
	struct super_block *sb;
	struct statfs_info info;
	char opts[100];
	int fd;

	OK(vfs_mkdir(AT_FDCWD, "mnt", 0755));
	fs_register(&tmpfs_type);
	ERR(mount_small("size=abc", &sb), EINVAL);
	ERR(mount_small("bogus=1", &sb), EINVAL);
	ERR(mount_small("mode=99999", &sb), EINVAL);
	OK(mount_small("size=32k,nr_inodes=4,mode=750,uid=5,gid=6", &sb));
	assert_int_equal(t_inode("mnt")->mode, S_IFDIR | 0750);
	assert_int_equal(t_inode("mnt")->uid, 5);
	OK(sb->ops->show_options(sb, opts, sizeof(opts)));
	assert_string_equal(opts, ",size=32k,nr_inodes=4,mode=750,uid=5,gid=6");
	fd = t_open("mnt/a", O_RDWR | O_CREAT, 0600);
	assert_int_equal(t_write(fd, buf, 30000), 30000);
	assert_int_equal(t_write(fd, buf, 30000), 32768 - 30000); // what fits
	ERR(t_write(fd, buf, 1), ENOSPC);
	assert_int_equal(t_pwrite(fd, buf, 10, 100), 10);         // nothing new is needed
	ERR(vfs_fallocate(fd_peek(fd), 0, 40000, 4096), ENOSPC);
	OK(sb->ops->statfs(sb, &info));
	assert_int_equal(info.blocks, 8);
	assert_int_equal(info.bfree, 0);
	OK(vfs_fallocate(fd_peek(fd), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192));
	assert_int_equal(t_pwrite(fd, buf, 100, 40000), 100);
	OK(vfs_ftruncate(fd_peek(fd), 0));
	OK(sb->ops->statfs(sb, &info));
	assert_int_equal(info.bfree, 8);
	{ // a memfd obeys as well
		uint64_t off;
		int host;

		OK(fd_peek(fd)->ops->map_fd(fd_peek(fd), 0, 4096, PROT_READ, true, &host, &off));
		assert_int_equal(t_pwrite(fd, buf, 32768, 0), 32768);
		ERR(t_pwrite(fd, buf, 4096, 32768), ENOSPC);
		assert_int_equal(t_pwrite(fd, buf, 4096, 0), 4096);
	}
	OK(t_creat("mnt/b", NULL));
	OK(vfs_mkdir(AT_FDCWD, "mnt/c", 0755));
	ERR(t_creat("mnt/d", NULL), ENOSPC);
	OK(vfs_unlink(AT_FDCWD, "mnt/b", false));
	OK(t_creat("mnt/d", NULL));
	fd_close(fd);
}

static void test_limits(void **state)
{
	env_run(limits_body);
}

// --- directories ---------------------------------------------------------------------------------------

struct listing {
	struct dir_context c;
	unsigned n, room;
	char seen[4096];
};

static bool list_fill(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next)
{
	struct listing *l = c->arg;

	if (!l->room)
		return false;
	l->room--;
	l->n++;
	if (name[0] == 'f') {
		int i = atoi(name + 1);

		assert_true(i >= 0 && i < (int)sizeof(l->seen));
		assert_int_equal(l->seen[i], 0); // nothing comes twice
		l->seen[i] = 1;
	}
	return true;
}

static void dents_body(void)
{
	struct listing l = {.c.fill = list_fill};
	char name[20];
	int fd;

	l.c.arg = &l;
	OK(vfs_mkdir(AT_FDCWD, "d", 0755));
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "d/f%d", i);
		OK(t_creat(name, NULL));
	}
	assert_int_equal(t_inode("d")->size, 40 + 20 * 1000);
	fd = t_open("d", O_RDONLY | O_DIRECTORY, 0);
	// Ten at a time, while every other file is removed and more are added.
	for (int i = 0; i < 1000; i++) {
		unsigned before = l.n;

		l.room = 10;
		OK(vfs_iterate(fd_peek(fd), &l.c));
		if (l.n == before)
			break;
		snprintf(name, sizeof(name), "d/f%d", 2 * i + 1);
		vfs_unlink(AT_FDCWD, name, false);
		if (i < 50) {
			snprintf(name, sizeof(name), "d/f%d", 2000 + i);
			OK(t_creat(name, NULL));
		}
	}
	for (int i = 0; i < 1000; i += 2)
		assert_int_equal(l.seen[i], 1); // and what was there all along comes once
	for (int i = 0; i < 50; i++)
		assert_int_equal(l.seen[2000 + i], 1);
	assert_int_equal(vfs_llseek(fd_peek(fd), 0, SEEK_SET), 0);
	memset(l.seen, 0, sizeof(l.seen));
	l.n = 0;
	l.room = 5000;
	OK(vfs_iterate(fd_peek(fd), &l.c));
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "d/f%d", i);
		assert_int_equal(t_lookup(name, 0), l.seen[i] ? 0 : -ENOENT);
	}
	fd_close(fd);
}

static void test_dents(void **state)
{
	env_run(dents_body);
}

static uint64_t nsec_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void big_dir_body(void)
{
	enum { N = 100000 };
	char name[32];
	uint64_t t = nsec_now();

	OK(vfs_mkdir(AT_FDCWD, "big", 0755));
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "big/entry-%d", i);
		OK(t_creat(name, NULL));
	}
	print_message("%d files created: %llu ns each\n", N, (unsigned long long)((nsec_now() - t) / N));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "big/entry-%d", (i * 7919) % N);
		OK(t_lookup(name, 0));
	}
	print_message("looked up: %llu ns each\n", (unsigned long long)((nsec_now() - t) / N));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "big/entry-%d", i);
		OK(vfs_unlink(AT_FDCWD, name, false));
	}
	print_message("unlinked: %llu ns each\n", (unsigned long long)((nsec_now() - t) / N));
	OK(vfs_unlink(AT_FDCWD, "big", true));
}

static void test_big_dir(void **state)
{
	env_run(big_dir_body);
}

// A tree much deeper than any stack is taken down with its file system.
static void deep_body(void)
{
	struct path p;

	for (int i = 0; i < 3000; i++) {
		OK(vfs_mkdir(AT_FDCWD, "d", 0755));
		OK(t_creat("f", "x"));
		OK(path_walk(AT_FDCWD, "d", 0, &p));
		path_put(&env_task.fs->cwd);
		env_task.fs->cwd = p;
	}
	path_put(&env_task.fs->cwd);
	env_task.fs->cwd = env_task.fs->root;
	path_get(&env_task.fs->cwd);
}

static void test_deep(void **state)
{
	env_run(deep_body);
}

// --- attributes, seals ------------------------------------------------------------------------------------

static void xattr_body(void)
{
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255,
				      16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255};
	struct path p, l;
	struct iattr a;
	char buf[100];

	OK(t_creat("f", NULL));
	OK(vfs_symlink(AT_FDCWD, "l", "f"));
	OK(path_walk(AT_FDCWD, "f", 0, &p));
	OK(path_walk(AT_FDCWD, "l", 0, &l));
	ERR(vfs_getxattr(&p, "user.a", buf, 100), ENODATA);
	OK(vfs_setxattr(&p, "user.a", "value", 5, 0));
	ERR(vfs_setxattr(&p, "user.a", "value", 5, XATTR_CREATE), EEXIST);
	ERR(vfs_setxattr(&p, "user.b", "value", 5, XATTR_REPLACE), ENODATA);
	assert_int_equal(vfs_getxattr(&p, "user.a", NULL, 0), 5);
	ERR(vfs_getxattr(&p, "user.a", buf, 4), ERANGE);
	assert_int_equal(vfs_getxattr(&p, "user.a", buf, 100), 5);
	OK(vfs_setxattr(&p, "trusted.t", "", 0, 0));
	OK(vfs_setxattr(&p, "security.capability", "x", 1, 0));
	assert_int_equal(vfs_listxattr(&p, buf, 100), 7 + 10 + 20);
	ERR(vfs_listxattr(&p, buf, 10), ERANGE);
	ERR(vfs_setxattr(&l, "user.a", "v", 1, 0), EPERM);
	OK(vfs_setxattr(&l, "trusted.a", "v", 1, 0));
	ERR(vfs_setxattr(&p, "bogus.a", "v", 1, 0), EOPNOTSUPP);
	a = (struct iattr){.valid = ATTR_UID, .uid = 9};
	OK(vfs_setattr(&p, &a));
	ERR(vfs_getxattr(&p, "security.capability", buf, 100), ENODATA); // chown takes file capabilities away
	// An ACL that lets user 1000 read what the mode alone would not.
	OK(vfs_setxattr(&p, "system.posix_acl_access", acl, sizeof(acl), 0));
	assert_int_equal(p.dentry->inode->mode & 0777, 0640);
	env_as(1000, 1000);
	OK(path_permission(&p, env_task.cred, MAY_READ));
	ERR(path_permission(&p, env_task.cred, MAY_WRITE), EACCES);
	ERR(vfs_setxattr(&p, "trusted.x", "v", 1, 0), EPERM);
	ERR(vfs_getxattr(&p, "trusted.t", buf, 100), ENODATA);
	assert_int_equal(vfs_listxattr(&p, buf, 100), 7 + 24); // trusted.* is not shown
	env_as(1001, 1001);
	ERR(path_permission(&p, env_task.cred, MAY_READ), EACCES);
	env_as(0, 0);
	a = (struct iattr){.valid = ATTR_MODE, .mode = 0600}; // the mask follows the mode
	OK(vfs_setattr(&p, &a));
	env_as(1000, 1000);
	ERR(path_permission(&p, env_task.cred, MAY_READ), EACCES);
	env_as(0, 0);
	OK(vfs_setxattr(&p, "system.posix_acl_access", NULL, 0, XATTR_REPLACE));
	ERR(vfs_setxattr(&p, "system.posix_acl_access", acl, 7, 0), EINVAL);
	ERR(vfs_setxattr(&p, "system.posix_acl_default", acl, sizeof(acl), 0), EACCES);
	path_put(&p);
	path_put(&l);
}

static void test_xattr(void **state)
{
	env_run(xattr_body);
}

static void seals_body(void)
{
	struct file *f, *g;
	char *name;
	uint64_t off;
	int fd, max;

	OK(memfd_new("plain", 0, &f));
	assert_int_equal(tmpfs_get_seals(f), F_SEAL_SEAL);
	ERR(tmpfs_add_seals(f, F_SEAL_GROW), EPERM);
	file_put(f);
	OK(memfd_new("sealed", 2, &f));
	OK(path_name(&f->path, &env_task.fs->root, &name));
	assert_string_equal(name, "/memfd:sealed (deleted)");
	OK(vfs_ftruncate(f, 4096));
	OK(tmpfs_add_seals(f, F_SEAL_SHRINK | F_SEAL_GROW));
	ERR(vfs_ftruncate(f, 10), EPERM);
	ERR(vfs_ftruncate(f, 5000), EPERM);
	assert_int_equal(fd_install(f, 0), 0);
	assert_int_equal(t_pwrite(0, "abcd", 4, 4094), 2);
	ERR(t_pwrite(0, "abcd", 4, 4096), EPERM);
	OK(file_mmap_prot(f, PROT_READ | PROT_WRITE, MAP_SHARED, &max));
	f->inode->shared_maps++;
	ERR(tmpfs_add_seals(f, F_SEAL_WRITE), EBUSY);
	f->inode->shared_maps--;
	OK(tmpfs_add_seals(f, F_SEAL_WRITE | F_SEAL_SEAL));
	ERR(t_pwrite(0, "a", 1, 0), EPERM);
	ERR(tmpfs_add_seals(f, 0), EPERM);
	ERR(file_mmap_prot(f, PROT_READ | PROT_WRITE, MAP_SHARED, &max), EPERM);
	OK(file_mmap_prot(f, PROT_READ, MAP_SHARED, &max));
	assert_int_equal(max & PROT_WRITE, 0);
	OK(file_mmap_prot(f, PROT_READ | PROT_WRITE, MAP_PRIVATE, &max));
	ERR(f->ops->map_fd(f, 0, 4096, PROT_READ | PROT_WRITE, true, &fd, &off), EPERM);
	OK(f->ops->map_fd(f, 0, 4096, PROT_READ, true, &fd, &off));
	// Opened again through its path, as /proc/self/fd does.
	OK(vfs_open(&f->path, O_RDONLY, &g));
	ERR(tmpfs_add_seals(g, F_SEAL_GROW), EPERM);
	file_put(g);
	fd_close(0);
	OK(t_creat("file", NULL));
	fd = t_open("file", O_RDWR, 0);
	ERR(tmpfs_add_seals(fd_peek(fd), 0x8000), EINVAL);
	fd_close(fd);
}

static void test_seals(void **state)
{
	env_run(seals_body);
}

static void speed_body(void)
{
	static char buf[1 << 20];
	enum { N = 2000 };
	int fd = t_open("s", O_RDWR | O_CREAT, 0600);
	uint64_t t = nsec_now();

	for (int i = 0; i < N * 50; i++)
		t_pwrite(fd, buf, 4096, (i % 64) * 4096);
	print_message("write 4 KiB: %llu ns\n", (unsigned long long)((nsec_now() - t) / (N * 50)));
	t = nsec_now();
	for (int i = 0; i < N * 50; i++)
		t_pread(fd, buf, 4096, (i % 64) * 4096);
	print_message("read 4 KiB: %llu ns\n", (unsigned long long)((nsec_now() - t) / (N * 50)));
	t = nsec_now();
	for (int i = 0; i < N; i++) {
		vfs_ftruncate(fd_peek(fd), 0);
		t_pwrite(fd, buf, 1 << 20, 0);
	}
	print_message("truncate and write 1 MiB: %llu us\n", (unsigned long long)((nsec_now() - t) / N / 1000));
	fd_close(fd);
}

static void test_speed(void **state)
{
	env_run(speed_body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data),  cmocka_unit_test(test_holes),   cmocka_unit_test(test_limits), cmocka_unit_test(test_dents),
		cmocka_unit_test(test_big_dir), cmocka_unit_test(test_deep),  cmocka_unit_test(test_xattr),  cmocka_unit_test(test_seals),
		cmocka_unit_test(test_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
