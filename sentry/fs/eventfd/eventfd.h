// eventfd(2): a counter to wait for.
#pragma once
#include "sentry/vfs/vfs.h"

// flags: O_NONBLOCK. -ENOMEM, -ENFILE.
int eventfd_create(uint32_t initval, bool semaphore, unsigned flags, struct file **ret);
// Adds n for somebody in the kernel (aio and the like); false if it would overflow. Never waits.
bool eventfd_signal(struct file *f, uint64_t n);
bool file_is_eventfd(const struct file *f);
