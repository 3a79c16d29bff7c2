/**
 * The list of capabilities in configuration space. The links come from the device, so the walk is bounded: reaching a capability a
 * second time is an error.
 */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { PciRegister } from './config-space.ts';
import { because } from './reasons.ts';

/** Ids of capabilities that matter to virtio. */
export const PciCapabilityId = {
  /** Message-signalled interrupts of the older kind, which virtio does not use. */
  MSI: 0x05,
  /** The virtio structures: see {@link virtioStructures}. */
  VENDOR_SPECIFIC: 0x09,
  /** The function is a PCI Express function. */
  PCI_EXPRESS: 0x10,
  /** See {@link MsixCapability}. */
  MSI_X: 0x11,
} as const;

/** `Status.CAPABILITIES_LIST`; the class itself stays out of programs that do not use it. */
const CAPABILITIES_LIST = 0x0010;

/** The header takes the first 64 bytes; capabilities follow it, within the first 256. */
const FIRST = 0x40;
const END = 0x100;

/** A capability. */
export interface PciCapability {
  /** The capability id: see {@link PciCapabilityId}. */
  readonly id: number;
  /** Where it starts in configuration space: a multiple of 4. */
  readonly offset: number;
}

/**
 * The capabilities of a function, in the order of the list.
 *
 * @param name the function, for messages
 * @throws {@link VirtioError} `INVALID_DEVICE` if the list points into the header or has a loop
 */
export function capabilities(config: RegisterWindow, name: string): PciCapability[] {
  const found: PciCapability[] = [];
  if ((config.read16(PciRegister.STATUS) & CAPABILITIES_LIST) === 0) return found;
  const visited = new Set<number>();
  // PCI 3.0, 6.7: the lowest two bits of a link are reserved and must be masked.
  let offset = config.read8(PciRegister.CAPABILITIES) & 0xfc;
  while (offset !== 0) {
    if (offset < FIRST) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${name}: the list of PCI capabilities points to offset ${offset}, which is in the header; the device is broken`,
        because('BAD_CAPABILITY_LIST'),
      );
    }
    if (visited.has(offset)) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${name}: the list of PCI capabilities has a loop at offset ${offset}; the device is broken`,
        because('BAD_CAPABILITY_LIST'),
      );
    }
    visited.add(offset);
    const header = config.read16(offset);
    found.push({ id: header & 0xff, offset });
    offset = (header >>> 8) & 0xfc;
  }
  return found;
}

/**
 * The bytes from an offset to the end of the space for capabilities.
 */
export function roomFor(offset: number): number {
  return END - offset;
}
