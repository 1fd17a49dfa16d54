// What a sandbox process does to itself between clone and exec. On failure these write one line to
// the descriptor given at jail_init() and end the process.
#pragma once
#include <stdbool.h>
#include <stdint.h>

void jail_init(int err_fd);
_Noreturn void jail_die(const char *what); // "what: strerror(errno)"
// Puts an empty read-only tmpfs in the place of everything mounted.
void jail_empty_root(void);
// Closes every descriptor but fds[0..n-1], which become 0..n-1; fds[i] == -1: /dev/null. exe is kept
// too, close-on-exec, and returned under its new number.
int jail_place_fds(const int *fds, unsigned n, int exe);
// Leaves exactly `caps` in the bounding and permitted sets (effective and inheritable too).
void jail_set_caps(uint64_t caps);
void jail_reset_signals(void);
void jail_rlimit(int which, uint64_t value); // soft and hard; never raises the hard limit
_Noreturn void jail_exec(int exe, char *const *argv);
