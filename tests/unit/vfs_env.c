#include "tests/unit/vfs_env.h"

#include "sentry/sched/sched.h"

struct vfs_task env_task;
int env_sigxfsz;
static void (*env_body)(void);

static void on_sigxfsz(void)
{
	env_sigxfsz++;
}

static void task_setup(struct vfs_task *t, struct fs_struct *fs, struct fd_table *files, const struct cred *cred)
{
	*t = (struct vfs_task){.fs = fs, .files = files, .cred = cred, .fsize_limit = UINT64_MAX, .nofile_limit = 1024,
			       .fsize_exceeded = on_sigxfsz};
}

static void main_task(void *arg)
{
	struct tmpfs_limits lim = {.mode = 0755};
	struct super_block *sb;
	struct fs_struct *fs = env_task.fs;

	OK(tmpfs_new_sb(&lim, &sb));
	OK(mnt_ns_new(sb, MNT_RELATIME, &fs->mnt_ns, &fs->root));
	sb_put(sb);
	fs->cwd = fs->root;
	path_get(&fs->cwd);
	env_body();
	fd_table_put(env_task.files);
	fs_struct_put(fs);
	cred_put(env_task.cred);
	sched_stop(0);
}

static void report_live(const char *name, uint32_t live, void *arg)
{
	// The memfd super block and the dentry table stay.
	if (strcmp(name, "kalloc") == 0 || strcmp(name, "struct tmpfs") == 0)
		return;
	if ((strcmp(name, "struct tinode") == 0 || strcmp(name, "struct dentry") == 0) && live <= 1)
		return;
	print_error("alive: %u %s\n", live, name);
	*(uint32_t *)arg += live;
}

void env_run(void (*body)(void))
{
	struct sched_config cfg = {.virtual_clock = true};
	uint32_t live = 0;

	OK(sched_init(&cfg));
	env_body = body;
	task_setup(&env_task, fs_struct_new(), fd_table_new(), cred_new());
	OK(sched_spawn(&env_task.st, "test", main_task, NULL));
	sched_run();
	sched_fini();
	slab_report(report_live, &live);
	assert_int_equal(live, 0);
}

void env_as(uint32_t uid, uint32_t gid)
{
	struct cred *c = cred_new();

	c->uid = c->euid = c->suid = c->fsuid = uid;
	c->gid = c->egid = c->sgid = c->fsgid = gid;
	if (uid)
		c->cap_effective = c->cap_permitted = 0;
	cred_put(env_task.cred);
	env_task.cred = c;
}

void env_spawn(struct vfs_task *t, void (*fn)(void *), void *arg)
{
	task_setup(t, env_task.fs, env_task.files, env_task.cred);
	OK(sched_spawn(&t->st, "other", fn, arg));
}

int t_open(const char *name, unsigned flags, uint32_t mode)
{
	struct file *f;
	int err = vfs_openat(AT_FDCWD, name, flags, mode, 0, &f), fd;

	if (err)
		return err;
	fd = fd_install(f, flags & O_CLOEXEC);
	if (fd < 0)
		file_put(f);
	return fd;
}

ssize_t t_pwrite(int fd, const void *buf, size_t n, int64_t off)
{
	struct uio u = uio_kernel((void *)buf, n);

	return vfs_write(fd_peek(fd), &u, &off);
}

ssize_t t_write(int fd, const void *buf, size_t n)
{
	struct uio u = uio_kernel((void *)buf, n);
	struct file *f = fd_peek(fd);

	return vfs_write(f, &u, &f->pos);
}

ssize_t t_pread(int fd, void *buf, size_t n, int64_t off)
{
	struct uio u = uio_kernel(buf, n);

	return vfs_read(fd_peek(fd), &u, &off);
}

ssize_t t_read(int fd, void *buf, size_t n)
{
	struct uio u = uio_kernel(buf, n);
	struct file *f = fd_peek(fd);

	return vfs_read(f, &u, &f->pos);
}

int t_creat(const char *name, const char *data)
{
	int fd = t_open(name, O_CREAT | O_WRONLY | O_TRUNC, 0644);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = data ? t_write(fd, data, strlen(data)) : 0;
	fd_close(fd);
	return n < 0 ? (int)n : 0;
}

int t_lookup(const char *name, unsigned walk_flags)
{
	struct path p;
	int err = path_walk(AT_FDCWD, name, walk_flags, &p);

	if (!err)
		path_put(&p);
	return err;
}

struct inode *t_inode(const char *name)
{
	struct path p;
	struct inode *inode;

	if (path_walk(AT_FDCWD, name, 0, &p))
		return NULL;
	inode = p.dentry->inode;
	path_put(&p);
	return inode;
}

const char *t_name(const char *name)
{
	struct path p;
	char *s = NULL;

	if (path_walk(AT_FDCWD, name, 0, &p))
		return "(none)";
	OK(path_name(&p, &env_task.fs->root, &s));
	path_put(&p);
	return s;
}
