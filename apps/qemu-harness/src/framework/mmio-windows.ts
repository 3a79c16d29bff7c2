/** Where QEMU's boards have their windows of registers for virtio devices. Both halves of tests use it, so it holds data only. */
import type { Architecture } from '../architecture.ts';
import type { Cell } from './define.ts';

/** Windows of one size, one behind the other. */
export interface MmioWindows {
  readonly base: number;
  /** Bytes from one to the next. */
  readonly size: number;
  readonly count: number;
}

const WINDOWS: Readonly<Record<Architecture, MmioWindows>> = {
  // microvm with ACPI and its second I/O APIC.
  x86_64: { base: 0xfeb0_0000, size: 0x200, count: 24 },
  aarch64: { base: 0x0a00_0000, size: 0x200, count: 32 },
  riscv64: { base: 0x1000_1000, size: 0x1000, count: 8 },
};

/** The windows of a kind of guest. */
export function mmioWindows({ arch }: Pick<Cell, 'arch'>): MmioWindows {
  return WINDOWS[arch];
}

/** The address of the last window, in which no device is ever put: it stays empty for a test. */
export function emptyWindow(cell: Pick<Cell, 'arch'>): number {
  const { base, size, count } = mmioWindows(cell);
  return base + (count - 1) * size;
}
