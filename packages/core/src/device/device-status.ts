/** The device status field and the interrupt status, as values that print by name. */
import { flagNames, Flags, formatFlags } from './flags.ts';

const STATUS = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  SUSPEND: 16,
  DEVICE_NEEDS_RESET: 64,
  FAILED: 128,
} as const;

const STATUS_NAMES = flagNames(STATUS);
const statusCache: DeviceStatus[] = [];

/**
 * The device status field: the steps of initialization that are complete. Writing 0 resets the device.
 *
 * @example
 * ```ts
 * import { DeviceStatus } from '@virtio/core';
 *
 * String(DeviceStatus.from(0x23)); // 'DeviceStatus(ACKNOWLEDGE | DRIVER | 0x20)'
 * ```
 *
 * @see VIRTIO 1.4, 2.1
 */
export class DeviceStatus extends Flags {
  /** The driver has found the device and recognized it as a valid virtio device. */
  static readonly ACKNOWLEDGE = STATUS.ACKNOWLEDGE;
  /** The driver knows how to drive the device. */
  static readonly DRIVER = STATUS.DRIVER;
  /** The driver is set up and ready to drive the device. */
  static readonly DRIVER_OK = STATUS.DRIVER_OK;
  /** Feature negotiation is complete. */
  static readonly FEATURES_OK = STATUS.FEATURES_OK;
  /** The device has been suspended by the driver. */
  static readonly SUSPEND = STATUS.SUSPEND;
  /** The device has met an error from which it cannot recover by itself. */
  static readonly DEVICE_NEEDS_RESET = STATUS.DEVICE_NEEDS_RESET;
  /** The driver has given up on the device. */
  static readonly FAILED = STATUS.FAILED;

  /** The value for these bits. Equal bits share one object, so that reading the status repeatedly allocates nothing. */
  static from(bits: number): DeviceStatus {
    const byte = bits & 0xff;
    return (statusCache[byte] ??= new DeviceStatus(byte));
  }

  /** These bits and those of `mask`. */
  with(mask: number): DeviceStatus {
    return DeviceStatus.from(this.bits | mask);
  }

  override toString(): string {
    return formatFlags('DeviceStatus', STATUS_NAMES, BigInt(this.bits));
  }
}

const INTERRUPT = { QUEUE_INTERRUPT: 1, DEVICE_CONFIGURATION_INTERRUPT: 2 } as const;
const INTERRUPT_NAMES = flagNames(INTERRUPT);
const interruptCache: InterruptStatus[] = [];

/**
 * The interrupts that were pending when they were acknowledged.
 *
 * @see VIRTIO 1.4, 4.1.4.5 and 4.2.2
 */
export class InterruptStatus extends Flags {
  /** The device used a buffer in at least one virtqueue. */
  static readonly QUEUE_INTERRUPT = INTERRUPT.QUEUE_INTERRUPT;
  /** The configuration of the device changed. */
  static readonly DEVICE_CONFIGURATION_INTERRUPT = INTERRUPT.DEVICE_CONFIGURATION_INTERRUPT;

  /** The value for these bits. Equal bits share one object if they fit a byte. */
  static from(bits: number): InterruptStatus {
    return bits >>> 8 === 0
      ? (interruptCache[bits] ??= new InterruptStatus(bits))
      : new InterruptStatus(bits);
  }

  override toString(): string {
    return formatFlags('InterruptStatus', INTERRUPT_NAMES, BigInt(this.bits));
  }
}
