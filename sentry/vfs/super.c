// File system types, super blocks, inodes.
#include "sentry/vfs/internal.h"

static struct fs_type *fs_types;

void fs_register(struct fs_type *type)
{
	struct fs_type **p = &fs_types;

	while (*p)
		p = &(*p)->next;
	type->next = NULL;
	*p = type;
}

const struct fs_type *fs_find(const char *name)
{
	for (const struct fs_type *t = fs_types; t; t = t->next)
		if (strcmp(t->name, name) == 0)
			return t;
	return NULL;
}

const struct fs_type *fs_first(void)
{
	return fs_types;
}

// --- super blocks -------------------------------------------------------------------------------

void sb_init(struct super_block *sb, const struct fs_type *type, const struct super_ops *ops, unsigned flags)
{
	static uint32_t last_minor;

	ref_init(&sb->refs, 1);
	sb->type = type;
	sb->ops = ops;
	sb->flags = flags;
	// Anonymous devices have major 0 and count minors up, as makedev(0, n) lays them out.
	last_minor++;
	sb->dev = (last_minor & 0xff) | (uint64_t)(last_minor & 0xfff00) << 12;
	sb->blocksize = PAGE_SIZE;
	sb->maxbytes = VFS_MAXBYTES;
	klock_init(&sb->rename_lock);
}

struct super_block *sb_get(struct super_block *sb)
{
	ref_get(&sb->refs);
	return sb;
}

static void sb_free_if_unused(struct super_block *sb)
{
	char *source = sb->source;

	if (sb->ninodes || sb->refs.n)
		return;
	if (sb->ops->put_super)
		sb->ops->put_super(sb);
	kfree(source);
}

void sb_put(struct super_block *sb)
{
	struct dentry *root;

	if (!sb || !ref_put(&sb->refs))
		return;
	sb->ninodes++; // keeps sb alive until we are through
	root = sb->root;
	if (root) {
		d_kill_tree(root);
		sb->root = NULL;
		d_put(root);
	}
	if (sb->ops->kill_sb)
		sb->ops->kill_sb(sb);
	sb->ninodes--;
	sb_free_if_unused(sb);
}

// --- inodes -------------------------------------------------------------------------------------

struct ktime vfs_now(void)
{
	nsec_t now = sched_now_real();

	return (struct ktime){(int64_t)(now / NSEC_PER_SEC), (uint32_t)(now % NSEC_PER_SEC)};
}

void inode_init(struct inode *inode, struct super_block *sb, uint32_t mode, const struct inode_ops *ops, const struct file_ops *fops)
{
	ref_init(&inode->refs, 1);
	inode->sb = sb;
	sb->ninodes++;
	inode->ops = ops;
	inode->fops = fops;
	inode->mode = mode;
	inode->nlink = 1;
	inode->blksize = (uint32_t)sb->blocksize;
	inode->atime = inode->mtime = inode->ctime = inode->btime = vfs_now();
	klock_init(&inode->lock);
}

struct inode *inode_get(struct inode *inode)
{
	ref_get(&inode->refs);
	return inode;
}

void inode_put(struct inode *inode)
{
	struct super_block *sb;

	if (!inode || !ref_put(&inode->refs))
		return;
	sb = inode->sb;
	if (unlikely(inode->locks))
		locks_free_ctx(inode);
	sb->ops->evict(inode);
	kassert(sb->ninodes > 0);
	sb->ninodes--;
	if (unlikely(!sb->ninodes))
		sb_free_if_unused(sb);
}

int inode_deny_write(struct inode *inode)
{
	if (inode->writers > 0)
		return -ETXTBSY;
	inode->writers--;
	return 0;
}

void inode_allow_write(struct inode *inode)
{
	kassert(inode->writers < 0);
	inode->writers++;
}
