/** The PCI transport over hypercalls: that of `@virtio/pci`, with BARs and configuration space accessed through the hypervisor. */
import type { InterruptSource } from '@virtio/core';
import {
  type ConfigAccess,
  type DeviceFunction,
  type PciInterrupts,
  PciTransport,
  physicalFunction,
} from '@virtio/pci';
import type { X86Cpu } from './cpu.ts';
import { HypIoRegion } from './hypercalls.ts';

/**
 * The transport of a virtio device on PCI in a guest that pKVM protects.
 *
 * @example
 * ```ts
 * import { PciRoot } from '@virtio/pci';
 * import { HypCam, HypPciTransport, type X86Cpu } from '@virtio/pci-x86';
 *
 * export function* transports(cpu: X86Cpu, ecamBase: number): Generator<HypPciTransport> {
 *   const root = new PciRoot(new HypCam(cpu, ecamBase, 'ecam'));
 *   for (const [at] of root.virtioDevices()) yield new HypPciTransport(cpu, root.access, at);
 * }
 * ```
 */
export class HypPciTransport extends PciTransport {
  /**
   * @param access the access to configuration space: a {@link HypCam}
   * @param at the function; its BARs must have addresses
   * @param interrupts its interrupt lines, if any
   * @throws {@link VirtioError} as {@link PciTransport} does
   */
  constructor(
    cpu: X86Cpu,
    access: ConfigAccess,
    at: DeviceFunction,
    interrupts?: PciInterrupts | InterruptSource,
  ) {
    super(
      physicalFunction(
        access,
        at,
        { mapRegisters: (address, size) => new HypIoRegion(cpu, address, size) },
        interrupts,
      ),
    );
  }
}
