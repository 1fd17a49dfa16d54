// For tests of file systems: runs a function as a task with a root, and checks that nothing is left.
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

static struct vfs_task fs_task;
static struct path fs_root;
static struct mnt_ns *fs_ns;

static inline void fs_report(const char *name, uint32_t live, void *arg)
{
	if (strcmp(name, "kalloc") == 0)
		live--; // the dentry cache's table stays
	if (live) {
		print_message("%u of %s are left\n", live, name);
		*(uint32_t *)arg += live;
	}
}

static inline uint32_t fs_live(void)
{
	uint32_t n = 0;

	slab_report(fs_report, &n);
	return n;
}

// The task's name space: sb becomes its root. Takes over sb.
static inline void fs_enter(struct super_block *sb)
{
	assert_int_equal(mnt_ns_new(sb, 0, &fs_ns, &fs_root), 0);
	sb_put(sb);
	fs_task.fs = fs_struct_new();
	fs_task.fs->root = fs_root;
	fs_task.fs->cwd = fs_root;
	path_get(&fs_root);
	fs_task.fs->umask = 022;
	fs_task.fs->mnt_ns = fs_ns;
	fs_task.cred = cred_new();
	fs_task.files = fd_table_new();
	fs_task.fsize_limit = UINT64_MAX;
	fs_task.nofile_limit = 1024;
}

static inline void fs_leave(void)
{
	fd_table_put(fs_task.files);
	fs_struct_put(fs_task.fs);
	cred_put(fs_task.cred);
}

static inline void fs_run(void (*body)(void *))
{
	struct sched_config cfg = {.host_threads = 2};

	assert_int_equal(sched_init(&cfg), 0);
	memset(&fs_task, 0, sizeof(fs_task));
	assert_int_equal(sched_spawn(&fs_task.st, "test", body, NULL), 0);
	assert_int_equal(sched_run(), 0);
	sched_fini();
}

static inline struct file *fs_open(const char *name, unsigned flags, uint32_t mode, int want)
{
	struct file *f = NULL;

	assert_int_equal(vfs_openat(AT_FDCWD, name, flags, mode, 0, &f), want);
	return f;
}

// A copy of the inode: one of the last few.
static inline const struct inode *fs_stat(const char *name, int want)
{
	static struct inode copies[4];
	static unsigned n;
	struct path p;

	assert_int_equal(path_walk(AT_FDCWD, name, 0, &p), want);
	if (want)
		return NULL;
	assert_int_equal(vfs_getattr(&p), 0);
	n = (n + 1) % ARRAY_SIZE(copies);
	copies[n] = *p.dentry->inode;
	path_put(&p);
	return &copies[n];
}

static inline void fs_check_file(const char *name, const char *want)
{
	struct file *f = fs_open(name, O_RDONLY | O_CLOEXEC, 0, 0);
	char buf[256] = {0};

	assert_int_equal(kernel_read(f, buf, sizeof(buf), 0), strlen(want));
	assert_string_equal(buf, want);
	file_put(f);
}

static inline ssize_t fs_write(struct file *f, const char *text, int64_t pos)
{
	struct uio u = uio_kernel((void *)text, strlen(text));

	return vfs_write(f, &u, &pos);
}

static inline void fs_put_file(const char *name, const char *text)
{
	struct file *f = fs_open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644, 0);

	assert_int_equal(fs_write(f, text, 0), strlen(text));
	file_put(f);
}

// The names of a directory, sorted by arrival, separated by spaces, without the dots.
struct fs_names {
	struct dir_context c;
	char buf[4096];
	unsigned n, limit;
};
static inline bool fs_fill(struct dir_context *c, const char *name, size_t len, uint64_t ino, unsigned dtype, int64_t next)
{
	struct fs_names *l = (struct fs_names *)c;

	if (l->n == l->limit)
		return false;
	l->n++;
	if ((len == 1 && name[0] == '.') || (len == 2 && !memcmp(name, "..", 2)))
		return true;
	assert_true(ino != 0);
	if (strlen(l->buf) + len + 2 < sizeof(l->buf)) {
		strncat(l->buf, name, len);
		strcat(l->buf, " ");
	}
	return true;
}
static inline bool fs_lists(const char *dir, const char *name)
{
	struct fs_names l = {.c.fill = fs_fill, .limit = UINT32_MAX};
	struct file *f = fs_open(dir, O_RDONLY | O_DIRECTORY, 0, 0);
	char want[300];

	strcpy(l.buf, " ");
	assert_int_equal(vfs_iterate(f, &l.c), 0);
	file_put(f);
	snprintf(want, sizeof(want), " %s ", name);
	return strstr(l.buf, want) != NULL;
}
