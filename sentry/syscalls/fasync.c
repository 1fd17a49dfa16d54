#include "sentry/syscalls/fasync.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "sentry/syscalls/syscalls.h"

#define QUEUES 4

struct fasync {
	struct poll_table pt;
	struct file *file; // not counted: this goes with it
	unsigned n;
	struct wait_entry e[QUEUES];
};
DEFINE_SLAB(fasync_slab, struct fasync);

static void describe(uint32_t events, struct ksiginfo *info)
{
	if (events & (EPOLLERR | EPOLLHUP))
		info->code = events & EPOLLHUP ? POLL_HUP : POLL_ERR;
	else if (events & EPOLLPRI)
		info->code = POLL_PRI;
	else
		info->code = events & EPOLLIN ? POLL_IN : POLL_OUT;
	info->band = (int)events;
}

// Who set the owner must have been allowed to send it the signal: kill(2).
static bool may_signal(const struct file *f, const struct task *t)
{
	const struct cred *c = t->vt.cred;
	uint32_t uid = f->owner.uid, euid = f->owner.euid;

	return !euid || euid == c->suid || euid == c->uid || uid == c->suid || uid == c->uid;
}

static void send(const struct file *f, struct thread_group *tg, struct task *t, const struct ksiginfo *info)
{
	if (!may_signal(f, t ? t : tg->leader))
		return;
	if (t)
		signal_send_task(t, info->signo, info);
	else
		signal_send_group(tg, info->signo, info);
}

static bool fasync_wake(struct wait_entry *e, uint32_t events)
{
	struct fasync *fa = e->arg;
	struct file *f = fa->file;
	struct ksiginfo info = {.signo = f->owner.sig ? f->owner.sig : SIGIO, .fd = -1};
	uint32_t ready = file_poll(f, NULL);
	struct thread_group *tg;
	struct pid *pid;

	ready &= events ? events : UINT32_MAX;
	pid = f->owner.pid ? pid_find((int32_t)f->owner.pid) : NULL;
	if (!ready || !pid)
		return false;
	if (f->owner.sig)
		describe(ready, &info);
	else
		info.code = SI_KERNEL;
	if (f->owner.type == F_OWNER_PGRP) {
		LIST_FOREACH(tg, &pid->pgrp, pgrp_link)
			if (tg->state == TG_RUNNING)
				send(f, tg, NULL, &info);
	} else if (pid->task && pid->task->tg->state == TG_RUNNING) {
		send(f, pid->task->tg, f->owner.type == F_OWNER_TID ? pid->task : NULL, &info);
	}
	return false;
}

static void fasync_queue(struct poll_table *pt, struct waitq *wq)
{
	struct fasync *fa = container_of(pt, struct fasync, pt);

	if (fa->n == QUEUES)
		return;
	fa->e[fa->n] = (struct wait_entry){.wake = fasync_wake, .arg = fa};
	waitq_add(wq, &fa->e[fa->n++]);
}

static void fasync_switch(struct file *f, bool on)
{
	struct fasync *fa = f->async;

	if (!on && fa) {
		for (unsigned i = 0; i < fa->n; i++)
			waitq_remove(&fa->e[i]);
		slab_free(&fasync_slab, fa);
		f->async = NULL;
	} else if (on && !fa && f->ops->poll) {
		fa = SLAB_NEW(fasync_slab, struct fasync);
		if (!fa)
			return;
		fa->pt.queue = fasync_queue;
		fa->file = f;
		f->async = fa;
		file_poll(f, &fa->pt);
	}
}

void fasync_init(void)
{
	vfs_fasync = fasync_switch;
}
