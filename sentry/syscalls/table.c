#include "sentry/syscalls/syscalls.h"

#include <errno.h>

__attribute__((unused)) static int64_t sys_none(struct task *t, const uint64_t *a)
{
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
