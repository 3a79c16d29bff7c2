/** MMIO devices that a machine without a device tree names on the kernel's command line, as QEMU's `microvm` and Firecracker do. */
import type { AddressWindow } from './device-tree.ts';

/** A device of a command line. */
export interface CommandLineDevice extends AddressWindow {
  /** Its interrupt, by the number of the platform: a global system interrupt on x86. */
  readonly interrupt: number;
}

const MAX_INTERRUPT = 0xffff_ffff;
const UNITS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };

/**
 * Reads every `virtio_mmio.device=<size>@<address>:<irq>[:<id>]` of a command line. What does not have that form is passed over, and so is a
 * window that is empty or not below 2^53.
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
