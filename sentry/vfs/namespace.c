// What is done with mounts: mount(2), umount2(2), pivot_root(2); namespaces; what tasks share of them.
#include <sys/mount.h>

#include "sentry/vfs/internal.h"

DEFINE_SLAB(ns_slab, struct mnt_ns);
DEFINE_SLAB(fs_slab, struct fs_struct);

void (*vfs_for_each_fs)(void (*fn)(struct fs_struct *fs, void *arg), void *arg);

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
	mnt_attach(ns, m, to.mnt, to.dentry);
	mnt_propagate(m, 0);
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

	for (m = LIST_FIRST(&from->children); m; m = mnt_next(m, from)) {
		bool skip = (m->propagation == MNT_UNBINDABLE && bind) || !m->parent->copy ||
			    (m->parent == from && !d_is_ancestor(d, m->mountpoint));

		m->copy = NULL;
		if (!skip) {
			c = ns->nmounts < MNT_NS_MAX_MOUNTS ? mnt_clone(m, m->root) : NULL;
			if (!c)
				return -ENOSPC;
			m->copy = c;
			mnt_attach(ns, c, m->parent->copy, m->mountpoint);
		}
	}
	return 0;
}

static void clear_copies(struct mount *from)
{
	for (struct mount *m = from; m; m = mnt_next(m, from))
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
		mnt_attach(ns, m, to.mnt, to.dentry);
		mnt_propagate(m, 0);
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
			mnt_detach_tree(m);
			clear_copies(from->mnt);
			return err;
		}
		clear_copies(from->mnt);
		mnt_attach(ns, m, to.mnt, to.dentry);
		mnt_propagate(m, 0);
		while ((c = TAILQ_FIRST(&tmp.mounts))) {
			TAILQ_REMOVE(&tmp.mounts, c, ns_link);
			TAILQ_INSERT_TAIL(&ns->mounts, c, ns_link);
			ns->nmounts++;
			c->ns = ns;
			mnt_propagate(c, 0);
		}
		mnt_ns_changed(ns);
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
	mnt_detach(m);
	mnt_attach(ns, m, to.mnt, to.dentry);
	mnt_propagate(m, 0);
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
	mnt_ns_changed(m->ns);
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
	mnt_propagate_umount(m);
	mnt_detach_tree(m);
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
	mnt_detach(new);
	mnt_detach(root);
	mnt_attach(ns, new, root_parent, root_at);
	if (!root_parent)
		ns->root = new;
	mnt_attach(ns, root, old, put_old->dentry);
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
	mnt_attach(ns, m, NULL, NULL);
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
	mnt_detach_tree(ns->root);
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
	mnt_attach(ns, m, NULL, NULL);
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
