// seccomp(2), and prctl(2)'s older way to it.
#include "sentry/syscalls/sys_seccomp.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "platform/base/base.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/syscalls/syscalls.h"

#define FILTER_FLAGS                                                                               \
	(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG | SECCOMP_FILTER_FLAG_SPEC_ALLOW |                      \
	 SECCOMP_FILTER_FLAG_TSYNC_ESRCH)

static int64_t set_filter(struct task *t, unsigned flags, uint64_t addr)
{
	struct { uint16_t len, pad[3]; uint64_t filter; } prog;
	struct sock_filter *insns;

	// SECCOMP_FILTER_FLAG_NEW_LISTENER among them: nobody can listen here
	if (flags & ~(unsigned)FILTER_FLAGS)
		return -EINVAL;
	if (copy_in_obj(&prog, GADDR(addr)) < 0)
		return -EFAULT;
	if (prog.len == 0 || prog.len > BPF_MAXINSNS)
		return -EINVAL;
	if (!t->vt.cred->no_new_privs && !capable(CAP_SYS_ADMIN))
		return -EACCES;
	insns = arena_alloc(prog.len * sizeof(*insns));
	if (!insns)
		return -ENOMEM;
	if (copy_in(insns, GADDR(prog.filter), prog.len * sizeof(*insns)) < 0)
		return -EFAULT;
	return seccomp_attach(t, insns, prog.len, flags);
}

static int64_t action_available(uint64_t addr)
{
	uint32_t action;

	if (copy_in_obj(&action, GADDR(addr)) < 0)
		return -EFAULT;
	switch (action) {
	case SECCOMP_RET_KILL_PROCESS:
	case SECCOMP_RET_KILL_THREAD:
	case SECCOMP_RET_TRAP:
	case SECCOMP_RET_ERRNO:
	case SECCOMP_RET_LOG:
	case SECCOMP_RET_ALLOW:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

SYSCALL(seccomp)
{
	unsigned flags = arg_uint(a[1]);

	switch (arg_uint(a[0])) {
	case SECCOMP_SET_MODE_STRICT:
		return flags || a[2] ? -EINVAL : seccomp_set_strict(t);
	case SECCOMP_SET_MODE_FILTER:
		return set_filter(t, flags, a[2]);
	case SECCOMP_GET_ACTION_AVAIL:
		return flags ? -EINVAL : action_available(a[2]);
	default:
		return -EINVAL;
	}
}

int64_t prctl_set_seccomp(struct task *t, uint64_t mode, uint64_t filter)
{
	switch (mode) {
	case SECCOMP_MODE_STRICT:
		return seccomp_set_strict(t);
	case SECCOMP_MODE_FILTER:
		return set_filter(t, 0, filter);
	default:
		return -EINVAL;
	}
}
