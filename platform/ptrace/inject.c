// Host calls in a stopped thread.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "platform/ptrace/internal.h"

// What the host kernel leaves in rax when a signal interrupts a call (not an ABI of its calls, but
// of ptrace: errno.h of the kernel, 512 and up).
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

// glibc declares PTRACE requests as an enum and the call as variadic; this has the types we mean.
static long pt_req(int req, pid_t tid, uint64_t addr, uint64_t data)
{
	return syscall(SYS_ptrace, req, tid, addr, data);
}

int pt_get_regs(struct pt_ctx *c, struct abi_regs *ret)
{
	return pt_req(PTRACE_GETREGS, c->tid, 0, (uint64_t)ret) < 0 ? -errno : 0;
}

bool pt_seize_setup(struct pt_ctx *c)
{
	uint64_t opts = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE |
			PTRACE_O_TRACEEXEC;

	return pt_req(PTRACE_SEIZE, c->tid, 0, opts) == 0;
}

// Statuses of other threads stay with the host until somebody asks for them.
bool pt_wait_stop(struct pt_ctx *c, int *ret_status)
{
	int status;
	pid_t r;

	do
		r = waitpid(c->tid, &status, __WALL);
	while (r < 0 && errno == EINTR);
	if (r != c->tid || !WIFSTOPPED(status)) {
		c->gone = c->reaped = true;
		return false;
	}
	*ret_status = status;
	return true;
}

// Sets the thread off at `rip` of the blob. The guest's registers are written again before it runs
// guest code.
static bool blob_start(struct pt_ctx *c, uint64_t rip, uint64_t nr, const uint64_t args[6])
{
	struct abi_regs r = c->regs;

	r.rip = rip;
	r.rax = nr;
	r.orig_rax = UINT64_MAX;
	r.rdi = args[0];
	r.rsi = args[1];
	r.rdx = args[2];
	r.r10 = args[3];
	r.r8 = args[4];
	r.r9 = args[5];
	r.eflags = 0x202; // above all without the trap flag
	c->regs_dirty = true;
	if (c->gone || pt_req(PTRACE_SETREGS, c->tid, 0, (uint64_t)&r) < 0 ||
	    pt_req(PTRACE_CONT, c->tid, 0, 0) < 0)
		return false;
	return true;
}

// Lets the thread run to the int3. Fork events leave the new thread in ret_child.
static int blob_finish(struct pt_ctx *c, struct abi_regs *ret_regs, pid_t *ret_child)
{
	int status, event;

	for (;;) {
		if (!pt_wait_stop(c, &status))
			return -ESRCH;
		event = status >> 16;
		if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_CLONE) {
			uint64_t child = 0;

			if (pt_req(PTRACE_GETEVENTMSG, c->tid, 0, (uint64_t)&child) == 0 && ret_child)
				*ret_child = (pid_t)child;
		} else if (event == 0) {
			switch (WSTOPSIG(status)) {
			case SIGTRAP:
				return pt_get_regs(c, ret_regs);
			case SIGSEGV:
			case SIGBUS:
				return -EFAULT;
			}
		}
		// Anything else has nothing to do with us: signals of others, a late interruption.
		if (pt_req(PTRACE_CONT, c->tid, 0, 0) < 0 && errno == ESRCH)
			continue; // it dies; waitpid will say so
	}
}

static int64_t call(struct pt_ctx *c, long nr, const uint64_t args[6], pid_t *ret_child)
{
	struct abi_regs r;
	int e;

	if (!blob_start(c, PTL_SYSCALL, (uint64_t)nr, args))
		return -ESRCH;
	e = blob_finish(c, &r, ret_child);
	if (e)
		return e;
	if (r.rip != PTL_SYSCALL_DONE) {
		log_warn("ptrace: thread %d stopped at %#lx during a host call", c->tid, r.rip);
		return -EFAULT;
	}
	return (int64_t)r.rax;
}

int64_t pt_call(struct pt_ctx *c, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
		uint64_t a5)
{
	const uint64_t args[6] = {a0, a1, a2, a3, a4, a5};

	kassert(c->state == PT_SENTRY);
	return call(c, nr, args, NULL);
}

int pt_clone(struct pt_ctx *c, uint64_t flags, pid_t *ret_tid)
{
	const uint64_t args[6] = {flags, 0, PTL_DATA_MISC, PTL_DATA_MISC, 0, 0};
	pid_t child = 0;
	int64_t r = call(c, SYS_clone, args, &child);
	int status;

	kassert(c->state == PT_SENTRY);
	if (child <= 0)
		return r < 0 ? (int)r : -EAGAIN;
	// The new thread stops by itself, before it runs anything.
	while (waitpid(child, &status, __WALL) < 0)
		if (errno != EINTR)
			return -ESRCH;
	if (!WIFSTOPPED(status))
		return -ESRCH;
	*ret_tid = child;
	return 0;
}

int pt_touch(struct pt_ctx *c, uint64_t addr, bool write)
{
	const uint64_t args[6] = {addr};
	struct abi_regs r;

	kassert(c->state == PT_SENTRY);
	if (!blob_start(c, write ? PTL_TOUCH_WRITE : PTL_TOUCH_READ, 0, args))
		return -ESRCH;
	return blob_finish(c, &r, NULL);
}

void pt_call_start(struct pt_ctx *c, long nr, const uint64_t args[6])
{
	if (!blob_start(c, PTL_SYSCALL, (uint64_t)nr, args))
		c->gone = true;
}

bool pt_call_result(struct pt_ctx *c, int64_t *ret_result)
{
	struct abi_regs r;
	int64_t v;

	if (pt_get_regs(c, &r) < 0 || (r.rip != PTL_SYSCALL_DONE && r.rip != PTL_SYSCALL_DONE - 1))
		return false;
	v = (int64_t)r.rax;
	if (v <= -ERESTARTSYS && v >= -ERESTART_RESTARTBLOCK)
		v = -EINTR;
	*ret_result = v;
	return true;
}

void pt_stopped_orphan(pid_t tid)
{
	struct abi_regs r;

	// It stopped on its way to the host's exit(2): see pt_ctx_exit. Guest code it must not run.
	if (pt_req(PTRACE_GETREGS, tid, 0, (uint64_t)&r) == 0 && r.rip >= PTL_SYSCALL && r.rip < PTL_SYSCALL_DONE)
		pt_req(PTRACE_CONT, tid, 0, 0);
}
