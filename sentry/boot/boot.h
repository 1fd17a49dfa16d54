// What the launcher (runsc-cli) and the sentry's main agree on.
//
// The launcher makes the sentry's process: own user, pid, mount, ipc, uts and net namespaces, an empty
// read-only root, uid nobody, the descriptors below and no other. boot_main() then runs in it:
// starts the zygote, gives up what is left (capabilities, limits, seccomp), and runs the kernel.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define BOOT_SENTRY_NAME "runsc-sentry"
#define BOOT_GOFER_NAME "runsc-gofer"
#define BOOT_NOBODY 65534u
// Sanitizer builds are linked dynamically and their run-time asks the host for much that the filters
// forbid: they test the rest, without filters and with the host's files in sight.
#ifdef __SANITIZE_ADDRESS__
#define BOOT_SANITIZED true
#else
#define BOOT_SANITIZED false
#endif

// The descriptors that the sentry starts with, after the container's 0, 1 and 2.
enum {
	BOOT_FD_LOG = 3,    // the debug log, or /dev/null
	BOOT_FD_CTL = 4,    // SOCK_SEQPACKET to the process that started it: struct ctl_msg both ways
	BOOT_FD_GOFER = 5,  // SOCK_SEQPACKET to the gofer
	BOOT_FD_DOC = 6,    // a file: what to run (see boot_doc.h)
	BOOT_FD_LISTEN = 7, // a listening SOCK_SEQPACKET for other commands of this container; /dev/null if none
	BOOT_FD_END,
};

// Messages of the control socket and of connections to BOOT_FD_LISTEN. Each end takes what it reads
// for hostile: a message of another size or kind ends the connection.
enum ctl_op {
	CTL_START = 1, // to the sentry: run the container's process (only if created, not run)
	CTL_SIGNAL,    // to the sentry: arg is the signal, arg2 a pid in the container (0: its first process)
	CTL_KILL_ALL,  // to the sentry: end everything at once
	CTL_CREATED,   // from the sentry: all is set up
	CTL_RUNNING,   // from the sentry: the first process runs
	CTL_ERROR,     // from the sentry: it could not be started; arg: exit status for the command, text
	CTL_EXIT,      // from the sentry: the first process ended; arg: status as wait(2) shows it
	CTL_OK,        // answer to a request over BOOT_FD_LISTEN; arg: 0 or errno
};
struct ctl_msg {
	uint32_t op;
	int32_t arg, arg2;
	char text[500]; // NUL-terminated
};

// The sentry's main(); returns its exit status.
int boot_main(int argc, char **argv);
