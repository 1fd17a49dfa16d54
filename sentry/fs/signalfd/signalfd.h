// signalfd(2): signals of whoever reads, as bytes.
#pragma once
#include "sentry/vfs/vfs.h"

// mask: the signals wanted, without SIGKILL and SIGSTOP. flags: O_NONBLOCK. -ENOMEM, -ENFILE.
int signalfd_create_file(uint64_t mask, unsigned flags, struct file **ret);
int signalfd_set_mask(struct file *f, uint64_t mask); // -EINVAL: f is no signalfd
