// Wait queues, sleeping, the sleeping lock.
#include "platform/platform.h"
#include "sentry/sched/internal.h"

void waitq_init(struct waitq *wq)
{
	TAILQ_INIT(&wq->head);
	wq->first_excl = NULL;
}

void waitq_add(struct waitq *wq, struct wait_entry *e)
{
	kassert(!e->wq);
	e->wq = wq;
	if (e->exclusive) {
		TAILQ_INSERT_TAIL(&wq->head, e, link);
		if (!wq->first_excl)
			wq->first_excl = e;
	} else if (wq->first_excl) {
		TAILQ_INSERT_BEFORE(wq->first_excl, e, link);
	} else {
		TAILQ_INSERT_TAIL(&wq->head, e, link);
	}
}

void waitq_remove(struct wait_entry *e)
{
	struct waitq *wq = e->wq;

	if (!wq)
		return;
	if (wq->first_excl == e)
		wq->first_excl = TAILQ_NEXT(e, link);
	TAILQ_REMOVE(&wq->head, e, link);
	e->wq = NULL;
}

// Wake functions may remove any entry, so a cursor of our own keeps the place in the list.
static void wake_entries(struct waitq *wq, uint32_t events, bool all)
{
	struct wait_entry *e = TAILQ_FIRST(&wq->head), *last = TAILQ_LAST(&wq->head, wait_entry_head);
	struct wait_entry cursor;
	bool excl, took, was_last;

	for (; e; e = TAILQ_NEXT(&cursor, link), waitq_remove(&cursor)) {
		was_last = e == last; // what is added meanwhile waits for the next wake-up
		excl = e->exclusive;
		cursor = (struct wait_entry){.wq = wq, .exclusive = excl};
		TAILQ_INSERT_AFTER(&wq->head, e, &cursor, link);
		took = e->wake && (!events || !e->mask || (e->mask & events)) && e->wake(e, events);
		if (was_last || (excl && took && !all))
			break;
	}
	if (e)
		waitq_remove(&cursor);
}

void waitq_wake(struct waitq *wq, uint32_t events)
{
	if (!waitq_empty(wq))
		wake_entries(wq, events, false);
}

void waitq_wake_all(struct waitq *wq, uint32_t events)
{
	if (!waitq_empty(wq))
		wake_entries(wq, events, true);
}

// --- sleeping -----------------------------------------------------------------------------------

struct sleep_timer {
	struct ktimer timer;
	struct sched_task *task;
	bool fired;
};

static void sleep_timer_fire(struct ktimer *kt)
{
	struct sleep_timer *st = container_of(kt, struct sleep_timer, timer);

	st->fired = true;
	if (st->task->sleeping)
		sched_make_runnable(st->task);
}

static bool sleep_interrupted(const struct sched_task *t, enum wait_mode mode)
{
	switch (mode) {
	case WAIT_INTERRUPTIBLE:
		return t->interrupted || t->killed;
	case WAIT_KILLABLE_ONLY:
		return t->killed;
	case WAIT_UNINTERRUPTIBLE:
		break;
	}
	return false;
}

// What has happened first wins: a wake-up over an interruption, that over the deadline.
static int sleep_current(enum wait_mode mode, nsec_t deadline)
{
	struct sched_task *t = sched_g.current;
	struct sleep_timer st = {.task = t};

	may_wait();
	if (sleep_interrupted(t, mode))
		return -EINTR;
	if (deadline != NSEC_INFINITE) {
		if (deadline <= sched_now())
			return -ETIMEDOUT;
		ktimer_init(&st.timer, sleep_timer_fire);
		timer_arm_sleep(&st.timer, deadline);
	}
	if (t->ctx && !pf_in_guest(t->ctx))
		pf_will_block(t->ctx);
	t->woken = false;
	t->sleeping = true;
	t->sleep_mode = mode;
	sched_block();
	t->sleeping = false;
	if (deadline != NSEC_INFINITE)
		ktimer_cancel(&st.timer);
	if (t->woken)
		return 0;
	if (sleep_interrupted(t, mode))
		return -EINTR;
	return st.fired ? -ETIMEDOUT : 0;
}

void sched_interrupt(struct sched_task *t)
{
	t->interrupted = true;
	if (t->sleeping && t->sleep_mode == WAIT_INTERRUPTIBLE)
		sched_make_runnable(t);
}

void sched_kill(struct sched_task *t)
{
	t->interrupted = t->killed = true;
	if (t->sleeping && t->sleep_mode != WAIT_UNINTERRUPTIBLE)
		sched_make_runnable(t);
}

void sched_clear_interrupt(struct sched_task *t)
{
	t->interrupted = false;
}

// Leaves the queue at once, so that the next exclusive wake-up goes to somebody else.
static bool wake_sleeper(struct wait_entry *e, uint32_t events)
{
	struct sched_task *t = e->arg;

	waitq_remove(e);
	sched_wake(t);
	return true;
}

static int sleep_on(struct waitq *wq, bool exclusive, enum wait_mode mode, nsec_t deadline)
{
	struct wait_entry e = {.wake = wake_sleeper, .arg = sched_g.current, .exclusive = exclusive};
	bool woken;
	int r;

	waitq_add(wq, &e);
	r = sleep_current(mode, deadline);
	woken = !e.wq;
	waitq_remove(&e);
	return woken ? 0 : r;
}

int waitq_sleep(struct waitq *wq, enum wait_mode mode, nsec_t deadline)
{
	return sleep_on(wq, false, mode, deadline);
}

int waitq_sleep_exclusive(struct waitq *wq, enum wait_mode mode, nsec_t deadline)
{
	return sleep_on(wq, true, mode, deadline);
}

static bool wake_entry_task(struct wait_entry *e, uint32_t events)
{
	struct sched_task *t = e->arg;

	t->entry_fired = true;
	sched_wake(t);
	return true;
}

void wait_entry_task(struct wait_entry *e, uint32_t mask)
{
	*e = (struct wait_entry){.wake = wake_entry_task, .mask = mask, .arg = sched_g.current};
}

int sched_sleep(enum wait_mode mode, nsec_t deadline)
{
	struct sched_task *t = sched_g.current;
	int r = 0;

	may_wait();
	if (!t->entry_fired)
		r = sleep_current(mode, deadline);
	if (t->entry_fired)
		r = 0;
	t->entry_fired = false;
	return r;
}

// --- klock --------------------------------------------------------------------------------------

void klock_init(struct klock *l)
{
	l->holder = NULL;
	waitq_init(&l->wq);
}

static bool wake_klock(struct wait_entry *e, uint32_t events)
{
	panic("klock: its queue is not for waking");
}

// The lock is handed from holder to waiter, first come, first served: nobody starves.
void klock_lock(struct klock *l)
{
	struct sched_task *t = sched_g.current;
	struct wait_entry e = {.wake = wake_klock, .arg = t};

	may_wait();
	kassert(l->holder != t);
	if (!l->holder) {
		l->holder = t;
		return;
	}
	waitq_add(&l->wq, &e);
	while (l->holder != t)
		sched_block();
}

void klock_unlock(struct klock *l)
{
	struct wait_entry *e = TAILQ_FIRST(&l->wq.head);

	kassert(l->holder == sched_g.current);
	l->holder = NULL;
	if (!e)
		return;
	waitq_remove(e);
	l->holder = e->arg;
	sched_make_runnable(l->holder);
}
