// Contexts: resuming them, and what their stops mean.
#include <linux/audit.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "platform/ptrace/internal.h"

DEFINE_SLAB(ctx_slab, struct pt_ctx);

#define EFLAGS_USER 0x240dd5u // CF PF AF ZF SF TF DF OF AC ID
#define HOST_TOP 0x7ffffffff000ULL

static long req(int r, pid_t tid, uint64_t addr, uint64_t data)
{
	return syscall(SYS_ptrace, r, tid, addr, data);
}

struct pt_ctx *pt_ctx_new(struct pt_as *as, pid_t tid, const struct pt_ctx *like)
{
	struct pt_platform *pt = pt_of(as->base.pf);
	struct pt_ctx *c = SLAB_NEW(ctx_slab, struct pt_ctx);

	if (!c)
		return NULL;
	c->base.as = &as->base;
	c->base.ev.kind = PF_EV_READY;
	c->tid = tid;
	c->state = PT_SENTRY;
	c->time_slot = pt->next_time_slot++ % PTL_DATA_NTIMES;
	if (like)
		c->regs = like->regs;
	else
		pt_clean_regs(&c->regs);
	c->regs_dirty = true;
	as->n_ctx++;
	LIST_INSERT_HEAD(&as->ctxs, c, as_link);
	LIST_INSERT_HEAD(&pt->by_tid[tid % PT_HASH], c, hash_link);
	return c;
}

void pt_ctx_free(struct pt_ctx *c)
{
	if (c->pending)
		TAILQ_REMOVE(&ctx_pt(c)->pending, c, pending_link);
	LIST_REMOVE(c, as_link);
	LIST_REMOVE(c, hash_link);
	kfree(c->store_buf);
	slab_free(&ctx_slab, c);
}

// The next pf_poll delivers it.
void pt_post(struct pt_ctx *c, const struct pf_event *ev)
{
	kassert(!c->pending);
	c->base.ev = *ev;
	c->pending = true;
	TAILQ_INSERT_TAIL(&ctx_pt(c)->pending, c, pending_link);
}

static void post_kind(struct pt_ctx *c, enum pf_event_kind kind)
{
	pt_post(c, &(struct pf_event){.kind = kind});
}

// --- registers ----------------------------------------------------------------------------------

void pt_clean_regs(struct abi_regs *r)
{
	r->cs = 0x33;
	r->ss = 0x2b;
	r->ds = r->es = r->fs = r->gs = 0;
	r->eflags = (r->eflags & EFLAGS_USER) | 0x202;
	// The host refuses these as a whole, with all other registers.
	if (r->fs_base >= HOST_TOP)
		r->fs_base = 0;
	if (r->gs_base >= HOST_TOP)
		r->gs_base = 0;
}

void pt_get_guest_regs(struct pf_ctx *ctx, struct abi_regs *ret)
{
	pt_own(pt_ctx_of(ctx));
	*ret = pt_ctx_of(ctx)->regs;
}

void pt_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs)
{
	struct pt_ctx *c = pt_ctx_of(ctx);

	pt_own(c);
	c->regs = *regs;
	pt_clean_regs(&c->regs);
	c->regs_dirty = true;
}

void pt_set_result(struct pf_ctx *ctx, int64_t rax)
{
	pt_own(pt_ctx_of(ctx));
	pt_ctx_of(ctx)->regs.rax = (uint64_t)rax;
	pt_ctx_of(ctx)->regs_dirty = true;
}

void pt_set_identity(struct pf_ctx *ctx, const struct pf_identity *id)
{
	pt_ctx_of(ctx)->id = *id;
}

void pt_set_local_calls(struct pf_ctx *ctx, bool on)
{
	pt_ctx_of(ctx)->local_calls = on;
}

// --- the host's futex -----------------------------------------------------------------------------

static bool is_local_futex(const struct abi_regs *r)
{
	if (r->orig_rax != SYS_futex)
		return false;
	switch ((uint32_t)r->rsi & (uint32_t)FUTEX_CMD_MASK) {
	case FUTEX_WAIT:
	case FUTEX_WAIT_BITSET:
	case FUTEX_WAKE:
	case FUTEX_WAKE_BITSET:
	case FUTEX_REQUEUE:
	case FUTEX_CMP_REQUEUE:
	case FUTEX_WAKE_OP:
		return true;
	}
	return false;
}

// FUTEX_WAIT with a timeout: an absolute one from the first time on, so that a wait that is taken up
// again lasts for what is left. -errno as futex(2).
static int futex_deadline(struct pt_ctx *c, uint64_t timeout)
{
	struct timespec rel, now;

	if (!c->timed) {
		struct iovec iov = {&rel, sizeof(rel)};

		if (pt_readv(c->base.as, timeout, &iov, 1) != (ssize_t)sizeof(rel))
			return -EFAULT;
		if (rel.tv_sec < 0 || rel.tv_nsec < 0 || rel.tv_nsec >= 1000000000)
			return -EINVAL;
		clock_gettime(CLOCK_MONOTONIC, &now);
		now.tv_sec += MIN(rel.tv_sec, (time_t)1 << 40);
		now.tv_nsec += rel.tv_nsec;
		if (now.tv_nsec >= 1000000000) {
			now.tv_nsec -= 1000000000;
			now.tv_sec++;
		}
		c->until = now;
		c->timed = true;
	}
	if (!pt_poke(ctx_as(c), PTL_DATA_TIMES + c->time_slot * 16UL, &c->until, sizeof(c->until)))
		return -EFAULT;
	return 0;
}

static void run_guest(struct pt_ctx *c);

// After a stop that means nothing to the sentry. Any stop uses up a pending kick, so that must be
// reported now. c->regs are the guest's.
static void go_on(struct pt_ctx *c)
{
	c->regs.orig_rax = UINT64_MAX;
	if (c->kicked)
		post_kind(c, PF_EV_INTERRUPT);
	else
		run_guest(c);
}

// Lets the thread perform the futex call that it is at.
static void futex_start(struct pt_ctx *c)
{
	const struct abi_regs *r = &c->regs;
	uint64_t args[6] = {r->rdi, (uint32_t)r->rsi, r->rdx, r->r10, r->r8, r->r9};
	int e;

	if ((args[1] & (uint32_t)FUTEX_CMD_MASK) == FUTEX_WAIT && !(args[1] & FUTEX_CLOCK_REALTIME) && r->r10) {
		e = futex_deadline(c, r->r10);
		if (e) {
			c->regs.rax = (uint64_t)(int64_t)e;
			c->regs_dirty = true;
			run_guest(c);
			return;
		}
		args[1] |= FUTEX_WAIT_BITSET;
		args[3] = PTL_DATA_TIMES + c->time_slot * 16UL;
		args[5] = FUTEX_BITSET_MATCH_ANY;
	}
	c->state = PT_FUTEX;
	pt_call_start(c, SYS_futex, args);
}

static struct pf_event syscall_event(const struct abi_regs *r)
{
	return (struct pf_event){.kind = PF_EV_SYSCALL,
				 .sc = {.nr = (uint32_t)r->orig_rax,
					.args = {r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9}}};
}

// The thread has stopped in, or after, its futex call.
static void futex_stopped(struct pt_ctx *c)
{
	struct pf_event ev = syscall_event(&c->regs);
	int64_t result;

	if (!pt_call_result(c, &result))
		result = -EINTR; // it had not even begun
	if (result == -EINTR) {
		// Of a wake-up that is ours the sentry decides what the call answers; of others nobody
		// knows, so the call goes on.
		if (c->kicked)
			pt_post(c, &ev);
		else
			futex_start(c);
		return;
	}
	c->timed = false;
	c->regs.rax = (uint64_t)result;
	c->regs_dirty = true;
	go_on(c);
}

// --- resuming -------------------------------------------------------------------------------------

static void run_guest(struct pt_ctx *c)
{
	c->state = PT_GUEST;
	if (c->regs_dirty) {
		struct abi_regs r = c->regs;

		r.orig_rax = UINT64_MAX; // no call that the host might restart
		if (req(PTRACE_SETREGS, c->tid, 0, (uint64_t)&r) < 0)
			c->gone = true;
		c->regs_dirty = false;
	}
	if (!c->gone && req(PTRACE_SYSEMU, c->tid, 0, 0) < 0)
		c->gone = true;
}

void pt_resume(struct pf_ctx *ctx)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	bool retry = c->retry;

	pt_own(c);
	c->retry = false;
	if (!c->gone && !c->has_failure)
		pt_apply_stores(c);
	c->n_stores = c->store_used = c->op_index = 0;
	c->kicked = false;
	c->state = PT_GUEST;
	ctx_pt(c)->n_in_guest++;
	if (c->has_failure && !c->gone) {
		c->has_failure = false;
		pt_post(c, &c->failure);
		return;
	}
	if (!c->gone) {
		if (retry && is_local_futex(&c->regs)) {
			futex_start(c);
		} else if (retry) {
			pt_post(c, &c->base.ev);
			return;
		} else {
			c->timed = false;
			run_guest(c);
		}
	}
	if (c->gone)
		post_kind(c, PF_EV_DEAD);
}

void pt_will_block(struct pf_ctx *ctx)
{
}

bool pt_in_guest(const struct pf_ctx *ctx)
{
	return pt_ctx_of(ctx)->state != PT_SENTRY;
}

void pt_retry_call(struct pf_ctx *ctx)
{
	pt_own(pt_ctx_of(ctx));
	kassert(ctx->ev.kind == PF_EV_SYSCALL);
	pt_ctx_of(ctx)->retry = true;
}

// --- stops ----------------------------------------------------------------------------------------

// Calls that need no sentry. False: it does.
static bool local_call(struct pt_ctx *c)
{
	uint64_t r;

	switch (c->regs.orig_rax) {
	case SYS_futex:
		if (!is_local_futex(&c->regs))
			return false;
		futex_start(c);
		return true;
	case SYS_sched_yield:
		r = 0;
		break;
	case SYS_getpid:
		r = c->id.pid;
		break;
	case SYS_gettid:
		r = c->id.tid;
		break;
	case SYS_getuid:
		r = c->id.uid;
		break;
	case SYS_geteuid:
		r = c->id.euid;
		break;
	case SYS_getgid:
		r = c->id.gid;
		break;
	case SYS_getegid:
		r = c->id.egid;
		break;
	default:
		return false;
	}
	c->regs.rax = r;
	c->regs_dirty = true;
	run_guest(c);
	return true;
}

static void syscall_stopped(struct pt_ctx *c)
{
	struct __ptrace_syscall_info info = {0};
	struct pf_event ev;

	if (req(PTRACE_GET_SYSCALL_INFO, c->tid, sizeof(info), (uint64_t)&info) < 0 || pt_get_regs(c, &c->regs) < 0)
		return; // dying: its end will be reported
	c->regs.rax = (uint64_t)-ENOSYS;
	// int 0x80 and sysenter are other interfaces: the guest's Linux was built without, so that the
	// instruction faults.
	if (info.arch != AUDIT_ARCH_X86_64) {
		ev = (struct pf_event){.kind = PF_EV_FAULT,
				       .fault = {.signo = SIGSEGV, .code = SI_KERNEL, .trapno = 13, .err = 0x402}};
		c->regs.rax = c->regs.orig_rax;
		c->regs.orig_rax = UINT64_MAX;
		c->regs.rip -= 2;
		c->regs_dirty = true;
		pt_post(c, &ev);
		return;
	}
	// With a kick under way it goes to the sentry, which retries it after what it has to do.
	if (c->local_calls && !c->kicked && local_call(c))
		return;
	ev = syscall_event(&c->regs);
	pt_post(c, &ev);
}

// The numbers that a signal frame shows, as far as they follow from what ptrace tells.
static uint32_t fault_trap(int signo, int code, uint32_t *ret_err)
{
	*ret_err = 0;
	switch (signo) {
	case SIGSEGV:
		if (code == SI_KERNEL)
			return 13; // general protection
		*ret_err = code == SEGV_MAPERR ? 4 : 5; // user mode; the page is there
		return 14;
	case SIGBUS:
		return code == BUS_ADRALN ? 17 : 14;
	case SIGILL:
		return 6;
	case SIGTRAP:
		return code == SI_KERNEL ? 3 : 1;
	}
	return code == FPE_INTDIV ? 0 : 19;
}

static bool is_fault(const siginfo_t *si)
{
	switch (si->si_signo) {
	case SIGSEGV:
	case SIGBUS:
	case SIGFPE:
	case SIGILL:
	case SIGTRAP:
		return si->si_code > 0;
	}
	return false;
}

static void signal_stopped(struct pt_ctx *c, int signo)
{
	struct pf_event ev = {.kind = PF_EV_FAULT, .fault.signo = signo};
	siginfo_t si;

	if (req(PTRACE_GETSIGINFO, c->tid, 0, (uint64_t)&si) < 0 || pt_get_regs(c, &c->regs) < 0)
		return;
	if (!is_fault(&si)) { // sent by somebody
		go_on(c);
		return;
	}
	c->regs.orig_rax = UINT64_MAX;
	ev.fault.code = si.si_code;
	ev.fault.addr = signo == SIGTRAP && si.si_code == SI_KERNEL ? 0 : (uint64_t)si.si_addr;
	ev.fault.trapno = fault_trap(signo, si.si_code, &ev.fault.err);
	pt_post(c, &ev);
}

// A kick is reported before a fault that is already on its way. By the time that the fault came,
// the sentry might have sent the thread elsewhere: so the fault goes first, and alone.
static bool fault_behind(struct pt_ctx *c)
{
	struct __ptrace_peeksiginfo_args args = {.nr = 4};
	siginfo_t si[4];
	long n = req(PTRACE_PEEKSIGINFO, c->tid, (uint64_t)&args, (uint64_t)si);

	for (long i = 0; i < n; i++)
		if (is_fault(&si[i]))
			return true;
	return false;
}

void pt_stopped(struct pt_ctx *c, int status)
{
	struct pt_platform *pt = ctx_pt(c);
	int event, sig;

	if (WIFSTOPPED(status) && status >> 16 && c->state != PT_SENTRY && !c->pending && fault_behind(c)) {
		// The signal is taken before the thread gets to its code.
		if (req(PTRACE_SYSEMU, c->tid, 0, 0) < 0 || !pt_wait_stop(c, &status))
			status = SIGKILL; // as waitpid says that it was killed
	}
	event = status >> 16;

	if (!WIFSTOPPED(status)) {
		c->gone = c->reaped = true;
		if (pt->zygote && c == pt->zygote->leader && pt->p.cfg.hooks.lost)
			pt->p.cfg.hooks.lost(&pt->p);
		if (c->state != PT_SENTRY && !c->pending)
			post_kind(c, PF_EV_DEAD);
		return;
	}
	if (c->state == PT_SENTRY || c->pending) {
		log_warn("ptrace: thread %d stopped twice: %#x", c->tid, status);
		return;
	}
	sig = WSTOPSIG(status);
	if (c->state == PT_FUTEX) {
		futex_stopped(c);
	} else if (sig == (SIGTRAP | 0x80)) {
		syscall_stopped(c);
	} else if (event) {
		// PTRACE_EVENT_STOP: a kick, or a stop signal of somebody else.
		if (pt_get_regs(c, &c->regs) == 0)
			go_on(c);
	} else {
		signal_stopped(c, sig);
	}
	if (c->gone && !c->pending)
		post_kind(c, PF_EV_DEAD);
}

void pt_kick(struct pf_ctx *ctx)
{
	struct pt_ctx *c = pt_ctx_of(ctx);
	int status;

	if (c->state == PT_SENTRY || c->pending || c->kicked || c->gone)
		return;
	c->kicked = true;
	// A stop that nobody has looked at will do; an interruption would only come after the next resume.
	if (waitpid(c->tid, &status, __WALL | WNOHANG) == c->tid)
		pt_stopped(c, status);
	else
		req(PTRACE_INTERRUPT, c->tid, 0, 0); // any other stop that comes first does as well
}
