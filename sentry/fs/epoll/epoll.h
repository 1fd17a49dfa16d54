// epoll(7).
//
// An instance holds items, one for each (file, descriptor) watched. An item hangs in the wait queues
// of its file; a wake-up there puts it on the instance's ready list, and epoll_wait() asks only what
// is on that list: O(ready). Files do not know their watchers but for file->epolls, by which items
// go when the file does. Nothing but epoll_fd_wait() and copying out waits.
#pragma once
#include <stdint.h>

#include "sentry/vfs/vfs.h"

struct abi_epoll_event { // packed on x86-64
	uint32_t events;
	uint64_t data;
} __attribute__((packed));

int epoll_create_file(struct file **ret);
bool file_is_epoll(const struct file *f);
// epoll_ctl(2) with an event already copied in. fd: the number under which `target` is watched.
int epoll_control(struct file *epf, int op, int fd, struct file *target, const struct abi_epoll_event *ev);
// Up to max (> 0) events to out; waits until deadline (0: not at all). Number, 0 at the deadline,
// -EINTR, -EFAULT.
int epoll_fd_wait(struct file *epf, struct gaddr out, int max, nsec_t deadline);
void epoll_fs_init(void); // at boot: files that go tell us
