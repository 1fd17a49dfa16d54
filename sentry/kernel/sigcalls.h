// What the signal system calls need of the kernel beyond signal.h.
#pragma once
#include "sentry/kernel/task.h"

// Blocks exactly `mask` until the call ends; the old mask comes back after the handler, or without one.
void signal_suspend_mask(struct task *t, uint64_t mask);
// Sleeps until a signal is deliverable (-EINTR) or the deadline (-ETIMEDOUT). May wait.
int signal_wait(struct task *t, nsec_t deadline);
// The next signal of `set`, or -EAGAIN at the deadline, -EINTR. May wait.
int signal_timedwait(struct task *t, uint64_t set, nsec_t deadline, struct ksiginfo *ret);
// A signal was sent to pgrp: children that are being forked get it too.
void signal_note_forking(struct pid *pgrp, int sig);
int64_t signal_frame_pop(struct task *t); // rt_sigreturn: -EFAULT, else 0 (registers set)
void signal_altstack_encode(const struct task *t, uint64_t sp, uint8_t ret[24]);
int signal_altstack_set(struct task *t, uint64_t cur_sp, uint64_t sp, uint32_t flags, uint64_t size, uint64_t min_size);
