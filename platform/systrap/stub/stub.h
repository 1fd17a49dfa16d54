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
static inline uint8_t *stub_payload(struct stub_ctx *c)
{
	return (uint8_t *)c + STUB_PAYLOAD_OFF;
}
extern bool stub_fsgsbase;

// Publishes the event, does what the sentry answers, again and again, until it is the guest's turn.
// kind STUB_EV_NONE: there is nothing to publish yet.
_Noreturn void stub_serve(struct stub_ctx *c, struct abi_ucontext *uc, uint32_t kind);
_Noreturn void stub_thread_main(struct abi_ucontext *uc);
_Noreturn void stub_interrupted(struct abi_ucontext *uc);
void stub_signal(int sig, struct abi_siginfo *si, struct abi_ucontext *uc);

// Performs c->ops in order. STUB_EV_NONE, or the event that reports the failure, or STUB_EV_READY in
// the child of a fork.
uint32_t stub_run_ops(struct stub_ctx *c, struct abi_ucontext *uc);

// Answers the call in uc without the sentry, if it can: then true, and rax is set.
bool stub_local_call(struct stub_ctx *c, struct abi_ucontext *uc, bool retry);

// Copies what call nr will want to read of guest memory into the payload; returns how many pieces.
uint32_t stub_snapshot(struct stub_ctx *c, uint32_t nr);

// Installs the seccomp filter of all stubs. 0 or -errno.
int64_t stub_install_filter(void);

#define STUB_IMAGE_MAX 0x2000
#pragma GCC visibility pop
