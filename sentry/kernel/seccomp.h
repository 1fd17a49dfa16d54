// Seccomp of the guest (seccomp(2)): strict mode and classic BPF filters, run on every system call of
// the thread. Filters form a chain that children share; nothing in it ever changes.
#pragma once
#include "sentry/kernel/task.h"

struct seccomp_filter;

// Attaches a program of n instructions of 8 bytes at `insns` (kernel memory, unchecked). flags:
// SECCOMP_FILTER_FLAG_*. -EINVAL, -ENOMEM, -ESRCH (a thread that cannot be synchronised; or its tid).
int seccomp_attach(struct task *t, const void *insns, unsigned n, unsigned flags);
int seccomp_set_strict(struct task *t);
int seccomp_mode(const struct task *t); // 0, SECCOMP_MODE_*
// Before a system call is served. True: it is not to be; *ret is its result, or t->no_result is set.
bool seccomp_deny(struct task *t, int64_t *ret);
void seccomp_inherit(struct task *child, const struct task *t);
void seccomp_drop(struct task *t);
