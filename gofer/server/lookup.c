// Walking, opening, and reading attributes: everything that finds files.
#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "gofer/server/server.h"
#include "platform/base/base.h"

static struct gp_time time_from(const struct statx_timestamp *t)
{
	return (struct gp_time){.sec = t->tv_sec, .nsec = t->tv_nsec};
}

int attr_at(int dirfd, const char *name, struct gp_attr *ret)
{
	struct statx x;

	if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH),
		  STATX_BASIC_STATS | STATX_BTIME, &x))
		return -errno;
	*ret = (struct gp_attr){
		.dev = makedev(x.stx_dev_major, x.stx_dev_minor), .ino = x.stx_ino,
		.rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor), .size = x.stx_size, .blocks = x.stx_blocks,
		.mode = x.stx_mode, .uid = x.stx_uid, .gid = x.stx_gid, .nlink = x.stx_nlink,
		.blksize = MIN(MAX(x.stx_blksize, 512u), 1u << 30),
		.atime = time_from(&x.stx_atime), .mtime = time_from(&x.stx_mtime), .ctime = time_from(&x.stx_ctime)};
	if (x.stx_mask & STATX_BTIME)
		ret->btime = time_from(&x.stx_btime);
	if (!gp_attr_ok(ret)) // a file system that makes up strange numbers
		return -EIO;
	return 0;
}

int open_checked(int dirfd, const char *name, int flags, uint64_t dev, uint64_t ino, struct gp_attr *ret_attr, int *ret_fd)
{
	struct gp_attr a;
	int fd, r = attr_at(dirfd, name, &a);

	// Looked at before it is opened: opening a FIFO or a device is an act of its own.
	if (r)
		return r == -ENOENT ? -ESTALE : r;
	if (a.dev != dev || a.ino != ino || !S_ISREG(a.mode))
		return -ESTALE;
	fd = openat(dirfd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = attr_at(fd, "", &a);
	if (!r && (a.dev != dev || a.ino != ino || !S_ISREG(a.mode)))
		r = -ESTALE;
	if (r) {
		close(fd);
		return r;
	}
	*ret_attr = a;
	*ret_fd = fd;
	return 0;
}

ssize_t do_attach(const struct rx *r, int *ret_fd)
{
	struct gp_node *out = (struct gp_node *)TX_BODY;
	struct gnode *n;
	int e = node_root(r->q->arg, &n);

	if (!e)
		e = node_stat(n, &out->attr);
	if (e)
		return e;
	out->id = node_id(n);
	return sizeof(*out);
}

// One walk's state: the reply being filled.
struct walk {
	struct gp_walk_rep *rep;
	struct gp_node *nodes;
	char *target; // where a target would go
};

static int walk_target(struct walk *w, int dirfd, const char *name)
{
	ssize_t n = readlinkat(dirfd, name, w->target, GP_PATH_MAX + 1);

	if (n <= 0 || n > (ssize_t)GP_PATH_MAX)
		return n < 0 ? -errno : -EIO;
	w->rep->target_len = (uint32_t)n;
	w->rep->stop = GP_STOP_SYMLINK;
	return 0;
}

// One component. *cur becomes the new node if it is a directory; ret_stop: the walk is over.
static int walk_one(struct walk *w, struct gnode **cur, const char *name, bool last, bool *ret_stop)
{
	struct gp_node *out = &w->nodes[w->rep->nnodes];
	struct gnode *n;
	int dirfd, fd = -1, r = node_dir_fd(*cur, &dirfd);

	if (r)
		return r;
	if (!last) { // a directory, most likely: the descriptor will be needed
		fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
	}
	r = fd >= 0 ? attr_at(fd, "", &out->attr) : attr_at(dirfd, name, &out->attr);
	if (!r && S_ISLNK(out->attr.mode)) {
		w->target = (char *)(w->nodes + w->rep->nnodes + 1);
		r = fd >= 0 ? walk_target(w, fd, "") : walk_target(w, dirfd, name);
	}
	if (fd >= 0 && (r || !S_ISDIR(out->attr.mode))) {
		close(fd);
		fd = -1;
	}
	if (!r)
		r = node_new(*cur, name, &out->attr, fd, &n);
	if (r) {
		if (fd >= 0)
			close(fd);
		w->rep->target_len = 0;
		w->rep->stop = GP_STOP_DONE;
		return r;
	}
	out->id = node_id(n);
	w->rep->nnodes++;
	*ret_stop = w->rep->stop == GP_STOP_SYMLINK;
	if (!last && !*ret_stop && n->type != S_IFDIR) {
		w->rep->stop = GP_STOP_NOTDIR;
		*ret_stop = true;
	}
	*cur = n;
	return 0;
}

static void walk_open(const struct rx *r, struct gnode *n, struct gp_node *out, int *ret_fd)
{
	const char *name;
	int dirfd, flags = (r->q->flags & GP_WALK_OPEN_RDWR) && !n->read_only ? O_RDWR : O_RDONLY;

	if (n->type != S_IFREG || node_place(n, &dirfd, &name) || !*name)
		return;
	// If it cannot be opened now, the sentry asks again and is told why.
	(void)open_checked(dirfd, name, flags, n->dev, n->ino, &out->attr, ret_fd);
}

ssize_t do_walk(const struct rx *r, int *ret_fd)
{
	struct walk w = {.rep = (struct gp_walk_rep *)tx_buf, .nodes = (struct gp_node *)(tx_buf + sizeof(struct gp_walk_rep))};
	const char *p = r->p.data, *end = p + r->q->data_len;
	struct gnode *cur = node_find(r->q->node);
	bool stop = false;
	int e = 0;

	_Static_assert(sizeof(struct gp_walk_rep) + GP_WALK_MAX * sizeof(struct gp_node) + GP_PATH_MAX + 1 < GP_MSG_MAX, "fits");
	if (!cur)
		return -ESTALE;
	if (cur->type != S_IFDIR)
		return -ENOTDIR;
	memset(w.rep, 0, sizeof(*w.rep));
	while (p < end && !stop && !e) { // gp_req_check() has looked at every component
		const char *slash = memchr(p, '/', (size_t)(end - p));
		size_t len = (size_t)((slash ? slash : end) - p);
		char name[GP_NAME_MAX + 1];

		memcpy(name, p, len);
		name[len] = 0;
		p += len + (slash ? 1 : 0);
		e = walk_one(&w, &cur, name, p == end, &stop);
	}
	if (e == -ENOENT) {
		w.rep->stop = GP_STOP_NOENT;
	} else if (e) {
		w.rep->stop = GP_STOP_ERROR;
		w.rep->error = e;
	} else if (!stop && (r->q->flags & (GP_WALK_OPEN | GP_WALK_OPEN_RDWR))) {
		walk_open(r, cur, &w.nodes[w.rep->nnodes - 1], ret_fd);
	}
	return (ssize_t)(sizeof(*w.rep) - sizeof(struct gp_hdr) + w.rep->nnodes * sizeof(*w.nodes) + w.rep->target_len);
}

ssize_t do_open(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	bool wr = r->q->flags & (GP_OPEN_WRITE | GP_OPEN_TRUNC), rd = r->q->flags & GP_OPEN_READ;
	int fd, e;

	if (!n)
		return -ESTALE;
	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	if (wr && n->read_only)
		return -EROFS;
	e = node_open(n, (wr ? rd ? O_RDWR : O_WRONLY : O_RDONLY) | ((r->q->flags & GP_OPEN_TRUNC) ? O_TRUNC : 0), &fd);
	if (e)
		return e;
	e = attr_at(fd, "", (struct gp_attr *)TX_BODY);
	if (e) {
		close(fd);
		return e;
	}
	*ret_fd = fd;
	return sizeof(struct gp_attr);
}

ssize_t do_readlink(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	const char *name;
	ssize_t len;
	int dirfd, e;

	if (!n)
		return -ESTALE;
	if (n->type != S_IFLNK)
		return -EINVAL;
	e = node_place(n, &dirfd, &name);
	if (e)
		return e;
	len = readlinkat(dirfd, name, TX_BODY, GP_PATH_MAX + 1);
	if (len <= 0 || len > (ssize_t)GP_PATH_MAX)
		return len < 0 ? errno == ENOENT || errno == EINVAL ? -ESTALE : -errno : -EIO;
	return len;
}

ssize_t do_getattr(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	int e = n ? node_stat(n, (struct gp_attr *)TX_BODY) : -ESTALE;

	return e ? e : (ssize_t)sizeof(struct gp_attr);
}

ssize_t do_statfs(const struct rx *r, int *ret_fd)
{
	struct gnode *n = node_find(r->q->node);
	struct statfs s;
	int fd, e;

	if (!n)
		return -ESTALE;
	if (n->type == S_IFDIR)
		e = node_dir_fd(n, &fd);
	else
		e = n->parent == n ? (fd = n->fd, 0) : node_dir_fd(n->parent, &fd);
	if (e)
		return e;
	if (fstatfs(fd, &s))
		return -errno;
	*(struct gp_statfs *)TX_BODY = (struct gp_statfs){
		.type = (uint64_t)s.f_type, .bsize = (uint64_t)s.f_bsize, .blocks = s.f_blocks, .bfree = s.f_bfree,
		.bavail = s.f_bavail, .files = s.f_files, .ffree = s.f_ffree, .namelen = (uint64_t)s.f_namelen};
	return sizeof(struct gp_statfs);
}

// Extended attributes need the file open for reading; only regular files and directories have any here.
static int xattr_fd(const struct rx *r, int *ret)
{
	struct gnode *n = node_find(r->q->node);

	if (!n)
		return -ESTALE;
	if (n->type != S_IFREG && n->type != S_IFDIR)
		return -EOPNOTSUPP;
	return node_open(n, O_RDONLY, ret);
}

ssize_t do_getxattr(const struct rx *r, int *ret_fd)
{
	ssize_t n;
	int fd, e = xattr_fd(r, &fd);

	if (e)
		return e;
	n = fgetxattr(fd, r->name1, TX_BODY, GP_XATTR_MAX);
	e = n < 0 ? -errno : 0;
	close(fd);
	return e ? e == -ERANGE ? -E2BIG : e : n;
}

ssize_t do_listxattr(const struct rx *r, int *ret_fd)
{
	ssize_t n;
	int fd, e = xattr_fd(r, &fd);

	if (e)
		return e;
	n = flistxattr(fd, TX_BODY, GP_XATTR_MAX);
	e = n < 0 ? -errno : 0;
	close(fd);
	return e ? e == -ERANGE ? -E2BIG : e : n;
}
