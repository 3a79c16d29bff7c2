/* Entered in 32-bit protected mode without paging, by the PVH protocol: the start information is at EBX. */
	.section .note.pvh, "a"
	.balign	4
	.long	4, 8, 18		/* sizes of name and address; XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	entry

	.section .text.entry, "ax"
	.code32
	.globl entry
entry:
	cld
	movl	$bss_start, %edi
	movl	$bss_end, %ecx
	subl	%edi, %ecx
	xorl	%eax, %eax
	rep stosb
	/* The first 4 GiB as they are, in pages of 2 MiB; the last of them, with the devices, uncached. */
	movl	$level3 + 3, level4
	movl	$level2 + 3, %eax
	movl	$level3, %edi
	movl	$4, %ecx
1:	movl	%eax, (%edi)
	addl	$4096, %eax
	addl	$8, %edi
	loop	1b
	movl	$0x83, %eax
	movl	$level2, %edi
	movl	$2048, %ecx
2:	movl	%eax, (%edi)
	cmpl	$0xc0000000, %eax
	jb	3f
	orl	$0x18, (%edi)
3:	addl	$0x200000, %eax
	addl	$8, %edi
	loop	2b
	movl	$level4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x620, %eax		/* PAE, SSE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx
	rdmsr
	orl	$0x100, %eax		/* long mode */
	wrmsr
	movl	%cr0, %eax
	andl	$~4, %eax		/* floating point is not emulated */
	orl	$0x80000022, %eax	/* paging */
	movl	%eax, %cr0
	lgdt	gdt_pointer
	ljmp	$8, $long_mode

	.code64
long_mode:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movq	$stack_end, %rsp
	/* The engine's code looks for its canary, and musl for its thread, at FS. */
	movl	$0xc0000100, %ecx
	movl	$thread, %eax
	xorl	%edx, %edx
	wrmsr
	movq	$thread, thread
	movl	%ebx, %edi
	call	start
4:	hlt
	jmp	4b

	/* One for each vector, 16 bytes apart: they push the vector, and a 0 where the processor pushes no code. */
	.text
	.balign	16
	.globl interrupt_stubs
interrupt_stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	(vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
	pushq	$0
	.endif
	pushq	$vector
	jmp	common
	.set	vector, vector + 1
	.endr

common:	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	movq	72(%rsp), %rdi
	movq	80(%rsp), %rsi
	leaq	88(%rsp), %rdx
	pushq	%rbp
	movq	%rsp, %rbp
	andq	$-16, %rsp
	cld
	call	interrupted
	movq	%rbp, %rsp
	popq	%rbp
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq

	.section .rodata
	.balign	8
gdt:	.quad	0
	.quad	0x00209a0000000000	/* code */
	.quad	0x0000920000000000	/* data */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.balign	4096
level4:	.skip	4096
level3:	.skip	4096
level2:	.skip	4 * 4096
	.skip	1024
thread:	.skip	3072
