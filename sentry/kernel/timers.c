#include "sentry/kernel/timers.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include "platform/base/checked.h"
#include "sentry/kernel/internal.h"
#include "sentry/kernel/sigmask.h"

#define CPU_POLL_MIN_NS 1000000ULL
#define PTIMERS_MAX 32768
#define OVERRUN_MAX INT32_MAX

struct cpu_timer {
	uint64_t expires, interval; // process CPU time; 0: off
};
struct ptimer {
	LIST_ENTRY(ptimer) link;
	struct thread_group *tg;
	int id, clock, notify;
	struct task *target; // counted; NULL: the process
	struct sigqueue *q;
	struct ktimer kt;
	uint64_t expires, interval; // in the clock's time; expires 0: disarmed
	uint64_t overrun, overrun_last;
};
struct itimers {
	struct thread_group *tg;
	struct ktimer real;
	uint64_t real_interval;
	struct ktimer cpu_tick;
	struct cpu_timer virt, prof;
	uint64_t xcpu_at; // when RLIMIT_CPU next matters; 0: never
	LIST_HEAD(, ptimer) posix;
	unsigned nposix;
	int next_id;
};
DEFINE_SLAB(slab_itimers, struct itimers);
DEFINE_SLAB(slab_ptimer, struct ptimer);

// How many intervals fit so that `expires` comes to lie after now.
static uint64_t forward(uint64_t *expires, uint64_t interval, uint64_t now)
{
	uint64_t n;

	if (!interval || *expires > now)
		return 0;
	n = (now - *expires) / interval + 1;
	if (!mul_u64(n, interval, &interval) || !add_u64(*expires, interval, expires))
		*expires = UINT64_MAX;
	return n;
}

// --- interval timers ----------------------------------------------------------------------------

static void real_fire(struct ktimer *kt)
{
	struct itimers *it = container_of(kt, struct itimers, real);
	nsec_t next = kt->deadline;

	signal_send_kernel(it->tg, SIGALRM);
	if (!it->real_interval)
		return;
	forward(&next, it->real_interval, sched_now());
	ktimer_arm(kt, next);
}

static void cpu_check(struct itimers *it, struct cpu_timer *c, int sig, uint64_t cpu)
{
	if (!c->expires || cpu < c->expires)
		return;
	signal_send_kernel(it->tg, sig);
	if (c->interval)
		forward(&c->expires, c->interval, cpu);
	else
		c->expires = 0;
}

static void xcpu_check(struct itimers *it, uint64_t cpu)
{
	uint64_t hard = it->tg->rlim.v[RLIMIT_CPU].max;

	if (!it->xcpu_at || cpu < it->xcpu_at)
		return;
	if (hard < UINT64_MAX / NSEC_PER_SEC && cpu >= hard * NSEC_PER_SEC) {
		tg_kill(it->tg, SIGKILL);
		return;
	}
	signal_send_kernel(it->tg, SIGXCPU);
	it->xcpu_at += NSEC_PER_SEC;
}

static void cpu_rearm(struct itimers *it, uint64_t cpu)
{
	uint64_t next = UINT64_MAX, left;
	unsigned n = it->tg->live_threads;

	if (it->virt.expires)
		next = MIN(next, it->virt.expires);
	if (it->prof.expires)
		next = MIN(next, it->prof.expires);
	if (it->xcpu_at)
		next = MIN(next, it->xcpu_at);
	if (next == UINT64_MAX) {
		ktimer_cancel(&it->cpu_tick);
		return;
	}
	left = (next > cpu ? next - cpu : 0) / (n ? n : 1);
	ktimer_arm(&it->cpu_tick, sched_now() + MAX(left, CPU_POLL_MIN_NS));
}

static void cpu_fire(struct ktimer *kt)
{
	struct itimers *it = container_of(kt, struct itimers, cpu_tick);
	uint64_t cpu = tg_cpu_ns(it->tg);

	cpu_check(it, &it->virt, SIGVTALRM, cpu);
	cpu_check(it, &it->prof, SIGPROF, cpu);
	xcpu_check(it, cpu);
	cpu_rearm(it, cpu);
}

static struct itimers *itimers_of(struct thread_group *tg)
{
	struct itimers *it = tg->itimers;

	if (it)
		return it;
	it = SLAB_NEW(slab_itimers, struct itimers);
	if (!it)
		return NULL;
	it->tg = tg;
	LIST_INIT(&it->posix);
	ktimer_init(&it->real, real_fire);
	ktimer_init(&it->cpu_tick, cpu_fire);
	tg->itimers = it;
	return it;
}

static void real_get(const struct itimers *it, struct itimer_value *ret)
{
	nsec_t now = sched_now();

	ret->interval = it->real_interval;
	ret->value = 0;
	if (it->real.heap_index)
		ret->value = it->real.deadline > now ? it->real.deadline - now : 1000;
}

static void cpu_get(const struct itimers *it, const struct cpu_timer *c, struct itimer_value *ret)
{
	uint64_t cpu = c->expires ? tg_cpu_ns(it->tg) : 0;

	ret->interval = c->interval;
	ret->value = c->expires ? (c->expires > cpu ? c->expires - cpu : 1000) : 0;
}

void itimer_get(struct thread_group *tg, int which, struct itimer_value *ret)
{
	const struct itimers *it = tg->itimers;

	*ret = (struct itimer_value){0, 0};
	if (!it)
		return;
	if (which == ITIMER_REAL)
		real_get(it, ret);
	else
		cpu_get(it, which == ITIMER_VIRTUAL ? &it->virt : &it->prof, ret);
}

int itimer_set(struct thread_group *tg, int which, const struct itimer_value *v, struct itimer_value *ret_old)
{
	struct itimers *it = itimers_of(tg);
	struct cpu_timer *c;
	uint64_t cpu, at;

	if (!it)
		return -ENOMEM;
	if (ret_old)
		itimer_get(tg, which, ret_old);
	if (which == ITIMER_REAL) {
		it->real_interval = v->interval;
		if (!v->value) {
			ktimer_cancel(&it->real);
			return 0;
		}
		return ktimer_arm(&it->real, add_u64(sched_now(), v->value, &at) ? at : NSEC_INFINITE - 1);
	}
	c = which == ITIMER_VIRTUAL ? &it->virt : &it->prof;
	cpu = tg_cpu_ns(tg);
	c->interval = v->interval;
	c->expires = v->value ? (add_u64(cpu, v->value, &at) ? at : UINT64_MAX - 1) : 0;
	cpu_rearm(it, cpu);
	return 0;
}

void rlimit_cpu_changed(struct thread_group *tg)
{
	uint64_t soft = tg->rlim.v[RLIMIT_CPU].cur;
	struct itimers *it;

	// Limits of a process that is over can be set until it is reaped; it has no timers any more.
	if (tg->live_threads == 0 || (!tg->itimers && soft == RLIM_INFINITY))
		return;
	it = itimers_of(tg);
	if (!it)
		return;
	it->xcpu_at = soft < UINT64_MAX / NSEC_PER_SEC ? MAX(soft, 1UL) * NSEC_PER_SEC : 0;
	cpu_rearm(it, tg_cpu_ns(tg));
}

// --- clocks -------------------------------------------------------------------------------------

// Clock ids of other processes and threads: ~pid << 3 | thread << 2 | kind
#define CLOCK_IS_PER_THREAD(c) ((c) & 4)
#define CLOCK_PID(c) (~((c) >> 3))

bool clock_is_cpu(int clock)
{
	return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

uint64_t task_cpu_ns(struct task *t)
{
	if (t->tg->live_threads <= 1)
		return tg_cpu_ns(t->tg);
	return t->cpu_ns_done + (t->ctx ? pf_ctx_cpu_ns(t->ctx) : 0);
}

static int cpu_clock_now(struct task *t, int clock, uint64_t *ret)
{
	struct task *o = t;
	int32_t pid;

	if (clock < 0) {
		if ((clock & 3) == 3)
			return -EINVAL; // a dynamic clock: a descriptor of a device
		pid = CLOCK_PID(clock);
		if (pid)
			o = task_find(pid);
		if (!o || (CLOCK_IS_PER_THREAD(clock) ? o->tg != t->tg : o != o->tg->leader))
			return -EINVAL;
	}
	if (clock == CLOCK_THREAD_CPUTIME_ID || (clock < 0 && CLOCK_IS_PER_THREAD(clock)))
		*ret = task_cpu_ns(o);
	else
		*ret = tg_cpu_ns(o->tg);
	return 0;
}

int clock_now(struct task *t, int clock, uint64_t *ret)
{
	struct timespec ts;

	if (clock_is_cpu(clock))
		return cpu_clock_now(t, clock, ret);
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
	case CLOCK_REALTIME_ALARM:
		*ret = sched_now_real();
		return 0;
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_COARSE:
		*ret = sched_now();
		return 0;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM:
		*ret = sched_now_boot();
		return 0;
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_TAI:
		clock_gettime(clock, &ts);
		*ret = (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
		return 0;
	default:
		return -EINVAL;
	}
}

int clock_resolution(struct task *t, int clock, uint64_t *ret)
{
	uint64_t now;
	int r = clock_now(t, clock, &now);

	if (r == 0)
		*ret = clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE ? 4000000 : 1;
	return r;
}

nsec_t clock_deadline(int clock, uint64_t abs_ns)
{
	uint64_t base, now = sched_now(), at;

	if (clock == CLOCK_MONOTONIC)
		return abs_ns;
	if (clock_now(NULL, clock, &base) < 0)
		base = now;
	if (abs_ns <= base)
		return now;
	return add_u64(now, abs_ns - base, &at) ? at : NSEC_INFINITE - 1;
}

// --- POSIX timers -------------------------------------------------------------------------------

static struct ptimer *ptimer_find(struct thread_group *tg, int id)
{
	struct ptimer *p;

	if (!tg->itimers)
		return NULL;
	LIST_FOREACH(p, &tg->itimers->posix, link)
		if (p->id == id)
			return p;
	return NULL;
}

static uint64_t ptimer_now(const struct ptimer *p)
{
	uint64_t now;

	return clock_now(p->target ? p->target : p->tg->leader, p->clock, &now) < 0 ? 0 : now;
}

static void ptimer_arm(struct ptimer *p)
{
	uint64_t now, left;

	if (!p->expires) {
		ktimer_cancel(&p->kt);
	} else if (!clock_is_cpu(p->clock)) {
		ktimer_arm(&p->kt, clock_deadline(p->clock, p->expires));
	} else {
		now = ptimer_now(p);
		left = (p->expires > now ? p->expires - now : 0) / (p->tg->live_threads ? p->tg->live_threads : 1);
		ktimer_arm(&p->kt, sched_now() + MAX(left, CPU_POLL_MIN_NS));
	}
}

static void ptimer_fire(struct ktimer *kt)
{
	struct ptimer *p = container_of(kt, struct ptimer, kt);
	uint64_t now;

	if (clock_is_cpu(p->clock)) {
		now = ptimer_now(p);
		if (now < p->expires) {
			ptimer_arm(p);
			return;
		}
	}
	if (p->notify == SIGEV_NONE || p->q->queued)
		return;
	p->overrun = 0;
	// The next period starts when the signal is delivered; when it is ignored, at once.
	if (!signal_send_timer(p->tg, p->target, p->q)) {
		if (p->interval) {
			forward(&p->expires, p->interval, ptimer_now(p));
			ptimer_arm(p);
		} else {
			p->expires = 0;
		}
	}
}

void posix_timer_delivered(struct thread_group *tg, struct ksiginfo *info)
{
	struct ptimer *p = info->timer;
	uint64_t n;

	info->timer = NULL;
	if (p->expires && p->interval) {
		n = forward(&p->expires, p->interval, ptimer_now(p));
		p->overrun = n ? n - 1 : 0;
		ptimer_arm(p);
	} else {
		p->expires = 0;
	}
	p->overrun_last = MIN(p->overrun, (uint64_t)OVERRUN_MAX);
	info->status = (int)p->overrun_last;
}

static void ptimer_free(struct ptimer *p)
{
	ktimer_cancel(&p->kt);
	signal_unqueue_timer(p->tg, p->q);
	p->q->timer = NULL;
	sigqueue_free(p->q);
	if (p->target)
		task_put(p->target);
	LIST_REMOVE(p, link);
	p->tg->itimers->nposix--;
	slab_free(&slab_ptimer, p);
}

int ptimer_create(struct task *t, const struct ptimer_spec *s, int *ret_id)
{
	struct itimers *it = itimers_of(t->tg);
	struct ptimer *p;

	if (!it)
		return -ENOMEM;
	if (it->nposix >= PTIMERS_MAX)
		return -EAGAIN;
	p = SLAB_NEW(slab_ptimer, struct ptimer);
	if (!p)
		return -EAGAIN;
	p->q = sigqueue_new(t, false);
	if (!p->q) {
		slab_free(&slab_ptimer, p);
		return -EAGAIN;
	}
	p->tg = t->tg;
	do {
		p->id = it->next_id;
		it->next_id = it->next_id == INT32_MAX ? 0 : it->next_id + 1;
	} while (ptimer_find(t->tg, p->id));
	p->clock = s->clock;
	p->notify = s->notify;
	p->target = s->target ? task_get(s->target) : NULL;
	if (!p->target && s->clock == CLOCK_THREAD_CPUTIME_ID)
		p->target = task_get(t);
	p->q->timer = p;
	p->q->info = (struct ksiginfo){.signo = s->signo, .code = SI_TIMER, .timerid = p->id,
				       .value = s->value_is_id ? (uint64_t)p->id : s->value};
	ktimer_init(&p->kt, ptimer_fire);
	LIST_INSERT_HEAD(&it->posix, p, link);
	it->nposix++;
	*ret_id = p->id;
	return 0;
}

static void ptimer_left(const struct ptimer *p, struct itimer_value *ret)
{
	uint64_t now, at = p->expires;

	*ret = (struct itimer_value){0, p->interval};
	if (!at)
		return;
	now = ptimer_now(p);
	forward(&at, p->interval, now);
	if (at > now)
		ret->value = at - now;
	else
		ret->value = p->notify == SIGEV_NONE ? 0 : 1;
}

int ptimer_set(struct task *t, int id, bool absolute, const struct itimer_value *v, struct itimer_value *ret_old)
{
	struct ptimer *p = ptimer_find(t->tg, id);
	uint64_t at = 0;

	if (!p)
		return -EINVAL;
	if (ret_old)
		ptimer_left(p, ret_old);
	signal_unqueue_timer(p->tg, p->q);
	if (v->value) {
		at = v->value;
		if (!absolute && !add_u64(ptimer_now(p), v->value, &at))
			at = UINT64_MAX;
	}
	p->expires = at;
	p->interval = v->value ? v->interval : 0;
	p->overrun = p->overrun_last = 0;
	ptimer_arm(p);
	return 0;
}

int ptimer_get(struct task *t, int id, struct itimer_value *ret)
{
	struct ptimer *p = ptimer_find(t->tg, id);

	if (!p)
		return -EINVAL;
	ptimer_left(p, ret);
	return 0;
}

int ptimer_overrun(struct task *t, int id)
{
	struct ptimer *p = ptimer_find(t->tg, id);

	return p ? (int)p->overrun_last : -EINVAL;
}

int ptimer_delete(struct task *t, int id)
{
	struct ptimer *p = ptimer_find(t->tg, id);

	if (!p)
		return -EINVAL;
	ptimer_free(p);
	return 0;
}

// --- ends ---------------------------------------------------------------------------------------

void itimers_exec(struct thread_group *tg)
{
	if (tg->itimers)
		while (!LIST_EMPTY(&tg->itimers->posix))
			ptimer_free(LIST_FIRST(&tg->itimers->posix));
}

void itimers_exit(struct thread_group *tg)
{
	struct itimers *it = tg->itimers;

	if (!it)
		return;
	itimers_exec(tg);
	ktimer_cancel(&it->real);
	ktimer_cancel(&it->cpu_tick);
	tg->itimers = NULL;
	slab_free(&slab_itimers, it);
}
