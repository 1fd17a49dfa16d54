// Sessions, foreground groups, controlling terminals (credentials(7), tty_ioctl(4)).
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "sentry/fs/devpts/tty.h"
#include "sentry/kernel/task.h"

struct tty *tty_current(void)
{
	return current_task()->tg->tty;
}

void tty_signal(struct tty *t, int sig)
{
	if (t->pgrp)
		signal_send_pgrp(t->pgrp, sig, NULL);
}

static void take_from(struct thread_group *tg, void *arg)
{
	if (tg->tty == arg)
		tg->tty = NULL;
}

void tty_forget(struct tty *t)
{
	struct pid *session = t->session, *pgrp = t->pgrp;

	t->session = t->pgrp = NULL;
	kernel_each_process(take_from, t);
	pid_put(session);
	pid_put(pgrp);
}

int tty_check_background(struct tty *t, int sig)
{
	struct task *me = current_task();
	struct thread_group *tg = me->tg;
	bool deaf;

	if (tg->tty != t || !t->pgrp || tg->pgrp == t->pgrp)
		return 0;
	deaf = me->blocked & SIGBIT(sig) || tg->sighand->action[sig - 1].handler == (uint64_t)(uintptr_t)SIG_IGN;
	if (deaf)
		return sig == SIGTTIN ? -EIO : 0;
	if (pgrp_orphaned(tg->pgrp, NULL))
		return -EIO;
	signal_send_pgrp(tg->pgrp, sig, NULL);
	return -ERESTARTSYS;
}

static void set_ctty(struct tty *t)
{
	struct thread_group *tg = current_task()->tg;

	pid_put(t->session);
	pid_put(t->pgrp);
	t->session = pid_get(tg->session);
	t->pgrp = pid_get(tg->pgrp);
	tg->tty = t;
}

void tty_open_ctty(struct tty *t, struct file *f)
{
	struct thread_group *tg = current_task()->tg;

	if (f->flags & O_NOCTTY || !(f->mode & FMODE_READ) || !tg || !tg->session_leader || tg->tty || t->session)
		return;
	set_ctty(t);
}

int tty_set_ctty(struct tty *t, bool steal)
{
	struct thread_group *tg = current_task()->tg;

	if (tg->session_leader && t->session == tg->session && tg->tty == t)
		return 0;
	if (!tg->session_leader || tg->tty)
		return -EPERM;
	if (t->session) {
		if (!steal || !capable(CAP_SYS_ADMIN))
			return -EPERM;
		tty_forget(t);
	}
	set_ctty(t);
	return 0;
}

int tty_drop_ctty(struct tty *t)
{
	struct thread_group *tg = current_task()->tg;

	if (tg->tty != t)
		return -ENOTTY;
	if (!tg->session_leader) {
		tg->tty = NULL;
		return 0;
	}
	tty_signal(t, SIGHUP);
	tty_signal(t, SIGCONT);
	tty_forget(t);
	return 0;
}

int64_t tty_get_pgrp(struct tty *t, bool master)
{
	if (!master && tty_current() != t)
		return -ENOTTY;
	return t->pgrp ? t->pgrp->nr : 0;
}

int64_t tty_get_sid(struct tty *t, bool master)
{
	if (!master && tty_current() != t)
		return -ENOTTY;
	return t->session ? t->session->nr : -ENOTTY;
}

int tty_set_pgrp(struct tty *t, int32_t nr)
{
	struct thread_group *tg = current_task()->tg, *member;
	struct pid *pgrp;
	int r = tty_check_background(t, SIGTTOU);

	if (r)
		return r == -EIO ? -ENOTTY : r;
	if (tg->tty != t || t->session != tg->session)
		return -ENOTTY;
	if (nr < 0)
		return -EINVAL;
	pgrp = pid_find(nr);
	member = pgrp ? LIST_FIRST(&pgrp->pgrp) : NULL;
	if (!member)
		return -ESRCH;
	if (member->session != tg->session)
		return -EPERM;
	pid_get(pgrp);
	pid_put(t->pgrp);
	t->pgrp = pgrp;
	return 0;
}

// A session leader has died: the session loses its terminal. Files that are open on it live on, as
// those on a pair do on Linux.
static void leader_exit(struct thread_group *tg)
{
	struct tty *t = tg->tty;

	tg->tty = NULL;
	if (t && t->session == tg->session) {
		tty_signal(t, SIGHUP);
		tty_forget(t);
	}
}

void tty_jobctl_init(void)
{
	kernel_session_leader_exit = leader_exit;
}
