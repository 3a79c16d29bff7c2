/**
 * The instructions that only the host of an engine can execute, as interfaces: the host provides them, and this package has no
 * native code.
 */

/** The registers that CPUID returns, by name: 32 bits each. */
export interface CpuidResult {
  /** EAX. */
  readonly eax: number;
  /** EBX. */
  readonly ebx: number;
  /** ECX. */
  readonly ecx: number;
  /** EDX. */
  readonly edx: number;
}

/** An x86-64 processor in a virtual machine. */
export interface X86Cpu {
  /** Executes CPUID with `leaf` in EAX and `subleaf` in ECX. */
  cpuid(leaf: number, subleaf: number): CpuidResult;

  /**
   * Executes VMCALL with `call` in RAX and the arguments in RBX, RCX and RDX, RSI being 0.
   *
   * @param a a physical address: a number below 2^53
   * @param c 32 bits, unsigned
   * @returns the lower 32 bits of RAX
   */
  hypercall(call: number, a: number, b: number, c: number): number;

  /** Like {@link X86Cpu.hypercall}, with all 64 bits of RDX and RAX: for accesses of 8 bytes, which no hot path makes. */
  hypercall64(call: number, a: number, b: number, c: bigint): bigint;
}

/** The I/O ports of an x86 processor: IN and OUT at their three widths. Values are unsigned. */
export interface X86Ports {
  /** Reads a byte. */
  in8(port: number): number;
  /** Reads two bytes. */
  in16(port: number): number;
  /** Reads four bytes. */
  in32(port: number): number;
  /** Writes a byte. */
  out8(port: number, value: number): void;
  /** Writes two bytes. */
  out16(port: number, value: number): void;
  /** Writes four bytes. */
  out32(port: number, value: number): void;
}
