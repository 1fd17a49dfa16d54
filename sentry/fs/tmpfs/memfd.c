// memfd_create(2): files of a tmpfs that nobody mounts; and the seals, which all of tmpfs's files have.
#include <sys/mman.h>

#include "sentry/fs/tmpfs/internal.h"

#define MFD_NOEXEC 8u // MFD_NOEXEC_SEAL

bool file_is_tmpfs(const struct file *f)
{
	return f->ops == &tmpfs_file_ops;
}

int tmpfs_get_seals(const struct file *f)
{
	return file_is_tmpfs(f) ? (int)tinode_of(f->inode)->file.seals : -EINVAL;
}

int tmpfs_add_seals(struct file *f, unsigned seals)
{
	struct tinode *t = tinode_of(f->inode);

	if (!(f->mode & FMODE_WRITE))
		return -EPERM;
	if (seals & ~(unsigned)(F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | SEAL_EXEC))
		return -EINVAL;
	if (!file_is_tmpfs(f))
		return -EINVAL;
	if (t->file.seals & F_SEAL_SEAL)
		return -EPERM;
	if (seals & F_SEAL_WRITE && !(t->file.seals & F_SEAL_WRITE) && t->inode.shared_maps)
		return -EBUSY;
	if (seals & SEAL_EXEC && t->inode.mode & 0111) // an executable that may not change its mode must not change at all
		seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
	t->file.seals |= seals;
	t->inode.write_sealed = t->file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE);
	return 0;
}

int memfd_new(const char *name, unsigned flags, struct file **ret)
{
	static struct super_block *sb;
	struct tmpfs_limits none = {.mode = 0700};
	struct tinode *t;
	char *full;
	int err;

	if (!sb) {
		err = tmpfs_new_sb(&none, &sb);
		if (err)
			return err;
	}
	full = kalloc(strlen(name) + 24);
	if (!full)
		return -ENOMEM;
	sprintf(full, "/memfd:%s (deleted)", name);
	t = tmpfs_inode_new((struct tmpfs *)sb, sb->root->inode, S_IFREG | (flags & MFD_NOEXEC ? 0666 : 0777));
	if (!t) {
		kfree(full);
		return -ENOMEM;
	}
	t->inode.nlink = 0;
	t->file.seals = F_SEAL_SEAL;
	if (flags & MFD_ALLOW_SEALING)
		t->file.seals = 0;
	if (flags & MFD_NOEXEC)
		t->file.seals = SEAL_EXEC;
	err = file_new_anon(full, &t->inode, &tmpfs_file_ops, O_RDWR | 0100000 /* O_LARGEFILE */, NULL, ret);
	kfree(full);
	return err;
}
