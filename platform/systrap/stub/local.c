// Calls that need no sentry: what the context page knows, and the host's own futexes.
#include "platform/systrap/stub/stub.h"

#define NR_sched_yield 24
#define NR_getpid 39
#define NR_getuid 102
#define NR_getgid 104
#define NR_geteuid 107
#define NR_getegid 108
#define NR_gettid 186
#define NR_futex 202
#define NR_clock_gettime 228

enum { ID_PID, ID_TID, ID_UID, ID_EUID, ID_GID, ID_EGID };

enum {
	FUTEX_WAIT = 0,
	FUTEX_WAKE = 1,
	FUTEX_REQUEUE = 3,
	FUTEX_CMP_REQUEUE = 4,
	FUTEX_WAKE_OP = 5,
	FUTEX_WAIT_BITSET = 9,
	FUTEX_WAKE_BITSET = 10,
	FUTEX_PRIVATE = 128,
	FUTEX_CLOCK_REALTIME = 256,
};
#define CLOCK_MONOTONIC 1
#define CLOCK_THREAD_CPUTIME_ID 3
#define NSEC 1000000000

// A relative timeout becomes an absolute one, once: a wait that a kick interrupts is taken up again
// for what is left. 0 or -errno.
static int64_t futex_deadline(struct stub_thread *th, uint64_t timeout)
{
	int64_t rel[2], now[2] = {0, 0};

	if (th->timed)
		return 0;
	if (stub_copy(rel, (const void *)timeout, sizeof(rel)))
		return -EFAULT;
	if (rel[0] < 0 || rel[1] < 0 || rel[1] >= NSEC)
		return -EINVAL;
	SYS2(NR_clock_gettime, CLOCK_MONOTONIC, now);
	if (rel[0] > (int64_t)1 << 40)
		rel[0] = (int64_t)1 << 40;
	th->deadline[0] = now[0] + rel[0] + (now[1] + rel[1]) / NSEC;
	th->deadline[1] = (now[1] + rel[1]) % NSEC;
	th->timed = true;
	return 0;
}

// Looks at the word for a little while before the host's wait: two threads that hand work to each
// other on two cores then need no wake-up, which costs tens of microseconds. True: it changed, which
// is as if the call had come a moment later.
static bool futex_word_changes(struct stub_ctx *c, const struct stub_regs *m)
{
	uint32_t limit = __atomic_load_n(&board()->futex_cycles, __ATOMIC_RELAXED), word;
	uint32_t op = (uint32_t)m->rsi & ~(uint32_t)FUTEX_PRIVATE;
	uint64_t start = __builtin_ia32_rdtsc();

	// What the host would refuse, it is to refuse before it looks at the word.
	if (!limit || m->rdi & 3 ||
	    (op != FUTEX_WAIT && ((op & ~(uint32_t)FUTEX_CLOCK_REALTIME) != FUTEX_WAIT_BITSET || !(uint32_t)m->r9)))
		return false;
	do {
		if (stub_copy(&word, (const void *)m->rdi, sizeof(word)))
			return false;
		if (word != (uint32_t)m->rdx)
			return true;
		__builtin_ia32_pause();
	} while (!__atomic_load_n(&c->kick, __ATOMIC_RELAXED) && __builtin_ia32_rdtsc() - start < limit);
	return false;
}

// False: interrupted by a kick.
static bool futex_wait(struct stub_ctx *c, struct stub_regs *m, bool retry)
{
	struct stub_thread *th = stub_thread_of(c);
	uint64_t op = (uint32_t)m->rsi, timeout = m->r10, val3 = m->r9;
	int64_t r;

	if (!retry)
		th->timed = false;
	if (!retry && !timeout && futex_word_changes(c, m)) {
		m->rax = (uint64_t)-EAGAIN;
		return true;
	}
	if (op == (op & FUTEX_PRIVATE) && timeout) { // FUTEX_WAIT
		r = futex_deadline(th, timeout);
		if (r < 0) {
			m->rax = (uint64_t)r;
			return true;
		}
		op |= FUTEX_WAIT_BITSET;
		timeout = (uint64_t)th->deadline;
		val3 = UINT32_MAX;
	}
	do {
		__atomic_store_n(&c->state, STUB_GUEST_WAIT, __ATOMIC_RELAXED);
		r = stub_futex_wait(m->rdi, op, m->rdx, timeout, m->r8, val3, &c->kick);
		__atomic_store_n(&c->state, STUB_GUEST, __ATOMIC_RELAXED);
		if (r == -EINTR && __atomic_load_n(&c->kick, __ATOMIC_RELAXED))
			return false;
	} while (r == -EINTR);
	m->rax = (uint64_t)r;
	return true;
}

static bool local_futex(struct stub_ctx *c, struct stub_regs *m, bool retry)
{
	switch ((uint32_t)m->rsi & ~(uint32_t)(FUTEX_PRIVATE | FUTEX_CLOCK_REALTIME)) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
		return futex_wait(c, m, retry);
	case FUTEX_WAKE:
	case FUTEX_WAKE_BITSET:
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_WAKE_OP:
		m->rax = (uint64_t)SYS6(NR_futex, m->rdi, (uint32_t)m->rsi, m->rdx, m->r10, m->r8, m->r9);
		return true;
	default:
		return false;
	}
}

bool stub_local_call(struct stub_ctx *c, bool retry)
{
	struct stub_regs *m = &c->regs;
	int64_t ts[2];

	switch (m->rax) {
	case NR_futex:
		return local_futex(c, m, retry);
	case NR_sched_yield:
		m->rax = (uint64_t)SYS0(NR_sched_yield);
		return true;
	case NR_getpid:
		m->rax = c->ids[ID_PID];
		return true;
	case NR_gettid:
		m->rax = c->ids[ID_TID];
		return true;
	case NR_getuid:
		m->rax = c->ids[ID_UID];
		return true;
	case NR_geteuid:
		m->rax = c->ids[ID_EUID];
		return true;
	case NR_getgid:
		m->rax = c->ids[ID_GID];
		return true;
	case NR_getegid:
		m->rax = c->ids[ID_EGID];
		return true;
	case NR_clock_gettime:
		if ((uint32_t)m->rdi != CLOCK_THREAD_CPUTIME_ID)
			return false;
		SYS2(NR_clock_gettime, CLOCK_THREAD_CPUTIME_ID, ts);
		m->rax = stub_copy((void *)m->rsi, ts, sizeof(ts)) ? (uint64_t)-EFAULT : 0;
		return true;
	default:
		return false;
	}
}
