#include "sentry/syscalls/syscalls.h"

#include <errno.h>

#include "platform/base/base.h"
#include "platform/base/log.h"

// The compatibility log: each call that is asked for and not there, once.
static void __attribute__((cold)) note_missing(const struct task *t)
{
	static uint64_t noted[SYSCALL_MAX / 64];
	uint32_t nr = t->sc_nr;

	if (nr >= SYSCALL_MAX || noted[nr / 64] & 1ULL << (nr % 64))
		return;
	noted[nr / 64] |= 1ULL << (nr % 64);
	log_info("%s[%d]: system call %u (%s) is not supported", t->comm, t->tid->nr, nr,
		 syscall_table[nr].name ? syscall_table[nr].name : "no such number");
}

__attribute__((unused)) static int64_t sys_none(struct task *t, const uint64_t *a)
{
	note_missing(t);
	return -ENOSYS;
}

__attribute__((unused)) static int64_t sys_noperm(struct task *t, const uint64_t *a)
{
	return -EPERM;
}

#define SC_FN_FULL(name) sys_##name
#define SC_FN_PARTIAL(name) sys_##name
#define SC_FN_NONE(name) sys_none
#define SC_FN_NOPERM(name) sys_noperm
#define SC(nr, name, state, formats, note) [nr] = {#name, SC_FN_##state(name), SYSCALL_##state, formats, note},

const struct syscall_row syscall_table[SYSCALL_MAX] = {
#include "sentry/syscalls/syscalls.def"
};

int64_t task_call(struct task *t)
{
	const struct syscall_row *row = &syscall_table[t->sc_nr < SYSCALL_MAX ? t->sc_nr : SYSCALL_MAX - 1];

	if (likely(t->sc_nr < SYSCALL_MAX && row->fn))
		return row->fn(t, t->sc_args);
	note_missing(t);
	return -ENOSYS;
}
