// Files over host descriptors that whoever started the container passed on: its stdin, stdout and
// stderr (`runsc run`, `exec`), which may be terminals, pipes, sockets, or plain files.
//
// The open file description is shared with processes outside, so O_NONBLOCK is never set on it: what
// cannot be asked not to wait is done by a host-work thread. The kernel thread never blocks here.
// Opening the inode again (/dev/stdout, /proc/self/fd/1) gives another file on the same descriptor.
#pragma once
#include "sentry/vfs/vfs.h"

// Takes over host_fd on success. flags: what F_GETFL shows the guest; the access mode is the
// descriptor's own. -EBADF, -ENOMEM, -EINVAL for a descriptor that is no file (a directory, O_PATH).
int hostfd_file_new(int host_fd, unsigned flags, struct file **ret);
// Who owns the inode in the guest's eyes (the container's user: it may want to open /dev/stdout).
void hostfd_set_owner(struct file *f, uint32_t uid, uint32_t gid);
bool file_is_hostfd(const struct file *f);
// The host terminal's window changed (SIGWINCH came to the sentry's side): nothing to do but the
// signal, which is the caller's. The descriptor, borrowed; -1 if f is no host terminal.
int hostfd_tty(const struct file *f);
