// seccomp filters, each from one table. A table is a C file that defines `filter_table`; at build
// time platform/filter/generate.c (libseccomp) turns it into a C file with the finished BPF program,
// so that nothing is compiled at start. In a meson.build:
//
//   foo_filter = custom_target('foo_filter', output: 'foo_filter.c', command: [
//     executable('gen_foo_filter', filter_generator_src, files('table.c'), include_directories: root_inc,
//       dependencies: dep_seccomp, native: true), '@OUTPUT@'])
//
// and add foo_filter to the room's sources. The program is then `extern const struct filter_prog NAME;`.
// The build fails if the table names more calls than its limit, or a call that does not exist.
#pragma once
#include <linux/filter.h>
#include <stdint.h>

// --- tables ---------------------------------------------------------------------------------
enum filter_cmp_op { FILTER_ANY, FILTER_EQ, FILTER_NE, FILTER_LT, FILTER_LE, FILTER_GE, FILTER_GT, FILTER_MASKED };
struct filter_cmp {
	enum filter_cmp_op op;
	uint8_t arg;      // 0 to 5
	uint64_t a, b;    // MASKED: (arg & a) == b
};
enum filter_action { FILTER_ALLOW, FILTER_ERRNO, FILTER_TRAP, FILTER_NOTIFY, FILTER_KILL };
// One way in which a call is allowed: all comparisons hold. Further rows for the same call are
// alternatives.
struct filter_row {
	const char *call;      // as libseccomp names it, or NULL: nr
	int nr;
	struct filter_cmp cmp[6];
	enum filter_action action; // ALLOW unless said otherwise
	int error;             // for ERRNO
};
#define ARG_EQ(n, v) {FILTER_EQ, (n), (uint64_t)(v), 0}
#define ARG_NE(n, v) {FILTER_NE, (n), (uint64_t)(v), 0}
#define ARG_LE(n, v) {FILTER_LE, (n), (uint64_t)(v), 0}
#define ARG_MASK(n, mask, v) {FILTER_MASKED, (n), (uint64_t)(mask), (uint64_t)(v)}
// No bit outside `bits` is set.
#define ARG_ONLY(n, bits) {FILTER_MASKED, (n), ~(uint64_t)(bits), 0}
// Descriptors and other int arguments: the kernel looks at 32 bits only, the filter at 64.
#define ARG_INT_EQ(n, v) {FILTER_MASKED, (n), 0xffffffffu, (uint64_t)(uint32_t)(v)}

struct filter_table {
	const char *name;      // of the struct filter_prog
	enum filter_action otherwise; // FILTER_KILL kills the process
	unsigned max_calls;    // the build fails when the rows name more different calls
	const struct filter_row *rows;
	unsigned nrows;
};

// --- programs -------------------------------------------------------------------------------
struct filter_prog {
	const struct sock_filter *code;
	unsigned short len;
	unsigned calls; // different system calls the table names
};
// Installs it for the calling thread (flags: SECCOMP_FILTER_FLAG_*, TSYNC for all of them) after
// setting no_new_privs. 0 or a descriptor (with NEW_LISTENER), or -errno. seccomp(2).
int filter_install(const struct filter_prog *p, unsigned flags);
