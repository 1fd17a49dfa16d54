// The platform itself: taking over the zygote, polling, sleeping.
#include <elf.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "platform/filter/filter.h"
#include "platform/ptrace/internal.h"

extern const struct filter_prog ptrace_stub_filter;

DEFINE_SLAB(pt_slab, struct pt_platform);

#define SPIN_NS 20000

// --- taking over the zygote -------------------------------------------------------------------------

// Runs it past its exec, to the int3 that the new program begins with. (In the stop that announces
// the exec itself, the call's result has yet to be put into rax.)
static int wait_exec(struct pt_ctx *z)
{
	bool exec = false;
	int status;

	for (;;) {
		if (!pt_wait_stop(z, &status))
			return -ESRCH;
		if (status >> 16 == PTRACE_EVENT_EXEC)
			exec = true;
		else if (exec && status >> 16 == 0 && WSTOPSIG(status) == SIGTRAP)
			return 0;
		if (ptrace(PTRACE_CONT, z->tid, 0, 0) < 0 && errno != ESRCH)
			return -errno;
	}
}

static bool is_mapped(struct pt_ctx *z, uint64_t addr)
{
	return pt_call(z, SYS_mincore, addr, PAGE_SIZE, PTL_DATA_MISC, 0, 0, 0) == 0;
}

// From the auxiliary vector on the initial stack. The vDSO has its data pages right below it.
static int find_vdso(struct pt_platform *pt, struct pt_ctx *z, uint64_t sp)
{
	uint64_t words[256];
	struct iovec local = {words, sizeof(words)}, remote = {(void *)sp, sizeof(words)};
	ssize_t n = process_vm_readv(z->tid, &local, 1, &remote, 1, 0);
	size_t max = n < 0 ? 0 : (size_t)n / 8, i;

	if (max < 2 || words[0] > 16)
		return -EIO;
	for (i = words[0] + 2; i < max && words[i]; i++) // the environment
		;
	for (i++; i + 1 < max && words[i] != AT_NULL; i += 2)
		if (words[i] == AT_SYSINFO_EHDR)
			pt->vdso = words[i + 1];
	if (!pt->vdso)
		return 0;
	pt->vdso_start = pt->vdso_end = pt->vdso;
	for (i = 0; i < 16 && is_mapped(z, pt->vdso_start - PAGE_SIZE); i++)
		pt->vdso_start -= PAGE_SIZE;
	for (i = 0; i < 4 && is_mapped(z, pt->vdso_end); i++)
		pt->vdso_end += PAGE_SIZE;
	return pt->vdso_start >= PF_GUEST_TOP ? 0 : -EIO;
}

// For the calls that are injected: filter_table.c. The program goes through the data area.
static int filter_zygote(struct pt_platform *pt, struct pt_ctx *z)
{
	const struct filter_prog *p = &ptrace_stub_filter;
	size_t len = p->len * sizeof(*p->code);
	struct sock_fprog prog = {.len = p->len, .filter = (struct sock_filter *)(PTL_DATA_TIMES + 64)};
	int64_t r;

	kassert(len + 64 <= PTL_DATA_SIZE - 0x1000);
	if (!pt_poke(pt->zygote, PTL_DATA_TIMES, &prog, sizeof(prog)) ||
	    !pt_poke(pt->zygote, PTL_DATA_TIMES + 64, p->code, len))
		return -EIO;
	r = pt_call(z, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, PTL_DATA_TIMES, 0, 0, 0);
	return r < 0 ? (int)r : 0;
}

// What all address spaces inherit.
static int prepare_zygote(struct pt_platform *pt, struct pt_ctx *z)
{
	static const char name[16] = "runsc-zygote", stub_name[16] = "runsc-stub";
	struct abi_regs regs;
	struct rlimit lim;
	int64_t r;

	r = pt_get_regs(z, &regs);
	if (r)
		return (int)r;
	z->regs = regs;
	pt_clean_regs(&z->regs);
	r = pt_call(z, SYS_mmap, PTL_DATA_BASE, PTL_DATA_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, UINT64_MAX, 0);
	if (r < 0)
		return (int)r;
	if (!pt_poke(pt->zygote, PTL_DATA_MISC, name, sizeof(name)) ||
	    !pt_poke(pt->zygote, PTL_DATA_NAME, stub_name, sizeof(stub_name)))
		return -EIO;
	pt_call(z, SYS_prctl, PR_SET_NAME, PTL_DATA_MISC, 0, 0, 0, 0);
	// The guest's stacks are limited by the sentry.
	if (pt_call(z, SYS_prlimit64, 0, RLIMIT_STACK, 0, PTL_DATA_MISC, 0, 0) == 0 &&
	    pt_peek(pt->zygote, PTL_DATA_MISC, &lim, sizeof(lim))) {
		lim.rlim_cur = lim.rlim_max;
		if (pt_poke(pt->zygote, PTL_DATA_MISC, &lim, sizeof(lim)))
			pt_call(z, SYS_prlimit64, 0, RLIMIT_STACK, PTL_DATA_MISC, 0, 0, 0);
	}
	r = find_vdso(pt, z, regs.rsp);
	if (!r)
		r = pt_fp_init(pt, z);
	return r ? (int)r : filter_zygote(pt, z);
}

static int take_zygote(struct pt_platform *pt)
{
	struct pt_ctx *z;
	int r;

	pt->zygote = pt_as_alloc(&pt->p, pt->p.cfg.zygote_pid);
	z = pt->zygote ? pt_ctx_new(pt->zygote, pt->p.cfg.zygote_pid, NULL) : NULL;
	if (!z)
		return -ENOMEM;
	z->leader = true;
	pt->zygote->leader = z;
	if (!pt_seize_setup(z))
		return -errno;
	if (send(pt->sock, "g", 1, MSG_NOSIGNAL) != 1)
		return -errno;
	r = wait_exec(z);
	return r ? r : prepare_zygote(pt, z);
}

static void pt_destroy(struct platform *pf);

static int pt_create(const struct pf_config *cfg, struct platform **ret_pf)
{
	struct pt_platform *pt = SLAB_NEW(pt_slab, struct pt_platform);
	sigset_t set;
	int r;

	if (!pt)
		return -ENOMEM;
	pt->p.ops = &ptrace_backend;
	pt->p.cfg = *cfg;
	pt->sock = cfg->zygote_sock;
	pt->sig_fd = -1;
	TAILQ_INIT(&pt->pending);
	r = take_zygote(pt);
	if (r) {
		pt_destroy(&pt->p);
		return r;
	}
	// Stops are announced by SIGCHLD, which nobody but the descriptor takes.
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &pt->old_mask);
	pt->sig_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (pt->sig_fd < 0) {
		r = -errno;
		pt_destroy(&pt->p);
		return r;
	}
	*ret_pf = &pt->p;
	return 0;
}

// --- the loop -----------------------------------------------------------------------------------------

static struct pt_ctx *by_tid(struct pt_platform *pt, pid_t tid)
{
	struct pt_ctx *c;

	LIST_FOREACH(c, &pt->by_tid[tid % PT_HASH], hash_link)
		if (c->tid == tid)
			return c;
	return NULL;
}

// Takes what the host has to say about tracees. flags: WNOHANG or 0.
static bool collect_one(struct pt_platform *pt, int flags)
{
	struct pt_ctx *c;
	int status;
	pid_t tid;

	tid = waitpid(-1, &status, __WALL | flags);
	if (tid <= 0)
		return tid < 0 && errno == EINTR;
	c = by_tid(pt, tid);
	if (c)
		pt_stopped(c, status);
	else if (WIFSTOPPED(status))
		pt_stopped_orphan(tid);
	else
		pt_reaped(pt, tid);
	return true;
}

static void collect(struct pt_platform *pt)
{
	while (collect_one(pt, WNOHANG))
		;
}

static void pt_destroy(struct platform *pf)
{
	struct pt_platform *pt = pt_of(pf);

	if (pt->zygote && pt->zygote->leader) {
		pt->zygote->n_ctx = 0;
		pt_as_free(&pt->zygote->base);
	}
	// All address spaces are freed, so all their processes have been killed.
	while (pt->n_dying > 0 && collect_one(pt, 0))
		;
	kfree(pt->dying);
	if (pt->sig_fd >= 0) {
		close(pt->sig_fd);
		sigprocmask(SIG_SETMASK, &pt->old_mask, NULL);
	}
	slab_free(&pt_slab, pt);
}

static unsigned pt_poll(struct platform *pf)
{
	struct pt_platform *pt = pt_of(pf);
	struct pt_ctx *c;
	unsigned n = 0;

	if (pt->n_in_guest == 0 && pt->n_dying == 0)
		return 0;
	collect(pt);
	while ((c = TAILQ_FIRST(&pt->pending))) {
		TAILQ_REMOVE(&pt->pending, c, pending_link);
		c->pending = false;
		c->state = PT_SENTRY;
		kassert(pt->n_in_guest > 0);
		pt->n_in_guest--;
		n++;
		pt->p.cfg.hooks.event(&c->base);
	}
	return n;
}

static bool pt_prepare_sleep(struct platform *pf)
{
	struct pt_platform *pt = pt_of(pf);
	struct signalfd_siginfo si[8];

	// What comes after this read makes the descriptor readable again.
	while (read(pt->sig_fd, si, sizeof(si)) > 0)
		;
	collect(pt);
	return TAILQ_EMPTY(&pt->pending);
}

static void pt_woke(struct platform *pf)
{
}

static int pt_poll_fd(const struct platform *pf)
{
	return pt_of(pf)->sig_fd;
}

static uint64_t pt_spin_ns(const struct platform *pf)
{
	const struct pt_platform *pt = pt_of(pf);

	if (pt->n_in_guest == 0 || pt->n_in_guest >= pt->p.cfg.host_cpus || pt->p.cfg.cpu_quota)
		return 0;
	return SPIN_NS;
}

// --- accounting -----------------------------------------------------------------------------------------

static uint64_t pt_as_cpu_ns(struct pf_as *pf_as)
{
	struct pt_as *as = pt_as_of(pf_as);
	struct timespec ts;

	// The CPU clock of a process: clock_getcpuclockid(3).
	if (!as->leader->gone && clock_gettime((clockid_t)(~(unsigned)as->pid << 3 | 2), &ts) == 0)
		as->cpu_ns = (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
	return as->cpu_ns;
}

static uint64_t pt_ctx_cpu_ns(struct pf_ctx *ctx)
{
	struct pt_as *as = ctx_as(pt_ctx_of(ctx));

	// Known for the only thread; an equal share otherwise.
	return pt_as_cpu_ns(&as->base) / MAX(1U, as->n_ctx);
}

static uint64_t pt_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end)
{
	const struct pt_platform *pt = pt_of(pf);

	*ret_start = pt->vdso_start;
	*ret_end = pt->vdso_end;
	return pt->vdso;
}

const struct pf_backend ptrace_backend = {
	.name = "ptrace",
	.create = pt_create,
	.destroy = pt_destroy,
	.poll = pt_poll,
	.prepare_sleep = pt_prepare_sleep,
	.woke = pt_woke,
	.poll_fd = pt_poll_fd,
	.spin_ns = pt_spin_ns,
	.as_new = pt_as_new,
	.fork = pt_fork,
	.thread_new = pt_thread_new,
	.ctx_exit = pt_ctx_exit,
	.as_kill = pt_as_kill,
	.as_free = pt_as_free,
	.resume = pt_resume,
	.retry_call = pt_retry_call,
	.will_block = pt_will_block,
	.kick = pt_kick,
	.in_guest = pt_in_guest,
	.get_regs = pt_get_guest_regs,
	.set_regs = pt_set_regs,
	.set_result = pt_set_result,
	.fp_size = pt_fp_size,
	.get_fp = pt_get_fp,
	.set_fp = pt_set_fp,
	.reset_fp = pt_reset_fp,
	.set_identity = pt_set_identity,
	.set_local_calls = pt_set_local_calls,
	.queue_op = pt_queue_op,
	.flush = pt_flush,
	.readv = pt_readv,
	.writev = pt_writev,
	.snapshot = pt_snapshot,
	.store = pt_store,
	.store_trim = pt_store_trim,
	.store_sync = pt_store_sync,
	.futex_wake = pt_futex_wake,
	.as_cpu_ns = pt_as_cpu_ns,
	.ctx_cpu_ns = pt_ctx_cpu_ns,
	.vdso = pt_vdso,
};
