/** Virtio devices on PCI, as sysfs describes them. */
import { type DeviceType, VirtioError } from '@virtio/core';
import {
  type Bars,
  DeviceFunction,
  isTransitional,
  type PciErrorReason,
  VIRTIO_VENDOR_ID,
  virtioDeviceType,
} from '@virtio/pci';
import type { SystemFiles } from './system-files.ts';

const DEVICES = '/sys/bus/pci/devices';
const GROUPS = '/sys/kernel/iommu_groups';
const NO_IOMMU = 'vfio-noiommu';

/** A virtio device on PCI. */
export interface PciDeviceInfo {
  /** Distinguishes it from an `MmioDeviceInfo`. */
  readonly kind: 'pci';
  /** Where it is: `0000:00:03.0`. */
  readonly address: string;
  /** Its type, if it is one of the specification. */
  readonly deviceType: DeviceType | undefined;
  /** Whether it also offers the legacy interface. */
  readonly transitional: boolean;
  /** The PCI device id. */
  readonly deviceId: number;
  /** The kernel driver that it is bound to, if any. */
  readonly driver: string | undefined;
  /** The number of its IOMMU group; `undefined` if it is not behind an IOMMU, as in VFIO's no-IOMMU mode. */
  readonly iommuGroup: number | undefined;
}

/** The folder of a PCI function in sysfs. */
export function pciPath(address: string): string {
  return `${DEVICES}/${address}`;
}

/** All virtio devices on PCI in the order of their addresses. */
export function listPciDevices(files: SystemFiles): PciDeviceInfo[] {
  return files
    .list(DEVICES)
    .filter((address) => files.number(`${pciPath(address)}/vendor`) === VIRTIO_VENDOR_ID)
    .map((address) => describePciDevice(files, address))
    .filter(({ deviceType, transitional }) => deviceType !== undefined || transitional);
}

/**
 * Describes one PCI function.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if it is not a PCI address, `NO_DEVICE` if there is no function
 */
export function describePciDevice(files: SystemFiles, address: string): PciDeviceInfo {
  const normal = DeviceFunction.parse(address).toString();
  const path = pciPath(normal);
  const vendorId = files.number(`${path}/vendor`);
  const deviceId = files.number(`${path}/device`);
  if (vendorId === undefined || deviceId === undefined) {
    throw new VirtioError(
      'NO_DEVICE',
      `there is no PCI device at ${normal}; listDevices() lists those of this machine`,
    );
  }
  const subsystemId = files.number(`${path}/subsystem_device`) ?? 0;
  return {
    kind: 'pci',
    address: normal,
    deviceType: virtioDeviceType({ vendorId, deviceId, subsystemId }),
    transitional: isTransitional({ vendorId, deviceId }),
    deviceId,
    driver: files.linkName(`${path}/driver`),
    iommuGroup: iommuGroup(files, path),
  };
}

/**
 * Refuses a function that is not a virtio device of a known type, before it is taken from its kernel driver: with a wrong address, that
 * may be the driver of the disk that this machine runs from.
 *
 * @throws {@link VirtioError} `INVALID_DEVICE`
 */
export function requireVirtio(files: SystemFiles, { address, deviceType, deviceId }: PciDeviceInfo): void {
  if (deviceType !== undefined) return;
  const vendorId = files.number(`${pciPath(address)}/vendor`) ?? 0;
  const id = (value: number): string => value.toString(16).padStart(4, '0');
  throw new VirtioError(
    'INVALID_DEVICE',
    `PCI ${address} is ${id(vendorId)}:${id(deviceId)}, which is not a virtio device of a known type; listDevices() lists those of ` +
      'this machine',
    {
      reason: (vendorId === VIRTIO_VENDOR_ID
        ? 'UNKNOWN_DEVICE_ID'
        : 'WRONG_VENDOR_ID') satisfies PciErrorReason,
    },
  );
}

/** vfio-pci makes groups of its own for devices without an IOMMU, where `enable_unsafe_noiommu_mode` is set. */
function iommuGroup(files: SystemFiles, path: string): number | undefined {
  const group = files.linkName(`${path}/iommu_group`);
  return group === undefined || files.text(`${GROUPS}/${group}/name`) === NO_IOMMU
    ? undefined
    : Number(group);
}

/** The other devices of an IOMMU group that a kernel driver has, for messages: `0000:00:1f.2 (ahci)`. */
export function otherGroupMembers(files: SystemFiles, group: number, address: string): string {
  const others = files
    .list(`${GROUPS}/${group}/devices`)
    .filter((name) => name !== address)
    .map((name) => ({ name, driver: files.linkName(`${pciPath(name)}/driver`) }))
    .filter(({ driver }) => driver !== undefined && !['vfio-pci', 'pci-stub', 'pcieport'].includes(driver))
    .map(({ name, driver }) => `${name} (${driver ?? ''})`);
  return others.length === 0 ? 'none that sysfs names' : others.join(', ');
}

/** The type of a group's default domain: `DMA`, `identity`, …; `undefined` if the kernel does not report it. */
export function groupType(files: SystemFiles, group: number): string | undefined {
  return files.text(`${GROUPS}/${group}/type`);
}

/** `IORESOURCE_*` of `<linux/ioport.h>`. */
const RESOURCE_IO = 0x100;
const RESOURCE_MEM = 0x200;
const RESOURCE_PREFETCH = 0x2000;
const RESOURCE_MEM_64 = 0x100000;
const RESOURCE_UNSET = 0x20000000;

/**
 * The BARs of a function, as the kernel assigned them, at 0 if it had no address for one: one line each of `resource` has first,
 * last and flags.
 */
export function pciBars(files: SystemFiles, address: string): Bars {
  const lines = (files.text(`${pciPath(address)}/resource`) ?? '').split('\n').slice(0, 6);
  return lines.map((line, index) => {
    const [start = 0, end = 0, flags = 0] = line.trim().split(/\s+/).map(Number);
    if (end === 0) return undefined;
    const size = end - start + 1;
    const address = (flags & RESOURCE_UNSET) !== 0 ? 0 : start;
    if ((flags & RESOURCE_IO) !== 0) return { kind: 'io', index, address, size };
    if ((flags & RESOURCE_MEM) === 0) return undefined;
    return {
      kind: 'memory',
      index,
      address,
      size,
      type: (flags & RESOURCE_MEM_64) !== 0 ? '64-bit' : '32-bit',
      prefetchable: (flags & RESOURCE_PREFETCH) !== 0,
    };
  });
}
