// The signal mask that ppoll(2) and its like put in place while they wait.
#pragma once
#include <errno.h>
#include <signal.h>

#include "sentry/syscalls/syscalls.h"

// Installs the mask at `mask` (none if null). -EINVAL for a wrong size, -EFAULT.
static inline int sigmask_enter(struct task *t, struct gaddr mask, uint64_t size)
{
	uint64_t set;
	int r;

	if (gaddr_null(mask))
		return 0;
	if (size != sizeof(set))
		return -EINVAL;
	r = copy_in_obj(&set, mask);
	if (r)
		return r;
	t->saved_blocked = t->blocked;
	t->restore_blocked = true;
	signal_set_blocked(t, set & ~(SIGBIT(SIGKILL) | SIGBIT(SIGSTOP)));
	return 0;
}

// The wait is over. Interrupted: the old mask comes back once the handler has been set up.
static inline void sigmask_leave(struct task *t, bool interrupted)
{
	if (!t->restore_blocked || interrupted)
		return;
	t->restore_blocked = false;
	signal_set_blocked(t, t->saved_blocked);
}
