// System calls: the table and the handlers' form.
//
// A handler reads the same everywhere: decode, refuse unknown flags, copy in once, call the
// subsystem, copy out, undo on failure. It returns the result or -errno (ERESTART* included); it may
// wait. `a` holds the six argument registers, already a private copy.
//
// To implement a call: write sys_NAME with SYSCALL(NAME) in the sys_<family>.c it belongs to and set
// its row in syscalls.def to FULL or PARTIAL.
#pragma once
#include <stdint.h>

#include "sentry/kernel/task.h"

typedef int64_t (*syscall_fn)(struct task *t, const uint64_t *a);

enum syscall_state { SYSCALL_FULL, SYSCALL_PARTIAL, SYSCALL_NONE, SYSCALL_NOPERM };
struct syscall_row {
	const char *name;
	syscall_fn fn; // NULL only where name is
	enum syscall_state state;
	const char *formats, *note;
};
#define SYSCALL_MAX 512
extern const struct syscall_row syscall_table[SYSCALL_MAX]; // name NULL: no such number

#define SYSCALL(name) int64_t sys_##name(struct task *t, const uint64_t *a)

// Every handler that syscalls.def names.
#define SC(nr, name, state, formats, note) SC_##state(name)
#define SC_FULL(name) SYSCALL(name);
#define SC_PARTIAL(name) SYSCALL(name);
#define SC_NONE(name)
#define SC_NOPERM(name)
#include "sentry/syscalls/syscalls.def"
#undef SC
#undef SC_FULL
#undef SC_PARTIAL
#undef SC_NONE
#undef SC_NOPERM

// int arguments arrive in 64-bit registers: the upper half is noise.
static inline int arg_int(uint64_t a) { return (int)a; }
static inline unsigned arg_uint(uint64_t a) { return (unsigned)a; }
