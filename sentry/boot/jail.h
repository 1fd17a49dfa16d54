// What a sandbox process does to itself before it works for a container: between clone and exec (the
// launcher), and at the start of its main. On failure these say one line and end the process.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// Where that line goes: a descriptor, or a function.
void jail_init(int err_fd);
void jail_init_fn(void (*say)(const char *line));
_Noreturn void jail_die(const char *what); // "what: strerror(errno)"
// Puts an empty read-only tmpfs in the place of everything mounted.
void jail_empty_root(void);
// Closes every descriptor but fds[0..n-1], which become 0..n-1; fds[i] == -1: null, which is /dev/null. exe is kept
// too, close-on-exec, and returned under its new number.
int jail_place_fds(const int *fds, unsigned n, int null, int exe);
// Leaves exactly `caps` in the bounding, permitted, effective and inheritable sets; ambient: whether
// they survive the exec of somebody who is not root. Sets no_new_privs.
void jail_set_caps(uint64_t caps, bool ambient);
void jail_reset_signals(void);
void jail_rlimit(int which, uint64_t value); // soft and hard; never raises the hard limit
_Noreturn void jail_exec(int exe, char *const *argv);
