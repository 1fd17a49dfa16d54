// Every instruction that enters the host kernel, alone in one page: the seccomp filter knows the
// page by its address. Guest code may jump here, and gets what the filter allows and nothing else.

#define NR_futex 202
#define NR_rt_sigreturn 15
#define NR_clone 56
#define EINTR 4

	.section .text.syscalls, "ax", @progbits

	.globl stub_sys
stub_sys:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret

// A kick that arrives between the check and the syscall instruction moves on to the abort label
// (stub_signal); one that arrives within the call ends it with EINTR.
	.globl stub_futex_wait, stub_futex_begin, stub_futex_end, stub_futex_abort
stub_futex_wait:
	mov	%rcx, %r10
	mov	8(%rsp), %r11
	mov	$NR_futex, %eax
stub_futex_begin:
	cmpl	$0, (%r11)
	jne	stub_futex_abort
	syscall
stub_futex_end:
	ret
stub_futex_abort:
	mov	$-EINTR, %rax
	ret

	.globl stub_sigreturn, stub_return_begin, stub_return_end, stub_return_abort
stub_sigreturn:
	mov	%rdi, %rsp
	mov	$NR_rt_sigreturn, %eax
stub_return_begin:
	cmpl	$0, (%rsi)
	jne	stub_return_abort
	syscall
stub_return_end:
	hlt
stub_return_abort:
	and	$-16, %rsp
	call	stub_interrupted
	hlt

	.globl stub_restorer
stub_restorer:
	mov	$NR_rt_sigreturn, %eax
	syscall
	hlt

	.globl stub_clone_thread
stub_clone_thread:
	mov	%rcx, %r10
	xor	%r8d, %r8d
	mov	$NR_clone, %eax
	syscall
	test	%rax, %rax
	jz	1f
	ret
1:	xor	%ebp, %ebp
	mov	(%rsp), %rdi
	and	$-16, %rsp
	call	stub_thread_main
	hlt

	.section .text, "ax", @progbits

	.globl _start
_start:
	mov	%rsp, %rdi
	xor	%ebp, %ebp
	and	$-16, %rsp
	call	stub_start
	hlt

	.globl stub_on_stack
stub_on_stack:
	mov	%rdi, %rsp
	xor	%ebp, %ebp
	and	$-16, %rsp
	call	*%rsi
	hlt

// Copies that survive bad addresses: on a fault in [begin, end) the handler goes on at fixup.
	.globl stub_copy, stub_copy_begin, stub_copy_end, stub_copy_fixup
stub_copy:
	mov	%rdx, %rcx
stub_copy_begin:
	rep movsb
stub_copy_end:
stub_copy_fixup:
	mov	%rcx, %rax
	ret

	.globl stub_copy_str, stub_str_begin, stub_str_end, stub_str_fixup
stub_copy_str:
	xor	%eax, %eax
1:	cmp	%rdx, %rax
	jae	stub_str_fixup
stub_str_begin:
	movzbl	(%rsi,%rax), %ecx
	movb	%cl, (%rdi,%rax)
stub_str_end:
	inc	%rax
	test	%cl, %cl
	jnz	1b
stub_str_fixup:
	ret

	.globl memcpy, memset
memcpy:
	mov	%rdi, %rax
	mov	%rdx, %rcx
	rep movsb
	ret
memset:
	mov	%rdi, %r8
	mov	%esi, %eax
	mov	%rdx, %rcx
	rep stosb
	mov	%r8, %rax
	ret

	.section .note.GNU-stack, "", @progbits
