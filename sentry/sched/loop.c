// The loop. What is urgent comes first and costs least: run tasks, collect events of contexts. The
// clock, timers and descriptors are looked at every few microseconds of that ("tick"), and before
// sleeping.
#include <sys/prctl.h>
#include <x86intrin.h>

#include "platform/base/log.h"
#include "platform/platform.h"
#include "sentry/sched/internal.h"

#define TICK_CYCLES 30000    // between two looks at timers: about ten microseconds
#define EPOLL_EVERY_NS 50000 // between two looks at descriptors, while there is other work
#define SPIN_POLLS 16        // polls before the end of spinning is worth computing

int sched_init(const struct sched_config *cfg)
{
	int r;

	kassert(!sched_g.initialised);
	sched_g = (struct sched_state){.pf = cfg->pf, .virtual_clock = cfg->virtual_clock, .rng = cfg->seed,
				       .vnow = NSEC_PER_SEC, .tsc_per_us = 2000};
	TAILQ_INIT(&sched_g.rq);
	// Sleeps end when they should: the default slack would add 50 microseconds to each.
	if (prctl(PR_SET_TIMERSLACK, 1) < 0)
		log_warn("cannot set the timer slack: %s", strerror(errno));
	r = hostfd_init();
	if (r < 0)
		return r;
	r = hostwork_init(cfg->host_threads ? cfg->host_threads : 4);
	if (!r && cfg->pf && pf_poll_fd(cfg->pf) >= 0)
		r = hostfd_watch_platform(pf_poll_fd(cfg->pf));
	if (r < 0) {
		hostwork_fini();
		hostfd_fini();
		return r;
	}
	sched_g.tsc_origin = __rdtsc();
	sched_g.tsc_origin_ns = sched_now();
	sched_g.initialised = true;
	return 0;
}

void sched_fini(void)
{
	kassert(sched_g.initialised && !sched_g.current);
	hostwork_fini();
	hostfd_fini();
	timer_fini();
	kstack_fini();
	sched_g.initialised = false;
}

void sched_stop(int status)
{
	sched_g.status = status;
	sched_g.stop = true;
}

nsec_t sched_idle_ns(void)
{
	return sched_g.idle_ns;
}

static uint64_t rng_next(void)
{
	// xorshift64*: the seed is not 0
	sched_g.rng ^= sched_g.rng >> 12;
	sched_g.rng ^= sched_g.rng << 25;
	sched_g.rng ^= sched_g.rng >> 27;
	return sched_g.rng * 0x2545f4914f6cdd1dULL;
}

static struct sched_task *pick(void)
{
	struct sched_task *t = TAILQ_FIRST(&sched_g.rq);

	if (unlikely(sched_g.rng))
		for (uint64_t n = rng_next() % sched_g.nr_runnable; n > 0; n--)
			t = TAILQ_NEXT(t, rq);
	TAILQ_REMOVE(&sched_g.rq, t, rq);
	sched_g.nr_runnable--;
	return t;
}

static void run_tasks(void)
{
	// Those that become runnable meanwhile have their turn after the next look at the contexts.
	for (size_t n = sched_g.nr_runnable; n > 0 && !sched_g.stop; n--) {
		sched_switch_to(pick());
		sched_g.vnow++; // even a task that only yields sees time go by
		if (unlikely(sched_g.dead.task))
			sched_reap();
	}
}

// Looks at the clock, and at what depends on it.
static void tick(void)
{
	nsec_t now = sched_now(), us;

	sched_g.tick_tsc = __rdtsc();
	us = (now - sched_g.tsc_origin_ns) / 1000;
	if (us > 1000 && !sched_g.virtual_clock) {
		sched_g.tsc_per_us = MAX((sched_g.tick_tsc - sched_g.tsc_origin) / us, 1UL);
		if (us > 10000000) { // the two clocks need agree on the last seconds only
			sched_g.tsc_origin = sched_g.tick_tsc;
			sched_g.tsc_origin_ns = now;
		}
	}
	timer_run(now);
	if (now - sched_g.last_epoll >= EPOLL_EVERY_NS && hostfd_any()) {
		sched_g.last_epoll = now;
		hostfd_poll(0);
	}
}

static bool idle(void)
{
	return TAILQ_EMPTY(&sched_g.rq) && !sched_g.stop;
}

static bool poll_contexts(void)
{
	return sched_g.pf && pf_poll(sched_g.pf) > 0;
}

// Polls the contexts for as long as the platform thinks worth it. True: something happened.
static bool spin(void)
{
	uint64_t end = 0, now;

	if (!sched_g.pf)
		return false;
	for (unsigned i = 0;; i++) {
		if (pf_poll(sched_g.pf) > 0 || !idle())
			return true;
		if (i < SPIN_POLLS) {
			_mm_pause();
			continue;
		}
		now = __rdtsc();
		if (end == 0)
			end = now + pf_spin_ns(sched_g.pf) * sched_g.tsc_per_us / 1000;
		if (now >= end)
			return false;
		if (now - sched_g.tick_tsc > TICK_CYCLES) {
			tick();
			if (!idle())
				return true;
		}
		_mm_pause();
	}
}

static void sleep_until_next(void)
{
	nsec_t before;

	if (sched_g.pf && !pf_prepare_sleep(sched_g.pf))
		return;
	before = sched_now();
	if (timer_next() > before) {
		hostfd_poll(timer_next());
		sched_g.last_epoll = sched_now();
		sched_g.idle_ns += sched_g.last_epoll - before;
	}
	if (sched_g.pf)
		pf_woke(sched_g.pf);
}

// Nothing runs, so time may jump. False: nothing will ever happen.
static bool virtual_idle(void)
{
	nsec_t next;

	if (poll_contexts())
		return true;
	hostfd_poll(0);
	if (!idle())
		return true;
	next = timer_next();
	if (next == NSEC_INFINITE)
		return false;
	if (next > sched_g.vnow) {
		sched_g.idle_ns += next - sched_g.vnow;
		sched_g.vnow = next;
	}
	timer_run(sched_g.vnow);
	return true;
}

static int run_virtual(void)
{
	while (!sched_g.stop) {
		run_tasks();
		poll_contexts();
		timer_run(sched_g.vnow);
		if (idle() && !virtual_idle())
			return -EDEADLK;
	}
	return sched_g.status;
}

int sched_run(void)
{
	kassert(sched_g.initialised && !sched_g.current);
	sched_g.stop = false;
	if (sched_g.virtual_clock)
		return run_virtual();
	while (!sched_g.stop) {
		run_tasks();
		poll_contexts();
		if (__rdtsc() - sched_g.tick_tsc > TICK_CYCLES)
			tick();
		if (!idle() || spin())
			continue;
		tick();
		if (idle())
			sleep_until_next();
	}
	return sched_g.status;
}
