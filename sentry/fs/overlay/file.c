// Open files of regular files, attributes, and extended attributes: handed on to the real inode.
#include <fcntl.h>
#include <sys/mman.h>

#include "sentry/fs/overlay/internal.h"

// An open file of a layer. Counted: by the overlay's open file while it is the current one, and by each
// operation under way, since a copy-up may make another the current one meanwhile.
struct ovl_real {
	struct file f;
	uint32_t refs;
};
DEFINE_SLAB(ovl_real_slab, struct ovl_real);

int ovl_real_open(struct inode *real, const struct path *p, unsigned flags, struct file *ret)
{
	int r;

	*ret = (struct file){.path = *p, .inode = real, .ops = real->fops, .flags = flags, .mode = (flags + 1) & O_ACCMODE};
	ref_init(&ret->mobj.refs, 1);
	klock_init(&ret->pos_lock);
	TAILQ_INIT(&ret->epolls);
	if (!ret->ops)
		return -ENXIO;
	r = ret->ops->open ? ret->ops->open(real, ret) : 0;
	if (r) {
		ret->ops = NULL;
		return r;
	}
	inode_get(real);
	return 0;
}

void ovl_real_close(struct file *f)
{
	if (!f->ops)
		return;
	if (f->ops->release)
		f->ops->release(f);
	f->ops = NULL;
	inode_put(f->inode);
}

static void real_put(struct ovl_real *r)
{
	if (--r->refs)
		return;
	ovl_real_close(&r->f);
	slab_free(&ovl_real_slab, r);
}

// Opens the real file behind f anew: the first time, and after a copy-up.
static int real_switch(struct file *f, struct inode *real)
{
	struct ovl_real *n = SLAB_NEW(ovl_real_slab, struct ovl_real), *old;
	// Lower files are never written: a copy-up comes first.
	unsigned flags = OI(f->inode)->upper ? f->flags : (f->flags & ~(unsigned)O_ACCMODE) | O_RDONLY;
	int r;

	if (!n)
		return -ENOMEM;
	r = ovl_real_open(real, &f->path, flags, &n->f);
	if (r) {
		slab_free(&ovl_real_slab, n);
		return r;
	}
	n->refs = 1;
	old = f->priv;
	f->priv = n;
	if (old)
		real_put(old);
	return 0;
}

// The real file behind f as of now, counted: real_put() it.
static int real_get(struct file *f, struct ovl_real **ret)
{
	struct inode *real = ovl_real(OI(f->inode));
	struct ovl_real *n = f->priv;
	int r;

	if (unlikely(!n || n->f.inode != real)) {
		r = real_switch(f, real);
		if (r)
			return r;
		n = f->priv;
	}
	n->f.flags = (n->f.flags & O_ACCMODE) | (f->flags & ~(unsigned)O_ACCMODE);
	n->refs++;
	*ret = n;
	return 0;
}

static int real_get_for_write(struct file *f, struct ovl_real **ret)
{
	int r = ovl_copy_up(OI(f->inode));

	return r ? r : real_get(f, ret);
}

static int reg_open(struct inode *inode, struct file *f)
{
	return real_switch(f, ovl_real(OI(inode)));
}

static void reg_release(struct file *f)
{
	real_put(f->priv);
}

static ssize_t reg_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct ovl_real *real;
	ssize_t n = real_get(f, &real);

	if (unlikely(n))
		return n;
	n = real->f.ops->read(&real->f, u, pos);
	if (likely(OI(f->inode)->upper == real->f.inode))
		f->inode->atime = real->f.inode->atime;
	else
		file_accessed(f); // the overlay's own idea, lost when it is forgotten
	real_put(real);
	return n;
}

static ssize_t reg_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct ovl_real *real;
	const struct inode *i;
	ssize_t n = real_get_for_write(f, &real);

	if (unlikely(n))
		return n;
	n = real->f.ops->write(&real->f, u, pos);
	i = real->f.inode;
	f->inode->size = i->size;
	f->inode->blocks = i->blocks;
	f->inode->mtime = i->mtime;
	f->inode->ctime = i->ctime;
	real_put(real);
	return n;
}

static int64_t reg_llseek(struct file *f, int64_t off, int whence)
{
	struct ovl_real *real;
	int64_t r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_llseek(f, off, whence, f->inode->size);
	r = real_get(f, &real);
	if (r)
		return r;
	if (real->f.ops->llseek) {
		real->f.pos = f->pos;
		r = real->f.ops->llseek(&real->f, off, whence);
		if (r >= 0)
			f->pos = r;
	} else {
		r = generic_llseek(f, off, whence, f->inode->size);
	}
	real_put(real);
	return r;
}

static int reg_map_fd(struct file *f, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	// A private mapping of a lower file stays one of the lower file, as on Linux.
	bool write = shared && (prot & PROT_WRITE) && (f->mode & FMODE_WRITE);
	struct ovl_real *real;
	int r = write ? real_get_for_write(f, &real) : real_get(f, &real);

	if (r)
		return r;
	r = real->f.ops->map_fd ? real->f.ops->map_fd(&real->f, off, len, prot, shared, ret_fd, ret_off) : -ENODEV;
	f->inode->blocks = real->f.inode->blocks;
	real_put(real);
	return r;
}

static int reg_fsync(struct file *f, bool datasync)
{
	struct ovl_real *real;
	int r;

	if (!OI(f->inode)->upper) // nothing was written
		return 0;
	r = real_get(f, &real);
	if (r)
		return r;
	r = real->f.ops->fsync ? real->f.ops->fsync(&real->f, datasync) : -EINVAL;
	real_put(real);
	return r;
}

static int reg_fallocate(struct file *f, int mode, uint64_t off, uint64_t len)
{
	struct ovl_real *real;
	int r = real_get_for_write(f, &real);

	if (r)
		return r;
	r = real->f.ops->fallocate ? real->f.ops->fallocate(&real->f, mode, off, len) : -EOPNOTSUPP;
	ovl_sync_attr(OI(f->inode));
	real_put(real);
	return r;
}

static int64_t reg_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	struct ovl_real *real;
	int64_t r = real_get(f, &real);

	if (r)
		return r;
	r = real->f.ops->ioctl ? real->f.ops->ioctl(&real->f, cmd, arg) : -ENOTTY;
	real_put(real);
	return r;
}

const struct file_ops ovl_reg_fops = {
	.open = reg_open,
	.release = reg_release,
	.read = reg_read,
	.write = reg_write,
	.llseek = reg_llseek,
	.map_fd = reg_map_fd,
	.fsync = reg_fsync,
	.fallocate = reg_fallocate,
	.ioctl = reg_ioctl,
};

// --- attributes ---------------------------------------------------------------------------------

int ovl_setattr(struct inode *inode, const struct iattr *a)
{
	struct ovl_inode *oi = OI(inode);
	bool empty = (a->valid & ATTR_SIZE) && a->size == 0;
	int r = empty ? ovl_copy_up_truncated(oi) : ovl_copy_up(oi);

	if (r)
		return r;
	if (!oi->upper->ops->setattr)
		return -EPERM;
	klock_lock(&oi->upper->lock);
	r = oi->upper->ops->setattr(oi->upper, a);
	klock_unlock(&oi->upper->lock);
	ovl_sync_attr(oi);
	return r;
}

static bool is_private(const char *name)
{
	return !strncmp(name, OVL_PREFIX, strlen(OVL_PREFIX));
}

ssize_t ovl_getxattr(struct inode *inode, const char *name, void *buf, size_t size)
{
	struct inode *real = ovl_real(OI(inode));

	if (is_private(name) || !real->ops->getxattr)
		return -EOPNOTSUPP;
	return real->ops->getxattr(real, name, buf, size);
}

int ovl_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags)
{
	struct ovl_inode *oi = OI(inode);
	struct inode *real = ovl_real(oi);
	int r;

	if (is_private(name))
		return -EOPNOTSUPP;
	if (!val) { // nothing to remove is no reason to copy
		ssize_t n = real->ops->getxattr ? real->ops->getxattr(real, name, NULL, 0) : -EOPNOTSUPP;

		if (n < 0)
			return (int)n;
	}
	r = ovl_copy_up(oi);
	if (r)
		return r;
	if (!oi->upper->ops->setxattr)
		return -EOPNOTSUPP;
	klock_lock(&oi->upper->lock);
	r = oi->upper->ops->setxattr(oi->upper, name, val, size, flags);
	klock_unlock(&oi->upper->lock);
	ovl_sync_attr(oi);
	return r;
}

// The real list without the overlay's own. Two passes over a list that only we change.
ssize_t ovl_listxattr(struct inode *inode, char *buf, size_t size)
{
	struct inode *real = ovl_real(OI(inode));
	ssize_t n = real->ops->listxattr ? real->ops->listxattr(real, NULL, 0) : -EOPNOTSUPP, out = 0;
	char *all;

	if (n <= 0)
		return n;
	all = kalloc((size_t)n + 1);
	if (!all)
		return -ENOMEM;
	n = real->ops->listxattr(real, all, (size_t)n);
	for (ssize_t i = 0, len; i < n; i += len) {
		len = (ssize_t)strlen(all + i) + 1;
		if (is_private(all + i))
			continue;
		if (size && (size_t)(out + len) > size) {
			n = -ERANGE;
			break;
		}
		if (size)
			memcpy(buf + out, all + i, (size_t)len);
		out += len;
	}
	kfree(all);
	return n < 0 ? n : out;
}

static int ovl_readlink(struct inode *inode, char **ret)
{
	struct inode *real = ovl_real(OI(inode));
	char *s;

	if (inode->link) {
		s = arena_strdup(inode->link);
		if (!s)
			return -ENOMEM;
		*ret = s;
		return 0;
	}
	return real->ops->readlink ? real->ops->readlink(real, ret) : -EINVAL;
}

const struct inode_ops ovl_file_ops = {
	.getattr = ovl_getattr,
	.setattr = ovl_setattr,
	.getxattr = ovl_getxattr,
	.setxattr = ovl_setxattr,
	.listxattr = ovl_listxattr,
};
const struct inode_ops ovl_special_ops = {
	.getattr = ovl_getattr,
	.setattr = ovl_setattr,
	.getxattr = ovl_getxattr,
	.setxattr = ovl_setxattr,
	.listxattr = ovl_listxattr,
};
const struct inode_ops ovl_link_ops = {
	.readlink = ovl_readlink,
	.getattr = ovl_getattr,
	.setattr = ovl_setattr,
	.getxattr = ovl_getxattr,
	.setxattr = ovl_setxattr,
	.listxattr = ovl_listxattr,
};
