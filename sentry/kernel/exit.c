// The end of tasks and processes: _exit(2), who is told, who inherits the children, robust futexes.
#include "sentry/kernel/internal.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>

#include "sentry/kernel/sigmask.h"

#define ROBUST_LIMIT 2048
#define ROBUST_HEAD_SIZE 24

void (*kernel_session_leader_exit)(struct thread_group *tg);
void (*kernel_ipc_exit)(struct thread_group *tg);

// --- futexes that the thread leaves behind (set_robust_list(2)) -----------------------------------

static int futex_death(struct task *t, uint64_t addr, bool pi, bool pending)
{
	uint32_t val, owner;

	if ((addr & 3) || copy_in(&val, GADDR(addr), sizeof(val)) < 0)
		return -EFAULT;
	owner = val & FUTEX_TID_MASK;
	if (pending && !pi && owner == 0)
		return pf_futex_wake(t->ctx, addr, 1, true);
	if (owner != (uint32_t)t->tid->nr)
		return 0;
	// The owner is dead, so other threads only add the waiters' bit meanwhile. Should that get lost,
	// the wake-up below, which comes for everybody, makes up for it.
	val = (val & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
	if (copy_out(GADDR(addr), &val, sizeof(val)) < 0)
		return -EFAULT;
	if (!pi) {
		pf_futex_wake(t->ctx, addr, 1, true);
		pf_futex_wake(t->ctx, addr, 1, false);
	}
	return 0;
}

// True if there were any.
static bool release_robust_list(struct task *t)
{
	struct { uint64_t next, offset, pending; } head;
	uint64_t entry, next, pi, next_pi, pending;

	if (copy_in(&head, GADDR(t->robust_list), sizeof(head)) < 0)
		return false;
	_Static_assert(sizeof(head) == ROBUST_HEAD_SIZE, "struct robust_list_head");
	pi = head.next & 1;
	entry = head.next & ~1ULL;
	pending = head.pending & ~1ULL;
	if (entry == t->robust_list && !pending)
		return false;
	for (unsigned n = 0; entry != t->robust_list && n < ROBUST_LIMIT; n++) {
		// The next one first: once released, the entry may be gone.
		bool bad = copy_in(&next, GADDR(entry), sizeof(next)) < 0;

		next_pi = next & 1;
		if (entry != pending && futex_death(t, entry + head.offset, pi, false) < 0)
			break;
		if (bad)
			break;
		entry = next & ~1ULL;
		pi = next_pi;
		cond_resched();
	}
	if (pending)
		futex_death(t, pending + head.offset, head.pending & 1, true);
	return true;
}

// Memory of ours that other processes see.
static bool has_shared_memory(struct mm *mm)
{
	struct vma_info v;

	for (uint64_t at = 0; mm_next_vma(mm, at, &v); at = v.end)
		if (v.flags & MAP_SHARED)
			return true;
	return false;
}

// What the image is owed before the thread leaves it, by exit or by exec. May wait.
void task_leave_image(struct task *t)
{
	uint32_t zero = 0;

	bool alone = ref_read(&t->mm->users) == 1;

	// The last one out of an address space leaves locks behind in shared memory only, and before the
	// address space goes.
	if (t->robust_list && (!alone || has_shared_memory(t->mm)) && release_robust_list(t) && alone)
		pf_flush(t->ctx);
	t->robust_list = 0;
	if (t->clear_child_tid && !alone)
		if (copy_out(GADDR(t->clear_child_tid), &zero, sizeof(zero)) == 0)
			pf_futex_wake(t->ctx, t->clear_child_tid, 1, true);
	t->clear_child_tid = 0;
}

// --- accounting ---------------------------------------------------------------------------------

// Whether nobody but this process runs in its address space.
static bool mm_exclusive(const struct thread_group *tg, const struct mm *mm)
{
	return ref_read(&mm->users) <= tg->live_threads || tg->live_threads == 0;
}

uint64_t tg_cpu_ns(struct thread_group *tg)
{
	uint64_t ns = tg->cpu_base_ns;
	struct task *t;

	TAILQ_FOREACH(t, &tg->threads, tg_link) {
		if (!t->mm)
			continue;
		if (mm_exclusive(tg, t->mm))
			return ns + pf_as_cpu_ns(t->mm->as);
		ns += pf_ctx_cpu_ns(t->ctx);
	}
	return ns;
}

uint64_t process_cpu_ns(struct thread_group *tg, uint64_t *ret_user, uint64_t *ret_sys)
{
	uint64_t ns = tg_cpu_ns(tg);

	// The host's thread times are not split: what the guest causes in the kernel is the sentry's time.
	*ret_user = ns;
	*ret_sys = tg->stime_ns;
	return ns + tg->stime_ns;
}

// Leaves the address space. last: no other thread of the process is in it. May wait.
void task_drop_mm(struct task *t, bool last)
{
	struct pf_ctx *ctx = t->ctx;
	struct mm *mm = t->mm;
	uint64_t ns, rss_kb, shared;

	if (last) {
		rss_kb = mm_rss_pages(mm, &shared) * (PAGE_SIZE / 1024);
		t->tg->maxrss_kb = MAX(t->tg->maxrss_kb, rss_kb);
		ns = ref_read(&mm->users) == 1 ? pf_as_cpu_ns(mm->as) : pf_ctx_cpu_ns(ctx);
		t->cpu_ns_done += ns;
		t->tg->cpu_base_ns += ns;
	}
	t->mm = NULL;
	task_set_ctx(t, NULL);
	pf_ctx_exit(ctx);
	mm_put(mm);
}

// --- parents and children -----------------------------------------------------------------------

bool pgrp_orphaned(struct pid *pgrp, const struct thread_group *ignore)
{
	struct thread_group *tg;

	LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link) {
		if (tg == ignore || tg->state == TG_ZOMBIE || !tg->parent)
			continue;
		if (tg->parent->pgrp != pgrp && tg->parent->session == tg->session)
			return false;
	}
	return true;
}

static bool has_stopped(struct pid *pgrp)
{
	struct thread_group *tg;

	LIST_FOREACH(tg, &pgrp->pgrp, pgrp_link)
		if (tg->stopped)
			return true;
	return false;
}

// The group of tg may lose its last tie to the session: stopped members would never be continued.
static void hang_up_orphans(struct thread_group *tg, struct thread_group *parent)
{
	const struct thread_group *ignore = parent ? NULL : tg;
	struct pid *pgrp = tg->pgrp;

	if (!parent)
		parent = tg->parent;
	if (!parent || parent->pgrp == pgrp || parent->session != tg->session)
		return;
	if (!pgrp_orphaned(pgrp, ignore) || !has_stopped(pgrp))
		return;
	signal_send_pgrp(pgrp, SIGHUP, NULL);
	signal_send_pgrp(pgrp, SIGCONT, NULL);
}

static struct thread_group *find_reaper(struct thread_group *tg)
{
	struct thread_group *init = tg->pid_ns->init, *p;

	if (tg->has_subreaper)
		for (p = tg->parent; p && p != init; p = p->parent)
			if (p->subreaper && p->state == TG_RUNNING && p->pid_ns == tg->pid_ns)
				return p;
	return init != tg && init && init->state == TG_RUNNING ? init : NULL;
}

static void send_pdeath(struct thread_group *child, struct thread_group *by)
{
	struct ksiginfo info = {.code = SI_USER, .pid = by->pid->nr};
	struct task *t;

	TAILQ_FOREACH(t, &child->threads, tg_link) {
		if (!t->pdeath_signal)
			continue;
		info.signo = t->pdeath_signal;
		info.uid = by->leader ? by->leader->vt.cred->uid : 0;
		signal_send_group(child, t->pdeath_signal, &info);
	}
}

static void reparent_children(struct thread_group *tg)
{
	struct thread_group *reaper, *child;

	if (TAILQ_EMPTY(&tg->children))
		return;
	reaper = find_reaper(tg);
	while ((child = TAILQ_FIRST(&tg->children))) {
		TAILQ_REMOVE(&tg->children, child, sibling);
		child->parent = reaper;
		if (reaper)
			TAILQ_INSERT_TAIL(&reaper->children, child, sibling);
		child->exit_signal = SIGCHLD;
		send_pdeath(child, tg);
		if (child->state == TG_ZOMBIE)
			tg_notify_parent(child); // may free it
		else
			hang_up_orphans(child, tg);
	}
}

void tg_notify_parent(struct thread_group *tg)
{
	struct thread_group *parent = tg->parent;
	struct ksiginfo info = {.signo = tg->exit_signal};
	const struct ksigaction *ka;
	bool autoreap = false;
	int sig = tg->exit_signal;

	if (!parent) {
		if (tg->on_exit)
			tg->on_exit(tg, tg->on_exit_arg);
		tg->on_exit = NULL;
		tg_release(tg);
		return;
	}
	info.pid = tg->pid->nr;
	info.uid = tg->leader->vt.cred->uid;
	info.utime = (int64_t)(tg->cpu_base_ns / 10000000);
	info.code = tg->exit_code & 0x7f ? CLD_KILLED : CLD_EXITED;
	info.status = tg->exit_code & 0x7f ? tg->exit_code & 0x7f : tg->exit_code >> 8;
	ka = &parent->sighand->action[SIGCHLD - 1];
	if (sig == SIGCHLD && (ka->handler == SIGH_IGN || (ka->flags & KSA_NOCLDWAIT))) {
		autoreap = true;
		if (ka->handler == SIGH_IGN)
			sig = 0;
	}
	if (parent->state != TG_RUNNING)
		autoreap = true; // init on its way out waits for nobody in particular
	if (sig)
		signal_send_group(parent, sig, &info);
	if (autoreap)
		tg_release(tg);
	waitq_wake_all(&parent->child_wq, 0);
}

// --- taking things apart ------------------------------------------------------------------------

// The thread disappears from all lists. Its memory lives until the last reference is gone.
static void task_unlink(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct pid *pid = t->tid;

	TAILQ_REMOVE(&tg->threads, t, tg_link);
	tg->nthreads--;
	if (tg->sig_target == t)
		tg->sig_target = NULL;
	if (tg->leader == t)
		tg->leader = NULL;
	t->user->nproc--;
	pid->task = NULL;
	waitq_wake_all(&pid->exit_wq, 0);
	waitq_wake_all(&tg->thread_wq, 0);
	task_put(t);
}

static void tg_unlink(struct thread_group *tg)
{
	struct pid_ns *ns = tg->pid_ns;

	if (tg->parent)
		TAILQ_REMOVE(&tg->parent->children, tg, sibling);
	tg->parent = NULL;
	LIST_REMOVE(tg, pgrp_link);
	pid_put(tg->pgrp);
	tg->pgrp = NULL;
	LIST_REMOVE(tg, session_link);
	pid_put(tg->session);
	tg->session = NULL;
	LIST_REMOVE(tg, all);
	if (ns->init == tg)
		ns->init = NULL;
	ns->nr_procs--;
	waitq_wake_all(&ns->empty_wq, 0);
}

void tg_release(struct thread_group *tg)
{
	kassert(tg->state == TG_ZOMBIE && tg->live_threads == 0 && TAILQ_EMPTY(&tg->children));
	tg_get(tg);
	tg_unlink(tg);
	while (!TAILQ_EMPTY(&tg->threads))
		task_unlink(TAILQ_FIRST(&tg->threads));
	tg_put(tg);
}

void task_unborn(struct task *t)
{
	struct thread_group *tg = t->tg;
	struct pf_ctx *ctx = t->ctx;
	struct mm *mm = t->mm;
	bool group = tg->leader == t && tg->live_threads == 1;

	tg_get(tg);
	tg->live_threads--;
	task_set_ctx(t, NULL);
	t->mm = NULL;
	if (ctx)
		pf_ctx_exit(ctx);
	if (mm)
		mm_put(mm);
	t->exiting = true;
	if (group) {
		tg->state = TG_ZOMBIE;
		tg_release(tg);
	} else {
		task_unlink(t);
	}
	tg_put(tg);
}

// exec's: the old leader, whose number the calling thread has taken over.
void task_release_thread(struct task *t)
{
	task_unlink(t);
}

void task_dead(void *arg)
{
	task_put(arg);
}

// --- exit ---------------------------------------------------------------------------------------

static void kill_one(struct thread_group *tg, void *arg)
{
	if (tg != arg && tg->pid_ns == ((struct thread_group *)arg)->pid_ns)
		tg_kill(tg, SIGKILL);
}

// init is going: so does everybody else, and their numbers.
static void end_pid_ns(struct thread_group *tg)
{
	struct pid_ns *ns = tg->pid_ns;
	struct thread_group *child, *next;

	tg->state = TG_EXITING;
	kernel_each_process(kill_one, tg);
	for (child = TAILQ_FIRST(&tg->children); child; child = next) {
		next = TAILQ_NEXT(child, sibling);
		if (child->state == TG_ZOMBIE)
			tg_release(child);
	}
	while (ns->nr_procs > 1)
		waitq_sleep(&ns->empty_wq, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
}

static void drop_files(struct task *t)
{
	struct fd_table *files = t->vt.files;
	struct fs_struct *fs = t->vt.fs;

	t->vt.files = NULL;
	if (files)
		fd_table_put(files);
	// Kept until here: releasing files may walk paths.
	t->vt.fs = NULL;
	if (fs)
		fs_struct_put(fs);
}

static void process_end(struct task *t)
{
	struct thread_group *tg = t->tg;

	tg->exit_code = tg->group_exit ? tg->exit_code : tg->leader->exit_code;
	reparent_children(tg);
	hang_up_orphans(tg, NULL);
	if (tg->session_leader && kernel_session_leader_exit)
		kernel_session_leader_exit(tg);
	sigpending_flush(&tg->shared_pending, TG_ALL_SIGNALS);
	tg->state = TG_ZOMBIE;
	waitq_wake_all(&tg->pid->exit_wq, 0);
	if (tg->leader != t)
		task_unlink(t);
	tg_notify_parent(tg);
}

_Noreturn void task_exit(struct task *t, int code)
{
	struct thread_group *tg = t->tg;
	struct fs_struct *keep = NULL;
	bool last;

	kassert(t == current_task() && !t->exiting);
	t->exit_code = code;
	t->exiting = true;
	t->in_syscall = false;
	tg->live_threads--;
	last = tg->live_threads == 0;
	if (last) {
		itimers_exit(tg);
		if (tg->pid_ns->init == tg)
			end_pid_ns(tg);
		tg->state = TG_EXITING;
	} else {
		signal_retarget(t, ~t->blocked);
		signal_stop_check(tg);
	}
	if (t->mm) {
		task_leave_image(t);
		task_drop_mm(t, last);
	}
	vfork_release(t);
	if (last && tg->ipc && kernel_ipc_exit)
		kernel_ipc_exit(tg);
	// Whoever waits outside hears of the end before the mounts go, and the gofer with them.
	if (last && tg->on_exit) {
		keep = t->vt.fs;
		ref_get(&keep->refs);
	}
	drop_files(t);
	sigpending_flush(&t->pending, TG_ALL_SIGNALS);
	arena_reset();
	if (last)
		process_end(t);
	else if (tg->leader != t)
		task_unlink(t);
	else
		waitq_wake_all(&tg->thread_wq, 0); // a dead leader stays: its number is the process's
	if (keep)
		fs_struct_put(keep);
	sched_exit(task_dead, t);
}

_Noreturn void task_exit_group(struct task *t, int code)
{
	struct thread_group *tg = t->tg;

	if (!tg->group_exit)
		tg_kill(tg, code);
	task_exit(t, tg->exit_code);
}
