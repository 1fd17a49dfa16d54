// Tasks: memory, and the loop that every guest thread lives in.
#include "sentry/kernel/internal.h"

#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "sentry/kernel/seccomp.h"

DEFINE_SLAB(slab_task, struct task);
DEFINE_SLAB(slab_tg, struct thread_group);
DEFINE_SLAB(slab_sighand, struct sighand);
DEFINE_SLAB(slab_uts, struct uts_ns);

struct tg_list all_processes = LIST_HEAD_INITIALIZER(all_processes);
unsigned nr_tasks;
struct platform *kernel_pf;
void (*task_syscall_enter)(struct task *t);
void (*task_syscall_exit)(struct task *t, int64_t result);

struct task *task_self(void)
{
	struct sched_task *st = sched_current();

	return st && st->fn == task_main ? (struct task *)st : NULL;
}

// --- memory -------------------------------------------------------------------------------------

struct task *task_new(void)
{
	struct task *t = SLAB_NEW(slab_task, struct task);

	if (!t)
		return NULL;
	ref_init(&t->refs, 1);
	sigpending_init(&t->pending);
	t->timer_slack = 50000;
	nr_tasks++;
	return t;
}

struct task *task_get(struct task *t)
{
	ref_get(&t->refs);
	return t;
}

void task_put(struct task *t)
{
	if (!ref_put(&t->refs))
		return;
	kassert(!t->ctx && !t->mm && !t->vfork_done);
	sigpending_flush(&t->pending, TG_ALL_SIGNALS);
	seccomp_drop(t);
	if (t->vt.files)
		fd_table_put(t->vt.files);
	if (t->vt.fs)
		fs_struct_put(t->vt.fs);
	if (t->uts)
		uts_ns_put(t->uts);
	if (t->vt.cred)
		cred_put(t->vt.cred);
	if (t->user)
		kuser_put(t->user);
	if (t->tg)
		tg_put(t->tg);
	pid_put(t->tid);
	pid_ns_put(t->pid_ns);
	nr_tasks--;
	slab_free(&slab_task, t);
}

struct thread_group *tg_new(void)
{
	struct thread_group *tg = SLAB_NEW(slab_tg, struct thread_group);

	if (!tg)
		return NULL;
	ref_init(&tg->refs, 1);
	TAILQ_INIT(&tg->threads);
	TAILQ_INIT(&tg->children);
	sigpending_init(&tg->shared_pending);
	waitq_init(&tg->child_wq);
	waitq_init(&tg->stop_wq);
	waitq_init(&tg->thread_wq);
	tg->start_time = sched_now_boot();
	return tg;
}

void tg_get(struct thread_group *tg)
{
	ref_get(&tg->refs);
}

void tg_put(struct thread_group *tg)
{
	if (!ref_put(&tg->refs))
		return;
	kassert(TAILQ_EMPTY(&tg->threads) && TAILQ_EMPTY(&tg->children) && !tg->itimers);
	sigpending_flush(&tg->shared_pending, TG_ALL_SIGNALS);
	if (tg->sighand)
		sighand_put(tg->sighand);
	pid_put(tg->pid);
	pid_put(tg->pgrp);
	pid_put(tg->session);
	pid_ns_put(tg->pid_ns);
	slab_free(&slab_tg, tg);
}

struct sighand *sighand_new(void)
{
	struct sighand *s = SLAB_NEW(slab_sighand, struct sighand);

	if (!s)
		return NULL;
	ref_init(&s->refs, 1);
	waitq_init(&s->signalfd_wq);
	return s;
}

struct sighand *sighand_get(struct sighand *s)
{
	ref_get(&s->refs);
	return s;
}

void sighand_put(struct sighand *s)
{
	if (!ref_put(&s->refs))
		return;
	waitq_detach_all(&s->signalfd_wq); // a signalfd that was passed on may be watched still
	slab_free(&slab_sighand, s);
}

struct uts_ns *uts_ns_new(const char *nodename, const char *domainname)
{
	struct uts_ns *u = SLAB_NEW(slab_uts, struct uts_ns);

	if (!u)
		return NULL;
	ref_init(&u->refs, 1);
	snprintf(u->nodename, sizeof(u->nodename), "%s", nodename);
	snprintf(u->domainname, sizeof(u->domainname), "%s", domainname);
	return u;
}

struct uts_ns *uts_ns_get(struct uts_ns *u)
{
	ref_get(&u->refs);
	return u;
}

void uts_ns_put(struct uts_ns *u)
{
	if (ref_put(&u->refs))
		slab_free(&slab_uts, u);
}

// --- what others keep copies of -----------------------------------------------------------------

static void hook_fsize_exceeded(void)
{
	struct ksiginfo info = {.signo = SIGXFSZ, .code = SI_USER};
	struct task *t = current_task();

	info.pid = t->tg->pid->nr;
	info.uid = t->vt.cred->uid;
	signal_send_task(t, SIGXFSZ, &info);
}

static void hook_epipe(void)
{
	struct ksiginfo info = {.signo = SIGPIPE, .code = SI_USER};
	struct task *t = current_task();

	info.pid = t->tg->pid->nr;
	info.uid = t->vt.cred->uid;
	signal_send_task(t, SIGPIPE, &info);
}

void task_init_hooks(struct task *t)
{
	t->vt.fsize_exceeded = hook_fsize_exceeded;
	t->vt.epipe = hook_epipe;
}

void task_mm_limits(const struct task *t, struct mm_limits *ret)
{
	const struct rlimits *r = &t->tg->rlim;

	*ret = (struct mm_limits){.as = r->v[RLIMIT_AS].cur, .data = r->v[RLIMIT_DATA].cur,
				  .stack = r->v[RLIMIT_STACK].cur, .memlock = r->v[RLIMIT_MEMLOCK].cur,
				  .may_lock = task_capable(t, CAP_IPC_LOCK)};
}

void task_limits_changed(struct task *t)
{
	const struct rlimits *r = &t->tg->rlim;
	struct task *o;

	TAILQ_FOREACH(o, &t->tg->threads, tg_link) {
		o->vt.nofile_limit = (uint32_t)MIN(r->v[RLIMIT_NOFILE].cur, (uint64_t)UINT32_MAX);
		o->vt.fsize_limit = r->v[RLIMIT_FSIZE].cur;
	}
	if (t->mm)
		task_mm_limits(t, &t->mm->lim);
}

void task_set_ctx(struct task *t, struct pf_ctx *ctx)
{
	t->ctx = ctx;
	t->vt.st.ctx = ctx;
	if (ctx)
		ctx->owner = &t->vt.st;
}

void task_set_identity(struct task *t)
{
	struct pf_identity id = {
		.pid = (uint32_t)t->tg->pid->nr, .tid = (uint32_t)t->tid->nr, .uid = t->vt.cred->uid,
		.euid = t->vt.cred->euid, .gid = t->vt.cred->gid, .egid = t->vt.cred->egid};

	if (!t->ctx)
		return;
	pf_set_identity(t->ctx, &id);
	// Futexes and what the identity answers need not come here, unless somebody wants to see every call.
	pf_set_local_calls(t->ctx, !task_syscall_enter && !t->seccomp && !t->seccomp_strict);
}

void task_set_comm(struct task *t, const char *comm)
{
	snprintf(t->comm, sizeof(t->comm), "%s", comm);
	snprintf(t->vt.st.name, sizeof(t->vt.st.name), "%s", comm);
}

bool task_capable(const struct task *t, unsigned cap)
{
	return cred_capable(t->vt.cred, cap);
}

unsigned kernel_ntasks(void)
{
	return nr_tasks;
}

void kernel_each_group(void (*fn)(struct thread_group *tg, void *arg), void *arg)
{
	struct thread_group *tg;

	LIST_FOREACH(tg, &all_processes, all)
		fn(tg, arg);
}

void kernel_each_process(void (*fn)(struct thread_group *tg, void *arg), void *arg)
{
	struct thread_group *tg;

	LIST_FOREACH(tg, &all_processes, all)
		if (tg->state != TG_ZOMBIE)
			fn(tg, arg);
}

// --- the loop -----------------------------------------------------------------------------------

static void serve_syscall(struct task *t)
{
	const struct pf_event *ev = &t->ctx->ev;
	int64_t r;

	t->sc_nr = ev->sc.nr;
	memcpy(t->sc_args, ev->sc.args, sizeof(t->sc_args));
	t->in_syscall = true;
	t->sc_count++;
	if (unlikely(task_syscall_enter))
		task_syscall_enter(t);
	if (unlikely((t->seccomp || t->seccomp_strict) && seccomp_deny(t, &r)))
		goto answer;
	r = task_call(t);
answer:
	if (unlikely(task_syscall_exit))
		task_syscall_exit(t, r);
	arena_reset();
	t->in_syscall = false;
	if (unlikely(t->no_result))
		t->no_result = false;
	else if (unlikely(r <= -ERESTARTSYS && r >= -ERESTART_RESTARTBLOCK))
		t->restart_err = (uint16_t)-r;
	else
		pf_set_result(t->ctx, r);
}

static void serve_fault(struct task *t)
{
	const struct pf_event *ev = &t->ctx->ev;
	struct ksiginfo info = {.signo = ev->fault.signo, .code = ev->fault.code, .addr = ev->fault.addr,
				.trapno = ev->fault.trapno, .err = ev->fault.err};
	struct abi_regs regs;

	if (info.signo == SIGSEGV || info.signo == SIGBUS) {
		pf_get_regs(t->ctx, &regs);
		if (mm_fault_grow(t->mm, t->ctx, info.addr, regs.rsp))
			return;
	}
	t->fault_addr = info.addr;
	t->fault_trapno = info.trapno;
	t->fault_err = info.err;
	signal_force(t, &info);
}

// What is not a system call. PF_EV_OPS_FAILED and PF_EV_STORE_FAULT belong to the call whose
// answer was on its way to the guest: it fails after all.
static void serve_rare(struct task *t)
{
	const struct pf_event *ev = &t->ctx->ev;
	int r;

	switch (ev->kind) {
	case PF_EV_FAULT:
		serve_fault(t);
		break;
	case PF_EV_STORE_FAULT:
		if (t->frame_pending)
			signal_frame_fault(t);
		else if (!t->starting)
			pf_set_result(t->ctx, -EFAULT);
		break;
	case PF_EV_OPS_FAILED:
		r = mm_op_failed(t->mm, ev->ops.addr, ev->ops.len, ev->ops.error);
		pf_set_result(t->ctx, r > 0 ? -r : r);
		break;
	case PF_EV_DEAD:
		// A thread that the host refused to start: its creator hears of that, nobody else does.
		if (t->starting && !t->killed && t->tg->live_threads > 1)
			task_exit(t, 0);
		if (!t->killed)
			log_info("%s[%d]: the host has ended its address space", t->comm, t->tid->nr);
		tg_kill(t->tg, SIGKILL);
		break;
	case PF_EV_NONE:
	case PF_EV_READY:
	case PF_EV_OPS_DONE:
	case PF_EV_INTERRUPT:
	case PF_EV_SYSCALL:
		break;
	}
}

void task_main(void *arg)
{
	struct task *t = arg;

	if (t->start_fn)
		t->start_fn(t);
	for (;;) {
		while (unlikely(t->vt.st.interrupted || t->restart_err))
			task_work(t);
		pf_resume(t->ctx);
		sched_ctx_wait(t->ctx);
		if (likely(t->ctx->ev.kind == PF_EV_SYSCALL)) {
			t->frame_pending = false;
			t->starting = false;
			serve_syscall(t);
		} else {
			serve_rare(t);
			arena_reset();
			t->frame_pending = false;
			t->starting = false;
		}
	}
}
