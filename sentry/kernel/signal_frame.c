// Signal frames as x86-64 programs, unwinders and debuggers know them, and the way back from them
// (sigreturn(2), sigaltstack(2)).
//
// On the guest's stack, from high to low: the vector state (XSAVE standard format, 64-byte aligned,
// ended by a magic word), then struct sigframe, whose first word is the handler's return address.
#include "sentry/kernel/internal.h"

#include <cpuid.h>
#include <signal.h>

#include "abi/x86_64/xsave.h"
#include "sentry/kernel/sigmask.h"

#define RED_ZONE 128
#define XSTATE_MAGIC1 0x46505853u
#define XSTATE_MAGIC2 0x46505845u
#define FXSAVE_SIZE 512
#define XSTATE_MAX 16384
#define SW_RESERVED_OFF 464
#define XFEATURES_OFF 512

#define UC_FP_XSTATE 1ULL
#define UC_SIGCONTEXT_SS 2ULL
#define UC_STRICT_RESTORE_SS 4ULL

#define USER_CS 0x33
#define USER_DS 0x2b
// Flags that a handler may change for the interrupted code: OF DF SF ZF AF PF CF AC TF RF
#define EFLAGS_FIX 0x50dd5ULL
#define EFLAGS_TF 0x100ULL
#define EFLAGS_DF 0x400ULL
#define EFLAGS_RF 0x10000ULL

struct sigctx {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};
struct sigframe {
	uint64_t restorer;
	uint64_t uc_flags, uc_link;
	struct {
		uint64_t sp;
		uint32_t flags, pad;
		uint64_t size;
	} stack;
	struct sigctx mc;
	uint64_t mask;
	uint8_t info[128];
};
_Static_assert(sizeof(struct sigctx) == 256, "struct sigcontext");
_Static_assert(sizeof(struct sigframe) == 440, "struct rt_sigframe");

struct sw_reserved {
	uint32_t magic1, extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size, padding[7];
};
_Static_assert(sizeof(struct sw_reserved) == 48, "struct _fpx_sw_bytes");

// What the host's kernel has enabled, as XGETBV shows it.
static uint64_t host_xfeatures(void)
{
	static uint64_t cached;
	uint32_t a, b, c, d, lo, hi;

	if (cached)
		return cached;
	cached = 3;
	if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 27))) {
		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		cached = (lo | (uint64_t)hi << 32) & ABI_XFEATURES_DEFAULT;
	}
	return cached;
}

// --- siginfo_t ----------------------------------------------------------------------------------

static void put32(uint8_t *p, size_t off, uint32_t v)
{
	memcpy(p + off, &v, sizeof(v));
}

static void put64(uint8_t *p, size_t off, uint64_t v)
{
	memcpy(p + off, &v, sizeof(v));
}

static bool is_fault(int sig)
{
	return sig == SIGILL || sig == SIGFPE || sig == SIGSEGV || sig == SIGBUS || sig == SIGTRAP;
}

void signal_info_encode(const struct ksiginfo *i, uint8_t ret[128])
{
	if (i->is_raw) {
		memcpy(ret, i->raw, 128);
		put32(ret, 0, (uint32_t)i->signo);
		return;
	}
	memset(ret, 0, 128);
	put32(ret, 0, (uint32_t)i->signo);
	put32(ret, 4, (uint32_t)i->errno_);
	put32(ret, 8, (uint32_t)i->code);
	if (i->code == SI_TIMER) {
		put32(ret, 16, (uint32_t)i->timerid);
		put32(ret, 20, (uint32_t)i->status);
		put64(ret, 24, i->value);
	} else if (i->code <= 0) {
		put32(ret, 16, (uint32_t)i->pid);
		put32(ret, 20, i->uid);
		if (i->code != SI_USER && i->code != SI_TKILL)
			put64(ret, 24, i->value);
	} else if (i->code == SI_KERNEL) {
		return;
	} else if (i->signo == SIGCHLD) {
		put32(ret, 16, (uint32_t)i->pid);
		put32(ret, 20, i->uid);
		put32(ret, 24, (uint32_t)i->status);
		put64(ret, 32, (uint64_t)i->utime);
		put64(ret, 40, (uint64_t)i->stime);
	} else if (is_fault(i->signo)) {
		put64(ret, 16, i->addr);
	} else if (i->signo == SIGSYS) {
		put64(ret, 16, i->addr);
		put32(ret, 24, (uint32_t)i->status);
		put32(ret, 28, (uint32_t)i->value);
	} else { // SIGIO and the signals that F_SETSIG puts in its place
		put64(ret, 16, (uint64_t)(int64_t)i->band);
		put32(ret, 24, (uint32_t)i->fd);
	}
}

// --- the alternate stack ------------------------------------------------------------------------

static bool on_altstack(const struct task *t, uint64_t sp)
{
	if (t->sas_flags & KSS_AUTODISARM)
		return false;
	return sp > t->sas_sp && sp - t->sas_sp <= t->sas_size;
}

static uint32_t altstack_flags(const struct task *t, uint64_t sp)
{
	if (!t->sas_size)
		return KSS_DISABLE;
	return on_altstack(t, sp) ? KSS_ONSTACK : 0;
}

void signal_altstack_encode(const struct task *t, uint64_t sp, uint8_t ret[24])
{
	memset(ret, 0, 24);
	put64(ret, 0, t->sas_sp);
	put32(ret, 8, altstack_flags(t, sp) | (t->sas_flags & KSS_AUTODISARM));
	put64(ret, 16, t->sas_size);
}

int signal_altstack_set(struct task *t, uint64_t cur_sp, uint64_t sp, uint32_t flags, uint64_t size, uint64_t min_size)
{
	uint32_t mode = flags & ~KSS_AUTODISARM;

	if (on_altstack(t, cur_sp))
		return -EPERM;
	if (mode != KSS_DISABLE && mode != KSS_ONSTACK && mode != 0)
		return -EINVAL;
	if (t->sas_sp == sp && t->sas_size == size && t->sas_flags == flags)
		return 0;
	if (mode == KSS_DISABLE) {
		sp = 0;
		size = 0;
	} else if (size < min_size) {
		return -ENOMEM;
	}
	t->sas_sp = sp;
	t->sas_size = size;
	t->sas_flags = flags;
	return 0;
}

// --- pushing ------------------------------------------------------------------------------------

// Finds the places of the frame and of the vector state below sp. False: no room.
static bool place_frame(struct task *t, const struct ksigaction *ka, uint64_t sp, size_t fp_size, uint64_t *ret_fp,
			uint64_t *ret_frame)
{
	bool nested = on_altstack(t, sp), entering = false;

	sp -= RED_ZONE;
	if ((ka->flags & KSA_ONSTACK) && altstack_flags(t, sp + RED_ZONE) == 0) {
		sp = t->sas_sp + t->sas_size;
		entering = true;
	}
	sp = (sp - fp_size) & ~63ULL;
	*ret_fp = sp;
	sp = ((sp - sizeof(struct sigframe)) & ~15ULL) - 8;
	*ret_frame = sp;
	// An overflow of the alternate stack must not run into what lies below it.
	if ((nested || entering) && (sp <= t->sas_sp || sp - t->sas_sp > t->sas_size))
		return false;
	return true;
}

static int push_fp(struct task *t, uint64_t addr, size_t size)
{
	struct sw_reserved sw = {.magic1 = XSTATE_MAGIC1, .extended_size = (uint32_t)size + 4,
				 .xfeatures = host_xfeatures(), .xstate_size = (uint32_t)size};
	uint32_t magic2 = XSTATE_MAGIC2;
	uint8_t *buf = arena_alloc(size + sizeof(magic2));
	int r;

	if (!buf)
		return -ENOMEM;
	r = pf_get_fp(t->ctx, buf);
	if (r < 0)
		return r;
	memcpy(buf + SW_RESERVED_OFF, &sw, sizeof(sw));
	memcpy(buf + size, &magic2, sizeof(magic2));
	return copy_out(GADDR(addr), buf, size + sizeof(magic2));
}

static void fill_context(const struct task *t, const struct abi_regs *r, uint64_t fp, uint64_t mask, struct sigctx *mc)
{
	*mc = (struct sigctx){
		.r8 = r->r8, .r9 = r->r9, .r10 = r->r10, .r11 = r->r11, .r12 = r->r12, .r13 = r->r13,
		.r14 = r->r14, .r15 = r->r15, .rdi = r->rdi, .rsi = r->rsi, .rbp = r->rbp, .rbx = r->rbx,
		.rdx = r->rdx, .rax = r->rax, .rcx = r->rcx, .rsp = r->rsp, .rip = r->rip, .eflags = r->eflags,
		.cs = (uint16_t)r->cs, .ss = (uint16_t)r->ss, .err = t->fault_err, .trapno = t->fault_trapno,
		.oldmask = mask, .cr2 = t->fault_addr, .fpstate = fp};
}

int signal_frame_push(struct task *t, const struct ksiginfo *info, const struct ksigaction *ka, struct abi_regs *regs,
		      uint64_t mask)
{
	size_t fp_size = pf_fp_size(kernel_pf);
	struct sigframe f = {.uc_flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS};
	uint64_t fp, sp;
	int r;

	if (!(ka->flags & KSA_RESTORER) || !place_frame(t, ka, regs->rsp, fp_size + 4, &fp, &sp))
		return -EFAULT;
	if (!access_ok(GADDR(sp), fp + fp_size + 4 - sp))
		return -EFAULT;
	r = push_fp(t, fp, fp_size);
	if (r < 0)
		return r;
	f.restorer = ka->restorer;
	f.stack.sp = t->sas_sp;
	f.stack.flags = altstack_flags(t, regs->rsp) | (t->sas_flags & KSS_AUTODISARM);
	f.stack.size = t->sas_size;
	f.mask = mask;
	fill_context(t, regs, fp, mask, &f.mc);
	signal_info_encode(info, f.info);
	r = copy_out(GADDR(sp), &f, sizeof(f));
	if (r < 0)
		return r;
	if (t->sas_flags & KSS_AUTODISARM) {
		t->sas_sp = t->sas_size = 0;
		t->sas_flags = KSS_DISABLE;
	}
	regs->rdi = (uint64_t)info->signo;
	regs->rsi = sp + offsetof(struct sigframe, info);
	regs->rdx = sp + offsetof(struct sigframe, uc_flags);
	regs->rax = 0;
	regs->rip = ka->handler;
	regs->rsp = sp;
	regs->cs = USER_CS;
	regs->ss = USER_DS;
	regs->eflags &= ~(EFLAGS_DF | EFLAGS_RF | EFLAGS_TF);
	regs->orig_rax = (uint64_t)-1;
	pf_set_regs(t->ctx, regs);
	return pf_reset_fp(t->ctx);
}

// --- popping ------------------------------------------------------------------------------------

// What was read in one go: the frame, and mostly what lies above it.
struct popped {
	uint64_t base;
	size_t len;
	uint8_t *buf;
};

static int pop_bytes(const struct popped *p, void *dst, uint64_t addr, size_t n)
{
	if (addr < p->base || addr - p->base > p->len || p->len - (addr - p->base) < n)
		return copy_in(dst, GADDR(addr), n);
	memcpy(dst, p->buf + (addr - p->base), n);
	return 0;
}

// Reads back the vector state at addr. A frame that holds only the legacy part (no magic) gives
// x87 and SSE, the rest is reset.
static int pop_fp(struct task *t, const struct popped *p, uint64_t addr)
{
	size_t size = pf_fp_size(kernel_pf);
	struct sw_reserved sw;
	uint32_t magic2;
	uint64_t features;
	uint8_t *buf;

	if (!addr)
		return pf_reset_fp(t->ctx);
	if (addr & 63)
		return -EFAULT;
	buf = arena_alloc(size + sizeof(magic2));
	if (!buf)
		return -ENOMEM;
	if (pop_bytes(p, buf, addr, size + sizeof(magic2)) < 0 && pop_bytes(p, buf, addr, FXSAVE_SIZE) < 0)
		return -EFAULT;
	memcpy(&sw, buf + SW_RESERVED_OFF, sizeof(sw));
	memcpy(&magic2, buf + size, sizeof(magic2));
	if (sw.magic1 != XSTATE_MAGIC1 || sw.xstate_size != size || magic2 != XSTATE_MAGIC2) {
		memset(buf + FXSAVE_SIZE, 0, size - FXSAVE_SIZE);
		features = 3;
	} else {
		memcpy(&features, buf + XFEATURES_OFF, sizeof(features));
		features &= sw.xfeatures & host_xfeatures();
		// Of the header only the features are the program's to choose.
		memset(buf + XFEATURES_OFF, 0, 64);
	}
	memcpy(buf + XFEATURES_OFF, &features, sizeof(features));
	memset(buf + SW_RESERVED_OFF, 0, sizeof(sw));
	return pf_set_fp(t->ctx, buf);
}

static void restore_context(const struct sigctx *mc, uint64_t uc_flags, struct abi_regs *r)
{
	r->r8 = mc->r8;
	r->r9 = mc->r9;
	r->r10 = mc->r10;
	r->r11 = mc->r11;
	r->r12 = mc->r12;
	r->r13 = mc->r13;
	r->r14 = mc->r14;
	r->r15 = mc->r15;
	r->rdi = mc->rdi;
	r->rsi = mc->rsi;
	r->rbp = mc->rbp;
	r->rbx = mc->rbx;
	r->rdx = mc->rdx;
	r->rax = mc->rax;
	r->rcx = mc->rcx;
	r->rsp = mc->rsp;
	r->rip = mc->rip;
	r->eflags = (r->eflags & ~EFLAGS_FIX) | (mc->eflags & EFLAGS_FIX);
	// 64-bit code only: other selectors would have to be valid in the host.
	r->cs = USER_CS;
	r->ss = USER_DS;
	r->orig_rax = (uint64_t)-1;
}

int64_t signal_frame_pop(struct task *t)
{
	struct abi_regs regs;
	struct sigframe f;
	struct popped p;
	size_t want = sizeof(f) + 80 + pf_fp_size(kernel_pf) + 4; // as place_frame() laid them out
	int r;

	pf_get_regs(t->ctx, &regs);
	p.base = regs.rsp - 8;
	p.buf = arena_alloc(want);
	if (!p.buf)
		return -EFAULT;
	p.len = copy_in_some(p.buf, GADDR(p.base), want);
	if (p.len < sizeof(f))
		return -EFAULT;
	memcpy(&f, p.buf, sizeof(f));
	signal_set_blocked(t, f.mask);
	restore_context(&f.mc, f.uc_flags, &regs);
	r = pop_fp(t, &p, f.mc.fpstate);
	if (r < 0)
		return -EFAULT;
	if (regs.rip >= PF_GUEST_TOP && !kernel_in_vdso(regs.rip))
		return -EFAULT;
	pf_set_regs(t->ctx, &regs);
	signal_altstack_set(t, regs.rsp, f.stack.sp, f.stack.flags, f.stack.size, 0);
	t->restart.fn = NULL;
	return 0;
}
