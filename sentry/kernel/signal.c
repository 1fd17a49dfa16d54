// Sending signals: pending sets, whom a signal wakes, what it does at once (signal(7)).
#include "sentry/kernel/internal.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "sentry/kernel/sigmask.h"

DEFINE_SLAB(slab_sigqueue, struct sigqueue);

// --- pending sets -------------------------------------------------------------------------------

void sigpending_init(struct sigpending *p)
{
	p->set = 0;
	TAILQ_INIT(&p->queue);
}

struct sigqueue *sigqueue_new(struct task *t, bool override_limit)
{
	struct kuser *u = t->user;
	struct sigqueue *q;

	if (!override_limit && u->nsigpending >= t->tg->rlim.v[RLIMIT_SIGPENDING].cur)
		return NULL;
	q = SLAB_NEW(slab_sigqueue, struct sigqueue);
	if (!q)
		return NULL;
	ref_get(&u->refs);
	u->nsigpending++;
	q->user = u;
	return q;
}

void sigqueue_free(struct sigqueue *q)
{
	q->user->nsigpending--;
	kuser_put(q->user);
	slab_free(&slab_sigqueue, q);
}

static void sigpending_drop(struct sigpending *p, struct sigqueue *q)
{
	TAILQ_REMOVE(&p->queue, q, link);
	q->queued = false;
	if (!q->timer)
		sigqueue_free(q);
}

void sigpending_flush(struct sigpending *p, uint64_t mask)
{
	struct sigqueue *q, *next;

	if (!(p->set & mask))
		return;
	p->set &= ~mask;
	for (q = TAILQ_FIRST(&p->queue); q; q = next) {
		next = TAILQ_NEXT(q, link);
		if (SIGBIT(q->info.signo) & mask)
			sigpending_drop(p, q);
	}
}

// Drops the signals of mask that are pending anywhere in the process.
static void flush_everywhere(struct thread_group *tg, uint64_t mask)
{
	struct task *t;

	sigpending_flush(&tg->shared_pending, mask);
	TAILQ_FOREACH(t, &tg->threads, tg_link)
		sigpending_flush(&t->pending, mask);
}

uint64_t signal_pending_set(const struct task *t)
{
	return t->pending.set | t->tg->shared_pending.set;
}

bool signal_pending(const struct task *t)
{
	return t->killed || (t->tg->stopped && !t->stop_ack) || (signal_pending_set(t) & ~t->blocked);
}

bool fatal_signal_pending(const struct task *t)
{
	return t->killed;
}

void signal_recalc(struct task *t)
{
	if (signal_pending(t))
		sched_interrupt(&t->vt.st);
}

// Takes the first signal of sig off p.
static void collect(struct sigpending *p, int sig, struct ksiginfo *ret)
{
	struct sigqueue *q, *first = NULL;
	bool more = false;

	TAILQ_FOREACH(q, &p->queue, link) {
		if (q->info.signo != sig)
			continue;
		if (first) {
			more = true;
			break;
		}
		first = q;
	}
	if (!more)
		p->set &= ~SIGBIT(sig);
	if (first) {
		*ret = first->info;
		ret->timer = first->timer;
		sigpending_drop(p, first);
	} else {
		*ret = (struct ksiginfo){.signo = sig, .code = SI_USER};
	}
}

// Faults of the instruction that just ran come before all else.
static int next_signal(uint64_t set)
{
	if (set & SIGMASK_SYNCHRONOUS)
		set &= SIGMASK_SYNCHRONOUS;
	return __builtin_ctzll(set) + 1;
}

int signal_dequeue(struct task *t, uint64_t mask, struct ksiginfo *ret)
{
	struct sigpending *p = &t->pending;
	int sig;

	if (!(p->set & mask))
		p = &t->tg->shared_pending;
	if (!(p->set & mask))
		return 0;
	sig = next_signal(p->set & mask);
	collect(p, sig, ret);
	if (ret->timer)
		posix_timer_delivered(t->tg, ret);
	return sig;
}

// --- who ignores what ---------------------------------------------------------------------------

bool signal_ignored_by(const struct thread_group *tg, int sig)
{
	uint64_t h = tg->sighand->action[sig - 1].handler;

	return h == SIGH_IGN || (h == SIGH_DFL && (SIGMASK_DFL_IGNORE & SIGBIT(sig)));
}

static bool is_init(const struct thread_group *tg)
{
	return tg->pid_ns && tg->pid_ns->init == tg;
}

static bool sig_ignored(const struct task *t, int sig, bool force)
{
	const struct thread_group *tg = t->tg;
	uint64_t h = tg->sighand->action[sig - 1].handler;

	// A blocked signal is kept: its handler may change before it is unblocked.
	if ((t->blocked | t->real_blocked) & SIGBIT(sig))
		return false;
	// init gets only what it has asked for, unless it comes from outside.
	if (is_init(tg) && h == SIGH_DFL && !(force && (SIGMASK_KERNEL_ONLY & SIGBIT(sig))))
		return true;
	return signal_ignored_by(tg, sig);
}

static bool sig_fatal(const struct task *t, int sig, bool force)
{
	if (t->tg->sighand->action[sig - 1].handler != SIGH_DFL)
		return false;
	if ((SIGMASK_DFL_IGNORE | SIGMASK_STOP) & SIGBIT(sig))
		return false;
	return !is_init(t->tg) || force;
}

// --- waking -------------------------------------------------------------------------------------

void signal_wake(struct task *t, bool fatal)
{
	if (fatal)
		sched_kill(&t->vt.st);
	else
		sched_interrupt(&t->vt.st);
	if (t->ctx && pf_in_guest(t->ctx))
		pf_kick(t->ctx);
}

void tg_kill(struct thread_group *tg, int code)
{
	struct task *t;

	if (!tg->group_exit) {
		tg->group_exit = true;
		tg->exit_code = code;
	}
	tg->stopped = false;
	TAILQ_FOREACH(t, &tg->threads, tg_link) {
		if (t->exiting)
			continue;
		t->killed = true;
		t->stop_ack = false;
		signal_wake(t, true);
	}
	tg->nstopped = 0;
	waitq_wake_all(&tg->stop_wq, 0);
}

static bool wants_signal(const struct task *t, int sig)
{
	if (t->exiting || (t->blocked & SIGBIT(sig)))
		return false;
	if (sig == SIGKILL)
		return true;
	return !t->stop_ack && !signal_pending_but(t, sig);
}

// Which thread takes a signal of the group, as Linux chooses: the main thread if it can, else the
// next in turn that can.
static struct task *choose_thread(struct thread_group *tg, struct task *hint, int sig)
{
	struct task *t, *start;

	if (hint && wants_signal(hint, sig))
		return hint;
	if (TAILQ_EMPTY(&tg->threads))
		return NULL;
	start = tg->sig_target ? tg->sig_target : TAILQ_FIRST(&tg->threads);
	t = start;
	do {
		if (wants_signal(t, sig)) {
			tg->sig_target = t;
			return t;
		}
		t = TAILQ_NEXT(t, tg_link);
		if (!t)
			t = TAILQ_FIRST(&tg->threads);
	} while (t != start);
	return NULL;
}

static void complete_signal(struct thread_group *tg, struct task *target, int sig, bool group, bool force)
{
	struct task *t;

	if (!group)
		t = wants_signal(target, sig) ? target : NULL;
	else
		t = choose_thread(tg, target, sig);
	if (!t)
		return;
	// What is fatal for sure ends the whole group now.
	if (sig_fatal(t, sig, force) && !(t->real_blocked & SIGBIT(sig)) && !tg->group_exit &&
	    (sig == SIGKILL || !t->ptrace)) {
		tg_kill(tg, sig);
		return;
	}
	signal_wake(t, sig == SIGKILL);
}

// --- sending ------------------------------------------------------------------------------------

// SIGCONT and the stop signals cancel each other, and SIGCONT lets the process run even if it is
// blocked or ignored.
static void stop_or_continue(struct thread_group *tg, int sig)
{
	struct task *t;
	bool was_stopped;

	if (SIGMASK_STOP & SIGBIT(sig)) {
		flush_everywhere(tg, SIGBIT(SIGCONT));
	} else if (sig == SIGCONT) {
		flush_everywhere(tg, SIGMASK_STOP);
		if (!tg->stopped)
			return;
		was_stopped = tg->nstopped == tg->live_threads;
		tg->stopped = false;
		tg->nstopped = 0;
		TAILQ_FOREACH(t, &tg->threads, tg_link)
			t->stop_ack = false;
		waitq_wake_all(&tg->stop_wq, 0);
		if (!was_stopped)
			return;
		tg->wait_flags = TG_CONT_PENDING;
		signal_parent_stopped(tg, CLD_CONTINUED);
	}
}

static bool from_outside(const struct ksiginfo *info)
{
	return !info || (info->code == SI_USER && info->pid == 0);
}

static void wake_signalfds(struct thread_group *tg)
{
	if (!waitq_empty(&tg->sighand->signalfd_wq))
		waitq_wake(&tg->sighand->signalfd_wq, EPOLLIN);
}

// t: the target; for a group signal the thread that is asked first. info NULL: from the kernel.
static int send_signal(struct thread_group *tg, struct task *t, int sig, const struct ksiginfo *info, bool group)
{
	bool force = from_outside(info), override;
	struct sigpending *p;
	struct sigqueue *q;

	if (tg->state == TG_ZOMBIE || tg->group_exit || !t || t->exiting)
		return 0;
	if ((SIGMASK_STOP | SIGBIT(SIGCONT)) & SIGBIT(sig))
		stop_or_continue(tg, sig);
	if (sig_ignored(t, sig, force))
		return 0;
	p = group ? &tg->shared_pending : &t->pending;
	if (sig < SIGRT_FIRST && (p->set & SIGBIT(sig)))
		return 0;
	if (sig != SIGKILL && info) {
		// A plain signal is never lost for want of memory: only its details are.
		override = sig < SIGRT_FIRST && (info->code >= 0 || info->code == SI_TKILL);
		q = sigqueue_new(t, override);
		if (q) {
			q->info = *info;
			q->info.signo = sig;
			q->queued = true;
			TAILQ_INSERT_TAIL(&p->queue, q, link);
		} else if (sig >= SIGRT_FIRST && info->code != SI_USER) {
			return -EAGAIN;
		}
	} else if (sig != SIGKILL) {
		q = sigqueue_new(t, true);
		if (q) {
			q->info = (struct ksiginfo){.signo = sig, .code = SI_KERNEL};
			q->queued = true;
			TAILQ_INSERT_TAIL(&p->queue, q, link);
		}
	}
	p->set |= SIGBIT(sig);
	wake_signalfds(tg);
	complete_signal(tg, t, sig, group, force);
	return 0;
}

int signal_send_task(struct task *t, int sig, const struct ksiginfo *info)
{
	return send_signal(t->tg, t, sig, info, false);
}

static struct task *first_live(struct thread_group *tg)
{
	struct task *t;

	if (tg->leader && !tg->leader->exiting)
		return tg->leader;
	TAILQ_FOREACH(t, &tg->threads, tg_link)
		if (!t->exiting)
			return t;
	return NULL;
}

int signal_send_group(struct thread_group *tg, int sig, const struct ksiginfo *info)
{
	return send_signal(tg, first_live(tg), sig, info, true);
}

// A child that is being forked right now belongs to the group as well.
static void note_forking(struct thread_group *tg, int sig)
{
	struct task *t;

	TAILQ_FOREACH(t, &tg->threads, tg_link)
		if (t->forking)
			t->fork_signals |= SIGBIT(sig);
}

void signal_note_forking(struct pid *pgrp, int sig)
{
	struct thread_group *tg;

	LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link)
		note_forking(tg, sig);
}

int signal_send_pgrp(struct pid *pgrp, int sig, const struct ksiginfo *info)
{
	struct thread_group *tg;
	int n = 0;

	LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link) {
		if (sig) {
			note_forking(tg, sig);
			signal_send_group(tg, sig, info);
		}
		n++;
	}
	return n ? n : -ESRCH;
}

void signal_send_kernel(struct thread_group *tg, int sig)
{
	signal_send_group(tg, sig, NULL);
}

void signal_force(struct task *t, const struct ksiginfo *info)
{
	struct ksigaction *ka = &t->tg->sighand->action[info->signo - 1];
	struct sigqueue *q;

	// Blocked or ignored: it cannot wait, so it kills.
	if ((t->blocked & SIGBIT(info->signo)) || ka->handler == SIGH_IGN) {
		ka->handler = SIGH_DFL;
		t->blocked &= ~SIGBIT(info->signo);
	}
	if (ka->handler == SIGH_DFL) {
		tg_kill(t->tg, info->signo); // init too: it cannot go on
		return;
	}
	sigpending_flush(&t->pending, SIGBIT(info->signo));
	q = sigqueue_new(t, true);
	if (q) {
		q->info = *info;
		q->queued = true;
		TAILQ_INSERT_TAIL(&t->pending.queue, q, link);
	}
	t->pending.set |= SIGBIT(info->signo);
	signal_wake(t, false);
}

// --- timers' signals ----------------------------------------------------------------------------

bool signal_send_timer(struct thread_group *tg, struct task *t, struct sigqueue *q)
{
	bool group = t == NULL;
	struct sigpending *p;

	if (!t)
		t = first_live(tg);
	if (!t || t->exiting || tg->group_exit || sig_ignored(t, q->info.signo, false))
		return false;
	kassert(!q->queued);
	p = group ? &tg->shared_pending : &t->pending;
	TAILQ_INSERT_TAIL(&p->queue, q, link);
	q->queued = true;
	p->set |= SIGBIT(q->info.signo);
	wake_signalfds(tg);
	complete_signal(tg, t, q->info.signo, group, false);
	return true;
}

static bool unqueue(struct sigpending *p, struct sigqueue *q)
{
	struct sigqueue *o;
	bool found = false, more = false;

	TAILQ_FOREACH(o, &p->queue, link) {
		if (o == q)
			found = true;
		else if (o->info.signo == q->info.signo)
			more = true;
	}
	if (!found)
		return false;
	TAILQ_REMOVE(&p->queue, q, link);
	q->queued = false;
	if (!more)
		p->set &= ~SIGBIT(q->info.signo);
	return true;
}

void signal_unqueue_timer(struct thread_group *tg, struct sigqueue *q)
{
	struct task *t;

	if (!q->queued || unqueue(&tg->shared_pending, q))
		return;
	TAILQ_FOREACH(t, &tg->threads, tg_link)
		if (unqueue(&t->pending, q))
			return;
}

// --- masks and actions --------------------------------------------------------------------------

void signal_retarget(struct task *t, uint64_t mask)
{
	uint64_t left = t->tg->shared_pending.set & mask;
	struct task *o;

	if (!left)
		return;
	TAILQ_FOREACH(o, &t->tg->threads, tg_link) {
		if (o == t || o->exiting || !(left & ~o->blocked))
			continue;
		left &= o->blocked;
		signal_wake(o, false);
		if (!left)
			return;
	}
}

void signal_set_blocked(struct task *t, uint64_t mask)
{
	uint64_t newly;

	mask &= ~SIGMASK_KERNEL_ONLY;
	newly = mask & ~t->blocked;
	t->blocked = mask;
	if (newly && t->tg->nthreads > 1)
		signal_retarget(t, newly);
	signal_recalc(t);
}

void signal_suspend_mask(struct task *t, uint64_t mask)
{
	t->saved_blocked = t->blocked;
	t->restore_blocked = true;
	signal_set_blocked(t, mask);
}

int signal_wait(struct task *t, nsec_t deadline)
{
	int r = 0;

	while (!signal_pending(t) && r != -ETIMEDOUT) {
		// An interruption whose cause somebody else took away is none.
		sched_clear_interrupt(&t->vt.st);
		r = sched_sleep(WAIT_INTERRUPTIBLE, deadline);
	}
	return signal_pending(t) ? -EINTR : r;
}

int signal_timedwait(struct task *t, uint64_t set, nsec_t deadline, struct ksiginfo *ret)
{
	int sig = signal_dequeue(t, set, ret), r;

	if (sig)
		return sig;
	if (deadline <= sched_now())
		return -EAGAIN;
	// While it waits the signals are unblocked, so that they wake it; real_blocked says that they are not
	// to act.
	t->real_blocked = t->blocked;
	t->blocked &= ~set;
	r = signal_wait(t, deadline);
	t->blocked = t->real_blocked;
	t->real_blocked = 0;
	sig = signal_dequeue(t, set, ret);
	sched_clear_interrupt(&t->vt.st);
	signal_recalc(t);
	if (sig)
		return sig;
	return r == -ETIMEDOUT ? -EAGAIN : -EINTR;
}

void signal_flush_handlers(struct task *t, bool force_default)
{
	for (int i = 0; i < KNSIG; i++) {
		struct ksigaction *ka = &t->tg->sighand->action[i];

		*ka = (struct ksigaction){.handler = !force_default && ka->handler == SIGH_IGN ? SIGH_IGN : SIGH_DFL};
	}
}

void signal_action_changed(struct thread_group *tg, int sig)
{
	if (signal_ignored_by(tg, sig))
		flush_everywhere(tg, SIGBIT(sig));
}

// --- permissions (kill(2)) ----------------------------------------------------------------------

bool task_may_signal(const struct task *by, const struct task *target, int sig)
{
	const struct cred *c = by->vt.cred, *o = target->vt.cred;

	if (by->tg == target->tg)
		return true;
	if (c->euid == o->suid || c->euid == o->uid || c->uid == o->suid || c->uid == o->uid)
		return true;
	if (task_capable(by, CAP_KILL))
		return true;
	return sig == SIGCONT && by->tg->session == target->tg->session;
}
