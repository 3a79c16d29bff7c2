/** Opens a PCI device behind an IOMMU. */
import { VirtioError } from '@virtio/core';
import { DeviceFunction, PciTransport } from '@virtio/pci';
import { DriverBinding } from './driver-binding.ts';
import type { OpenOptions } from './open-options.ts';
import { otherGroupMembers, pciBars, type PciDeviceInfo } from './pci-devices.ts';
import { pollingInterrupts } from './polling.ts';
import { Resources } from './resources.ts';
import type { SystemFiles } from './system-files.ts';
import { VfioDevice } from './vfio-device.ts';
import type { VfioHal } from './vfio-hal.ts';
import { VfioInterrupts } from './vfio-interrupts.ts';

/**
 * The device's IOMMU group.
 *
 * @throws {@link VirtioError} `IOMMU_MISSING`
 */
export function requireIommu({ address, iommuGroup, driver }: PciDeviceInfo): number {
  if (iommuGroup !== undefined) return iommuGroup;
  if (driver === 'vfio-pci') {
    throw new VirtioError(
      'IOMMU_MISSING',
      `PCI ${address} is bound to vfio-pci, but not behind an IOMMU: in its no-IOMMU mode VFIO cannot map memory for a device. If the ` +
        'device may reach all memory of this machine, open it with { unsafePhysicalMemory: true, takeOver: true }, which takes ' +
        'it from vfio-pci; else enable an IOMMU',
    );
  }
  throw new VirtioError(
    'IOMMU_MISSING',
    `PCI ${address} is not behind an IOMMU. Enable one (firmware: VT-d or AMD-Vi; kernel command line: intel_iommu=on; QEMU: ` +
      '-device intel-iommu,intremap=on), or, if the device may reach all memory of this machine, open it with ' +
      '{ unsafePhysicalMemory: true }',
  );
}

/** Binds the device to vfio-pci, if it is not, and opens it. */
export function openVfioPci(
  files: SystemFiles,
  device: PciDeviceInfo,
  iommuGroup: number,
  hal: VfioHal,
  { takeOver = false, interrupts: wanted }: OpenOptions,
): PciTransport {
  const { address } = device;
  if (wanted === 'uio') {
    throw new VirtioError(
      'UNSUPPORTED',
      `PCI ${address}: UIO is for devices without an IOMMU; use 'msix', 'intx' or 'polling'`,
    );
  }
  const resources = new Resources();
  return resources.keepUnlessThrown(() => {
    resources.add(new DriverBinding(files, device, 'vfio-pci', { takeOver }));
    const members = (): string => otherGroupMembers(files, iommuGroup, address);
    const vfio = resources.add(new VfioDevice(hal.container, address, iommuGroup, members));
    const bars = pciBars(files, address);
    resources.defer(
      hal.addRegisters((at, size) => {
        const bar = bars.find(
          (b) => b?.kind === 'memory' && at >= b.address && at + size <= b.address + b.size,
        );
        return bar && vfio.mapBar(bar.index, at - bar.address, size);
      }),
    );
    const kind = wanted ?? VfioInterrupts.kinds(vfio)[0] ?? 'polling';
    const polling = pollingInterrupts(() => transport);
    const onGone = (): void => {
      polling.remove();
      lines[Symbol.dispose]();
      vfio.abandon();
    };
    const lines: VfioInterrupts = resources.add(
      new VfioInterrupts(vfio, kind === 'polling' ? 'none' : kind, onGone),
    );
    const transport: PciTransport = new PciTransport({
      at: DeviceFunction.parse(address),
      config: vfio.config,
      bars,
      mapBar: (bar, offset, length) => vfio.mapBar(bar, offset, length),
      interrupts: kind === 'polling' ? polling : lines,
      onDispose: () => resources[Symbol.dispose](),
    });
    return transport;
  });
}
