/* Entered in machine mode with the address of the device tree in a1. */
	.section .text.entry, "ax"
	.globl entry
entry:
	csrr	t0, mhartid
	bnez	t0, park
	la	t0, trap
	csrw	mtvec, t0
	li	t0, 1 << 13		/* floating point on */
	csrs	mstatus, t0
	la	sp, stack_end
	la	tp, thread
	la	t0, bss_start
	la	t1, bss_end
1:	sd	zero, (t0)
	addi	t0, t0, 8
	bltu	t0, t1, 1b
	mv	a0, a1
	call	start
park:	wfi
	j	park

	.balign 4
trap:	la	sp, stack_end
	csrr	a0, mcause
	csrr	a1, mepc
	csrr	a2, mtval
	call	trapped

	.bss
	.balign 4096
	.skip	2048
thread:	.skip	2048			/* musl looks for its thread on either side of tp */
