// For prctl(2): PR_SET_SECCOMP.
#pragma once
#include "sentry/kernel/task.h"

int64_t prctl_set_seccomp(struct task *t, uint64_t mode, uint64_t filter);
