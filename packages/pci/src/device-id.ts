/** The virtio device type of a PCI function, by its ids. */
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
  /** The vendor id. */
  readonly vendorId: number;
  /** The device id. */
  readonly deviceId: number;
  /** The subsystem id: the type of a transitional device whose device id the specification does not list. */
  readonly subsystemId?: number;
}

/**
 * The virtio device type of a PCI function, or `undefined` if it is not a virtio device of a type in the specification. Any
 * revision matches [4.1.2.2]. If the specification does not list a transitional device id, the subsystem id is the type of the
 * device [4.1.2.3].
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

/** Whether the device is transitional: it also offers the legacy interface. */
export function isTransitional({ vendorId, deviceId }: PciIds): boolean {
  return vendorId === VIRTIO_VENDOR_ID && deviceId >= FIRST_TRANSITIONAL && deviceId < MODERN;
}
