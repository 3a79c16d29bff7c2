/* QEMU's `virt` board, aarch64, EL1. */
#include "machine.h"

const char arch_name[] = "aarch64";
const uintptr_t arch_ram = 0x40000000;
uintptr_t arch_boot_info;

static volatile uint32_t *const uart = (volatile uint32_t *)0x9000000; /* PL011 */
static volatile uint32_t *const rtc = (volatile uint32_t *)0x9010000;  /* PL031 */
static volatile uint32_t *const gicd = (volatile uint32_t *)0x8000000;

#define TIMER_INTERRUPT 27 /* of the virtual timer */

static uint64_t frequency;

static uint64_t count(void)
{
	uint64_t value;
	asm volatile("isb; mrs %0, cntvct_el0" : "=r"(value));
	return value;
}

void arch_init(void)
{
	asm volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
	uart[0x2c / 4] = 0x70;  /* 8 bits, FIFO */
	uart[0x30 / 4] = 0x301; /* on, both ways */
	uart[0x38 / 4] = 0x50;  /* interrupts when something comes */
	/* It ends a wfi. Interrupts stay masked (DAIF): the loop asks the GIC. */
	gicd[0x100 / 4] = 1u << TIMER_INTERRUPT;
}

void arch_putc(char c)
{
	while (uart[0x18 / 4] & 0x20);
	uart[0] = (uint8_t)c;
}

int arch_getc(void) { return uart[0x18 / 4] & 0x10 ? -1 : (int)(uart[0] & 0xff); }

double arch_now(void) { return (double)count() * 1e3 / (double)frequency; }

double arch_epoch(void) { return (double)rtc[0]; }

void arch_wait(double ms)
{
	if (ms < 1e12) {
		uint64_t until = count() + (uint64_t)(ms * (double)frequency / 1e3);
		asm volatile("msr cntv_cval_el0, %0; msr cntv_ctl_el0, %1; isb" : : "r"(until), "r"(1ul));
	}
	asm volatile("dsb sy; wfi" : : : "memory");
	asm volatile("msr cntv_ctl_el0, %0; isb" : : "r"(2ul));
}

_Noreturn void arch_exit(int status)
{
	/* Semihosting's SYS_EXIT: QEMU ends with this status. */
	uint64_t block[2] = { 0x20026, (uint64_t)status };
	register uint64_t call asm("x0") = 0x18;
	register uint64_t *values asm("x1") = block;
	asm volatile("hlt #0xf000" : : "r"(call), "r"(values) : "memory");
	for (;;) asm volatile("wfi");
}

int arch_mapped(uint64_t address, uint64_t size) { return address + size >= address && address + size <= 0x100000000ul; }

void arch_functions(JSContext *ctx, JSValueConst machine) {}

_Noreturn void trapped(uint64_t syndrome, uint64_t at, uint64_t address)
{
	print("ESR ");
	print_hex(syndrome);
	print(", ELR ");
	print_hex(at);
	print(", FAR ");
	print_hex(address);
	print("\n");
	die("the processor took an exception");
}
