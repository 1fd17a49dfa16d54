// What /dev holds, and the file system type that comes with it.
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "sentry/fs/dev/internal.h"

static const struct node {
	const char *name;
	uint32_t mode;
	unsigned major, minor;
	const char *target;
} nodes[] = {
	{"null", S_IFCHR | 0666, 1, 3, NULL},
	{"zero", S_IFCHR | 0666, 1, 5, NULL},
	{"full", S_IFCHR | 0666, 1, 7, NULL},
	{"random", S_IFCHR | 0666, 1, 8, NULL},
	{"urandom", S_IFCHR | 0666, 1, 9, NULL},
	{"tty", S_IFCHR | 0666, 5, 0, NULL},
	{"ptmx", S_IFLNK, 0, 0, "pts/ptmx"},
	{"fd", S_IFLNK, 0, 0, "/proc/self/fd"},
	{"stdin", S_IFLNK, 0, 0, "/proc/self/fd/0"},
	{"stdout", S_IFLNK, 0, 0, "/proc/self/fd/1"},
	{"stderr", S_IFLNK, 0, 0, "/proc/self/fd/2"},
	{"pts", S_IFDIR | 0755, 0, 0, NULL},
	{"shm", S_IFDIR | 01777, 0, 0, NULL},
	{"mqueue", S_IFDIR | 0755, 0, 0, NULL},
};
static const struct node console_node = {"console", S_IFCHR | 0620, 5, 1, NULL};

static int make_node(struct dentry *dir, const struct node *n)
{
	const struct inode_ops *ops = dir->inode->ops;
	size_t len = strlen(n->name);
	struct dentry *d = d_find(dir, n->name, len);
	struct inode *inode = NULL;
	int r = -EPERM;

	if (!d)
		d = d_add(dir, n->name, len, NULL);
	if (!d)
		return -ENOMEM;
	if (d->inode) {
		d_put(d);
		return 0;
	}
	switch (n->mode & S_IFMT) {
	case S_IFDIR:
		if (ops->mkdir)
			r = ops->mkdir(dir->inode, d, n->mode, &inode);
		break;
	case S_IFLNK:
		if (ops->symlink)
			r = ops->symlink(dir->inode, d, n->target, &inode);
		break;
	default:
		if (ops->mknod)
			r = ops->mknod(dir->inode, d, n->mode, makedev(n->major, n->minor), &inode);
		break;
	}
	if (!r)
		d_instantiate(d, inode);
	d_put(d);
	return r;
}

int dev_populate(struct dentry *dir, bool console)
{
	int r = 0;

	klock_lock(&dir->inode->lock);
	for (size_t i = 0; i < ARRAY_SIZE(nodes) && !r; i++)
		r = make_node(dir, &nodes[i]);
	if (console && !r)
		r = make_node(dir, &console_node);
	klock_unlock(&dir->inode->lock);
	return r;
}

static int devtmpfs_mount(const struct fs_type *type, const struct mount_opts *o, struct super_block **ret)
{
	const struct fs_type *tmpfs = fs_find("tmpfs");
	struct super_block *sb;
	int r;

	if (!tmpfs)
		return -ENODEV;
	r = tmpfs->mount(tmpfs, o, &sb);
	if (r)
		return r;
	sb->type = type;
	r = dev_populate(sb->root, false);
	if (r) {
		sb_put(sb);
		return r;
	}
	*ret = sb;
	return 0;
}

static struct fs_type devtmpfs_type = {.name = "devtmpfs", .flags = FS_NODEV, .mount = devtmpfs_mount};

int dev_init(void)
{
	fs_register(&devtmpfs_type);
	return mem_devices_init();
}
