/** Opens a PCI device that is not behind an IOMMU. */
import { DeviceStatus, VirtioError } from '@virtio/core';
import { DeviceFunction, PciTransport } from '@virtio/pci';
import { DeviceLock } from './device-lock.ts';
import { DriverBinding, releaseDevice } from './driver-binding.ts';
import type { OpenOptions } from './open-options.ts';
import { groupType, pciBars, pciPath, type PciDeviceInfo, requireVirtio } from './pci-devices.ts';
import { PhysicalPciDevice } from './physical-pci.ts';
import { pollingInterrupts } from './polling.ts';
import { RemovalWatch } from './removal-watch.ts';
import { Resources } from './resources.ts';
import type { SystemFiles } from './system-files.ts';
import { UioInterrupts } from './uio-interrupts.ts';

/** Opens the device through sysfs; for interrupts it is bound to uio_pci_generic if that is loaded. */
export function openPhysicalPci(
  files: SystemFiles,
  device: PciDeviceInfo,
  { takeOver = false, interrupts: wanted }: OpenOptions,
): PciTransport {
  const { address, iommuGroup } = device;
  checkInterrupts(address, wanted);
  requireVirtio(files, device);
  if (iommuGroup !== undefined && groupType(files, iommuGroup) !== 'identity') {
    throw new VirtioError(
      'UNSUPPORTED',
      `PCI ${address} is behind an IOMMU that translates its addresses, so it cannot use physical ones; open it through VFIO, ` +
        'without { unsafePhysicalMemory: true }',
    );
  }
  const resources = new Resources();
  return resources.keepUnlessThrown(() => {
    // Before anything changes, as it may be open: another kernel driver would stop it.
    resources.add(new DeviceLock(files, `PCI ${address}`, `${pciPath(address)}/config`));
    const uio = wanted === 'uio' || (wanted === undefined && uioIsLoaded(files));
    if (uio) resources.add(new DriverBinding(files, device, 'uio_pci_generic', { takeOver }));
    else if (device.driver !== undefined && device.driver !== 'uio_pci_generic') {
      resources.add(releaseDevice(files, device, takeOver));
    }
    const pci = resources.add(new PhysicalPciDevice(files, address));
    const onGone = (): void => {
      watch[Symbol.dispose]();
      // If it is still in its slot (sysfs: "remove", "unbind"), it would go on using memory that is given back.
      transport.setStatus(DeviceStatus.from(0));
      pci.abandon();
      source.remove();
    };
    const lines = uio ? UioInterrupts.open(files, address, pci.config, onGone) : undefined;
    if (lines !== undefined) resources.add(lines);
    else if (wanted === 'uio') {
      throw new VirtioError(
        'UNSUPPORTED',
        `PCI ${address} has no interrupt line, and UIO supports no other interrupts; open it with { interrupts: 'polling' }`,
      );
    }
    const source = lines ?? pollingInterrupts(() => transport);
    // A driver that was not disposed before ends; interrupt lines tell theirs by themselves.
    resources.defer(() => source.remove());
    const watch = resources.add(new RemovalWatch(() => pci.isThere(), onGone));
    const transport: PciTransport = new PciTransport({
      at: DeviceFunction.parse(address),
      config: pci.config,
      bars: pciBars(files, address),
      mapBar: (bar, offset, length) => pci.mapBar(bar, offset, length),
      interrupts: source,
      onDispose: () => resources[Symbol.dispose](),
    });
    return transport;
  });
}

function uioIsLoaded(files: SystemFiles): boolean {
  return files.exists('/sys/bus/pci/drivers/uio_pci_generic');
}

function checkInterrupts(address: string, wanted: OpenOptions['interrupts']): void {
  if (wanted !== 'msix' && wanted !== 'intx') return;
  throw new VirtioError(
    'UNSUPPORTED',
    `PCI ${address}: ${wanted} reaches a process through VFIO only; with physical memory use { interrupts: 'uio' } or 'polling'`,
  );
}
