// The file system of terminals: ptmx and a node for each pair; the devices tty, console, ptmx. All
// mounts show the same terminals.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/fs/devpts/tty.h"

#define DEVPTS_SUPER_MAGIC 0x1cd1

struct pts_sb {
	struct super_block sb; // first
	uint32_t gid, mode, ptmxmode;
	bool has_gid;
};
struct pts_inode {
	struct inode inode; // first
	struct tty *tty;    // owned; NULL: the root, ptmx
};
DEFINE_SLAB(pts_sb_slab, struct pts_sb);
DEFINE_SLAB(pts_inode_slab, struct pts_inode);
static struct tty *ttys[TTY_MAX];
static uint32_t default_gid, default_mode = 0600;
static bool default_has_gid;

struct tty *devpts_find(int index)
{
	return index >= 0 && index < TTY_MAX ? ttys[index] : NULL;
}

int devpts_add(struct tty *t)
{
	struct vfs_task *self = vfs_self();

	for (int i = 0; i < TTY_MAX; i++) {
		if (ttys[i])
			continue;
		ttys[i] = t;
		t->index = i;
		t->rdev = makedev(TTY_MAJOR_PTS + i / 256, i % 256);
		t->mode = S_IFCHR | default_mode;
		t->uid = self && self->cred ? self->cred->fsuid : 0;
		t->gid = default_has_gid ? default_gid : self && self->cred ? self->cred->fsgid : 0;
		return 0;
	}
	return -ENOSPC;
}

void devpts_remove(struct tty *t)
{
	if (devpts_find(t->index) == t)
		ttys[t->index] = NULL;
}

// --- inodes ---------------------------------------------------------------------------------------

static const struct inode_ops dir_iops, node_iops;
static const struct file_ops dir_fops, node_fops;

static int pts_inode_new(struct super_block *sb, struct tty *t, uint32_t mode, struct inode **ret)
{
	struct pts_inode *p = SLAB_NEW(pts_inode_slab, struct pts_inode);

	if (!p)
		return -ENOMEM;
	inode_init(&p->inode, sb, mode, S_ISDIR(mode) ? &dir_iops : &node_iops, S_ISDIR(mode) ? &dir_fops : t ? &node_fops : &tty_master_fops);
	p->inode.ino = S_ISDIR(mode) ? 1 : t ? (uint64_t)t->index + 3 : 2;
	if (S_ISDIR(mode))
		p->inode.nlink = 2;
	else
		p->inode.rdev = t ? t->rdev : makedev(5, 2);
	p->inode.blksize = 1024;
	p->tty = t ? tty_get(t) : NULL;
	*ret = &p->inode;
	return 0;
}

static int node_getattr(struct inode *inode)
{
	struct tty *t = ((struct pts_inode *)inode)->tty;

	if (!t)
		return 0;
	inode->mode = t->mode;
	inode->uid = t->uid;
	inode->gid = t->gid;
	inode->atime = t->atime;
	inode->mtime = t->mtime;
	inode->ctime = t->ctime;
	return 0;
}

static int node_setattr(struct inode *inode, const struct iattr *a)
{
	struct tty *t = ((struct pts_inode *)inode)->tty;

	if (a->valid & ATTR_MODE)
		inode->mode = (inode->mode & S_IFMT) | (a->mode & 07777);
	if (a->valid & ATTR_UID)
		inode->uid = a->uid;
	if (a->valid & ATTR_GID)
		inode->gid = a->gid;
	if (t) {
		t->mode = inode->mode;
		t->uid = inode->uid;
		t->gid = inode->gid;
		if (a->valid & ATTR_ATIME)
			t->atime = a->atime;
		if (a->valid & ATTR_MTIME)
			t->mtime = a->mtime;
		t->ctime = vfs_now();
	}
	return 0;
}

static int node_open(struct inode *inode, struct file *f)
{
	return tty_open_slave(((struct pts_inode *)inode)->tty, f);
}

static int dir_lookup(struct inode *dir, const char *name, struct inode **ret)
{
	struct pts_sb *sb = (struct pts_sb *)dir->sb;
	struct tty *t;
	char *end;
	long n;
	int r;

	if (strcmp(name, "ptmx") == 0)
		return pts_inode_new(dir->sb, NULL, S_IFCHR | sb->ptmxmode, ret);
	if (*name < '0' || *name > '9' || (*name == '0' && name[1]))
		return -ENOENT;
	n = strtol(name, &end, 10);
	t = *end || n >= TTY_MAX ? NULL : devpts_find((int)n);
	if (!t)
		return -ENOENT;
	r = pts_inode_new(dir->sb, t, t->mode, ret);
	if (!r)
		node_getattr(*ret);
	return r;
}

static int dir_iterate(struct file *f, struct dir_context *c)
{
	char name[16];
	int n;

	if (c->pos == 0 && c->fill(c, ".", 1, 1, 4, 1))
		c->pos = 1;
	if (c->pos == 1 && c->fill(c, "..", 2, 1, 4, 2))
		c->pos = 2;
	if (c->pos == 2 && c->fill(c, "ptmx", 4, 2, 2, 3))
		c->pos = 3;
	for (; c->pos >= 3 && c->pos - 3 < TTY_MAX; c->pos++) {
		if (!ttys[c->pos - 3])
			continue;
		n = snprintf(name, sizeof(name), "%d", (int)(c->pos - 3));
		if (!c->fill(c, name, n, (uint64_t)c->pos, 2, c->pos + 1))
			return 0;
	}
	return 0;
}

static const struct inode_ops dir_iops = {.lookup = dir_lookup, .setattr = node_setattr};
static const struct inode_ops node_iops = {.getattr = node_getattr, .setattr = node_setattr};
static const struct file_ops dir_fops = {.iterate = dir_iterate};
static const struct file_ops node_fops = {.open = node_open};

// --- the super block ------------------------------------------------------------------------------

static void pts_evict(struct inode *inode)
{
	struct pts_inode *p = (struct pts_inode *)inode;

	tty_put(p->tty);
	slab_free(&pts_inode_slab, p);
}

static void pts_put_super(struct super_block *sb)
{
	slab_free(&pts_sb_slab, sb);
}

static int pts_statfs(struct super_block *sb, struct statfs_info *ret)
{
	*ret = (struct statfs_info){.type = DEVPTS_SUPER_MAGIC, .bsize = PAGE_SIZE, .namelen = 255};
	return 0;
}

static int pts_revalidate(struct dentry *d)
{
	struct tty *t = d->inode ? ((struct pts_inode *)d->inode)->tty : NULL;

	if (!d->inode)
		return 0;
	return !t || devpts_find(t->index) == t;
}

static int pts_show_options(struct super_block *sb, char *buf, size_t size)
{
	struct pts_sb *p = (struct pts_sb *)sb;
	int n = 0;

	if (p->has_gid)
		n = snprintf(buf, size, ",gid=%u", p->gid);
	return n + snprintf(buf + n, size - n, ",mode=%03o,ptmxmode=%03o", p->mode, p->ptmxmode);
}

static const struct super_ops pts_sops = {
	.statfs = pts_statfs,
	.evict = pts_evict,
	.put_super = pts_put_super,
	.revalidate = pts_revalidate,
	.show_options = pts_show_options,
};

static int parse_option(struct pts_sb *p, char *opt)
{
	unsigned v;
	char tail;

	if (!*opt || strcmp(opt, "newinstance") == 0 || strncmp(opt, "max=", 4) == 0)
		return 0;
	if (sscanf(opt, "mode=%o%c", &v, &tail) == 1) {
		p->mode = v & 0777;
	} else if (sscanf(opt, "ptmxmode=%o%c", &v, &tail) == 1) {
		p->ptmxmode = v & 0777;
	} else if (sscanf(opt, "gid=%u%c", &v, &tail) == 1) {
		p->gid = v;
		p->has_gid = true;
	} else if (sscanf(opt, "uid=%u%c", &v, &tail) != 1) {
		return -EINVAL;
	}
	return 0;
}

static int pts_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	struct pts_sb *p = SLAB_NEW(pts_sb_slab, struct pts_sb);
	char *opts, *save, *opt;
	struct inode *root;
	int r = 0;

	if (!p)
		return -ENOMEM;
	p->mode = 0600;
	opts = o->data ? kstrdup(o->data) : NULL;
	for (opt = opts ? strtok_r(opts, ",", &save) : NULL; opt && !r; opt = strtok_r(NULL, ",", &save))
		r = parse_option(p, opt);
	kfree(opts);
	if (r) {
		slab_free(&pts_sb_slab, p);
		return r;
	}
	sb_init(&p->sb, type, &pts_sops, SB_REVALIDATE | SB_OWN_FOPS);
	p->sb.magic = DEVPTS_SUPER_MAGIC;
	p->sb.source = o->source ? kstrdup(o->source) : NULL;
	r = pts_inode_new(&p->sb, NULL, S_IFDIR | 0755, &root);
	if (!r) {
		p->sb.root = d_root(root);
		r = p->sb.root ? 0 : -ENOMEM;
	}
	if (r) {
		sb_put(&p->sb);
		return r;
	}
	default_mode = p->mode;
	default_gid = p->gid;
	default_has_gid = p->has_gid;
	*ret = &p->sb;
	return 0;
}

static struct fs_type pts_type = {.name = "devpts", .flags = FS_NODEV | FS_GUEST, .mount = pts_mount};

// --- devices --------------------------------------------------------------------------------------

static int dev_tty_open(struct inode *inode, struct file *f)
{
	struct tty *t = tty_current();

	return t ? tty_open_slave(t, f) : -ENXIO;
}

static int dev_console_open(struct inode *inode, struct file *f)
{
	return tty_console ? tty_open_slave(tty_console, f) : -ENXIO;
}

static const struct file_ops dev_tty_fops = {.open = dev_tty_open};
static const struct file_ops dev_console_fops = {.open = dev_console_open};

void devpts_init(void)
{
	fs_register(&pts_type);
	chrdev_register(5, 0, 1, &dev_tty_fops);
	chrdev_register(5, 1, 1, &dev_console_fops);
	chrdev_register(5, 2, 1, &tty_master_fops);
	tty_jobctl_init();
}
