// Messages with descriptors over a unix socket (unix(7), SCM_RIGHTS). May block as the socket does.
#pragma once
#include <stddef.h>
#include <sys/types.h>

#define FDPASS_MAX 16 // most descriptors a message

// Sends buf (len >= 1 bytes) with nfds descriptors, which stay the caller's. Without SIGPIPE; EINTR
// is retried. 0 or -errno; a stream socket that took only a part gives -EMSGSIZE.
int send_fds(int sock, const void *buf, size_t len, const int *fds, unsigned nfds);
// Receives up to len bytes and up to max_fds descriptors (close-on-exec, the caller's; the unused
// part of fds becomes -1). Bytes received, 0 at end of file, or -errno. -EMSGSIZE when more
// descriptors or more bytes of a datagram came than there was room for: none are kept then.
// flags: MSG_DONTWAIT, MSG_WAITALL.
ssize_t recv_fds(int sock, void *buf, size_t len, int flags, int *fds, unsigned max_fds, unsigned *ret_nfds);
