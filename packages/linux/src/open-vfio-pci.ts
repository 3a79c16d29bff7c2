/** Opens a PCI device behind an IOMMU. */
import { VirtioError } from '@virtio/core';
import { DeviceFunction, PciTransport } from '@virtio/pci';
import { bindForVfio } from './iommu-group.ts';
import type { OpenOptions } from './open-options.ts';
import { otherGroupMembers, pciBars, type PciDeviceInfo, requireVirtio } from './pci-devices.ts';
import { pollingInterrupts } from './polling.ts';
import { Resources } from './resources.ts';
import type { SystemFiles } from './system-files.ts';
import { VfioDevice } from './vfio-device.ts';
import type { VfioHal } from './vfio-hal.ts';
import { VfioInterrupts } from './vfio-interrupts.ts';

/** Binds the device to vfio-pci, if it is not, and opens it. */
export function openVfioPci(
  files: SystemFiles,
  device: PciDeviceInfo,
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
  requireVirtio(files, device);
  const resources = new Resources();
  return resources.keepUnlessThrown(() => {
    const { binding, iommuGroup } = bindForVfio(files, device, takeOver);
    resources.add(binding);
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
    // A driver that was not disposed before ends; interrupt lines tell theirs by themselves.
    resources.defer(() => {
      polling.remove();
    });
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
