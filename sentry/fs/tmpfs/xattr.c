// Extended attributes of tmpfs: a short list an inode. POSIX ACLs are kept as their attribute, and the
// mode bits with them (acl(5)).
#include <sys/xattr.h>

#include "sentry/fs/tmpfs/internal.h"

// As Linux bounds them, so that the list stays short enough to be searched.
#define XATTR_INODE_MAX (128u << 10) // bytes of names and values
#define XATTR_INODE_COUNT 128u

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
enum { ACL_USER_OBJ = 1, ACL_USER = 2, ACL_GROUP_OBJ = 4, ACL_GROUP = 8, ACL_MASK = 16, ACL_OTHER = 32 };
#define ACL_HEADER 4u
#define ACL_VERSION 2u

static struct txattr *find(const struct tinode *t, const char *name)
{
	struct txattr *x;

	LIST_FOREACH(x, &t->xattrs, link)
		if (strcmp(x->name, name) == 0)
			return x;
	return NULL;
}

ssize_t tmpfs_getxattr(struct inode *inode, const char *name, void *buf, size_t size)
{
	struct txattr *x = find(tinode_of(inode), name);

	if (!x)
		return -ENODATA;
	if (size) {
		if (size < x->size)
			return -ERANGE;
		memcpy(buf, x->val, x->size);
	}
	return (ssize_t)x->size;
}

static void xattr_free(struct tinode *t, struct txattr *x)
{
	LIST_REMOVE(x, link);
	t->nxattrs--;
	t->xattr_bytes -= (uint32_t)(strlen(x->name) + x->size);
	kfree(x->val);
	kfree(x);
}

// Checks an ACL and finds what it makes of the mode. -EINVAL; 1: the mode says it all; 0.
static int acl_parse(const void *val, size_t size, uint32_t *mode)
{
	const struct acl_entry *e = (const struct acl_entry *)((const char *)val + ACL_HEADER);
	unsigned n, seen = 0, mask = 0, owner = 0, group = 0, other = 0, last = 0;
	uint32_t version;

	if (size < ACL_HEADER || (size - ACL_HEADER) % sizeof(*e))
		return -EINVAL;
	memcpy(&version, val, sizeof(version));
	n = (unsigned)((size - ACL_HEADER) / sizeof(*e));
	if (version != ACL_VERSION || n < 3)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		bool many = e[i].tag == ACL_USER || e[i].tag == ACL_GROUP;

		if (e[i].perm & ~7u || e[i].tag < last || (!many && seen & e[i].tag))
			return -EINVAL;
		last = e[i].tag;
		seen |= e[i].tag;
		switch (e[i].tag) {
		case ACL_USER_OBJ: owner = e[i].perm; break;
		case ACL_GROUP_OBJ: group = e[i].perm; break;
		case ACL_MASK: mask = e[i].perm; break;
		case ACL_OTHER: other = e[i].perm; break;
		case ACL_USER:
		case ACL_GROUP: break;
		default: return -EINVAL;
		}
	}
	if ((seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) != (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER))
		return -EINVAL;
	if (seen & (ACL_USER | ACL_GROUP) && !(seen & ACL_MASK))
		return -EINVAL;
	*mode = (*mode & ~0777u) | owner << 6 | (seen & ACL_MASK ? mask : group) << 3 | other;
	return n == 3;
}

// chmod(2) of a file with an ACL: the mask (or the group's entry) follows the mode.
void tmpfs_acl_chmod(struct tinode *t)
{
	struct txattr *x = t->inode.has_acl ? find(t, "system.posix_acl_access") : NULL;
	struct acl_entry *e = x ? (struct acl_entry *)(x->val + ACL_HEADER) : NULL;
	unsigned n = x ? (unsigned)((x->size - ACL_HEADER) / sizeof(*e)) : 0;
	bool masked = false;

	for (unsigned i = 0; i < n; i++)
		masked |= e[i].tag == ACL_MASK;
	for (unsigned i = 0; i < n; i++) {
		if (e[i].tag == ACL_USER_OBJ)
			e[i].perm = t->inode.mode >> 6 & 7;
		else if (e[i].tag == (masked ? ACL_MASK : ACL_GROUP_OBJ))
			e[i].perm = t->inode.mode >> 3 & 7;
		else if (e[i].tag == ACL_OTHER)
			e[i].perm = t->inode.mode & 7;
	}
}

static int xattr_store(struct tinode *t, const char *name, const void *val, size_t size, int flags)
{
	struct txattr *old = find(t, name), *x;
	size_t len = strlen(name);

	if (old && flags & XATTR_CREATE)
		return -EEXIST;
	if (!old && (flags & XATTR_REPLACE || !val))
		return -ENODATA;
	if (val) {
		if (t->xattr_bytes + len + size > XATTR_INODE_MAX || (!old && t->nxattrs >= XATTR_INODE_COUNT))
			return -ENOSPC;
		x = kalloc(sizeof(*x) + len + 1);
		if (!x)
			return -ENOMEM;
		x->val = kalloc(size);
		if (!x->val) {
			kfree(x);
			return -ENOMEM;
		}
		memcpy(x->name, name, len + 1);
		memcpy(x->val, val, size);
		x->size = size;
		t->xattr_bytes += (uint32_t)(len + size);
		t->nxattrs++;
		LIST_INSERT_HEAD(&t->xattrs, x, link);
	}
	if (old)
		xattr_free(t, old);
	t->inode.ctime = vfs_now();
	return 0;
}

int tmpfs_setxattr(struct inode *inode, const char *name, const void *val, size_t size, int flags)
{
	struct tinode *t = tinode_of(inode);
	bool access = strcmp(name, "system.posix_acl_access") == 0;
	uint32_t mode = inode->mode;
	int r = 0, err;

	if (access || strcmp(name, "system.posix_acl_default") == 0) {
		r = val ? acl_parse(val, size, &mode) : 1;
		if (r < 0)
			return r;
		if (r == 1 && access)
			val = NULL;
	}
	err = xattr_store(t, name, val, size, flags);
	if (access && err == -ENODATA && !val)
		err = 0; // nothing but the mode to change
	if (!err && access) {
		inode->mode = mode;
		inode->has_acl = r == 0;
		inode->ctime = vfs_now();
	}
	return err;
}

ssize_t tmpfs_listxattr(struct inode *inode, char *buf, size_t size)
{
	struct tinode *t = tinode_of(inode);
	struct txattr *x;
	size_t n = 0;

	LIST_FOREACH(x, &t->xattrs, link) {
		size_t len = strlen(x->name) + 1;

		if (size) {
			if (n + len > size)
				return -ERANGE;
			memcpy(buf + n, x->name, len);
		}
		n += len;
	}
	return (ssize_t)n;
}

void tmpfs_free_xattrs(struct tinode *t)
{
	while (!LIST_EMPTY(&t->xattrs))
		xattr_free(t, LIST_FIRST(&t->xattrs));
}
