// Copy-up: a lower file, and the directories above it, come into being in the upper layer.
#include <fcntl.h>
#include <stdio.h>

#include "sentry/fs/overlay/internal.h"

#define COPY_CHUNK (128UL << 10)
#define XATTR_MAX 65536

int ovl_set_private(struct inode *upper, const char *name, const void *val, size_t size)
{
	int r;

	if (!upper->ops->setxattr)
		return -EOPNOTSUPP;
	klock_lock(&upper->lock);
	r = upper->ops->setxattr(upper, name, val, size, 0);
	klock_unlock(&upper->lock);
	return r;
}

static bool all_zero(const char *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

// Writes what is not zero: the copy of a file full of holes takes no more room than the file.
static int write_dense(struct file *out, const char *buf, size_t n, int64_t at)
{
	size_t i = 0, end;

	while (i < n) {
		if (all_zero(buf + i, MIN(n - i, PAGE_SIZE))) {
			i += PAGE_SIZE;
			continue;
		}
		for (end = i + PAGE_SIZE; end < n && !all_zero(buf + end, MIN(n - end, PAGE_SIZE)); end += PAGE_SIZE)
			;
		end = MIN(end, n);
		while (i < end) {
			struct uio u = uio_kernel((void *)(buf + i), end - i);
			int64_t pos = at + (int64_t)i;
			ssize_t w = out->ops->write(out, &u, &pos);

			if (w <= 0)
				return w ? (int)w : -EIO;
			i += (size_t)w;
		}
	}
	return 0;
}

static int set_size(struct inode *to, int64_t size)
{
	struct iattr a = {.valid = ATTR_SIZE, .size = (uint64_t)size};
	int r;

	klock_lock(&to->lock);
	r = to->ops->setattr ? to->ops->setattr(to, &a) : -EPERM;
	klock_unlock(&to->lock);
	return r;
}

static int copy_data(struct inode *from, struct inode *to, struct dentry *d)
{
	struct path p = {.dentry = d};
	struct file in, out;
	char *buf = kalloc(COPY_CHUNK);
	int64_t pos = 0, at;
	ssize_t n = 0;
	int r;

	if (!buf)
		return -ENOMEM;
	r = ovl_real_open(from, &p, O_RDONLY, &in);
	if (r)
		goto out_free;
	r = ovl_real_open(to, &p, O_WRONLY, &out);
	if (r)
		goto out_in;
	while (!r) {
		struct uio u = uio_kernel(buf, COPY_CHUNK);

		at = pos;
		n = in.ops->read(&in, &u, &pos);
		if (n <= 0)
			break;
		r = write_dense(&out, buf, (size_t)n, at);
		cond_resched();
	}
	if (!r && n < 0)
		r = (int)n;
	if (!r && (uint64_t)pos > to->size)
		r = set_size(to, pos);
	ovl_real_close(&out);
out_in:
	ovl_real_close(&in);
out_free:
	kfree(buf);
	return r;
}

static int copy_xattrs(struct inode *from, struct inode *to)
{
	ssize_t n = from->ops->listxattr ? from->ops->listxattr(from, NULL, 0) : 0, v;
	char *names, *val = NULL;
	int r = 0;

	if (n == -EOPNOTSUPP || n == 0)
		return 0;
	if (n < 0 || n > XATTR_MAX)
		return n < 0 ? (int)n : -E2BIG;
	names = kalloc((size_t)n);
	val = kalloc(XATTR_MAX);
	if (!names || !val)
		r = -ENOMEM;
	else
		n = from->ops->listxattr(from, names, (size_t)n);
	if (!r && n < 0)
		r = (int)n;
	for (char *p = names; !r && p < names + n; p += strnlen(p, (size_t)(names + n - p)) + 1) {
		if (!strncmp(p, OVL_PREFIX, strlen(OVL_PREFIX)))
			continue;
		v = from->ops->getxattr(from, p, val, XATTR_MAX);
		if (v < 0)
			continue; // it cannot be read: as if it were not there
		r = ovl_set_private(to, p, val, (size_t)v);
		if (r == -EOPNOTSUPP || r == -EPERM) // the upper layer does not know the kind
			r = 0;
	}
	kfree(names);
	kfree(val);
	return r;
}

static int copy_attrs(const struct inode *from, struct inode *to)
{
	struct iattr a = {.valid = ATTR_UID | ATTR_GID | ATTR_ATIME | ATTR_MTIME | ATTR_CTIME,
			  .mode = from->mode & 07777, .uid = from->uid, .gid = from->gid,
			  .atime = from->atime, .mtime = from->mtime, .ctime = from->ctime};
	int r;

	if (!S_ISLNK(from->mode))
		a.valid |= ATTR_MODE;
	if (!to->ops->setattr)
		return -EPERM;
	klock_lock(&to->lock);
	r = to->ops->setattr(to, &a);
	klock_unlock(&to->lock);
	return r;
}

static int make_like(struct inode *pdir, struct dentry *d, struct inode *lower, bool nameless, struct inode **ret)
{
	const struct inode_ops *ops = pdir->ops;
	char *target;
	int r;

	switch (lower->mode & S_IFMT) {
	case S_IFDIR:
		return ops->mkdir ? ops->mkdir(pdir, d, S_IFDIR | 0700, ret) : -EPERM;
	case S_IFREG:
		if (nameless)
			return ops->tmpfile ? ops->tmpfile(pdir, S_IFREG | 0600, ret) : -EXDEV;
		return ops->create ? ops->create(pdir, d, S_IFREG | 0600, ret) : -EROFS;
	case S_IFLNK:
		if (nameless)
			return -EXDEV;
		r = lower->link ? 0 : lower->ops->readlink(lower, &target);
		if (r)
			return r;
		return ops->symlink ? ops->symlink(pdir, d, lower->link ? lower->link : target, ret) : -EPERM;
	default:
		if (nameless)
			return -EXDEV;
		return ops->mknod ? ops->mknod(pdir, d, lower->mode, lower->rdev, ret) : -EPERM;
	}
}

static void undo_make(struct inode *pdir, struct dentry *d, struct inode *made)
{
	struct inode *there;
	bool same;

	if (pdir->ops->lookup(pdir, d->name, &there))
		return;
	same = there == made; // else it was removed meanwhile, and this is a whiteout
	inode_put(there);
	if (!same)
		return;
	d->inode = made;
	if (S_ISDIR(made->mode))
		(void)pdir->ops->rmdir(pdir, d);
	else
		(void)pdir->ops->unlink(pdir, d);
}

// Makes the copy in pdir, whose times stay as they are. The copy appears with its data and attributes
// complete as far as the overlay is concerned: nobody looks at it before ovl_set_upper().
static int copy_to(struct ovl_inode *oi, struct inode *pdir, struct dentry *d, bool nameless, bool with_data, struct inode **ret)
{
	struct iattr times = {.valid = ATTR_MTIME | ATTR_CTIME, .mtime = pdir->mtime, .ctime = pdir->ctime};
	struct inode *lower = ovl_real(oi), *made = NULL;
	int r;

	klock_lock(&pdir->lock);
	r = make_like(pdir, d, lower, nameless, &made);
	if (r == -EEXIST && S_ISDIR(lower->mode)) { // made through another inode of the same directory
		r = pdir->ops->lookup(pdir, d->name, &made);
		klock_unlock(&pdir->lock);
		if (!r)
			*ret = made;
		return r;
	}
	if (!r && pdir->ops->setattr)
		(void)pdir->ops->setattr(pdir, &times);
	klock_unlock(&pdir->lock);
	if (r)
		return r;
	if (S_ISREG(lower->mode) && with_data && lower->size)
		r = copy_data(lower, made, d);
	if (!r && (S_ISREG(lower->mode) || S_ISDIR(lower->mode)))
		r = copy_xattrs(lower, made);
	if (!r)
		r = copy_attrs(lower, made);
	if (!r)
		r = ovl_set_private(made, OVL_ORIGIN, &oi->inode.ino, sizeof(oi->inode.ino));
	if (r) {
		if (!nameless) {
			klock_lock(&pdir->lock);
			undo_make(pdir, d, made);
			if (pdir->ops->setattr)
				(void)pdir->ops->setattr(pdir, &times);
			klock_unlock(&pdir->lock);
		}
		inode_put(made);
		return r;
	}
	*ret = made;
	return 0;
}

// One inode, whose directory is in the upper layer already.
static int copy_up_one(struct ovl_inode *oi, bool with_data)
{
	struct ovl_sb *os = OSB(oi);
	const char *name;
	bool nameless;
	struct inode *pdir, *made;
	struct ovl_inode *parent = NULL;
	struct dentry d = {.refs = REFCOUNT_INIT(1)};
	struct ktime atime;
	char buf[256];
	int r;

	klock_lock(&oi->copy_lock);
	if (oi->upper) {
		klock_unlock(&oi->copy_lock);
		return 0;
	}
	// Without a name, or with several, it gets none in the upper layer: the lower names lead to it.
	name = S_ISDIR(oi->inode.mode) ? oi->dirs[0]->name : oi->name;
	nameless = !oi->parent || !name || (!S_ISDIR(oi->inode.mode) && oi->in_lower_table);
	pdir = nameless ? os->upper_root : oi->parent->upper;
	atime = oi->inode.atime;
	if (!nameless)
		parent = OI(inode_get(&oi->parent->inode));
	inode_get(pdir); // oi may lose its name, and its directory, while we wait
	snprintf(buf, sizeof(buf), "%s", nameless ? "#copy" : name);
	d.name = buf;
	d.namelen = (uint8_t)strlen(buf);
	d.hash = d_name_hash(buf, d.namelen);
	r = copy_to(oi, pdir, &d, nameless, with_data, &made);
	if (!r && nameless && oi->inode.nlink) {
		r = ovl_pin(oi);
		if (r)
			inode_put(made);
	}
	if (!r) {
		made->atime = ovl_later(atime, made->atime); // reads before the copy count
		ovl_set_upper(oi, made);
	}
	if (parent) {
		if (!r && S_ISDIR(oi->inode.mode))
			ovl_upper_dir(parent, buf, oi);
		else
			ovl_upper_forget(parent, buf);
		inode_put(&parent->inode);
	}
	inode_put(pdir);
	klock_unlock(&oi->copy_lock);
	return r;
}

static int copy_up(struct ovl_inode *oi, bool with_data)
{
	int r = 0;

	if (likely(oi->upper))
		return 0;
	if (!OSB(oi)->upper)
		return -EROFS;
	while (!r && !oi->upper) {
		struct ovl_inode *top = oi;

		while (top->parent && !top->parent->upper)
			top = top->parent;
		inode_get(&top->inode);
		r = copy_up_one(top, top != oi || with_data);
		inode_put(&top->inode);
	}
	return r;
}

int ovl_copy_up(struct ovl_inode *oi)
{
	return copy_up(oi, true);
}

int ovl_copy_up_truncated(struct ovl_inode *oi)
{
	return copy_up(oi, false);
}
