// Pipes and FIFOs (pipe(7), fifo(7)).
//
// A pipe is one ring of bytes that grows up to its capacity; while O_DIRECT packets are in it, a
// list of records says where each ends. It belongs to the files that are open on it: the last one
// to be released frees it. inode->pipe leads to it while it exists.
//
// Invariants
//  - Bytes move only under p->lock, since copying them may wait; everything else changes at once.
//  - Nothing is allocated on the way of a read or write that fits the ring as it is.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "sentry/vfs/vfs.h"

// pipe2(2): two files on a fresh pipe, the caller's. flags: O_NONBLOCK, O_DIRECT. -ENOMEM, -ENFILE.
int pipe_create(unsigned flags, struct file *ret_files[2]);
// At boot: hands the operations of FIFOs to the vfs.
void pipe_fs_init(void);
bool file_is_pipe(const struct file *f);
// fcntl(2) F_SETPIPE_SZ and F_GETPIPE_SZ. -EBADF if f is no pipe; -EPERM, -EBUSY, -EINVAL. May wait.
int64_t pipe_set_size(struct file *f, uint64_t size, bool privileged);
int64_t pipe_get_size(struct file *f);
// tee(2): copies up to n bytes from in to out (two different pipes) without consuming them. Waits
// for both ends unless nonblock. Bytes, 0 at the end, -EAGAIN, -EPIPE, -EINVAL, -ERESTARTSYS.
ssize_t pipe_tee(struct file *in, struct file *out, size_t n, bool nonblock);
// For splice(2), which must not take bytes out that it cannot pass on: waits until `in` has bytes
// (or is at its end) or `out` has room. 0, -EAGAIN, -ERESTARTSYS, -EPIPE. May wait.
int pipe_wait_readable(struct file *in, bool nonblock);
int pipe_wait_writable(struct file *out, bool nonblock);
// Bytes that can be read, and room for bytes to be written, right now.
size_t pipe_used(const struct file *f);
size_t pipe_room_now(const struct file *f);

extern const struct file_ops pipe_fops;
// /proc/sys/fs/pipe-max-size and the pages all pipes of the sandbox may take together.
extern uint32_t pipe_max_size;
#define PIPE_TOTAL_SOFT (64UL << 20)
