// What the sandbox says about itself: the version that it claims, memory, when it started.
#pragma once
#include <stdint.h>

#include "sentry/sched/sched.h"

#define KERNEL_RELEASE "6.12.0"
#define KERNEL_VERSION "#1 SMP PREEMPT_DYNAMIC Sun Nov 17 22:15:08 UTC 2024"

struct kernel_memory { // bytes
	uint64_t total, free, available, shared, buffers, cached;
};
// Never waits.
void kernel_memory_get(struct kernel_memory *ret);
// The memory limit of the sandbox, and who knows what is used; both optional (boot).
extern uint64_t kernel_memory_limit;
extern uint64_t (*kernel_memory_used)(void);
extern nsec_t kernel_boot_time; // boot clock at kernel_init()
