// Waiting for children: wait4(2), waitid(2).
#include "sentry/kernel/wait.h"

#include <signal.h>
#include <sys/wait.h>

#include "sentry/kernel/internal.h"
#include "sentry/kernel/sigmask.h"

static bool wanted(const struct thread_group *c, const struct wait_req *w)
{
	bool clone_child = c->exit_signal != SIGCHLD;

	if (w->by_pid && c->pid != w->by_pid)
		return false;
	if (w->by_pgrp && c->pgrp != w->by_pgrp)
		return false;
	return (w->options & __WALL) || clone_child == !!(w->options & __WCLONE);
}

void tg_get_rusage(struct thread_group *tg, struct rusage_ns *ret)
{
	ret->utime_ns = tg_cpu_ns(tg);
	ret->stime_ns = tg->stime_ns;
	ret->maxrss_kb = tg->maxrss_kb;
	if (tg->leader && tg->leader->mm) {
		uint64_t shared, kb = mm_rss_pages(tg->leader->mm, &shared) * (PAGE_SIZE / 1024);

		ret->maxrss_kb = MAX(ret->maxrss_kb, kb);
	}
	ret->minflt = tg->minflt;
	ret->majflt = tg->majflt;
	ret->nvcsw = tg->nvcsw;
	ret->nivcsw = tg->nivcsw;
}

static void describe(struct thread_group *c, struct wait_result *ret)
{
	ret->pid = c->pid->nr;
	ret->uid = c->leader ? c->leader->vt.cred->uid : 0;
	tg_get_rusage(c, &ret->ru);
}

static void reap(struct task *t, struct thread_group *c)
{
	struct thread_group *tg = t->tg;

	tg->cutime_ns += tg_cpu_ns(c) + c->cutime_ns;
	tg->cstime_ns += c->stime_ns + c->cstime_ns;
	tg->cmaxrss_kb = MAX(tg->cmaxrss_kb, c->maxrss_kb);
	tg->cmaxrss_kb = MAX(tg->cmaxrss_kb, c->cmaxrss_kb);
	tg_release(c);
}

// Does the child have something to report? Fills ret and takes the report, unless WNOWAIT.
static bool consider(struct task *t, struct thread_group *c, const struct wait_req *w, struct wait_result *ret)
{
	bool keep = w->options & WNOWAIT;

	if (c->state == TG_ZOMBIE) {
		if (!(w->options & WEXITED))
			return false;
		describe(c, ret);
		ret->status = c->exit_code;
		ret->code = c->exit_code & 0x7f ? CLD_KILLED : CLD_EXITED;
		ret->value = c->exit_code & 0x7f ? c->exit_code & 0x7f : (c->exit_code >> 8) & 0xff;
		if (!keep)
			reap(t, c);
		return true;
	}
	if ((w->options & WSTOPPED) && c->wait_flags == TG_STOP_PENDING) {
		describe(c, ret);
		ret->status = c->stop_code << 8 | 0x7f;
		ret->code = CLD_STOPPED;
		ret->value = c->stop_code;
		if (!keep)
			c->wait_flags = 0;
		return true;
	}
	if ((w->options & WCONTINUED) && c->wait_flags == TG_CONT_PENDING) {
		describe(c, ret);
		ret->status = 0xffff;
		ret->code = CLD_CONTINUED;
		ret->value = SIGCONT;
		if (!keep)
			c->wait_flags = 0;
		return true;
	}
	return false;
}

// 1: ret is filled; 0: nothing yet; -ECHILD: no such child.
static int look(struct task *t, const struct wait_req *w, struct wait_result *ret)
{
	struct thread_group *c;
	bool any = false;

	TAILQ_FOREACH(c, &t->tg->children, sibling) {
		if (!wanted(c, w))
			continue;
		any = true;
		if (consider(t, c, w, ret))
			return 1;
	}
	return any ? 0 : -ECHILD;
}

int task_wait(struct task *t, const struct wait_req *w, struct wait_result *ret)
{
	int r;

	for (;;) {
		r = look(t, w, ret);
		if (r || (w->options & WNOHANG))
			return r;
		r = waitq_sleep(&t->tg->child_wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
		if (r < 0) {
			r = look(t, w, ret);
			return r ? r : -ERESTARTSYS;
		}
	}
}
