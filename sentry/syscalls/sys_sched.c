// Scheduling: sched(7), getpriority(2), ioprio_set(2). Guest threads are the host's to schedule; what is
// set here is remembered and reported, and nobody gets more of the host by it.
#include <linux/capability.h>
#include <sched.h>
#include <sys/resource.h>

#include "platform/base/base.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

#define NICE_MIN (-20)
#define NICE_MAX 19
#define POLICY_RESET_ON_FORK 0x40000000
#define POLICY_DEADLINE 6
#define FLAG_RESET_ON_FORK 1ULL
#define ATTR_SIZE_VER0 48

static struct task *find_or_self(struct task *t, int pid)
{
	return pid ? task_find(pid) : t;
}

static bool may_change(const struct task *by, const struct task *o)
{
	const struct cred *c = by->vt.cred;

	return c->euid == o->vt.cred->euid || c->euid == o->vt.cred->uid || task_capable(by, CAP_SYS_NICE);
}

static bool may_nice(const struct task *by, const struct task *o, int nice)
{
	return nice >= o->nice || 20 - nice <= (int)MIN(o->tg->rlim.v[RLIMIT_NICE].cur, 40UL) ||
	       task_capable(by, CAP_SYS_NICE);
}

SYSCALL(sched_yield)
{
	sched_yield_cpu();
	return 0;
}

SYSCALL(getcpu)
{
	uint32_t cpu = 0, node = 0;

	// Only the host knows where the thread ran; the first CPU it may use is a truthful choice.
	for (unsigned i = 0; i < 1024; i++) {
		if (t->cpu_mask[i / 64] & 1ULL << (i % 64)) {
			cpu = i;
			break;
		}
	}
	if (a[0] && copy_out_obj(GADDR(a[0]), &cpu) < 0)
		return -EFAULT;
	if (a[1] && copy_out_obj(GADDR(a[1]), &node) < 0)
		return -EFAULT;
	return 0;
}

// --- affinity -----------------------------------------------------------------------------------

SYSCALL(sched_getaffinity)
{
	struct task *o = find_or_self(t, arg_int(a[0]));
	size_t len = MIN((size_t)arg_uint(a[1]), sizeof(o->cpu_mask)), need = 8;

	for (size_t i = 0; i < 16; i++)
		if (kernel_cpu_mask[i])
			need = (i + 1) * 8;
	if (arg_uint(a[1]) < need || arg_uint(a[1]) & 7)
		return -EINVAL;
	if (!o)
		return -ESRCH;
	len = MIN(len, need);
	if (copy_out(GADDR(a[2]), o->cpu_mask, len) < 0)
		return -EFAULT;
	return (int64_t)len;
}

SYSCALL(sched_setaffinity)
{
	uint64_t mask[16] = {0}, any = 0;
	struct task *o;

	if (copy_in(mask, GADDR(a[2]), MIN((size_t)arg_uint(a[1]), sizeof(mask))) < 0)
		return -EFAULT;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	if (!may_change(t, o))
		return -EPERM;
	for (size_t i = 0; i < 16; i++)
		any |= mask[i] &= kernel_cpu_mask[i];
	if (!any)
		return -EINVAL;
	memcpy(o->cpu_mask, mask, sizeof(mask));
	return 0;
}

// --- policies -----------------------------------------------------------------------------------

static bool realtime(unsigned policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR;
}

static int check_policy(const struct task *t, const struct task *o, unsigned policy, int prio)
{
	if (policy > SCHED_IDLE || policy == 4)
		return -EINVAL;
	if (realtime(policy) ? prio < 1 || prio > 99 : prio != 0)
		return -EINVAL;
	if (!may_change(t, o))
		return -EPERM;
	if (realtime(policy) && (uint64_t)prio > o->tg->rlim.v[RLIMIT_RTPRIO].cur && !task_capable(t, CAP_SYS_NICE))
		return -EPERM;
	return 0;
}

static int64_t set_policy(struct task *t, int pid, int policy, uint64_t param)
{
	bool reset = policy >= 0 && (policy & POLICY_RESET_ON_FORK);
	int32_t prio;
	struct task *o;
	int r;

	if (pid < 0 || !param)
		return -EINVAL;
	if (copy_in_obj(&prio, GADDR(param)) < 0)
		return -EFAULT;
	o = find_or_self(t, pid);
	if (!o)
		return -ESRCH;
	if (policy < 0) { // sched_setparam: as it is
		policy = (int)o->sched_policy;
		reset = o->sched_flags & FLAG_RESET_ON_FORK;
	}
	policy &= ~POLICY_RESET_ON_FORK;
	r = check_policy(t, o, (unsigned)policy, prio);
	if (r < 0)
		return r;
	o->sched_policy = (uint32_t)policy;
	o->sched_prio = (uint32_t)prio;
	o->sched_flags = reset ? FLAG_RESET_ON_FORK : 0;
	return 0;
}

SYSCALL(sched_setparam)
{
	return set_policy(t, arg_int(a[0]), -1, a[1]);
}

SYSCALL(sched_setscheduler)
{
	return arg_int(a[1]) < 0 ? -EINVAL : set_policy(t, arg_int(a[0]), arg_int(a[1]), a[2]);
}

SYSCALL(sched_getscheduler)
{
	struct task *o;

	if (arg_int(a[0]) < 0)
		return -EINVAL;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	return o->sched_policy | (o->sched_flags & FLAG_RESET_ON_FORK ? POLICY_RESET_ON_FORK : 0);
}

SYSCALL(sched_getparam)
{
	struct task *o;
	int32_t prio;

	if (arg_int(a[0]) < 0 || !a[1])
		return -EINVAL;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	prio = (int32_t)o->sched_prio;
	return copy_out_obj(GADDR(a[1]), &prio);
}

struct wire_sched_attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t prio;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

SYSCALL(sched_setattr)
{
	struct wire_sched_attr w;
	uint32_t size;
	struct task *o;
	int r;

	if (!a[1] || arg_int(a[0]) < 0 || arg_uint(a[2]))
		return -EINVAL;
	if (copy_in_obj(&size, GADDR(a[1])) < 0)
		return -EFAULT;
	if (!size)
		size = ATTR_SIZE_VER0;
	if (size < ATTR_SIZE_VER0 || size > PAGE_SIZE)
		return -E2BIG;
	r = copy_in_struct(&w, sizeof(w), GADDR(a[1]), size);
	if (r < 0)
		return r;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	if (w.flags & ~FLAG_RESET_ON_FORK)
		return -EINVAL;
	if (w.policy == POLICY_DEADLINE)
		return -EPERM;
	r = check_policy(t, o, w.policy, (int)w.prio);
	if (r == 0 && !realtime(w.policy) && (w.nice < NICE_MIN || w.nice > NICE_MAX))
		r = -EINVAL;
	if (r == 0 && !realtime(w.policy) && !may_nice(t, o, w.nice))
		r = -EPERM;
	if (r < 0)
		return r;
	o->sched_policy = w.policy;
	o->sched_prio = w.prio;
	o->sched_flags = (uint32_t)w.flags;
	if (!realtime(w.policy))
		o->nice = w.nice;
	return 0;
}

SYSCALL(sched_getattr)
{
	struct wire_sched_attr w = {.size = sizeof(w)};
	uint32_t size = arg_uint(a[2]);
	struct task *o;

	if (!a[1] || arg_int(a[0]) < 0 || size < ATTR_SIZE_VER0 || size > PAGE_SIZE || arg_uint(a[3]))
		return -EINVAL;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	w.policy = o->sched_policy;
	w.flags = o->sched_flags;
	w.nice = o->nice;
	w.prio = o->sched_prio;
	w.util_max = 1024;
	w.size = (uint32_t)MIN(size, sizeof(w));
	return copy_out(GADDR(a[1]), &w, w.size);
}

SYSCALL(sched_get_priority_max)
{
	switch (arg_int(a[0])) {
	case SCHED_FIFO:
	case SCHED_RR:
		return 99;
	case SCHED_OTHER:
	case SCHED_BATCH:
	case SCHED_IDLE:
	case POLICY_DEADLINE:
		return 0;
	default:
		return -EINVAL;
	}
}

SYSCALL(sched_get_priority_min)
{
	switch (arg_int(a[0])) {
	case SCHED_FIFO:
	case SCHED_RR:
		return 1;
	case SCHED_OTHER:
	case SCHED_BATCH:
	case SCHED_IDLE:
	case POLICY_DEADLINE:
		return 0;
	default:
		return -EINVAL;
	}
}

SYSCALL(sched_rr_get_interval)
{
	struct wire_timespec ts;
	struct task *o;

	if (arg_int(a[0]) < 0)
		return -EINVAL;
	o = find_or_self(t, arg_int(a[0]));
	if (!o)
		return -ESRCH;
	ts = wire_timespec(o->sched_policy == SCHED_RR ? 100000000 : o->sched_policy == SCHED_FIFO ? 0 : 3000000);
	return copy_out_obj(GADDR(a[1]), &ts);
}

// --- nice values --------------------------------------------------------------------------------

struct prio_walk {
	struct task *t;
	int which, nice, result;
	bool set;
	uint32_t uid;
};

static void prio_one(struct prio_walk *w, struct task *o)
{
	if (!w->set) {
		w->result = MAX(w->result, 20 - o->nice);
		return;
	}
	if (!may_change(w->t, o)) {
		w->result = -EPERM;
	} else if (!may_nice(w->t, o, w->nice)) {
		w->result = -EACCES;
	} else {
		if (w->result == -ESRCH)
			w->result = 0;
		o->nice = w->nice;
		if (o->tg->leader == o)
			o->tg->nice = w->nice;
	}
}

static void prio_group(struct prio_walk *w, struct thread_group *tg)
{
	struct task *o;

	TAILQ_FOREACH(o, &tg->threads, tg_link)
		prio_one(w, o);
}

static void prio_user(struct thread_group *tg, void *arg)
{
	struct prio_walk *w = arg;

	if (tg->pid_ns == w->t->pid_ns && tg->leader && tg->leader->vt.cred->uid == w->uid)
		prio_group(w, tg);
}

static int prio_all(struct prio_walk *w, int which, int who)
{
	struct thread_group *tg;
	struct pid *pgrp;
	struct task *o;

	switch (which) {
	case PRIO_PROCESS:
		o = find_or_self(w->t, who);
		if (o)
			prio_one(w, o);
		return 0;
	case PRIO_PGRP:
		pgrp = who ? pid_find(who) : w->t->tg->pgrp;
		if (pgrp)
			LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link)
				prio_group(w, tg);
		return 0;
	case PRIO_USER:
		w->uid = who ? (uint32_t)who : w->t->vt.cred->uid;
		kernel_each_process(prio_user, w);
		return 0;
	default:
		return -EINVAL;
	}
}

SYSCALL(getpriority)
{
	struct prio_walk w = {.t = t, .result = -ESRCH};
	int r = prio_all(&w, arg_int(a[0]), arg_int(a[1]));

	return r < 0 ? r : w.result;
}

SYSCALL(setpriority)
{
	struct prio_walk w = {.t = t, .result = -ESRCH, .set = true,
			      .nice = MAX(NICE_MIN, MIN(arg_int(a[2]), NICE_MAX))};
	int r = prio_all(&w, arg_int(a[0]), arg_int(a[1]));

	return r < 0 ? r : w.result;
}

// --- I/O priorities: kept for the record ----------------------------------------------------------

SYSCALL(ioprio_set)
{
	unsigned prio = arg_uint(a[2]), class = prio >> 13 & 7;
	struct task *o;

	if (arg_int(a[0]) < 1 || arg_int(a[0]) > 3 || class > 3 || (class == 0 && (prio & 7)))
		return -EINVAL;
	if (class == 1 && !capable(CAP_SYS_ADMIN) && !capable(CAP_SYS_NICE))
		return -EPERM;
	if (arg_int(a[0]) != 1)
		return 0;
	o = find_or_self(t, arg_int(a[1]));
	if (!o)
		return -ESRCH;
	if (!may_change(t, o))
		return -EPERM;
	o->ioprio = prio;
	return 0;
}

SYSCALL(ioprio_get)
{
	struct task *o = t;

	if (arg_int(a[0]) < 1 || arg_int(a[0]) > 3)
		return -EINVAL;
	if (arg_int(a[0]) == 1)
		o = find_or_self(t, arg_int(a[1]));
	return o ? (int64_t)o->ioprio : -ESRCH;
}
