/** Finds the virtio devices of this machine. */
import { isDeviceType } from '@virtio/core';
import { DevMem } from './dev-mem.ts';
import { listMmioDevices, type MmioDeviceInfo } from './mmio-devices.ts';
import { listPciDevices, type PciDeviceInfo } from './pci-devices.ts';
import { SystemFiles } from './system-files.ts';

/** A virtio device that was found. */
export type DeviceInfo = PciDeviceInfo | MmioDeviceInfo;

/** Options of {@link listDevices}. */
export interface DiscoveryOptions {
  /** Where `sys` and `proc` are (default `/`). */
  readonly root?: string;
}

/** `MagicValue` of an MMIO window: "virt" [4.2.2]. */
const MAGIC = 0x74726976;

/**
 * All virtio devices of this machine: those on PCI first, then the windows of MMIO, empty ones included. What is in an MMIO window
 * is given if the process may read `/dev/mem`; the device is not disturbed.
 *
 * @example
 * ```ts
 * import { deviceTypeName } from '@virtio/core';
 * import { listDevices } from '@virtio/linux';
 *
 * for (const device of listDevices()) {
 *   const where = device.kind === 'pci' ? device.address : `0x${device.address.toString(16)}`;
 *   console.log(where, deviceTypeName(device.deviceType ?? 0), device.driver ?? 'no driver');
 * }
 * ```
 */
export function listDevices({ root = '/' }: DiscoveryOptions = {}): DeviceInfo[] {
  const files = new SystemFiles(root);
  const mmio = listMmioDevices(files);
  return [...listPciDevices(files), ...(root === '/' ? withTypes(mmio) : mmio)];
}

function withTypes(devices: readonly MmioDeviceInfo[]): readonly MmioDeviceInfo[] {
  if (devices.length === 0) return devices;
  using memory = new DevMem();
  return devices.map((device) => ({ ...device, deviceType: readType(memory, device) }));
}

function readType(memory: DevMem, { address, size }: MmioDeviceInfo): MmioDeviceInfo['deviceType'] {
  try {
    const window = memory.map(address, size);
    if (window.read32(0) !== MAGIC) return undefined;
    const id = window.read32(8);
    return id === 0 || isDeviceType(id) ? id : undefined;
  } catch {
    // Not for this process to know.
    return undefined;
  }
}
