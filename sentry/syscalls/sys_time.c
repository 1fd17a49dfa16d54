// Clocks, sleeping, timers: clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2) ...
#include <linux/capability.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "platform/base/base.h"
#include "sentry/kernel/timers.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

#define TICK_NS (NSEC_PER_SEC / 100) // USER_HZ

// --- reading clocks -----------------------------------------------------------------------------

SYSCALL(clock_gettime)
{
	struct wire_timespec ts;
	uint64_t ns;
	int r = clock_now(t, arg_int(a[0]), &ns);

	if (r < 0)
		return r;
	ts = wire_timespec(ns);
	return copy_out_obj(GADDR(a[1]), &ts);
}

SYSCALL(clock_getres)
{
	struct wire_timespec ts;
	uint64_t ns;
	int r = clock_resolution(t, arg_int(a[0]), &ns);

	if (r < 0)
		return r;
	ts = wire_timespec(ns);
	return a[1] ? copy_out_obj(GADDR(a[1]), &ts) : 0;
}

// The clocks are the host's: nobody here may set them.
SYSCALL(clock_settime)
{
	struct wire_timespec ts;
	uint64_t ns;
	int r;

	if (arg_int(a[0]) != CLOCK_REALTIME)
		return -EINVAL;
	if (copy_in_obj(&ts, GADDR(a[1])) < 0)
		return -EFAULT;
	r = wire_ns(&ts, &ns);
	return r < 0 ? r : -EPERM;
}

SYSCALL(gettimeofday)
{
	struct wire_timeval tv = wire_timeval(sched_now_real());
	struct { int32_t west, dst; } tz = {0, 0};

	if (a[0] && copy_out_obj(GADDR(a[0]), &tv) < 0)
		return -EFAULT;
	if (a[1] && copy_out_obj(GADDR(a[1]), &tz) < 0)
		return -EFAULT;
	return 0;
}

SYSCALL(time)
{
	int64_t now = (int64_t)(sched_now_real() / NSEC_PER_SEC);

	if (a[0] && copy_out_obj(GADDR(a[0]), &now) < 0)
		return -EFAULT;
	return now;
}

SYSCALL(times)
{
	struct { int64_t utime, stime, cutime, cstime; } w;
	uint64_t user, sys;

	process_cpu_ns(t->tg, &user, &sys);
	w.utime = (int64_t)(user / TICK_NS);
	w.stime = (int64_t)(sys / TICK_NS);
	w.cutime = (int64_t)(t->tg->cutime_ns / TICK_NS);
	w.cstime = (int64_t)(t->tg->cstime_ns / TICK_NS);
	if (a[0] && copy_out_obj(GADDR(a[0]), &w) < 0)
		return -EFAULT;
	return (int64_t)(sched_now_boot() / TICK_NS);
}

// --- sleeping -----------------------------------------------------------------------------------

enum { RB_DEADLINE, RB_REMAIN };

static int64_t sleep_until(struct task *t);

// rem: where the rest goes when a handler ends the sleep; 0: nowhere (absolute sleeps).
static int64_t sleep_interrupted(struct task *t, nsec_t deadline, uint64_t rem)
{
	nsec_t now = sched_now();
	struct wire_timespec ts = wire_timespec(deadline > now ? deadline - now : 0);

	if (rem && copy_out_obj(GADDR(rem), &ts) < 0)
		return -EFAULT;
	t->restart.fn = sleep_until;
	t->restart.data[RB_DEADLINE] = deadline;
	t->restart.data[RB_REMAIN] = rem;
	return -ERESTART_RESTARTBLOCK;
}

static int64_t sleep_to(struct task *t, nsec_t deadline, uint64_t rem)
{
	int r = 0;

	while (r == 0)
		r = sched_sleep(WAIT_INTERRUPTIBLE, deadline);
	return r == -ETIMEDOUT ? 0 : sleep_interrupted(t, deadline, rem);
}

static int64_t sleep_until(struct task *t)
{
	return sleep_to(t, t->restart.data[RB_DEADLINE], t->restart.data[RB_REMAIN]);
}

static nsec_t deadline_in(uint64_t ns)
{
	nsec_t now = sched_now();

	return ns > NSEC_INFINITE - 1 - now ? NSEC_INFINITE - 1 : now + ns;
}

SYSCALL(nanosleep)
{
	struct wire_timespec ts;
	uint64_t ns;
	int r;

	if (copy_in_obj(&ts, GADDR(a[0])) < 0)
		return -EFAULT;
	r = wire_ns(&ts, &ns);
	return r < 0 ? r : sleep_to(t, deadline_in(ns), a[1]);
}

// CPU-time clocks: looked at again when the process can have used up the rest at the earliest.
static int64_t sleep_cpu(struct task *t, int clock, uint64_t until)
{
	uint64_t now, step;
	int r;

	for (;;) {
		r = clock_now(t, clock, &now);
		if (r < 0 || now >= until)
			return r;
		step = (until - now) / kernel_ncpus;
		r = sched_sleep(WAIT_INTERRUPTIBLE, deadline_in(MAX(step, 1000000UL)));
		if (r == -EINTR)
			return -ERESTARTNOHAND;
	}
}

SYSCALL(clock_nanosleep)
{
	int clock = arg_int(a[0]), flags = arg_int(a[1]), r;
	bool absolute = flags & TIMER_ABSTIME;
	struct wire_timespec ts;
	uint64_t ns, now;
	int64_t res;

	if (copy_in_obj(&ts, GADDR(a[2])) < 0)
		return -EFAULT;
	r = wire_ns(&ts, &ns);
	if (r == 0 && clock == CLOCK_THREAD_CPUTIME_ID)
		r = -EINVAL;
	if (r == 0)
		r = clock_now(t, clock, &now);
	if (r < 0)
		return r;
	if (clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW)
		return -EOPNOTSUPP;
	if (clock_is_cpu(clock))
		return sleep_cpu(t, clock, absolute ? ns : now + MIN(ns, (uint64_t)INT64_MAX));
	if (!absolute)
		return sleep_to(t, deadline_in(ns), a[3]);
	res = sleep_to(t, clock_deadline(clock, ns), 0);
	// An absolute sleep is simply asked for again.
	return res == -ERESTART_RESTARTBLOCK ? -ERESTARTNOHAND : res;
}

// --- interval timers ----------------------------------------------------------------------------

struct wire_itimerval {
	struct wire_timeval interval, value;
};

static int timeval_ns(const struct wire_timeval *tv, uint64_t *ret)
{
	struct wire_timespec ts;

	if (tv->usec < 0 || tv->usec >= 1000000)
		return -EINVAL;
	ts = (struct wire_timespec){tv->sec, tv->usec * 1000};
	return wire_ns(&ts, ret);
}

static int put_itimer(uint64_t addr, const struct itimer_value *v)
{
	struct wire_itimerval w = {.interval = wire_timeval(v->interval), .value = wire_timeval(v->value)};

	// What is left must not look like nothing.
	if (v->value && !w.value.sec && !w.value.usec)
		w.value.usec = 1;
	return copy_out_obj(GADDR(addr), &w);
}

SYSCALL(getitimer)
{
	struct itimer_value v;
	int which = arg_int(a[0]);

	if (which < ITIMER_REAL || which > ITIMER_PROF)
		return -EINVAL;
	itimer_get(t->tg, which, &v);
	return put_itimer(a[1], &v);
}

SYSCALL(setitimer)
{
	struct itimer_value v = {0, 0}, old;
	struct wire_itimerval w;
	int which = arg_int(a[0]), r = 0;

	if (a[1]) {
		if (copy_in_obj(&w, GADDR(a[1])) < 0)
			return -EFAULT;
		r = timeval_ns(&w.value, &v.value);
		if (r == 0)
			r = timeval_ns(&w.interval, &v.interval);
		if (r < 0)
			return r;
	}
	if (which < ITIMER_REAL || which > ITIMER_PROF)
		return -EINVAL;
	r = itimer_set(t->tg, which, &v, &old);
	if (r < 0 || !a[2])
		return r;
	return put_itimer(a[2], &old);
}

SYSCALL(alarm)
{
	struct itimer_value v = {(uint64_t)arg_uint(a[0]) * NSEC_PER_SEC, 0}, old;
	int r = itimer_set(t->tg, ITIMER_REAL, &v, &old);

	if (r < 0)
		return 0;
	// Rounded, but never to none while there is some.
	return (int64_t)((old.value + NSEC_PER_SEC / 2) / NSEC_PER_SEC) + (old.value && old.value < NSEC_PER_SEC / 2);
}

// --- POSIX timers -------------------------------------------------------------------------------

struct wire_sigevent {
	uint64_t value;
	int32_t signo, notify, tid, pad[11];
};
_Static_assert(sizeof(struct wire_sigevent) == 64, "struct sigevent");
#define NOTIFY_THREAD_ID 4

static int decode_sigevent(struct task *t, const struct wire_sigevent *w, struct ptimer_spec *s)
{
	s->notify = w->notify & ~NOTIFY_THREAD_ID;
	s->signo = w->signo;
	s->value = w->value;
	switch (w->notify) {
	case SIGEV_SIGNAL | NOTIFY_THREAD_ID:
		s->target = task_find(w->tid);
		if (!s->target || s->target->tg != t->tg)
			return -EINVAL;
		break;
	case SIGEV_SIGNAL:
	case SIGEV_THREAD:
		break;
	case SIGEV_NONE:
		s->signo = SIGALRM;
		return 0;
	default:
		return -EINVAL;
	}
	return w->signo > 0 && w->signo <= KNSIG ? 0 : -EINVAL;
}

SYSCALL(timer_create)
{
	struct ptimer_spec s = {.clock = arg_int(a[0]), .signo = SIGALRM, .value_is_id = !a[1]};
	struct wire_sigevent w;
	uint64_t now;
	int32_t id;
	int r;

	r = clock_now(t, s.clock, &now);
	if (r < 0)
		return r;
	if (s.clock == CLOCK_REALTIME_COARSE || s.clock == CLOCK_MONOTONIC_COARSE || s.clock == CLOCK_MONOTONIC_RAW)
		return -EOPNOTSUPP;
	if ((s.clock == CLOCK_REALTIME_ALARM || s.clock == CLOCK_BOOTTIME_ALARM) && !capable(CAP_WAKE_ALARM))
		return -EPERM;
	if (a[1]) {
		if (copy_in_obj(&w, GADDR(a[1])) < 0)
			return -EFAULT;
		r = decode_sigevent(t, &w, &s);
		if (r < 0)
			return r;
	}
	r = ptimer_create(t, &s, &id);
	if (r < 0)
		return r;
	if (copy_out_obj(GADDR(a[2]), &id) < 0) {
		ptimer_delete(t, id);
		return -EFAULT;
	}
	return 0;
}

static int put_itimerspec(uint64_t addr, const struct itimer_value *v)
{
	struct wire_itimerspec w = {.interval = wire_timespec(v->interval), .value = wire_timespec(v->value)};

	return copy_out_obj(GADDR(addr), &w);
}

SYSCALL(timer_settime)
{
	struct itimer_value v, old;
	struct wire_itimerspec w;
	int r;

	if (!a[2])
		return -EINVAL;
	if (copy_in_obj(&w, GADDR(a[2])) < 0)
		return -EFAULT;
	r = wire_ns(&w.value, &v.value);
	if (r == 0)
		r = wire_ns(&w.interval, &v.interval);
	if (r == 0)
		r = ptimer_set(t, arg_int(a[0]), a[1] & TIMER_ABSTIME, &v, &old);
	if (r < 0 || !a[3])
		return r;
	return put_itimerspec(a[3], &old);
}

SYSCALL(timer_gettime)
{
	struct itimer_value v;
	int r = ptimer_get(t, arg_int(a[0]), &v);

	return r < 0 ? r : put_itimerspec(a[1], &v);
}

SYSCALL(timer_getoverrun)
{
	return ptimer_overrun(t, arg_int(a[0]));
}

SYSCALL(timer_delete)
{
	return ptimer_delete(t, arg_int(a[0]));
}

// --- steering the clock -------------------------------------------------------------------------

// Reading is allowed (modes 0): the host's state is not shown, only that the clock is unsynchronised.
static int64_t do_adjtimex(uint64_t addr)
{
	uint8_t buf[208]; // struct timex
	uint32_t modes;
	int64_t v;

	if (copy_in_obj(&buf, GADDR(addr)) < 0)
		return -EFAULT;
	memcpy(&modes, buf, sizeof(modes));
	if (modes)
		return -EPERM;
	memset(buf, 0, sizeof(buf));
	v = 0x40; // status: STA_UNSYNC
	memcpy(buf + 40, &v, 4);
	v = 16000000; // maxerror, esterror
	memcpy(buf + 24, &v, 8);
	memcpy(buf + 32, &v, 8);
	v = 1; // precision
	memcpy(buf + 56, &v, 8);
	v = 32768000; // tolerance
	memcpy(buf + 64, &v, 8);
	struct wire_timeval tv = wire_timeval(sched_now_real());
	memcpy(buf + 72, &tv, sizeof(tv));
	v = 10000; // tick
	memcpy(buf + 88, &v, 8);
	return copy_out_obj(GADDR(addr), &buf) < 0 ? -EFAULT : 5; // TIME_ERROR
}

SYSCALL(adjtimex)
{
	return do_adjtimex(a[0]);
}

SYSCALL(clock_adjtime)
{
	uint64_t now;
	int r = clock_now(t, arg_int(a[0]), &now);

	if (r < 0)
		return r;
	return arg_int(a[0]) == CLOCK_REALTIME ? do_adjtimex(a[1]) : -EOPNOTSUPP;
}
