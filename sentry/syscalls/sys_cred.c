// Credentials: credentials(7), capabilities(7).
#include <linux/capability.h>
#include <linux/securebits.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/syscalls.h"

#define KEEP UINT32_MAX // -1: leave as it is
#define CAPS_ALL ((1ULL << (CAP_LAST_CAP + 1)) - 1)

// --- reading ------------------------------------------------------------------------------------

SYSCALL(getuid)
{
	return t->vt.cred->uid;
}

SYSCALL(geteuid)
{
	return t->vt.cred->euid;
}

SYSCALL(getgid)
{
	return t->vt.cred->gid;
}

SYSCALL(getegid)
{
	return t->vt.cred->egid;
}

static int64_t put3(const uint64_t *a, uint32_t r, uint32_t e, uint32_t s)
{
	if (copy_out_obj(GADDR(a[0]), &r) < 0 || copy_out_obj(GADDR(a[1]), &e) < 0 || copy_out_obj(GADDR(a[2]), &s) < 0)
		return -EFAULT;
	return 0;
}

SYSCALL(getresuid)
{
	const struct cred *c = t->vt.cred;

	return put3(a, c->uid, c->euid, c->suid);
}

SYSCALL(getresgid)
{
	const struct cred *c = t->vt.cred;

	return put3(a, c->gid, c->egid, c->sgid);
}

SYSCALL(getgroups)
{
	const struct cred *c = t->vt.cred;
	int n = arg_int(a[0]);

	if (n < 0)
		return -EINVAL;
	if (n == 0)
		return c->ngroups;
	if ((uint32_t)n < c->ngroups)
		return -EINVAL;
	if (c->ngroups && copy_out(GADDR(a[1]), c->groups, c->ngroups * sizeof(*c->groups)) < 0)
		return -EFAULT;
	return c->ngroups;
}

// --- changing -----------------------------------------------------------------------------------

// What a change of user ids means for capabilities.
static void fix_caps(const struct task *t, const struct cred *old, struct cred *n)
{
	bool was_root = old->uid == 0 || old->euid == 0 || old->suid == 0;
	bool is_root = n->uid == 0 || n->euid == 0 || n->suid == 0;

	if (n->securebits & SECBIT_NO_SETUID_FIXUP)
		return;
	if (was_root && !is_root) {
		if (!(n->securebits & SECBIT_KEEP_CAPS)) {
			n->cap_permitted = 0;
			n->cap_effective = 0;
		}
		n->cap_ambient = 0;
	}
	if (old->euid == 0 && n->euid != 0)
		n->cap_effective = 0;
	if (old->euid != 0 && n->euid == 0)
		n->cap_effective = n->cap_permitted;
}

static int64_t commit_uids(struct task *t, struct cred *n)
{
	fix_caps(t, t->vt.cred, n);
	task_commit_creds(t, n);
	return 0;
}

SYSCALL(setuid)
{
	const struct cred *old = t->vt.cred;
	uint32_t uid = arg_uint(a[0]);
	struct cred *n;

	if (uid == KEEP)
		return -EINVAL;
	if (!capable(CAP_SETUID) && uid != old->uid && uid != old->suid)
		return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (capable(CAP_SETUID))
		n->uid = n->suid = uid;
	n->euid = n->fsuid = uid;
	return commit_uids(t, n);
}

SYSCALL(setgid)
{
	const struct cred *old = t->vt.cred;
	uint32_t gid = arg_uint(a[0]);
	struct cred *n;

	if (gid == KEEP)
		return -EINVAL;
	if (!capable(CAP_SETGID) && gid != old->gid && gid != old->sgid)
		return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (capable(CAP_SETGID))
		n->gid = n->sgid = gid;
	n->egid = n->fsgid = gid;
	task_commit_creds(t, n);
	return 0;
}

SYSCALL(setreuid)
{
	const struct cred *old = t->vt.cred;
	uint32_t ruid = arg_uint(a[0]), euid = arg_uint(a[1]);
	bool cap = capable(CAP_SETUID);
	struct cred *n;

	if (ruid != KEEP && !cap && ruid != old->uid && ruid != old->euid)
		return -EPERM;
	if (euid != KEEP && !cap && euid != old->uid && euid != old->euid && euid != old->suid)
		return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (ruid != KEEP)
		n->uid = ruid;
	if (euid != KEEP)
		n->euid = euid;
	if (ruid != KEEP || (euid != KEEP && euid != old->uid))
		n->suid = n->euid;
	n->fsuid = n->euid;
	return commit_uids(t, n);
}

SYSCALL(setregid)
{
	const struct cred *old = t->vt.cred;
	uint32_t rgid = arg_uint(a[0]), egid = arg_uint(a[1]);
	bool cap = capable(CAP_SETGID);
	struct cred *n;

	if (rgid != KEEP && !cap && rgid != old->gid && rgid != old->egid)
		return -EPERM;
	if (egid != KEEP && !cap && egid != old->gid && egid != old->egid && egid != old->sgid)
		return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (rgid != KEEP)
		n->gid = rgid;
	if (egid != KEEP)
		n->egid = egid;
	if (rgid != KEEP || (egid != KEEP && egid != old->gid))
		n->sgid = n->egid;
	n->fsgid = n->egid;
	task_commit_creds(t, n);
	return 0;
}

static bool one_of(uint32_t id, uint32_t x, uint32_t y, uint32_t z)
{
	return id == KEEP || id == x || id == y || id == z;
}

SYSCALL(setresuid)
{
	const struct cred *old = t->vt.cred;
	uint32_t id[3] = {arg_uint(a[0]), arg_uint(a[1]), arg_uint(a[2])};
	struct cred *n;

	for (int i = 0; i < 3; i++)
		if (!one_of(id[i], old->uid, old->euid, old->suid) && !capable(CAP_SETUID))
			return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (id[0] != KEEP)
		n->uid = id[0];
	if (id[1] != KEEP)
		n->euid = id[1];
	if (id[2] != KEEP)
		n->suid = id[2];
	n->fsuid = n->euid;
	return commit_uids(t, n);
}

SYSCALL(setresgid)
{
	const struct cred *old = t->vt.cred;
	uint32_t id[3] = {arg_uint(a[0]), arg_uint(a[1]), arg_uint(a[2])};
	struct cred *n;

	for (int i = 0; i < 3; i++)
		if (!one_of(id[i], old->gid, old->egid, old->sgid) && !capable(CAP_SETGID))
			return -EPERM;
	n = cred_dup(old);
	if (!n)
		return -ENOMEM;
	if (id[0] != KEEP)
		n->gid = id[0];
	if (id[1] != KEEP)
		n->egid = id[1];
	if (id[2] != KEEP)
		n->sgid = id[2];
	n->fsgid = n->egid;
	task_commit_creds(t, n);
	return 0;
}

// These two never fail: they tell the old id.
#define CAP_FS_MASK                                                                                \
	(1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_FOWNER |          \
	 1ULL << CAP_FSETID | 1ULL << CAP_LINUX_IMMUTABLE | 1ULL << CAP_MKNOD | 1ULL << CAP_MAC_OVERRIDE)

SYSCALL(setfsuid)
{
	const struct cred *old = t->vt.cred;
	uint32_t was = old->fsuid, uid = arg_uint(a[0]);
	struct cred *n;

	if (uid == was || uid == KEEP ||
	    (!one_of(uid, old->uid, old->euid, old->suid) && !capable(CAP_SETUID)))
		return was;
	n = cred_dup(old);
	if (!n)
		return was;
	n->fsuid = uid;
	if (!(n->securebits & SECBIT_NO_SETUID_FIXUP)) {
		if (was == 0 && uid != 0)
			n->cap_effective &= ~CAP_FS_MASK;
		if (was != 0 && uid == 0)
			n->cap_effective |= n->cap_permitted & CAP_FS_MASK;
	}
	task_commit_creds(t, n);
	return was;
}

SYSCALL(setfsgid)
{
	const struct cred *old = t->vt.cred;
	uint32_t was = old->fsgid, gid = arg_uint(a[0]);
	struct cred *n;

	if (gid == was || gid == KEEP ||
	    (!one_of(gid, old->gid, old->egid, old->sgid) && !capable(CAP_SETGID)))
		return was;
	n = cred_dup(old);
	if (!n)
		return was;
	n->fsgid = gid;
	task_commit_creds(t, n);
	return was;
}

static int compare_gid(const void *x, const void *y)
{
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;

	return a < b ? -1 : a > b;
}

SYSCALL(setgroups)
{
	uint32_t n = arg_uint(a[0]), *list = NULL;
	struct cred *c;

	if (!capable(CAP_SETGID))
		return -EPERM;
	if (n > CRED_MAX_GROUPS)
		return -EINVAL;
	if (n) {
		list = kalloc(n * sizeof(*list));
		if (!list)
			return -ENOMEM;
		if (copy_in(list, GADDR(a[1]), n * sizeof(*list)) < 0) {
			kfree(list);
			return -EFAULT;
		}
		for (uint32_t i = 0; i < n; i++) {
			if (list[i] == KEEP) {
				kfree(list);
				return -EINVAL;
			}
		}
		qsort(list, n, sizeof(*list), compare_gid);
	}
	c = cred_dup(t->vt.cred);
	if (!c) {
		kfree(list);
		return -ENOMEM;
	}
	kfree(c->groups);
	c->groups = list;
	c->ngroups = n;
	task_commit_creds(t, c);
	return 0;
}

// --- capabilities -------------------------------------------------------------------------------

struct cap_header {
	uint32_t version;
	int32_t pid;
};
struct cap_word {
	uint32_t effective, permitted, inheritable;
};
#define CAP_VERSION_1 0x19980330u
#define CAP_VERSION_2 0x20071026u
#define CAP_VERSION_3 0x20080522u

static int cap_words(uint64_t addr, struct cap_header *h, unsigned *ret_n)
{
	uint32_t v = CAP_VERSION_3;

	if (copy_in_obj(h, GADDR(addr)) < 0)
		return -EFAULT;
	switch (h->version) {
	case CAP_VERSION_1:
		*ret_n = 1;
		return 0;
	case CAP_VERSION_2:
	case CAP_VERSION_3:
		*ret_n = 2;
		return 0;
	default:
		return copy_out_obj(GADDR(addr), &v) < 0 ? -EFAULT : -EINVAL;
	}
}

SYSCALL(capget)
{
	struct cap_word w[2] = {{0}};
	struct cap_header h;
	const struct cred *c;
	struct task *o;
	unsigned n;
	int r = cap_words(a[0], &h, &n);

	if (r < 0)
		return r == -EINVAL && !a[1] ? 0 : r;
	if (h.pid < 0)
		return -EINVAL;
	o = h.pid ? task_find(h.pid) : t;
	if (!o)
		return -ESRCH;
	if (!a[1])
		return 0;
	c = o->vt.cred;
	for (unsigned i = 0; i < n; i++) {
		w[i].effective = (uint32_t)(c->cap_effective >> (32 * i));
		w[i].permitted = (uint32_t)(c->cap_permitted >> (32 * i));
		w[i].inheritable = (uint32_t)(c->cap_inheritable >> (32 * i));
	}
	return copy_out(GADDR(a[1]), w, n * sizeof(w[0]));
}

SYSCALL(capset)
{
	const struct cred *old = t->vt.cred;
	struct cap_word w[2] = {{0}};
	struct cap_header h;
	struct cred *c;
	uint64_t e, p, i;
	unsigned n;
	int r = cap_words(a[0], &h, &n);

	if (r < 0)
		return r;
	if (h.pid != 0 && h.pid != t->tid->nr)
		return -EPERM;
	if (copy_in(w, GADDR(a[1]), n * sizeof(w[0])) < 0)
		return -EFAULT;
	e = (w[0].effective | (uint64_t)w[1].effective << 32) & CAPS_ALL;
	p = (w[0].permitted | (uint64_t)w[1].permitted << 32) & CAPS_ALL;
	i = (w[0].inheritable | (uint64_t)w[1].inheritable << 32) & CAPS_ALL;
	if (!capable(CAP_SETPCAP) && (i & ~(old->cap_inheritable | old->cap_permitted)))
		return -EPERM;
	if (i & ~(old->cap_inheritable | old->cap_bounding))
		return -EPERM;
	if ((p & ~old->cap_permitted) || (e & ~p))
		return -EPERM;
	c = cred_dup(old);
	if (!c)
		return -ENOMEM;
	c->cap_effective = e;
	c->cap_permitted = p;
	c->cap_inheritable = i;
	c->cap_ambient &= p & i;
	task_commit_creds(t, c);
	return 0;
}
