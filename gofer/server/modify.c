// Requests that change the tree. The dispatcher has refused those for read-only trees.
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "gofer/server/server.h"
#include "platform/base/base.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

static int dir_of(uint64_t id, struct gnode **ret, int *ret_fd)
{
	struct gnode *n = node_find(id);

	if (!n)
		return -ESTALE;
	*ret = n;
	return node_dir_fd(n, ret_fd);
}

// The reply of a creating request: attributes and a node.
static ssize_t reply_new(struct gnode *dir, int dirfd, const char *name)
{
	struct gp_node *out = (struct gp_node *)TX_BODY;
	struct gnode *n;
	int r = attr_at(dirfd, name, &out->attr);

	if (!r)
		r = node_new(dir, name, &out->attr, -1, &n);
	if (r)
		return r;
	out->id = node_id(n);
	return sizeof(*out);
}

ssize_t do_create(const struct rx *r, int *ret_fd)
{
	struct gnode *dir;
	int dirfd, fd, e = dir_of(r->q->node, &dir, &dirfd);
	ssize_t n;

	if (e)
		return e;
	fd = openat(dirfd, r->name1, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		    r->q->mode & 0777);
	if (fd < 0)
		return -errno;
	// The mode after the owner: a change of owner takes the set-id bits away.
	if (fchown(fd, r->q->uid, r->q->gid) || fchmod(fd, r->q->mode & 07777)) {
		e = -errno;
		goto undo;
	}
	n = reply_new(dir, dirfd, r->name1);
	if (n < 0) {
		e = (int)n;
		goto undo;
	}
	*ret_fd = fd;
	return n;
undo:
	close(fd);
	unlinkat(dirfd, r->name1, 0);
	return e;
}

ssize_t do_mkdir(const struct rx *r, int *ret_fd)
{
	struct gnode *dir;
	int dirfd, fd, e = dir_of(r->q->node, &dir, &dirfd);
	ssize_t n;

	if (e)
		return e;
	if (mkdirat(dirfd, r->name1, 0700))
		return -errno;
	fd = openat(dirfd, r->name1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fchown(fd, r->q->uid, r->q->gid) || fchmod(fd, r->q->mode & 07777))
		e = -errno;
	if (fd >= 0)
		close(fd);
	n = e ? e : reply_new(dir, dirfd, r->name1);
	if (n < 0)
		unlinkat(dirfd, r->name1, AT_REMOVEDIR);
	return n;
}

ssize_t do_symlink(const struct rx *r, int *ret_fd)
{
	char target[GP_PATH_MAX + 1];
	struct gnode *dir;
	int dirfd, e = dir_of(r->q->node, &dir, &dirfd);
	ssize_t n;

	if (e)
		return e;
	memcpy(target, r->p.data, r->q->data_len);
	target[r->q->data_len] = 0;
	if (symlinkat(target, dirfd, r->name1))
		return -errno;
	if (fchownat(dirfd, r->name1, r->q->uid, r->q->gid, AT_SYMLINK_NOFOLLOW))
		e = -errno;
	n = e ? e : reply_new(dir, dirfd, r->name1);
	if (n < 0)
		unlinkat(dirfd, r->name1, 0);
	return n;
}

static int chmod_at(int dirfd, const char *name, uint32_t mode)
{
	return syscall(SYS_fchmodat2, dirfd, name, mode, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
}

ssize_t do_mknod(const struct rx *r, int *ret_fd)
{
	uint32_t type = r->q->mode & S_IFMT;
	struct gnode *dir;
	int dirfd, e;
	ssize_t n;

	if (type != S_IFIFO && type != S_IFSOCK && type != S_IFREG) // device nodes never
		return -EPERM;
	e = dir_of(r->q->node, &dir, &dirfd);
	if (e)
		return e;
	if (mknodat(dirfd, r->name1, type | (r->q->mode & 0777), 0))
		return -errno;
	if (fchownat(dirfd, r->name1, r->q->uid, r->q->gid, AT_SYMLINK_NOFOLLOW))
		e = -errno;
	if (!e && (r->q->mode & 07000))
		e = chmod_at(dirfd, r->name1, r->q->mode & 07777);
	n = e ? e : reply_new(dir, dirfd, r->name1);
	if (n < 0)
		unlinkat(dirfd, r->name1, 0);
	return n;
}

ssize_t do_link(const struct rx *r, int *ret_fd)
{
	struct gnode *dir, *n = node_find(r->q->node2);
	struct gp_attr *out = (struct gp_attr *)TX_BODY;
	const char *name;
	int dirfd, fd, e = dir_of(r->q->node, &dir, &dirfd);

	if (e)
		return e;
	if (!n)
		return -ESTALE;
	if (n->type == S_IFDIR)
		return -EPERM;
	if (n->tree != dir->tree || n->parent == n)
		return -EXDEV;
	e = node_stat(n, out);
	if (!e)
		e = node_place(n, &fd, &name);
	if (!e)
		e = node_dir_fd(dir, &dirfd); // again: reaching n may have closed it
	if (e)
		return e;
	if (linkat(fd, name, dirfd, r->name1, *name ? 0 : AT_EMPTY_PATH))
		return -errno;
	if (n->detached && !node_moved(n, dir, r->name1)) // it has a name again
		return node_stat(n, out) ? -EIO : (ssize_t)sizeof(*out);
	e = node_stat(n, out);
	return e ? e : (ssize_t)sizeof(*out);
}

ssize_t do_unlink(const struct rx *r, int *ret_fd)
{
	struct gnode *dir, *victim = r->q->node2 ? node_find(r->q->node2) : NULL;
	bool writable = false;
	int dirfd, fd = -1, e;

	if (r->q->node2 && !victim)
		return -ESTALE;
	if (victim)
		node_detach_prepare(victim, &fd, &writable);
	e = dir_of(r->q->node, &dir, &dirfd);
	if (!e && unlinkat(dirfd, r->name1, (r->q->flags & GP_UNLINK_DIR) ? AT_REMOVEDIR : 0))
		e = -errno;
	if (e) {
		if (fd >= 0)
			close(fd);
		return e;
	}
	// A file with further names keeps its node's: only the one that goes counts. The directory may have
	// been named anew since.
	if (victim && victim->name && victim->parent->ino == dir->ino && victim->parent->dev == dir->dev &&
	    !strcmp(victim->name, r->name1))
		node_detach(victim, fd, writable);
	else if (fd >= 0)
		close(fd);
	return 0;
}

ssize_t do_rename(const struct rx *r, int *ret_fd)
{
	static const unsigned host_flags[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE};
	bool exchange = r->q->flags & GP_RENAME_EXCHANGE, writable = false;
	struct gnode *odir, *ndir, *moved, *victim;
	int ofd, nfd, vfd = -1, e; // not renameat2(): the library turns flags of 0 into another call
	struct gp_rename x;

	memcpy(&x, r->p.data, sizeof(x));
	moved = x.moved ? node_find(x.moved) : NULL;
	victim = x.victim ? node_find(x.victim) : NULL;
	if ((x.moved && !moved) || (x.victim && !victim))
		return -ESTALE;
	if (victim && !exchange)
		node_detach_prepare(victim, &vfd, &writable);
	e = dir_of(r->q->node, &odir, &ofd);
	if (!e)
		e = dir_of(r->q->node2, &ndir, &nfd);
	if (!e && odir->tree != ndir->tree)
		e = -EXDEV;
	if (!e)
		e = node_dir_fd(odir, &ofd); // again: reaching ndir may have closed it
	if (!e && syscall(SYS_renameat2, ofd, r->name1, nfd, r->name2, host_flags[r->q->flags]))
		e = -errno;
	if (e) {
		if (vfd >= 0)
			close(vfd);
		return e;
	}
	if (exchange && victim)
		(void)node_moved(victim, odir, r->name1);
	else if (victim)
		node_detach(victim, vfd, writable);
	if (moved)
		(void)node_moved(moved, ndir, r->name2);
	return 0;
}

static struct timespec set_time(const struct gp_setattr *s, unsigned bit, const struct gp_time *t)
{
	if (!(s->valid & bit))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	return (struct timespec){.tv_sec = t->sec, .tv_nsec = t->nsec};
}

static int set_size(struct gnode *n, uint64_t size)
{
	int fd, r;

	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -EINVAL;
	r = node_open(n, O_WRONLY, &fd);
	if (r)
		return r;
	if (ftruncate(fd, (off_t)size))
		r = -errno;
	close(fd);
	return r;
}

ssize_t do_setattr(const struct rx *r, int *ret_fd)
{
	struct gp_attr *out = (struct gp_attr *)TX_BODY;
	struct gnode *n = node_find(r->q->node);
	struct timespec ts[2];
	struct gp_setattr s;
	const char *name;
	int fd, e, at;

	memcpy(&s, r->p.data, sizeof(s));
	e = n ? node_stat(n, out) : -ESTALE; // the right file still, before it is touched
	if (!e && (s.valid & GP_SET_SIZE))
		e = set_size(n, s.size);
	if (!e)
		e = node_place(n, &fd, &name);
	if (e)
		return e;
	at = AT_SYMLINK_NOFOLLOW | (*name ? 0 : AT_EMPTY_PATH);
	if ((s.valid & (GP_SET_UID | GP_SET_GID)) &&
	    fchownat(fd, name, (s.valid & GP_SET_UID) ? s.uid : (uid_t)-1, (s.valid & GP_SET_GID) ? s.gid : (gid_t)-1, at))
		return -errno;
	if (s.valid & GP_SET_MODE) {
		if (n->type == S_IFLNK)
			return -EOPNOTSUPP;
		e = syscall(SYS_fchmodat2, fd, name, s.mode, at) ? -errno : 0;
		if (e == -ENOSYS && !*name && !fchmod(fd, s.mode)) // a host before 6.6
			e = 0;
		if (e == -ENOSYS && (n->type == S_IFREG || n->type == S_IFDIR)) {
			int own;

			e = node_open(n, O_RDONLY, &own);
			if (!e) {
				e = fchmod(own, s.mode) ? -errno : 0;
				close(own);
			}
		}
		if (e)
			return e;
	}
	ts[0] = set_time(&s, GP_SET_ATIME, &s.atime);
	ts[1] = set_time(&s, GP_SET_MTIME, &s.mtime);
	if ((s.valid & (GP_SET_ATIME | GP_SET_MTIME)) && utimensat(fd, name, ts, at))
		return -errno;
	e = node_stat(n, out);
	return e ? e : (ssize_t)sizeof(*out);
}

// What a guest may set on a host file: nothing that the host's kernel acts on.
static bool xattr_settable(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "system.posix_acl_access") ||
	       !strcmp(name, "system.posix_acl_default") || !strncmp(name, "trusted.overlay.", 16);
}

ssize_t do_setxattr(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	int fd, e, flags = ((r->q->flags & GP_XATTR_CREATE) ? XATTR_CREATE : 0) |
			   ((r->q->flags & GP_XATTR_REPLACE) ? XATTR_REPLACE : 0);

	if (!n)
		return -ESTALE;
	if ((n->type != S_IFREG && n->type != S_IFDIR) || !xattr_settable(r->name1))
		return -EOPNOTSUPP;
	e = node_open(n, O_RDONLY, &fd);
	if (e)
		return e;
	if (r->q->flags & GP_XATTR_REMOVE)
		e = fremovexattr(fd, r->name1) ? -errno : 0;
	else
		e = fsetxattr(fd, r->name1, r->p.data, r->q->data_len, flags) ? -errno : 0;
	close(fd);
	return e;
}

ssize_t do_fsync(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	int fd, e = n ? node_open(n, O_RDONLY, &fd) : -ESTALE;

	if (e)
		return e;
	e = fsync(fd) ? -errno : 0;
	close(fd);
	return e;
}
