/* What each architecture gives to the rest of the native layer, and what it takes from there. */
#ifndef MACHINE_H
#define MACHINE_H
#include <stddef.h>
#include <stdint.h>
#include <quickjs.h>

/* The memory of a guest: 128 MiB from the start of RAM. An image, its stack and the heap come first. */
#define SCRIPT_OFFSET 0x4000000u /* where QEMU's loader puts the script: magic, length, bytecode */
#define DMA_OFFSET 0x5000000u
#define DMA_SIZE 0x2000000u /* above it, riscv64 has its device tree */

/* By architecture. */
extern const char arch_name[];
extern const uintptr_t arch_ram;
/* Where the device tree (riscv64, aarch64) or the PVH start information (x86-64) is. */
extern uintptr_t arch_boot_info;
void arch_init(void);
void arch_putc(char c);
int arch_getc(void);             /* -1: nothing came */
double arch_now(void);           /* milliseconds since reset */
double arch_epoch(void);         /* seconds since 1970 by the board's clock; read once */
void arch_wait(double ms);       /* until an interrupt is pending, or so long */
_Noreturn void arch_exit(int status);
int arch_mapped(uint64_t address, uint64_t size); /* whether the processor reaches it */
void arch_functions(JSContext *ctx, JSValueConst machine);

/* By the rest. */
void start(uintptr_t boot_info);
_Noreturn void die(const char *why);
void print(const char *text);
void print_hex(uint64_t value);
void heap_init(void *from, void *to);
size_t heap_peak(void);
void testing_functions(JSContext *ctx, JSValueConst machine);
#endif
