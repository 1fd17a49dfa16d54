// Tasks: starting, switching, ending.
#include <stdio.h>

#include "platform/platform.h"
#include "sentry/sched/internal.h"

#if SCHED_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

struct sched_state sched_g = {.rq = TAILQ_HEAD_INITIALIZER(sched_g.rq)};

struct sched_task *sched_current(void)
{
	return sched_g.current;
}

void may_wait(void)
{
	kassert(sched_g.current && sched_g.current->no_wait == 0);
}

void sched_make_runnable(struct sched_task *t)
{
	if (t->runnable || t->dead)
		return;
	t->runnable = true;
	TAILQ_INSERT_TAIL(&sched_g.rq, t, rq);
	sched_g.nr_runnable++;
}

void sched_wake(struct sched_task *t)
{
	t->woken = true;
	sched_make_runnable(t);
}

// --- switching ----------------------------------------------------------------------------------

// Loop to task. Returns when the task has blocked, yielded or ended.
void sched_switch_to(struct sched_task *t)
{
	sched_g.current = t;
	sched_g.switches++;
#if SCHED_ASAN
	__sanitizer_start_switch_fiber(&sched_g.loop_fake, t->stack->base, t->stack->size);
#endif
	sched_switch_asm(&sched_g.loop_sp, t->sp);
#if SCHED_ASAN
	__sanitizer_finish_switch_fiber(sched_g.loop_fake, NULL, NULL);
#endif
	sched_g.current = NULL;
}

static void switch_to_loop(struct sched_task *t)
{
#if SCHED_ASAN
	__sanitizer_start_switch_fiber(t->dead ? NULL : &t->stack->asan_fake, sched_g.loop_stack,
				       sched_g.loop_stack_size);
#endif
	sched_switch_asm(&t->sp, sched_g.loop_sp);
#if SCHED_ASAN
	__sanitizer_finish_switch_fiber(t->stack->asan_fake, &sched_g.loop_stack, &sched_g.loop_stack_size);
#endif
}

void sched_block(void)
{
	struct sched_task *t = sched_g.current;

	t->runnable = false;
	switch_to_loop(t);
}

void sched_task_main(void)
{
	struct sched_task *t = sched_g.current;

#if SCHED_ASAN
	__sanitizer_finish_switch_fiber(NULL, &sched_g.loop_stack, &sched_g.loop_stack_size);
#endif
	t->fn(t->arg);
	sched_exit(NULL, NULL);
}

int sched_spawn(struct sched_task *t, const char *name, void (*fn)(void *), void *arg)
{
	struct kstack *k;
	uintptr_t *sp;

	kassert(sched_g.initialised);
	if (!timer_reserve(sched_g.nr_tasks + 1))
		return -ENOMEM;
	k = kstack_get();
	if (!k)
		return -ENOMEM;
	k->task = t;
	t->stack = k;
	t->fn = fn;
	t->arg = arg;
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->runnable = t->dead = t->killed = t->interrupted = false;
	t->sleeping = t->woken = t->entry_fired = false;
	t->no_wait = 0;
	t->wait_ctx = NULL;
	// Six saved registers, the return address, and a zero that ends backtraces. At entry of
	// sched_start_asm the stack pointer is a multiple of 16.
	sp = (uintptr_t *)((uintptr_t)k & ~63UL);
	*--sp = 0;
	*--sp = 0;
	*--sp = (uintptr_t)sched_start_asm;
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	t->sp = sp;
	sched_g.nr_tasks++;
	sched_make_runnable(t);
	return 0;
}

_Noreturn void sched_exit(void (*on_dead)(void *), void *arg)
{
	struct sched_task *t = sched_g.current;

	kassert(t && !sched_g.dead.task);
	if (t->at_exit)
		t->at_exit(t);
	t->at_exit = NULL;
	t->dead = true;
	t->runnable = false;
	sched_g.dead.task = t;
	sched_g.dead.fn = on_dead;
	sched_g.dead.arg = arg;
	switch_to_loop(t);
	panic("a dead task ran");
}

// In the loop, right after the switch away from a task that ended.
void sched_reap(void)
{
	struct sched_task *t = sched_g.dead.task;
	void (*fn)(void *) = sched_g.dead.fn;

	sched_g.dead.task = NULL;
	kstack_put(t->stack);
	t->stack = NULL;
	sched_g.nr_tasks--;
	if (fn)
		fn(sched_g.dead.arg); // may free t
}

void sched_for_each(void (*fn)(struct sched_task *t, void *arg), void *arg)
{
	struct kstack *k;

	LIST_FOREACH(k, &kstacks_used, link)
		fn(k->task, arg);
}

// --- giving way ---------------------------------------------------------------------------------

void sched_yield_cpu(void)
{
	struct sched_task *t = sched_g.current;

	may_wait();
	t->runnable = false;
	sched_make_runnable(t);
	switch_to_loop(t);
}

#define SLICE_NS 100000

// The slice is counted from the first call after the task got the CPU, so that switching need not
// read the clock.
void cond_resched(void)
{
	nsec_t now = sched_now();

	if (sched_g.resched_switch != sched_g.switches) {
		sched_g.resched_switch = sched_g.switches;
		sched_g.resched_start = now;
	} else if (now - sched_g.resched_start >= SLICE_NS) {
		sched_yield_cpu();
	}
}

// --- events of contexts -------------------------------------------------------------------------

void sched_ctx_event(struct pf_ctx *ctx)
{
	struct sched_task *t = ctx->owner;

	ctx->unseen = true;
	if (t && t->wait_ctx == ctx)
		sched_make_runnable(t);
}

// The mark stands on the context, not on the task: a fork waits for its parent's context first, and
// the child's event may well come before that.
void sched_ctx_wait(struct pf_ctx *ctx)
{
	struct sched_task *t = sched_g.current;
	void *owner = ctx->owner;

	may_wait();
	if (pf_in_guest(ctx)) // it left again since: what was not seen then is of no use now
		ctx->unseen = false;
	ctx->owner = t;
	t->wait_ctx = ctx;
	while (!ctx->unseen)
		sched_block();
	t->wait_ctx = NULL;
	ctx->unseen = false;
	if (owner != t)
		ctx->owner = owner;
}
