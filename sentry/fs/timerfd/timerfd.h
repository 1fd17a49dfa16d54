// timerfd_create(2): timers that are read.
#pragma once
#include <time.h>

#include "sentry/vfs/vfs.h"

// flags: O_NONBLOCK. clockid: CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, the _ALARM clocks as
// the ones they come from. -EINVAL, -ENOMEM, -ENFILE.
int timerfd_create_file(int clockid, unsigned flags, struct file **ret);
// flags: TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET. Both: -EINVAL if f is no timerfd. Never wait.
int timerfd_set(struct file *f, int flags, const struct itimerspec *new_value, struct itimerspec *ret_old);
int timerfd_get(struct file *f, struct itimerspec *ret);
// At boot, after sched_init() and before the process is locked down: watches for jumps of the host's clock.
void timerfd_fs_init(void);
