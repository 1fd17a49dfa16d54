// Publishing new credentials, and who may look into whom.
#include <linux/capability.h>

#include "sentry/kernel/internal.h"

void task_commit_creds(struct task *t, struct cred *c)
{
	const struct cred *old = t->vt.cred;
	struct kuser *u;

	if (c->uid != old->uid) {
		u = kuser_get(c->uid);
		if (u) { // without memory the old user goes on paying
			t->user->nproc--;
			u->nproc++;
			kuser_put(t->user);
			t->user = u;
		}
	}
	if (t->mm && (c->euid != old->euid || c->egid != old->egid || c->fsuid != old->fsuid || c->fsgid != old->fsgid ||
		      (c->cap_permitted & ~old->cap_permitted))) {
		t->mm->dumpable = false;
		t->pdeath_signal = 0;
	}
	t->vt.cred = c;
	cred_put(old);
	if (t->mm)
		t->mm->lim.may_lock = task_capable(t, CAP_IPC_LOCK);
	if (t->ctx)
		task_set_identity(t);
}

bool task_may_inspect(const struct task *by, const struct task *target)
{
	const struct cred *c = by->vt.cred, *o = target->vt.cred;

	if (by->tg == target->tg)
		return true;
	if (task_capable(by, CAP_SYS_PTRACE))
		return true;
	if (c->fsuid != o->euid || c->fsuid != o->suid || c->fsuid != o->uid || c->fsgid != o->egid ||
	    c->fsgid != o->sgid || c->fsgid != o->gid)
		return false;
	if (target->mm && !target->mm->dumpable)
		return false;
	return !(o->cap_permitted & ~c->cap_permitted);
}
