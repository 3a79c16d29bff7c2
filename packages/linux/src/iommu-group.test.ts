import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bindForVfio, checkIommu } from './iommu-group.ts';
import { describePciDevice } from './pci-devices.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

const ADDRESS = '0000:00:01.0';
const PATH = `sys/bus/pci/devices/${ADDRESS}`;

let machine: FakeMachine;
beforeEach(() => {
  machine = new FakeMachine();
  machine.tree({ 'sys/bus/pci/drivers_probe': '', 'sys/bus/pci/drivers/vfio-pci/bind': '' });
});
afterEach(() => machine[Symbol.dispose]());

/** The kernel of a machine whose firmware says what is behind the IOMMU: it looks there when a driver is to have the device. */
class Kernel extends SystemFiles {
  readonly #group: number | undefined;
  written = 0;

  constructor(group: number | undefined) {
    super(machine.root);
    this.#group = group;
  }

  override write(path: string, text: string): void {
    this.written += 1;
    super.write(path, text);
    if (path.endsWith('/driver/unbind')) machine.remove(`${PATH}/driver`);
    if (!path.endsWith('/drivers_probe') || this.#group === undefined) return;
    symlinkSync(`../../../../kernel/iommu_groups/${this.#group}`, join(machine.root, PATH, 'iommu_group'));
    symlinkSync('../../../../bus/pci/drivers/vfio-pci', join(machine.root, PATH, 'driver'));
  }
}

describe('bindForVfio', () => {
  it('finds the group that the kernel puts a device into when a driver gets it', () => {
    machine.pci(ADDRESS, { device: '0x1042' });
    machine.tree({
      'sys/class/iommu/smmu3.0x0000000009050000': '',
      'sys/bus/pci/drivers/vfio-pci/unbind': '',
    });
    const kernel = new Kernel(5);
    const device = describePciDevice(kernel, ADDRESS);
    expect(device.iommuGroup).toBeUndefined();
    checkIommu(kernel, device);
    const { binding, iommuGroup } = bindForVfio(kernel, device, false);
    expect(iommuGroup).toBe(5);
    binding[Symbol.dispose]();
    expect(describePciDevice(kernel, ADDRESS).driver).toBeUndefined();
  });

  it('says that the IOMMU is missing for a device that is not behind the one there is, and leaves it as it was', () => {
    machine.pci(ADDRESS, { device: '0x1042' });
    machine.tree({ 'sys/class/iommu/smmu3.0x0000000009050000': '' });
    const kernel = new Kernel(undefined);
    const device = describePciDevice(kernel, ADDRESS);
    expect(() => bindForVfio(kernel, device, false)).toThrow(
      expect.objectContaining({ code: 'IOMMU_MISSING' }),
    );
    expect(kernel.text(`/${PATH}/driver_override`)).toBe('');
  });

  it('touches nothing on a machine without an IOMMU, or where a driver has had the device without one', () => {
    const refused = (kernel: Kernel): void => {
      const device = describePciDevice(kernel, ADDRESS);
      const missing = expect.objectContaining({ code: 'IOMMU_MISSING' }) as Error;
      expect(() => checkIommu(kernel, device)).toThrow(missing);
      expect(() => bindForVfio(kernel, device, true)).toThrow(missing);
      expect(kernel.written).toBe(0);
    };
    machine.pci(ADDRESS, { device: '0x1042' });
    refused(new Kernel(5));
    machine.remove(PATH);
    machine.pci(ADDRESS, { device: '0x1042', driver: 'virtio-pci' });
    machine.tree({ 'sys/class/iommu/smmu3.0x0000000009050000': '' });
    refused(new Kernel(5));
  });
});
