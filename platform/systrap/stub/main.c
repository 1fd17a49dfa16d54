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
#define FLAGS_UNUSUAL 0x44500 // TF DF NT AC, as in fast.S

bool stub_fsgsbase, stub_can_patch;

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

// A context's own address is the base of %gs as long as the guest does not use it; the guest sees 0.
static void bases_out(struct stub_ctx *c)
{
	uint64_t gs = gs_base_get();

	c->regs.fs_base = fs_base_get();
	c->regs.gs_base = gs == (uint64_t)c ? 0 : gs;
}

static void bases_in(const struct stub_ctx *c)
{
	uint64_t gs = c->regs.gs_base;

	fs_base_set(c->regs.fs_base);
	gs_base_set(gs ? gs : (uint64_t)c);
}

static void regs_out(struct stub_ctx *c, const struct abi_sigcontext *m)
{
	struct stub_regs *r = &c->regs;

	r->r15 = m->r15, r->r14 = m->r14, r->r13 = m->r13, r->r12 = m->r12;
	r->rbp = m->rbp, r->rbx = m->rbx, r->r11 = m->r11, r->r10 = m->r10;
	r->r9 = m->r9, r->r8 = m->r8, r->rax = m->rax, r->rcx = m->rcx;
	r->rdx = m->rdx, r->rsi = m->rsi, r->rdi = m->rdi;
	r->rip = stub_guest_address(m->rip), r->eflags = m->eflags, r->rsp = m->rsp;
	bases_out(c);
}

static void regs_in(struct abi_sigcontext *m, const struct stub_ctx *c)
{
	const volatile struct stub_regs *r = &c->regs;

	m->r15 = r->r15, m->r14 = r->r14, m->r13 = r->r13, m->r12 = r->r12;
	m->rbp = r->rbp, m->rbx = r->rbx, m->r11 = r->r11, m->r10 = r->r10;
	m->r9 = r->r9, m->r8 = r->r8, m->rax = r->rax, m->rcx = r->rcx;
	m->rdx = r->rdx, m->rsi = r->rsi, m->rdi = r->rdi;
	m->rip = stub_code_address(r->rip), m->eflags = r->eflags, m->rsp = r->rsp;
	m->cs = ABI_USER_CS, m->ss = ABI_USER_SS;
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

	if (unlikely(__atomic_load_n(&board()->asleep, __ATOMIC_RELAXED)))
		SYS3(NR_write, STUB_FD_WAKE, &one, sizeof(one));
}

static void wait_answer(struct stub_ctx *c)
{
	uint32_t spin = __atomic_load_n(&board()->spin_cycles, __ATOMIC_RELAXED);
	uint32_t s = state_get(c);

	if (spin && s == STUB_SENTRY) {
		uint64_t start = cycles();

		do {
			for (uint32_t i = 0; i < 8 && s == STUB_SENTRY; i++) {
				__builtin_ia32_pause();
				s = state_get(c);
			}
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

static void hand_over(struct stub_ctx *c, uint32_t kind)
{
	c->kind = kind;
	__atomic_exchange_n(&c->state, STUB_SENTRY, __ATOMIC_SEQ_CST);
	ring_if_asleep();
}

static void publish(struct stub_ctx *c, uint32_t kind)
{
	// A kick that was sent before this event is answered by it.
	if (unlikely(__atomic_load_n(&c->kick, __ATOMIC_RELAXED)))
		__atomic_store_n(&c->kick, 0, __ATOMIC_RELAXED);
	hand_over(c, kind);
}

static void ops_finished(struct stub_ctx *c)
{
	__atomic_exchange_n(&c->ops_done, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&c->notify, __ATOMIC_RELAXED))
		ring_if_asleep();
}

static uint32_t syscall_event(struct stub_ctx *c)
{
	const struct stub_regs *r = &c->regs;

	c->nr = r->rax;
	c->args[0] = r->rdi, c->args[1] = r->rsi, c->args[2] = r->rdx;
	c->args[3] = r->r10, c->args[4] = r->r8, c->args[5] = r->r9;
	return STUB_EV_SYSCALL | stub_snapshot(c, (uint32_t)r->rax) << 8;
}

// Is there anything that only a return through a signal frame restores?
static bool needs_frame(const struct stub_ctx *c)
{
	return c->regs.gs_base || c->regs.eflags & (FLAGS_UNUSUAL | 0x10000 /* RF */);
}

// Back to the guest, from where it came or to where the sentry wants it.
static _Noreturn void to_guest(struct stub_ctx *c, struct abi_ucontext *uc, uint32_t cmd)
{
	struct abi_ucontext made __attribute__((aligned(16)));

	if (cmd & STUB_CMD_REGS)
		bases_in(c);
	if (!uc && !needs_frame(c)) {
		if (cmd & STUB_CMD_REGS)
			c->jmp = stub_code_address(c->regs.rip);
		stub_fast_return(c);
	}
	if (!uc) {
		uc = &made;
		stub_frame_make(uc, c);
		cmd |= STUB_CMD_REGS;
	}
	if (cmd & STUB_CMD_REGS)
		regs_in(&uc->mc, c);
	else
		uc->mc.rax = c->regs.rax;
	stub_sigreturn(uc, &c->kick);
}

// The one store of STUB_CMD_STORE. 0 or the event.
static uint32_t run_store(struct stub_ctx *c)
{
	uint64_t len = c->args[1];
	const void *from = len <= STUB_STORE_INLINE ? (const void *)&c->args[2] : stub_payload(c) + c->args[2];

	if (!stub_copy((void *)c->args[0], from, len))
		return STUB_EV_NONE;
	c->fail_index = 0;
	c->fail_error = -EFAULT;
	return STUB_EV_STORE_FAULT;
}

_Noreturn void stub_serve(struct stub_ctx *c, struct abi_ucontext *uc, uint32_t kind)
{
	for (;;) {
		uint32_t cmd;

		if (kind && kind != STUB_EV_ANSWERED)
			publish(c, kind);
		if (kind != STUB_EV_ANSWERED)
			wait_answer(c);
		cmd = c->kind;
		kind = STUB_EV_NONE;
		if (cmd & STUB_CMD_STORE) {
			kind = run_store(c);
			if (kind)
				continue;
		}
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
		if (cmd & STUB_CMD_RESULT)
			c->regs.rax = c->nr;
		if (cmd & STUB_CMD_RETRY && !stub_local_call(c, true)) {
			kind = syscall_event(c);
			continue;
		}
		to_guest(c, uc, cmd);
	}
}

void stub_thread_setup(struct stub_ctx *c, bool gs)
{
	c->stack = (uint64_t)stub_thread_of(c);
	if (gs)
		gs_base_set((uint64_t)c);
}

_Noreturn void stub_thread_main(struct abi_ucontext *uc)
{
	struct stub_ctx *c = stub_self();

	stub_thread_setup(c, true);
	stub_serve(c, uc, STUB_EV_NONE);
}

_Noreturn void stub_interrupted(struct abi_ucontext *uc)
{
	struct stub_ctx *c = stub_self();

	regs_out(c, &uc->mc);
	stub_serve(c, uc, STUB_EV_INTERRUPT);
}

// --- the fast way (fast.S) ------------------------------------------------------------------------
struct stub_ctx *stub_fast_call(struct stub_ctx *c)
{
	c->regs.fs_base = fs_base_get();
	c->regs.gs_base = 0;
	if (c->local && stub_local_call(c, false))
		return c;
	publish(c, syscall_event(c));
	wait_answer(c);
	if (unlikely(c->kind != STUB_CMD_RESULT))
		stub_serve(c, NULL, STUB_EV_ANSWERED);
	c->regs.rax = c->nr;
	return c;
}

_Noreturn void stub_fast_interrupted(struct stub_ctx *c)
{
	stub_serve(c, NULL, STUB_EV_INTERRUPT);
}

// Asks the sentry for room to rewrite the call site that has just trapped. Not an event of the
// guest's: a kick stays to be answered.
static void patch_site(struct stub_ctx *c)
{
	c->args[0] = c->regs.rip - 2;
	hand_over(c, STUB_EV_PATCH);
	wait_answer(c);
	if (c->nr)
		stub_patch(c, c->nr, c->args[0]);
}

// --- signals ------------------------------------------------------------------------------------
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
		else if (in_range(m->rip, stub_fast_begin, stub_fast_end))
			m->rip = (uint64_t)stub_fast_abort;
		return true;
	}
	if (sig == SIGTRAP && m->eflags & 0x100)
		return true; // single steps of the guest's go on through us
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

static _Noreturn void on_syscall(struct stub_ctx *c, const struct abi_siginfo *si, struct abi_ucontext *uc)
{
	uc->mc.rax = (uint32_t)si->sigsys.syscall;
	regs_out(c, &uc->mc);
	if (unlikely(stub_patch_wanted(c))) {
		patch_site(c);
		uc->mc.rip = stub_code_address(uc->mc.rip);
	}
	if (c->local && stub_local_call(c, false)) {
		uc->mc.rax = c->regs.rax;
		stub_sigreturn(uc, &c->kick);
	}
	stub_serve(c, uc, syscall_event(c));
}

void stub_signal(int sig, struct abi_siginfo *si, struct abi_ucontext *uc)
{
	struct stub_ctx *c = stub_self();
	uint32_t kind;

	if (unlikely(in_range(uc->mc.rip, (const char *)STUB_TEXT_BASE, stub_end))) {
		if (nested_signal(sig, &uc->mc))
			return;
		// A jump that cannot be: the guest's registers are all in place, the fault is at its target.
		if (in_range(uc->mc.rip, stub_fast_begin, stub_fast_end))
			uc->mc.rip = c->jmp;
	}
	if (likely(sig == SIGSYS && si->code == SYS_SECCOMP)) {
		if (likely(si->sigsys.arch == AUDIT_ARCH_X86_64))
			on_syscall(c, si, uc);
		kind = int80_event(c, &uc->mc);
	} else if (sig == STUB_KICK_SIGNAL) {
		if (!__atomic_load_n(&c->kick, __ATOMIC_RELAXED))
			return; // late: another event answered it
		kind = STUB_EV_INTERRUPT;
	} else {
		if (sig == SIGILL && stub_patch_trap(uc->mc.rip, &uc->mc.rip))
			return;
		if (sig == SIGTRAP && uc->mc.eflags & 0x100 && stub_patch_step(uc->mc.rip))
			return;
		kind = fault_event(c, sig, si, &uc->mc);
	}
	// Within a trampoline it goes on at the guest's own address, or what stands for it.
	uc->mc.rip = stub_guest_address(uc->mc.rip);
	regs_out(c, &uc->mc);
	uc->mc.rip = stub_code_address(uc->mc.rip);
	stub_serve(c, uc, kind);
}
