// The container's file system tree: its root, and the mounts of config.json in their order.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "sentry/boot/internal.h"
#include "sentry/fs/dev/dev.h"
#include "sentry/fs/gofer/gofer.h"
#include "sentry/uaccess/uaccess.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/vfs.h"

static int gofer_sb(struct gofer_conn *conn, uint32_t tree, bool exclusive, bool read_only, struct super_block **ret)
{
	struct gofer_mount gm = {.conn = conn, .tree = tree, .exclusive = exclusive, .read_only = read_only};

	return gofer_fs_type.mount(&gofer_fs_type, &(struct mount_opts){.source = "none", .internal = &gm}, ret);
}

// Makes the directories of an absolute path, as far as they are missing, and the last component as
// a directory or an empty file.
static int make_mountpoint(const char *path, bool file)
{
	char *p = arena_strdup(path), *q;
	struct path at;
	int r;

	if (!p)
		return -ENOMEM;
	for (q = p + 1;; q++) {
		if (*q != '/' && *q)
			continue;
		bool last = !*q || !q[strspn(q, "/")];

		*q = 0;
		r = path_walk(AT_FDCWD, p, WALK_FOLLOW, &at);
		if (r == 0)
			path_put(&at);
		else if (r == -ENOENT)
			r = last && file ? vfs_mknod(AT_FDCWD, p, S_IFREG | 0644, 0, NULL) : vfs_mkdir(AT_FDCWD, p, 0755);
		if (r < 0 || last)
			return r;
		*q = '/';
	}
}

static int mount_at(struct fs_struct *fs, const char *dest, struct super_block *sb, unsigned flags)
{
	struct path at;
	int r = path_walk(AT_FDCWD, dest, WALK_FOLLOW, &at);

	if (r < 0)
		return r;
	r = vfs_mount(fs->mnt_ns, &at, sb, NULL, flags);
	path_put(&at);
	return r;
}

static bool under_dev(const char *dest)
{
	return strcmp(dest, "/dev") == 0 || strcmp(dest, "/dev/") == 0;
}

static int populate_dev(bool console)
{
	struct path p;
	int r = path_walk(AT_FDCWD, "/dev", WALK_FOLLOW | WALK_DIRECTORY, &p);

	if (r < 0)
		return r;
	r = dev_populate(p.dentry, console);
	path_put(&p);
	return r;
}

// File systems without which a container does very well.
static bool optional_type(const char *type)
{
	return strcmp(type, "cgroup") == 0 || strcmp(type, "cgroup2") == 0 || strcmp(type, "mqueue") == 0;
}

static int one_mount(const struct boot_doc *d, unsigned i, struct gofer_conn *conn, struct fs_struct *fs)
{
	const struct spec_mount *m = &d->spec->mounts[i];
	unsigned flags = mnt_flags_from_ms(m->ms_flags);
	struct super_block *sb;
	int r;

	r = make_mountpoint(m->dest, m->bind && d->mount_is_file[i]);
	if (r < 0) {
		control_fail(128, "mounts[%u].destination: %s: %s", i, m->dest, strerror(-r));
		return 128;
	}
	if (m->bind) {
		r = gofer_sb(conn, d->mount_tree[i], false, m->ms_flags & MS_RDONLY, &sb);
	} else {
		const struct fs_type *type = fs_find(m->type);

		if (!type && optional_type(m->type)) {
			log_warn("mounts[%u]: %s is not supported: %s stays empty", i, m->type, m->dest);
			return 0;
		}
		if (!type) {
			control_fail(128, "mounts[%u].type: %s is not supported", i, m->type);
			return 128;
		}
		r = type->mount(type, &(struct mount_opts){.source = m->source, .data = m->data, .ms_flags = m->ms_flags}, &sb);
	}
	if (r == 0) {
		r = mount_at(fs, m->dest, sb, flags);
		sb_put(sb);
	}
	if (r == 0 && !m->bind && strcmp(m->type, "tmpfs") == 0 && under_dev(m->dest))
		r = populate_dev(d->spec->terminal);
	if (r < 0) {
		control_fail(128, "mounts[%u]: %s: %s", i, m->dest, strerror(-r));
		return 128;
	}
	arena_reset();
	return 0;
}

// A bind mount of path onto itself, read-only.
static int make_readonly(const char *path)
{
	struct path p;
	int r = path_walk(AT_FDCWD, path, WALK_FOLLOW, &p);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = vfs_bind_mount(&p, &p, true);
	path_put(&p);
	if (r == 0)
		r = path_walk(AT_FDCWD, path, WALK_FOLLOW, &p);
	if (r == 0) {
		r = vfs_remount_bind(&p, p.mnt->flags | MNT_RDONLY);
		path_put(&p);
	}
	return r;
}

// What is not to be seen: a file becomes /dev/null, a directory an empty one.
static int mask(struct fs_struct *fs, const char *path)
{
	const struct fs_type *tmpfs = fs_find("tmpfs");
	struct super_block *sb;
	struct path p, null;
	int r = path_walk(AT_FDCWD, path, WALK_FOLLOW, &p);

	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	if (S_ISDIR(p.dentry->inode->mode)) {
		r = tmpfs ? tmpfs->mount(tmpfs, &(struct mount_opts){.source = "tmpfs", .data = "size=0,mode=755"}, &sb) : -ENODEV;
		if (r == 0) {
			r = vfs_mount(fs->mnt_ns, &p, sb, NULL, MNT_RDONLY);
			sb_put(sb);
		}
	} else {
		r = path_walk(AT_FDCWD, "/dev/null", WALK_FOLLOW, &null);
		if (r == 0) {
			r = vfs_bind_mount(&null, &p, false);
			path_put(&null);
		}
	}
	path_put(&p);
	return r;
}

static int hide_paths(const struct spec *s, struct fs_struct *fs)
{
	for (unsigned i = 0; i < s->readonly.n; i++) {
		int r = make_readonly(s->readonly.v[i]);

		if (r < 0) {
			control_fail(128, "linux.readonlyPaths[%u]: %s: %s", i, s->readonly.v[i], strerror(-r));
			return 128;
		}
	}
	for (unsigned i = 0; i < s->masked.n; i++) {
		int r = mask(fs, s->masked.v[i]);

		if (r < 0) {
			control_fail(128, "linux.maskedPaths[%u]: %s: %s", i, s->masked.v[i], strerror(-r));
			return 128;
		}
	}
	return 0;
}

// linux.sysctl: through /proc/sys, as the guest would. What is not there is told in the log.
static void set_sysctls(const struct spec *s)
{
	for (unsigned i = 0; i < s->nsysctls; i++) {
		const char *value = s->sysctls[i].value;
		size_t len = strlen(value);
		char path[256];
		struct file *f;
		int64_t pos = 0;
		ssize_t r = -ENAMETOOLONG;

		if (snprintf(path, sizeof(path), "/proc/sys/%s", s->sysctls[i].name) < (int)sizeof(path)) {
			for (char *p = path + strlen("/proc/sys/"); *p; p++)
				*p = *p == '.' ? '/' : *p;
			r = vfs_openat(AT_FDCWD, path, O_WRONLY, 0, 0, &f);
		}
		if (r == 0) {
			struct uio u = uio_kernel((void *)value, len);

			r = vfs_write(f, &u, &pos);
			file_put(f);
		}
		if (r < 0)
			log_warn("linux.sysctl.%s: %s", s->sysctls[i].name, strerror((int)-r));
	}
}

static int mount_root(const struct boot_doc *d, struct gofer_conn *conn, struct fs_struct *fs)
{
	struct super_block *lower, *sb = NULL;
	int r = gofer_sb(conn, 0, true, d->root_readonly, &lower);

	if (r == 0 && d->overlay) {
		r = boot_overlay(lower, d->overlay_size, &sb);
		sb_put(lower);
	} else if (r == 0) {
		sb = lower;
	}
	if (r == 0) {
		r = mnt_ns_new(sb, MNT_RELATIME, &fs->mnt_ns, &fs->root);
		sb_put(sb);
	}
	if (r < 0) {
		control_fail(128, "root.path: %s", strerror(-r));
		return 128;
	}
	path_get(&fs->root);
	fs->cwd = fs->root;
	return 0;
}

int boot_mounts(const struct boot_doc *d, struct gofer_conn *conn, struct fs_struct *fs)
{
	const struct spec *s = d->spec;
	int r = mount_root(d, conn, fs);

	for (unsigned i = 0; i < s->nmounts && !r; i++)
		r = one_mount(d, i, conn, fs);
	if (!r)
		set_sysctls(s);
	if (!r)
		r = hide_paths(s, fs);
	if (!r && s->root_readonly) {
		r = vfs_remount_bind(&fs->root, MNT_RELATIME | MNT_RDONLY);
		if (r < 0)
			control_fail(128, "root.readonly: %s", strerror(-r));
		r = r < 0 ? 128 : 0;
	}
	arena_reset();
	return r;
}
