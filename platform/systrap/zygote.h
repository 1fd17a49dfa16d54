// The zygote: the process that every stub is forked from. It is started before the sentry is locked
// down and needs no privilege but to exist.
#pragma once
#include <sys/types.h>

struct zygote_config {
	const char *id; // the container's, shown in ps; NULL: none
};

// Forks and executes the zygote. Call it in the process that becomes the sentry: that process is
// the parent of all stubs (it reaps them, reads their memory as their ancestor, and they are
// killed when the calling thread ends). Only that process can pf_create() with it, once.
// The zygote starts up on its own; pf_create waits for it.
// ret_sock: for pf_config.zygote_sock, the caller's. -errno, with nothing left behind.
// Needs memfd_create with exec allowed (vm.memfd_noexec < 2), fork and execveat; no file system.
int zygote_start(const struct zygote_config *cfg, int *ret_sock, pid_t *ret_pid);
// The page that stubs can only read, as mapped by zygote_start; pf_create takes it over.
extern void *zygote_board;
