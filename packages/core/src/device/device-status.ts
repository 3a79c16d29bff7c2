/** The device status field and the interrupt status, as values that print by name. */
import { flagNames, Flags, formatFlags } from './flags.ts';

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
  static readonly ACKNOWLEDGE = 1;
  /** The driver knows how to drive the device. */
  static readonly DRIVER = 2;
  /** The driver is set up and ready to drive the device. */
  static readonly DRIVER_OK = 4;
  /** Feature negotiation is complete. */
  static readonly FEATURES_OK = 8;
  /** The device has been suspended by the driver. */
  static readonly SUSPEND = 16;
  /** The device has met an error from which it cannot recover by itself. */
  static readonly DEVICE_NEEDS_RESET = 64;
  /** The driver has given up on the device. */
  static readonly FAILED = 128;

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
    return formatFlags('DeviceStatus', flagNames(DeviceStatus), BigInt(this.bits));
  }
}

const interruptCache: InterruptStatus[] = [];

/**
 * The interrupts that were pending when they were acknowledged.
 *
 * @see VIRTIO 1.4, 4.1.4.5 and 4.2.2
 */
export class InterruptStatus extends Flags {
  /** The device used a buffer in at least one virtqueue. */
  static readonly QUEUE_INTERRUPT = 1;
  /** The configuration of the device changed. */
  static readonly DEVICE_CONFIGURATION_INTERRUPT = 2;

  /** The value for these bits. Equal bits share one object if they fit a byte. */
  static from(bits: number): InterruptStatus {
    return bits >>> 8 === 0
      ? (interruptCache[bits] ??= new InterruptStatus(bits))
      : new InterruptStatus(bits);
  }

  override toString(): string {
    return formatFlags('InterruptStatus', flagNames(InterruptStatus), BigInt(this.bits));
  }
}
