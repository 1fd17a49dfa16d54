// prctl(2), arch_prctl(2), personality(2).
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <signal.h>

#include "platform/base/base.h"
#include "platform/base/log.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/syscalls/sys_seccomp.h"
#include "sentry/syscalls/syscalls.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_GET_AUXV
#define PR_GET_AUXV 0x41555856
#endif

// --- credentials --------------------------------------------------------------------------------

static int64_t with_cred(struct task *t, void (*change)(struct cred *c, uint64_t v), uint64_t v)
{
	struct cred *c = cred_dup(t->vt.cred);

	if (!c)
		return -ENOMEM;
	change(c, v);
	task_commit_creds(t, c);
	return 0;
}

static void do_keep_caps(struct cred *c, uint64_t v)
{
	c->securebits = v ? c->securebits | SECBIT_KEEP_CAPS : c->securebits & ~(uint32_t)SECBIT_KEEP_CAPS;
}

static void do_securebits(struct cred *c, uint64_t v)
{
	c->securebits = (uint32_t)v;
}

static void do_drop_bounding(struct cred *c, uint64_t v)
{
	c->cap_bounding &= ~(1ULL << v);
}

static void do_no_new_privs(struct cred *c, uint64_t v)
{
	c->no_new_privs = true;
}

static void do_ambient(struct cred *c, uint64_t v)
{
	c->cap_ambient = v;
}

static int64_t set_securebits(struct task *t, uint64_t v)
{
	uint32_t old = t->vt.cred->securebits, locks = old & SECURE_ALL_LOCKS;

	if ((((locks >> 1) & (old ^ (uint32_t)v)) & SECURE_ALL_BITS) || (locks & ~v) ||
	    (v & ~(uint64_t)(SECURE_ALL_LOCKS | SECURE_ALL_BITS)) || !capable(CAP_SETPCAP))
		return -EPERM;
	return with_cred(t, do_securebits, v);
}

static int64_t ambient(struct task *t, const uint64_t *a)
{
	const struct cred *c = t->vt.cred;
	uint64_t bit;

	if (a[1] == PR_CAP_AMBIENT_CLEAR_ALL)
		return a[2] | a[3] | a[4] ? -EINVAL : with_cred(t, do_ambient, 0);
	if (a[3] | a[4] || a[2] > CAP_LAST_CAP)
		return -EINVAL;
	bit = 1ULL << a[2];
	switch (a[1]) {
	case PR_CAP_AMBIENT_IS_SET:
		return !!(c->cap_ambient & bit);
	case PR_CAP_AMBIENT_LOWER:
		return with_cred(t, do_ambient, c->cap_ambient & ~bit);
	case PR_CAP_AMBIENT_RAISE:
		if (!(c->cap_permitted & bit) || !(c->cap_inheritable & bit) ||
		    (c->securebits & SECBIT_NO_CAP_AMBIENT_RAISE))
			return -EPERM;
		return with_cred(t, do_ambient, c->cap_ambient | bit);
	default:
		return -EINVAL;
	}
}

static int64_t prctl_cred(struct task *t, const uint64_t *a)
{
	const struct cred *c = t->vt.cred;

	switch (arg_int(a[0])) {
	case PR_GET_KEEPCAPS:
		return !!(c->securebits & SECBIT_KEEP_CAPS);
	case PR_SET_KEEPCAPS:
		if (a[1] > 1)
			return -EINVAL;
		return c->securebits & SECBIT_KEEP_CAPS_LOCKED ? -EPERM : with_cred(t, do_keep_caps, a[1]);
	case PR_GET_SECUREBITS:
		return c->securebits;
	case PR_SET_SECUREBITS:
		return set_securebits(t, a[1]);
	case PR_CAPBSET_READ:
		return a[1] > CAP_LAST_CAP ? -EINVAL : !!(c->cap_bounding & 1ULL << a[1]);
	case PR_CAPBSET_DROP:
		if (!capable(CAP_SETPCAP))
			return -EPERM;
		return a[1] > CAP_LAST_CAP ? -EINVAL : with_cred(t, do_drop_bounding, a[1]);
	case PR_CAP_AMBIENT:
		return ambient(t, a);
	case PR_GET_NO_NEW_PRIVS:
		return a[1] | a[2] | a[3] | a[4] ? -EINVAL : c->no_new_privs;
	default: // PR_SET_NO_NEW_PRIVS
		return a[1] != 1 || (a[2] | a[3] | a[4]) ? -EINVAL : with_cred(t, do_no_new_privs, 1);
	}
}

// --- memory -------------------------------------------------------------------------------------

static int64_t set_vma_name(struct task *t, const uint64_t *a)
{
	char *name = NULL;
	int r;

	if (a[1] != PR_SET_VMA_ANON_NAME)
		return -EINVAL;
	if (a[4]) {
		r = copy_in_str(&name, GADDR(a[4]), 80, NULL);
		if (r < 0)
			return r == -ENAMETOOLONG ? -EINVAL : r;
		for (const char *s = name; *s; s++)
			if (*s < 0x20 || *s > 0x7e || strchr("\\`$[]", *s))
				return -EINVAL;
	}
	return mm_set_vma_name(t->mm, a[2], a[3], name);
}

static int64_t set_mm(struct task *t, const uint64_t *a)
{
	uint64_t *field;

	if (!capable(CAP_SYS_RESOURCE))
		return -EPERM;
	switch (a[1]) {
	case PR_SET_MM_START_CODE: field = &t->mm->start_code; break;
	case PR_SET_MM_END_CODE: field = &t->mm->end_code; break;
	case PR_SET_MM_START_DATA: field = &t->mm->start_data; break;
	case PR_SET_MM_END_DATA: field = &t->mm->end_data; break;
	case PR_SET_MM_START_STACK: field = &t->mm->start_stack; break;
	case PR_SET_MM_ARG_START: field = &t->mm->arg_start; break;
	case PR_SET_MM_ARG_END: field = &t->mm->arg_end; break;
	case PR_SET_MM_ENV_START: field = &t->mm->env_start; break;
	case PR_SET_MM_ENV_END: field = &t->mm->env_end; break;
	default:
		return -EINVAL;
	}
	if (a[2] < PF_GUEST_MIN || a[2] >= PF_GUEST_TOP || a[3] || a[4])
		return -EINVAL;
	*field = a[2];
	return 0;
}

static int64_t get_auxv(struct task *t, const uint64_t *a)
{
	size_t size = t->mm->nauxv * sizeof(t->mm->auxv[0]);

	if (a[3] | a[4])
		return -EINVAL;
	if (copy_out(GADDR(a[1]), t->mm->auxv, MIN((size_t)a[2], size)) < 0)
		return -EFAULT;
	return (int64_t)size;
}

// --- the rest -----------------------------------------------------------------------------------

static int64_t get_name(struct task *t, uint64_t addr)
{
	char name[16] = {0};

	memcpy(name, t->comm, sizeof(name) - 1);
	return copy_out_obj(GADDR(addr), &name);
}

static int64_t set_name(struct task *t, uint64_t addr)
{
	char name[16] = {0};
	size_t n = copy_in_some(name, GADDR(addr), sizeof(name) - 1);

	if (n < sizeof(name) - 1 && !memchr(name, 0, n))
		return -EFAULT;
	memcpy(t->comm, name, sizeof(name));
	return 0;
}

static int64_t put_int(uint64_t addr, int v)
{
	return copy_out_obj(GADDR(addr), &v);
}

static void mark_descendants(struct thread_group *tg)
{
	struct thread_group *c;

	// Whoever is below must look for a subreaper from now on. The tree is not deep in practice, but its
	// depth is the guest's choice: walk it without recursion.
	for (c = TAILQ_FIRST(&tg->children); c;) {
		struct thread_group *next = c->has_subreaper ? NULL : TAILQ_FIRST(&c->children);

		c->has_subreaper = true;
		while (!next && c != tg) {
			next = TAILQ_NEXT(c, sibling);
			c = c->parent;
		}
		c = next;
	}
}

static int64_t prctl_process(struct task *t, const uint64_t *a)
{
	switch (arg_int(a[0])) {
	case PR_SET_PDEATHSIG:
		if (a[1] > KNSIG)
			return -EINVAL;
		t->pdeath_signal = (int)a[1];
		return 0;
	case PR_GET_PDEATHSIG:
		return put_int(a[1], t->pdeath_signal);
	case PR_SET_CHILD_SUBREAPER:
		t->tg->subreaper = a[1] != 0;
		if (a[1])
			mark_descendants(t->tg);
		return 0;
	case PR_GET_CHILD_SUBREAPER:
		return put_int(a[1], t->tg->subreaper);
	case PR_SET_TIMERSLACK:
		t->timer_slack = (int64_t)a[1] <= 0 ? 50000 : a[1];
		return 0;
	case PR_GET_TIMERSLACK:
		return (int64_t)t->timer_slack;
	case PR_GET_DUMPABLE:
		return t->mm->dumpable;
	default: // PR_SET_DUMPABLE
		if (a[1] > 1)
			return -EINVAL;
		t->mm->dumpable = a[1];
		return 0;
	}
}

SYSCALL(prctl)
{
	switch (arg_int(a[0])) {
	case PR_SET_NAME:
		return set_name(t, a[1]);
	case PR_GET_NAME:
		return get_name(t, a[1]);
	case PR_SET_PDEATHSIG:
	case PR_GET_PDEATHSIG:
	case PR_SET_CHILD_SUBREAPER:
	case PR_GET_CHILD_SUBREAPER:
	case PR_SET_TIMERSLACK:
	case PR_GET_TIMERSLACK:
	case PR_GET_DUMPABLE:
	case PR_SET_DUMPABLE:
		return prctl_process(t, a);
	case PR_GET_KEEPCAPS:
	case PR_SET_KEEPCAPS:
	case PR_GET_SECUREBITS:
	case PR_SET_SECUREBITS:
	case PR_CAPBSET_READ:
	case PR_CAPBSET_DROP:
	case PR_CAP_AMBIENT:
	case PR_GET_NO_NEW_PRIVS:
	case PR_SET_NO_NEW_PRIVS:
		return prctl_cred(t, a);
	case PR_GET_SECCOMP:
		return seccomp_mode(t);
	case PR_SET_SECCOMP:
		return prctl_set_seccomp(t, a[1], a[2]);
	case PR_SET_VMA:
		return set_vma_name(t, a);
	case PR_SET_MM:
		return set_mm(t, a);
	case PR_GET_AUXV:
		return get_auxv(t, a);
	case PR_GET_TID_ADDRESS:
		return copy_out_obj(GADDR(a[1]), &t->clear_child_tid);
	case PR_GET_TIMING:
		return PR_TIMING_STATISTICAL;
	case PR_SET_TIMING:
		return a[1] == PR_TIMING_STATISTICAL ? 0 : -EINVAL;
	case PR_GET_TSC:
		return put_int(a[1], PR_TSC_ENABLE);
	case PR_SET_TSC:
		return a[1] == PR_TSC_ENABLE ? 0 : -EINVAL;
	case PR_MCE_KILL:
		return a[1] == PR_MCE_KILL_CLEAR && !a[2] ? 0 : a[1] == PR_MCE_KILL_SET ? 0 : -EINVAL;
	case PR_MCE_KILL_GET:
		return a[1] | a[2] | a[3] | a[4] ? -EINVAL : PR_MCE_KILL_DEFAULT;
	case PR_GET_THP_DISABLE:
		return a[1] | a[2] | a[3] | a[4] ? -EINVAL : 0;
	case PR_SET_PTRACER:
		return 0; // a permission that no access here needs
	case PR_GET_MEMORY_MERGE:
		return 0;
	default:
		// PR_SET_THP_DISABLE, PR_SET_MDWE, PR_PAC_* and the rest: as a kernel without them
		log_debug("%s[%d]: prctl %#x is not supported", t->comm, t->tid->nr, arg_uint(a[0]));
		return -EINVAL;
	}
}

// --- the architecture ---------------------------------------------------------------------------

#define ARCH_SET_GS 0x1001
#define ARCH_SET_FS 0x1002
#define ARCH_GET_FS 0x1003
#define ARCH_GET_GS 0x1004
#define ARCH_GET_CPUID 0x1011
#define ARCH_SET_CPUID 0x1012

SYSCALL(arch_prctl)
{
	struct abi_regs regs;

	switch (arg_int(a[0])) {
	case ARCH_SET_FS:
	case ARCH_SET_GS:
		if (a[1] >= PF_GUEST_TOP)
			return -EPERM;
		pf_get_regs(t->ctx, &regs);
		*(arg_int(a[0]) == ARCH_SET_FS ? &regs.fs_base : &regs.gs_base) = a[1];
		pf_set_regs(t->ctx, &regs);
		return 0;
	case ARCH_GET_FS:
		pf_get_regs(t->ctx, &regs);
		return copy_out_obj(GADDR(a[1]), &regs.fs_base);
	case ARCH_GET_GS:
		pf_get_regs(t->ctx, &regs);
		return copy_out_obj(GADDR(a[1]), &regs.gs_base);
	case ARCH_GET_CPUID:
		return 1;
	case ARCH_SET_CPUID:
		return -ENODEV;
	default:
		return -EINVAL;
	}
}

SYSCALL(personality)
{
	uint32_t old = t->tg->personality;

	if (arg_uint(a[0]) != 0xffffffff)
		t->tg->personality = arg_uint(a[0]);
	return old;
}
