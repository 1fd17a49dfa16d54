// Attributes: stat, chmod, chown, utimes, truncate, extended attributes (inode(7), xattr(7)).
#include <sys/xattr.h>

#include "sentry/vfs/internal.h"

#define XATTR_LIST_LIMIT 65536

void inode_init_owner(struct inode *inode, const struct inode *dir)
{
	const struct cred *c = vfs_self()->cred;

	inode->uid = c->fsuid;
	inode->gid = c->fsgid;
	if (dir && dir->mode & S_ISGID) {
		inode->gid = dir->gid;
		if (S_ISDIR(inode->mode))
			inode->mode |= S_ISGID;
		else if ((inode->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !cred_in_group(c, dir->gid) &&
			 !cred_capable(c, CAP_FSETID))
			inode->mode &= ~(uint32_t)S_ISGID;
	}
}

void inode_copy_attr(struct inode *inode, const struct iattr *a)
{
	if (a->valid & ATTR_UID)
		inode->uid = a->uid;
	if (a->valid & ATTR_GID)
		inode->gid = a->gid;
	if (a->valid & ATTR_MODE)
		inode->mode = (inode->mode & S_IFMT) | (a->mode & 07777);
	if (a->valid & ATTR_ATIME)
		inode->atime = a->atime;
	if (a->valid & ATTR_MTIME)
		inode->mtime = a->mtime;
	if (a->valid & ATTR_CTIME)
		inode->ctime = a->ctime;
}

uint32_t mode_without_suid(const struct inode *inode, const struct cred *c, bool chown)
{
	uint32_t mode = inode->mode & ~(uint32_t)S_ISUID;

	if (mode & S_ISGID) {
		if (mode & S_IXGRP)
			mode &= ~(uint32_t)S_ISGID;
		else if (chown && !cred_in_group(c, inode->gid) && !capable_over(inode, c, CAP_FSETID))
			mode &= ~(uint32_t)S_ISGID;
	}
	return mode;
}

int kill_suid_for_write(struct inode *inode)
{
	const struct cred *c = vfs_self()->cred;
	struct iattr a = {.valid = ATTR_MODE | ATTR_CTIME, .ctime = vfs_now()};
	int err;

	a.mode = mode_without_suid(inode, c, false);
	if (a.mode == inode->mode || capable_over(inode, c, CAP_FSETID) || !inode->ops->setattr)
		return 0;
	klock_lock(&inode->lock);
	err = inode->ops->setattr(inode, &a);
	klock_unlock(&inode->lock);
	return err;
}

int vfs_getattr(const struct path *p)
{
	struct inode *inode = p->dentry->inode;

	return inode->ops->getattr ? inode->ops->getattr(inode) : 0;
}

// chown(2), chmod(2), utimensat(2): may the caller? Changes *a where Linux quietly does less.
static int setattr_check(struct inode *inode, struct iattr *a)
{
	const struct cred *c = vfs_self()->cred;

	if (a->valid & ATTR_UID && (c->fsuid != inode->uid || a->uid != inode->uid) && !capable_over(inode, c, CAP_CHOWN))
		return -EPERM;
	if (a->valid & ATTR_GID && !capable_over(inode, c, CAP_CHOWN) &&
	    (c->fsuid != inode->uid || (!cred_in_group(c, a->gid) && a->gid != inode->gid)))
		return -EPERM;
	if (a->valid & ATTR_MODE) {
		uint32_t gid = a->valid & ATTR_GID ? a->gid : inode->gid;

		if (!inode_owner_or_capable(inode, c))
			return -EPERM;
		if (!cred_in_group(c, gid) && !capable_over(inode, c, CAP_FSETID))
			a->mode &= ~(uint32_t)S_ISGID;
	}
	if (a->valid & (ATTR_ATIME | ATTR_MTIME) && !inode_owner_or_capable(inode, c)) {
		if (!(a->valid & ATTR_TIMES_NOW))
			return -EPERM;
		return inode_permission(inode, c, MAY_WRITE);
	}
	return 0;
}

int vfs_setattr(const struct path *p, struct iattr *a)
{
	struct inode *inode = p->dentry->inode;
	struct ktime now = vfs_now();
	int err;

	if (sb_or_mnt_rdonly(p))
		return -EROFS;
	if (a->valid & ATTR_TIMES_NOW)
		a->atime = a->mtime = now;
	klock_lock(&inode->lock);
	err = setattr_check(inode, a);
	if (!err && !inode->ops->setattr)
		err = -EPERM;
	if (err)
		goto out;
	if (a->valid & (ATTR_UID | ATTR_GID) && !S_ISDIR(inode->mode)) {
		uint32_t mode = mode_without_suid(inode, vfs_self()->cred, true);

		if (mode != inode->mode && !(a->valid & ATTR_MODE)) {
			a->valid |= ATTR_MODE;
			a->mode = mode;
		}
		if (S_ISREG(inode->mode) && inode->ops->setxattr)
			inode->ops->setxattr(inode, "security.capability", NULL, 0, 0);
	}
	a->valid |= ATTR_CTIME;
	a->ctime = now;
	err = inode->ops->setattr(inode, a);
out:
	klock_unlock(&inode->lock);
	if (!err)
		fsnotify(inode, p->dentry, FSN_ATTRIB, 0);
	return err;
}

int do_truncate(struct inode *inode, struct dentry *d, uint64_t size)
{
	const struct cred *c = vfs_self()->cred;
	struct iattr a = {.valid = ATTR_SIZE | ATTR_MTIME | ATTR_CTIME, .size = size};
	uint32_t mode = mode_without_suid(inode, c, false);
	int err = newsize_ok(inode, size);

	if (err)
		return err;
	if (!inode->ops->setattr)
		return -EPERM;
	a.mtime = a.ctime = vfs_now();
	if (mode != inode->mode && !capable_over(inode, c, CAP_FSETID)) {
		a.valid |= ATTR_MODE;
		a.mode = mode;
	}
	klock_lock(&inode->lock);
	err = inode->ops->setattr(inode, &a);
	klock_unlock(&inode->lock);
	if (!err)
		fsnotify(inode, d, FSN_MODIFY, 0);
	return err;
}

int vfs_truncate(const struct path *p, uint64_t size)
{
	struct inode *inode = p->dentry->inode;
	int err;

	if (S_ISDIR(inode->mode))
		return -EISDIR;
	if (!S_ISREG(inode->mode))
		return -EINVAL;
	err = path_permission(p, vfs_self()->cred, MAY_WRITE);
	if (err)
		return err;
	if (inode->writers < 0)
		return -ETXTBSY;
	return do_truncate(inode, p->dentry, size);
}

int vfs_ftruncate(struct file *f, int64_t size)
{
	if (size < 0)
		return -EINVAL;
	if (!S_ISREG(f->inode->mode) || !(f->mode & FMODE_WRITE))
		return -EINVAL;
	return do_truncate(f->inode, f->path.dentry, (uint64_t)size);
}

// --- extended attributes ----------------------------------------------------------------------------

static bool has_prefix(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int xattr_permission(const struct path *p, const char *name, int mask)
{
	struct inode *inode = p->dentry->inode;
	const struct cred *c = vfs_self()->cred;
	bool writing = mask & MAY_WRITE;

	if (writing && sb_or_mnt_rdonly(p))
		return -EROFS;
	if (has_prefix(name, "security.")) {
		if (!writing)
			return 0;
		if (strcmp(name, "security.capability") == 0)
			return cred_capable(c, CAP_SETFCAP) ? 0 : -EPERM;
		return cred_capable(c, CAP_SYS_ADMIN) ? 0 : -EPERM;
	}
	if (has_prefix(name, "system.")) {
		if (strcmp(name, "system.posix_acl_access") != 0 && strcmp(name, "system.posix_acl_default") != 0)
			return -EOPNOTSUPP;
		if (S_ISLNK(inode->mode))
			return -EOPNOTSUPP;
		if (!writing)
			return 0;
		if (strcmp(name, "system.posix_acl_default") == 0 && !S_ISDIR(inode->mode))
			return -EACCES;
		return inode_owner_or_capable(inode, c) ? 0 : -EPERM;
	}
	if (has_prefix(name, "trusted."))
		return cred_capable(c, CAP_SYS_ADMIN) ? 0 : writing ? -EPERM : -ENODATA;
	if (!has_prefix(name, "user."))
		return -EOPNOTSUPP;
	if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
		return writing ? -EPERM : -ENODATA;
	if (S_ISDIR(inode->mode) && inode->mode & S_ISVTX && writing && !inode_owner_or_capable(inode, c))
		return -EPERM;
	return inode_permission(inode, c, mask);
}

ssize_t vfs_getxattr(const struct path *p, const char *name, void *buf, size_t size)
{
	struct inode *inode = p->dentry->inode;
	int err = xattr_permission(p, name, MAY_READ);

	if (err)
		return err;
	return inode->ops->getxattr ? inode->ops->getxattr(inode, name, buf, size) : -EOPNOTSUPP;
}

int vfs_setxattr(const struct path *p, const char *name, const void *val, size_t size, int flags)
{
	struct inode *inode = p->dentry->inode;
	int err = xattr_permission(p, name, MAY_WRITE);

	if (err)
		return err;
	if (!inode->ops->setxattr)
		return -EOPNOTSUPP;
	klock_lock(&inode->lock);
	err = inode->ops->setxattr(inode, name, val, size, flags);
	klock_unlock(&inode->lock);
	if (!err)
		fsnotify(inode, p->dentry, FSN_ATTRIB, 0);
	return err;
}

// The whole list is read, so that trusted.* can be kept from those who may not see it.
ssize_t vfs_listxattr(const struct path *p, char *buf, size_t size)
{
	struct inode *inode = p->dentry->inode;
	bool admin = cred_capable(vfs_self()->cred, CAP_SYS_ADMIN);
	ssize_t n, out = 0;
	char *all;

	if (!inode->ops->listxattr)
		return -EOPNOTSUPP;
	if (admin)
		return inode->ops->listxattr(inode, buf, size);
	n = inode->ops->listxattr(inode, NULL, 0);
	if (n <= 0)
		return n;
	if (n > XATTR_LIST_LIMIT)
		return -E2BIG;
	all = kalloc((size_t)n);
	if (!all)
		return -ENOMEM;
	n = inode->ops->listxattr(inode, all, (size_t)n);
	for (ssize_t i = 0, len; i < n; i += len) {
		len = (ssize_t)strnlen(all + i, (size_t)(n - i)) + 1;
		if (has_prefix(all + i, "trusted."))
			continue;
		if (size && (size_t)(out + len) > size) {
			out = -ERANGE;
			break;
		}
		if (size)
			memcpy(buf + out, all + i, (size_t)len);
		out += len;
	}
	kfree(all);
	return n < 0 ? n : out;
}
