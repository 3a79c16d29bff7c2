/** Which virtio device a PCI function is, by its ids. */
import { DeviceType, isDeviceType } from '@virtio/core';

/** The vendor of all virtio devices. */
export const VIRTIO_VENDOR_ID = 0x1af4;

/** Transitional devices have ids below this; modern ones have this plus their type. */
const MODERN = 0x1040;
const FIRST_TRANSITIONAL = 0x1000;

const TRANSITIONAL: Readonly<Record<number, DeviceType>> = {
  0x1000: DeviceType.Network,
  0x1001: DeviceType.Block,
  0x1002: DeviceType.MemoryBallooning,
  0x1003: DeviceType.Console,
  0x1004: DeviceType.ScsiHost,
  0x1005: DeviceType.EntropySource,
  0x1009: DeviceType.P9,
};

/** The ids of a PCI function, as in {@link DeviceFunctionInfo}. */
export interface PciIds {
  /** Who made it. */
  readonly vendorId: number;
  /** Which of the vendor's it is. */
  readonly deviceId: number;
  /** Tells the type of transitional devices whose device id the specification does not list. */
  readonly subsystemId?: number;
}

/**
 * The virtio device type of a PCI function, or `undefined` if it is not a virtio device of a type that the specification
 * knows. The revision does not matter [4.1.2.2]. A transitional device id that the specification does not list is told by
 * the subsystem id, which is the type of such a device [4.1.2.3].
 *
 * @example
 * ```ts
 * import { virtioDeviceType } from '@virtio/pci';
 *
 * virtioDeviceType({ vendorId: 0x1af4, deviceId: 0x1042 }); // 2: a block device
 * virtioDeviceType({ vendorId: 0x1af4, deviceId: 0x1000 }); // 1: a transitional network card
 * ```
 *
 * @see VIRTIO 1.4, 4.1.2
 */
export function virtioDeviceType({ vendorId, deviceId, subsystemId = 0 }: PciIds): DeviceType | undefined {
  if (vendorId !== VIRTIO_VENDOR_ID || deviceId < FIRST_TRANSITIONAL || deviceId > 0x107f) return undefined;
  const listed = TRANSITIONAL[deviceId];
  if (listed !== undefined) return listed;
  const type = deviceId >= MODERN ? deviceId - MODERN : subsystemId;
  return isDeviceType(type) ? type : undefined;
}

/** Whether the device is a transitional one, which offers the legacy interface as well. */
export function isTransitional({ vendorId, deviceId }: PciIds): boolean {
  return vendorId === VIRTIO_VENDOR_ID && deviceId >= FIRST_TRANSITIONAL && deviceId < MODERN;
}
