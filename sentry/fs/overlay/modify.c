// Making, removing and renaming: in the upper layer, with whiteouts where lower names must not show.
#include <fcntl.h>
#include <stdio.h>

#include "sentry/fs/overlay/internal.h"

#define WHITEOUT_MODE (S_IFCHR)

void ovl_dir_changed(struct ovl_inode *dir)
{
	ovl_mlist_put(dir->list);
	dir->list = NULL;
	dir->list_seq++;
	if (!dir->upper)
		return;
	ovl_sync_attr(dir);
	if (!dir->ndirs)
		dir->inode.nlink = dir->upper->nlink;
}

// --- whiteouts ----------------------------------------------------------------------------------
// The upper directory is locked.

static int whiteout_make(struct inode *udir, struct dentry *d)
{
	struct inode *w;
	int r = udir->ops->mknod ? udir->ops->mknod(udir, d, WHITEOUT_MODE, 0, &w) : -EPERM;

	if (!r)
		inode_put(w);
	return r;
}

// Removes the whiteout of this name, if there is one. *ret_was: there was.
static int whiteout_clear(struct inode *udir, struct dentry *d, bool *ret_was)
{
	struct inode *w;
	int r = udir->ops->lookup(udir, d->name, &w);

	*ret_was = false;
	if (r)
		return r == -ENOENT ? 0 : r;
	if (!ovl_is_whiteout(w)) {
		inode_put(w);
		return -EEXIST;
	}
	d->inode = w;
	r = udir->ops->unlink(udir, d);
	d->inode = NULL;
	inode_put(w);
	*ret_was = !r;
	return r;
}

// Puts a whiteout where an upper file or empty directory is: at no time does the lower name show.
static int whiteout_replace(struct inode *udir, struct dentry *d, struct inode *upper)
{
	static uint32_t serial;
	struct dentry t = *d;
	struct inode *w;
	char name[32];
	int r;

	snprintf(name, sizeof(name), "#whiteout-%u", ++serial);
	t.name = name;
	t.namelen = (uint8_t)strlen(name);
	t.hash = d_name_hash(name, t.namelen);
	t.inode = NULL;
	r = udir->ops->mknod ? udir->ops->mknod(udir, &t, WHITEOUT_MODE, 0, &w) : -EPERM;
	if (r)
		return r;
	t.inode = w;
	d->inode = upper;
	r = udir->ops->rename(udir, &t, udir, d, RENAME_EXCHANGE);
	if (r) {
		(void)udir->ops->unlink(udir, &t);
	} else {
		t.inode = upper;
		r = S_ISDIR(upper->mode) ? udir->ops->rmdir(udir, &t) : udir->ops->unlink(udir, &t);
		if (r) // only possible for a directory with something in it
			(void)udir->ops->rename(udir, &t, udir, d, RENAME_EXCHANGE);
	}
	inode_put(w);
	return r;
}

// --- making -------------------------------------------------------------------------------------

// A new name of dir: what made it is called with the upper directory locked and the way free.
typedef int (*make_fn)(struct inode *udir, struct dentry *d, void *arg, struct inode **ret);

static int make_name(struct ovl_inode *dir, struct dentry *d, make_fn fn, void *arg, struct inode **ret_upper)
{
	struct dentry ud = ovl_dentry(d, NULL);
	struct inode *upper;
	bool white;
	int r = ovl_copy_up(dir);

	if (r)
		return r;
	klock_lock(&dir->upper->lock);
	r = whiteout_clear(dir->upper, &ud, &white);
	if (!r) {
		r = fn(dir->upper, &ud, arg, &upper);
		if (!r && white && S_ISDIR(upper->mode)) {
			r = upper->ops->setxattr ? upper->ops->setxattr(upper, OVL_OPAQUE, "y", 1, 0) : -EOPNOTSUPP;
			if (r) {
				ud.inode = upper;
				(void)dir->upper->ops->rmdir(dir->upper, &ud);
				inode_put(upper);
				ud.inode = NULL;
			}
		}
		if (r && white)
			(void)whiteout_make(dir->upper, &ud);
	}
	klock_unlock(&dir->upper->lock);
	if (r)
		return r;
	// The name was free: a lower layer can have it only if a whiteout was in the way.
	ovl_set_name(d, white ? OVL_NAME_HIDES : OVL_NAME_FREE);
	ovl_dir_changed(dir);
	ovl_upper_forget(dir, d->name);
	*ret_upper = upper;
	return 0;
}

static int make_inode(struct inode *dir, struct dentry *d, make_fn fn, void *arg, struct inode **ret)
{
	struct inode *upper;
	int r = make_name(OI(dir), d, fn, arg, &upper);

	if (r)
		return r;
	if (S_ISDIR(upper->mode)) {
		r = ovl_iget_dir(OSB(OI(dir)), upper, NULL, 0, NULL, ret);
		if (!r)
			ovl_upper_dir(OI(dir), d->name, OI(*ret));
		return r;
	}
	return ovl_iget(OSB(OI(dir)), upper, NULL, OI(dir), NULL, ret);
}

struct make_arg {
	uint32_t mode;
	uint64_t rdev;
	const char *target;
};

static int make_reg(struct inode *udir, struct dentry *d, void *arg, struct inode **ret)
{
	const struct make_arg *a = arg;

	return udir->ops->create ? udir->ops->create(udir, d, a->mode, ret) : -EROFS;
}

static int make_dir(struct inode *udir, struct dentry *d, void *arg, struct inode **ret)
{
	const struct make_arg *a = arg;

	return udir->ops->mkdir ? udir->ops->mkdir(udir, d, a->mode, ret) : -EPERM;
}

static int make_node(struct inode *udir, struct dentry *d, void *arg, struct inode **ret)
{
	const struct make_arg *a = arg;

	return udir->ops->mknod ? udir->ops->mknod(udir, d, a->mode, a->rdev, ret) : -EPERM;
}

static int make_link(struct inode *udir, struct dentry *d, void *arg, struct inode **ret)
{
	const struct make_arg *a = arg;

	return udir->ops->symlink ? udir->ops->symlink(udir, d, a->target, ret) : -EPERM;
}

static int ovl_create(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	return make_inode(dir, d, make_reg, &(struct make_arg){.mode = mode}, ret);
}

static int ovl_mkdir(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	return make_inode(dir, d, make_dir, &(struct make_arg){.mode = mode}, ret);
}

static int ovl_mknod(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret)
{
	if (S_ISCHR(mode) && rdev == 0) // a whiteout is ours to make
		return -EPERM;
	return make_inode(dir, d, make_node, &(struct make_arg){.mode = mode, .rdev = rdev}, ret);
}

static int ovl_symlink(struct inode *dir, struct dentry *d, const char *target, struct inode **ret)
{
	return make_inode(dir, d, make_link, &(struct make_arg){.target = target}, ret);
}

static int make_hard(struct inode *udir, struct dentry *d, void *arg, struct inode **ret)
{
	struct inode *target = arg;
	int r = udir->ops->link ? udir->ops->link(udir, d, target) : -EPERM;

	if (!r)
		*ret = inode_get(target);
	return r;
}

static int ovl_link(struct inode *dir, struct dentry *d, struct inode *target)
{
	struct ovl_inode *oi = OI(target);
	struct inode *upper;
	int r = ovl_copy_up(oi);

	if (!r)
		r = make_name(OI(dir), d, make_hard, oi->upper, &upper);
	if (r)
		return r;
	inode_put(upper);
	target->nlink++;
	ovl_sync_attr(oi);
	return 0;
}

static int ovl_tmpfile(struct inode *dir, uint32_t mode, struct inode **ret)
{
	struct inode *udir, *upper;
	int r = ovl_copy_up(OI(dir));

	if (r)
		return r;
	udir = OI(dir)->upper;
	if (!udir->ops->tmpfile)
		return -EOPNOTSUPP;
	r = udir->ops->tmpfile(udir, mode, &upper);
	if (r)
		return r;
	return ovl_iget(OSB(OI(dir)), upper, NULL, OI(dir), NULL, ret);
}

// --- removing -----------------------------------------------------------------------------------

// Takes the name from the upper layer and hides the lower ones. The upper directory is locked.
static int drop_name(struct ovl_inode *dir, struct dentry *d, bool hides)
{
	struct dentry ud = ovl_dentry(d, NULL);
	struct inode *udir = dir->upper, *upper;
	int r = udir->ops->lookup(udir, d->name, &upper);

	if (r == -ENOENT)
		return hides ? whiteout_make(udir, &ud) : 0;
	if (r)
		return r;
	ud.inode = upper;
	if (hides)
		r = whiteout_replace(udir, &ud, upper);
	else
		r = S_ISDIR(upper->mode) ? udir->ops->rmdir(udir, &ud) : udir->ops->unlink(udir, &ud);
	inode_put(upper);
	return r;
}

// oi has lost one of its names; it may be in use still.
static void name_lost(struct ovl_inode *oi)
{
	if (S_ISDIR(oi->inode.mode)) {
		ovl_forget_place(oi);
		return;
	}
	if (oi->inode.nlink)
		oi->inode.nlink--;
	oi->inode.ctime = vfs_now();
	if (oi->upper)
		oi->upper->ctime = oi->inode.ctime;
	if (oi->inode.nlink) {
		// The lower file goes on counting the name: remember that it is gone.
		if (oi->in_lower_table && ovl_pin(oi))
			log_debug("overlay: no memory to keep a link count");
		return;
	}
	ovl_forget_place(oi);
	ovl_unpin(oi);
}

static int remove_name(struct inode *dir_inode, struct dentry *d)
{
	struct ovl_inode *dir = OI(dir_inode), *oi = OI(d->inode);
	int hides, r = ovl_copy_up(dir);

	if (r)
		return r;
	hides = ovl_name_hides(dir, d);
	if (hides < 0)
		return hides;
	klock_lock(&dir->upper->lock);
	r = drop_name(dir, d, hides);
	klock_unlock(&dir->upper->lock);
	if (r)
		return r;
	name_lost(oi);
	ovl_dir_changed(dir);
	ovl_upper_forget(dir, d->name);
	return 0;
}

static int ovl_unlink(struct inode *dir, struct dentry *d)
{
	return remove_name(dir, d);
}

static int ovl_rmdir(struct inode *dir, struct dentry *d)
{
	int r = ovl_check_empty(OI(d->inode), d, true);

	return r ? r : remove_name(dir, d);
}

// --- renaming -----------------------------------------------------------------------------------

// Before a directory moves to a name that hides a lower one or not: it says what it is merged with, or that
// it is merged with nothing.
static int anchor_dir(struct ovl_inode *oi, bool hides)
{
	char *path;
	int r;

	if (!S_ISDIR(oi->inode.mode))
		return 0;
	if (!oi->ndirs)
		return hides ? ovl_set_private(oi->upper, OVL_OPAQUE, "y", 1) : 0;
	path = ovl_redirect_of(OSB(oi), oi->dirs[0]);
	if (!path)
		return -ENOMEM;
	r = ovl_set_private(oi->upper, OVL_REDIRECT, path, strlen(path));
	kfree(path);
	return r;
}

static void lock_two(struct inode *a, struct inode *b)
{
	klock_lock(&a->lock);
	if (a != b)
		klock_lock(&b->lock);
}

static void unlock_two(struct inode *a, struct inode *b)
{
	if (a != b)
		klock_unlock(&b->lock);
	klock_unlock(&a->lock);
}

struct move {
	struct ovl_inode *odir, *ndir, *oi, *vi; // vi: what is replaced, or NULL
	struct dentry *od, *nd;
	int ohides, nhides;
};

// A file without a name of its own in the upper layer (see copy_up_one()) gets the new one there.
static int move_nameless(struct move *m, struct dentry *uod, struct dentry *und)
{
	struct inode *udir = m->ndir->upper, *old;
	int r;

	if (!udir->ops->link)
		return -EXDEV;
	r = udir->ops->lookup(udir, und->name, &old);
	if (!r) {
		und->inode = old;
		r = S_ISDIR(old->mode) ? -EISDIR : udir->ops->unlink(udir, und);
		und->inode = NULL;
		inode_put(old);
	} else if (r == -ENOENT) {
		r = 0;
	}
	if (!r)
		r = udir->ops->link(udir, und, m->oi->upper);
	if (!r)
		r = whiteout_make(m->odir->upper, uod); // its old name is a lower one
	return r;
}

// The rename in the upper layer. Both upper directories are locked.
static int move_upper(struct move *m)
{
	struct dentry uod = ovl_dentry(m->od, m->oi->upper), und = ovl_dentry(m->nd, NULL);
	struct inode *uo = m->odir->upper, *un = m->ndir->upper, *there = NULL, *mine;
	bool white = false;
	int r = uo->ops->lookup(uo, m->od->name, &mine);

	if (r == -ENOENT)
		return move_nameless(m, &uod, &und);
	if (r)
		return r;
	inode_put(mine);
	r = un->ops->lookup(un, m->nd->name, &there);
	if (r && r != -ENOENT)
		return r;
	if (there && ovl_is_whiteout(there) && S_ISDIR(m->oi->inode.mode)) { // a directory replaces directories only
		inode_put(there);
		there = NULL;
		r = whiteout_clear(un, &und, &white);
		if (r)
			return r;
	}
	und.inode = there;
	r = uo->ops->rename(uo, &uod, un, &und, m->ohides ? RENAME_WHITEOUT : 0);
	if (r == -EINVAL && m->ohides) { // a layer that cannot do both at once
		r = uo->ops->rename(uo, &uod, un, &und, 0);
		if (!r) {
			uod.inode = NULL;
			r = whiteout_make(uo, &uod);
		}
	}
	inode_put(there);
	if (r && white)
		(void)whiteout_make(un, &und);
	return r;
}

static int ovl_exchange(struct move *m)
{
	struct dentry uod = ovl_dentry(m->od, m->oi->upper), und;
	int r = ovl_copy_up(m->vi);

	if (!r)
		r = anchor_dir(m->vi, m->ohides);
	if (r)
		return r;
	und = ovl_dentry(m->nd, m->vi->upper);
	if (m->oi->pinned || m->vi->pinned) // lower files with several names: no upper name to exchange
		return -EXDEV;
	lock_two(m->odir->upper, m->ndir->upper);
	r = m->odir->upper->ops->rename(m->odir->upper, &uod, m->ndir->upper, &und, RENAME_EXCHANGE);
	unlock_two(m->odir->upper, m->ndir->upper);
	return r;
}

static int move_begin(struct move *m, struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd)
{
	int r;

	*m = (struct move){.odir = OI(odir), .ndir = OI(ndir), .oi = OI(od->inode),
			   .vi = nd->inode ? OI(nd->inode) : NULL, .od = od, .nd = nd};
	r = ovl_copy_up(m->odir);
	if (!r)
		r = ovl_copy_up(m->ndir);
	if (!r)
		r = ovl_copy_up(m->oi);
	if (r)
		return r;
	m->ohides = ovl_name_hides(m->odir, od);
	m->nhides = ovl_name_hides(m->ndir, nd);
	return m->ohides < 0 ? m->ohides : m->nhides < 0 ? m->nhides : 0;
}

static int ovl_rename(struct inode *odir, struct dentry *od, struct inode *ndir, struct dentry *nd, unsigned flags)
{
	struct move m;
	int r;

	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	r = move_begin(&m, odir, od, ndir, nd);
	if (!r)
		r = anchor_dir(m.oi, m.nhides);
	if (!r && (flags & RENAME_EXCHANGE)) {
		r = ovl_exchange(&m);
	} else if (!r) {
		if (m.vi && S_ISDIR(m.vi->inode.mode))
			r = ovl_check_empty(m.vi, nd, true);
		if (!r) {
			lock_two(m.odir->upper, m.ndir->upper);
			r = move_upper(&m);
			unlock_two(m.odir->upper, m.ndir->upper);
		}
		if (!r && m.vi)
			name_lost(m.vi);
	}
	if (r)
		return r;
	// The dentries change places: what they know is about the names.
	ovl_set_name(od, m.nhides ? OVL_NAME_HIDES : OVL_NAME_FREE);
	ovl_set_name(nd, m.ohides ? OVL_NAME_HIDES : OVL_NAME_FREE);
	ovl_sync_attr(m.oi);
	ovl_dir_changed(m.odir);
	ovl_dir_changed(m.ndir);
	ovl_upper_moved(m.oi, m.odir, od->name, m.ndir, nd->name);
	if (flags & RENAME_EXCHANGE)
		ovl_upper_moved(m.vi, m.ndir, nd->name, m.odir, od->name);
	return 0;
}

const struct inode_ops ovl_dir_ops = {
	.lookup = ovl_lookup,
	.walk_ahead = ovl_walk_ahead,
	.create = ovl_create,
	.mkdir = ovl_mkdir,
	.mknod = ovl_mknod,
	.symlink = ovl_symlink,
	.link = ovl_link,
	.unlink = ovl_unlink,
	.rmdir = ovl_rmdir,
	.rename = ovl_rename,
	.tmpfile = ovl_tmpfile,
	.getattr = ovl_getattr,
	.setattr = ovl_setattr,
	.getxattr = ovl_getxattr,
	.setxattr = ovl_setxattr,
	.listxattr = ovl_listxattr,
};
