// The machinery: inodes, directories, files of text, links.
#include "sentry/fs/proc/internal.h"

#include <fcntl.h>
#include <stdarg.h>

#define PROC_SUPER_MAGIC 0x9fa0
#define WRITE_MAX 4096

struct host_info host_info;
DEFINE_SLAB(pnode_slab, struct pnode);
static const struct inode_ops dir_iops, file_iops, link_iops, magic_iops;
static const struct file_ops dir_fops, text_fops;

// --- growing texts --------------------------------------------------------------------------------

char *proom(struct pbuf *b, size_t n)
{
	size_t cap = MAX(b->cap, 1024UL);
	char *p;

	if (b->failed)
		return NULL;
	if (b->len + n <= b->cap)
		return b->p + b->len;
	while (cap < b->len + n)
		cap *= 2;
	p = cap <= PBUF_MAX ? krealloc(b->p, b->cap, cap) : NULL;
	if (!p) {
		b->failed = true;
		return NULL;
	}
	b->p = p;
	b->cap = cap;
	return p + b->len;
}

void pwrite_text(struct pbuf *b, const char *s, size_t n)
{
	char *p = proom(b, n);

	if (p) {
		memcpy(p, s, n);
		b->len += n;
	}
}

void pprintf(struct pbuf *b, const char *fmt, ...)
{
	char *p = proom(b, 256);
	va_list ap;
	int n;

	if (!p)
		return;
	va_start(ap, fmt);
	n = vsnprintf(p, 256, fmt, ap);
	va_end(ap);
	if (n >= 256) {
		p = proom(b, n + 1);
		if (!p)
			return;
		va_start(ap, fmt);
		vsnprintf(p, n + 1, fmt, ap);
		va_end(ap);
	}
	b->len += n;
}

char *text_link(const char *fmt, ...)
{
	char *s = arena_alloc(128);
	va_list ap;

	if (!s)
		return NULL;
	va_start(ap, fmt);
	vsnprintf(s, 128, fmt, ap);
	va_end(ap);
	return s;
}

bool parse_number(const char *s, int32_t *ret)
{
	int64_t v = 0;

	if (*s == '0' && s[1])
		return false;
	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (*s - '0');
		if (v > INT32_MAX)
			return false;
	}
	*ret = (int32_t)v;
	return true;
}

// --- inodes ---------------------------------------------------------------------------------------

struct task *pnode_task(const struct pnode *n)
{
	struct task *t = n->pid ? n->pid->task : NULL;

	// A process is its leader while that is there; any other thread may have outlived it.
	if (t && !n->thread && t->tg && t->tg->leader)
		t = t->tg->leader;
	return t;
}

bool pnode_may_inspect(const struct pnode *n)
{
	struct task *t = pnode_task(n), *me = current_task();

	return t && (t->tg == me->tg || task_may_inspect(me, t));
}

// Who owns files about a process: its effective user, or root where it may not be looked into.
static void refresh_owner(struct pnode *n)
{
	struct task *t = pnode_task(n);

	if (!t || !t->vt.cred)
		return;
	n->inode.uid = t->vt.cred->euid;
	n->inode.gid = t->vt.cred->egid;
	if (t->mm && !t->mm->dumpable && !S_ISDIR(n->inode.mode))
		n->inode.uid = n->inode.gid = 0;
}

static uint64_t ino_of(const struct pent *ent, const struct pid *pid, bool thread, int fd)
{
	uint64_t h = (uint64_t)(uintptr_t)ent >> 3 & 0xfffff;

	if (pid)
		h |= (uint64_t)pid->nr << 20 | (uint64_t)thread << 60;
	if (fd >= 0)
		h ^= ((uint64_t)fd + 1) << 40;
	return h | 1ULL << 36;
}

int pnode_new(struct super_block *sb, const struct pent *ent, struct pid *pid, bool thread, int fd, struct inode **ret)
{
	struct pnode *n = SLAB_NEW(pnode_slab, struct pnode);
	const struct inode_ops *iops = &file_iops;
	const struct file_ops *fops = ent->fops ?: &text_fops;

	if (!n)
		return -ENOMEM;
	if (S_ISDIR(ent->mode)) {
		iops = &dir_iops;
		fops = &dir_fops;
	} else if (S_ISLNK(ent->mode)) {
		iops = ent->follow ? &magic_iops : &link_iops;
		fops = NULL;
	}
	inode_init(&n->inode, sb, ent->mode, iops, fops);
	n->inode.ino = ino_of(ent, pid, thread, fd);
	if (S_ISDIR(ent->mode))
		n->inode.nlink = 2;
	n->ent = ent;
	n->pid = pid ? pid_get(pid) : NULL;
	n->thread = thread;
	n->fd = fd;
	n->inode.priv = n;
	refresh_owner(n);
	*ret = &n->inode;
	return 0;
}

static int proc_getattr(struct inode *inode)
{
	struct pnode *n = pnode_of(inode);

	if (n->pid && !pnode_task(n))
		return -ENOENT;
	refresh_owner(n);
	return 0;
}

static int proc_setattr(struct inode *inode, const struct iattr *a)
{
	// O_TRUNC of `echo > /proc/...` changes nothing, and is no error.
	return a->valid & (ATTR_MODE | ATTR_UID | ATTR_GID) ? -EPERM : 0;
}

static int proc_permission(struct inode *inode, const struct cred *c, int mask)
{
	struct pnode *n = pnode_of(inode);
	uint32_t mode = inode->mode;
	struct task *t = pnode_task(n);
	int want = mask & (MAY_READ | MAY_WRITE | MAY_EXEC), bits;

	if (n->pid && !t)
		return -ENOENT;
	// A process looks at itself, whatever its credentials have become.
	if (t && S_ISDIR(mode) && n->ent->inspect && t->tg == current_task()->tg)
		return 0;
	if (c->fsuid == inode->uid)
		mode >>= 6;
	else if (cred_in_group(c, inode->gid))
		mode >>= 3;
	bits = (mode & 4 ? MAY_READ : 0) | (mode & 2 ? MAY_WRITE : 0) | (mode & 1 ? MAY_EXEC : 0);
	if (!(want & ~bits))
		return 0;
	// CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; sysctls that cannot be written stay so.
	if (cred_capable(c, 1) && (!(want & MAY_WRITE) || S_ISDIR(inode->mode) || inode->mode & 0222))
		return 0;
	if (cred_capable(c, 2) && !(want & MAY_WRITE))
		return 0;
	return -EACCES;
}

// --- directories ----------------------------------------------------------------------------------

static int dir_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	struct pnode *n = pnode_of(dir);

	if (n->pid && !pnode_task(n))
		return -ENOENT;
	for (const struct pent *e = n->ent->kids; e && e->name; e++)
		if (strcmp(e->name, name) == 0)
			return pnode_new(dir->sb, e, n->pid, n->thread, n->fd, ret);
	return n->ent->lookup ? n->ent->lookup(n, name, ret) : -ENOENT;
}

// On procfs a name that is not there cannot even be asked for; elsewhere it may just not be made.
static int cannot_make(struct inode *dir)
{
	return dir->sb->magic == PROC_SUPER_MAGIC ? -ENOENT : -EPERM;
}

static int dir_create(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	return dir->sb->magic == PROC_SUPER_MAGIC ? -ENOENT : -EACCES;
}

static int dir_mkdir(struct inode *dir, struct dentry *d, uint32_t mode, struct inode **ret)
{
	return cannot_make(dir);
}

static int dir_mknod(struct inode *dir, struct dentry *d, uint32_t mode, uint64_t rdev, struct inode **ret)
{
	return cannot_make(dir);
}

static int dir_symlink(struct inode *dir, struct dentry *d, const char *target, struct inode **ret)
{
	return cannot_make(dir);
}

static unsigned dtype_of(uint32_t mode)
{
	return (mode & S_IFMT) >> 12;
}

// Positions: 0 ".", 1 "..", then the fixed entries, then keys of the others.
static int dir_iterate(struct file *f, struct dir_context *c)
{
	struct pnode *n = pnode_of(f->inode);
	const struct pent *kids = n->ent->kids;
	int64_t nkids = 0, key;
	char name[32];
	unsigned dtype;

	if (n->pid && !pnode_task(n))
		return -ENOENT;
	if (c->pos == 0 && c->fill(c, ".", 1, f->inode->ino, 4, 1))
		c->pos = 1;
	if (c->pos == 1 && c->fill(c, "..", 2, f->inode->ino, 4, 2))
		c->pos = 2;
	if (c->pos < 2)
		return 0;
	while (kids && kids[nkids].name)
		nkids++;
	while (c->pos < 2 + nkids) {
		const struct pent *e = &kids[c->pos - 2];

		if (!c->fill(c, e->name, strlen(e->name), ino_of(e, n->pid, n->thread, -1), dtype_of(e->mode), c->pos + 1))
			return 0;
		c->pos++;
	}
	if (!n->ent->next)
		return 0;
	// The key k stands at position 2 + nkids + k + 1: "after k".
	while ((key = n->ent->next(n, c->pos - 2 - nkids - 1, name, &dtype)) >= 0) {
		if (!c->fill(c, name, strlen(name), (uint64_t)key + 1 + (1ULL << 32), dtype, 2 + nkids + key + 1))
			return 0;
		c->pos = 2 + nkids + key + 1;
	}
	return 0;
}

static int64_t dir_llseek(struct file *f, int64_t off, int whence)
{
	if (whence == 2)
		return -EINVAL;
	return generic_llseek(f, off, whence, 0);
}

// --- files of text ----------------------------------------------------------------------------------

DEFINE_SLAB(text_slab, struct text);

int text_open(struct inode *inode, struct file *f)
{
	struct pnode *n = pnode_of(inode);

	if (n->pid && !pnode_task(n))
		return -ESRCH;
	if (n->ent->inspect && !pnode_may_inspect(n))
		return -EACCES;
	if (f->mode & FMODE_WRITE && !n->ent->write)
		return -EACCES;
	if (f->mode & FMODE_READ && !n->ent->show)
		return -EACCES;
	f->priv = SLAB_NEW(text_slab, struct text);
	return f->priv ? 0 : -ENOMEM;
}

void text_release(struct file *f)
{
	struct text *t = f->priv;

	kfree(t->b.p);
	slab_free(&text_slab, t);
}

ssize_t text_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct pnode *n = pnode_of(f->inode);
	struct text *t = f->priv;
	struct pbuf b = {};
	ssize_t r;

	if (*pos == 0 || !t->made) {
		// Apart from t: making the text may wait, and another thread may read meanwhile.
		r = n->ent->show(&b, n);
		if (!r && b.failed)
			r = -ENOMEM;
		if (r) {
			kfree(b.p);
			return r;
		}
		kfree(t->b.p);
		t->b = b;
		t->made = true;
	}
	if ((uint64_t)*pos >= t->b.len || !u->resid)
		return 0;
	r = uio_put(u, t->b.p + *pos, MIN(u->resid, t->b.len - (size_t)*pos));
	if (r > 0)
		*pos += r;
	return r;
}

static ssize_t text_write(struct file *f, struct uio *u, int64_t *pos)
{
	struct pnode *n = pnode_of(f->inode);
	size_t len = MIN(u->resid, (size_t)WRITE_MAX);
	char *buf = arena_alloc(len + 1);
	ssize_t r;

	if (!buf)
		return -ENOMEM;
	r = len ? uio_get(u, buf, len) : 0;
	if (r < 0)
		return r;
	buf[r] = 0;
	r = n->ent->write(n, buf, r);
	if (r > 0)
		*pos += r;
	return r;
}

int64_t text_llseek(struct file *f, int64_t off, int whence)
{
	return whence == 2 ? -EINVAL : generic_llseek(f, off, whence, 0);
}

// --- links --------------------------------------------------------------------------------------------

static int link_readlink(struct inode *inode, char **ret)
{
	struct pnode *n = pnode_of(inode);
	struct path p;
	int r;

	if (n->ent->readlink)
		return n->ent->readlink(n, ret);
	if (!pnode_may_inspect(n))
		return n->pid && !pnode_task(n) ? -ESRCH : -EACCES;
	r = n->ent->follow(n, &p);
	if (r)
		return r;
	r = path_name(&p, &vfs_self()->fs->root, ret);
	path_put(&p);
	return r;
}

static int link_follow(struct inode *inode, struct dentry *d, struct path *ret)
{
	struct pnode *n = pnode_of(inode);

	if (!pnode_may_inspect(n))
		return n->pid && !pnode_task(n) ? -ESRCH : -EACCES;
	return n->ent->follow(n, ret);
}

static const struct inode_ops dir_iops = {
	.lookup = dir_lookup,
	.create = dir_create,
	.mkdir = dir_mkdir,
	.mknod = dir_mknod,
	.symlink = dir_symlink,
	.getattr = proc_getattr,
	.setattr = proc_setattr,
	.permission = proc_permission,
};
static const struct inode_ops file_iops = {
	.getattr = proc_getattr,
	.setattr = proc_setattr,
	.permission = proc_permission,
};
static const struct inode_ops link_iops = {
	.readlink = link_readlink,
	.getattr = proc_getattr,
	.setattr = proc_setattr,
};
static const struct inode_ops magic_iops = {
	.readlink = link_readlink,
	.follow = link_follow,
	.getattr = proc_getattr,
	.setattr = proc_setattr,
};
static const struct file_ops dir_fops = {.iterate = dir_iterate, .llseek = dir_llseek};
static const struct file_ops text_fops = {
	.open = text_open,
	.release = text_release,
	.read = text_read,
	.write = text_write,
	.llseek = text_llseek,
};

// --- the super block --------------------------------------------------------------------------------------

static void proc_evict(struct inode *inode)
{
	struct pnode *n = pnode_of(inode);

	pid_put(n->pid);
	slab_free(&pnode_slab, n);
}

DEFINE_SLAB(proc_sb_slab, struct super_block);
static void proc_put_super(struct super_block *sb)
{
	slab_free(&proc_sb_slab, sb);
}

static int proc_statfs(struct super_block *sb, struct statfs_info *ret)
{
	*ret = (struct statfs_info){.type = sb->magic, .bsize = PAGE_SIZE, .namelen = 255};
	return 0;
}

// Is what a name led to still there?
static int proc_revalidate(struct dentry *d)
{
	struct pnode *n;
	struct task *t;

	if (!d->inode)
		return 0;
	n = pnode_of(d->inode);
	if (!n->pid)
		return 1;
	t = pnode_task(n);
	if (!t)
		return 0;
	if (n->fd >= 0 && (!t->vt.files || !fd_table_peek(t->vt.files, n->fd)))
		return 0;
	return 1;
}

static const struct super_ops proc_sops = {
	.statfs = proc_statfs,
	.evict = proc_evict,
	.put_super = proc_put_super,
	.revalidate = proc_revalidate,
};

int tree_mount(const struct fs_type *type, const struct mount_opts *o, const struct pent *root, uint64_t magic, struct super_block **ret)
{
	struct super_block *sb = SLAB_NEW(proc_sb_slab, struct super_block);
	struct inode *inode;
	int r;

	if (!sb)
		return -ENOMEM;
	sb_init(sb, type, &proc_sops, SB_REVALIDATE | SB_NOEXEC_FAKE);
	sb->magic = magic;
	sb->source = o->source ? kstrdup(o->source) : NULL;
	r = pnode_new(sb, root, NULL, false, -1, &inode);
	if (!r) {
		inode->ino = 1;
		sb->root = d_root(inode);
		if (!sb->root)
			r = -ENOMEM;
	}
	if (r) {
		sb_put(sb);
		return r;
	}
	*ret = sb;
	return 0;
}

static int proc_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	return tree_mount(type, o, &root_ent, PROC_SUPER_MAGIC, ret);
}

static struct fs_type proc_type = {.name = "proc", .flags = FS_NODEV | FS_GUEST, .mount = proc_mount};

void proc_fs_init(void)
{
	fs_register(&proc_type);
}
