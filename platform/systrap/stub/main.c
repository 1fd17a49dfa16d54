// Signals, and the conversation with the sentry.
#include "platform/systrap/stub/stub.h"

#define NR_write 1
#define NR_exit 60
#define NR_futex 202
#define NR_prctl 157

#define SIGILL 4
#define SIGTRAP 5
#define SIGBUS 7
#define SIGFPE 8
#define SIGSEGV 11
#define SIGSYS 31
#define SYS_SECCOMP 1
#define AUDIT_ARCH_X86_64 0xc000003eu
#define SI_KERNEL 0x80

bool stub_fsgsbase;

static inline uint64_t fs_base_get(void)
{
	uint64_t v = 0;

	if (likely(stub_fsgsbase))
		__asm__ volatile("rdfsbase %0" : "=r"(v));
	else
		SYS2(158, 0x1003, &v); // arch_prctl(ARCH_GET_FS)
	return v;
}

static inline uint64_t gs_base_get(void)
{
	uint64_t v = 0;

	if (likely(stub_fsgsbase))
		__asm__ volatile("rdgsbase %0" : "=r"(v));
	else
		SYS2(158, 0x1004, &v);
	return v;
}

static void fs_base_set(uint64_t v)
{
	if (likely(stub_fsgsbase))
		__asm__ volatile("wrfsbase %0" : : "r"(v));
	else
		SYS2(158, 0x1002, v);
}

static void gs_base_set(uint64_t v)
{
	if (likely(stub_fsgsbase))
		__asm__ volatile("wrgsbase %0" : : "r"(v));
	else
		SYS2(158, 0x1001, v);
}

static void regs_out(struct stub_regs *r, const struct abi_sigcontext *m)
{
	r->r15 = m->r15, r->r14 = m->r14, r->r13 = m->r13, r->r12 = m->r12;
	r->rbp = m->rbp, r->rbx = m->rbx, r->r11 = m->r11, r->r10 = m->r10;
	r->r9 = m->r9, r->r8 = m->r8, r->rax = m->rax, r->rcx = m->rcx;
	r->rdx = m->rdx, r->rsi = m->rsi, r->rdi = m->rdi;
	r->rip = m->rip, r->eflags = m->eflags, r->rsp = m->rsp;
	r->fs_base = fs_base_get();
	r->gs_base = gs_base_get();
}

static void regs_in(struct abi_sigcontext *m, const volatile struct stub_regs *r)
{
	m->r15 = r->r15, m->r14 = r->r14, m->r13 = r->r13, m->r12 = r->r12;
	m->rbp = r->rbp, m->rbx = r->rbx, m->r11 = r->r11, m->r10 = r->r10;
	m->r9 = r->r9, m->r8 = r->r8, m->rax = r->rax, m->rcx = r->rcx;
	m->rdx = r->rdx, m->rsi = r->rsi, m->rdi = r->rdi;
	m->rip = r->rip, m->eflags = r->eflags, m->rsp = r->rsp;
	m->cs = ABI_USER_CS, m->ss = ABI_USER_SS;
	fs_base_set(r->fs_base);
	gs_base_set(r->gs_base);
}

static inline uint64_t cycles(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

static inline uint32_t state_get(struct stub_ctx *c)
{
	return __atomic_load_n(&c->state, __ATOMIC_ACQUIRE);
}

static inline bool is_mine(uint32_t state)
{
	return state == STUB_GUEST;
}

// Rings when the sentry sleeps. Comes after a full barrier that follows the state's change: either
// the sentry sees the change before it sleeps, or this sees its announcement.
static inline void ring_if_asleep(void)
{
	static const uint64_t one = 1;

	if (__atomic_load_n(&((const struct stub_board *)STUB_BOARD_BASE)->asleep, __ATOMIC_RELAXED))
		SYS3(NR_write, STUB_FD_WAKE, &one, sizeof(one));
}

static void wait_answer(struct stub_ctx *c)
{
	uint32_t spin = __atomic_load_n(&((const struct stub_board *)STUB_BOARD_BASE)->spin_cycles, __ATOMIC_RELAXED);
	uint32_t s = state_get(c);

	if (spin && s == STUB_SENTRY) {
		uint64_t start = cycles();

		do {
			__builtin_ia32_pause();
			s = state_get(c);
		} while (s == STUB_SENTRY && cycles() - start < spin);
	}
	while (!is_mine(s)) {
		if (s != STUB_SENTRY_FUTEX) {
			uint32_t want = s;

			if (!__atomic_compare_exchange_n(&c->state, &want, STUB_SENTRY_FUTEX, false, __ATOMIC_ACQ_REL,
							 __ATOMIC_ACQUIRE)) {
				s = want;
				continue;
			}
		}
		SYS4(NR_futex, &c->state, 0 /* FUTEX_WAIT */, STUB_SENTRY_FUTEX, 0);
		s = state_get(c);
	}
}

static void publish(struct stub_ctx *c, uint32_t kind)
{
	c->kind = kind;
	// A kick that was sent before this event is answered by it.
	__atomic_store_n(&c->kick, 0, __ATOMIC_RELAXED);
	__atomic_exchange_n(&c->state, STUB_SENTRY, __ATOMIC_SEQ_CST);
	ring_if_asleep();
}

static void ops_finished(struct stub_ctx *c)
{
	__atomic_exchange_n(&c->ops_done, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->notify, __ATOMIC_RELAXED))
		ring_if_asleep();
}

// The frame of a context that has none yet: a thread of the zygote's children.
static void frame_init(struct abi_ucontext *uc, const struct stub_ctx *c)
{
	uint64_t slot = ((uint64_t)c - STUB_CTX_BASE) / STUB_CTX_SIZE;

	memset(uc, 0, sizeof(*uc));
	uc->flags = ABI_UC_SIGCONTEXT_SS | ABI_UC_STRICT_RESTORE_SS;
	uc->stack.sp = STUB_STACK_BASE + slot * STUB_STACK_SIZE;
	uc->stack.size = STUB_STACK_SIZE - STUB_THREAD_ROOM;
	uc->mc.cs = ABI_USER_CS;
	uc->mc.ss = ABI_USER_SS;
	uc->mc.eflags = ABI_EFLAGS_FIXED;
}

static uint32_t publish_syscall(struct stub_ctx *c, const struct abi_ucontext *uc)
{
	const struct abi_sigcontext *m = &uc->mc;

	regs_out(&c->regs, m);
	c->nr = m->rax;
	c->args[0] = m->rdi, c->args[1] = m->rsi, c->args[2] = m->rdx;
	c->args[3] = m->r10, c->args[4] = m->r8, c->args[5] = m->r9;
	return STUB_EV_SYSCALL | stub_snapshot(c, (uint32_t)m->rax) << 8;
}

_Noreturn void stub_serve(struct stub_ctx *c, struct abi_ucontext *uc, uint32_t kind)
{
	struct abi_ucontext fresh __attribute__((aligned(16)));

	if (!uc) {
		uc = &fresh;
		frame_init(uc, c);
	}
	for (;;) {
		uint32_t cmd;

		if (kind)
			publish(c, kind);
		wait_answer(c);
		cmd = c->kind;
		kind = STUB_EV_NONE;
		if (cmd & STUB_CMD_OPS) {
			kind = stub_run_ops(c, uc);
			if (kind == STUB_EV_READY)
				continue; // the child of a fork
			ops_finished(c);
			if (kind)
				continue;
		}
		if (cmd & STUB_CMD_FLUSH) {
			kind = STUB_EV_OPS_DONE;
			continue;
		}
		if (cmd & STUB_CMD_EXIT)
			SYS1(NR_exit, 0);
		if (cmd & STUB_CMD_REGS)
			regs_in(&uc->mc, &c->regs);
		else if (cmd & STUB_CMD_RESULT)
			uc->mc.rax = c->nr;
		if (cmd & STUB_CMD_RETRY) {
			if (!stub_local_call(c, uc, true)) {
				kind = publish_syscall(c, uc);
				continue;
			}
		} else {
			stub_thread_of(c)->timed = false;
		}
		stub_sigreturn(uc, &c->kick);
	}
}

_Noreturn void stub_thread_main(struct abi_ucontext *uc)
{
	stub_serve(stub_self(), uc, STUB_EV_NONE);
}

_Noreturn void stub_interrupted(struct abi_ucontext *uc)
{
	struct stub_ctx *c = stub_self();

	regs_out(&c->regs, &uc->mc);
	stub_serve(c, uc, STUB_EV_INTERRUPT);
}

static bool in_range(uint64_t ip, const char *begin, const char *end)
{
	return ip >= (uint64_t)begin && ip < (uint64_t)end;
}

// A signal that interrupted the stub itself: true if that was foreseen and is dealt with.
static bool nested_signal(int sig, struct abi_sigcontext *m)
{
	if (sig == STUB_KICK_SIGNAL) {
		if (in_range(m->rip, stub_futex_begin, stub_futex_end))
			m->rip = (uint64_t)stub_futex_abort;
		else if (in_range(m->rip, stub_return_begin, stub_return_end))
			m->rip = (uint64_t)stub_return_abort;
		return true;
	}
	if (sig != SIGSEGV && sig != SIGBUS)
		return false;
	if (in_range(m->rip, stub_copy_begin, stub_copy_end))
		m->rip = (uint64_t)stub_copy_fixup;
	else if (in_range(m->rip, stub_str_begin, stub_str_end))
		m->rip = (uint64_t)stub_str_fixup;
	else
		return false;
	return true;
}

static uint32_t fault_event(struct stub_ctx *c, int sig, const struct abi_siginfo *si, const struct abi_sigcontext *m)
{
	c->signo = sig;
	c->code = si->code;
	c->fault_addr = si->fault.addr;
	c->trapno = (uint32_t)m->trapno;
	c->err = (uint32_t)m->err;
	return STUB_EV_FAULT;
}

// A 32-bit call: as on a kernel without them, where int $0x80 is a general protection fault.
static uint32_t int80_event(struct stub_ctx *c, struct abi_sigcontext *m)
{
	m->rip -= 2;
	c->signo = SIGSEGV;
	c->code = SI_KERNEL;
	c->fault_addr = 0;
	c->trapno = 13;
	c->err = 0x80 * 8 + 2;
	return STUB_EV_FAULT;
}

void stub_signal(int sig, struct abi_siginfo *si, struct abi_ucontext *uc)
{
	struct stub_ctx *c = stub_self();
	uint32_t kind;

	if (unlikely(in_range(uc->mc.rip, (const char *)STUB_TEXT_BASE, stub_end)) && nested_signal(sig, &uc->mc))
		return;
	if (likely(sig == SIGSYS && si->code == SYS_SECCOMP)) {
		if (likely(si->sigsys.arch == AUDIT_ARCH_X86_64)) {
			uc->mc.rax = (uint32_t)si->sigsys.syscall;
			if (c->local && stub_local_call(c, uc, false))
				stub_sigreturn(uc, &c->kick);
			kind = publish_syscall(c, uc);
			stub_serve(c, uc, kind);
		}
		kind = int80_event(c, &uc->mc);
	} else if (sig == STUB_KICK_SIGNAL) {
		if (!__atomic_load_n(&c->kick, __ATOMIC_RELAXED))
			return; // late: another event answered it
		kind = STUB_EV_INTERRUPT;
	} else {
		kind = fault_event(c, sig, si, &uc->mc);
	}
	regs_out(&c->regs, &uc->mc);
	stub_serve(c, uc, kind);
}
