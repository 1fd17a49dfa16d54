// New tasks: fork(2), vfork(2), clone(2), clone3(2).
#include "sentry/kernel/clone.h"

#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sentry/kernel/internal.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/sigmask.h"

DEFINE_SLAB(slab_vfork, struct vfork_wait);

#define CLONE_NAMESPACES                                                                           \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define NR_THREADS_MAX 30000 // of one sandbox

// --- linking ------------------------------------------------------------------------------------

void tg_set_pgrp(struct thread_group *tg, struct pid *pgrp)
{
	pid_get(pgrp);
	if (tg->pgrp) {
		LIST_REMOVE(tg, pgrp_link);
		pid_put(tg->pgrp);
	}
	tg->pgrp = pgrp;
	LIST_INSERT_HEAD(&pgrp->pgrp, tg, pgrp_link);
}

void tg_set_session(struct thread_group *tg, struct pid *session)
{
	pid_get(session);
	if (tg->session) {
		LIST_REMOVE(tg, session_link);
		pid_put(tg->session);
	}
	tg->session = session;
	LIST_INSERT_HEAD(&session->session, tg, session_link);
}

void tg_link(struct thread_group *tg, struct thread_group *parent, struct pid *pgrp, struct pid *session)
{
	tg->parent = parent;
	if (parent)
		TAILQ_INSERT_TAIL(&parent->children, tg, sibling);
	tg_set_pgrp(tg, pgrp);
	tg_set_session(tg, session);
	tg->pid_ns->nr_procs++;
	LIST_INSERT_HEAD(&all_processes, tg, all);
}

void task_link(struct task *t, struct thread_group *tg)
{
	TAILQ_INSERT_TAIL(&tg->threads, t, tg_link);
	tg->nthreads++;
	tg->live_threads++;
	t->tid->task = t;
	t->user->nproc++;
}

// --- namespaces ---------------------------------------------------------------------------------

int clone_check_namespaces(const struct task *t, uint64_t flags)
{
	if (!(flags & CLONE_NAMESPACES))
		return 0;
	if ((flags & CLONE_NEWUSER) || !task_capable(t, CAP_SYS_ADMIN))
		return -EPERM;
	// As a kernel built without them.
	if (flags & (CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP))
		return -EINVAL;
	return 0;
}

// --- copying what is asked for ------------------------------------------------------------------

static int check_flags(const struct task *t, const struct clone_req *q)
{
	uint64_t f = q->flags;

	if ((f & CLONE_FS) && (f & (CLONE_NEWNS | CLONE_NEWUSER)))
		return -EINVAL;
	if ((f & CLONE_THREAD) && !(f & CLONE_SIGHAND))
		return -EINVAL;
	if ((f & CLONE_SIGHAND) && !(f & CLONE_VM))
		return -EINVAL;
	if ((f & CLONE_THREAD) && (f & (CLONE_NEWUSER | CLONE_NEWPID | CLONE_PIDFD)))
		return -EINVAL;
	if ((f & CLONE_PARENT) && (!t->tg->parent || t->tg->pid_ns->init == t->tg))
		return -EINVAL;
	return clone_check_namespaces(t, f);
}

static int check_limits(const struct task *t)
{
	if (nr_tasks >= NR_THREADS_MAX)
		return -EAGAIN;
	if (t->user->nproc >= t->tg->rlim.v[RLIMIT_NPROC].cur && t->vt.cred->uid != 0 &&
	    !task_capable(t, CAP_SYS_RESOURCE) && !task_capable(t, CAP_SYS_ADMIN))
		return -EAGAIN;
	return 0;
}

static struct sighand *copy_sighand(struct task *t, uint64_t flags)
{
	struct sighand *s;

	if (flags & CLONE_SIGHAND)
		return sighand_get(t->tg->sighand);
	s = sighand_new();
	if (!s)
		return NULL;
	memcpy(s->action, t->tg->sighand->action, sizeof(s->action));
	if (flags & KCLONE_CLEAR_SIGHAND)
		for (int i = 0; i < KNSIG; i++)
			if (s->action[i].handler != SIGH_IGN)
				s->action[i] = (struct ksigaction){.handler = SIGH_DFL};
	return s;
}

static int copy_group(struct task *t, struct task *c, const struct clone_req *q)
{
	struct thread_group *tg, *from = t->tg;

	if (q->flags & CLONE_THREAD) {
		tg_get(from);
		c->tg = from;
		return 0;
	}
	tg = tg_new();
	if (!tg)
		return -ENOMEM;
	c->tg = tg; // its reference
	tg->sighand = copy_sighand(t, q->flags);
	if (!tg->sighand)
		return -ENOMEM;
	tg->pid = pid_get(c->tid);
	tg->pid_ns = pid_ns_get(from->pid_ns);
	tg->leader = c;
	tg->exit_signal = q->flags & CLONE_PARENT ? from->exit_signal : q->exit_signal;
	tg->rlim = from->rlim;
	tg->has_subreaper = from->has_subreaper || from->subreaper;
	tg->oom_score_adj = from->oom_score_adj;
	tg->personality = from->personality;
	tg->nice = from->nice;
	tg->audit = from->audit;
	tg->tty = from->tty;
	return 0;
}

static void copy_plain(const struct task *t, struct task *c, uint64_t flags)
{
	memcpy(c->comm, t->comm, sizeof(c->comm));
	c->blocked = t->blocked;
	if ((flags & (CLONE_VM | CLONE_VFORK)) != CLONE_VM) {
		c->sas_sp = t->sas_sp;
		c->sas_size = t->sas_size;
		c->sas_flags = t->sas_flags;
	}
	c->keep_caps = t->keep_caps;
	c->nice = t->nice;
	c->timer_slack = t->timer_slack;
	c->sched_policy = t->sched_policy;
	c->sched_prio = t->sched_prio;
	c->ioprio = t->ioprio;
	memcpy(c->cpu_mask, t->cpu_mask, sizeof(c->cpu_mask));
}

static int copy_resources(struct task *t, struct task *c, const struct clone_req *q)
{
	int r;

	copy_plain(t, c, q->flags);
	seccomp_inherit(c, t);
	task_init_hooks(c);
	c->vt.cred = cred_get(t->vt.cred);
	ref_get(&t->user->refs);
	c->user = t->user;
	c->pid_ns = pid_ns_get(t->pid_ns);
	r = q->set_tid ? pid_alloc_nr(t->pid_ns, q->set_tid, &c->tid) : pid_alloc(t->pid_ns, &c->tid);
	if (r < 0)
		return r;
	r = copy_group(t, c, q);
	if (r < 0)
		return r;
	if (q->flags & CLONE_NEWUTS)
		c->uts = uts_ns_new(t->uts->nodename, t->uts->domainname);
	else
		c->uts = uts_ns_get(t->uts);
	if (q->flags & CLONE_FS) {
		ref_get(&t->vt.fs->refs);
		c->vt.fs = t->vt.fs;
	} else {
		c->vt.fs = fs_struct_copy(t->vt.fs);
	}
	if (q->flags & CLONE_FILES)
		c->vt.files = fd_table_get(t->vt.files);
	else
		c->vt.files = fd_table_copy(t->vt.files, UINT32_MAX, UINT32_MAX);
	if (!c->uts || !c->vt.fs || !c->vt.files)
		return -ENOMEM;
	return q->flags & CLONE_NEWNS ? task_new_mnt_ns(c) : 0;
}

static void store_parent_tid(const struct task *c, const struct clone_req *q)
{
	int32_t tid = c->tid->nr;

	// A bad address is nobody's business, as on Linux.
	if ((q->flags & CLONE_PARENT_SETTID) && copy_out(GADDR(q->parent_tid), &tid, sizeof(tid)) < 0)
		log_debug("clone: the parent's copy of the tid could not be stored");
}

// May wait.
static int copy_memory(struct task *t, struct task *c, const struct clone_req *q)
{
	struct pf_ctx *ctx;
	struct pf_as *as;
	int r;

	if (q->flags & CLONE_VM) {
		// Before the thread can start: it may read the number, and clear it when it ends.
		store_parent_tid(c, q);
		r = pf_thread_new(t->ctx, &ctx);
		if (r < 0)
			return r;
		c->mm = mm_get(t->mm);
		task_set_ctx(c, ctx);
		return 0;
	}
	// The copies of the memory and of the tree must be of the same moment.
	klock_lock(&t->mm->lock);
	r = pf_fork(t->ctx, &as, &ctx);
	if (r < 0) {
		klock_unlock(&t->mm->lock);
		return r;
	}
	task_set_ctx(c, ctx);
	r = mm_fork(t->mm, as, ctx, &c->mm);
	klock_unlock(&t->mm->lock);
	if (r < 0) {
		task_set_ctx(c, NULL);
		pf_as_kill(as);
		pf_ctx_exit(ctx);
		pf_as_free(as);
	}
	return r;
}

// A child that never ran.
static void clone_undo(struct task *c)
{
	struct pf_ctx *ctx = c->ctx;

	if (ctx) {
		task_set_ctx(c, NULL);
		pf_ctx_exit(ctx);
	}
	if (c->mm)
		mm_put(c->mm);
	c->mm = NULL;
	task_put(c);
}

// --- the child's registers ----------------------------------------------------------------------

static int child_start_state(struct task *c, const struct clone_req *q)
{
	struct abi_regs regs;
	int32_t tid = c->tid->nr;

	if (q->stack || (q->flags & CLONE_SETTLS)) {
		pf_get_regs(c->ctx, &regs);
		regs.rax = 0;
		if (q->stack)
			regs.rsp = q->stack;
		if (q->flags & CLONE_SETTLS)
			regs.fs_base = q->tls;
		pf_set_regs(c->ctx, &regs);
	} else {
		pf_set_result(c->ctx, 0);
	}
	if (!(q->flags & CLONE_CHILD_SETTID))
		return 0;
	// A bad address is nobody's business, as on Linux.
	if (copy_out_ctx(c->ctx, GADDR(q->child_tid), &tid, sizeof(tid)) < 0)
		log_debug("clone: the child's tid could not be stored");
	return 0;
}

// --- vfork --------------------------------------------------------------------------------------

static void vfork_put(struct vfork_wait *v)
{
	if (ref_put(&v->refs))
		slab_free(&slab_vfork, v);
}

void vfork_release(struct task *t)
{
	struct vfork_wait *v = t->vfork_done;

	if (!v)
		return;
	t->vfork_done = NULL;
	v->done = true;
	waitq_wake_all(&v->wq, 0);
	vfork_put(v);
}

// --- all of it ----------------------------------------------------------------------------------

static void link_child(struct task *t, struct task *c, const struct clone_req *q)
{
	if (!(q->flags & CLONE_THREAD)) {
		struct thread_group *parent = q->flags & CLONE_PARENT ? t->tg->parent : t->tg;

		tg_link(c->tg, parent, t->tg->pgrp, t->tg->session);
		c->tg->shared_pending.set |= t->fork_signals;
	}
	task_link(c, c->tg);
	task_limits_changed(c);
	if (q->flags & CLONE_CHILD_CLEARTID)
		c->clear_child_tid = q->child_tid;
	c->starting = true;
	task_set_identity(c);
}

static int make_child(struct task *t, const struct clone_req *q, struct task **ret)
{
	struct task *c = task_new();
	int r;

	if (!c)
		return -ENOMEM;
	t->fork_signals = 0;
	t->forking = !(q->flags & CLONE_THREAD);
	r = copy_resources(t, c, q);
	if (r == 0)
		r = copy_memory(t, c, q);
	t->forking = false;
	// What happened while this task waited for the platform: it may be dead by now.
	if (r == 0 && (t->killed || t->tg->execing))
		r = -ERESTARTNOINTR;
	if (r == 0 && (q->flags & CLONE_PARENT) && !t->tg->parent)
		r = -EINVAL;
	if (r == 0)
		r = child_start_state(c, q);
	if (r < 0) {
		clone_undo(c);
		return r;
	}
	*ret = c;
	return 0;
}

static int64_t vfork_wait_for(struct task *t, struct vfork_wait *v)
{
	int r = wait_event_until(&v->wq, v->done, WAIT_KILLABLE_ONLY, NSEC_INFINITE);

	vfork_put(v);
	return r;
}

int64_t task_clone(struct task *t, const struct clone_req *q)
{
	struct vfork_wait *v = NULL;
	struct pidfd_slot slot = {.fd = -1};
	struct task *c;
	int32_t tid;
	int r;

	r = check_flags(t, q);
	if (r == 0)
		r = check_limits(t);
	if (r == 0 && (q->flags & CLONE_PIDFD))
		r = pidfd_reserve(&slot);
	if (r < 0)
		return r;
	if (q->flags & CLONE_VFORK) {
		v = SLAB_NEW(slab_vfork, struct vfork_wait);
		if (!v) {
			pidfd_cancel(&slot);
			return -ENOMEM;
		}
		ref_init(&v->refs, 1);
		waitq_init(&v->wq);
	}
	r = make_child(t, q, &c);
	if (r == 0 && (q->flags & CLONE_PIDFD)) {
		r = pidfd_prepare(&slot, c->tid);
		if (r == 0)
			r = copy_out(GADDR(q->pidfd), &slot.fd, sizeof(slot.fd));
		if (r < 0)
			clone_undo(c);
	}
	if (r == 0) {
		// From here on the child can be found; it runs when this task next waits.
		link_child(t, c, q);
		r = sched_spawn(&c->vt.st, c->comm, task_main, c);
		if (r < 0)
			task_unborn(c);
	}
	if (r < 0) {
		pidfd_cancel(&slot);
		if (v)
			vfork_put(v);
		return r;
	}
	c->vt.st.ctx = c->ctx;
	task_get(c); // its stack's
	signal_recalc(c);
	if (slot.fd >= 0)
		pidfd_commit(&slot);
	tid = c->tid->nr;
	if (!(q->flags & CLONE_VM))
		store_parent_tid(c, q);
	if (v) {
		ref_get(&v->refs);
		c->vfork_done = v;
		// The new host thread starts on this context's way back, which comes too late now.
		if (q->flags & CLONE_VM)
			pf_flush(t->ctx);
		vfork_wait_for(t, v);
	}
	return tid;
}
