// The zygote's start: what all stubs inherit. Runs once, before the filter is in force.
#include "platform/systrap/stub/stub.h"

#define NR_close 3
#define NR_mmap 9
#define NR_rt_sigaction 13
#define NR_rt_sigprocmask 14
#define NR_mincore 27
#define NR_madvise 28
#define NR_sigaltstack 131
#define NR_prctl 157
#define NR_exit_group 231
#define NR_prlimit64 302
#define NR_sendmsg 46
#define NR_membarrier 324

#define AT_SYSINFO_EHDR 33
#define AT_HWCAP2 26
#define HWCAP2_FSGSBASE 2
#define SA_FLAGS (0x4 | 0x04000000 | 0x08000000) // SIGINFO RESTORER ONSTACK
#define SA_NODEFER 0x40000000
#define RLIMIT_STACK 3
#define PAGE 4096UL
#define BIT(sig) (1ULL << ((sig) - 1))

enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11, SIGSYS = 31 };

struct ksigaction {
	void (*handler)(int, struct abi_siginfo *, struct abi_ucontext *);
	uint64_t flags;
	void (*restorer)(void);
	uint64_t mask;
};

void stub_start(const uint64_t *sp);

// The zygote writes nothing to anybody: its exit status says where it failed.
static void need(int64_t r, int where)
{
	if (r < 0 && r > -4096)
		for (;;)
			SYS1(NR_exit_group, where);
}

static void set_handlers(void)
{
	static const uint8_t sigs[] = {SIGSYS, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, STUB_KICK_SIGNAL};
	// A fault of the stub's own copies, and a kick, may come while a handler runs.
	struct ksigaction sa = {stub_signal, 0, stub_restorer, ~(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(STUB_KICK_SIGNAL))};

	for (uint32_t i = 0; i < sizeof(sigs); i++) {
		sa.flags = SA_FLAGS | (sigs[i] == SIGSEGV || sigs[i] == SIGBUS ? SA_NODEFER : 0);
		need(SYS4(NR_rt_sigaction, sigs[i], &sa, 0, 8), 10);
	}
}

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t *a, uint32_t *b, uint32_t *c)
{
	uint32_t d;

	__asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(d) : "a"(leaf), "c"(sub));
}

static void find_fp_features(void)
{
	uint32_t a, b, c, lo, hi;

	stub_fp_size = ABI_XSAVE_LEGACY + ABI_XSAVE_HEADER;
	cpuid(1, 0, &a, &b, &c);
	if (!(c & 1u << 27)) // OSXSAVE
		return;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	stub_fp_features = lo & ABI_XFEATURES_DEFAULT;
	for (uint32_t i = 2; i < 10; i++) {
		if (!(stub_fp_features >> i & 1))
			continue;
		cpuid(0xd, i, &a, &b, &c);
		if (a + b > stub_fp_size)
			stub_fp_size = a + b;
	}
}

// The fast way needs the base of %gs, rorx, xsave, and a way to make other threads see new code.
static void find_patch_features(void)
{
	uint32_t a, b, c;

	cpuid(0, 0, &a, &b, &c);
	if (a < 7 || !stub_fsgsbase || !stub_fp_features || stub_fp_size + 4 > STUB_IMAGE_MAX)
		return;
	cpuid(7, 0, &a, &b, &c);
	stub_can_patch = (b & 1u << 8) && SYS2(NR_membarrier, 64 /* REGISTER_..._SYNC_CORE */, 0) == 0;
}

static bool is_mapped(uint64_t addr)
{
	uint8_t v;

	return SYS3(NR_mincore, addr, PAGE, &v) == 0;
}

// The vDSO has its data pages right below it.
static void find_vdso(struct stub_ctx *c, uint64_t vdso)
{
	uint64_t start = vdso, end = vdso;

	c->args[STUB_READY_VDSO] = vdso;
	if (!vdso)
		return;
	for (int i = 0; i < 16 && is_mapped(start - PAGE); i++)
		start -= PAGE;
	for (int i = 0; i < 4 && is_mapped(end); i++)
		end += PAGE;
	c->args[STUB_READY_VDSO_START] = start;
	c->args[STUB_READY_VDSO_END] = end;
}

// Sends the sentry the descriptor through which it approves clones. Where the host lets nobody listen,
// or somebody listens already, there is none.
static void offer_listener(struct stub_ctx *c)
{
	int64_t fd = stub_install_listener();
	char byte = 'L';
	struct iovec iov = {&byte, 1};
	struct cmsg cm;
	struct msghdr h;

	if (fd < 0)
		return;
	memset(&cm, 0, sizeof(cm));
	memset(&h, 0, sizeof(h));
	cm.len = 20;
	cm.level = 1; // SOL_SOCKET, SCM_RIGHTS
	cm.type = 1;
	cm.fds[0] = (int32_t)fd;
	h.iov = &iov;
	h.iovlen = 1;
	h.control = &cm;
	h.controllen = sizeof(cm);
	need(SYS3(NR_sendmsg, STUB_FD_SOCK, &h, 0), 26);
	SYS1(NR_close, fd);
	c->args[STUB_READY_LISTENER] = 1;
}

static void zygote_main(void)
{
	struct stub_ctx *c = stub_ctx_at(0);
	struct abi_ucontext uc __attribute__((aligned(16)));

	stub_thread_setup(c, true);
	// The children, all with slot 0, come out of stub_serve with copies of this frame.
	stub_frame_init(&uc, c);
	stub_serve(c, &uc, STUB_EV_READY);
}

// sp: the initial stack, with argc, argv, environment and auxiliary vector. It stays mapped: ps shows
// the arguments from there.
void stub_start(const uint64_t *sp)
{
	static const char name[16] = "runsc-zygote";
	struct abi_stack ss = {STUB_STACK_BASE, 0, 0, STUB_STACK_SIZE - STUB_THREAD_ROOM};
	uint64_t vdso = 0, none = 0, lim[2];
	struct stub_ctx *c = stub_ctx_at(0);

	sp += sp[0] + 2;
	while (*sp++)
		;
	for (; sp[0]; sp += 2) {
		if (sp[0] == AT_SYSINFO_EHDR)
			vdso = sp[1];
		else if (sp[0] == AT_HWCAP2)
			stub_fsgsbase = sp[1] & HWCAP2_FSGSBASE;
	}
	need(SYS6(NR_mmap, STUB_BOARD_BASE, PAGE, 1, 0x11, STUB_FD_BOARD, 0), 20);
	need(SYS6(NR_mmap, STUB_CTX_BASE, STUB_CTX_TOTAL, 3, 0x11, STUB_FD_CTX, 0), 21);
	need(SYS6(NR_mmap, STUB_STACK_BASE, STUB_STACK_TOTAL, 3, 0x4032, -1, 0), 22);
	// A page or two of each slot is all that is used.
	SYS3(NR_madvise, STUB_STACK_BASE, STUB_STACK_TOTAL, 15 /* MADV_NOHUGEPAGE */);
	SYS1(NR_close, STUB_FD_BOARD);
	SYS1(NR_close, STUB_FD_CTX);
	find_vdso(c, vdso);
	c->args[STUB_READY_FSGSBASE] = stub_fsgsbase;
	find_fp_features();
	find_patch_features();
	set_handlers();
	need(SYS2(NR_sigaltstack, &ss, 0), 23);
	need(SYS4(NR_rt_sigprocmask, 2, &none, 0, 8), 24);
	// The guest's stacks are plain mappings to the host, limited by the sentry.
	if (SYS4(NR_prlimit64, 0, RLIMIT_STACK, 0, lim) == 0) {
		lim[0] = lim[1];
		SYS4(NR_prlimit64, 0, RLIMIT_STACK, lim, 0);
	}
	SYS2(NR_prctl, 15 /* PR_SET_NAME */, name);
	offer_listener(c);
	need(stub_install_filter(), 25);
	stub_on_stack((void *)stub_stack_top(0), zygote_main);
}
