/**
 * The capabilities that give the locations of a device's virtio structures. They are checked against the BARs before anything is
 * mapped: a structure outside its BAR is not used.
 */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import type { Bars } from './bars.ts';
import { capabilities, PciCapabilityId, roomFor } from './capabilities.ts';
import { because, type PciErrorReason } from './reasons.ts';

/**
 * Types of virtio capabilities.
 *
 * @see VIRTIO 1.4, 4.1.4
 */
export const VirtioPciCap = {
  /** Common configuration [4.1.4.3]. */
  COMMON_CFG: 1,
  /** Notifications [4.1.4.4]. */
  NOTIFY_CFG: 2,
  /** ISR status [4.1.4.5]. */
  ISR_CFG: 3,
  /** Device-specific configuration [4.1.4.6]. */
  DEVICE_CFG: 4,
  /** Access through configuration space [4.1.4.9]. */
  PCI_CFG: 5,
  /** A shared memory region [4.1.4.7]. */
  SHARED_MEMORY_CFG: 8,
  /** Vendor data [4.1.4.8]. */
  VENDOR_CFG: 9,
} as const;

/** Fields of `virtio_pci_cap` and of the structures that extend it: offsets in bytes [4.1.4]. */
export const VirtioPciCapField = {
  /** 8 bits: the length of the capability in bytes. */
  CAP_LEN: 2,
  /** 8 bits: one of {@link VirtioPciCap}. */
  CFG_TYPE: 3,
  /** 8 bits: which BAR the structure is in, 0 to 5. */
  BAR: 4,
  /** 8 bits: which structure of its type it is; for shared memory, which region. */
  ID: 5,
  /** 32 bits: the offset of the structure in the BAR, in bytes. */
  OFFSET: 8,
  /** 32 bits: the length of the structure in bytes. */
  LENGTH: 12,
  /** NOTIFY_CFG, 32 bits: bytes per unit of `queue_notify_off`. */
  NOTIFY_OFF_MULTIPLIER: 16,
  /** PCI_CFG, 32 bits: a window to the register that the other fields select. */
  PCI_CFG_DATA: 16,
  /** SHARED_MEMORY_CFG, 32 bits: the upper half of `OFFSET`. */
  OFFSET_HI: 16,
  /** SHARED_MEMORY_CFG, 32 bits: the upper half of `LENGTH`. */
  LENGTH_HI: 20,
} as const;

const PLAIN_LENGTH = 16;
const EXTENDED_LENGTH = 20;
const WIDE_LENGTH = 24;

/** A structure as the device describes it, not yet checked against its BAR. */
export interface VirtioStructure {
  /** One of {@link VirtioPciCap}. */
  readonly type: number;
  /** Which BAR it is in: 0 to 5. */
  readonly bar: number;
  /** For shared memory: which region. */
  readonly id: number;
  /** Bytes from the start of the BAR. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  /** For notifications: bytes per unit of `queue_notify_off`; otherwise 0. */
  readonly multiplier: number;
}

/** The virtio structures that a device's capabilities describe. */
export interface VirtioStructures {
  /** The structures in the order of the list, which is the device's order of preference. */
  readonly structures: readonly VirtioStructure[];
  /** The offset of the PCI configuration access capability in configuration space, if there is one. */
  readonly pciCfg: number | undefined;
}

/**
 * Reads the virtio capabilities of a function.
 *
 * @param name the function, for messages
 * @throws {@link VirtioError} `INVALID_DEVICE` if the list of capabilities is invalid
 * @see VIRTIO 1.4, 4.1.4
 */
export function virtioStructures(config: RegisterWindow, name: string): VirtioStructures {
  const structures: VirtioStructure[] = [];
  let pciCfg: number | undefined;
  for (const { id, offset: at } of capabilities(config, name)) {
    if (id !== PciCapabilityId.VENDOR_SPECIFIC || roomFor(at) < PLAIN_LENGTH) continue;
    // 4.1.4.1: a length that is larger than needed is accepted.
    const length = Math.min(config.read8(at + VirtioPciCapField.CAP_LEN), roomFor(at));
    const type = config.read8(at + VirtioPciCapField.CFG_TYPE);
    if (type === VirtioPciCap.PCI_CFG) {
      if (length >= EXTENDED_LENGTH) pciCfg ??= at;
      continue;
    }
    // 4.1.4.1: reserved types are ignored; so is vendor data [4.1.4.8.2], which a driver must not use unless it knows the vendor.
    if (length < (MIN_LENGTH[type] ?? Infinity)) continue;
    const bar = config.read8(at + VirtioPciCapField.BAR);
    // 4.1.4.1: reserved BARs are ignored.
    if (bar > 5) continue;
    const wide = type === VirtioPciCap.SHARED_MEMORY_CFG;
    const read64 = (low: number, high: number): number =>
      config.read32(at + low) + (wide ? config.read32(at + high) * 2 ** 32 : 0);
    structures.push({
      type,
      bar,
      id: config.read8(at + VirtioPciCapField.ID),
      offset: read64(VirtioPciCapField.OFFSET, VirtioPciCapField.OFFSET_HI),
      length: read64(VirtioPciCapField.LENGTH, VirtioPciCapField.LENGTH_HI),
      multiplier:
        type === VirtioPciCap.NOTIFY_CFG ? config.read32(at + VirtioPciCapField.NOTIFY_OFF_MULTIPLIER) : 0,
    });
  }
  return { structures, pciCfg };
}

const MIN_LENGTH: Readonly<Record<number, number>> = {
  [VirtioPciCap.COMMON_CFG]: PLAIN_LENGTH,
  [VirtioPciCap.NOTIFY_CFG]: EXTENDED_LENGTH,
  [VirtioPciCap.ISR_CFG]: PLAIN_LENGTH,
  [VirtioPciCap.DEVICE_CFG]: PLAIN_LENGTH,
  [VirtioPciCap.SHARED_MEMORY_CFG]: WIDE_LENGTH,
};

/** Why a structure cannot be used. */
export interface StructureFault {
  readonly reason: PciErrorReason;
  /** The cause in words: `it is in BAR 3, which the device does not have`. */
  readonly text: string;
}

/**
 * Why a structure cannot be used, or `undefined` if it can.
 *
 * @param least how many bytes of it are needed
 * @param alignment what its offset must be a multiple of
 */
export function structureFault(
  { bar, offset, length, multiplier }: VirtioStructure,
  bars: Bars,
  least: number,
  alignment: number,
): StructureFault | undefined {
  const found = bars[bar];
  if (found === undefined) {
    return { reason: 'BAR_MISSING', text: `it is in BAR ${bar}, which the device does not have` };
  }
  if (offset + length > found.size) {
    return {
      reason: 'STRUCTURE_OUTSIDE_BAR',
      text: `it is at ${offset} to ${offset + length} of BAR ${bar}, which has ${found.size} bytes`,
    };
  }
  if (length < least) {
    return { reason: 'STRUCTURE_TOO_SHORT', text: `it has ${length} bytes, of which ${least} are needed` };
  }
  if (offset % alignment !== 0) {
    return {
      reason: 'STRUCTURE_MISALIGNED',
      text: `it is at offset ${offset}, which is not a multiple of ${alignment}`,
    };
  }
  // 4.1.4.4.1: a power of two that is even, or 0.
  if (multiplier % 2 !== 0 || (multiplier & (multiplier - 1)) !== 0) {
    return {
      reason: 'BAD_NOTIFY_MULTIPLIER',
      text: `its notify_off_multiplier is ${multiplier}, which is neither 0 nor an even power of two`,
    };
  }
  return undefined;
}

/** The reason if no capability names a structure of a type. */
const MISSING: Readonly<Record<number, PciErrorReason>> = {
  [VirtioPciCap.COMMON_CFG]: 'COMMON_CFG_MISSING',
  [VirtioPciCap.NOTIFY_CFG]: 'NOTIFY_CFG_MISSING',
  [VirtioPciCap.ISR_CFG]: 'ISR_CFG_MISSING',
};

/**
 * The error for a required structure that a device lacks, or has in no usable form.
 *
 * @param faults the faults of the structures of its type; the first gives the error its reason
 */
export function structureError(
  name: string,
  what: string,
  type: number,
  faults: readonly StructureFault[],
): VirtioError {
  const [first] = faults;
  return new VirtioError(
    'INVALID_DEVICE',
    `${name}: the device has no usable ${what}: ` +
      (first === undefined ? 'no capability names one' : faults.map(({ text }) => text).join('; ')),
    because(first?.reason ?? MISSING[type]),
  );
}
