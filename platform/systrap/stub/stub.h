// The stub: runs in every guest process, on behalf of the sentry. No libc, no vector registers (the
// guest's stay live in them), no thread-local storage. What the guest does to it can only hurt the
// guest: it enforces nothing, the seccomp filter and the sentry do.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/x86_64/sigcontext.h"
#include "abi/x86_64/xsave.h"
#include "platform/systrap/layout.h"

// Everything is linked into one image: no indirection through a table.
#pragma GCC visibility push(hidden)

#define EINTR 4
#define EFAULT 14
#define EAGAIN 11
#define EINVAL 22
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

// What a stub thread knows of itself, at the top of its stack slot.
struct stub_thread {
	bool timed;           // deadline is that of the futex wait which is being retried
	int64_t deadline[2];  // struct timespec, absolute
	uint64_t pad[5];
};
#define STUB_THREAD_ROOM 64
_Static_assert(sizeof(struct stub_thread) <= STUB_THREAD_ROOM, "stub_thread");

// --- entry.S: everything with a syscall instruction, alone in its page ------------------------
int64_t stub_sys(int64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);
// futex(2), unless *kick: then -EINTR.
int64_t stub_futex_wait(uint64_t uaddr, uint64_t op, uint64_t val, uint64_t timeout, uint64_t uaddr2, uint64_t val3,
			volatile uint32_t *kick);
// rt_sigreturn to the guest, unless *kick: then stub_interrupted(uc).
_Noreturn void stub_sigreturn(struct abi_ucontext *uc, volatile uint32_t *kick);
// clone(2) of a thread that runs stub_thread_main(*(uc **)stack).
int64_t stub_clone_thread(uint64_t flags, void *stack, volatile uint32_t *ptid, volatile uint32_t *ctid);
void stub_restorer(void);
// Bytes that could not be copied.
uint64_t stub_copy(void *dst, const void *src, uint64_t n);
// Copies up to and with a NUL, at most n bytes: bytes copied (short at a fault).
uint64_t stub_copy_str(void *dst, const void *src, uint64_t n);
_Noreturn void stub_on_stack(void *sp, void (*fn)(void));
extern const char stub_futex_begin[], stub_futex_end[], stub_futex_abort[];
extern const char stub_return_begin[], stub_return_end[], stub_return_abort[];
extern const char stub_copy_begin[], stub_copy_end[], stub_copy_fixup[];
extern const char stub_str_begin[], stub_str_end[], stub_str_fixup[];
extern const char stub_fast_begin[], stub_fast_end[], stub_fast_abort[];
extern const char stub_fast_entry[]; // where trampolines go
_Noreturn void stub_fast_return(struct stub_ctx *c); // to c->jmp with all of c->regs, unless c->kick
struct stub_ctx *stub_fast_call(struct stub_ctx *c);
_Noreturn void stub_fast_interrupted(struct stub_ctx *c);
extern const char stub_end[];

void *memcpy(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);

#define SYS0(nr) stub_sys(nr, 0, 0, 0, 0, 0, 0)
#define SYS1(nr, a) stub_sys(nr, (uint64_t)(a), 0, 0, 0, 0, 0)
#define SYS2(nr, a, b) stub_sys(nr, (uint64_t)(a), (uint64_t)(b), 0, 0, 0, 0)
#define SYS3(nr, a, b, c) stub_sys(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0, 0)
#define SYS4(nr, a, b, c, d) stub_sys(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0, 0)
#define SYS6(nr, a, b, c, d, e, f)                                                                             \
	stub_sys(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f))

// --- the thread that runs -----------------------------------------------------------------------
static inline uint64_t stub_slot_of(uint64_t sp)
{
	return (sp - STUB_STACK_BASE) / STUB_STACK_SIZE % STUB_SLOTS;
}
static inline struct stub_ctx *stub_ctx_at(uint64_t slot)
{
	return (struct stub_ctx *)(STUB_CTX_BASE + slot * STUB_CTX_SIZE);
}
static inline struct stub_ctx *stub_self(void)
{
	return stub_ctx_at(stub_slot_of((uint64_t)__builtin_frame_address(0)));
}
static inline uint64_t stub_stack_top(uint64_t slot)
{
	return STUB_STACK_BASE + (slot + 1) * STUB_STACK_SIZE - STUB_THREAD_ROOM;
}
static inline struct stub_thread *stub_thread_of(const struct stub_ctx *c)
{
	return (struct stub_thread *)stub_stack_top(((uint64_t)c - STUB_CTX_BASE) / STUB_CTX_SIZE);
}
static inline const struct stub_board *board(void)
{
	return (const struct stub_board *)STUB_BOARD_BASE;
}

static inline uint8_t *stub_payload(struct stub_ctx *c)
{
	return (uint8_t *)c + STUB_PAYLOAD_OFF;
}
extern bool stub_fsgsbase;
extern bool stub_can_patch;          // what rewritten call sites need of the processor and the host is there
extern uint64_t stub_fp_features;    // the host's, of ABI_XFEATURES_DEFAULT
extern uint32_t stub_fp_size;

// Publishes the event, does what the sentry answers, again and again, until it is the guest's turn.
// uc: the signal frame through which the guest goes on; NULL: it came the fast way and its vector
// state is in the registers. kind STUB_EV_NONE: there is nothing to publish, but an answer to wait
// for; STUB_EV_ANSWERED: it is there.
#define STUB_EV_ANSWERED 0xff
_Noreturn void stub_serve(struct stub_ctx *c, struct abi_ucontext *uc, uint32_t kind);
// What a thread of this context needs in place before it enters the guest.
void stub_thread_setup(struct stub_ctx *c, bool gs);
_Noreturn void stub_thread_main(struct abi_ucontext *uc);
_Noreturn void stub_interrupted(struct abi_ucontext *uc);
void stub_signal(int sig, struct abi_siginfo *si, struct abi_ucontext *uc);

// Performs c->ops in order. STUB_EV_NONE, or the event that reports the failure, or STUB_EV_READY in
// the child of a fork.
uint32_t stub_run_ops(struct stub_ctx *c, struct abi_ucontext *uc);

// Answers the call in c->regs without the sentry, if it can: then true, and rax is set.
bool stub_local_call(struct stub_ctx *c, bool retry);

// Copies what call nr will want to read of guest memory into the payload; returns how many pieces.
uint32_t stub_snapshot(struct stub_ctx *c, uint32_t nr);

int64_t stub_install_listener(void);
// Installs the seccomp filter of all stubs. 0 or -errno.
int64_t stub_install_filter(void);

#define STUB_IMAGE_MAX 0x2000

// --- frames and vector state (frame.c) ------------------------------------------------------------
void stub_frame_init(struct abi_ucontext *uc, const struct stub_ctx *c);
// A frame for a context that came the fast way, with the vector state that is in the registers.
void stub_frame_make(struct abi_ucontext *uc, const struct stub_ctx *c);
// Saves the registers as an image of a signal frame; stub_fp_size + 4 bytes, aligned to 64.
void stub_fp_save(uint8_t *image);
void stub_fp_get(struct stub_ctx *c, const struct abi_ucontext *uc);
int64_t stub_fp_set(struct stub_ctx *c, struct abi_ucontext *uc, uint64_t features, uint64_t size);
void stub_fp_reset(struct stub_ctx *c, struct abi_ucontext *uc);

// --- rewritten call sites (patch.c) -----------------------------------------------------------------
// Counts a trap of the call in c->regs; true: the site is worth rewriting.
bool stub_patch_wanted(const struct stub_ctx *c);
// Rewrites it, with a trampoline in the area at `area`, which fresh says is to be mapped first.
void stub_patch(const struct stub_ctx *c, uint64_t area, bool fresh);
// Where code goes on that the guest takes to be at rip, and the way back.
uint64_t stub_code_address(uint64_t rip);
uint64_t stub_guest_address(uint64_t rip);
// An invalid instruction at rip is ours: waits for it to be whole, or gives where to go on.
bool stub_patch_trap(uint64_t rip, uint64_t *ret_rip);
// rip is within a trampoline, before its call is over.
bool stub_patch_step(uint64_t rip);
// No site is half rewritten while it is held.
void stub_patch_lock(void);
void stub_patch_unlock(void);
// --- messages with descriptors (recvmsg(2)) ------------------------------------------------------
struct iovec {
	void *base;
	uint64_t len;
};
struct msghdr {
	void *name;
	uint32_t namelen, pad;
	struct iovec *iov;
	uint64_t iovlen;
	void *control;
	uint64_t controllen;
	int32_t flags, pad2;
};
struct cmsg {
	uint64_t len;
	int32_t level, type;
	int32_t fds[2];
};

#pragma GCC visibility pop
