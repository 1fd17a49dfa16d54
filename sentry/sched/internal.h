// What the files of sentry/sched share. One instance of everything: one kernel thread.
#pragma once
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "sentry/sched/sched.h"

#if defined(__SANITIZE_ADDRESS__)
#define SCHED_ASAN 1
#else
#define SCHED_ASAN 0
#endif

// A kernel stack; the struct lies at the top of its own mapping, above the first frame.
struct kstack {
	void *base;             // lowest usable byte; the guard page is below
	size_t size;            // usable bytes
	void *asan_fake;        // the sanitizer's fake stack while not running
	struct sched_task *task;
	LIST_ENTRY(kstack) link; // in the list of stacks in use, or of free ones
};
LIST_HEAD(kstack_list, kstack);

struct kstack *kstack_get(void); // NULL: out of memory
void kstack_put(struct kstack *k);
void kstack_fini(void); // frees all, those in use as well
extern struct kstack_list kstacks_used;

struct sched_state {
	TAILQ_HEAD(sched_task_head, sched_task) rq;
	size_t nr_runnable;
	struct sched_task *current;
	void *loop_sp;
	uint64_t switches;      // tasks run so far
	uint64_t resched_switch; // cond_resched(): the value of `switches` it last saw ...
	nsec_t resched_start;   // ... and when
	struct {
		struct sched_task *task;
		void (*fn)(void *);
		void *arg;
	} dead;                 // the task that ended last: the loop frees its stack
	const void *loop_stack; // for the sanitizer
	size_t loop_stack_size;
	void *loop_fake;
	struct platform *pf;
	bool virtual_clock, stop, initialised;
	int status;
	uint64_t rng;           // 0: FIFO
	nsec_t vnow, idle_ns;
	size_t nr_tasks;
	uint64_t tsc_per_us, tsc_origin, tick_tsc;
	nsec_t tsc_origin_ns, last_epoll;
};
extern struct sched_state sched_g;

void sched_make_runnable(struct sched_task *t); // idempotent
void sched_task_main(void); // the first function on every task's stack
void sched_switch_to(struct sched_task *t);
void sched_reap(void);
void sched_block(void); // parks the current task until somebody makes it runnable

// switch.S
void sched_switch_asm(void **save_sp, void *load_sp);
void sched_start_asm(void);

// clock.c
bool timer_reserve(size_t nr_tasks);   // room for one sleep timer per task
void timer_arm_sleep(struct ktimer *t, nsec_t deadline); // never fails: room was reserved
bool timer_run(nsec_t now);            // runs what has expired; true if any did
nsec_t timer_next(void);               // NSEC_INFINITE: none
void timer_fini(void);

// hostfd.c
int hostfd_init(void);
void hostfd_fini(void);
bool hostfd_any(void);                 // anything but the platform to look at
// Waits until deadline (0: looks only) for descriptors and runs their functions.
void hostfd_poll(nsec_t deadline);
int hostfd_watch_platform(int fd);

// hostwork.c
int hostwork_init(unsigned max_threads);
void hostwork_fini(void);
