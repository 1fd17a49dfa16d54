// The ptrace backend: every guest thread is a tracee of the kernel thread, run with
// PTRACE_SYSEMU, so that none of its system calls reaches the host.
//
// What has to be done in a guest process (memory operations, fork, threads) is done by injecting
// host calls into a stopped thread of it: registers are set to the blob's `syscall; int3` and the
// thread runs freely from one to the other. That takes some ten microseconds, during which the
// kernel thread waits. Only a futex wait is left to go on by itself.
//
// A thread that the sentry owns is ptrace-stopped, or gone. Errors of a thread that has died
// meanwhile (somebody killed it) surface as PF_EV_DEAD of its next resume.
#pragma once
#include <signal.h>
#include <sys/queue.h>
#include <time.h>

#include "platform/backend.h"
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "platform/ptrace/layout.h"

#define PT_STORE_BYTES 12288
#define PT_STORES 64

enum pt_state {
	PT_SENTRY, // the sentry's, stopped
	PT_GUEST,  // runs guest code
	PT_FUTEX,  // runs an injected futex call, for the guest
};

struct pt_store {
	uint64_t addr;
	uint32_t len, at;
};

struct pt_ctx {
	struct pf_ctx base;
	pid_t tid;
	enum pt_state state;
	bool leader;      // its process's first thread: it stays, stopped, until the process ends
	bool gone;        // the host thread has ended, or is about to
	bool reaped;      // its end has been waited for, so its number may be somebody else's
	bool kicked;      // since the last resume
	bool regs_dirty;  // regs differ from the host's
	bool pending;     // on pt->pending: base.ev is to be delivered
	bool local_calls;
	bool retry;       // pf_retry_call
	bool timed;       // a relative futex timeout has become an absolute one, in `until`
	bool has_failure; // `failure` comes with the next resume
	struct abi_regs regs; // the guest's
	struct pf_event failure;
	struct timespec until;
	uint32_t time_slot;
	uint32_t n_stores, store_used, op_index;
	struct pt_store stores[PT_STORES];
	char *store_buf; // PT_STORE_BYTES, from the first store on
	struct pf_identity id;
	TAILQ_ENTRY(pt_ctx) pending_link;
	LIST_ENTRY(pt_ctx) as_link, hash_link;
};

struct pt_as {
	struct pf_as base;
	pid_t pid;
	bool killed;      // SIGKILL was sent
	unsigned n_ctx;   // contexts the sentry knows
	struct pt_ctx *leader; // the context of the first thread, kept after its exit
	LIST_HEAD(pt_ctx_list, pt_ctx) ctxs;
	uint64_t cpu_ns;  // the last reading
};

#define PT_HASH 256
TAILQ_HEAD(pt_ctx_tailq, pt_ctx);
struct pt_platform {
	struct platform p;
	struct pt_as *zygote;
	int sock, sig_fd;
	sigset_t old_mask;
	unsigned n_in_guest;
	pid_t *dying;      // killed processes whose ends have not been waited for
	size_t n_dying, cap_dying;
	unsigned next_time_slot;
	struct pt_ctx_tailq pending;
	LIST_HEAD(, pt_ctx) by_tid[PT_HASH];
	size_t fp_size, fp_full; // what the contract shows, and what the host wants
	uint64_t fp_features;
	uint64_t vdso, vdso_start, vdso_end;
};

static inline struct pt_platform *pt_of(const struct platform *pf) { return (struct pt_platform *)(uintptr_t)pf; }
static inline struct pt_as *pt_as_of(const struct pf_as *as) { return (struct pt_as *)(uintptr_t)as; }
static inline struct pt_ctx *pt_ctx_of(const struct pf_ctx *ctx) { return (struct pt_ctx *)(uintptr_t)ctx; }
static inline struct pt_as *ctx_as(const struct pt_ctx *c) { return pt_as_of(c->base.as); }
static inline struct pt_platform *ctx_pt(const struct pt_ctx *c) { return pt_of(c->base.as->pf); }
static inline void pt_own(const struct pt_ctx *c) { kassert(c->state == PT_SENTRY && !c->pending); }

// inject.c: all of these block the kernel thread for as long as the host call takes. -errno of the
// call, -ESRCH if the thread is gone.
int64_t pt_call(struct pt_ctx *c, long nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
		uint64_t a5);
// clone(2) with `flags`: ret_tid is a new tracee, stopped before its first instruction.
int pt_clone(struct pt_ctx *c, uint64_t flags, pid_t *ret_tid);
// Makes the thread read or write the byte at addr, as its own code would. -EFAULT.
int pt_touch(struct pt_ctx *c, uint64_t addr, bool write);
// Starts a host call that will end by itself: see pt_async_result.
void pt_call_start(struct pt_ctx *c, long nr, const uint64_t args[6]);
// After a stop of such a call: true with its result; false if it has not run to its end. -EINTR
// stands for every way in which a signal can have interrupted it.
bool pt_call_result(struct pt_ctx *c, int64_t *ret_result);
bool pt_wait_stop(struct pt_ctx *c, int *ret_status); // blocks; false: gone
int pt_get_regs(struct pt_ctx *c, struct abi_regs *ret);
// A stop of a thread that the sentry has forgotten.
void pt_stopped_orphan(pid_t tid);
bool pt_seize_setup(struct pt_ctx *c);

// ctx.c
struct pt_ctx *pt_ctx_new(struct pt_as *as, pid_t tid, const struct pt_ctx *like);
void pt_ctx_free(struct pt_ctx *c);
void pt_post(struct pt_ctx *c, const struct pf_event *ev);
void pt_resume(struct pf_ctx *ctx);
void pt_will_block(struct pf_ctx *ctx);
void pt_kick(struct pf_ctx *ctx);
bool pt_in_guest(const struct pf_ctx *ctx);
void pt_retry_call(struct pf_ctx *ctx);
void pt_get_guest_regs(struct pf_ctx *ctx, struct abi_regs *ret);
void pt_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs);
void pt_set_result(struct pf_ctx *ctx, int64_t rax);
void pt_set_identity(struct pf_ctx *ctx, const struct pf_identity *id);
void pt_set_local_calls(struct pf_ctx *ctx, bool on);
// What waitpid said about a thread that is in the guest.
void pt_stopped(struct pt_ctx *c, int status);
void pt_clean_regs(struct abi_regs *r);

// as.c
void pt_reaped(struct pt_platform *pt, pid_t pid);
int pt_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
int pt_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
int pt_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx);
void pt_ctx_exit(struct pf_ctx *ctx);
void pt_as_kill(struct pf_as *as);
void pt_as_free(struct pf_as *as);
struct pt_as *pt_as_alloc(struct platform *pf, pid_t pid);

// ops.c
int pt_queue_op(struct pf_ctx *ctx, const struct pf_op *op);
int pt_flush(struct pf_ctx *ctx);
size_t pt_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret);
void *pt_store(struct pf_ctx *ctx, uint64_t addr, size_t len);
void pt_store_trim(struct pf_ctx *ctx, size_t len);
int pt_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len);
int pt_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared);
void pt_apply_stores(struct pt_ctx *c); // failures become c->failure
ssize_t pt_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
ssize_t pt_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
// The backend's own data, above PF_GUEST_TOP.
bool pt_poke(struct pt_as *as, uint64_t addr, const void *buf, size_t len);
bool pt_peek(struct pt_as *as, uint64_t addr, void *buf, size_t len);

// fp.c
int pt_fp_init(struct pt_platform *pt, struct pt_ctx *c);
size_t pt_fp_size(const struct platform *pf);
int pt_get_fp(struct pf_ctx *ctx, void *buf);
int pt_set_fp(struct pf_ctx *ctx, const void *buf);
int pt_reset_fp(struct pf_ctx *ctx);
