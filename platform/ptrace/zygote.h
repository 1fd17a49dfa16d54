// The process that every tracee is forked from: it runs not one instruction of its own after its
// exec. It is started before the sentry is locked down; pf_create("ptrace") takes it over.
#pragma once
#include <sys/types.h>

// Forks a process that waits to be seized, then executes an empty program. Call it in the process
// that becomes the sentry: that process is the parent of all tracees, and they are killed when its
// tracing thread ends. ret_sock: for pf_config.zygote_sock, ret_pid for zygote_pid; the caller's.
// id: the container's, shown in ps; may be NULL. -errno, with nothing left behind. Needs
// memfd_create with exec allowed (vm.memfd_noexec < 2), fork and execveat.
int ptrace_zygote_start(const char *id, int *ret_sock, pid_t *ret_pid);
