// The scheduler: tasks, wait queues, timers, locks, host work; then seeded simulations in which all
// of them run against each other, and against contexts of the fake platform.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "platform/base/base.h"
#include "platform/base/slab.h"
#include "platform/fake/fake.h"
#include "sentry/sched/sched.h"

#define MS 1000000ULL

static void start(bool virtual_clock, uint64_t seed, struct platform *pf)
{
	struct sched_config cfg = {.virtual_clock = virtual_clock, .seed = seed, .host_threads = 3, .pf = pf};

	assert_int_equal(sched_init(&cfg), 0);
}

static void count_live(const char *name, uint32_t live, void *arg)
{
	*(uint32_t *)arg += live;
}

static void finish(void)
{
	uint32_t live = 0;

	sched_fini();
	slab_report(count_live, &live);
	assert_int_equal(live, 0);
}

// --- tasks --------------------------------------------------------------------------------------

struct counter {
	int n, dead;
	struct waitq wq;
};

static void on_dead(void *arg)
{
	struct counter *c = arg;

	assert_null(sched_current());
	c->dead++;
}

static void yielder(void *arg)
{
	struct counter *c = arg;
	volatile char stack[20000]; // most of a stack can be used

	for (int i = 0; i < 10; i++) {
		stack[i * 2000] = (char)i;
		c->n++;
		sched_yield_cpu();
		assert_int_equal(stack[i * 2000], i);
	}
	sched_exit(on_dead, c);
}

static void spawner(void *arg)
{
	struct counter *c = arg;
	struct sched_task t[20] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(sched_spawn(&t[i], "child", yielder, c), 0);
	while (c->dead < (int)ARRAY_SIZE(t))
		sched_yield_cpu();
	sched_stop(42);
}

static void test_spawn(void **state)
{
	struct counter c = {0};
	struct sched_task t = {0};

	start(true, 0, NULL);
	assert_int_equal(sched_spawn(&t, "spawner", spawner, &c), 0);
	assert_int_equal(sched_run(), 42);
	assert_int_equal(c.n, 200);
	finish();
}

// Unfinished tasks do not leak their stacks, and a system without a future says so.
static void blocked_forever(void *arg)
{
	struct counter *c = arg;

	waitq_sleep(&c->wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	c->n++;
}

static void test_deadlock(void **state)
{
	struct counter c = {0};
	struct sched_task t[3] = {0};

	waitq_init(&c.wq);
	start(true, 7, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sched_spawn(&t[i], "blocked", blocked_forever, &c), 0);
	assert_int_equal(sched_run(), -EDEADLK);
	assert_int_equal(c.n, 0);
	finish();
}

// --- sleeping -----------------------------------------------------------------------------------

struct sleeper {
	struct sched_task t;
	struct waitq *wq;
	enum wait_mode mode;
	nsec_t timeout;
	bool exclusive;
	int result;
	nsec_t took;
	bool done;
};

static void sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	nsec_t begin = sched_now();
	nsec_t deadline = s->timeout == NSEC_INFINITE ? NSEC_INFINITE : begin + s->timeout;

	s->result = s->exclusive ? waitq_sleep_exclusive(s->wq, s->mode, deadline)
				 : waitq_sleep(s->wq, s->mode, deadline);
	s->took = sched_now() - begin;
	s->done = true;
}

static void sleeper_start(struct sleeper *s, struct waitq *wq, enum wait_mode mode, nsec_t timeout)
{
	*s = (struct sleeper){.wq = wq, .mode = mode, .timeout = timeout};
	assert_int_equal(sched_spawn(&s->t, "sleeper", sleeper_main, s), 0);
}

static void let_others(void)
{
	for (int i = 0; i < 50; i++)
		sched_yield_cpu();
}

static void sleep_main(void *arg)
{
	struct sleeper a, b, c, d;
	struct waitq wq;

	waitq_init(&wq);
	// Deadlines.
	sleeper_start(&a, &wq, WAIT_UNINTERRUPTIBLE, 5 * MS);
	while (!a.done)
		waitq_sleep(&wq, WAIT_UNINTERRUPTIBLE, sched_now() + MS);
	assert_int_equal(a.result, -ETIMEDOUT);
	assert_in_range(a.took, 5 * MS, 7 * MS);
	assert_true(waitq_empty(&wq));
	// Interruption ends the interruptible wait only, a kill all but the uninterruptible one.
	sleeper_start(&a, &wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	sleeper_start(&b, &wq, WAIT_KILLABLE_ONLY, NSEC_INFINITE);
	sleeper_start(&c, &wq, WAIT_UNINTERRUPTIBLE, NSEC_INFINITE);
	let_others();
	sched_interrupt(&a.t);
	sched_interrupt(&b.t);
	sched_interrupt(&c.t);
	let_others();
	assert_true(a.done && a.result == -EINTR);
	assert_false(b.done || c.done);
	sched_kill(&b.t);
	sched_kill(&c.t);
	let_others();
	assert_true(b.done && b.result == -EINTR);
	assert_false(c.done);
	waitq_wake(&wq, EPOLLIN);
	let_others();
	assert_true(c.done && c.result == 0);
	assert_true(waitq_empty(&wq));
	// Of exclusive waiters one wakes, of the others all.
	sleeper_start(&a, &wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	sleeper_start(&b, &wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	a.exclusive = b.exclusive = true;
	let_others();
	sleeper_start(&c, &wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	sleeper_start(&d, &wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE);
	let_others();
	waitq_wake(&wq, 0);
	let_others();
	assert_true(c.done && d.done);
	assert_int_equal(a.done + b.done, 1);
	waitq_wake_all(&wq, 0);
	let_others();
	assert_true(a.done && b.done);
	// A flag that is set already: no wait at all.
	sched_interrupt(sched_current());
	assert_int_equal(waitq_sleep(&wq, WAIT_INTERRUPTIBLE, NSEC_INFINITE), -EINTR);
	assert_int_equal(waitq_sleep(&wq, WAIT_KILLABLE_ONLY, sched_now() + MS), -ETIMEDOUT);
	sched_clear_interrupt(sched_current());
	assert_int_equal(waitq_sleep(&wq, WAIT_INTERRUPTIBLE, sched_now()), -ETIMEDOUT);
	sched_stop(0);
}

static void test_sleep(void **state)
{
	struct sched_task t = {0};

	for (uint64_t seed = 0; seed < 20; seed++) {
		start(true, seed, NULL);
		assert_int_equal(sched_spawn(&t, "main", sleep_main, NULL), 0);
		assert_int_equal(sched_run(), 0);
		finish();
	}
}

// A wake-up between queueing and sleeping is not lost, even if the task waits elsewhere meanwhile.
static void waker_main(void *arg)
{
	waitq_wake(arg, EPOLLIN);
}

static void poll_main(void *arg)
{
	struct waitq wq[3], other;
	struct wait_entry e[3];
	struct sched_task waker = {0};

	waitq_init(&other);
	for (int i = 0; i < 3; i++) {
		waitq_init(&wq[i]);
		wait_entry_task(&e[i], EPOLLIN);
		waitq_add(&wq[i], &e[i]);
	}
	assert_int_equal(sched_spawn(&waker, "waker", waker_main, &wq[1]), 0);
	while (waitq_sleep(&other, WAIT_INTERRUPTIBLE, sched_now() + MS) != -ETIMEDOUT)
		;
	assert_int_equal(sched_sleep(WAIT_INTERRUPTIBLE, sched_now() + MS), 0);
	assert_int_equal(sched_sleep(WAIT_INTERRUPTIBLE, sched_now() + MS), -ETIMEDOUT);
	waitq_wake(&wq[0], EPOLLOUT); // not what it wants
	assert_int_equal(sched_sleep(WAIT_INTERRUPTIBLE, sched_now() + MS), -ETIMEDOUT);
	for (int i = 0; i < 3; i++) {
		waitq_remove(&e[i]);
		waitq_remove(&e[i]);
		assert_true(waitq_empty(&wq[i]));
	}
	sched_stop(0);
}

static void test_poll(void **state)
{
	struct sched_task t = {0};

	start(true, 0, NULL);
	assert_int_equal(sched_spawn(&t, "main", poll_main, NULL), 0);
	assert_int_equal(sched_run(), 0);
	finish();
}

// A wake function that removes other entries, those to come included.
static struct wait_entry chaos[40];
static unsigned chaos_calls;

static bool chaos_wake(struct wait_entry *e, uint32_t events)
{
	size_t i = (size_t)(e - chaos);

	chaos_calls++;
	for (size_t k = 1; k < 4; k++)
		waitq_remove(&chaos[(i * 7 + k * 13) % ARRAY_SIZE(chaos)]);
	return true;
}

static void test_wake_removes(void **state)
{
	struct waitq wq;

	waitq_init(&wq);
	for (size_t i = 0; i < ARRAY_SIZE(chaos); i++) {
		chaos[i] = (struct wait_entry){.wake = chaos_wake, .exclusive = i % 3 == 0};
		waitq_add(&wq, &chaos[i]);
	}
	for (int i = 0; i < 200 && !waitq_empty(&wq); i++) {
		if (i & 1)
			waitq_wake(&wq, 0);
		else
			waitq_wake_all(&wq, 0);
	}
	assert_true(chaos_calls > 0);
	for (size_t i = 0; i < ARRAY_SIZE(chaos); i++)
		waitq_remove(&chaos[i]);
	assert_true(waitq_empty(&wq));
	assert_null(wq.first_excl);
}

// --- timers -------------------------------------------------------------------------------------

#define NT 200
static struct ktimer timers[NT];
static nsec_t last_fired;
static unsigned nr_fired;

static void timer_fn(struct ktimer *t)
{
	assert_true(t->deadline >= last_fired && t->deadline <= sched_now());
	last_fired = t->deadline;
	nr_fired++;
	if (nr_fired == NT / 2)
		sched_stop(0);
}

static void test_timers(void **state)
{
	uint32_t x = 12345;

	start(true, 0, NULL);
	last_fired = nr_fired = 0;
	for (int i = 0; i < NT; i++) {
		ktimer_init(&timers[i], timer_fn);
		assert_int_equal(ktimer_arm(&timers[i], 1), 0);
	}
	for (int i = 0; i < NT; i++) { // re-arm all, cancel every other
		x = x * 1664525 + 1013904223;
		assert_int_equal(ktimer_arm(&timers[i], sched_now() + x % 1000 * MS), 0);
	}
	for (int i = 0; i < NT; i += 2) {
		ktimer_cancel(&timers[i]);
		ktimer_cancel(&timers[i]);
		assert_int_equal(timers[i].heap_index, 0);
	}
	assert_int_equal(sched_run(), 0);
	assert_int_equal(nr_fired, NT / 2);
	finish();
}

// --- the real loop ------------------------------------------------------------------------------

struct real {
	struct host_fd h;
	int efd;
	unsigned events;
	bool busy_done;
};

static void real_event(struct host_fd *h, uint32_t events)
{
	struct real *r = h->arg;
	uint64_t n;

	assert_int_equal(read(h->fd, &n, sizeof(n)), 8);
	r->events++;
}

static void busy_main(void *arg)
{
	struct real *r = arg;
	nsec_t end = sched_now() + 20 * MS;

	while (sched_now() < end)
		cond_resched();
	r->busy_done = true;
}

struct work {
	struct host_work w;
	int ms, ran;
};

static void work_fn(struct host_work *w)
{
	struct work *k = container_of(w, struct work, w);
	struct timespec ts = {.tv_nsec = k->ms * 1000000L};

	nanosleep(&ts, NULL);
	k->ran++;
}

static void work_main(void *arg)
{
	struct counter *c = arg;

	for (int i = 0; i < 5; i++) {
		struct work k = {.w.fn = work_fn, .ms = i};

		host_work_run(&k.w);
		assert_int_equal(k.ran, 1);
	}
	c->n++;
}

static void real_main(void *arg)
{
	struct real *r = arg;
	struct sched_task busy = {0}, workers[8] = {{.runnable = false}};
	struct counter c = {0};
	struct waitq wq;
	uint64_t one = 1;
	nsec_t begin, idle;

	waitq_init(&wq);
	begin = sched_now();
	idle = sched_idle_ns();
	assert_int_equal(waitq_sleep(&wq, WAIT_INTERRUPTIBLE, begin + 10 * MS), -ETIMEDOUT);
	assert_in_range(sched_now() - begin, 10 * MS, 30 * MS);
	assert_true(sched_idle_ns() - idle >= 8 * MS);
	// Timers and descriptors are served while another task keeps the CPU busy.
	assert_int_equal(sched_spawn(&busy, "busy", busy_main, r), 0);
	begin = sched_now();
	assert_int_equal(write(r->efd, &one, 8), 8);
	assert_int_equal(waitq_sleep(&wq, WAIT_INTERRUPTIBLE, begin + 2 * MS), -ETIMEDOUT);
	assert_false(r->busy_done);
	assert_int_equal(r->events, 1);
	while (!r->busy_done)
		sched_yield_cpu();
	for (size_t i = 0; i < ARRAY_SIZE(workers); i++)
		assert_int_equal(sched_spawn(&workers[i], "worker", work_main, &c), 0);
	while (c.n < (int)ARRAY_SIZE(workers))
		waitq_sleep(&wq, WAIT_INTERRUPTIBLE, sched_now() + MS);
	host_fd_remove(&r->h);
	sched_stop(3);
}

static void test_real(void **state)
{
	struct real r = {.efd = eventfd(0, EFD_CLOEXEC)};
	struct sched_task t = {0};

	start(false, 0, NULL);
	r.h = (struct host_fd){.fd = r.efd, .fn = real_event, .arg = &r};
	assert_int_equal(host_fd_add(&r.h, EPOLLIN), 0);
	assert_int_equal(sched_spawn(&t, "real", real_main, &r), 0);
	assert_int_equal(sched_run(), 3);
	close(r.efd);
	finish();
}

// --- simulation ---------------------------------------------------------------------------------

// Pairs pass bytes through one-slot pipes; others fight over a lock that they keep across sleeps;
// some are interrupted at odd times. Every byte must arrive, in order, under any schedule.
enum { PAIRS = 6, LOCKERS = 5, ROUNDS = 20 };

struct slot {
	struct waitq rd, wr;
	int value; // 0: empty
};
struct sim {
	struct slot slots[PAIRS];
	struct sched_task prod[PAIRS], cons[PAIRS], lock[LOCKERS], bother;
	struct klock l;
	int inside, left;
	uint64_t trace; // a hash of what happened: equal seeds, equal traces
	uint64_t rng;
};
static struct sim sim;

static uint64_t sim_rand(void)
{
	sim.rng = sim.rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return sim.rng >> 33;
}

static void note(uint64_t what)
{
	sim.trace = (sim.trace ^ what) * 0x100000001b3ULL;
}

static void sim_done(void *arg)
{
	if (--sim.left == 0)
		sched_stop(0);
}

static void producer(void *arg)
{
	struct slot *s = arg;

	for (int i = 1; i <= ROUNDS; i++) {
		while (wait_event(&s->wr, s->value == 0) == -EINTR)
			sched_clear_interrupt(sched_current());
		s->value = i;
		note((uint64_t)(s - sim.slots) << 8 | (uint64_t)i);
		waitq_wake(&s->rd, EPOLLIN);
		if (sim_rand() % 4 == 0)
			sched_yield_cpu();
	}
	sched_exit(sim_done, NULL);
}

static void consumer(void *arg)
{
	struct slot *s = arg;

	for (int i = 1; i <= ROUNDS; i++) {
		nsec_t deadline = sim_rand() % 2 ? sched_now() + sim_rand() % 1000 : NSEC_INFINITE;
		int r;

		while ((r = wait_event_until(&s->rd, s->value != 0, WAIT_INTERRUPTIBLE, deadline)) != 0) {
			assert_true(r == -EINTR || r == -ETIMEDOUT);
			sched_clear_interrupt(sched_current());
			if (r == -ETIMEDOUT)
				deadline = NSEC_INFINITE;
		}
		assert_int_equal(s->value, i);
		s->value = 0;
		waitq_wake(&s->wr, EPOLLOUT);
	}
	sched_exit(sim_done, NULL);
}

static void locker(void *arg)
{
	struct waitq wq;

	waitq_init(&wq);
	for (int i = 0; i < ROUNDS; i++) {
		klock_lock(&sim.l);
		assert_int_equal(sim.inside, 0);
		sim.inside = 1;
		note(0x1000 + (uint64_t)(uintptr_t)arg);
		if (sim_rand() % 2)
			sched_yield_cpu();
		else
			waitq_sleep(&wq, WAIT_INTERRUPTIBLE, sched_now() + sim_rand() % 100);
		sched_clear_interrupt(sched_current());
		sim.inside = 0;
		klock_unlock(&sim.l);
		if (sim_rand() % 3 == 0)
			sched_yield_cpu();
	}
	sched_exit(sim_done, NULL);
}

static void botherer(void *arg)
{
	struct waitq wq;

	waitq_init(&wq);
	for (;;) {
		struct sched_task *t;

		switch (sim_rand() % 3) {
		case 0:
			t = &sim.prod[sim_rand() % PAIRS];
			break;
		case 1:
			t = &sim.cons[sim_rand() % PAIRS];
			break;
		default:
			t = &sim.lock[sim_rand() % LOCKERS];
		}
		if (!t->dead) {
			sched_interrupt(t);
			if (sim_rand() % 2)
				sched_wake(t); // spurious
		}
		waitq_sleep(&wq, WAIT_UNINTERRUPTIBLE, sched_now() + sim_rand() % 300);
	}
}

static uint64_t simulate(uint64_t seed)
{
	memset(&sim, 0, sizeof(sim));
	sim.rng = seed * 77 + 1;
	sim.left = PAIRS * 2 + LOCKERS;
	klock_init(&sim.l);
	start(true, seed, NULL);
	for (int i = 0; i < PAIRS; i++) {
		waitq_init(&sim.slots[i].rd);
		waitq_init(&sim.slots[i].wr);
		assert_int_equal(sched_spawn(&sim.prod[i], "prod", producer, &sim.slots[i]), 0);
		assert_int_equal(sched_spawn(&sim.cons[i], "cons", consumer, &sim.slots[i]), 0);
	}
	for (int i = 0; i < LOCKERS; i++)
		assert_int_equal(sched_spawn(&sim.lock[i], "lock", locker, (void *)(uintptr_t)i), 0);
	assert_int_equal(sched_spawn(&sim.bother, "bother", botherer, NULL), 0);
	assert_int_equal(sched_run(), 0);
	finish();
	return sim.trace;
}

static void test_simulation(void **state)
{
	uint64_t first = simulate(1), differ = 0;

	assert_true(simulate(1) == first);
	for (uint64_t seed = 2; seed < 2000; seed++)
		differ += simulate(seed) != first;
	assert_true(differ > 1900);
}

// --- contexts -----------------------------------------------------------------------------------

enum { GUESTS = 4, CALLS = 50 };

struct guest {
	struct sched_task t;
	struct pf_ctx *ctx;
	struct pf_as *as;
	uint64_t sum;
	unsigned calls;
	struct platform *pf;
};
static unsigned guests_left;

static struct pf_event guest_step(void *arg, struct pf_ctx *ctx, int64_t last)
{
	struct guest *g = arg;

	if (g->calls > 0)
		assert_int_equal(last, (int64_t)g->calls * 3);
	if (g->calls == CALLS)
		return fake_syscall(60, 0, 0, 0, 0, 0, 0);
	g->calls++;
	return fake_syscall(1, g->calls, 0, 0, 0, 0, 0);
}

static void guest_main(void *arg)
{
	struct guest *g = arg;

	assert_int_equal(pf_as_new(g->pf, &g->as, &g->ctx), 0);
	fake_set_script(g->ctx, guest_step, g);
	g->ctx->owner = g->t.stack ? &g->t : NULL;
	g->t.ctx = g->ctx;
	for (;;) {
		pf_resume(g->ctx);
		assert_true(pf_in_guest(g->ctx));
		sched_ctx_wait(g->ctx);
		assert_int_equal(g->ctx->ev.kind, PF_EV_SYSCALL);
		if (g->ctx->ev.sc.nr == 60)
			break;
		g->sum += g->ctx->ev.sc.args[0];
		if (g->calls % 7 == 0)
			sched_yield_cpu();
		pf_set_result(g->ctx, (int64_t)g->ctx->ev.sc.args[0] * 3);
	}
	pf_ctx_exit(g->ctx);
	pf_as_free(g->as);
	if (--guests_left == 0)
		sched_stop(0);
}

static void test_contexts(void **state)
{
	struct pf_config cfg = {.hooks = {.event = sched_ctx_event, .wait = sched_ctx_wait}, .zygote_sock = -1};

	for (uint64_t seed = 0; seed < 200; seed++) {
		struct guest g[GUESTS] = {0};
		struct platform *pf;

		assert_int_equal(pf_create("fake", &cfg, &pf), 0);
		start(seed % 4 != 0, seed, pf);
		guests_left = GUESTS;
		for (int i = 0; i < GUESTS; i++) {
			g[i].pf = pf;
			assert_int_equal(sched_spawn(&g[i].t, "guest", guest_main, &g[i]), 0);
		}
		assert_int_equal(sched_run(), 0);
		for (int i = 0; i < GUESTS; i++)
			assert_int_equal(g[i].sum, CALLS * (CALLS + 1) / 2);
		assert_int_equal(fake_live(pf), 0);
		sched_fini();
		pf_destroy(pf);
	}
}

// --- figures ------------------------------------------------------------------------------------

static void bench_main(void *arg)
{
	enum { N = 1000000 };
	nsec_t begin = sched_now(), t;
	struct work k = {.w.fn = work_fn};

	for (int i = 0; i < N; i++)
		sched_yield_cpu();
	t = sched_now();
	print_message("  a switch to the loop and back: %.1f ns\n", (double)(t - begin) / N);
	begin = sched_now();
	for (int i = 0; i < N; i++)
		sched_now();
	print_message("  sched_now(): %.1f ns\n", (double)(sched_now() - begin) / N);
	begin = sched_now();
	for (int i = 0; i < 1000; i++)
		host_work_run(&k.w);
	print_message("  empty host work: %.1f us\n", (double)(sched_now() - begin) / 1e6);
	sched_stop(0);
}

static void test_figures(void **state)
{
	struct sched_task t = {0};

	start(false, 0, NULL);
	assert_int_equal(sched_spawn(&t, "bench", bench_main, NULL), 0);
	assert_int_equal(sched_run(), 0);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spawn),	    cmocka_unit_test(test_deadlock),
		cmocka_unit_test(test_sleep),	    cmocka_unit_test(test_poll),
		cmocka_unit_test(test_wake_removes), cmocka_unit_test(test_timers),
		cmocka_unit_test(test_real),	    cmocka_unit_test(test_simulation),
		cmocka_unit_test(test_contexts),    cmocka_unit_test(test_figures),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
