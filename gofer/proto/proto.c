#include "gofer/proto/proto.h"

#include <string.h>
#include <sys/stat.h>

// What a request of each kind may carry. Everything not named must be 0.
struct op_rule {
	bool node, node2, node2_optional, name1, xattr_name, name2, modifies, arg, owner, mode;
	uint32_t flags; // allowed bits
	uint32_t data_min, data_max;
};
static const struct op_rule rules[GP_OP_END] = {
	[GP_ATTACH] = {.arg = true},
	[GP_WALK] = {.node = true, .flags = GP_WALK_OPEN | GP_WALK_OPEN_RDWR, .data_min = 1, .data_max = GP_PATH_MAX},
	[GP_OPEN] = {.node = true, .flags = GP_OPEN_READ | GP_OPEN_WRITE | GP_OPEN_TRUNC},
	[GP_READDIR] = {.node = true, .arg = true},
	[GP_READLINK] = {.node = true},
	[GP_GETATTR] = {.node = true},
	[GP_STATFS] = {.node = true},
	[GP_GETXATTR] = {.node = true, .name1 = true, .xattr_name = true},
	[GP_LISTXATTR] = {.node = true},
	[GP_FORGET] = {.data_min = 8, .data_max = GP_FORGET_MAX * 8},
	[GP_CREATE] = {.node = true, .name1 = true, .mode = true, .owner = true, .modifies = true,
		       .flags = GP_OPEN_READ | GP_OPEN_WRITE},
	[GP_MKDIR] = {.node = true, .name1 = true, .mode = true, .owner = true, .modifies = true},
	[GP_SYMLINK] = {.node = true, .name1 = true, .owner = true, .modifies = true, .data_min = 1, .data_max = GP_PATH_MAX},
	[GP_MKNOD] = {.node = true, .name1 = true, .mode = true, .owner = true, .modifies = true},
	[GP_LINK] = {.node = true, .node2 = true, .name1 = true, .modifies = true},
	[GP_UNLINK] = {.node = true, .node2 = true, .node2_optional = true, .name1 = true, .modifies = true,
		       .flags = GP_UNLINK_DIR},
	[GP_RENAME] = {.node = true, .node2 = true, .name1 = true, .name2 = true, .modifies = true,
		       .flags = GP_RENAME_NOREPLACE | GP_RENAME_EXCHANGE,
		       .data_min = sizeof(struct gp_rename), .data_max = sizeof(struct gp_rename)},
	[GP_SETATTR] = {.node = true, .modifies = true, .data_min = sizeof(struct gp_setattr),
			.data_max = sizeof(struct gp_setattr)},
	[GP_SETXATTR] = {.node = true, .name1 = true, .xattr_name = true, .modifies = true,
			 .flags = GP_XATTR_CREATE | GP_XATTR_REPLACE | GP_XATTR_REMOVE, .data_max = GP_XATTR_MAX},
	[GP_FSYNC] = {.node = true, .modifies = true},
};

bool gp_op_modifies(enum gp_op op)
{
	return op > 0 && op < GP_OP_END && rules[op].modifies;
}

bool gp_name_ok(const char *name, size_t len)
{
	if (len == 0 || len > GP_NAME_MAX || memchr(name, '/', len) || memchr(name, 0, len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

bool gp_xattr_name_ok(const char *name, size_t len)
{
	return len > 0 && len <= GP_NAME_MAX && !memchr(name, 0, len);
}

unsigned gp_path_count(const char *path, size_t len)
{
	const char *end = path + len;
	unsigned n = 0;

	while (path < end) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t c = (size_t)((slash ? slash : end) - path);

		if (!gp_name_ok(path, c) || ++n > GP_WALK_MAX)
			return 0;
		path += c + 1;
		if (slash && path == end)
			return 0;
	}
	return n;
}

static bool time_ok(const struct gp_time *t)
{
	return t->nsec < 1000000000u;
}

static bool setattr_ok(const char *data)
{
	struct gp_setattr a;

	memcpy(&a, data, sizeof(a));
	return !(a.valid & ~(GP_SET_MODE | GP_SET_UID | GP_SET_GID | GP_SET_SIZE | GP_SET_ATIME | GP_SET_MTIME)) &&
	       !(a.mode & ~07777u) && a.size <= INT64_MAX && time_ok(&a.atime) && time_ok(&a.mtime);
}

static bool req_semantics_ok(const struct gp_req *q, const struct gp_parts *p)
{
	switch ((enum gp_op)q->h.op) {
	case GP_WALK:
		return gp_path_count(p->data, q->data_len) > 0;
	case GP_FORGET:
		return q->data_len % 8 == 0;
	case GP_SYMLINK:
		return !memchr(p->data, 0, q->data_len);
	case GP_SETATTR:
		return setattr_ok(p->data);
	case GP_OPEN:
	case GP_CREATE:
		return (q->flags & (GP_OPEN_READ | GP_OPEN_WRITE)) != 0;
	case GP_RENAME:
		return q->flags != (GP_RENAME_NOREPLACE | GP_RENAME_EXCHANGE);
	default:
		return true;
	}
}

bool gp_req_check(const void *msg, size_t n, struct gp_parts *ret)
{
	const struct gp_req *q = msg;
	const struct op_rule *r;
	struct gp_parts p;

	if (n < sizeof(*q) || n > GP_MSG_MAX || q->h.len != n || q->h.flags || q->h.status || q->pad)
		return false;
	if (q->h.op == 0 || q->h.op >= GP_OP_END)
		return false;
	r = &rules[q->h.op];
	// No sum can wrap: 16-bit lengths and a bounded 32-bit one.
	if (q->data_len > GP_MSG_MAX || n != sizeof(*q) + q->name1_len + q->name2_len + q->data_len)
		return false;
	if (q->data_len < r->data_min || q->data_len > r->data_max || (q->flags & ~r->flags))
		return false;
	if (r->node != (q->node != 0) || (!r->node2_optional && r->node2 != (q->node2 != 0)))
		return false;
	if ((!r->owner && (q->uid || q->gid)) || (!r->mode && q->mode) || (!r->arg && q->arg))
		return false;
	p.name1 = (const char *)(q + 1);
	p.name2 = p.name1 + q->name1_len;
	p.data = p.name2 + q->name2_len;
	if (r->xattr_name ? !gp_xattr_name_ok(p.name1, q->name1_len)
			  : r->name1 ? !gp_name_ok(p.name1, q->name1_len) : q->name1_len != 0)
		return false;
	if (r->name2 ? !gp_name_ok(p.name2, q->name2_len) : q->name2_len != 0)
		return false;
	if (!req_semantics_ok(q, &p))
		return false;
	*ret = p;
	return true;
}

bool gp_attr_ok(const struct gp_attr *a)
{
	switch (a->mode & S_IFMT) {
	case S_IFREG: case S_IFDIR: case S_IFLNK: case S_IFIFO: case S_IFSOCK: case S_IFCHR: case S_IFBLK:
		break;
	default:
		return false;
	}
	return !(a->mode & ~(S_IFMT | 07777u)) && a->ino && a->size <= INT64_MAX && a->blocks <= INT64_MAX / 512 &&
	       a->blksize >= 512 && a->blksize <= (1u << 30) && time_ok(&a->atime) && time_ok(&a->mtime) &&
	       time_ok(&a->ctime) && time_ok(&a->btime);
}

static bool node_ok(const struct gp_node *n)
{
	return n->id != 0 && gp_attr_ok(&n->attr);
}

static bool walk_rep_ok(const void *msg, size_t n)
{
	const struct gp_walk_rep *r = msg;
	const struct gp_node *nodes = (const struct gp_node *)(r + 1);
	const struct gp_node *last;

	if (n < sizeof(*r) || r->nnodes > GP_WALK_MAX || r->target_len > GP_PATH_MAX || r->stop > GP_STOP_ERROR ||
	    n != sizeof(*r) + r->nnodes * sizeof(*nodes) + r->target_len)
		return false;
	for (unsigned i = 0; i < r->nnodes; i++)
		if (!node_ok(&nodes[i]) || (i + 1 < r->nnodes && !S_ISDIR(nodes[i].attr.mode)))
			return false;
	last = r->nnodes ? &nodes[r->nnodes - 1] : NULL;
	if ((r->stop == GP_STOP_SYMLINK) != (r->target_len > 0) ||
	    memchr((const char *)(nodes + r->nnodes), 0, r->target_len))
		return false;
	if ((r->stop == GP_STOP_SYMLINK && !(last && S_ISLNK(last->attr.mode))) ||
	    (r->stop == GP_STOP_NOTDIR && !(last && !S_ISDIR(last->attr.mode))))
		return false;
	return (r->stop == GP_STOP_ERROR) == (r->error != 0) && r->error <= 0 && r->error > -4096;
}

static bool dir_rep_ok(const void *msg, size_t n)
{
	const struct gp_dir_rep *r = msg;
	const char *p = (const char *)(r + 1), *end = (const char *)msg + n;

	if (n < sizeof(*r))
		return false;
	for (uint32_t i = 0; i < r->n; i++) {
		const struct gp_dirent *e = (const struct gp_dirent *)p;

		if ((size_t)(end - p) < sizeof(*e) || (size_t)(end - p) < gp_dirent_size(e))
			return false;
		if (!gp_name_ok((const char *)(e + 1), e->name_len) || e->target_len > GP_PATH_MAX ||
		    memchr((const char *)(e + 1) + e->name_len, 0, e->target_len))
			return false;
		if (e->node.id ? !gp_attr_ok(&e->node.attr) : e->target_len != 0)
			return false;
		p += gp_dirent_size(e);
	}
	return p == end;
}

bool gp_rep_check(const void *msg, size_t n, enum gp_op op)
{
	const struct gp_hdr *h = msg;
	size_t body;

	if (n < sizeof(*h) || n > GP_MSG_MAX || h->len != n || h->op != op || (h->flags & ~(GP_MORE | GP_FD)) ||
	    h->status > 0 || h->status < -4095)
		return false;
	body = n - sizeof(*h);
	if ((h->flags & GP_MORE) && (op != GP_READDIR || h->status))
		return false;
	if ((h->flags & GP_FD) && (h->status || (op != GP_WALK && op != GP_OPEN && op != GP_CREATE)))
		return false;
	if (h->status)
		return body == 0;
	switch (op) {
	case GP_ATTACH: case GP_MKDIR: case GP_SYMLINK: case GP_MKNOD: case GP_CREATE:
		return body == sizeof(struct gp_node) && node_ok((const struct gp_node *)(h + 1)) &&
		       (op == GP_CREATE) == !!(h->flags & GP_FD);
	case GP_WALK:
		return walk_rep_ok(msg, n);
	case GP_READDIR:
		return dir_rep_ok(msg, n);
	case GP_OPEN:
		return (h->flags & GP_FD) && body == sizeof(struct gp_attr) && gp_attr_ok((const struct gp_attr *)(h + 1));
	case GP_GETATTR: case GP_SETATTR: case GP_LINK:
		return body == sizeof(struct gp_attr) && gp_attr_ok((const struct gp_attr *)(h + 1));
	case GP_STATFS:
		return body == sizeof(struct gp_statfs);
	case GP_READLINK:
		return body > 0 && body <= GP_PATH_MAX && !memchr(h + 1, 0, body);
	case GP_GETXATTR: case GP_LISTXATTR:
		return body <= GP_XATTR_MAX;
	case GP_UNLINK: case GP_RENAME: case GP_SETXATTR: case GP_FSYNC:
		return body == 0;
	default:
		return false;
	}
}
