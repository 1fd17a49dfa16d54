// What is logged when the sentry must stop: where it was. Offsets are those that addr2line(1) takes
// (addr2line -e runsc -f OFFSET).
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <unwind.h>

#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "sentry/boot/internal.h"
#include "sentry/sched/sched.h"

#define MAX_FRAMES 48

extern const char __ehdr_start[]; // the image's first byte: the linker's

struct trace {
	unsigned n;
	uintptr_t last;
};

static _Unwind_Reason_Code one_frame(struct _Unwind_Context *ctx, void *arg)
{
	struct trace *t = arg;
	uintptr_t ip = _Unwind_GetIP(ctx);

	if (!ip || ip == t->last || t->n >= MAX_FRAMES)
		return _URC_END_OF_STACK;
	t->last = ip;
	log_err("  #%-2u %#lx", t->n++, (unsigned long)(ip - (uintptr_t)__ehdr_start));
	return _URC_NO_REASON;
}

static void show_stack(void)
{
	struct sched_task *task = sched_current();
	struct trace t = {0};

	log_err("task: %s", task ? task->name : "(the loop)");
	_Unwind_Backtrace(one_frame, &t);
}

static void on_fault(int sig, siginfo_t *info, void *ctx)
{
	const ucontext_t *uc = ctx;

	// A second fault while this one is told ends the process at once.
	signal(sig, SIG_DFL);
	panic("signal %d at address %p, instruction %#lx", sig, info->si_addr,
	      (unsigned long)((uintptr_t)uc->uc_mcontext.gregs[REG_RIP] - (uintptr_t)__ehdr_start));
}

void boot_crash_init(void)
{
	static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	static char stack[32768] __attribute__((aligned(16)));
	const stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	panic_hook = show_stack;
	if (BOOT_SANITIZED || sigaltstack(&ss, NULL) < 0)
		return; // the sanitizer tells more
	for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++)
		sigaction(fatal[i], &sa, NULL);
}
