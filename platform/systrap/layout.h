// What the sentry and the stub agree on: addresses in the backend's part of a guest address space,
// and the context page through which one guest thread and the sentry talk.
//
// The stub runs at the guest's level of trust: the sentry takes everything that it reads from a
// context page for hostile, and keeps private copies of what it acts upon.
#pragma once

// Addresses, all at or above PF_GUEST_TOP. The vDSO and the initial stack are near the very top.
#define STUB_TEXT_BASE  0x7fff00010000 // the syscall page, text, data (stub.ld knows this number)
#define STUB_TEXT_END   0x7fff00100000
#define STUB_BOARD_BASE 0x7fff08000000 // the sandbox's board, read-only
#define STUB_CTX_BASE   0x7fff20000000 // context slots, shared with the sentry; aligned to their total size
#define STUB_STACK_BASE 0x7fff40000000 // stub stacks, private
#define STUB_SLOTS      16384
#define STUB_CTX_SIZE   0x8000
#define STUB_STACK_SIZE 0x8000
#define STUB_CTX_SHIFT  29 // log2 of STUB_CTX_TOTAL
#define STUB_CTX_TOTAL   ((uint64_t)STUB_SLOTS * STUB_CTX_SIZE)
#define STUB_STACK_TOTAL ((uint64_t)STUB_SLOTS * STUB_STACK_SIZE)

// Room for the trampolines of rewritten call sites, within reach of the code (pf_hooks.patch_area).
#define STUB_AREA_SIZE 0x10000
#define STUB_AREAS     8 // most of them in an address space

// Descriptors of every stub process.
#define STUB_FD_WAKE  0 // eventfd: wakes the sentry
#define STUB_FD_SOCK  1 // descriptors come from the sentry here
#define STUB_FD_CTX   3 // zygote at start only
#define STUB_FD_BOARD 4 // zygote at start only

// How stubs clone (clone(2)): CLONE_PARENT with SIGCHLD; VM FS FILES SIGHAND THREAD SYSVSEM PARENT_SETTID
// CHILD_CLEARTID.
#define STUB_FORK_FLAGS   (0x8000 | 17)
#define STUB_THREAD_FLAGS (0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x100000 | 0x200000)

#define STUB_KICK_SIGNAL 23 // SIGURG: one of those that the host never fails to send

// Offsets in struct stub_ctx, for assembler.
#define C_R15 128
#define C_R14 136
#define C_R13 144
#define C_R12 152
#define C_RBP 160
#define C_RBX 168
#define C_R11 176
#define C_R10 184
#define C_R9 192
#define C_R8 200
#define C_RAX 208
#define C_RCX 216
#define C_RDX 224
#define C_RSI 232
#define C_RDI 240
#define C_RIP 248
#define C_EFLAGS 256
#define C_RSP 264
#define C_JMP 288
#define C_STACK 296
#define C_KICK 384

// A trampoline (patch.c).
#define SLOT_SIZE 64
#define SLOT_CODE 8  // where the site jumps to
#define SLOT_TRAP 32 // a system call instruction, for when the fast way is not possible
#define SLOT_CONT 49 // what follows the call

#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>

// Who owns the context, and how it waits. Only the owner changes it.
enum stub_state {
	STUB_GUEST = 1,        // the guest's: runs
	STUB_GUEST_WAIT,       // the guest's: waits in a host futex of its own
	STUB_SENTRY,           // the sentry's; the stub polls for the answer
	STUB_SENTRY_NOSPIN,    // the sentry's: the answer will take long, do not poll
	STUB_SENTRY_FUTEX,     // the sentry's; the stub sleeps on this word
};

// What an event is (stub to sentry), in stub_ctx.kind.
enum stub_event {
	STUB_EV_NONE,
	STUB_EV_SYSCALL,
	STUB_EV_FAULT,
	STUB_EV_INTERRUPT,
	STUB_EV_READY,
	STUB_EV_OPS_DONE,
	STUB_EV_OPS_FAILED,
	STUB_EV_STORE_FAULT,
	STUB_EV_PATCH, // args[0]: a call site that traps often. Answer: nr: an area or 0, args[0]: to be mapped
};

// What to do next (sentry to stub), in stub_ctx.kind, OR'ed.
#define STUB_CMD_OPS    0x01 // perform the operations
#define STUB_CMD_FLUSH  0x02 // then come back with STUB_EV_OPS_DONE
#define STUB_CMD_RESULT 0x04 // nr is the new rax
#define STUB_CMD_REGS   0x08 // regs are new, rax included
#define STUB_CMD_EXIT   0x10 // end this host thread
#define STUB_CMD_RETRY  0x20 // perform the call that was just reported, without the sentry if possible
#define STUB_CMD_STORE 0x40 // one store: args are address, length, then its bytes, or their place in the payload

enum stub_op_kind { // the first seven are enum pf_op_kind
	STUB_OP_MAP_ANON,
	STUB_OP_MAP_FD,
	STUB_OP_UNMAP,
	STUB_OP_PROTECT,
	STUB_OP_REMAP,
	STUB_OP_ADVISE,
	STUB_OP_MSYNC,
	STUB_OP_STORE,      // len bytes of the payload at off to addr
	STUB_OP_FUTEX_WAKE, // len waiters at addr; flags != 0: shared
	STUB_OP_CLONE,      // starts the host thread of slot `addr`
	STUB_OP_FORK,
	STUB_OP_FP_GET,     // vector state to the fp area
	STUB_OP_FP_SET,     // ... from the fp area
	STUB_OP_FP_RESET,
};

struct stub_op {
	uint32_t kind, prot, flags, pad;
	uint64_t addr, len, off, new_addr, new_len;
};

struct stub_regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t rip, eflags, rsp, fs_base, gs_base;
};

struct stub_snap {
	uint64_t addr;
	uint32_t len, off; // off: from the start of the payload
};

#define STUB_OPS 40
#define STUB_SNAPS 3
#define STUB_PAYLOAD_OFF 0x1000
#define STUB_PAYLOAD_SIZE 0x3000
#define STUB_FP_OFF 0x4000
#define STUB_FP_SIZE 0x2000

#define STUB_STORE_INLINE 32 // bytes of a store that travel with the answer

struct stub_ctx {
	// One cache line goes back and forth in a plain system call. Processors fetch lines in pairs: nothing
	// that either side writes otherwise is next to it.
	uint32_t state;   // enum stub_state
	uint32_t kind;    // event | snaps << 8, or STUB_CMD_*
	uint64_t nr;      // system call number, or the result
	uint64_t args[6];

	struct stub_regs regs __attribute__((aligned(128))); // written by the stub with each event, by the sentry with STUB_CMD_REGS
	uint64_t jmp;   // the stub's: where the fast way returns to
	uint64_t stack; // the stub's: its stack for this thread

	// Written by the sentry.
	uint32_t kick __attribute__((aligned(128))); // come back soon; cleared with the next event
	uint32_t local;       // answer what can be answered
	uint32_t ids[6];      // pid tid uid euid gid egid
	uint32_t n_ops;
	uint32_t notify;      // ring when the operations are done

	// Written by the stub.
	uint32_t tid __attribute__((aligned(64))); // host thread; by the host: 0 before its start and after its end
	uint32_t ops_done;    // 1 when the operations of the last resume were performed
	uint32_t fail_index;
	int32_t fail_error;
	int32_t signo, code;
	uint64_t fault_addr;
	uint32_t trapno, err;
	struct stub_snap snaps[STUB_SNAPS];

	struct stub_op ops[STUB_OPS] __attribute__((aligned(64)));
};
_Static_assert(offsetof(struct stub_ctx, regs.r15) == C_R15 && offsetof(struct stub_ctx, regs.rbx) == C_RBX &&
		       offsetof(struct stub_ctx, regs.rax) == C_RAX && offsetof(struct stub_ctx, regs.rdi) == C_RDI &&
		       offsetof(struct stub_ctx, regs.rsp) == C_RSP && offsetof(struct stub_ctx, jmp) == C_JMP &&
		       offsetof(struct stub_ctx, stack) == C_STACK && offsetof(struct stub_ctx, kick) == C_KICK,
	       "assembler's offsets");
_Static_assert(1ULL << STUB_CTX_SHIFT == STUB_CTX_TOTAL && STUB_CTX_BASE % STUB_CTX_TOTAL == 0, "context region");
_Static_assert(sizeof(struct stub_ctx) <= STUB_PAYLOAD_OFF, "context header");
_Static_assert(STUB_FP_OFF + STUB_FP_SIZE <= STUB_CTX_SIZE, "context slot");
_Static_assert(STUB_PAYLOAD_OFF + STUB_PAYLOAD_SIZE == STUB_FP_OFF, "payload");

// One page a sandbox, written by the sentry, read by every stub.
struct stub_board {
	uint32_t asleep;      // the sentry sleeps: ring the eventfd after handing over
	uint32_t patch;       // call sites may be rewritten
	uint32_t spin_cycles; // how long to poll for an answer, in TSC cycles; 0: do not
	uint32_t futex_cycles; // how long to poll a futex word before waiting in the host
};

// What the zygote reports in the args of its STUB_EV_READY.
enum { STUB_READY_VDSO, STUB_READY_VDSO_START, STUB_READY_VDSO_END, STUB_READY_FSGSBASE, STUB_READY_LISTENER };
#endif
