// The fast way into the stub and out of it: from the trampoline of a rewritten call site, without a
// signal. The guest's registers go to the context page and come back from there; its vector
// registers stay where they are.
#include "platform/systrap/layout.h"

#define FLAGS_UNUSUAL 0x44500 // TF DF NT AC

	.section .text, "ax", @progbits

// %r11: the context, %rcx: the trampoline's slot, all else is the guest's.
	.globl stub_fast_entry
	.balign 64
stub_fast_entry:
	mov	%rsp, C_RSP(%r11)
	mov	C_STACK(%r11), %rsp
	pushfq
	testl	$FLAGS_UNUSUAL, (%rsp)
	jnz	unusual
	popq	C_EFLAGS(%r11)
	mov	%rax, C_RAX(%r11)
	mov	%rdi, C_RDI(%r11)
	mov	%rsi, C_RSI(%r11)
	mov	%rdx, C_RDX(%r11)
	mov	%r10, C_R10(%r11)
	mov	%r8, C_R8(%r11)
	mov	%r9, C_R9(%r11)
	mov	%rbx, C_RBX(%r11)
	mov	%rbp, C_RBP(%r11)
	mov	%r12, C_R12(%r11)
	mov	%r13, C_R13(%r11)
	mov	%r14, C_R14(%r11)
	mov	%r15, C_R15(%r11)
	// As after a system call: rcx is the address after it, r11 the flags.
	mov	(%rcx), %rax
	mov	%rax, C_RIP(%r11)
	mov	%rax, C_RCX(%r11)
	add	$SLOT_CONT, %rcx
	mov	%rcx, C_JMP(%r11)
	mov	C_EFLAGS(%r11), %rax
	mov	%rax, C_R11(%r11)
	mov	%r11, %rdi
	xor	%ebp, %ebp
	call	stub_fast_call
	mov	%rax, %rdi
	// falls through

	.globl stub_fast_return, stub_fast_begin, stub_fast_end, stub_fast_abort
stub_fast_return:
	mov	%rdi, %r11
// A kick within [begin, end) goes on at abort: all that has been loaded is still in the page.
stub_fast_begin:
	cmpl	$0, C_KICK(%r11)
	jne	stub_fast_abort
	// The arithmetic flags without popf: OF by an addition, the others by sahf.
	mov	C_EFLAGS(%r11), %ecx
	mov	%cl, %ah
	shr	$11, %ecx
	and	$1, %ecx
	mov	%cl, %al
	add	$0x7f, %al
	sahf
	mov	C_RDI(%r11), %rdi
	mov	C_RSI(%r11), %rsi
	mov	C_RDX(%r11), %rdx
	mov	C_R10(%r11), %r10
	mov	C_R8(%r11), %r8
	mov	C_R9(%r11), %r9
	mov	C_RBX(%r11), %rbx
	mov	C_RBP(%r11), %rbp
	mov	C_R12(%r11), %r12
	mov	C_R13(%r11), %r13
	mov	C_R14(%r11), %r14
	mov	C_R15(%r11), %r15
	mov	C_RAX(%r11), %rax
	mov	C_RCX(%r11), %rcx
	mov	C_RSP(%r11), %rsp
	mov	C_R11(%r11), %r11
	jmp	*%gs:C_JMP
stub_fast_end:
stub_fast_abort:
	rdgsbase %rdi
	mov	C_STACK(%rdi), %rsp
	call	stub_fast_interrupted
	hlt

// Single steps, a backward direction flag and the like: the trapping way knows how.
unusual:
	popfq
	mov	C_RSP(%r11), %rsp
	lea	SLOT_TRAP(%rcx), %rcx
	jmp	*%rcx

	.section .note.GNU-stack, "", @progbits
