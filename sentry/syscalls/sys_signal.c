// Signals: kill(2), sigaction(2), sigprocmask(2), sigsuspend(2), sigaltstack(2) and their kin.
#include <signal.h>

#include "platform/base/base.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/sigcalls.h"
#include "sentry/kernel/sigmask.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

#define SIGSET_SIZE 8
#define MIN_ALTSTACK 2048

static bool valid_signal(int sig)
{
	return sig >= 0 && sig <= KNSIG;
}

static int copy_in_sigset(uint64_t *ret, uint64_t addr, uint64_t size)
{
	if (size != SIGSET_SIZE)
		return -EINVAL;
	return copy_in_obj(ret, GADDR(addr));
}

// --- sending ------------------------------------------------------------------------------------

static struct ksiginfo info_from(const struct task *t, int sig, int code)
{
	return (struct ksiginfo){.signo = sig, .code = code, .pid = t->tg->pid->nr, .uid = t->vt.cred->uid};
}

// For signal 0 only the permission counts.
static int kill_process(struct task *t, struct thread_group *tg, int sig, const struct ksiginfo *info)
{
	if (!tg->leader || !task_may_signal(t, tg->leader, sig))
		return -EPERM;
	return sig ? signal_send_group(tg, sig, info) : 0;
}

static int kill_pgrp(struct task *t, struct pid *pgrp, int sig, const struct ksiginfo *info)
{
	struct thread_group *tg;
	int r = -ESRCH;

	if (!pgrp)
		return -ESRCH;
	LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link) {
		int one = kill_process(t, tg, sig, info);

		// One success is a success.
		if (r == -ESRCH || one == 0)
			r = one;
	}
	if (sig && r == 0)
		signal_note_forking(pgrp, sig);
	return r;
}

struct kill_all {
	struct task *t;
	const struct ksiginfo *info;
	int sig, result;
	unsigned n;
};

static void kill_each(struct thread_group *tg, void *arg)
{
	struct kill_all *k = arg;
	int r;

	if (tg->pid_ns != k->t->pid_ns || tg == tg->pid_ns->init || tg == k->t->tg)
		return;
	r = kill_process(k->t, tg, k->sig, k->info);
	k->n++;
	if (r != -EPERM)
		k->result = r;
}

static int kill_everybody(struct task *t, int sig, const struct ksiginfo *info)
{
	struct kill_all k = {.t = t, .info = info, .sig = sig, .result = -EPERM};

	kernel_each_group(kill_each, &k);
	return k.n ? k.result : -ESRCH;
}

SYSCALL(kill)
{
	int pid = arg_int(a[0]), sig = arg_int(a[1]);
	struct ksiginfo info = info_from(t, sig, SI_USER);
	struct task *o;

	if (!valid_signal(sig))
		return -EINVAL;
	if (pid > 0) {
		o = task_find(pid);
		return o ? kill_process(t, o->tg, sig, &info) : -ESRCH;
	}
	if (pid == -1)
		return kill_everybody(t, sig, &info);
	if (pid == INT32_MIN)
		return -ESRCH;
	return kill_pgrp(t, pid ? pid_find(-pid) : t->tg->pgrp, sig, &info);
}

static int64_t kill_thread(struct task *t, int tgid, int tid, int sig, const struct ksiginfo *info)
{
	struct task *o = task_find(tid);

	if (!o || (tgid > 0 && o->tg->pid->nr != tgid))
		return -ESRCH;
	if (!task_may_signal(t, o, sig))
		return -EPERM;
	return sig ? signal_send_task(o, sig, info) : 0;
}

SYSCALL(tkill)
{
	int tid = arg_int(a[0]), sig = arg_int(a[1]);
	struct ksiginfo info = info_from(t, sig, SI_TKILL);

	if (tid <= 0 || !valid_signal(sig))
		return -EINVAL;
	return kill_thread(t, 0, tid, sig, &info);
}

SYSCALL(tgkill)
{
	int tgid = arg_int(a[0]), tid = arg_int(a[1]), sig = arg_int(a[2]);
	struct ksiginfo info = info_from(t, sig, SI_TKILL);

	if (tgid <= 0 || tid <= 0 || !valid_signal(sig))
		return -EINVAL;
	return kill_thread(t, tgid, tid, sig, &info);
}

static int copy_in_info(struct ksiginfo *ret, uint64_t addr, int sig)
{
	*ret = (struct ksiginfo){.signo = sig, .is_raw = true};
	if (copy_in(ret->raw, GADDR(addr), sizeof(ret->raw)) < 0)
		return -EFAULT;
	memcpy(ret->raw, &sig, sizeof(sig));
	memcpy(&ret->errno_, ret->raw + 4, 4);
	memcpy(&ret->code, ret->raw + 8, 4);
	memcpy(&ret->pid, ret->raw + 16, 4);
	memcpy(&ret->uid, ret->raw + 20, 4);
	memcpy(&ret->value, ret->raw + 24, 8);
	return 0;
}

// Nobody may pretend to be the kernel, or another's kill(2).
static bool forged(const struct ksiginfo *info)
{
	return info->code >= 0 || info->code == SI_TKILL;
}

SYSCALL(rt_sigqueueinfo)
{
	int pid = arg_int(a[0]), sig = arg_int(a[1]), r;
	struct ksiginfo info;
	struct task *o;

	r = copy_in_info(&info, a[2], sig);
	if (r < 0)
		return r;
	if (!valid_signal(sig))
		return -EINVAL;
	o = task_find(pid);
	if (forged(&info) && (!o || o->tg != t->tg))
		return -EPERM;
	return o ? kill_process(t, o->tg, sig, &info) : -ESRCH;
}

SYSCALL(rt_tgsigqueueinfo)
{
	int tgid = arg_int(a[0]), tid = arg_int(a[1]), sig = arg_int(a[2]), r;
	struct ksiginfo info;

	r = copy_in_info(&info, a[3], sig);
	if (r < 0)
		return r;
	if (tgid <= 0 || tid <= 0 || !valid_signal(sig))
		return -EINVAL;
	if (forged(&info) && tid != t->tid->nr)
		return -EPERM;
	return kill_thread(t, tgid, tid, sig, &info);
}

SYSCALL(pidfd_send_signal)
{
	int sig = arg_int(a[1]), r;
	unsigned flags = arg_uint(a[3]);
	struct ksiginfo info = info_from(t, sig, SI_USER);
	struct file *f = fd_peek(arg_int(a[0]));
	struct pid *pid;

	// PIDFD_SIGNAL_THREAD, _THREAD_GROUP, _PROCESS_GROUP
	if (flags & ~7u || (flags & (flags - 1)))
		return -EINVAL;
	if (!f || !pidfd_pid(f))
		return -EBADF;
	pid = pid_get(pidfd_pid(f));
	r = a[2] ? copy_in_info(&info, a[2], sig) : 0;
	if (r == 0 && a[2]) {
		int32_t named;

		memcpy(&named, info.raw, sizeof(named));
		if (forged(&info) && (!pid->task || pid->task->tg != t->tg))
			r = -EPERM;
	}
	if (r == 0 && !valid_signal(sig))
		r = -EINVAL;
	if (r == 0 && !pid->task)
		r = -ESRCH;
	if (r == 0) {
		if (flags & 4)
			r = kill_pgrp(t, pid->task->tg->pgrp, sig, &info);
		else if (flags & 1)
			r = (int)kill_thread(t, 0, pid->nr, sig, &info);
		else
			r = kill_process(t, pid->task->tg, sig, &info);
	}
	pid_put(pid);
	return r;
}

// --- actions and masks --------------------------------------------------------------------------

SYSCALL(rt_sigaction)
{
	int sig = arg_int(a[0]);
	struct { uint64_t handler, flags, restorer, mask; } w;
	struct ksigaction *ka, old;

	if (a[3] != SIGSET_SIZE)
		return -EINVAL;
	if (a[1] && copy_in_obj(&w, GADDR(a[1])) < 0)
		return -EFAULT;
	if (sig < 1 || sig > KNSIG || (a[1] && (SIGMASK_KERNEL_ONLY & SIGBIT(sig))))
		return -EINVAL;
	ka = &t->tg->sighand->action[sig - 1];
	old = *ka;
	if (a[1]) {
		ka->handler = w.handler;
		// Unknown bits read back as zero: that is how programs ask for what is supported.
		ka->flags = w.flags & (KSA_NOCLDSTOP | KSA_NOCLDWAIT | KSA_SIGINFO | KSA_EXPOSE_TAGBITS | KSA_RESTORER |
				       KSA_ONSTACK | KSA_RESTART | KSA_NODEFER | KSA_RESETHAND);
		ka->flags &= ~KSA_EXPOSE_TAGBITS;
		ka->restorer = w.restorer;
		ka->mask = w.mask & ~SIGMASK_KERNEL_ONLY;
		signal_action_changed(t->tg, sig);
	}
	if (!a[2])
		return 0;
	w.handler = old.handler;
	w.flags = old.flags;
	w.restorer = old.restorer;
	w.mask = old.mask;
	return copy_out_obj(GADDR(a[2]), &w);
}

SYSCALL(rt_sigprocmask)
{
	uint64_t set, old = t->blocked, mask;
	int r;

	if (a[3] != SIGSET_SIZE)
		return -EINVAL;
	if (a[1]) {
		r = copy_in_sigset(&set, a[1], a[3]);
		if (r < 0)
			return r;
		switch (arg_int(a[0])) {
		case SIG_BLOCK:
			mask = old | set;
			break;
		case SIG_UNBLOCK:
			mask = old & ~set;
			break;
		case SIG_SETMASK:
			mask = set;
			break;
		default:
			return -EINVAL;
		}
		signal_set_blocked(t, mask);
	}
	return a[2] ? copy_out_obj(GADDR(a[2]), &old) : 0;
}

SYSCALL(rt_sigpending)
{
	uint64_t set = signal_pending_set(t) & t->blocked;

	if (a[1] > SIGSET_SIZE)
		return -EINVAL;
	return copy_out(GADDR(a[0]), &set, a[1]);
}

SYSCALL(rt_sigsuspend)
{
	uint64_t set;
	int r = copy_in_sigset(&set, a[0], a[1]);

	if (r < 0)
		return r;
	signal_suspend_mask(t, set);
	signal_wait(t, NSEC_INFINITE);
	return -ERESTARTNOHAND;
}

SYSCALL(pause)
{
	signal_wait(t, NSEC_INFINITE);
	return -ERESTARTNOHAND;
}

SYSCALL(rt_sigtimedwait)
{
	nsec_t deadline = NSEC_INFINITE, now = sched_now();
	struct wire_timespec ts;
	struct ksiginfo info;
	uint8_t out[128];
	uint64_t set, ns;
	int r, sig;

	r = copy_in_sigset(&set, a[0], a[3]);
	if (r < 0)
		return r;
	if (a[2]) {
		if (copy_in_obj(&ts, GADDR(a[2])) < 0)
			return -EFAULT;
		r = wire_ns(&ts, &ns);
		if (r < 0)
			return r;
		deadline = ns > NSEC_INFINITE - 1 - now ? NSEC_INFINITE - 1 : now + ns;
	}
	sig = signal_timedwait(t, set & ~SIGMASK_KERNEL_ONLY, deadline, &info);
	if (sig < 0)
		return sig;
	if (a[1]) {
		signal_info_encode(&info, out);
		if (copy_out(GADDR(a[1]), out, sizeof(out)) < 0)
			return -EFAULT;
	}
	return sig;
}

// --- the way back, the alternate stack ----------------------------------------------------------

SYSCALL(rt_sigreturn)
{
	struct ksiginfo info = {.signo = SIGSEGV, .code = SI_KERNEL};

	t->no_result = true;
	if (signal_frame_pop(t) < 0)
		signal_force(t, &info);
	return 0;
}

SYSCALL(restart_syscall)
{
	int64_t (*fn)(struct task *) = t->restart.fn;

	return fn ? fn(t) : -EINTR;
}

SYSCALL(sigaltstack)
{
	struct { uint64_t sp; uint32_t flags, pad; uint64_t size; } w;
	struct abi_regs regs;
	uint8_t old[24];
	int r;

	if (a[0] && copy_in_obj(&w, GADDR(a[0])) < 0)
		return -EFAULT;
	pf_get_regs(t->ctx, &regs);
	signal_altstack_encode(t, regs.rsp, old);
	if (a[0]) {
		r = signal_altstack_set(t, regs.rsp, w.sp, w.flags, w.size, MIN_ALTSTACK);
		if (r < 0)
			return r;
	}
	return a[1] ? copy_out(GADDR(a[1]), old, sizeof(old)) : 0;
}
