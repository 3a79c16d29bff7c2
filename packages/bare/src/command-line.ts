/** MMIO devices on the kernel's command line, where machines without a device tree list them (QEMU's `microvm`, Firecracker). */
import type { AddressWindow } from './device-tree.ts';

/** An MMIO device of a command line. */
export interface CommandLineDevice extends AddressWindow {
  /** The number of its interrupt on the platform: a global system interrupt on x86. */
  readonly interrupt: number;
}

const MAX_INTERRUPT = 0xffff_ffff;
const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/**
 * Reads every `virtio_mmio.device=<size>@<address>:<irq>[:<id>]` of a command line. Anything else is skipped, and so are windows
 * that are empty or not below 2^53.
 */
export function commandLineDevices(commandLine: string): readonly CommandLineDevice[] {
  const form =
    /(?:^|\s)virtio_mmio\.device=(0x[\da-f]+|\d+)([kmg]?)@(0x[\da-f]+|\d+):(0x[\da-f]+|\d+)(?::\d+)?(?=\s|$)/gi;
  return [...commandLine.matchAll(form)]
    .map(([, size, unit = '', address, interrupt]) => ({
      address: Number(address),
      size: Number(size) * (UNITS[unit.toLowerCase()] ?? 1),
      interrupt: Number(interrupt),
    }))
    .filter(
      ({ address, size, interrupt }) =>
        size > 0 && Number.isSafeInteger(address + size) && interrupt <= MAX_INTERRUPT,
    );
}
