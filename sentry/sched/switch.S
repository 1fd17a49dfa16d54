// Coroutine switch: saves what the SysV ABI calls callee-saved on the stack that is left. The x87
// control word and MXCSR are the same for all tasks, so they stay.
	.text
	.globl sched_switch_asm
	.hidden sched_switch_asm
	.type sched_switch_asm, @function
	.p2align 4
sched_switch_asm: // (rdi: void **save_sp, rsi: void *load_sp)
	.cfi_startproc
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret
	.cfi_endproc
	.size sched_switch_asm, . - sched_switch_asm

// The first return address of a new stack. A zero above it ends backtraces.
	.globl sched_start_asm
	.hidden sched_start_asm
	.type sched_start_asm, @function
	.p2align 4
sched_start_asm:
	.cfi_startproc
	.cfi_undefined rip
	xorl	%ebp, %ebp
	call	sched_task_main
	ud2
	.cfi_endproc
	.size sched_start_asm, . - sched_start_asm

	.section .note.GNU-stack, "", @progbits
