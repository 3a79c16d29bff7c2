/**
 * Feature bits as typed sets with names. They are `bigint`s, as there are up to 128 of them and none is used once a device is
 * live.
 */
import { flagNames, formatFlags } from './flags.ts';

const INSPECT = Symbol.for('nodejs.util.inspect.custom');

/**
 * The device-independent feature bits, by number.
 *
 * @see VIRTIO 1.4, 6
 */
export const Feature = {
  /** Legacy: the device notifies when it runs out of buffers even though notifications are suppressed. Not accepted. */
  NOTIFY_ON_EMPTY: 24,
  /** Legacy: the device accepts descriptors of any layout. */
  ANY_LAYOUT: 27,
  /** The driver can use descriptors that refer to tables of descriptors. */
  INDIRECT_DESC: 28,
  /** `used_event` and `avail_event` say when the next notification is wanted. */
  EVENT_IDX: 29,
  /** Legacy: marks very early drivers. Never accepted. */
  UNUSED: 30,
  /** The device complies with version 1 of the specification. Always accepted. */
  VERSION_1: 32,
  /** The platform limits or translates the device's access to memory. */
  ACCESS_PLATFORM: 33,
  /** Virtqueues use the packed layout. */
  RING_PACKED: 34,
  /** The device uses buffers in the order in which they were made available. */
  IN_ORDER: 35,
  /** Memory is ordered by the platform's rules for devices, not by those between processors. */
  ORDER_PLATFORM: 36,
  /** Single-root I/O virtualization. Not accepted: these drivers do not manage virtual functions. */
  SR_IOV: 37,
  /** Notifications carry the position in the ring. */
  NOTIFICATION_DATA: 38,
  /** Notifications carry a value that the device chose instead of the queue's index. */
  NOTIF_CONFIG_DATA: 39,
  /** One queue can be reset alone. */
  RING_RESET: 40,
  /** The device has administration virtqueues. Not accepted: these drivers do not administer other devices. */
  ADMIN_VQ: 41,
  /** The driver can suspend the device. Not accepted: a device that is not needed is reset. */
  SUSPEND: 43,
} as const;

/** The name of a device-independent feature. */
export type FeatureName = keyof typeof Feature;

/** A set of features: those of one type of device and the device-independent ones. Immutable. */
export class FeatureSet<Name extends string = FeatureName> {
  /** The bits, as they are written to the device. */
  readonly bits: bigint;
  /** The table that names the bits. */
  readonly table: FeatureTable<Name>;

  /** @internal use {@link FeatureTable.set} or {@link FeatureTable.fromBits} */
  constructor(table: FeatureTable<Name>, bits: bigint) {
    this.table = table;
    this.bits = bits;
  }

  /** Whether the feature is in the set. */
  has(name: Name | FeatureName): boolean {
    return (this.bits & this.table.mask(name)) !== 0n;
  }

  /** The names of all features in the set that have one. */
  names(): (Name | FeatureName)[] {
    return this.table.names(this.bits);
  }

  /** The set as text: `BlkFeatures(FLUSH | VERSION_1 | 0x800000)`. */
  toString(): string {
    return this.table.format(this.bits);
  }

  /** The same as {@link FeatureSet.toString}, for Node.js's `console.log`. */
  [INSPECT](): string {
    return this.toString();
  }
}

/** The feature bits of one type of device, by number, with the device-independent ones added. */
export class FeatureTable<Name extends string = FeatureName> {
  readonly #label: string;
  readonly #masks: ReadonlyMap<string, bigint>;
  readonly #byMask: ReadonlyMap<bigint, string>;

  /**
   * @param label the name of a set in text, e.g. `BlkFeatures`
   * @param bits the device's own feature bits: name to bit number
   *
   * @example
   * ```ts
   * import { FeatureTable } from '@virtio/core';
   *
   * const RngFeatures = new FeatureTable('RngFeatures', {});
   * const BlkFeatures = new FeatureTable('BlkFeatures', { RO: 5, FLUSH: 9 });
   * console.log(String(BlkFeatures.set('FLUSH', 'VERSION_1')), String(RngFeatures.fromBits(1n)));
   * ```
   */
  constructor(label: string, bits: Readonly<Record<Name, number>>) {
    const table = Object.fromEntries(
      Object.entries<number>({ ...bits, ...Feature }).map(([name, bit]) => [name, 1n << BigInt(bit)]),
    );
    this.#label = label;
    this.#masks = new Map(Object.entries(table));
    this.#byMask = flagNames(table);
  }

  /** The mask of one feature. */
  mask(name: Name | FeatureName): bigint {
    return this.#masks.get(name) ?? 0n;
  }

  /** The set of these features. */
  set(...names: (Name | FeatureName)[]): FeatureSet<Name> {
    return this.fromBits(names.reduce((bits, name) => bits | this.mask(name), 0n));
  }

  /** The set of these bits; those without a name are kept. */
  fromBits(bits: bigint): FeatureSet<Name> {
    return new FeatureSet(this, bits);
  }

  /** The names of the bits that have one. */
  names(bits: bigint): (Name | FeatureName)[] {
    return [...this.#byMask]
      .filter(([mask]) => (bits & mask) !== 0n)
      .map(([, name]) => name as Name | FeatureName);
  }

  /** The bits by name, as text. */
  format(bits: bigint): string {
    return formatFlags(this.#label, this.#byMask, bits);
  }
}

/** A table of only the device-independent features. */
export const CommonFeatures: FeatureTable = new FeatureTable<FeatureName>('Features', Feature);
