/**
 * The hypercalls through which a guest that pKVM protects accesses registers: the hypervisor cannot read the trapping instruction
 * to emulate memory-mapped I/O, so the guest makes a call for each access.
 */
import { checkRegister, type RegisterWindow, requireInteger } from '@virtio/core';
import type { X86Cpu } from './cpu.ts';

/** The CPUID leaf with the signature of the hypervisor. */
const CPUID_SIGNATURE = 0x4000_0000;

/** `PKVM` as EBX holds it. */
const PKVM = 0x4d56_4b50;

/** The numbers follow from pKVM's first hypercall, 20, as in its patches to Linux. */
const PKVM_OP = 20;

const U64 = 2n ** 64n - 1n;

/** Numbers of hypercalls. */
export const Hypercall = {
  /** RBX: physical address, RCX: number of bytes. Returns the value. */
  IO_READ: PKVM_OP + 3,
  /** RBX: physical address, RCX: number of bytes, RDX: the value to write. */
  IO_WRITE: PKVM_OP + 4,
} as const;

/**
 * Whether the hypervisor is pKVM.
 *
 * @example
 * ```ts
 * import { HypCam, isPkvm, PortCam, type X86Cpu, type X86Ports } from '@virtio/pci-x86';
 * import { PciRoot } from '@virtio/pci';
 *
 * export function root(cpu: X86Cpu, ports: X86Ports, ecamBase: number): PciRoot {
 *   return new PciRoot(isPkvm(cpu) ? new HypCam(cpu, ecamBase, 'ecam') : new PortCam(ports));
 * }
 * ```
 */
export function isPkvm(cpu: X86Cpu): boolean {
  return cpu.cpuid(CPUID_SIGNATURE, 0).ebx >>> 0 === PKVM;
}

/** Reads 1, 2 or 4 bytes at a physical address. */
export function hypRead(cpu: X86Cpu, address: number, width: 1 | 2 | 4): number {
  const value = cpu.hypercall(Hypercall.IO_READ, address, width, 0);
  // Bits above the width are undefined.
  if (width === 4) return value >>> 0;
  return value & (width === 1 ? 0xff : 0xffff);
}

/** Writes 1, 2 or 4 bytes at a physical address. */
export function hypWrite(cpu: X86Cpu, address: number, width: 1 | 2 | 4, value: number): void {
  // Bits above the width must be zero.
  const bits = width === 4 ? value >>> 0 : value & (width === 1 ? 0xff : 0xffff);
  cpu.hypercall(Hypercall.IO_WRITE, address, width, bits);
}

/** A window of registers in physical memory, accessed through hypercalls; for example a part of a BAR. */
export class HypIoRegion implements RegisterWindow {
  /** The physical address of the first register. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly #cpu: X86Cpu;

  /** @throws {@link VirtioError} `INVALID_PARAM` for a window that does not end below 2^53 */
  constructor(cpu: X86Cpu, address: number, size: number) {
    requireInteger('HypIoRegion', 'address', address, 0, Number.MAX_SAFE_INTEGER);
    requireInteger('HypIoRegion', 'size', size, 0, Number.MAX_SAFE_INTEGER - address);
    this.#cpu = cpu;
    this.address = address;
    this.size = size;
  }

  read8(offset: number): number {
    return hypRead(this.#cpu, this.#at(offset, 1), 1);
  }

  read16(offset: number): number {
    return hypRead(this.#cpu, this.#at(offset, 2), 2);
  }

  read32(offset: number): number {
    return hypRead(this.#cpu, this.#at(offset, 4), 4);
  }

  /** Reads 8 bytes in one access. No register of virtio needs that; other devices may. */
  read64(offset: number): bigint {
    return this.#cpu.hypercall64(Hypercall.IO_READ, this.#at(offset, 8), 8, 0n) & U64;
  }

  write8(offset: number, value: number): void {
    hypWrite(this.#cpu, this.#at(offset, 1), 1, value);
  }

  write16(offset: number, value: number): void {
    hypWrite(this.#cpu, this.#at(offset, 2), 2, value);
  }

  write32(offset: number, value: number): void {
    hypWrite(this.#cpu, this.#at(offset, 4), 4, value);
  }

  /** Writes 8 bytes in one access. */
  write64(offset: number, value: bigint): void {
    this.#cpu.hypercall64(Hypercall.IO_WRITE, this.#at(offset, 8), 8, value & U64);
  }

  #at(offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    return this.address + offset;
  }
}
