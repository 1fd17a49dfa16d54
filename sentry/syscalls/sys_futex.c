// futex(2). The backend performs the plain operations without the kernel, on the host's futexes. What
// comes here was interrupted, or is not for the backend.
#include <linux/futex.h>

#include "platform/base/base.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/syscalls.h"
#include "sentry/syscalls/wire.h"

#define ROBUST_HEAD_SIZE 24

SYSCALL(futex)
{
	int op = arg_int(a[1]), cmd = op & FUTEX_CMD_MASK;
	bool waits = cmd == FUTEX_WAIT || cmd == FUTEX_WAIT_BITSET;

	switch (cmd) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAKE:
	case FUTEX_WAKE_BITSET:
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_WAKE_OP:
		break;
	default:
		return -ENOSYS; // priority inheritance
	}
	if ((op & FUTEX_CLOCK_REALTIME) && cmd != FUTEX_WAIT_BITSET && cmd != FUTEX_WAIT)
		return -ENOSYS;
	// Should no handler run, the backend goes on with it: the rest of a wait is its to know.
	t->retry_call = true;
	if (!waits || !signal_pending(t))
		return -ERESTARTNOINTR;
	return a[3] ? -ERESTART_RESTARTBLOCK : -ERESTARTSYS;
}

SYSCALL(set_robust_list)
{
	if (a[1] != ROBUST_HEAD_SIZE)
		return -EINVAL;
	t->robust_list = a[0];
	t->robust_len = a[1];
	return 0;
}

SYSCALL(get_robust_list)
{
	struct task *o = arg_int(a[0]) ? task_find(arg_int(a[0])) : t;
	uint64_t head, len = ROBUST_HEAD_SIZE;

	if (!o)
		return -ESRCH;
	if (!task_may_inspect(t, o))
		return -EPERM;
	head = o->robust_list;
	if (copy_out_obj(GADDR(a[2]), &len) < 0 || copy_out_obj(GADDR(a[1]), &head) < 0)
		return -EFAULT;
	return 0;
}
