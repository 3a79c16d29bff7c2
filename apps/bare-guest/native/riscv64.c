/* QEMU's `virt` board, riscv64, machine mode. */
#include "machine.h"

const char arch_name[] = "riscv64";
const uintptr_t arch_ram = 0x80000000;
uintptr_t arch_boot_info;

static volatile uint8_t *const uart = (volatile uint8_t *)0x10000000;      /* 16550 */
static volatile uint32_t *const finisher = (volatile uint32_t *)0x100000;  /* sifive_test */
static volatile uint32_t *const rtc = (volatile uint32_t *)0x101000;       /* goldfish */
static volatile uint64_t *const mtimecmp = (volatile uint64_t *)0x2004000; /* CLINT, 10 MHz */
static volatile uint64_t *const mtime = (volatile uint64_t *)0x200bff8;

#define MIE_TIMER (1ul << 7)
#define MIE_EXTERNAL (1ul << 11)

void arch_init(void)
{
	*mtimecmp = ~0ull;
	uart[2] = 1; /* FIFO */
	uart[1] = 1; /* interrupts when something comes */
	/* These end a wfi when pending. Interrupts stay masked (mstatus.MIE): the loop asks the PLIC. */
	asm volatile("csrw mie, %0" : : "r"(MIE_TIMER | MIE_EXTERNAL));
}

void arch_putc(char c)
{
	while (!(uart[5] & 0x20));
	uart[0] = (uint8_t)c;
}

int arch_getc(void) { return uart[5] & 1 ? uart[0] : -1; }

double arch_now(void) { return (double)*mtime / 1e4; }

double arch_epoch(void)
{
	uint64_t low = rtc[0]; /* latches the upper half */
	return (double)((uint64_t)rtc[1] << 32 | low) / 1e9;
}

void arch_wait(double ms)
{
	if (ms < 1e12) *mtimecmp = *mtime + (uint64_t)(ms * 1e4);
	asm volatile("wfi" : : : "memory");
	*mtimecmp = ~0ull;
}

_Noreturn void arch_exit(int status)
{
	*finisher = status ? (uint32_t)status << 16 | 0x3333 : 0x5555;
	for (;;) asm volatile("wfi");
}

int arch_mapped(uint64_t address, uint64_t size) { return address + size >= address; }

void arch_functions(JSContext *ctx, JSValueConst machine) {}

_Noreturn void trapped(uint64_t cause, uint64_t at, uint64_t value)
{
	print("mcause ");
	print_hex(cause);
	print(", mepc ");
	print_hex(at);
	print(", mtval ");
	print_hex(value);
	print("\n");
	die("the processor trapped");
}
