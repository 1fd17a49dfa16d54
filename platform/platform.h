// The platform: runs guest code and brings back its system calls and faults.
//
// This header is the whole contract between the sentry and a backend (systrap, ptrace, fake).
//
//   address space (pf_as)  guest memory; a host process that the sentry never maps
//   context (pf_ctx)       one guest thread in an address space
//
// A context belongs to the sentry or to the guest, never to both. pf_resume() gives it to the
// guest; an event gives it back. While the sentry owns it, it may read and set registers, queue
// memory operations and stores (performed by the backend in order, on the way back to the guest).
//
// Threading: everything here is called on the one kernel thread. "May wait" functions call
// hooks.wait() and so may be called only by a task that may wait.
// Errors: negative errno.
//
// Everything a backend reports comes from hostile memory: events are private, validated copies.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "abi/x86_64/regs.h"

// Guest addresses are below this. The backend keeps what is above (stub, vDSO, contexts).
#define PF_GUEST_TOP 0x7fff00000000ULL
#define PF_GUEST_MIN 0x10000ULL // vm.mmap_min_addr

enum pf_event_kind {
	PF_EV_NONE,
	PF_EV_SYSCALL,     // .sc
	PF_EV_FAULT,       // .fault: a hardware fault of guest code
	PF_EV_INTERRUPT,   // after pf_kick(); no guest progress is lost
	PF_EV_READY,       // a new context exists and waits (pf_as_new, pf_fork)
	PF_EV_OPS_DONE,    // pf_flush() finished (seen by the backend's waiter only)
	PF_EV_OPS_FAILED,  // .ops: a queued memory operation failed on the way back to the guest
	PF_EV_STORE_FAULT, // .ops.index: a deferred store hit a bad address
	PF_EV_DEAD,        // the address space's host process is gone
};

struct pf_event {
	enum pf_event_kind kind;
	union {
		struct {
			uint32_t nr;
			uint64_t args[6];
		} sc;
		struct {
			int signo, code; // as in siginfo: SIGSEGV/SEGV_MAPERR ...
			uint64_t addr;
			uint32_t trapno, err; // as in sigcontext
		} fault;
		struct {
			unsigned index;
			int error; // -errno of the host call
			uint64_t addr, len;
		} ops;
	};
};

struct platform;

struct pf_as {
	struct platform *pf;
	void *owner; // the kernel's; the backend never looks
};

struct pf_ctx {
	struct pf_as *as;
	void *owner;        // the struct sched_task to wake; set by the kernel (or by hooks.wait)
	struct pf_event ev; // the last event; valid while the sentry owns the context
	bool unseen;        // the scheduler's: an event was delivered that nobody has waited for yet
};

// What the backend asks of its user (the scheduler; a plain loop in unit tests).
struct pf_hooks {
	void (*event)(struct pf_ctx *ctx); // ctx->ev was filled; called from pf_poll()
	void (*wait)(struct pf_ctx *ctx);  // return once an event for ctx has been delivered
	// Where systrap may keep trampolines for the system call at `site`: the address of len bytes (page
	// aligned, a multiple of the page size) within 2 GiB of it that no mapping uses now or later; the
	// same for sites that are near each other, and after a fork. 0: leave the site alone: it is not in a
	// private file mapping that is readable, executable and not writable. NULL: no site is rewritten.
	uint64_t (*patch_area)(struct pf_as *as, uint64_t site, uint64_t len);
	// Whatever guest processes start from was killed: no new one can be made. Called from pf_poll() or from
	// pf_prepare_sleep(), more than once perhaps. NULL: nobody minds.
	void (*lost)(struct platform *pf);
};

struct pf_config {
	struct pf_hooks hooks;
	int zygote_sock;        // systrap: the zygote's socket (see platform/systrap/zygote.h); -1 otherwise
	int zygote_pid;
	unsigned host_cpus;     // cores this sandbox may use
	bool cpu_quota;         // a CPU quota is in force: never poll long
	bool no_patching;       // systrap: keep trapping, rewrite no call site
};

// Creates the backend called `name` ("systrap", "ptrace", "fake"). -ENOENT: no such backend.
int pf_create(const char *name, const struct pf_config *cfg, struct platform **ret_pf);
void pf_destroy(struct platform *pf);
const char *pf_name(const struct platform *pf);

// --- the loop -------------------------------------------------------------------------------
// Collects what has happened; calls hooks.event() per event; returns how many. Never waits.
unsigned pf_poll(struct platform *pf);
// Before sleeping: false if something has happened since the last pf_poll (do not sleep then).
// After true, an event makes pf_poll_fd() readable. pf_woke() ends the announcement.
bool pf_prepare_sleep(struct platform *pf);
void pf_woke(struct platform *pf);
int pf_poll_fd(const struct platform *pf);
// Nanoseconds of polling that are worth it right now; 0 when no core is idle for it.
uint64_t pf_spin_ns(const struct platform *pf);

// --- address spaces and contexts ------------------------------------------------------------
// An empty address space with one context, from the pool where it has one. May wait.
int pf_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
// fork(2): a copy of parent's memory with one context, a copy of parent's registers. Shared
// mappings stay shared. `parent` stays with the sentry. May wait.
int pf_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
// Another context in creator's address space, with a copy of creator's registers. The host thread
// is started when `creator` goes back to the guest; the new context may be resumed at once. If the
// host refuses, creator gets PF_EV_OPS_FAILED.
int pf_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx);
// The guest thread is over; the context must be the sentry's. What is queued on it (stores, wake-ups)
// is still performed while the address space lives, without anybody waiting for it. Frees ctx.
void pf_ctx_exit(struct pf_ctx *ctx);
// Kills the host process; contexts still with the guest get PF_EV_DEAD. Idempotent, never waits.
void pf_as_kill(struct pf_as *as);
// Frees an address space all of whose contexts have exited; kills what is left of it.
void pf_as_free(struct pf_as *as);

void pf_resume(struct pf_ctx *ctx);
// The coming answer will take long: lets the guest thread stop polling for it. Cheap, optional.
void pf_will_block(struct pf_ctx *ctx);
// Makes a context that is in the guest come back soon with some event. Harmless otherwise.
void pf_kick(struct pf_ctx *ctx);
bool pf_in_guest(const struct pf_ctx *ctx);
// The coming resume performs the reported system call over again: in the backend where that can (a
// futex wait that a kick interrupted goes on for the time that is left, whatever pf_set_local_calls
// says), else it is reported again. Registers must not have been changed since the event.
void pf_retry_call(struct pf_ctx *ctx);

// --- registers (sentry must own ctx) --------------------------------------------------------
void pf_get_regs(struct pf_ctx *ctx, struct abi_regs *ret);
// Canonicalises what would harm (segment selectors, IOPL and friends are fixed up).
void pf_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs);
// The hot path: sets rax only, as the result of the system call being answered.
void pf_set_result(struct pf_ctx *ctx, int64_t rax);
// Vector state in XSAVE standard format. pf_fp_size() bytes. May wait.
size_t pf_fp_size(const struct platform *pf);
int pf_get_fp(struct pf_ctx *ctx, void *buf);
int pf_set_fp(struct pf_ctx *ctx, const void *buf); // -EINVAL for an invalid header
int pf_reset_fp(struct pf_ctx *ctx);                // as after execve

// --- answers the backend may give without the sentry ----------------------------------------
struct pf_identity {
	uint32_t pid, tid, uid, euid, gid, egid;
};
void pf_set_identity(struct pf_ctx *ctx, const struct pf_identity *id);
// When off (strace, seccomp of the guest, ptrace of the guest) every call comes to the sentry.
void pf_set_local_calls(struct pf_ctx *ctx, bool on);

// --- memory operations ----------------------------------------------------------------------
enum pf_op_kind { PF_OP_MAP_ANON, PF_OP_MAP_FD, PF_OP_UNMAP, PF_OP_PROTECT, PF_OP_REMAP, PF_OP_ADVISE, PF_OP_MSYNC };

struct pf_op {
	enum pf_op_kind kind;
	uint64_t addr, len; // page aligned
	uint32_t prot;      // PROT_* (MAP_*, PROTECT)
	uint32_t flags;     // MAP_SHARED|PRIVATE|GROWSDOWN|NORESERVE|POPULATE|LOCKED for MAP_*; advice; MREMAP_DONTUNMAP
	int fd;             // MAP_FD: borrowed; the backend has its own reference when pf_queue_op returns
	uint64_t off;       // MAP_FD: byte offset
	uint64_t new_addr, new_len; // REMAP: always to a fixed address; new_addr == addr resizes in place
};
// Queues an operation on ctx's way back. All MAP_* are MAP_FIXED: the caller decides addresses. May
// wait (queue full, or another context of the address space has operations under way: operations
// of one address space happen in the order in which they were queued).
int pf_queue_op(struct pf_ctx *ctx, const struct pf_op *op);
// Performs the queued operations and stores now. 0 or -errno of the first that failed. May wait.
int pf_flush(struct pf_ctx *ctx);

// Reads/writes guest memory directly (host protection applies). Bytes done, or -EFAULT if none.
ssize_t pf_read(struct pf_as *as, uint64_t addr, void *buf, size_t len);
ssize_t pf_write(struct pf_as *as, uint64_t addr, const void *buf, size_t len);
struct iovec;
ssize_t pf_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
ssize_t pf_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);

// Bytes of guest memory at addr that came along with the event: how many of them (0: none), and
// where. The memory is shared with the guest: read each byte once.
size_t pf_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret);
// Room for a deferred store of len bytes at addr, performed on the way back; NULL: no room. The
// bytes are to be written at once. pf_store_trim() shortens the last reservation.
void *pf_store(struct pf_ctx *ctx, uint64_t addr, size_t len);
void pf_store_trim(struct pf_ctx *ctx, size_t len);
// Applies deferred stores that overlap [addr, addr+len) now, and those queued before them; uaccess
// calls it before a direct access.
int pf_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len);
// Wakes host futex waiters on addr in ctx's address space, on the way back (thread exit, robust
// lists). shared: the futex may be in shared memory.
int pf_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared);

// --- accounting -----------------------------------------------------------------------------
uint64_t pf_as_cpu_ns(struct pf_as *as);   // CPU time of the host process, user + system
uint64_t pf_ctx_cpu_ns(struct pf_ctx *ctx); // of the one thread, as far as known
// Where the host's vDSO lies in every address space (AT_SYSINFO_EHDR); 0 if none. [ret_start,
// ret_end) covers vvar and vdso.
uint64_t pf_vdso(const struct platform *pf, uint64_t *ret_start, uint64_t *ret_end);
