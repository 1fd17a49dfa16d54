// The table of nodes and its bounded set of open directory descriptors.
#include <fcntl.h>
#include <sys/resource.h>

#include "gofer/server/server.h"
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"

struct slot {
	struct gnode *node;
	uint32_t gen;  // part of the id, so that an id is never used twice
	uint32_t next; // of the free list
};
#define NO_SLOT UINT32_MAX
#define CHUNK 1024u // slots grow by

DEFINE_SLAB(node_slab, struct gnode);
static TAILQ_HEAD(gnode_head, gnode) lru = TAILQ_HEAD_INITIALIZER(lru);
static struct slot *slots;
static uint32_t nslots, free_slot = NO_SLOT, live;
static unsigned fd_limit, fds_open, fds_detached;
static struct gnode *roots[GOFER_MAX_TREES];
static unsigned nroots;

unsigned nodes_count(void)
{
	return live;
}

unsigned nodes_open_fds(void)
{
	return fds_open;
}

uint64_t node_id(const struct gnode *n)
{
	return (uint64_t)slots[n->slot].gen << 32 | n->slot;
}

struct gnode *node_find(uint64_t id)
{
	uint32_t s = (uint32_t)id;

	if (s >= nslots || !slots[s].node || slots[s].gen != id >> 32 || !slots[s].node->client)
		return NULL;
	return slots[s].node;
}

static int slots_grow(void)
{
	struct slot *n;

	if (nslots + CHUNK > NODES_MAX)
		return -ENFILE;
	n = krealloc(slots, nslots * sizeof(*n), (nslots + CHUNK) * sizeof(*n));
	if (!n)
		return -ENOMEM;
	slots = n;
	for (uint32_t i = nslots + CHUNK; i-- > nslots;) {
		slots[i].gen = 1;
		slots[i].next = free_slot;
		free_slot = i;
	}
	nslots += CHUNK;
	return 0;
}

static int node_alloc(struct gnode **ret)
{
	struct gnode *n;
	int r;

	if (free_slot == NO_SLOT) {
		r = slots_grow();
		if (r)
			return r;
	}
	n = SLAB_NEW(node_slab, struct gnode);
	if (!n)
		return -ENOMEM;
	n->slot = free_slot;
	n->fd = -1;
	n->refs = 1;
	free_slot = slots[n->slot].next;
	slots[n->slot].node = n;
	live++;
	*ret = n;
	return 0;
}

static bool fd_is_cached(const struct gnode *n)
{
	return n->fd >= 0 && n->parent != n && !n->detached;
}

static void fd_drop(struct gnode *n)
{
	if (n->fd < 0)
		return;
	if (fd_is_cached(n)) {
		TAILQ_REMOVE(&lru, n, lru);
		fds_open--;
	} else if (n->detached) {
		fds_detached--;
	}
	close(n->fd);
	n->fd = -1;
}

static void fd_cache(struct gnode *n, int fd)
{
	while (fds_open >= fd_limit)
		fd_drop(TAILQ_LAST(&lru, gnode_head));
	n->fd = fd;
	fds_open++;
	TAILQ_INSERT_HEAD(&lru, n, lru);
}

// Iterative: the last child of a chain of directories may take all of them along.
static void node_unref(struct gnode *n)
{
	while (--n->refs == 0) {
		struct gnode *parent = n->parent;
		struct slot *s = &slots[n->slot];

		fd_drop(n);
		kfree(n->name);
		s->node = NULL;
		s->gen = s->gen == UINT32_MAX ? 1 : s->gen + 1;
		s->next = free_slot;
		free_slot = n->slot;
		slab_free(&node_slab, n);
		live--;
		if (parent == n)
			return;
		n = parent;
	}
}

int nodes_init(const struct gofer_config *cfg, unsigned max_fds)
{
	fd_limit = MAX(max_fds, 16u);
	for (unsigned i = 0; i < cfg->ntrees; i++) {
		struct gp_attr a;
		struct gnode *n;
		int r = attr_at(cfg->trees[i].root_fd, "", &a);

		if (r)
			return r;
		if (!S_ISDIR(a.mode) && !S_ISREG(a.mode))
			return -ENOTDIR;
		r = node_alloc(&n);
		if (r)
			return r;
		n->parent = n;
		n->dev = a.dev;
		n->ino = a.ino;
		n->type = a.mode & S_IFMT;
		n->tree = (uint16_t)i;
		n->read_only = cfg->trees[i].read_only;
		n->fd = cfg->trees[i].root_fd;
		n->writable = !n->read_only && (fcntl(n->fd, F_GETFL) & O_ACCMODE) == O_RDWR;
		roots[nroots++] = n;
	}
	return 0;
}

void nodes_fini(void)
{
	for (uint32_t i = 0; i < nslots; i++)
		if (slots[i].node && slots[i].node->client && slots[i].node->parent != slots[i].node)
			node_forget(slots[i].node);
	for (unsigned i = 0; i < nroots; i++)
		node_unref(roots[i]);
	kassert(live == 0);
	kfree(slots);
	slots = NULL;
	nslots = nroots = 0;
	free_slot = NO_SLOT;
}

int node_root(uint32_t tree, struct gnode **ret)
{
	if (tree >= nroots)
		return -ENOENT;
	roots[tree]->client = true;
	*ret = roots[tree];
	return 0;
}

int node_new(struct gnode *parent, const char *name, const struct gp_attr *a, int fd, struct gnode **ret)
{
	struct gnode *n;
	int r;

	r = node_alloc(&n);
	if (r)
		return r;
	n->parent = n; // until it is complete
	n->name = kstrdup(name);
	if (!n->name) {
		node_unref(n);
		return -ENOMEM;
	}
	n->parent = parent;
	parent->refs++;
	n->dev = a->dev;
	n->ino = a->ino;
	n->type = a->mode & S_IFMT;
	n->tree = parent->tree;
	n->read_only = parent->read_only;
	n->client = true;
	if (fd >= 0)
		fd_cache(n, fd);
	*ret = n;
	return 0;
}

void node_forget(struct gnode *n)
{
	if (!n->client || n->parent == n) // a root stays for as long as the gofer runs
		return;
	n->client = false;
	node_unref(n);
}

static int dir_fd(struct gnode *n, int *ret)
{
	struct gp_attr a;
	int dirfd, fd, r;

	if (n->type != S_IFDIR)
		return -ENOTDIR;
	if (n->fd >= 0) {
		if (fd_is_cached(n)) {
			TAILQ_REMOVE(&lru, n, lru);
			TAILQ_INSERT_HEAD(&lru, n, lru);
		}
		*ret = n->fd;
		return 0;
	}
	if (n->detached)
		return -ESTALE;
	r = dir_fd(n->parent, &dirfd);
	if (r)
		return r;
	fd = openat(dirfd, n->name, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? -ESTALE : -errno;
	r = attr_at(fd, "", &a);
	if (!r && (a.dev != n->dev || a.ino != n->ino))
		r = -ESTALE;
	if (r) {
		close(fd);
		return r;
	}
	fd_cache(n, fd);
	*ret = fd;
	return 0;
}

int node_dir_fd(struct gnode *n, int *ret)
{
	unsigned hops = 0;

	for (const struct gnode *p = n; p->fd < 0 && !p->detached; p = p->parent)
		if (++hops > DEPTH_MAX) // what dir_fd() would recurse
			return -ENAMETOOLONG;
	return dir_fd(n, ret);
}

int node_place(struct gnode *n, int *ret_fd, const char **ret_name)
{
	int r;

	if (n->parent == n || n->detached) {
		if (n->fd < 0)
			return -ESTALE;
		*ret_fd = n->fd;
		*ret_name = "";
		return 0;
	}
	r = node_dir_fd(n->parent, ret_fd);
	if (!r)
		*ret_name = n->name;
	return r;
}

int node_stat(struct gnode *n, struct gp_attr *ret)
{
	struct gp_attr a;
	const char *name;
	int fd, r = node_place(n, &fd, &name);

	if (!r)
		r = attr_at(fd, name, &a);
	if (r)
		return r == -ENOENT || r == -ENOTDIR ? -ESTALE : r;
	if (a.dev != n->dev || a.ino != n->ino || (a.mode & S_IFMT) != n->type)
		return -ESTALE;
	*ret = a;
	return 0;
}

int node_open(struct gnode *n, int flags, int *ret)
{
	const char *name;
	struct gp_attr a;
	int dirfd, fd, r;

	if (n->type == S_IFDIR) {
		r = node_dir_fd(n, &dirfd);
		if (r)
			return r;
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		*ret = fd;
		return 0;
	}
	if (n->type != S_IFREG)
		return -ENXIO;
	r = node_place(n, &dirfd, &name);
	if (r)
		return r;
	if (!*name) { // no name to open it by: the one description there is
		if ((flags & O_ACCMODE) != O_RDONLY && !n->writable)
			return -EACCES;
		if ((flags & O_TRUNC) && ftruncate(dirfd, 0))
			return -errno;
		fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return -errno;
		*ret = fd;
		return 0;
	}
	return open_checked(dirfd, name, flags, n->dev, n->ino, &a, ret);
}

void node_detach_prepare(struct gnode *n, int *ret_fd, bool *ret_writable)
{
	int fd, r = -EMFILE;

	*ret_fd = -1;
	*ret_writable = false;
	if (n->detached || n->parent == n || fds_detached >= fd_limit / 2)
		return;
	if (n->type == S_IFREG && !n->read_only)
		r = node_open(n, O_RDWR, &fd);
	if (!r)
		*ret_writable = true;
	else if (n->type == S_IFREG || n->type == S_IFDIR)
		r = node_open(n, O_RDONLY, &fd);
	if (!r)
		*ret_fd = fd;
}

void node_detach(struct gnode *n, int fd, bool writable)
{
	if (n->detached || n->parent == n) {
		if (fd >= 0)
			close(fd);
		return;
	}
	fd_drop(n);
	n->detached = true;
	n->writable = writable;
	n->fd = fd;
	if (fd >= 0)
		fds_detached++;
}

int node_moved(struct gnode *n, struct gnode *new_parent, const char *new_name)
{
	char *name;

	if (n->parent == n)
		return -EINVAL;
	for (const struct gnode *p = new_parent; p != p->parent; p = p->parent)
		if (p == n) // a loop: the sentry lies about what moved
			return -EINVAL;
	name = kstrdup(new_name);
	if (!name)
		return -ENOMEM;
	if (n->detached) {
		fd_drop(n);
		n->detached = n->writable = false;
	}
	kfree(n->name);
	n->name = name;
	if (new_parent != n->parent) {
		struct gnode *old = n->parent;

		new_parent->refs++;
		n->parent = new_parent;
		node_unref(old);
	}
	return 0;
}
