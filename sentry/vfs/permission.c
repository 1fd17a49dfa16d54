// Who may do what to an inode (path_resolution(7), capabilities(7), acl(5)).
#include <sys/xattr.h>

#include "sentry/vfs/internal.h"

struct vfs_protected vfs_protected = {.symlinks = 1, .hardlinks = 1, .regular = 2, .fifos = 1};

// The POSIX ACL of an inode, as its extended attribute has it (version 2, little endian).
struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
enum { ACL_USER_OBJ = 1, ACL_USER = 2, ACL_GROUP_OBJ = 4, ACL_GROUP = 8, ACL_MASK = 16, ACL_OTHER = 32 };
#define ACL_MAX_BYTES (4 + 128 * sizeof(struct acl_entry))

// 0, -EACCES, or -EAGAIN when there is no usable list and the mode bits decide.
static int acl_permission(struct inode *inode, const struct cred *c, int want)
{
	char buf[ACL_MAX_BYTES];
	const struct acl_entry *e = (const struct acl_entry *)(buf + 4);
	ssize_t n = inode->ops->getxattr ? inode->ops->getxattr(inode, "system.posix_acl_access", buf, sizeof(buf)) : -1;
	unsigned count, perm = 0, mask = 7;
	bool found = false, group_seen = false;

	if (n < 4 || (n - 4) % sizeof(*e))
		return -EAGAIN;
	count = (unsigned)((n - 4) / sizeof(*e));
	for (unsigned i = 0; i < count; i++)
		if (e[i].tag == ACL_MASK)
			mask = e[i].perm;
	for (unsigned i = 0; i < count && !found; i++) {
		switch (e[i].tag) {
		case ACL_USER_OBJ:
			if (inode->uid == c->fsuid)
				return (e[i].perm & want) == (unsigned)want ? 0 : -EACCES;
			break;
		case ACL_USER:
			if (e[i].id == c->fsuid)
				found = true, perm = e[i].perm & mask;
			break;
		case ACL_GROUP_OBJ:
		case ACL_GROUP:
			if (!cred_in_group(c, e[i].tag == ACL_GROUP ? e[i].id : inode->gid))
				break;
			group_seen = true;
			if ((e[i].perm & want) == (unsigned)want)
				found = true, perm = e[i].perm & mask;
			break;
		case ACL_OTHER:
			if (group_seen)
				return -EACCES;
			found = true;
			perm = e[i].perm;
			break;
		default:
			break;
		}
	}
	return found && (perm & want) == (unsigned)want ? 0 : -EACCES;
}

static int mode_permission(struct inode *inode, const struct cred *c, int want)
{
	unsigned bits = inode->mode;

	if (inode->uid == c->fsuid) {
		bits >>= 6;
	} else {
		if (unlikely(inode->has_acl && inode->mode & 070)) {
			int err = acl_permission(inode, c, want);

			if (err != -EAGAIN)
				return err;
		}
		// Group membership matters only if group and others differ in what is asked.
		if ((bits >> 3 ^ bits) & (unsigned)want && cred_in_group(c, inode->gid))
			bits >>= 3;
	}
	return (bits & (unsigned)want) == (unsigned)want ? 0 : -EACCES;
}

int inode_permission(struct inode *inode, const struct cred *c, int mask)
{
	int want = mask & (MAY_READ | MAY_WRITE | MAY_EXEC);

	if (inode->ops->permission)
		return inode->ops->permission(inode, c, mask);
	if (mode_permission(inode, c, want) == 0)
		return 0;
	if (S_ISDIR(inode->mode)) {
		if (!(want & MAY_WRITE) && capable_over(inode, c, CAP_DAC_READ_SEARCH))
			return 0;
		return capable_over(inode, c, CAP_DAC_OVERRIDE) ? 0 : -EACCES;
	}
	if (want == MAY_READ && capable_over(inode, c, CAP_DAC_READ_SEARCH))
		return 0;
	// Even root executes only what somebody may execute.
	if ((!(want & MAY_EXEC) || inode->mode & 0111) && capable_over(inode, c, CAP_DAC_OVERRIDE))
		return 0;
	return -EACCES;
}

int path_permission(const struct path *p, const struct cred *c, int mask)
{
	struct inode *inode = p->dentry->inode;

	if (mask & MAY_WRITE && sb_or_mnt_rdonly(p) &&
	    (S_ISREG(inode->mode) || S_ISDIR(inode->mode) || S_ISLNK(inode->mode)))
		return -EROFS;
	if (mask & MAY_EXEC && S_ISREG(inode->mode) &&
	    ((p->mnt && p->mnt->flags & MNT_NOEXEC) || inode->sb->flags & SB_NOEXEC_FAKE))
		return -EACCES;
	return inode_permission(inode, c, mask);
}

bool inode_owner_or_capable(const struct inode *inode, const struct cred *c)
{
	return inode->uid == c->fsuid || capable_over(inode, c, CAP_FOWNER);
}

int may_create_in(struct inode *dir, const struct cred *c)
{
	if (dir->nlink == 0)
		return -ENOENT;
	return inode_permission(dir, c, MAY_WRITE | MAY_EXEC);
}

static bool sticky_forbids(const struct inode *dir, const struct inode *inode, const struct cred *c)
{
	if (!(dir->mode & S_ISVTX) || inode->uid == c->fsuid || dir->uid == c->fsuid)
		return false;
	return !capable_over(inode, c, CAP_FOWNER);
}

int may_delete(struct dentry *dir, struct dentry *victim, bool want_dir, const struct cred *c)
{
	struct inode *inode = victim->inode;
	int err;

	if (!inode)
		return -ENOENT;
	err = inode_permission(dir->inode, c, MAY_WRITE | MAY_EXEC);
	if (err)
		return err;
	if (sticky_forbids(dir->inode, inode, c))
		return -EPERM;
	if (want_dir) {
		if (!S_ISDIR(inode->mode))
			return -ENOTDIR;
		if (victim->parent == victim)
			return -EBUSY;
	} else if (S_ISDIR(inode->mode)) {
		return -EISDIR;
	}
	return dir->inode->nlink == 0 ? -ENOENT : 0;
}

// open(2) with O_CREAT of what is there already: not somebody else's file in a sticky directory that anybody may
// write to (protected_regular, protected_fifos).
int may_open_in_sticky(uint32_t dir_mode, uint32_t dir_uid, const struct inode *inode, const struct cred *c)
{
	if (!(dir_mode & S_ISVTX) || inode->uid == dir_uid || inode->uid == c->fsuid)
		return 0;
	if ((S_ISREG(inode->mode) && !vfs_protected.regular) || (S_ISFIFO(inode->mode) && !vfs_protected.fifos))
		return 0;
	if (dir_mode & S_IWOTH)
		return -EACCES;
	if (dir_mode & S_IWGRP &&
	    ((S_ISREG(inode->mode) && vfs_protected.regular > 1) || (S_ISFIFO(inode->mode) && vfs_protected.fifos > 1)))
		return -EACCES;
	return 0;
}
