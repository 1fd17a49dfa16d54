// The seccomp filter of every stub process: what code in a guest process can ask of the host.
// Anything from outside the syscall page, and anything not listed here, traps.
#include "platform/systrap/stub/stub.h"

struct check {
	uint8_t arg;
	uint32_t mask; // of the low half, which is all that these calls look at; 0: no check
	uint32_t value;
};
struct rule {
	uint16_t nr;
	struct check checks[3];
};

#define ANY {0, 0, 0}
#define IS(n, v) {n, 0xffffffffu, v}
#define WITHIN(n, bits) {n, ~(uint32_t)(bits), 0}

// MAP_SHARED PRIVATE FIXED ANONYMOUS GROWSDOWN NORESERVE POPULATE
#define MAP_BITS (0x1 | 0x2 | 0x10 | 0x20 | 0x100 | 0x4000 | 0x8000)
#define PROT_BITS 7
#define FUTEX_BITS (128 | 256)

static const struct rule rules[] = {
	// futex: WAIT WAKE REQUEUE CMP_REQUEUE WAKE_OP WAIT_BITSET WAKE_BITSET
	{202, {{1, ~(uint32_t)FUTEX_BITS, 0}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 1}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 9}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 10}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 3}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 4}}},
	{202, {{1, ~(uint32_t)FUTEX_BITS, 5}}},
	{15, {ANY}},                                            // rt_sigreturn
	{1, {IS(0, STUB_FD_WAKE), IS(2, 8)}},                   // write: the wake-up
	{1, {IS(0, STUB_FD_SOCK), IS(2, 1)}},                   // write: the child's first word
	{9, {WITHIN(2, PROT_BITS), {3, ~(uint32_t)(MAP_BITS & ~0x10), 0x10}}}, // mmap, fixed
	{11, {ANY}},                                            // munmap
	{10, {WITHIN(2, PROT_BITS)}},                           // mprotect
	{25, {WITHIN(3, 7)}},                                   // mremap
	{28, {IS(2, 4)}},                                       // madvise: DONTNEED
	{28, {WITHIN(2, 3)}},                                   // NORMAL RANDOM SEQUENTIAL WILLNEED
	{28, {IS(2, 8)}},                                       // FREE
	{28, {{2, ~1u, 10}}},                                   // DONTFORK DOFORK
	{28, {{2, ~1u, 14}}},                                   // HUGEPAGE NOHUGEPAGE
	{28, {{2, ~3u, 16}}},                                   // DONTDUMP DODUMP WIPEONFORK KEEPONFORK
	{28, {{2, ~3u, 20}}},                                   // COLD PAGEOUT POPULATE_READ POPULATE_WRITE
	{26, {WITHIN(2, 7)}},                                   // msync
	{47, {IS(0, STUB_FD_SOCK), IS(2, 0)}},                  // recvmsg
	{3, {ANY}},                                             // close
	{33, {IS(1, STUB_FD_SOCK)}},                            // dup2
	{56, {IS(0, STUB_THREAD_FLAGS)}},                       // clone; see stub_install_listener
	{56, {IS(0, STUB_FORK_FLAGS)}},
	{60, {ANY}},                                            // exit
	{231, {ANY}},                                           // exit_group
	{24, {ANY}},                                            // sched_yield
	{324, {{0, ~96u, 0}}},                                  // membarrier: PRIVATE_EXPEDITED_SYNC_CORE
	{228, {WITHIN(0, 3)}},                                  // clock_gettime: REALTIME MONOTONIC *_CPUTIME_ID
	{157, {IS(0, 1), IS(1, 9)}},                            // prctl: PDEATHSIG KILL
	{157, {IS(0, 15)}},                                     // prctl: NAME
};
static const struct rule rules_no_fsgsbase[] = {
	{158, {{0, ~3u, 0x1000}}}, // arch_prctl: ARCH_SET_GS (1), SET_FS (2), GET_FS (3)
	{158, {IS(0, 0x1004)}},    // GET_GS
};

struct insn {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};
#define LD 0x20
#define AND 0x54
#define JEQ 0x15
#define RET 0x06
#define RET_TRAP 0x00030000u
#define RET_ALLOW 0x7fff0000u
#define RET_USER_NOTIF 0x7fc00000u
#define OFF_NR 0
#define OFF_ARCH 4
#define OFF_IP 8
#define OFF_ARG(n) (16 + 8 * (n))

#define PROG_MAX 512
static struct insn prog[PROG_MAX];
static uint32_t prog_len;

static void emit(uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (prog_len == PROG_MAX)
		__builtin_trap();
	prog[prog_len++] = (struct insn){code, jt, jf, k};
}

// nr is in the accumulator on entry, and again on the way to the next rule.
static void emit_rule(const struct rule *r)
{
	uint32_t first = prog_len, fail;

	emit(JEQ, r->nr, 0, 0);
	for (uint32_t i = 0; i < 3 && r->checks[i].mask; i++) {
		emit(LD, OFF_ARG(r->checks[i].arg), 0, 0);
		emit(AND, r->checks[i].mask, 0, 0);
		emit(JEQ, r->checks[i].value, 0, 0);
	}
	emit(RET, RET_ALLOW, 0, 0);
	fail = prog_len;
	if (fail - first > 2)
		emit(LD, OFF_NR, 0, 0);
	prog[first].jf = (uint8_t)(prog_len - first - 1);
	for (uint32_t i = first + 1; i < fail; i++)
		if (prog[i].code == JEQ)
			prog[i].jf = (uint8_t)(fail - i - 1);
}

static void build(void)
{
	emit(LD, OFF_IP + 4, 0, 0);
	emit(JEQ, STUB_TEXT_BASE >> 32, 1, 0);
	emit(RET, RET_TRAP, 0, 0);
	emit(LD, OFF_IP, 0, 0);
	emit(AND, 0xfffff000u, 0, 0);
	emit(JEQ, (uint32_t)STUB_TEXT_BASE, 1, 0);
	emit(RET, RET_TRAP, 0, 0);
	emit(LD, OFF_ARCH, 0, 0);
	emit(JEQ, 0xc000003eu, 1, 0);
	emit(RET, RET_TRAP, 0, 0);
	emit(LD, OFF_NR, 0, 0);
	for (uint32_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		emit_rule(&rules[i]);
	for (uint32_t i = 0; !stub_fsgsbase && i < sizeof(rules_no_fsgsbase) / sizeof(rules_no_fsgsbase[0]); i++)
		emit_rule(&rules_no_fsgsbase[i]);
	emit(RET, RET_TRAP, 0, 0);
}

// A filter of its own, below the other: clones wait for the sentry's approval. The descriptor through
// which it approves, or -errno.
int64_t stub_install_listener(void)
{
	static struct insn notify[] = {
		{LD, 0, 0, OFF_NR},
		{JEQ, 0, 1, 56},
		{RET, 0, 0, RET_USER_NOTIF},
		{RET, 0, 0, RET_ALLOW},
	};
	struct {
		uint16_t len;
		struct insn *filter;
	} fprog = {sizeof(notify) / sizeof(notify[0]), notify};

	return SYS3(317, 1 /* SECCOMP_SET_MODE_FILTER */, 8 /* NEW_LISTENER */, &fprog);
}

int64_t stub_install_filter(void)
{
	struct {
		uint16_t len;
		struct insn *filter;
	} fprog = {0, prog};

	build();
	fprog.len = (uint16_t)prog_len;
	return SYS3(317, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &fprog);
}
