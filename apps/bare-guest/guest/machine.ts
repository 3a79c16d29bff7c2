/** What the native layer gives to a script: the global `machine`. All else is made of it in TypeScript. */

import type { X86Cpu, X86Ports } from '@virtio/pci-x86';

/** The functions of every architecture. Addresses are physical. */
export interface Machine {
  readonly arch: 'riscv64' | 'aarch64' | 'x86_64';
  /** The address of the device tree (riscv64, aarch64) or of the PVH start information (x86-64). */
  readonly bootInfo: number;
  /** Memory that the engine leaves to DMA. */
  readonly dmaAddress: number;
  readonly dmaSize: number;
  /** Prints on the first serial port. */
  write(text: string): void;
  /** A byte from there, or -1. */
  read(): number;
  /** Milliseconds since reset. */
  now(): number;
  /** Until an interrupt is pending, at most so long. */
  wait(ms: number): void;
  /** Ends the machine; QEMU returns this status (0 to 255). */
  exit(status: number): never;
  /** Physical memory as it is: no copy. */
  map(address: number, size: number): ArrayBuffer;
  /** Bytes that the engine uses, and the most that its heap ever had in use. */
  heap(): { readonly used: number; readonly peak: number };
  /** For tests: mixes the whole blocks of 64 bytes into a SHA-256 state of 32 bytes. */
  sha256Blocks(bytes: ArrayBufferLike, offset: number, length: number, state: ArrayBufferLike): void;
  /** For tests: the CRC-32 of bytes, continued from another. */
  crc32(bytes: ArrayBufferLike, offset: number, length: number, before: number): number;
  /** For tests: fills bytes with the harness's pattern. */
  pattern(bytes: ArrayBufferLike, offset: number, length: number, seed: number, position: number): void;
  /** Collects garbage. */
  collect(): void;
  /** Called between jobs; returns whether there will be another turn. */
  turn?: () => boolean;
  /** Called when a promise is rejected with nobody to handle it, and again if it is handled after all. */
  rejected?: (promise: object, reason: unknown, handled: boolean) => void;
}

/** What x86-64 has besides. */
export interface X86Machine extends Machine, X86Ports {
  /** EAX, EBX, ECX, EDX. */
  cpuid(leaf: number, subleaf: number): readonly [number, number, number, number];
  /** Executes VMCALL; throws if the processor does not know the instruction. */
  hypercall(call: number, a: number, b: number, c: number): number;
  /** The next vector of an interrupt that came, or -1. */
  interrupt(): number;
}

/** The machine. */
export const machine = (globalThis as unknown as { machine: Machine }).machine;

/** The machine if it is an x86-64 one. */
export function x86Machine(): X86Machine | undefined {
  return machine.arch === 'x86_64' ? (machine as X86Machine) : undefined;
}

/** The processor, as hypercalls want it. */
export function x86Cpu(x86: X86Machine): X86Cpu {
  return {
    cpuid: (leaf, subleaf) => {
      const [eax, ebx, ecx, edx] = x86.cpuid(leaf, subleaf);
      return { eax, ebx, ecx, edx };
    },
    hypercall: (call, a, b, c) => x86.hypercall(call, a, b, c),
    hypercall64: () => {
      throw new Error('accesses of 8 bytes are not supported; no virtio register needs them');
    },
  };
}
