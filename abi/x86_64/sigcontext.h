// The signal frame of x86-64 as the kernel builds and reads it (arch/x86/include/uapi/asm/sigcontext.h,
// sigreturn(2)): layouts only.
#pragma once
#include <stdint.h>

struct abi_sigcontext {
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t fpstate; // address of the XSAVE image, 64-byte aligned; 0: none
	uint64_t reserved[8];
};
_Static_assert(sizeof(struct abi_sigcontext) == 256, "sigcontext");

struct abi_stack {
	uint64_t sp;
	int32_t flags;
	uint32_t pad;
	uint64_t size;
};
_Static_assert(sizeof(struct abi_stack) == 24, "stack_t");

#define ABI_UC_FP_XSTATE         0x1
#define ABI_UC_SIGCONTEXT_SS     0x2
#define ABI_UC_STRICT_RESTORE_SS 0x4

struct abi_ucontext {
	uint64_t flags, link;
	struct abi_stack stack;
	struct abi_sigcontext mc;
	uint64_t sigmask;
};
_Static_assert(sizeof(struct abi_ucontext) == 304, "ucontext");

struct abi_siginfo {
	int32_t signo, error, code, pad;
	union {
		struct {
			uint64_t addr;
		} fault;
		struct {
			uint64_t call_addr;
			int32_t syscall;
			uint32_t arch;
		} sigsys;
		uint8_t bytes[112];
	};
};
_Static_assert(sizeof(struct abi_siginfo) == 128, "siginfo");

#define ABI_USER_CS 0x33
#define ABI_USER_SS 0x2b
// The flags that user code may change: CF PF AF ZF SF TF DF OF NT RF AC ID.
#define ABI_EFLAGS_USER 0x254dd5ULL
#define ABI_EFLAGS_FIXED 0x202ULL // always one: the reserved bit and IF
