// What a tracee may ask of the host: no more than is injected into it. A guest's own calls never get
// here (PTRACE_SYSEMU comes before seccomp); should one ever run by mistake, it ends the process.
#include <sched.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "platform/filter/filter.h"
#include "platform/ptrace/layout.h"

#define CALL(name) {.call = name}
#define FUTEX(op) {.call = "futex", .cmp = {ARG_MASK(1, ~(uint64_t)(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME), op)}}

extern const struct filter_table filter_table;

static const struct filter_row rows[] = {
	{.call = "mmap", .cmp = {ARG_ONLY(2, 7), ARG_MASK(3, MAP_FIXED, MAP_FIXED)}},
	CALL("munmap"),
	{.call = "mprotect", .cmp = {ARG_ONLY(2, 7)}},
	{.call = "mremap", .cmp = {ARG_ONLY(3, 7)}},
	CALL("madvise"),
	CALL("msync"),
	{.call = "recvmsg", .cmp = {ARG_EQ(0, PTL_FD_SOCK)}},
	{.call = "close", .cmp = {ARG_EQ(0, PTL_FD_TEMP)}},
	{.call = "clone", .cmp = {ARG_EQ(0, PTL_FORK_FLAGS)}},
	{.call = "clone", .cmp = {ARG_EQ(0, PTL_THREAD_FLAGS)}},
	FUTEX(FUTEX_WAIT),
	FUTEX(FUTEX_WAKE),
	FUTEX(FUTEX_REQUEUE),
	FUTEX(FUTEX_CMP_REQUEUE),
	FUTEX(FUTEX_WAKE_OP),
	FUTEX(FUTEX_WAIT_BITSET),
	FUTEX(FUTEX_WAKE_BITSET),
	{.call = "prctl", .cmp = {ARG_EQ(0, PR_SET_NAME)}},
	CALL("exit"),
};

const struct filter_table filter_table = {
	.name = "ptrace_stub_filter", .otherwise = FILTER_KILL, .max_calls = 12, .rows = rows,
	.nrows = sizeof(rows) / sizeof(rows[0])};
