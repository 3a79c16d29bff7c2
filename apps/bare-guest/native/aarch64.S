/* Entered in EL1 with the MMU off. The device tree is where RAM begins. */
	.section .text.entry, "ax"
	.globl entry
entry:
	mov	x0, #3 << 20		/* floating point on */
	msr	cpacr_el1, x0
	adr	x0, vectors
	msr	vbar_el1, x0
	/* Addresses stay the same; without the MMU accesses that are not aligned fault. */
	adr	x0, table
	msr	ttbr0_el1, x0
	ldr	x0, =0xff00		/* 0: device, 1: normal, write-back */
	msr	mair_el1, x0
	ldr	x0, =0x100803519	/* 39 bits of 4 KiB pages, write-back, shareable; no TTBR1 */
	msr	tcr_el1, x0
	tlbi	vmalle1
	dsb	sy
	isb
	mrs	x0, sctlr_el1
	ldr	x1, =0x1005		/* MMU and caches */
	orr	x0, x0, x1
	bic	x0, x0, #2		/* no checks of alignment */
	msr	sctlr_el1, x0
	isb
	ldr	x0, =stack_end
	mov	sp, x0
	ldr	x0, =thread
	msr	tpidr_el0, x0
	ldr	x0, =bss_start
	ldr	x1, =bss_end
1:	str	xzr, [x0], #8
	cmp	x0, x1
	b.lo	1b
	mov	x0, #0x40000000
	bl	start
2:	wfi
	b	2b

trap:	ldr	x0, =stack_end
	mov	sp, x0
	mrs	x0, esr_el1
	mrs	x1, elr_el1
	mrs	x2, far_el1
	bl	trapped

	.balign 2048
vectors:
	.rept	16
	b	trap
	.balign	128
	.endr

	/* Blocks of 1 GiB: devices, then memory. */
	.balign 4096
table:	.quad	0x0060000000000401
	.quad	0x0000000040000705
	.quad	0x0000000080000705
	.quad	0x00000000c0000705
	.skip	4096 - 32

	.bss
	.balign 4096
	.skip	2048
thread:	.skip	2048
