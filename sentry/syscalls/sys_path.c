// Calls that change names and directories: mkdir(2), unlink(2), rename(2), link(2), symlink(2), mknod(2),
// chdir(2), chroot(2), getcwd(2), mount(2), umount2(2), pivot_root(2).
#include <linux/capability.h>
#include <linux/limits.h>
#include <sys/mount.h>

#include "sentry/syscalls/fsutil.h"

static int64_t do_mkdir(int dfd, struct gaddr path, uint32_t mode)
{
	char *name;
	int err = copy_in_path(&name, path);

	return err ? err : vfs_mkdir(dfd, name, mode);
}

SYSCALL(mkdir)
{
	return do_mkdir(AT_FDCWD, GADDR(a[0]), arg_uint(a[1]));
}

SYSCALL(mkdirat)
{
	return do_mkdir(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]));
}

static int64_t do_mknod(int dfd, struct gaddr path, uint32_t mode, uint32_t dev)
{
	char *name;
	int err = copy_in_path(&name, path);

	return err ? err : vfs_mknod(dfd, name, mode & 0177777, dev, NULL);
}

SYSCALL(mknod)
{
	return do_mknod(AT_FDCWD, GADDR(a[0]), arg_uint(a[1]), arg_uint(a[2]));
}

SYSCALL(mknodat)
{
	return do_mknod(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]), arg_uint(a[3]));
}

static int64_t do_unlink(int dfd, struct gaddr path, bool dir)
{
	char *name;
	int err = copy_in_path(&name, path);

	return err ? err : vfs_unlink(dfd, name, dir);
}

SYSCALL(unlink)
{
	return do_unlink(AT_FDCWD, GADDR(a[0]), false);
}

SYSCALL(rmdir)
{
	return do_unlink(AT_FDCWD, GADDR(a[0]), true);
}

SYSCALL(unlinkat)
{
	if (arg_uint(a[2]) & ~(unsigned)AT_REMOVEDIR)
		return -EINVAL;
	return do_unlink(arg_int(a[0]), GADDR(a[1]), arg_uint(a[2]) & AT_REMOVEDIR);
}

static int64_t do_rename(int odfd, struct gaddr opath, int ndfd, struct gaddr npath, unsigned flags)
{
	char *oname, *nname;
	int err = copy_in_path(&oname, opath);

	if (!err)
		err = copy_in_path(&nname, npath);
	return err ? err : vfs_rename(odfd, oname, ndfd, nname, flags);
}

SYSCALL(rename)
{
	return do_rename(AT_FDCWD, GADDR(a[0]), AT_FDCWD, GADDR(a[1]), 0);
}

SYSCALL(renameat)
{
	return do_rename(arg_int(a[0]), GADDR(a[1]), arg_int(a[2]), GADDR(a[3]), 0);
}

SYSCALL(renameat2)
{
	return do_rename(arg_int(a[0]), GADDR(a[1]), arg_int(a[2]), GADDR(a[3]), arg_uint(a[4]));
}

static int64_t do_link(int odfd, struct gaddr opath, int ndfd, struct gaddr npath, unsigned flags)
{
	struct path old;
	char *nname;
	int err;

	if (flags & ~(unsigned)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	if (flags & AT_EMPTY_PATH && !capable(CAP_DAC_READ_SEARCH))
		return -ENOENT;
	err = fs_user_path(odfd, opath, flags, flags & AT_SYMLINK_FOLLOW, &old);
	if (err)
		return err;
	err = copy_in_path(&nname, npath);
	if (!err)
		err = vfs_link(&old, ndfd, nname);
	path_put(&old);
	return err;
}

SYSCALL(link)
{
	return do_link(AT_FDCWD, GADDR(a[0]), AT_FDCWD, GADDR(a[1]), 0);
}

SYSCALL(linkat)
{
	return do_link(arg_int(a[0]), GADDR(a[1]), arg_int(a[2]), GADDR(a[3]), arg_uint(a[4]));
}

static int64_t do_symlink(struct gaddr target, int dfd, struct gaddr path)
{
	char *text, *name;
	int err = copy_in_path(&text, target);

	if (err)
		return err;
	if (!*text)
		return -ENOENT;
	err = copy_in_path(&name, path);
	return err ? err : vfs_symlink(dfd, name, text);
}

SYSCALL(symlink)
{
	return do_symlink(GADDR(a[0]), AT_FDCWD, GADDR(a[1]));
}

SYSCALL(symlinkat)
{
	return do_symlink(GADDR(a[0]), arg_int(a[1]), GADDR(a[2]));
}

// --- where a task is ----------------------------------------------------------------------------------

SYSCALL(getcwd)
{
	const struct fs_struct *fs = t->vt.fs;
	const struct dentry *d = fs->cwd.dentry;
	char *name;
	size_t len;
	int err;

	if (d->parent != d && !d->hashed)
		return -ENOENT;
	err = path_name(&fs->cwd, &fs->root, &name);
	if (err)
		return err;
	len = strlen(name) + 1;
	if (len > a[1])
		return -ERANGE;
	return copy_out(GADDR(a[0]), name, len) ? -EFAULT : (int64_t)len;
}

static void set_path(struct path *to, const struct path *from)
{
	struct path old = *to;

	*to = *from;
	path_put(&old);
}

SYSCALL(chdir)
{
	struct path p;
	char *name;
	int err = copy_in_path(&name, GADDR(a[0]));

	if (!err)
		err = path_walk(AT_FDCWD, name, WALK_FOLLOW | WALK_DIRECTORY, &p);
	if (err)
		return err;
	err = path_permission(&p, t->vt.cred, MAY_EXEC);
	if (err)
		path_put(&p);
	else
		set_path(&t->vt.fs->cwd, &p);
	return err;
}

SYSCALL(fchdir)
{
	struct file *f = fd_get_path_ok(arg_int(a[0]));
	struct path p;
	int err;

	if (!f)
		return -EBADF;
	p = f->path;
	err = S_ISDIR(f->inode->mode) ? path_permission(&p, t->vt.cred, MAY_EXEC) : -ENOTDIR;
	if (!err) {
		path_get(&p);
		set_path(&t->vt.fs->cwd, &p);
	}
	file_put(f);
	return err;
}

SYSCALL(chroot)
{
	struct path p;
	char *name;
	int err = copy_in_path(&name, GADDR(a[0]));

	if (!err)
		err = path_walk(AT_FDCWD, name, WALK_FOLLOW | WALK_DIRECTORY, &p);
	if (err)
		return err;
	err = path_permission(&p, t->vt.cred, MAY_EXEC);
	if (!err && !task_capable(t, CAP_SYS_CHROOT))
		err = -EPERM;
	if (err)
		path_put(&p);
	else
		set_path(&t->vt.fs->root, &p);
	return err;
}

// --- mounts ---------------------------------------------------------------------------------------------

static int bind(struct gaddr from, const struct path *at, uint64_t flags, bool move)
{
	struct path p;
	int err;

	if (gaddr_null(from))
		return -EINVAL;
	err = fs_user_path(AT_FDCWD, from, 0, true, &p);
	if (err)
		return err;
	err = move ? vfs_move_mount(&p, at) : vfs_bind_mount(&p, at, flags & MS_REC);
	path_put(&p);
	return err;
}

// mount(2)'s data page: text of at most a page, for all the types that a guest may mount.
static int copy_in_data(char **ret, struct gaddr data)
{
	int err;

	*ret = NULL;
	if (gaddr_null(data))
		return 0;
	err = copy_in_str(ret, data, PAGE_SIZE, NULL);
	return err == -ENAMETOOLONG ? -EINVAL : err;
}

static int new_mount(const struct path *at, struct gaddr type, struct gaddr source, uint64_t flags, struct gaddr data)
{
	char *type_name, *source_name = NULL, *options;
	int err;

	if (gaddr_null(type))
		return -EINVAL;
	err = copy_in_str(&type_name, type, PAGE_SIZE, NULL);
	if (err)
		return err == -ENAMETOOLONG ? -EINVAL : err;
	if (!gaddr_null(source)) {
		err = copy_in_str(&source_name, source, PAGE_SIZE, NULL);
		if (err)
			return err == -ENAMETOOLONG ? -EINVAL : err;
	}
	err = copy_in_data(&options, data);
	return err ? err : vfs_new_mount(at, type_name, source_name, flags, mnt_flags_from_ms(flags), options);
}

#define MS_PROPAGATION (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE)

SYSCALL(mount)
{
	uint64_t flags = a[3];
	struct path at;
	char *options;
	int err;

	if ((flags & MS_MGC_MSK) == MS_MGC_VAL)
		flags &= ~(uint64_t)MS_MGC_MSK;
	err = fs_user_path(AT_FDCWD, GADDR(a[1]), 0, true, &at);
	if (err)
		return err;
	if (!task_capable(t, CAP_SYS_ADMIN)) {
		err = -EPERM;
	} else if ((flags & (MS_REMOUNT | MS_BIND)) == (MS_REMOUNT | MS_BIND)) {
		err = vfs_remount_bind(&at, mnt_flags_from_ms(flags));
	} else if (flags & MS_REMOUNT) {
		err = copy_in_data(&options, GADDR(a[4]));
		if (!err)
			err = vfs_remount(&at, flags, options);
	} else if (flags & MS_BIND) {
		err = bind(GADDR(a[0]), &at, flags, false);
	} else if (flags & MS_PROPAGATION) {
		err = vfs_set_propagation(&at, flags & (MS_PROPAGATION | MS_REC | MS_SILENT));
	} else if (flags & MS_MOVE) {
		err = bind(GADDR(a[0]), &at, flags, true);
	} else {
		err = new_mount(&at, GADDR(a[2]), GADDR(a[0]), flags, GADDR(a[4]));
	}
	path_put(&at);
	return err;
}

SYSCALL(umount2)
{
	unsigned flags = arg_uint(a[1]);
	struct path p;
	int err;

	if (flags & ~(unsigned)(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW))
		return -EINVAL;
	err = fs_user_path(AT_FDCWD, GADDR(a[0]), 0, !(flags & UMOUNT_NOFOLLOW), &p);
	if (err)
		return err;
	err = task_capable(t, CAP_SYS_ADMIN) ? vfs_umount(&p, (int)flags) : -EPERM;
	path_put(&p);
	return err;
}

struct each_fs {
	void (*fn)(struct fs_struct *fs, void *arg);
	void *arg;
};

static void process_fs(struct thread_group *tg, void *arg)
{
	const struct each_fs *e = arg;
	struct task *other;

	TAILQ_FOREACH(other, &tg->threads, tg_link)
		if (other->vt.fs)
			e->fn(other->vt.fs, e->arg);
}

static void each_fs(void (*fn)(struct fs_struct *fs, void *arg), void *arg)
{
	struct each_fs e = {fn, arg};

	kernel_each_process(process_fs, &e);
}

SYSCALL(pivot_root)
{
	struct path new_root, put_old;
	int err;

	if (!task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	err = fs_user_path(AT_FDCWD, GADDR(a[0]), 0, true, &new_root);
	if (err)
		return err;
	err = fs_user_path(AT_FDCWD, GADDR(a[1]), 0, true, &put_old);
	if (!err) {
		vfs_for_each_fs = each_fs; // whoever stands in the old root moves to the new one
		err = vfs_pivot_root(&new_root, &put_old);
		path_put(&put_old);
	}
	path_put(&new_root);
	return err;
}
