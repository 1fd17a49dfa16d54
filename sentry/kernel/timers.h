// Interval timers and POSIX timers of a process (setitimer(2), timer_create(2)); clocks.
//
// Everything hangs off thread_group.itimers. Timers of elapsed time are ktimers; those of CPU time
// are looked at again when the process could have used up what is left at the earliest.
#pragma once
#include "sentry/kernel/task.h"

struct itimer_value { // nanoseconds; value 0: disarmed
	uint64_t value, interval;
};
// which: ITIMER_*. The old setting, with the time that is left.
void itimer_get(struct thread_group *tg, int which, struct itimer_value *ret);
int itimer_set(struct thread_group *tg, int which, const struct itimer_value *v, struct itimer_value *ret_old);
void rlimit_cpu_changed(struct thread_group *tg); // RLIMIT_CPU has a new value

struct ptimer_spec {
	int clock;              // a clockid that clock_now() knows
	int notify, signo;      // SIGEV_*
	uint64_t value;
	bool value_is_id;       // no sigevent was given: sival is the timer's id
	struct task *target;    // SIGEV_THREAD_ID; borrowed
};
int ptimer_create(struct task *t, const struct ptimer_spec *s, int *ret_id);
int ptimer_set(struct task *t, int id, bool absolute, const struct itimer_value *v, struct itimer_value *ret_old);
int ptimer_get(struct task *t, int id, struct itimer_value *ret);
int ptimer_overrun(struct task *t, int id); // or -EINVAL
int ptimer_delete(struct task *t, int id);

// clock_gettime(2) in nanoseconds; -EINVAL: no such clock (or no such process).
int clock_now(struct task *t, int clock, uint64_t *ret);
int clock_resolution(struct task *t, int clock, uint64_t *ret);
bool clock_is_cpu(int clock);
// The CLOCK_MONOTONIC deadline of an absolute time of an elapsed-time clock (saturating).
nsec_t clock_deadline(int clock, uint64_t abs_ns);
uint64_t task_cpu_ns(struct task *t);
