// The scheduler: a single-CPU, non-preemptive kernel.
//
// One host thread runs all kernel code. A sched_task is a coroutine with a small guarded stack; it
// gives the CPU up only in the functions marked "may wait". So kernel data needs no locks: what
// was checked before a wait must be checked again after it, and nothing else changes under you.
//
// Invariants
//  - sched_current() is the running task, NULL in the loop itself (timers, host-fd callbacks).
//    Code there must not wait; may_wait() asserts it in debug builds.
//  - A task is on the run queue, running, or blocked; sched_wake() is idempotent.
//  - Time is in nanoseconds; deadlines are absolute CLOCK_MONOTONIC of sched_now().
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

struct pf_ctx;
struct platform;

typedef uint64_t nsec_t;
#define NSEC_INFINITE UINT64_MAX
#define NSEC_PER_SEC 1000000000ULL

// --- tasks ----------------------------------------------------------------------------------
struct sched_task {
	TAILQ_ENTRY(sched_task) rq;
	void *sp;            // saved stack pointer while not running
	struct kstack *stack;
	void (*fn)(void *arg);
	void *arg;
	struct pf_ctx *ctx;  // whose guest memory uaccess means; NULL for a kernel task
	struct arena *arena; // per-call scratch memory, freed at the end of the call
	uint64_t wrote_lo, wrote_hi; // uaccess: what this call has written, where snapshots are stale
	bool runnable, interrupted, dead;
	uint8_t no_wait;     // > 0: may_wait() asserts
	char name[16];
	bool killed;         // set by sched_kill(), never cleared
	// The scheduler's own.
	bool sleeping, woken, entry_fired;
	uint8_t sleep_mode;  // enum wait_mode, while sleeping
	struct pf_ctx *wait_ctx;
	void (*at_exit)(struct sched_task *t); // called on t's stack as it ends (uaccess: frees the arena)
};

// Starts fn(arg) on a stack of its own; runs when the loop gets to it. -ENOMEM.
int sched_spawn(struct sched_task *t, const char *name, void (*fn)(void *), void *arg);
// Ends the current task; its memory is the caller's, its stack goes back to the pool. on_dead, if
// set, is called from the loop once the stack is no longer in use.
_Noreturn void sched_exit(void (*on_dead)(void *), void *arg);
struct sched_task *sched_current(void);
void sched_wake(struct sched_task *t);
// Marks t interrupted and wakes it out of an interruptible wait (the kernel's signal code calls it).
void sched_interrupt(struct sched_task *t);
void sched_clear_interrupt(struct sched_task *t);
// The same for a fatal signal: killable waits end as well, and from now on every interruptible and
// killable wait of t returns -EINTR at once.
void sched_kill(struct sched_task *t);
void sched_yield_cpu(void);  // may wait: lets other runnable tasks go first
void cond_resched(void);     // may wait: the same, if this task has run for long
void may_wait(void);         // asserts that waiting is allowed here
// The event side: the functions for pf_hooks. The kernel calls sched_ctx_wait(ctx) after
// pf_resume(ctx): it returns with an event in ctx->ev. It may wait, and no signal ends it (pf_kick).
void sched_ctx_event(struct pf_ctx *ctx);
void sched_ctx_wait(struct pf_ctx *ctx);
// Calls fn for every task that has a stack, in no particular order (debug --stacks, the watchdog).
void sched_for_each(void (*fn)(struct sched_task *t, void *arg), void *arg);

// --- wait queues ----------------------------------------------------------------------------
struct waitq;
struct wait_entry {
	TAILQ_ENTRY(wait_entry) link;
	struct waitq *wq;                                      // NULL: not queued
	bool (*wake)(struct wait_entry *e, uint32_t events);   // true: counts as an exclusive wake-up
	uint32_t mask;                                         // EPOLL* bits it wants; 0: all
	bool exclusive;                                        // set before waitq_add()
	void *arg;                                             // the wake function's
};
// Exclusive entries lie behind all others, so that a wake-up ends at the first that takes it.
struct waitq {
	TAILQ_HEAD(wait_entry_head, wait_entry) head;
	struct wait_entry *first_excl;
};
// A wake function runs in the waker's context: it must not wait; it may remove entries (its own and
// others) and wake other queues.
void waitq_init(struct waitq *wq);
void waitq_add(struct waitq *wq, struct wait_entry *e);
void waitq_remove(struct wait_entry *e); // idempotent
// Wakes every non-exclusive entry that wants one of `events` (0: any) and one exclusive one.
void waitq_wake(struct waitq *wq, uint32_t events);
void waitq_wake_all(struct waitq *wq, uint32_t events);
static inline bool waitq_empty(const struct waitq *wq) { return TAILQ_EMPTY(&wq->head); }
// The queue's owner goes, but not those who wait (an epoll item): they are let go, and not woken.
static inline void waitq_detach_all(struct waitq *wq)
{
	while (!TAILQ_EMPTY(&wq->head))
		waitq_remove(TAILQ_FIRST(&wq->head));
}

enum wait_mode { WAIT_KILLABLE_ONLY = 0, WAIT_INTERRUPTIBLE = 1, WAIT_UNINTERRUPTIBLE = 2 };
// One sleep on wq. 0: woken (recheck your condition), -EINTR: interrupted, -ETIMEDOUT: at deadline.
// May wait. Prefer wait_event().
int waitq_sleep(struct waitq *wq, enum wait_mode mode, nsec_t deadline);
// The same as an exclusive waiter: of those, waitq_wake() wakes one.
int waitq_sleep_exclusive(struct waitq *wq, enum wait_mode mode, nsec_t deadline);
// Queues a wake-up entry for the current task, to sleep on several queues: add entries with
// wait_entry_task() and waitq_add(), check the conditions, then sched_sleep(), then remove them. A
// wake-up that comes between waitq_add() and sched_sleep() makes sched_sleep() return 0 at once,
// even if the checks waited for something else in between.
void wait_entry_task(struct wait_entry *e, uint32_t mask);
int sched_sleep(enum wait_mode mode, nsec_t deadline);

// Waits until cond holds. -EINTR and -ETIMEDOUT as above (a true cond wins over both).
#define wait_event_until(wq, cond, mode, deadline)                                                 \
	({                                                                                         \
		int wait_r = 0;                                                                    \
		while (!(cond)) {                                                                  \
			if (wait_r)                                                                \
				break;                                                             \
			wait_r = waitq_sleep(wq, mode, deadline);                                  \
		}                                                                                  \
		(cond) ? 0 : wait_r;                                                               \
	})
#define wait_event(wq, cond) wait_event_until(wq, cond, WAIT_INTERRUPTIBLE, NSEC_INFINITE)

// A mutex for the few objects that must stay put across a wait. klock_lock() may wait.
struct klock {
	struct sched_task *holder;
	struct waitq wq;
};
void klock_init(struct klock *l);
void klock_lock(struct klock *l);
void klock_unlock(struct klock *l);

// --- time and timers ------------------------------------------------------------------------
nsec_t sched_now(void);      // CLOCK_MONOTONIC
nsec_t sched_now_real(void); // CLOCK_REALTIME
nsec_t sched_now_boot(void); // CLOCK_BOOTTIME
struct ktimer {
	size_t heap_index;       // 0: not armed; the scheduler's
	nsec_t deadline;
	void (*fn)(struct ktimer *t); // runs in the loop: must not wait; may re-arm
};
void ktimer_init(struct ktimer *t, void (*fn)(struct ktimer *));
int ktimer_arm(struct ktimer *t, nsec_t deadline); // re-arms; -ENOMEM
void ktimer_cancel(struct ktimer *t);              // idempotent

// --- host descriptors and host work ---------------------------------------------------------
// A host descriptor in the loop's epoll set; fn runs in the loop and must not wait.
struct host_fd {
	int fd; // the caller's
	void (*fn)(struct host_fd *h, uint32_t events);
	void *arg;
};
int host_fd_add(struct host_fd *h, uint32_t events);
int host_fd_mod(struct host_fd *h, uint32_t events);
void host_fd_remove(struct host_fd *h);

// Runs fn(w) on a host-work thread while the current task waits (uninterruptibly). fn touches
// nothing but its own w: no kernel object. May wait.
struct host_work {
	void (*fn)(struct host_work *w);
	STAILQ_ENTRY(host_work) link;
	struct sched_task *task;
	bool done;
};
void host_work_run(struct host_work *w);

// --- the loop -------------------------------------------------------------------------------
struct sched_config {
	struct platform *pf;     // NULL in unit tests without guests
	bool virtual_clock;      // tests: time jumps to the next deadline when nothing is runnable
	uint64_t seed;           // tests: != 0 shuffles the run queue, reproducibly
	unsigned host_threads;   // most host-work threads, started on first use; 0: a default
};
int sched_init(const struct sched_config *cfg);
// Runs until sched_stop(); returns its argument. With the virtual clock, -EDEADLK when nothing can
// ever happen again (no runnable task, no timer, no event).
int sched_run(void);
void sched_stop(int status);
// Ends the host-work threads and frees all stacks, also those of tasks that never ended.
void sched_fini(void);
// How long the loop has slept, for /proc/stat and the watchdog.
nsec_t sched_idle_ns(void);
