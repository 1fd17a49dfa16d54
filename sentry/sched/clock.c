// Time, and timers in a binary heap. Every task has a place reserved in the heap for the timer of
// its own sleep, so that going to sleep cannot fail.
#include <time.h>

#include "platform/base/slab.h"
#include "sentry/sched/internal.h"

#define VIRTUAL_EPOCH 1700000000ULL // what CLOCK_REALTIME shows at virtual time 0, in seconds

struct heap_slot {
	nsec_t deadline;
	struct ktimer *timer;
};
static struct heap_slot *heap; // heap[1..heap_n]; heap[0] is not used
static size_t heap_n, heap_cap;

static nsec_t read_clock(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

nsec_t sched_now(void)
{
	return sched_g.virtual_clock ? sched_g.vnow : read_clock(CLOCK_MONOTONIC);
}

nsec_t sched_now_real(void)
{
	return sched_g.virtual_clock ? VIRTUAL_EPOCH * NSEC_PER_SEC + sched_g.vnow : read_clock(CLOCK_REALTIME);
}

nsec_t sched_now_boot(void)
{
	return sched_g.virtual_clock ? sched_g.vnow : read_clock(CLOCK_BOOTTIME);
}

// --- the heap -----------------------------------------------------------------------------------

static void heap_set(size_t i, struct heap_slot s)
{
	heap[i] = s;
	s.timer->heap_index = i;
}

static void heap_up(size_t i, struct heap_slot s)
{
	for (; i > 1 && heap[i / 2].deadline > s.deadline; i /= 2)
		heap_set(i, heap[i / 2]);
	heap_set(i, s);
}

static void heap_down(size_t i, struct heap_slot s)
{
	for (;;) {
		size_t c = i * 2;

		if (c > heap_n)
			break;
		if (c < heap_n && heap[c + 1].deadline < heap[c].deadline)
			c++;
		if (heap[c].deadline >= s.deadline)
			break;
		heap_set(i, heap[c]);
		i = c;
	}
	heap_set(i, s);
}

static bool heap_grow(size_t need)
{
	size_t cap = MAX(heap_cap, 64UL);
	struct heap_slot *n;

	if (need < heap_cap)
		return true;
	while (cap <= need)
		cap *= 2;
	n = krealloc(heap, heap_cap * sizeof(*heap), cap * sizeof(*heap));
	if (!n)
		return false;
	heap = n;
	heap_cap = cap;
	return true;
}

bool timer_reserve(size_t nr_tasks)
{
	return heap_grow(heap_n + nr_tasks);
}

void timer_arm_sleep(struct ktimer *t, nsec_t deadline)
{
	struct heap_slot s = {deadline, t};

	kassert(t->heap_index == 0 && heap_n + 1 < heap_cap);
	t->deadline = deadline;
	heap_up(++heap_n, s);
}

void ktimer_init(struct ktimer *t, void (*fn)(struct ktimer *))
{
	*t = (struct ktimer){.fn = fn};
}

int ktimer_arm(struct ktimer *t, nsec_t deadline)
{
	size_t i = t->heap_index;

	if (i == 0) {
		if (!heap_grow(heap_n + 1 + sched_g.nr_tasks))
			return -ENOMEM;
		timer_arm_sleep(t, deadline);
		return 0;
	}
	kassert(i <= heap_n && heap[i].timer == t);
	t->deadline = deadline;
	if (deadline < heap[i].deadline)
		heap_up(i, (struct heap_slot){deadline, t});
	else
		heap_down(i, (struct heap_slot){deadline, t});
	return 0;
}

void ktimer_cancel(struct ktimer *t)
{
	size_t i = t->heap_index;
	struct heap_slot last;

	if (i == 0)
		return;
	kassert(i <= heap_n && heap[i].timer == t);
	t->heap_index = 0;
	last = heap[heap_n--];
	if (last.timer == t)
		return;
	if (i > 1 && heap[i / 2].deadline > last.deadline)
		heap_up(i, last);
	else
		heap_down(i, last);
}

nsec_t timer_next(void)
{
	return heap_n ? heap[1].deadline : NSEC_INFINITE;
}

bool timer_run(nsec_t now)
{
	// A timer that re-arms itself into the past must not keep the loop from everything else.
	size_t budget = heap_n + 1;
	bool any = false;

	while (heap_n && heap[1].deadline <= now && budget-- > 0) {
		struct ktimer *t = heap[1].timer;

		ktimer_cancel(t);
		t->fn(t);
		any = true;
	}
	return any;
}

void timer_fini(void)
{
	for (size_t i = 1; i <= heap_n; i++)
		heap[i].timer->heap_index = 0;
	kfree(heap);
	heap = NULL;
	heap_n = heap_cap = 0;
}
