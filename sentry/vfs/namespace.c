// Mounts and their namespaces: mount(2), umount2(2), pivot_root(2), mount_namespaces(7).
#include <sys/mount.h>

#include "sentry/vfs/internal.h"

#define MOUNT_HASH_BITS 9
#define PROPAGATE_DEPTH 8

DEFINE_SLAB(mount_slab, struct mount);
DEFINE_SLAB(ns_slab, struct mnt_ns);
DEFINE_SLAB(fs_slab, struct fs_struct);

static LIST_HEAD(mount_head, mount) mount_hash[1 << MOUNT_HASH_BITS];
static LIST_HEAD(, mount) peers = LIST_HEAD_INITIALIZER(peers); // every mount with a peer or master group
static int last_group;

void (*vfs_for_each_fs)(void (*fn)(struct fs_struct *fs, void *arg), void *arg);

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

static struct mount *mnt_alloc(struct super_block *sb, struct dentry *root, unsigned flags)
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

static struct mount *mnt_clone(const struct mount *old, struct dentry *root)
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

static void ns_changed(struct mnt_ns *ns)
{
	ns->seq++;
	waitq_wake_all(&ns->changed, 0);
}

// Puts m on (parent, d); the namespace takes over the caller's reference to m.
static void attach(struct mnt_ns *ns, struct mount *m, struct mount *parent, struct dentry *d)
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
	ns_changed(ns);
}

// Takes m from its place; the namespace's reference becomes the caller's.
static void detach(struct mount *m)
{
	struct mnt_ns *ns = m->ns;
	struct mount *parent = m->parent;
	struct dentry *d = m->mountpoint;

	TAILQ_REMOVE(&ns->mounts, m, ns_link);
	ns->nmounts--;
	if (ns->root == m)
		ns->root = NULL;
	m->ns = NULL;
	ns_changed(ns);
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
static struct mount *next_mount(struct mount *m, const struct mount *root)
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
static void detach_tree(struct mount *m)
{
	while (m) {
		struct mount *leaf = m, *up;

		while (!LIST_EMPTY(&leaf->children))
			leaf = LIST_FIRST(&leaf->children);
		up = leaf == m ? NULL : m;
		detach(leaf);
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
static void propagate_mount(struct mount *m, int depth)
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
		attach(q->ns, c, q, m->mountpoint);
		if (q->peer_group != group)
			propagate_mount(c, depth + 1);
	}
}

static void propagate_umount(struct mount *m)
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
			detach(c);
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
	if (at->dentry != m->root || !m->ns)
		return -EINVAL;
	for (; m; m = ms_flags & MS_REC ? next_mount(m, at->mnt) : NULL)
		set_propagation_one(m, type);
	ns_changed(at->mnt->ns);
	return 0;
}

// --- mounting --------------------------------------------------------------------------------------------

unsigned mnt_flags_from_ms(uint64_t ms)
{
	unsigned f = 0;

	f |= ms & MS_RDONLY ? MNT_RDONLY : 0;
	f |= ms & MS_NOSUID ? MNT_NOSUID : 0;
	f |= ms & MS_NODEV ? MNT_NODEV : 0;
	f |= ms & MS_NOEXEC ? MNT_NOEXEC : 0;
	f |= ms & MS_NODIRATIME ? MNT_NODIRATIME : 0;
	f |= ms & 256 ? MNT_NOSYMFOLLOW : 0; // MS_NOSYMFOLLOW
	if (ms & MS_NOATIME)
		f |= MNT_NOATIME;
	else if (!(ms & MS_STRICTATIME))
		f |= MNT_RELATIME;
	return f;
}

// Where a mount on `at` goes: on top of what is mounted there already. Borrowed.
static int mount_target(struct mnt_ns *ns, const struct path *at, const struct dentry *root, struct path *ret)
{
	struct mount *m;

	*ret = *at;
	while (ret->dentry->nmounts && (m = mnt_lookup(ret->mnt, ret->dentry))) {
		ret->mnt = m;
		ret->dentry = m->root;
	}
	if (!ret->mnt || ret->mnt->ns != ns)
		return -EINVAL;
	if (!ret->dentry->inode || (ret->dentry->parent != ret->dentry && !ret->dentry->hashed))
		return -ENOENT;
	if (S_ISDIR(root->inode->mode) != S_ISDIR(ret->dentry->inode->mode))
		return -ENOTDIR;
	if (ns->nmounts >= MNT_NS_MAX_MOUNTS || ret->dentry->nmounts == UINT16_MAX)
		return -ENOSPC;
	return 0;
}

int vfs_mount(struct mnt_ns *ns, const struct path *at, struct super_block *sb, struct dentry *root, unsigned flags)
{
	struct path to;
	struct mount *m;
	int err = mount_target(ns, at, root ? root : sb->root, &to);

	if (err)
		return err;
	m = mnt_alloc(sb, root ? root : sb->root, flags);
	if (!m)
		return -ENOMEM;
	attach(ns, m, to.mnt, to.dentry);
	propagate_mount(m, 0);
	return 0;
}

int vfs_new_mount(const struct path *at, const char *type_name, const char *source, uint64_t ms_flags, unsigned mnt_flags, const char *data)
{
	const struct fs_type *type = fs_find(type_name);
	struct mount_opts o = {.source = source, .data = data, .ms_flags = ms_flags};
	struct super_block *sb;
	int err;

	if (!type)
		return -ENODEV;
	if (!(type->flags & FS_GUEST))
		return -EPERM;
	err = type->mount(type, &o, &sb);
	if (err)
		return err;
	if (!sb->source && source)
		sb->source = kstrdup(source);
	err = at->mnt && at->mnt->ns ? vfs_mount(at->mnt->ns, at, sb, NULL, mnt_flags) : -EINVAL;
	sb_put(sb);
	return err;
}

static bool mounted_in(const struct mount *m, const struct mnt_ns *ns)
{
	return m && m->ns && m->ns == ns;
}

// Copies the mounts below `from` (whose own copy is from->copy) that lie below dentry d.
static int copy_children(struct mnt_ns *ns, struct mount *from, const struct dentry *d, bool bind)
{
	struct mount *m, *c;

	for (m = LIST_FIRST(&from->children); m; m = next_mount(m, from)) {
		bool skip = (m->propagation == MNT_UNBINDABLE && bind) || !m->parent->copy ||
			    (m->parent == from && !d_is_ancestor(d, m->mountpoint));

		m->copy = NULL;
		if (!skip) {
			c = ns->nmounts < MNT_NS_MAX_MOUNTS ? mnt_clone(m, m->root) : NULL;
			if (!c)
				return -ENOSPC;
			m->copy = c;
			attach(ns, c, m->parent->copy, m->mountpoint);
		}
	}
	return 0;
}

static void clear_copies(struct mount *from)
{
	for (struct mount *m = from; m; m = next_mount(m, from))
		m->copy = NULL;
}

int vfs_bind_mount(const struct path *from, const struct path *at, bool recursive)
{
	struct mnt_ns *ns = vfs_self()->fs->mnt_ns;
	struct mount *m;
	struct path to;
	int err;

	if (!mounted_in(from->mnt, ns) || from->mnt->propagation == MNT_UNBINDABLE)
		return -EINVAL;
	if (!from->dentry->inode || (from->dentry->parent != from->dentry && !from->dentry->hashed))
		return -ENOENT;
	err = mount_target(ns, at, from->dentry, &to);
	if (err)
		return err;
	m = mnt_clone(from->mnt, from->dentry);
	if (!m)
		return -ENOMEM;
	if (!recursive) {
		attach(ns, m, to.mnt, to.dentry);
		propagate_mount(m, 0);
	} else {
		struct mnt_ns tmp = {.nmounts = ns->nmounts};
		struct mount *c;

		// The tree is complete before it is attached, or a bind into itself would never end.
		from->mnt->copy = m;
		TAILQ_INIT(&tmp.mounts);
		waitq_init(&tmp.changed);
		err = copy_children(&tmp, from->mnt, from->dentry, true);
		if (err) {
			m->ns = &tmp;
			TAILQ_INSERT_HEAD(&tmp.mounts, m, ns_link);
			detach_tree(m);
			clear_copies(from->mnt);
			return err;
		}
		clear_copies(from->mnt);
		attach(ns, m, to.mnt, to.dentry);
		propagate_mount(m, 0);
		while ((c = TAILQ_FIRST(&tmp.mounts))) {
			TAILQ_REMOVE(&tmp.mounts, c, ns_link);
			TAILQ_INSERT_TAIL(&ns->mounts, c, ns_link);
			ns->nmounts++;
			c->ns = ns;
			propagate_mount(c, 0);
		}
		ns_changed(ns);
	}
	return 0;
}

int vfs_move_mount(const struct path *from, const struct path *at)
{
	struct mnt_ns *ns = vfs_self()->fs->mnt_ns;
	struct mount *m = from->mnt;
	struct path to;
	int err;

	if (!mounted_in(m, ns) || from->dentry != m->root || !m->parent || m->flags & MNT_LOCKED)
		return -EINVAL;
	if (m->parent->peer_group)
		return -EINVAL;
	err = mount_target(ns, at, m->root, &to);
	if (err)
		return err;
	for (const struct mount *p = to.mnt; p; p = p->parent)
		if (p == m)
			return -ELOOP;
	path_get(&to);
	detach(m);
	attach(ns, m, to.mnt, to.dentry);
	propagate_mount(m, 0);
	path_put(&to);
	return 0;
}

int vfs_remount(const struct path *at, uint64_t ms_flags, const char *data)
{
	struct mount *m = at->mnt;
	struct mount_opts o = {.data = data, .ms_flags = ms_flags};
	int err;

	if (!mounted_in(m, vfs_self()->fs->mnt_ns) || at->dentry != m->root)
		return -EINVAL;
	if (!(m->sb->type->flags & FS_GUEST))
		return vfs_remount_bind(at, mnt_flags_from_ms(ms_flags));
	err = m->sb->ops->remount ? m->sb->ops->remount(m->sb, &o) : 0;
	if (err)
		return err;
	if (ms_flags & MS_RDONLY)
		m->sb->flags |= SB_RDONLY;
	else
		m->sb->flags &= ~(unsigned)SB_RDONLY;
	return vfs_remount_bind(at, mnt_flags_from_ms(ms_flags));
}

int vfs_remount_bind(const struct path *at, unsigned mnt_flags)
{
	struct mount *m = at->mnt;

	if (!mounted_in(m, vfs_self()->fs->mnt_ns) || at->dentry != m->root)
		return -EINVAL;
	if (m->flags & MNT_LOCKED && (m->flags & ~mnt_flags) & (MNT_RDONLY | MNT_NOSUID | MNT_NODEV | MNT_NOEXEC))
		return -EPERM; // what the operator locked stays
	m->flags = mnt_flags | (m->flags & MNT_LOCKED);
	ns_changed(m->ns);
	return 0;
}

// --- unmounting ---------------------------------------------------------------------------------------------

int vfs_umount(const struct path *p, int flags)
{
	struct mount *m = p->mnt;
	bool busy;

	if (!m || p->dentry != m->root || !mounted_in(m, vfs_self()->fs->mnt_ns) || m->flags & MNT_LOCKED)
		return -EINVAL;
	if (flags & MNT_EXPIRE && flags & (MNT_FORCE | MNT_DETACH))
		return -EINVAL;
	if (!m->parent)
		return -EINVAL;
	// The namespace's reference and the caller's path are not use.
	busy = m->refs.n > 2 || !LIST_EMPTY(&m->children);
	if (flags & MNT_EXPIRE) {
		if (busy)
			return -EBUSY;
		if (!m->expire) {
			m->expire = true;
			return -EAGAIN;
		}
	}
	if (busy && !(flags & MNT_DETACH))
		return -EBUSY;
	propagate_umount(m);
	detach_tree(m);
	return 0;
}

struct pivot {
	struct path from, to;
};

static void pivot_fs(struct fs_struct *fs, void *arg)
{
	const struct pivot *pv = arg;
	struct path *ps[] = {&fs->root, &fs->cwd};

	for (size_t i = 0; i < ARRAY_SIZE(ps); i++) {
		struct path old = *ps[i];

		if (!path_equal(&old, &pv->from))
			continue;
		*ps[i] = pv->to;
		path_get(ps[i]);
		path_put(&old);
	}
}

// Is (mnt, d) below root?
static bool reachable(const struct mount *mnt, const struct dentry *d, const struct path *root)
{
	while (mnt != root->mnt && mnt->parent) {
		d = mnt->mountpoint;
		mnt = mnt->parent;
	}
	return mnt == root->mnt && d_is_ancestor(root->dentry, d);
}

int vfs_pivot_root(const struct path *new_root, const struct path *put_old)
{
	struct fs_struct *fs = vfs_self()->fs;
	struct mnt_ns *ns = fs->mnt_ns;
	struct mount *new = new_root->mnt, *old = put_old->mnt, *root = fs->root.mnt, *root_parent;
	struct pivot pv = {fs->root, *new_root};
	struct dentry *root_at;

	if (!mounted_in(new, ns) || !mounted_in(old, ns) || !mounted_in(root, ns) || new->flags & MNT_LOCKED)
		return -EINVAL;
	if (new->propagation == MNT_SHARED && new->parent && new->parent->peer_group)
		return -EINVAL;
	if (old->peer_group || (new->parent && new->parent->peer_group) || (root->parent && root->parent->peer_group))
		return -EINVAL;
	if (!S_ISDIR(new_root->dentry->inode->mode) || !S_ISDIR(put_old->dentry->inode->mode))
		return -ENOTDIR;
	if (new == root || old == root)
		return -EBUSY;
	if (fs->root.dentry != root->root || new_root->dentry != new->root || !new->parent)
		return -EINVAL;
	if (!reachable(old, put_old->dentry, new_root) || !reachable(new, new_root->dentry, &fs->root))
		return -EINVAL;
	path_get(&pv.from);
	path_get(&pv.to);
	root_parent = root->parent ? mnt_get(root->parent) : NULL;
	root_at = root->parent ? d_get(root->mountpoint) : NULL;
	detach(new);
	detach(root);
	attach(ns, new, root_parent, root_at);
	if (!root_parent)
		ns->root = new;
	attach(ns, root, old, put_old->dentry);
	mnt_put(root_parent);
	if (root_at)
		d_put(root_at);
	if (vfs_for_each_fs)
		vfs_for_each_fs(pivot_fs, &pv);
	else
		pivot_fs(fs, &pv);
	path_put(&pv.from);
	path_put(&pv.to);
	return 0;
}

// --- namespaces ------------------------------------------------------------------------------------------------

static struct mnt_ns *ns_alloc(void)
{
	static uint64_t last_ino = 0xf0000000;
	struct mnt_ns *ns = SLAB_NEW(ns_slab, struct mnt_ns);

	if (!ns)
		return NULL;
	ref_init(&ns->refs, 1);
	TAILQ_INIT(&ns->mounts);
	waitq_init(&ns->changed);
	ns->ino = last_ino++;
	return ns;
}

int mnt_ns_new(struct super_block *sb, unsigned flags, struct mnt_ns **ret, struct path *ret_root)
{
	struct mnt_ns *ns = ns_alloc();
	struct mount *m = ns ? mnt_alloc(sb, sb->root, flags) : NULL;

	if (!m) {
		if (ns)
			slab_free(&ns_slab, ns);
		return -ENOMEM;
	}
	attach(ns, m, NULL, NULL);
	ns->root = m;
	*ret = ns;
	*ret_root = (struct path){m, m->root};
	path_get(ret_root);
	return 0;
}

struct mnt_ns *mnt_ns_get(struct mnt_ns *ns)
{
	ref_get(&ns->refs);
	return ns;
}

void mnt_ns_put(struct mnt_ns *ns)
{
	if (!ns || !ref_put(&ns->refs))
		return;
	detach_tree(ns->root);
	kassert(ns->nmounts == 0);
	waitq_detach_all(&ns->changed);
	slab_free(&ns_slab, ns);
}

static void path_to_copy(struct path *p)
{
	struct path old = *p;

	if (!old.mnt || !old.mnt->copy)
		return;
	p->mnt = old.mnt->copy;
	path_get(p);
	path_put(&old);
}

int mnt_ns_copy(struct mnt_ns *old, struct fs_struct *fs, struct mnt_ns **ret)
{
	struct mnt_ns *ns = ns_alloc();
	struct mount *m = ns ? mnt_clone(old->root, old->root->root) : NULL;
	int err;

	if (!m) {
		if (ns)
			slab_free(&ns_slab, ns);
		return -ENOMEM;
	}
	ns->owner = old->owner;
	attach(ns, m, NULL, NULL);
	ns->root = m;
	old->root->copy = m;
	err = copy_children(ns, old->root, old->root->root, false);
	if (!err && fs) {
		path_to_copy(&fs->root);
		path_to_copy(&fs->cwd);
	}
	TAILQ_FOREACH(m, &old->mounts, ns_link)
		m->copy = NULL;
	if (err) {
		mnt_ns_put(ns);
		return err;
	}
	*ret = ns;
	return 0;
}

// --- what tasks share of it: root, current directory, umask ---------------------------------------------------

struct fs_struct *fs_struct_new(void)
{
	struct fs_struct *fs = SLAB_NEW(fs_slab, struct fs_struct);

	if (!fs)
		return NULL;
	ref_init(&fs->refs, 1);
	fs->umask = 022;
	return fs;
}

struct fs_struct *fs_struct_copy(const struct fs_struct *old)
{
	struct fs_struct *fs = fs_struct_new();

	if (!fs)
		return NULL;
	fs->root = old->root;
	fs->cwd = old->cwd;
	fs->umask = old->umask;
	path_get(&fs->root);
	path_get(&fs->cwd);
	fs->mnt_ns = old->mnt_ns ? mnt_ns_get(old->mnt_ns) : NULL;
	return fs;
}

void fs_struct_put(struct fs_struct *fs)
{
	if (!fs || !ref_put(&fs->refs))
		return;
	path_put(&fs->cwd);
	path_put(&fs->root);
	mnt_ns_put(fs->mnt_ns);
	slab_free(&fs_slab, fs);
}
