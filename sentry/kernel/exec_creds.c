// What a program's file does to the credentials of whoever executes it (capabilities(7),
// "Transformation of capabilities during execve()").
#include "sentry/kernel/exec_creds.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/stat.h>

#include "sentry/kernel/internal.h"
#include "sentry/vfs/mount.h"

#define CAPS_ALL ((1ULL << (CAP_LAST_CAP + 1)) - 1)

struct file_caps {
	bool present, effective;
	uint64_t permitted, inheritable;
};

// security.capability, versions 2 and 3 (3: only for the initial user namespace's root here).
static int get_file_caps(struct file *f, struct file_caps *ret)
{
	struct { uint32_t magic, data[4], rootid; } x = {0};
	const struct inode_ops *ops = f->inode->ops;
	ssize_t n;

	*ret = (struct file_caps){0};
	if (!ops->getxattr)
		return 0;
	n = ops->getxattr(f->inode, "security.capability", &x, sizeof(x));
	if (n < 0)
		return 0;
	switch (x.magic & VFS_CAP_REVISION_MASK) {
	case VFS_CAP_REVISION_1:
		if (n != 12)
			return -EINVAL;
		ret->permitted = x.data[0];
		ret->inheritable = x.data[1];
		break;
	case VFS_CAP_REVISION_2:
	case VFS_CAP_REVISION_3:
		if (n != ((x.magic & VFS_CAP_REVISION_MASK) == VFS_CAP_REVISION_3 ? 24 : 20))
			return -EINVAL;
		if (n == 24 && x.rootid != 0)
			return 0;
		ret->permitted = x.data[0] | (uint64_t)x.data[2] << 32;
		ret->inheritable = x.data[1] | (uint64_t)x.data[3] << 32;
		break;
	default:
		return -EINVAL;
	}
	ret->permitted &= CAPS_ALL;
	ret->inheritable &= CAPS_ALL;
	ret->effective = x.magic & VFS_CAP_FLAGS_EFFECTIVE;
	ret->present = true;
	return 0;
}

static void set_ids(const struct inode *i, struct cred *n)
{
	if (i->mode & S_ISUID)
		n->euid = i->uid;
	if ((i->mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		n->egid = i->gid;
}

// The permitted set and whether it becomes effective. -EPERM: the file demands what it cannot get.
static int new_permitted(const struct cred *old, const struct file_caps *fc, struct cred *n, bool *effective)
{
	bool noroot = n->securebits & SECBIT_NOROOT;

	n->cap_permitted = 0;
	if (fc->present) {
		n->cap_permitted = (n->cap_bounding & fc->permitted) | (n->cap_inheritable & fc->inheritable);
		*effective = fc->effective;
		if (fc->effective && (fc->permitted & ~n->cap_permitted))
			return -EPERM;
	}
	// A set-user-ID-root program with capabilities of its own gets those alone.
	if (noroot || (fc->present && old->uid != 0 && n->euid == 0))
		return 0;
	if (n->euid == 0 || n->uid == 0)
		n->cap_permitted = n->cap_bounding | old->cap_inheritable;
	if (n->euid == 0)
		*effective = true;
	return 0;
}

int exec_new_creds(const struct cred *old, struct file *f, bool may_gain, struct cred **ret, bool *ret_secure)
{
	bool nosuid = f->path.mnt && (f->path.mnt->flags & MNT_NOSUID), effective = false, setid;
	struct cred *n = cred_dup(old);
	struct file_caps fc = {0};
	int r = 0;

	if (!n)
		return -ENOMEM;
	if (!nosuid && !old->no_new_privs)
		set_ids(f->inode, n);
	if (!nosuid)
		r = get_file_caps(f, &fc);
	if (r == 0)
		r = new_permitted(old, &fc, n, &effective);
	if (r < 0) {
		cred_put(n);
		return r;
	}
	setid = n->euid != old->euid || n->egid != old->egid;
	if ((setid || (n->cap_permitted & ~old->cap_permitted)) && (old->no_new_privs || !may_gain)) {
		if (old->no_new_privs || !(old->cap_effective & (1ULL << CAP_SETUID))) {
			n->euid = n->uid;
			n->egid = n->gid;
		}
		n->cap_permitted &= old->cap_permitted;
	}
	n->suid = n->fsuid = n->euid;
	n->sgid = n->fsgid = n->egid;
	if (fc.present || setid)
		n->cap_ambient = 0;
	n->cap_permitted |= n->cap_ambient;
	n->cap_effective = effective ? n->cap_permitted : n->cap_ambient;
	n->securebits &= ~(uint32_t)SECBIT_KEEP_CAPS;
	*ret_secure = setid || (n->uid != 0 && (effective || (n->cap_permitted & ~n->cap_ambient)));
	*ret = n;
	return 0;
}
