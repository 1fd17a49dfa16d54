// Mounts: their life, their places in the tree, and how changes spread among peers (mount_namespaces(7)).
#include <sys/mount.h>

#include "sentry/vfs/internal.h"

#define MOUNT_HASH_BITS 9
#define PROPAGATE_DEPTH 8

DEFINE_SLAB(mount_slab, struct mount);

static LIST_HEAD(mount_head, mount) mount_hash[1 << MOUNT_HASH_BITS];
static LIST_HEAD(, mount) peers = LIST_HEAD_INITIALIZER(peers); // every mount with a peer or master group
static int last_group;

static struct mount_head *hash_of(const struct mount *mnt, const struct dentry *d)
{
	uint64_t h = ((uintptr_t)mnt >> 4) * 31 + ((uintptr_t)d >> 4);

	return &mount_hash[h * 0x9e3779b97f4a7c15ULL >> (64 - MOUNT_HASH_BITS)];
}

struct mount *mnt_lookup(const struct mount *mnt, const struct dentry *d)
{
	struct mount *m;

	LIST_FOREACH(m, hash_of(mnt, d), hash_link)
		if (m->parent == mnt && m->mountpoint == d)
			return m;
	return NULL;
}

// --- life ---------------------------------------------------------------------------------------------

static void set_groups(struct mount *m, int peer_group, int master_group)
{
	bool was = m->peer_group || m->master_group, is = peer_group || master_group;

	m->peer_group = peer_group;
	m->master_group = master_group;
	if (was && !is)
		LIST_REMOVE(m, peer_link);
	else if (!was && is)
		LIST_INSERT_HEAD(&peers, m, peer_link);
}

struct mount *mnt_alloc(struct super_block *sb, struct dentry *root, unsigned flags)
{
	static int last_id;
	struct mount *m = SLAB_NEW(mount_slab, struct mount);

	if (!m)
		return NULL;
	ref_init(&m->refs, 1);
	m->id = ++last_id;
	m->flags = flags;
	m->sb = sb_get(sb);
	m->root = d_get(root);
	LIST_INIT(&m->children);
	return m;
}

struct mount *mnt_get(struct mount *m)
{
	ref_get(&m->refs);
	return m;
}

void mnt_put(struct mount *m)
{
	if (!m || !ref_put(&m->refs))
		return;
	kassert(!m->ns && LIST_EMPTY(&m->children));
	set_groups(m, 0, 0);
	d_put(m->root);
	sb_put(m->sb);
	kfree(m->source);
	slab_free(&mount_slab, m);
}

struct mount *mnt_clone(const struct mount *old, struct dentry *root)
{
	struct mount *m = mnt_alloc(old->sb, root, old->flags);

	if (!m)
		return NULL;
	m->propagation = old->propagation;
	set_groups(m, old->peer_group, old->master_group);
	if (old->source) {
		m->source = kstrdup(old->source);
		if (!m->source) {
			mnt_put(m);
			return NULL;
		}
	}
	return m;
}

void mnt_ns_changed(struct mnt_ns *ns)
{
	ns->seq++;
	waitq_wake_all(&ns->changed, 0);
}

// Puts m on (parent, d); the namespace takes over the caller's reference to m.
void mnt_attach(struct mnt_ns *ns, struct mount *m, struct mount *parent, struct dentry *d)
{
	if (parent) {
		m->parent = mnt_get(parent);
		m->mountpoint = d_get(d);
		kassert(d->nmounts < UINT16_MAX);
		d->nmounts++;
		LIST_INSERT_HEAD(hash_of(parent, d), m, hash_link);
		LIST_INSERT_HEAD(&parent->children, m, sibling);
	}
	m->ns = ns;
	TAILQ_INSERT_TAIL(&ns->mounts, m, ns_link);
	ns->nmounts++;
	mnt_ns_changed(ns);
}

// Takes m from its place; the namespace's reference becomes the caller's.
void mnt_detach(struct mount *m)
{
	struct mnt_ns *ns = m->ns;
	struct mount *parent = m->parent;
	struct dentry *d = m->mountpoint;

	TAILQ_REMOVE(&ns->mounts, m, ns_link);
	ns->nmounts--;
	if (ns->root == m)
		ns->root = NULL;
	m->ns = NULL;
	mnt_ns_changed(ns);
	if (!parent)
		return;
	LIST_REMOVE(m, hash_link);
	LIST_REMOVE(m, sibling);
	m->parent = NULL;
	m->mountpoint = NULL;
	d->nmounts--;
	d_put(d);
	mnt_put(parent);
}

// The next mount of the tree below root, parents first.
struct mount *mnt_next(struct mount *m, const struct mount *root)
{
	struct mount *next = LIST_FIRST(&m->children);

	while (!next) {
		if (m == root)
			return NULL;
		next = LIST_NEXT(m, sibling);
		m = m->parent;
	}
	return next;
}

// Detaches m and all that is mounted below it.
void mnt_detach_tree(struct mount *m)
{
	while (m) {
		struct mount *leaf = m, *up;

		while (!LIST_EMPTY(&leaf->children))
			leaf = LIST_FIRST(&leaf->children);
		up = leaf == m ? NULL : m;
		mnt_detach(leaf);
		mnt_put(leaf);
		m = up;
	}
}

// --- propagation ------------------------------------------------------------------------------------------

static bool hears_of(const struct mount *q, int group)
{
	return q->ns && (q->peer_group == group || q->master_group == group);
}

// m was attached on a shared mount: the same appears on its peers and slaves.
void mnt_propagate(struct mount *m, int depth)
{
	struct mount *p = m->parent, *q, *c;
	int group = p ? p->peer_group : 0;

	if (!group || depth > PROPAGATE_DEPTH)
		return;
	if (!m->peer_group) {
		set_groups(m, ++last_group, m->master_group);
		m->propagation = MNT_SHARED;
	}
	LIST_FOREACH(q, &peers, peer_link) {
		if (q == p || !hears_of(q, group) || !d_is_ancestor(q->root, m->mountpoint) || mnt_lookup(q, m->mountpoint) ||
		    q->ns->nmounts >= MNT_NS_MAX_MOUNTS)
			continue;
		c = mnt_clone(m, m->root);
		if (!c) {
			log_warn("mount: no memory to propagate a mount");
			return;
		}
		if (q->peer_group != group) {
			set_groups(c, 0, m->peer_group);
			c->propagation = MNT_SLAVE;
		}
		mnt_attach(q->ns, c, q, m->mountpoint);
		if (q->peer_group != group)
			mnt_propagate(c, depth + 1);
	}
}

void mnt_propagate_umount(struct mount *m)
{
	int group = m->parent ? m->parent->peer_group : 0;
	struct mount *q, *c;
	bool again = group != 0;

	while (again) {
		again = false;
		LIST_FOREACH(q, &peers, peer_link) {
			if (q == m->parent || !hears_of(q, group))
				continue;
			c = mnt_lookup(q, m->mountpoint);
			if (!c || c->sb != m->sb || !LIST_EMPTY(&c->children))
				continue;
			mnt_detach(c);
			mnt_put(c);
			again = true; // the list may have changed under us
			break;
		}
	}
}

static void set_propagation_one(struct mount *m, enum mnt_propagation type)
{
	struct mount *q;
	int group = m->peer_group;

	switch (type) {
	case MNT_SHARED:
		if (!group)
			set_groups(m, ++last_group, m->master_group);
		break;
	case MNT_SLAVE:
		if (group) { // without other peers there is no master left to follow
			bool others = false;

			LIST_FOREACH(q, &peers, peer_link)
				others |= q != m && q->peer_group == group;
			set_groups(m, 0, others ? group : m->master_group);
		}
		if (!m->master_group)
			type = MNT_PRIVATE;
		break;
	default:
		set_groups(m, 0, 0);
		break;
	}
	m->propagation = type;
}

int vfs_set_propagation(const struct path *at, uint64_t ms_flags)
{
	struct mount *m = at->mnt;
	enum mnt_propagation type;

	switch (ms_flags & ~(uint64_t)(MS_REC | MS_SILENT)) {
	case MS_SHARED:
		type = MNT_SHARED;
		break;
	case MS_SLAVE:
		type = MNT_SLAVE;
		break;
	case MS_PRIVATE:
		type = MNT_PRIVATE;
		break;
	case MS_UNBINDABLE:
		type = MNT_UNBINDABLE;
		break;
	default:
		return -EINVAL;
	}
	if (!m || at->dentry != m->root || !m->ns) // a pipe's path, from /proc/PID/fd, has no mount
		return -EINVAL;
	for (; m; m = ms_flags & MS_REC ? mnt_next(m, at->mnt) : NULL)
		set_propagation_one(m, type);
	mnt_ns_changed(at->mnt->ns);
	return 0;
}

