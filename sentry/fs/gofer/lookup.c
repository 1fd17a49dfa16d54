// Finding files: single lookups, whole paths in one request, and whether old answers still hold.
#include <fcntl.h>

#include "sentry/fs/gofer/internal.h"

#define LIST_AFTER_MISSES 2 // a directory is listed when so many names had to be asked for
#define LIST_DIR_MAX (256u << 10) // no larger directory (by st_size) is listed for a lookup
#define VFS_OPENING_MASK (O_PATH | O_DIRECTORY)

static int walk_call(struct gofer_sb *gs, struct call *c, uint64_t node, const char *path, size_t len, unsigned flags)
{
	*c = (struct call){.q = {.h.op = GP_WALK, .node = node, .flags = flags, .data_len = (uint32_t)len}, .data = path};
	return call_run(gs->conn, c);
}

static const struct gp_walk_rep *walk_rep(const struct call *c)
{
	return (const struct gp_walk_rep *)STAILQ_FIRST(&c->chunks)->msg;
}

static const struct gp_node *walk_nodes(const struct call *c)
{
	return (const struct gp_node *)(walk_rep(c) + 1);
}

// The inode of the i-th node of a walk, which is used up.
static int walk_inode(struct gofer_sb *gs, const struct call *c, unsigned i, struct inode **ret)
{
	const struct gp_walk_rep *w = walk_rep(c);
	const struct gp_node *nodes = walk_nodes(c);
	bool last = i + 1 == w->nnodes;

	return gofer_iget(gs, &nodes[i], last && w->target_len ? (const char *)(nodes + w->nnodes) : NULL, w->target_len, ret);
}

static int lookup_ask(struct inode *dir, const char *name, size_t len, struct inode **ret)
{
	struct gofer_sb *gs = GSB(dir);
	struct call c;
	int r = walk_call(gs, &c, GI(dir)->node, name, len, 0);

	if (!r && walk_rep(&c)->nnodes > 1)
		r = -EIO; // one name was asked for
	else if (!r && walk_rep(&c)->nnodes == 1)
		r = walk_inode(gs, &c, 0, ret);
	else if (!r)
		r = walk_rep(&c)->stop == GP_STOP_NOENT ? -ENOENT : walk_rep(&c)->error ? walk_rep(&c)->error : -EIO;
	call_end(&c);
	return r;
}

// One more name of dir is not known. True: its listing is worth having now.
static bool miss(struct inode *dir)
{
	struct gofer_inode *gi = GI(dir);

	if (!GSB(dir)->exclusive || gi->list || dir->size > LIST_DIR_MAX)
		return false;
	if (gi->misses < UINT16_MAX)
		gi->misses++;
	return gi->misses == LIST_AFTER_MISSES; // once: if it could not be listed it is not tried again
}

// As listing_lookup(), but gets the listing if it is time for it. May wait.
static int known(struct inode *dir, const char *name, size_t len, struct inode **ret)
{
	int r = listing_lookup(dir, name, len, ret);

	if (r != -EAGAIN || !miss(dir) || listing_load(dir))
		return r;
	return listing_lookup(dir, name, len, ret);
}

int gofer_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	size_t len = strlen(name);
	struct inode *found = NULL;
	int r;

	if (!gp_name_ok(name, len))
		return -ENOENT;
	r = known(dir, name, len, &found);
	if (r == -EAGAIN || (!r && !found))
		return lookup_ask(dir, name, len, ret);
	if (!r)
		*ret = found;
	return r;
}

// --- ahead --------------------------------------------------------------------------------------

// The part of rest that can be asked for at once: plain names. Stops before "..", and at the limits.
static size_t collect(const char *rest, char *buf, size_t room)
{
	size_t n = 0;

	for (unsigned k = 0; k < GP_WALK_MAX; k++) {
		size_t len;

		while (*rest == '/' || (rest[0] == '.' && (rest[1] == '/' || !rest[1])))
			rest++;
		len = strcspn(rest, "/");
		if (!gp_name_ok(rest, len) || n + len + 1 > room)
			break;
		if (n)
			buf[n++] = '/';
		memcpy(buf + n, rest, len);
		n += len;
		rest += len;
	}
	return n;
}

static size_t next_name(const char **p, const char *end)
{
	const char *slash = memchr(*p, '/', (size_t)(end - *p));

	return (size_t)((slash ? slash : end) - *p);
}

static unsigned open_flag(const struct gofer_sb *gs, unsigned open_flags)
{
	if (!open_flags || (open_flags & VFS_OPENING_MASK))
		return 0;
	return (open_flags & O_ACCMODE) != O_RDONLY && !gs->read_only ? GP_WALK_OPEN_RDWR : GP_WALK_OPEN;
}

// Shared mounts: whether what the dentry says was true a moment ago. A negative one keeps the time itself.
static bool is_fresh(const struct dentry *d)
{
	if (d->nmounts)
		return true;
	return (d->inode ? GI(d->inode)->valid_until : (nsec_t)(uintptr_t)d->fs_priv) > sched_now();
}

// The cached child of this name with this inode (taken over; NULL: it is missing); a reference, or NULL.
static struct dentry *put_name(struct gofer_sb *gs, struct dentry *parent, const char *name, size_t len, struct inode *inode)
{
	struct dentry *d = gs->exclusive ? NULL : d_find(parent, name, len);

	if (d && d->inode == inode) {
		inode_put(inode);
	} else {
		if (d) { // the host has put something else there
			d_invalidate(d);
			d_put(d);
		}
		d = d_add(parent, name, len, inode);
	}
	if (d && !d->inode)
		d->fs_priv = (void *)(uintptr_t)(sched_now() + GOFER_VALID_NS);
	return d;
}

// Adds what a walk has told below d. path: the names that were asked for.
static void add_walked(struct gofer_sb *gs, struct dentry *d, struct call *c, const char *path, const char *end)
{
	const struct gp_walk_rep *w = walk_rep(c);
	struct dentry *cur = d_get(d), *next;
	struct inode *inode = NULL;
	unsigned i;

	for (i = 0; i < w->nnodes && path < end; i++) {
		size_t len = next_name(&path, end);

		if (walk_inode(gs, c, i, &inode))
			goto out;
		next = put_name(gs, cur, path, len, inode_get(inode));
		if (i + 1 == w->nnodes && c->fd >= 0 && S_ISREG(inode->mode)) {
			gfd_install(GI(inode), c->fd, (c->q.flags & GP_WALK_OPEN_RDWR) && !gs->read_only);
			c->fd = -1;
		}
		inode_put(inode);
		if (!next)
			goto out;
		d_put(cur);
		cur = next;
		path += len + 1;
	}
	if (w->stop == GP_STOP_NOENT && i == w->nnodes && path < end && cur->inode && S_ISDIR(cur->inode->mode)) {
		next = put_name(gs, cur, path, next_name(&path, end), NULL);
		if (next)
			d_put(next);
	}
out:
	for (i++; i < w->nnodes; i++) // could not be used
		conn_forget(gs->conn, walk_nodes(c)[i].id);
	d_put(cur);
}

// Asks for the names from path on, below cur, and adds what comes back.
static void ask_ahead(struct gofer_sb *gs, struct dentry *cur, const char *path, const char *end, unsigned flags)
{
	uint64_t seq = gs->sb.change_seq;
	struct call c;
	int r = walk_call(gs, &c, GI(cur->inode)->node, path, (size_t)(end - path), flags);

	if (!r && seq == gs->sb.change_seq) {
		add_walked(gs, cur, &c, path, end);
	} else if (!r) { // names were removed meanwhile: the answer may be too old
		for (unsigned i = 0; i < walk_rep(&c)->nnodes; i++)
			conn_forget(gs->conn, walk_nodes(&c)[i].id);
	}
	call_end(&c);
}

void gofer_walk_ahead(struct dentry *d, const char *rest, unsigned open_flags)
{
	struct gofer_sb *gs = GSB(d->inode);
	unsigned flags = open_flag(gs, open_flags);
	char path[1024];
	const char *p = path, *end = path + collect(rest, path, sizeof(path));
	struct dentry *cur = d_get(d), *next;

	// What is known already: cached dentries, and names in listings.
	while (p < end && cur->inode && S_ISDIR(cur->inode->mode)) {
		size_t len = next_name(&p, end);
		struct inode *inode = NULL;
		int r;

		next = d_find(cur, p, len);
		if (!next) {
			// A single name is what lookup() asks for as well, unless a descriptor is wanted with it.
			bool alone = p + len == end && !flags;

			r = alone ? listing_lookup(cur->inode, p, len, &inode) : known(cur->inode, p, len, &inode);
			if (r == -EAGAIN || (!r && !inode)) {
				if (!alone)
					ask_ahead(gs, cur, p, end, flags);
				break;
			}
			next = d_add(cur, p, len, r ? NULL : inode);
			if (!next)
				break;
		} else if (!gs->exclusive && !is_fresh(next)) {
			d_put(next);
			if (p + len < end) // else revalidating this one is all there is to do
				ask_ahead(gs, cur, p, end, 0);
			break;
		}
		d_put(cur);
		cur = next;
		p += len + 1;
	}
	d_put(cur);
}

// --- again --------------------------------------------------------------------------------------

int gofer_revalidate(struct dentry *d)
{
	struct inode *found = NULL;
	int r;

	if (is_fresh(d))
		return 1;
	if (!d->inode)
		return 0; // it may have come into being: a lookup tells
	r = lookup_ask(d->parent->inode, d->name, d->namelen, &found); // also refreshes the attributes
	if (r == -ENOENT)
		return 0;
	if (r)
		return r;
	r = found == d->inode;
	inode_put(found);
	return r;
}

int gofer_readlink(struct inode *inode, char **ret)
{
	struct call c = {.q = {.h.op = GP_READLINK, .node = GI(inode)->node}};
	char *s;
	int r;

	if (inode->link) {
		s = arena_strdup(inode->link);
		if (!s)
			return -ENOMEM;
		*ret = s;
		return 0;
	}
	r = call_run(GSB(inode)->conn, &c);
	if (!r) {
		s = arena_alloc(call_body_len(&c) + 1);
		if (s) {
			memcpy(s, call_body(&c), call_body_len(&c));
			*ret = s;
		} else {
			r = -ENOMEM;
		}
	}
	call_end(&c);
	return r;
}

const struct inode_ops gofer_link_ops = {
	.readlink = gofer_readlink,
	.getattr = gofer_getattr,
	.setattr = gofer_setattr,
};
const struct inode_ops gofer_special_ops = {
	.getattr = gofer_getattr,
	.setattr = gofer_setattr,
};
const struct inode_ops gofer_file_ops = {
	.getattr = gofer_getattr,
	.setattr = gofer_setattr,
	.getxattr = gofer_getxattr,
	.setxattr = gofer_setxattr,
	.listxattr = gofer_listxattr,
};
const struct inode_ops gofer_dir_ops = {
	.lookup = gofer_lookup,
	.walk_ahead = gofer_walk_ahead,
	.create = gofer_create,
	.mkdir = gofer_mkdir,
	.mknod = gofer_mknod,
	.symlink = gofer_symlink,
	.link = gofer_link,
	.unlink = gofer_unlink,
	.rmdir = gofer_rmdir,
	.rename = gofer_rename,
	.getattr = gofer_getattr,
	.setattr = gofer_setattr,
	.getxattr = gofer_getxattr,
	.setxattr = gofer_setxattr,
	.listxattr = gofer_listxattr,
};
