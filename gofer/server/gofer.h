// The gofer: the only process of a sandbox that touches host files. It serves trees of files to one
// sentry over one socket and believes nothing that comes from there.
//
//  - Every lookup is one component relative to a descriptor of its directory, with O_NOFOLLOW; the
//    gofer follows no symlink, walks no ".." and needs no /proc.
//  - It opens regular files and directories only: never a device node, FIFO or socket. The launcher
//    mounts the trees nodev and with private propagation, so that none of the host's later mounts
//    appear in them.
//  - One thread, one request after the other. It ends when the sentry closes the socket.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define GOFER_MAX_TREES 1024
// Where gofer_main() puts its socket and log: the filter names descriptors by number.
#define GOFER_FD_SOCK 3
#define GOFER_FD_LOG 4

struct gofer_tree {
	// An O_PATH or readable descriptor of a directory; or a single regular file, opened for reading, or for
	// reading and writing unless read_only (O_PATH will not do: the gofer could not open it again).
	int root_fd;
	bool read_only; // no request changes it, and no writable descriptor of it leaves the gofer
};
struct gofer_config {
	int sock;       // SOCK_SEQPACKET to the sentry
	int log_fd;     // -1: errors only, to descriptor 2
	const struct gofer_tree *trees; // the attach point of GP_ATTACH's arg is the index
	unsigned ntrees;
	unsigned max_fds;   // 0: from RLIMIT_NOFILE
	uint32_t spin_ns;   // how long to poll for the next request before sleeping; 0: not at all
	bool no_filter;     // tests and sanitizers: do not install the seccomp filter
};

// Serves until the socket ends; takes over all descriptors of cfg. Call it in its final namespaces,
// with no other thread, holding exactly the capabilities CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH,
// FOWNER and FSETID. Returns the process's exit status.
int gofer_main(const struct gofer_config *cfg);
