// Guest registers as Linux shows them (struct user_regs_struct, ptrace(2) PTRACE_GETREGS).
#pragma once
#include <stdint.h>

struct abi_regs {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
};

_Static_assert(sizeof(struct abi_regs) == 27 * 8, "user_regs_struct");
