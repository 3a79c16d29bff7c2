/** Which IOMMU group a PCI device is in, and how it gets into one. */
import { VirtioError } from '@virtio/core';
import { DriverBinding } from './driver-binding.ts';
import { describePciDevice, type PciDeviceInfo } from './pci-devices.ts';
import type { SystemFiles } from './system-files.ts';

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
      `PCI ${address} is bound to vfio-pci, but not behind an IOMMU: in its no-IOMMU mode VFIO gives a device no memory. If the ` +
        'device may reach all memory of this machine, open it with { unsafePhysicalMemory: true, takeOver: true }, which takes ' +
        'it from vfio-pci; else enable an IOMMU',
    );
  }
  throw new VirtioError(
    'IOMMU_MISSING',
    `PCI ${address} is not behind an IOMMU. Enable one (firmware: VT-d or AMD-Vi; kernel command line: intel_iommu=on; QEMU: ` +
      '-device intel-iommu,intremap=on, on aarch64 -machine virt,iommu=smmuv3), or, if the device may reach all memory of this machine, open it with ' +
      '{ unsafePhysicalMemory: true }',
  );
}

/**
 * Whether the device may get into a group only when a driver is bound to it. So it is where a device tree or ACPI's IORT says what is
 * behind an IOMMU (aarch64, riscv64): the kernel looks there for each device that a driver is to have.
 */
function mayJoinLater(files: SystemFiles, { iommuGroup, driver }: PciDeviceInfo): boolean {
  return iommuGroup === undefined && driver === undefined && files.list('/sys/class/iommu').length > 0;
}

/**
 * Fails early for a device that surely has no IOMMU.
 *
 * @throws {@link VirtioError} `IOMMU_MISSING`
 */
export function checkIommu(files: SystemFiles, device: PciDeviceInfo): void {
  if (!mayJoinLater(files, device)) requireIommu(device);
}

/**
 * Binds a device to vfio-pci, if it is not, and tells its group.
 *
 * @throws {@link VirtioError} `IOMMU_MISSING`, and as the constructor of {@link DriverBinding}
 */
export function bindForVfio(
  files: SystemFiles,
  device: PciDeviceInfo,
  takeOver: boolean,
): { readonly binding: DriverBinding; readonly iommuGroup: number } {
  const group = (): number => requireIommu(describePciDevice(files, device.address));
  if (!mayJoinLater(files, device)) {
    const iommuGroup = requireIommu(device);
    return { binding: new DriverBinding(files, device, 'vfio-pci', { takeOver }), iommuGroup };
  }
  let binding: DriverBinding;
  try {
    binding = new DriverBinding(files, device, 'vfio-pci', { takeOver });
  } catch (error) {
    // Without a group vfio-pci takes no device.
    if (VirtioError.is(error, 'SYSTEM_ERROR')) group();
    throw error;
  }
  try {
    return { binding, iommuGroup: group() };
  } catch (error) {
    binding[Symbol.dispose]();
    throw error;
  }
}
