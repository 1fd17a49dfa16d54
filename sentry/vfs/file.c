// Open file descriptions: their life, and what they are to mm (a mobj).
#include <sys/mman.h>

#include "sentry/mm/vma.h"
#include "sentry/vfs/internal.h"

DEFINE_SLAB(file_slab, struct file);

void (*vfs_notify)(struct inode *inode, struct dentry *d, uint32_t mask, uint32_t cookie);
void (*vfs_epoll_release)(struct file *f);
void (*vfs_fasync)(struct file *f, bool on);
const struct file_ops *vfs_fifo_ops;

static void file_release(struct mobj *m)
{
	struct file *f = file_of_mobj(m);
	struct inode *inode = f->inode;

	if (unlikely(!TAILQ_EMPTY(&f->epolls)) && vfs_epoll_release)
		vfs_epoll_release(f);
	if (unlikely(inode && inode->locks))
		locks_release_file(f);
	if (f->async && vfs_fasync)
		vfs_fasync(f, false);
	if (f->ops && f->ops->release)
		f->ops->release(f);
	if (f->mode & FMODE_WRITER)
		inode->writers--;
	if (f->mode & FMODE_DENY_WRITE)
		inode_allow_write(inode);
	if (inode && !(f->mode & FMODE_PATH))
		fsnotify(inode, f->path.dentry, f->mode & FMODE_WRITE ? FSN_CLOSE_WRITE : FSN_CLOSE_NOWRITE, 0);
	path_put(&f->path);
	inode_put(inode);
	cred_put(f->cred);
	slab_free(&file_slab, f);
}

static int file_map_fd(struct mobj *m, uint64_t off, uint64_t len, int prot, bool shared, int *ret_fd, uint64_t *ret_off)
{
	struct file *f = file_of_mobj(m);

	if (!f->ops || !f->ops->map_fd)
		return -ENODEV;
	return f->ops->map_fd(f, off, len, prot, shared, ret_fd, ret_off);
}

static void file_describe(struct mobj *m, char *buf, size_t size, uint64_t *ret_dev, uint64_t *ret_ino)
{
	struct file *f = file_of_mobj(m);
	struct vfs_task *self = vfs_self();
	char *name = NULL;

	*ret_dev = f->inode->sb->dev;
	*ret_ino = f->inode->ino;
	if (!size)
		return;
	buf[0] = 0;
	if (self && self->fs && path_name(&f->path, &self->fs->root, &name) == 0) {
		size_t n = MIN(strlen(name), size - 1);

		memcpy(buf, name, n);
		buf[n] = 0;
	}
}

static bool maps_for_writing(const struct file *f, const struct vma *v)
{
	return f->mode & FMODE_WRITE && vma_shared(v);
}

static void file_mapped(struct mobj *m, struct vma *v)
{
	struct file *f = file_of_mobj(m);

	if (maps_for_writing(f, v))
		f->inode->shared_maps++;
}

static void file_unmapped(struct mobj *m, struct vma *v)
{
	struct file *f = file_of_mobj(m);

	if (maps_for_writing(f, v))
		f->inode->shared_maps--;
}

int file_mmap_prot(struct file *f, int prot, int flags, int *ret_max_prot)
{
	int max = PROT_READ | PROT_WRITE | PROT_EXEC;
	bool shared = (flags & MAP_TYPE) != MAP_PRIVATE;

	if (!(f->mode & FMODE_READ))
		return -EACCES;
	if (shared && prot & PROT_WRITE && !(f->mode & FMODE_WRITE))
		return -EACCES;
	if (f->path.mnt && f->path.mnt->flags & MNT_NOEXEC) {
		if (prot & PROT_EXEC)
			return -EPERM;
		max &= ~PROT_EXEC;
	}
	if (!f->ops->map_fd)
		return -ENODEV;
	if (shared && f->inode->write_sealed) {
		if (prot & PROT_WRITE)
			return -EPERM;
		max &= ~PROT_WRITE;
	}
	if (shared && !(f->mode & FMODE_WRITE))
		max &= ~PROT_WRITE;
	*ret_max_prot = max;
	return 0;
}

static const struct mobj_ops file_mobj_ops = {
	.map_fd = file_map_fd,
	.mapped = file_mapped,
	.unmapped = file_unmapped,
	.describe = file_describe,
	.release = file_release,
};

bool mobj_is_file(const struct mobj *m)
{
	return m && m->ops == &file_mobj_ops;
}

struct file *file_alloc(void)
{
	struct file *f = SLAB_NEW(file_slab, struct file);
	struct vfs_task *self = vfs_self();

	if (!f)
		return NULL;
	ref_init(&f->mobj.refs, 1);
	f->mobj.ops = &file_mobj_ops;
	klock_init(&f->pos_lock);
	TAILQ_INIT(&f->epolls);
	if (self && self->cred)
		f->cred = cred_get(self->cred);
	return f;
}

void file_put(struct file *f)
{
	if (f && ref_put(&f->mobj.refs))
		file_release(&f->mobj);
}

// --- files without a name -------------------------------------------------------------------------

#define ANON_INODE_FS_MAGIC 0x09041934

static void anon_evict(struct inode *inode);
static const struct super_ops anon_super_ops = {.evict = anon_evict};
static const struct inode_ops anon_inode_ops;
static const struct fs_type anon_fs = {.name = "anon_inodefs", .flags = FS_NODEV};
static struct super_block anon_sb;
DEFINE_SLAB(anon_inode_slab, struct inode);

static void anon_evict(struct inode *inode)
{
	slab_free(&anon_inode_slab, inode);
}

struct inode *anon_inode_new(uint32_t mode)
{
	static uint64_t last_ino = 1000;
	struct inode *inode = SLAB_NEW(anon_inode_slab, struct inode);
	struct vfs_task *self = vfs_self();

	if (!inode)
		return NULL;
	if (!anon_sb.ops) {
		sb_init(&anon_sb, &anon_fs, &anon_super_ops, 0);
		anon_sb.magic = ANON_INODE_FS_MAGIC;
	}
	inode_init(inode, &anon_sb, mode, &anon_inode_ops, NULL);
	inode->ino = ++last_ino;
	if (self && self->cred) {
		inode->uid = self->cred->fsuid;
		inode->gid = self->cred->fsgid;
	}
	return inode;
}

int file_new_anon(const char *name, struct inode *inode, const struct file_ops *ops, unsigned flags, void *priv, struct file **ret)
{
	struct file *f;
	struct dentry *d;

	if (!inode)
		inode = anon_inode_new(S_IRUSR | S_IWUSR);
	if (!inode)
		return -ENOMEM;
	inode_get(inode);
	d = d_anon(inode, name);
	f = d ? file_alloc() : NULL;
	if (!f) {
		if (d)
			d_put(d);
		inode_put(inode);
		return -ENOMEM;
	}
	f->path.dentry = d;
	f->inode = inode;
	f->ops = ops;
	f->flags = flags;
	f->mode = (flags + 1) & O_ACCMODE;
	f->priv = priv;
	*ret = f;
	return 0;
}

// --- devices by number ------------------------------------------------------------------------------

struct chrdev {
	unsigned major, first, count;
	const struct file_ops *ops;
	struct chrdev *next;
};
static struct chrdev *chrdevs;

int chrdev_register(unsigned major, unsigned first_minor, unsigned count, const struct file_ops *ops)
{
	struct chrdev *c = kalloc(sizeof(*c));

	if (!c)
		return -ENOMEM;
	*c = (struct chrdev){major, first_minor, count, ops, chrdevs};
	chrdevs = c;
	return 0;
}

const struct file_ops *chrdev_find(uint64_t rdev)
{
	unsigned major = (unsigned)(rdev >> 8 & 0xfff) | (unsigned)(rdev >> 32 & ~0xfffULL);
	unsigned minor = (unsigned)(rdev & 0xff) | (unsigned)(rdev >> 12 & ~0xffULL);

	for (struct chrdev *c = chrdevs; c; c = c->next)
		if (c->major == major && minor >= c->first && minor - c->first < c->count)
			return c->ops;
	return NULL;
}

uint32_t file_poll(struct file *f, struct poll_table *pt)
{
	if (f->ops->poll)
		return f->ops->poll(f, pt);
	return 0x1 | 0x4 | 0x40 | 0x100; // EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM
}
