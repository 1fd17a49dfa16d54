// What a task does before it goes back to the guest: end, stop, run a handler, restart the call.
#include "sentry/kernel/internal.h"

#include <signal.h>
#include <sys/syscall.h>

#include "sentry/kernel/sigmask.h"

#define SYSCALL_INSN_LEN 2

// --- stopping -----------------------------------------------------------------------------------

void signal_parent_stopped(struct thread_group *tg, int code)
{
	struct thread_group *parent = tg->parent;
	const struct ksigaction *ka;
	struct ksiginfo info = {.signo = SIGCHLD, .code = code};

	if (!parent)
		return;
	ka = &parent->sighand->action[SIGCHLD - 1];
	info.pid = tg->pid->nr;
	info.uid = tg->leader ? tg->leader->vt.cred->uid : 0;
	info.status = code == CLD_CONTINUED ? SIGCONT : tg->stop_code;
	info.utime = (int64_t)(tg_cpu_ns(tg) / 10000000);
	if (ka->handler != SIGH_IGN && !(ka->flags & KSA_NOCLDSTOP))
		signal_send_group(parent, SIGCHLD, &info);
	waitq_wake_all(&parent->child_wq, 0);
}

void signal_stop_check(struct thread_group *tg)
{
	if (!tg->stopped || tg->nstopped < tg->live_threads || tg->live_threads == 0)
		return;
	tg->wait_flags = TG_STOP_PENDING;
	signal_parent_stopped(tg, CLD_STOPPED);
}

static void begin_stop(struct task *t, int sig)
{
	struct thread_group *tg = t->tg;
	struct task *o;

	if (tg->group_exit || tg->stopped || tg->execing)
		return;
	tg->stopped = true;
	tg->stop_code = sig;
	tg->nstopped = 0;
	tg->wait_flags = 0;
	TAILQ_FOREACH(o, &tg->threads, tg_link)
		if (!o->exiting && o != t)
			signal_wake(o, false);
}

// Sleeps until SIGCONT or death. May wait.
static void stop_here(struct task *t)
{
	struct thread_group *tg = t->tg;

	t->stop_ack = true;
	tg->nstopped++;
	signal_stop_check(tg);
	while (tg->stopped && t->stop_ack && !t->killed)
		waitq_sleep(&tg->stop_wq, WAIT_KILLABLE_ONLY, NSEC_INFINITE);
	signal_recalc(t);
}

// --- restarting ---------------------------------------------------------------------------------

// The call that was interrupted runs again once the guest goes on.
static void rewind_call(struct task *t, struct abi_regs *regs, uint64_t nr)
{
	regs->rax = nr;
	regs->rip -= SYSCALL_INSN_LEN;
}

static void restart_without_handler(struct task *t)
{
	struct abi_regs regs;

	if (t->retry_call) {
		t->retry_call = false;
		t->restart_err = 0;
		pf_retry_call(t->ctx);
		return;
	}
	pf_get_regs(t->ctx, &regs);
	rewind_call(t, &regs, t->restart_err == ERESTART_RESTARTBLOCK ? SYS_restart_syscall : t->sc_nr);
	pf_set_regs(t->ctx, &regs);
	t->restart_err = 0;
}

static void restart_before_handler(struct task *t, const struct ksigaction *ka, struct abi_regs *regs)
{
	bool again = t->restart_err == ERESTARTNOINTR ||
		     (t->restart_err == ERESTARTSYS && (ka->flags & KSA_RESTART));

	if (again)
		rewind_call(t, regs, t->sc_nr);
	else
		regs->rax = (uint64_t)-EINTR;
	t->retry_call = false;
	t->restart_err = 0;
}

// --- delivering ---------------------------------------------------------------------------------

// No stack for the handler: SIGSEGV, and if that was the one, death.
static void force_sigsegv(struct task *t, int sig)
{
	struct ksiginfo info = {.signo = SIGSEGV, .code = SI_KERNEL};

	if (sig == SIGSEGV)
		t->tg->sighand->action[SIGSEGV - 1].handler = SIGH_DFL;
	signal_force(t, &info);
}

static void run_handler(struct task *t, struct ksiginfo *info)
{
	struct ksigaction *act = &t->tg->sighand->action[info->signo - 1], ka = *act;
	uint64_t mask = t->restore_blocked ? t->saved_blocked : t->blocked;
	struct abi_regs regs;

	if (ka.flags & KSA_RESETHAND)
		act->handler = SIGH_DFL;
	pf_get_regs(t->ctx, &regs);
	if (t->restart_err)
		restart_before_handler(t, &ka, &regs);
	t->frame_regs = regs;
	t->frame_signo = info->signo;
	t->restart.fn = NULL;
	if (signal_frame_push(t, info, &ka, &regs, mask) < 0) {
		pf_set_regs(t->ctx, &t->frame_regs);
		force_sigsegv(t, info->signo);
		return;
	}
	t->frame_pending = true;
	t->restore_blocked = false;
	mask = t->blocked | ka.mask;
	if (!(ka.flags & KSA_NODEFER))
		mask |= SIGBIT(info->signo);
	signal_set_blocked(t, mask);
}

void signal_frame_fault(struct task *t)
{
	pf_set_regs(t->ctx, &t->frame_regs);
	force_sigsegv(t, t->frame_signo);
}

static void default_action(struct task *t, const struct ksiginfo *info)
{
	struct thread_group *tg = t->tg;
	int sig = info->signo;

	if (SIGMASK_DFL_IGNORE & SIGBIT(sig))
		return;
	if (tg->pid_ns->init == tg && !(SIGMASK_KERNEL_ONLY & SIGBIT(sig)))
		return;
	if (SIGMASK_STOP & SIGBIT(sig)) {
		if (sig == SIGSTOP || !pgrp_orphaned(tg->pgrp, NULL))
			begin_stop(t, sig);
		return;
	}
	tg_kill(tg, sig);
}

void task_work(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct ksiginfo info;
	int sig;

	sched_clear_interrupt(&t->vt.st);
	if (unlikely(t->local_calls_off)) {
		t->local_calls_off = false;
		pf_set_local_calls(t->ctx, false);
	}
	if (t->killed)
		task_exit(t, tg->group_exit ? tg->exit_code : SIGKILL);
	if (tg->stopped) {
		stop_here(t);
		return;
	}
	sig = signal_dequeue(t, ~t->blocked, &info);
	if (sig) {
		uint64_t handler = tg->sighand->action[sig - 1].handler;

		if (handler == SIGH_DFL)
			default_action(t, &info);
		else if (handler != SIGH_IGN)
			run_handler(t, &info);
		// More may be pending, and with none left the call below is due.
		sched_interrupt(&t->vt.st);
		return;
	}
	if (t->restart_err)
		restart_without_handler(t);
	if (t->restore_blocked) {
		t->restore_blocked = false;
		signal_set_blocked(t, t->saved_blocked);
	}
}
