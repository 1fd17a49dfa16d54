// Process descriptors (pidfd_open(2)): a file that refers to a struct pid, readable when the process ended.
#pragma once
#include <stdbool.h>

struct file;
struct pid;

int pidfd_new(struct pid *pid, unsigned flags, struct file **ret); // flags: O_NONBLOCK
struct pid *pidfd_pid(struct file *f); // borrowed; NULL: not a pidfd

// For clone: a descriptor number first, the file once the pid exists, visible at the end.
struct pidfd_slot {
	int fd;
	struct file *file;
};
int pidfd_reserve(struct pidfd_slot *s);
int pidfd_prepare(struct pidfd_slot *s, struct pid *pid);
void pidfd_commit(struct pidfd_slot *s);
void pidfd_cancel(struct pidfd_slot *s); // harmless for an unused slot
