// Structs of several calls as they lie in guest memory, and how they are made from the kernel's.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "sentry/kernel/wait.h"
#include "sentry/uaccess/uaccess.h"

struct wire_timespec {
	int64_t sec, nsec;
};
struct wire_timeval {
	int64_t sec, usec;
};
struct wire_itimerspec {
	struct wire_timespec interval, value;
};
struct wire_rusage {
	struct wire_timeval utime, stime;
	int64_t maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock, msgsnd, msgrcv, nsignals, nvcsw, nivcsw;
};
_Static_assert(sizeof(struct wire_rusage) == 144, "struct rusage");

static inline struct wire_timeval wire_timeval(uint64_t ns)
{
	return (struct wire_timeval){(int64_t)(ns / NSEC_PER_SEC), (int64_t)(ns % NSEC_PER_SEC / 1000)};
}
static inline struct wire_timespec wire_timespec(uint64_t ns)
{
	return (struct wire_timespec){(int64_t)(ns / NSEC_PER_SEC), (int64_t)(ns % NSEC_PER_SEC)};
}
static inline void wire_rusage(const struct rusage_ns *ru, struct wire_rusage *w)
{
	memset(w, 0, sizeof(*w));
	w->utime = wire_timeval(ru->utime_ns);
	w->stime = wire_timeval(ru->stime_ns);
	w->maxrss = (int64_t)ru->maxrss_kb;
	w->minflt = (int64_t)ru->minflt;
	w->majflt = (int64_t)ru->majflt;
	w->nvcsw = (int64_t)ru->nvcsw;
	w->nivcsw = (int64_t)ru->nivcsw;
}
// To nanoseconds, saturating. -EINVAL for negative or unnormalised ones.
static inline int wire_ns(const struct wire_timespec *ts, uint64_t *ret)
{
	if (ts->sec < 0 || ts->nsec < 0 || ts->nsec >= (int64_t)NSEC_PER_SEC)
		return -EINVAL;
	*ret = (uint64_t)ts->sec >= INT64_MAX / NSEC_PER_SEC ? INT64_MAX : (uint64_t)ts->sec * NSEC_PER_SEC + (uint64_t)ts->nsec;
	return 0;
}
// A relative timeout (struct timespec) as a deadline: NSEC_INFINITE for a null pointer, 0 for a zero
// timeout (do not wait). -EFAULT, -EINVAL.
static inline int wire_deadline_in(struct gaddr g, nsec_t *ret_deadline)
{
	struct wire_timespec ts;
	uint64_t ns;
	int r;

	*ret_deadline = NSEC_INFINITE;
	if (gaddr_null(g))
		return 0;
	r = copy_in_obj(&ts, g);
	if (!r)
		r = wire_ns(&ts, &ns);
	if (!r)
		*ret_deadline = ns ? sched_now() + ns : 0;
	return r;
}
