/* QEMU's microvm and q35, x86-64, ring 0. */
#include "machine.h"

const char arch_name[] = "x86_64";
const uintptr_t arch_ram = 0;
uintptr_t arch_boot_info;

#define COM1 0x3f8
#define EXIT 0xf4 /* isa-debug-exit */
#define PIT_HZ 1193182.0
#define SPURIOUS_VECTOR 0xff
#define TIMER_VECTOR 0xfe
#define INVALID_OPCODE 6

static volatile uint32_t *const lapic = (volatile uint32_t *)0xfee00000;
enum { EOI = 0xb0 / 4, SPURIOUS = 0xf0 / 4, TIMER = 0x320 / 4, INITIAL = 0x380 / 4, CURRENT = 0x390 / 4, DIVIDE = 0x3e0 / 4 };

static double tsc_per_ms, timer_per_ms;
/* Vectors that came and were not taken yet. */
static volatile uint64_t pending[4];
static volatile int invalid_opcode;

static inline void out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void out16(uint16_t port, uint16_t value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline void out32(uint16_t port, uint32_t value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline uint8_t in8(uint16_t port) { uint8_t value; asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static inline uint16_t in16(uint16_t port) { uint16_t value; asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port)); return value; }
static inline uint32_t in32(uint16_t port) { uint32_t value; asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port)); return value; }

static uint64_t tsc(void)
{
	uint32_t low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static uint16_t pit(void)
{
	out8(0x43, 0); /* latches channel 0 */
	uint16_t low = in8(0x40);
	return (uint16_t)(in8(0x40) << 8 | low);
}

/* Measures the time-stamp counter and the local APIC's timer with channel 0 of the PIT, which microvm has, too. */
static void calibrate(void)
{
	out8(0x43, 0x34); /* mode 2, from 65536 down */
	out8(0x40, 0);
	out8(0x40, 0);
	lapic[DIVIDE] = 0xb; /* by 1 */
	lapic[TIMER] = 1 << 16 | TIMER_VECTOR;
	lapic[INITIAL] = 0xffffffff;
	uint16_t first = pit();
	uint64_t began = tsc();
	uint32_t timer = lapic[CURRENT];
	uint16_t passed;
	do passed = (uint16_t)(first - pit());
	while (passed < 12000);
	double ms = passed / PIT_HZ * 1e3;
	tsc_per_ms = (double)(tsc() - began) / ms;
	timer_per_ms = (double)(timer - lapic[CURRENT]) / ms;
	lapic[INITIAL] = 0;
}

struct gate { uint16_t low, selector, flags, middle; uint32_t high, zero; };
static struct gate gates[256];
extern char interrupt_stubs[];

static void load_gates(void)
{
	for (int i = 0; i < 256; i++) {
		uint64_t stub = (uint64_t)interrupt_stubs + 16 * (uint64_t)i;
		gates[i] = (struct gate){ (uint16_t)stub, 8, 0x8e00, (uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0 };
	}
	struct { uint16_t limit; uint64_t base; } __attribute__((packed)) table = { sizeof gates - 1, (uint64_t)gates };
	asm volatile("lidt %0" : : "m"(table));
}

void arch_init(void)
{
	load_gates();
	out8(0x21, 0xff); /* the old interrupt controllers stay out of it */
	out8(0xa1, 0xff);
	lapic[SPURIOUS] = 0x100 | SPURIOUS_VECTOR;
	calibrate();
	out8(COM1 + 3, 3); /* 8 bits */
	out8(COM1 + 2, 1); /* FIFO */
	out8(COM1 + 4, 8); /* lets interrupts out */
	out8(COM1 + 1, 1); /* when something comes */
}

void arch_putc(char c)
{
	while (!(in8(COM1 + 5) & 0x20));
	out8(COM1, (uint8_t)c);
}

int arch_getc(void) { return in8(COM1 + 5) & 1 ? in8(COM1) : -1; }

double arch_now(void) { return (double)tsc() / tsc_per_ms; }

static int cmos(int index)
{
	out8(0x70, (uint8_t)index);
	int value = in8(0x71);
	return (value >> 4) * 10 + (value & 15);
}

double arch_epoch(void)
{
	for (;;) {
		int second = cmos(0), minute = cmos(2), hour = cmos(4), day = cmos(7), month = cmos(8);
		long year = 2000 + cmos(9) - (month <= 2);
		if (second != cmos(0)) continue;
		/* Days since 1970 of a year that begins in March. */
		long days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * ((month + 9) % 12) + 2) / 5 + day - 1 - 719468;
		return ((double)days * 24 + hour) * 3600 + minute * 60 + second;
	}
}

/* Interrupts are let in here alone: code of the engine keeps data below its stack pointer. */
void arch_wait(double ms)
{
	double ticks = ms * timer_per_ms;
	if (ms < 1e9) {
		lapic[TIMER] = TIMER_VECTOR;
		lapic[INITIAL] = ticks < 1 ? 1 : ticks > 4e9 ? 4000000000u : (uint32_t)ticks;
	}
	if (!(pending[0] | pending[1] | pending[2] | pending[3])) asm volatile("sti; hlt; cli" : : : "memory");
	lapic[INITIAL] = 0;
}

extern const char the_vmcall[];

void interrupted(uint64_t vector, uint64_t code, uint64_t *frame)
{
	if (vector == INVALID_OPCODE && frame[0] == (uint64_t)the_vmcall) {
		invalid_opcode = 1;
		frame[0] += 3; /* over it */
		return;
	}
	if (vector < 32) {
		uint64_t address;
		asm volatile("mov %%cr2, %0" : "=r"(address));
		print("vector ");
		print_hex(vector);
		print(", code ");
		print_hex(code);
		print(", RIP ");
		print_hex(frame[0]);
		print(", CR2 ");
		print_hex(address);
		print("\n");
		die("the processor took an exception");
	}
	if (vector != SPURIOUS_VECTOR) lapic[EOI] = 0;
	if (vector < TIMER_VECTOR) pending[vector / 64] |= 1ul << (vector % 64);
}

_Noreturn void arch_exit(int status)
{
	out32(EXIT, (uint32_t)status);
	for (;;) asm volatile("cli; hlt");
}

int arch_mapped(uint64_t address, uint64_t size) { return address + size >= address && address + size <= 0x100000000ul; }

static JSValue js_in(JSContext *ctx, JSValueConst self, int count, JSValueConst *values, int width)
{
	int port;
	if (JS_ToInt32(ctx, &port, values[0])) return JS_EXCEPTION;
	uint32_t value = width == 1 ? in8((uint16_t)port) : width == 2 ? in16((uint16_t)port) : in32((uint16_t)port);
	return JS_NewUint32(ctx, value);
}

static JSValue js_out(JSContext *ctx, JSValueConst self, int count, JSValueConst *values, int width)
{
	int port;
	uint32_t value;
	if (JS_ToInt32(ctx, &port, values[0]) || JS_ToUint32(ctx, &value, values[1])) return JS_EXCEPTION;
	if (width == 1) out8((uint16_t)port, (uint8_t)value);
	else if (width == 2) out16((uint16_t)port, (uint16_t)value);
	else out32((uint16_t)port, value);
	return JS_UNDEFINED;
}

static JSValue js_cpuid(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	uint32_t leaf, subleaf, results[4];
	if (JS_ToUint32(ctx, &leaf, values[0]) || JS_ToUint32(ctx, &subleaf, values[1])) return JS_EXCEPTION;
	asm volatile("cpuid" : "=a"(results[0]), "=b"(results[1]), "=c"(results[2]), "=d"(results[3]) : "a"(leaf), "c"(subleaf));
	JSValue array = JS_NewArray(ctx);
	for (uint32_t i = 0; i < 4; i++) JS_SetPropertyUint32(ctx, array, i, JS_NewUint32(ctx, results[i]));
	return array;
}

static JSValue js_hypercall(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	int64_t v[4];
	for (int i = 0; i < 4; i++) if (JS_ToInt64(ctx, &v[i], values[i])) return JS_EXCEPTION;
	int64_t result = v[0];
	invalid_opcode = 0;
	asm volatile(".globl the_vmcall\nthe_vmcall: vmcall" : "+a"(result) : "b"(v[1]), "c"(v[2]), "d"(v[3]), "S"(0l) : "memory");
	if (invalid_opcode) return JS_ThrowTypeError(ctx, "the processor does not know VMCALL here");
	return JS_NewUint32(ctx, (uint32_t)result);
}

/* The next vector that came, or -1. */
static JSValue js_interrupt(JSContext *ctx, JSValueConst self, int count, JSValueConst *values)
{
	asm volatile("sti; nop; nop; cli" : : : "memory");
	for (int i = 0; i < 4; i++) {
		if (!pending[i]) continue;
		int bit = __builtin_ctzl(pending[i]);
		pending[i] &= ~(1ul << bit);
		return JS_NewInt32(ctx, 64 * i + bit);
	}
	return JS_NewInt32(ctx, -1);
}

static const JSCFunctionListEntry functions[] = {
	JS_CFUNC_MAGIC_DEF("in8", 1, js_in, 1),
	JS_CFUNC_MAGIC_DEF("in16", 1, js_in, 2),
	JS_CFUNC_MAGIC_DEF("in32", 1, js_in, 4),
	JS_CFUNC_MAGIC_DEF("out8", 2, js_out, 1),
	JS_CFUNC_MAGIC_DEF("out16", 2, js_out, 2),
	JS_CFUNC_MAGIC_DEF("out32", 2, js_out, 4),
	JS_CFUNC_DEF("cpuid", 2, js_cpuid),
	JS_CFUNC_DEF("hypercall", 4, js_hypercall),
	JS_CFUNC_DEF("interrupt", 0, js_interrupt),
};

void arch_functions(JSContext *ctx, JSValueConst machine)
{
	JS_SetPropertyFunctionList(ctx, machine, functions, sizeof functions / sizeof functions[0]);
}
