// What the files of sentry/kernel share and nobody else sees.
#pragma once
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "sentry/kernel/exec.h"
#include "sentry/kernel/sigcalls.h"
#include "sentry/kernel/task.h"

#define TG_ALL_SIGNALS (~0ULL)

LIST_HEAD(tg_list, thread_group);
extern struct tg_list all_processes;
extern unsigned nr_tasks;
extern struct platform *kernel_pf;

// --- pid.c ------------------------------------------------------------------------------------
// A fresh number with one reference (the caller's); -EAGAIN: none left, -ENOMEM.
int pid_alloc(struct pid_ns *ns, struct pid **ret);
int pid_alloc_nr(struct pid_ns *ns, int32_t nr, struct pid **ret); // that number; -EEXIST, -EINVAL
struct kuser *kuser_get(uint32_t uid); // finds or makes; NULL: no memory
void kuser_put(struct kuser *u);

// --- task.c -----------------------------------------------------------------------------------
struct task *task_self(void);               // the current guest thread; NULL in the loop and in other kernel tasks
struct task *task_new(void);                // refs 1, everything else empty; NULL: no memory
struct thread_group *tg_new(void);
void tg_get(struct thread_group *tg);
void tg_put(struct thread_group *tg);
void task_main(void *arg);                  // a guest thread's life; arg: the task
void task_dead(void *arg);                  // sched_exit()'s on_dead
void task_set_ctx(struct task *t, struct pf_ctx *ctx); // also who is woken for its events
void task_set_identity(struct task *t);     // pf_set_identity from pid and creds
void task_set_comm(struct task *t, const char *comm);
void task_mm_limits(const struct task *t, struct mm_limits *ret);
void task_init_hooks(struct task *t);       // fsize_exceeded, epipe and so on
struct sighand *sighand_new(void);
struct sighand *sighand_get(struct sighand *s);
void sighand_put(struct sighand *s);

// --- signal.c ---------------------------------------------------------------------------------
void signal_wake(struct task *t, bool fatal);
void signal_recalc(struct task *t);
void sigpending_init(struct sigpending *p);
void sigpending_flush(struct sigpending *p, uint64_t mask); // drops what is in mask
void sigqueue_free(struct sigqueue *q);
struct sigqueue *sigqueue_new(struct task *for_task, bool override_limit);
// A POSIX timer's own entry: queued unless it still is. False: it was ignored.
bool signal_send_timer(struct thread_group *tg, struct task *t, struct sigqueue *q);
void signal_unqueue_timer(struct thread_group *tg, struct sigqueue *q); // takes it off any queue
void signal_retarget(struct task *t, uint64_t mask); // others of the group take over shared signals
// All threads of tg end with `code`; from anywhere. Sets group_exit unless a group exit is under way.
void tg_kill(struct thread_group *tg, int code);
void signal_flush_handlers(struct task *t, bool force_default); // exec
// A deliverable signal other than sig (or a stop) is pending for t already.
static inline bool signal_pending_but(const struct task *t, int sig)
{
	return t->killed || ((t->pending.set | t->tg->shared_pending.set) & ~SIGBIT(sig) & ~t->blocked);
}
bool signal_ignored_by(const struct thread_group *tg, int sig); // SIG_IGN or ignored by default

// --- signal_deliver.c -------------------------------------------------------------------------
void task_work(struct task *t); // before going back to the guest: exit, stop, deliver, restart
void signal_stop_check(struct thread_group *tg); // a thread ended: is the group stop complete now?
void signal_parent_stopped(struct thread_group *tg, int code); // CLD_STOPPED, CLD_CONTINUED

// --- signal_frame.c ---------------------------------------------------------------------------
// Pushes a frame and points the registers at the handler. -EFAULT: the stack is no good.
int signal_frame_push(struct task *t, const struct ksiginfo *info, const struct ksigaction *ka, struct abi_regs *regs, uint64_t mask);
void signal_frame_fault(struct task *t);  // the frame's store failed
bool kernel_in_vdso(uint64_t rip); // the host's vDSO, which lies above the guest's part

// --- exit.c / wait.c --------------------------------------------------------------------------
void task_unborn(struct task *t); // linked, but its stack could not be had: as if it had never been
void task_leave_image(struct task *t);
void task_drop_mm(struct task *t, bool last);
void task_release_thread(struct task *t);
void tg_release(struct thread_group *tg); // collects a zombie: frees its numbers
bool pgrp_orphaned(struct pid *pgrp, const struct thread_group *ignore);
void tg_notify_parent(struct thread_group *tg);
uint64_t tg_cpu_ns(struct thread_group *tg);

// --- clone.c ----------------------------------------------------------------------------------
struct vfork_wait {
	refcount_t refs;
	bool done;
	struct waitq wq;
};
void vfork_release(struct task *t);
void tg_link(struct thread_group *tg, struct thread_group *parent, struct pid *pgrp, struct pid *session);
void task_link(struct task *t, struct thread_group *tg); // joins the group's threads; numbers count

// --- timers -----------------------------------------------------------------------------------
void itimers_exit(struct thread_group *tg); // the last thread ended
void itimers_exec(struct thread_group *tg); // POSIX timers go, interval timers stay
// A timer's signal was taken off a queue: fills in the overrun count, re-arms.
void posix_timer_delivered(struct thread_group *tg, struct ksiginfo *info);
void task_default_affinity(struct task *t); // all CPUs that the sandbox shows
int task_chdir(struct task *t, const char *path);
