// Limits and usage: getrlimit(2), prlimit(2), getrusage(2).
#include <linux/capability.h>
#include <sys/resource.h>

#include "platform/base/base.h"
#include "sentry/kernel/timers.h"
#include "sentry/kernel/wait.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

#define NR_OPEN_MAX (1U << 20) // fs.nr_open

struct wire_rlimit {
	uint64_t cur, max;
};

static int set_rlimit(struct task *t, struct task *o, unsigned res, const struct wire_rlimit *w)
{
	struct rlimits *r = &o->tg->rlim;

	if (w->cur > w->max)
		return -EINVAL;
	if (res == RLIMIT_NOFILE && w->max > NR_OPEN_MAX)
		return -EPERM;
	if (w->max > r->v[res].max && !task_capable(t, CAP_SYS_RESOURCE))
		return -EPERM;
	r->v[res].cur = w->cur;
	r->v[res].max = w->max;
	task_limits_changed(o);
	if (res == RLIMIT_CPU)
		rlimit_cpu_changed(o->tg);
	return 0;
}

SYSCALL(getrlimit)
{
	unsigned res = arg_uint(a[0]);
	struct wire_rlimit w;

	if (res >= ARRAY_SIZE(t->tg->rlim.v))
		return -EINVAL;
	w = (struct wire_rlimit){t->tg->rlim.v[res].cur, t->tg->rlim.v[res].max};
	return copy_out_obj(GADDR(a[1]), &w);
}

SYSCALL(setrlimit)
{
	struct wire_rlimit w;

	if (copy_in_obj(&w, GADDR(a[1])) < 0)
		return -EFAULT;
	if (arg_uint(a[0]) >= ARRAY_SIZE(t->tg->rlim.v))
		return -EINVAL;
	return set_rlimit(t, t, arg_uint(a[0]), &w);
}

static bool may_prlimit(const struct task *t, const struct task *o)
{
	const struct cred *c = t->vt.cred, *p = o->vt.cred;

	if (t->tg == o->tg || task_capable(t, CAP_SYS_RESOURCE))
		return true;
	return c->uid == p->euid && c->uid == p->suid && c->uid == p->uid && c->gid == p->egid && c->gid == p->sgid &&
	       c->gid == p->gid;
}

SYSCALL(prlimit64)
{
	struct wire_rlimit new, old;
	unsigned res = arg_uint(a[1]);
	struct task *o;
	int r = 0;

	if (res >= ARRAY_SIZE(t->tg->rlim.v))
		return -EINVAL;
	if (a[2] && copy_in_obj(&new, GADDR(a[2])) < 0)
		return -EFAULT;
	o = arg_int(a[0]) ? task_find(arg_int(a[0])) : t;
	if (!o)
		return -ESRCH;
	if (!may_prlimit(t, o))
		return -EPERM;
	old = (struct wire_rlimit){o->tg->rlim.v[res].cur, o->tg->rlim.v[res].max};
	if (a[2])
		r = set_rlimit(t, o, res, &new);
	if (r == 0 && a[3])
		r = copy_out_obj(GADDR(a[3]), &old);
	return r;
}

SYSCALL(getrusage)
{
	struct thread_group *tg = t->tg;
	struct wire_rusage w;
	struct rusage_ns ru;

	tg_get_rusage(tg, &ru);
	switch (arg_int(a[0])) {
	case RUSAGE_SELF:
		break;
	case RUSAGE_CHILDREN:
		ru = (struct rusage_ns){.utime_ns = tg->cutime_ns, .stime_ns = tg->cstime_ns, .maxrss_kb = tg->cmaxrss_kb};
		break;
	case RUSAGE_THREAD:
		ru.utime_ns = task_cpu_ns(t);
		ru.stime_ns = 0;
		break;
	default:
		return -EINVAL;
	}
	wire_rusage(&ru, &w);
	return copy_out_obj(GADDR(a[1]), &w);
}
