// Making a sandbox's processes and living with them until the container ends.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sentry/boot/spec.h"

struct launch_cfg {
	const char *id;
	const char *command;      // for the debug log's name
	const char *bundle;       // relative paths of the spec start here
	const struct spec *spec;
	const char *config;       // its text
	size_t config_len;
	int stdio[3];             // the container's; borrowed
	int err_fd;               // where the sandbox's errors go without a debug log; -1: nowhere. Borrowed
	int listen_fd;            // see BOOT_FD_LISTEN; -1: none. Borrowed
	bool wait_start;          // runsc create
	bool plain_first;         // runsc do
};
struct sandbox {
	pid_t sentry, gofer;
	int sentry_pidfd, gofer_pidfd, ctl;
	int err_pipe;             // what a child has to say if it fails before the sentry runs
	int log_fd;
};

// Starts sentry and gofer. 0, or an exit status after a message; nothing is left behind then.
int launch_start(const struct launch_cfg *cfg, struct sandbox *ret);
// What the caller may want to know. Any may be NULL.
struct launch_events {
	void (*created)(void *arg);
	void (*running)(void *arg);
	void *arg;
};
// Forwards signals (signal_fd: a signalfd, or -1) and waits for the end; reaps both processes and
// frees sb. Returns the exit status for the command line.
int launch_wait(struct sandbox *sb, int signal_fd, const struct launch_events *ev);
// A signalfd for everything that is passed on to the container; the signals are blocked from now on.
int launch_signalfd(void);
// main() of the gofer's process.
int launch_gofer_main(int argc, char **argv);
