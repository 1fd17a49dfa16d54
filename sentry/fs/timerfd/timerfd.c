// An armed timer has the loop's timer running until it expires once. A periodic one that nobody reads
// costs nothing then: the periods that went by are counted when somebody asks.
#include "sentry/fs/timerfd/timerfd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "abi/linux/restart.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"

struct tfd {
	struct ktimer timer;
	struct waitq wq;
	LIST_ENTRY(tfd) link; // all that follow CLOCK_REALTIME
	int clockid;          // REALTIME, MONOTONIC or BOOTTIME; never changes
	int shown_clockid;
	bool alarm, canceled, cancel_on_set;
	bool armed;           // `next` means something
	bool expired;         // and has been reached
	int settime_flags;
	nsec_t next, interval; // next: of the timer's own clock
	uint64_t ticks;       // counted so far and not read
};
DEFINE_SLAB(tfd_slab, struct tfd);
static LIST_HEAD(, tfd) realtime_timers = LIST_HEAD_INITIALIZER(realtime_timers);
static const struct file_ops timerfd_fops;

static nsec_t clock_now(const struct tfd *t)
{
	switch (t->clockid) {
	case CLOCK_REALTIME:
		return sched_now_real();
	case CLOCK_BOOTTIME:
		return sched_now_boot();
	default:
		return sched_now();
	}
}

// When, on the loop's clock, the timer's own clock will show `next`.
static void tfd_start(struct tfd *t)
{
	nsec_t mono = sched_now(), now = clock_now(t), at = mono;

	t->expired = false;
	if (t->next > now && __builtin_add_overflow(mono, t->next - now, &at))
		at = NSEC_INFINITE - 1;
	if (ktimer_arm(&t->timer, at))
		log_err("timerfd: no memory to arm a timer");
}

static void tfd_fire(struct ktimer *kt)
{
	struct tfd *t = container_of(kt, struct tfd, timer);

	t->expired = true;
	t->ticks++;
	waitq_wake(&t->wq, EPOLLIN | EPOLLRDNORM);
}

// Counts the periods that have passed since a periodic timer expired, and starts it again.
static void tfd_forward(struct tfd *t)
{
	nsec_t now, n;

	if (!t->armed || !t->expired || !t->interval)
		return;
	now = clock_now(t);
	n = now >= t->next ? (now - t->next) / t->interval : 0;
	t->ticks += n;
	t->next += (n + 1) * t->interval;
	tfd_start(t);
}

// --- the host's clock is set -----------------------------------------------------------------------

static struct host_fd clock_watch = {.fd = -1};

static void clock_was_set(struct host_fd *h, uint32_t events)
{
	struct tfd *t;
	uint64_t n;

	// Reading makes the host's timer wait for the next jump.
	if (read(h->fd, &n, sizeof(n)) >= 0 || errno != ECANCELED)
		return;
	LIST_FOREACH(t, &realtime_timers, link) {
		if (!t->armed)
			continue;
		if (t->cancel_on_set) {
			t->canceled = true;
			t->ticks++;
			waitq_wake(&t->wq, EPOLLIN | EPOLLRDNORM);
		} else if (!t->expired) {
			tfd_start(t);
		}
	}
}

void timerfd_fs_init(void)
{
	struct itimerspec far = {.it_value.tv_sec = INT64_MAX / 1000000000 - 1};

	clock_watch.fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	clock_watch.fn = clock_was_set;
	if (clock_watch.fd < 0 ||
	    timerfd_settime(clock_watch.fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL) < 0 ||
	    host_fd_add(&clock_watch, EPOLLIN))
		log_warn("timerfd: jumps of the host's clock will not be seen");
}

// --- the file ----------------------------------------------------------------------------------------

static ssize_t tfd_read(struct file *f, struct uio *u, int64_t *pos)
{
	struct tfd *t = f->priv;
	uint64_t n;

	if (u->resid < sizeof(n))
		return -EINVAL;
	if (!t->ticks) {
		if (f->flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event(&t->wq, t->ticks))
			return -ERESTARTSYS;
	}
	if (t->canceled) {
		t->canceled = false;
		t->ticks = 0;
		return -ECANCELED;
	}
	tfd_forward(t);
	n = t->ticks;
	t->ticks = 0;
	return uio_put(u, &n, sizeof(n)) == sizeof(n) ? (ssize_t)sizeof(n) : -EFAULT;
}

static uint32_t tfd_poll(struct file *f, struct poll_table *pt)
{
	struct tfd *t = f->priv;

	if (pt)
		pt->queue(pt, &t->wq);
	return t->ticks ? EPOLLIN : 0;
}

static void tfd_release(struct file *f)
{
	struct tfd *t = f->priv;

	ktimer_cancel(&t->timer);
	if (t->clockid == CLOCK_REALTIME)
		LIST_REMOVE(t, link);
	slab_free(&tfd_slab, t);
}

static struct timespec to_timespec(nsec_t ns)
{
	return (struct timespec){(time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC)};
}

static void tfd_remaining(struct tfd *t, struct itimerspec *ret)
{
	nsec_t now;

	tfd_forward(t);
	now = clock_now(t);
	ret->it_interval = to_timespec(t->interval);
	ret->it_value = to_timespec(t->armed && !t->expired ? (t->next > now ? t->next - now : 1) : 0);
}

static void tfd_fdinfo(struct file *f, char *buf, size_t size)
{
	struct tfd *t = f->priv;
	struct itimerspec v;

	tfd_remaining(t, &v);
	snprintf(buf, size, "clockid: %d\nticks: %llu\nsettime flags: 0%o\nit_value: (%lld, %ld)\nit_interval: (%lld, %ld)\n",
		 t->shown_clockid, (unsigned long long)t->ticks, (unsigned)t->settime_flags, (long long)v.it_value.tv_sec, v.it_value.tv_nsec,
		 (long long)v.it_interval.tv_sec, v.it_interval.tv_nsec);
}

static const struct file_ops timerfd_fops = {
	.release = tfd_release,
	.read = tfd_read,
	.poll = tfd_poll,
	.show_fdinfo = tfd_fdinfo,
	.flags = FOP_STREAM,
};

int timerfd_create_file(int clockid, unsigned flags, struct file **ret)
{
	struct tfd *t;
	int base, r;

	switch (clockid) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_ALARM:
		base = CLOCK_REALTIME;
		break;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		base = CLOCK_BOOTTIME;
		break;
	case CLOCK_MONOTONIC:
		base = CLOCK_MONOTONIC;
		break;
	default:
		return -EINVAL;
	}
	t = SLAB_NEW(tfd_slab, struct tfd);
	if (!t)
		return -ENOMEM;
	ktimer_init(&t->timer, tfd_fire);
	waitq_init(&t->wq);
	t->clockid = base;
	t->shown_clockid = clockid;
	r = file_new_anon("anon_inode:[timerfd]", NULL, &timerfd_fops, O_RDWR | flags, t, ret);
	if (r) {
		slab_free(&tfd_slab, t);
		return r;
	}
	if (base == CLOCK_REALTIME)
		LIST_INSERT_HEAD(&realtime_timers, t, link);
	return 0;
}

static int to_nsec(const struct timespec *ts, nsec_t *ret)
{
	if (ts->tv_sec < 0 || ts->tv_nsec < 0 || ts->tv_nsec >= (long)NSEC_PER_SEC)
		return -EINVAL;
	// Beyond what 63 bits hold Linux stops counting, too.
	if ((uint64_t)ts->tv_sec >= INT64_MAX / NSEC_PER_SEC)
		*ret = INT64_MAX;
	else
		*ret = (nsec_t)ts->tv_sec * NSEC_PER_SEC + (nsec_t)ts->tv_nsec;
	return 0;
}

int timerfd_set(struct file *f, int flags, const struct itimerspec *new_value, struct itimerspec *ret_old)
{
	struct tfd *t = f->priv;
	struct itimerspec old;
	nsec_t value, interval;

	if (flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET) || to_nsec(&new_value->it_value, &value) ||
	    to_nsec(&new_value->it_interval, &interval) || f->ops != &timerfd_fops)
		return -EINVAL;
	tfd_remaining(t, &old);
	ktimer_cancel(&t->timer);
	t->ticks = 0;
	t->canceled = t->expired = false;
	t->settime_flags = flags;
	t->interval = interval;
	t->armed = value != 0;
	t->cancel_on_set = t->clockid == CLOCK_REALTIME && flags & TFD_TIMER_ABSTIME && flags & TFD_TIMER_CANCEL_ON_SET;
	if (t->armed) {
		t->next = value;
		if (!(flags & TFD_TIMER_ABSTIME) && __builtin_add_overflow(clock_now(t), value, &t->next))
			t->next = INT64_MAX;
		tfd_start(t);
	}
	*ret_old = old;
	return 0;
}

int timerfd_get(struct file *f, struct itimerspec *ret)
{
	if (f->ops != &timerfd_fops)
		return -EINVAL;
	tfd_remaining(f->priv, ret);
	return 0;
}
