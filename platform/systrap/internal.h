// The sentry's side of systrap.
//
// A context is "in the guest" from pf_resume (or an internal hand-over: `flushing`) until its event
// is taken. Contexts in the guest are in st->active, whose state words pf_poll looks at. Everything
// that is read from a context page is copied once, checked, and then used.
#pragma once
#include <sys/queue.h>

#include "abi/x86_64/xsave.h"
#include "platform/backend.h"
#include "platform/base/assert.h"
#include "platform/base/base.h"
#include "platform/base/log.h"
#include "platform/base/slab.h"
#include "platform/systrap/layout.h"

#define ST_POOL_MAX 4

struct st_op_note { // what is private to the sentry about a queued operation
	uint64_t addr, len; // STUB_OP_CLONE: addr is the slot
	uint32_t off;
	uint8_t kind; // enum stub_op_kind
	uint8_t index; // as the caller counts: operations and stores apart
};

struct st_ctx {
	struct pf_ctx base;
	struct stub_ctx *pg; // shared with the stub
	uint32_t slot;
	int active;          // index in st->active; -1: not in the guest
	bool leader;         // its host thread is the process's first and never exits
	bool starting;       // STUB_EV_READY is the event that it owes
	bool for_pool;
	bool flushing;       // in the guest only to perform operations
	bool flush_for_other;// ... without its own task knowing
	bool resume_after;   // ... which wanted to resume it meanwhile
	bool exit_after;     // ... which ended it meanwhile
	bool kicked;
	bool failed;         // no host thread: every resume ends in PF_EV_DEAD
	bool pending;        // on st->pending, with base.ev to deliver
	bool waits_ops;      // on st->op_waiters
	bool queued;         // on st->spawns
	bool regs_valid, regs_dirty;
	bool has_late;       // late_ev is to be delivered instead of the next resume
	uint32_t cmd;        // STUB_CMD_* for the next resume
	uint32_t n_ops, n_map_ops, n_stores; // queued since the last resume
	uint32_t n_given;    // notes of the last resume
	uint32_t payload_used;
	uint32_t n_snaps;
	int64_t result;
	struct abi_regs regs;
	struct pf_event late_ev;
	struct stub_snap snaps[STUB_SNAPS];
	struct st_op_note notes[STUB_OPS];
	TAILQ_ENTRY(st_ctx) link;  // st->pending, or st->spawns
	TAILQ_ENTRY(st_ctx) wlink; // st->op_waiters
	bool expected;             // its operations clone; see st_expect_clone
};
TAILQ_HEAD(st_ctx_list, st_ctx);

#define ST_DRAINING ((struct st_ctx *)1)

struct st_as {
	struct pf_as base;
	int mem_fd, sock;
	int peer;         // the child's end of sock until it is sent; then -1
	pid_t pid;        // 0: not known yet, or no more
	bool born;        // its process said who it is
	bool dead;        // killed, or seen dead
	bool lingers;     // on st->lingering; no contexts any more
	uint64_t cpu_ns;  // the last reading
	char *map;        // STUB_CTX_TOTAL bytes
	struct st_ctx **ctxs; // by slot
	uint32_t cap, n_ctx;
	uint32_t leader_slot; // never given to another context
	uint32_t hint;        // no slot below is free, but those in drain
	uint16_t *drain;      // slots whose host threads are on their way out; ctxs[] holds ST_DRAINING
	uint32_t n_drain, cap_drain;
	uint64_t areas[STUB_AREAS]; // trampolines; mapped in the order of their use
	uint32_t n_areas;
	struct st_ctx *ops_ctx; // has operations that are queued or under way
	LIST_ENTRY(st_as) link;
	LIST_ENTRY(st_as) alink; // st->expected, while n_expected
	uint32_t n_expected;     // contexts whose operations clone
	uint32_t may_fork, may_thread, may_again; // clones that are still to be approved
};

struct systrap {
	struct platform base;
	struct st_as *zygote;
	struct st_ctx *zctx;
	bool zygote_busy;
	bool ready;                 // the zygote has started
	struct st_ctx *spawning;    // the child that the zygote forks right now
	struct st_ctx_list spawns;  // new address spaces that wait for the zygote
	struct stub_board *board;
	int wake_fd, ep_fd;
	int notif_fd;               // clones ask here; -1: they need not
	struct st_ctx **active;
	uint32_t n_active, cap_active, cursor;
	uint32_t n_ctx; // all contexts there are
	uint32_t polls;
	struct st_ctx_list pending, op_waiters;
	LIST_HEAD(, st_as) expected; // whose clones await approval
	LIST_HEAD(, st_as) lingering; // freed before their processes said who they are
	struct st_ctx *pool[ST_POOL_MAX];
	uint32_t n_pool, pool_coming, pool_want;
	LIST_HEAD(, st_as) spaces;
	pid_t *corpses;             // killed, not reaped yet
	uint32_t n_corpses, cap_corpses;
	uint32_t n_lost;            // killed before their pids were known
	pid_t self;
	uint32_t fp_size, mxcsr_mask;
	uint64_t fp_features;
	uint64_t vdso, vdso_start, vdso_end;
	uint32_t n_running;         // of n_active, not counting those that wait in a futex
	int spin_credit;
	bool spun;
};

static inline struct systrap *st_of(const struct platform *pf) { return (struct systrap *)(uintptr_t)pf; }
static inline struct st_as *st_as_of(const struct pf_as *as) { return (struct st_as *)(uintptr_t)as; }
static inline struct st_ctx *st_ctx_of(const struct pf_ctx *ctx) { return (struct st_ctx *)(uintptr_t)ctx; }
static inline struct st_as *ctx_as(const struct st_ctx *c) { return st_as_of(c->base.as); }
static inline struct systrap *ctx_st(const struct st_ctx *c) { return st_of(c->base.as->pf); }
static inline bool st_is_active(const struct st_ctx *c) { return c->active >= 0; }

// ctx.c
struct st_ctx *st_ctx_new(struct st_as *as, uint32_t slot); // NULL: out of memory
void st_ctx_free(struct st_ctx *c);
void st_give(struct st_ctx *c, uint32_t cmd);   // to the stub, with what is queued
bool st_take(struct st_ctx *c);                 // the event, if there is one: true if it was delivered
void st_post(struct st_ctx *c, enum pf_event_kind kind); // delivers base.ev with the next poll
void st_post_event(struct st_ctx *c, const struct pf_event *ev);
int st_active_room(struct systrap *st);         // for one context more: 0 or -ENOMEM
void st_active_add(struct st_ctx *c);
void st_active_remove(struct st_ctx *c);
void systrap_resume(struct pf_ctx *ctx);
void systrap_will_block(struct pf_ctx *ctx);
void systrap_kick(struct pf_ctx *ctx);
bool systrap_in_guest(const struct pf_ctx *ctx);
void systrap_retry_call(struct pf_ctx *ctx);
void systrap_get_regs(struct pf_ctx *ctx, struct abi_regs *ret);
void systrap_set_regs(struct pf_ctx *ctx, const struct abi_regs *regs);
void systrap_set_result(struct pf_ctx *ctx, int64_t rax);
void systrap_set_identity(struct pf_ctx *ctx, const struct pf_identity *id);
void systrap_set_local_calls(struct pf_ctx *ctx, bool on);

// thread.c
#define ST_TID_UNBORN UINT32_MAX // in stub_ctx.tid: the host thread is yet to start
void st_threads_failed(struct st_ctx *c, uint32_t first); // those that op `first` and later were to start
int systrap_thread_new(struct pf_ctx *creator, struct pf_ctx **ret_ctx);
void systrap_ctx_exit(struct pf_ctx *ctx);

// as.c
int st_as_adopt(struct systrap *st, int sock, int mem_fd, pid_t pid, struct st_as **ret_as); // the zygote
struct st_as *st_as_alloc(struct systrap *st); // registered, no process yet
void st_as_release(struct st_as *as);
bool st_as_attest(struct st_as *as); // learns the pid of a new stub
void st_as_died(struct st_as *as);
void st_as_ready(struct st_as *as, uint32_t events); // its socket has something to say
void st_spawn_done(struct systrap *st, bool ok); // the zygote is back
void st_pool_refill(struct systrap *st);
void st_reap(struct systrap *st);
int systrap_as_new(struct platform *pf, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
int systrap_fork(struct pf_ctx *parent, struct pf_as **ret_as, struct pf_ctx **ret_ctx);
void systrap_as_kill(struct pf_as *as);
void systrap_as_free(struct pf_as *as);

// approve.c
void st_expect_clone(struct st_ctx *c, bool fork);
void st_expect_none(struct st_ctx *c);
void st_approve(struct systrap *st); // or refuses: all that wait

// ops.c
struct stub_op *st_op_add(struct st_ctx *c, enum stub_op_kind kind, uint64_t addr, uint64_t len); // NULL: full
bool st_ops_done(struct st_ctx *o);
void st_ops_check_waiters(struct systrap *st);
int st_ops_turn(struct st_ctx *c); // may wait: until c may queue operations. -ESRCH
int st_flush(struct st_ctx *c);    // may wait
int systrap_queue_op(struct pf_ctx *ctx, const struct pf_op *op);
int systrap_flush(struct pf_ctx *ctx);
size_t systrap_snapshot(struct pf_ctx *ctx, uint64_t addr, const volatile void **ret);
void *systrap_store(struct pf_ctx *ctx, uint64_t addr, size_t len);
void systrap_store_trim(struct pf_ctx *ctx, size_t len);
int systrap_store_sync(struct pf_ctx *ctx, uint64_t addr, size_t len);
int systrap_futex_wake(struct pf_ctx *ctx, uint64_t addr, uint32_t count, bool shared);

// fp.c
void st_fp_init(struct systrap *st);
size_t systrap_fp_size(const struct platform *pf);
int systrap_get_fp(struct pf_ctx *ctx, void *buf);
int systrap_set_fp(struct pf_ctx *ctx, const void *buf);
int systrap_reset_fp(struct pf_ctx *ctx);

// mem.c
ssize_t systrap_readv(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
ssize_t systrap_writev(struct pf_as *as, uint64_t addr, const struct iovec *local, int n);
uint64_t systrap_as_cpu_ns(struct pf_as *as);
uint64_t systrap_ctx_cpu_ns(struct pf_ctx *ctx);
