// /proc/PID/fd and /proc/PID/fdinfo.
#include "sentry/fs/proc/internal.h"

#include <fcntl.h>

#include "sentry/vfs/mount.h"

static struct file *file_at(const struct pnode *n)
{
	struct task *t = pnode_task(n);

	return t && t->vt.files ? fd_table_peek(t->vt.files, n->fd) : NULL;
}

static int follow_fd(struct pnode *n, struct path *ret)
{
	struct file *f = file_at(n);

	if (!f)
		return -ENOENT;
	*ret = f->path;
	path_get(ret);
	return 0;
}

static int show_fdinfo(struct pbuf *b, struct pnode *n)
{
	struct file *f = file_at(n);
	char *p;

	if (!f)
		return -ENOENT;
	file_get(f);
	pprintf(b, "pos:\t%lli\nflags:\t0%o\nmnt_id:\t%i\nino:\t%llu\n", (long long)(f->ops && f->ops->flags & FOP_STREAM ? 0 : f->pos), f->flags,
		f->path.mnt ? f->path.mnt->id : 15, (unsigned long long)f->inode->ino);
	if (f->ops && f->ops->show_fdinfo) {
		p = proom(b, 65536);
		if (p) {
			p[0] = 0;
			f->ops->show_fdinfo(f, p, 65536);
			b->len += strnlen(p, 65536);
		}
	}
	file_put(f);
	return 0;
}

static const struct pent link_ents[4] = {
	{.name = "fd", .mode = S_IFLNK | 0100, .follow = follow_fd},
	{.name = "fd", .mode = S_IFLNK | 0500, .follow = follow_fd},
	{.name = "fd", .mode = S_IFLNK | 0300, .follow = follow_fd},
	{.name = "fd", .mode = S_IFLNK | 0700, .follow = follow_fd},
};
static const struct pent info_ent = {.name = "fdinfo", .mode = S_IFREG | 0444, .show = show_fdinfo, .inspect = true};

int fd_lookup(struct pnode *dir, const char *name, struct inode **ret)
{
	struct task *t = pnode_task(dir);
	struct file *f;
	int32_t fd;

	if (!t || !t->vt.files || !parse_number(name, &fd))
		return -ENOENT;
	if (!pnode_may_inspect(dir))
		return -EACCES;
	f = fd_table_peek(t->vt.files, fd);
	if (!f)
		return -ENOENT;
	return pnode_new(dir->inode.sb, dir->ent->arg ? &info_ent : &link_ents[f->mode & 3], dir->pid, dir->thread, fd, ret);
}

int64_t fd_next(struct pnode *dir, int64_t key, char name[32], unsigned *ret_dtype)
{
	struct task *t = pnode_task(dir);
	int fd;

	if (!t || !t->vt.files || !pnode_may_inspect(dir))
		return -1;
	fd = fd_table_next(t->vt.files, (int)key + 1);
	if (fd < 0)
		return -1;
	snprintf(name, 32, "%d", fd);
	*ret_dtype = dir->ent->arg ? 8 : 10;
	return fd;
}
