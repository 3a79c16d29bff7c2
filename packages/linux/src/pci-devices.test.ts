import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { listDevices } from './discovery.ts';
import { openPhysicalPci } from './open-physical-pci.ts';
import { requireIommu } from './iommu-group.ts';
import {
  describePciDevice,
  groupType,
  listPciDevices,
  otherGroupMembers,
  type PciDeviceInfo,
  pciBars,
} from './pci-devices.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

let machine: FakeMachine;

beforeEach(() => {
  machine = new FakeMachine();
});
afterEach(() => {
  machine[Symbol.dispose]();
});

describe('listPciDevices', () => {
  it('describes modern, transitional and unknown virtio devices, and no others', () => {
    machine.pci('0000:00:01.0', { device: '0x1042', driver: 'virtio-pci', group: 3 });
    machine.pci('0000:00:02.0', { device: '0x1000' });
    machine.pci('0000:00:1f.2', { device: '0x2922', vendor: '0x8086', driver: 'ahci' });
    machine.pci('0000:01:00.0', { device: '0x1041', group: 12 });
    // Vendor 1af4 also makes devices that are no virtio devices (0x1110: shared memory between guests).
    machine.pci('0000:02:00.0', { device: '0x1110' });
    expect(listPciDevices(new SystemFiles(machine.root))).toEqual([
      {
        kind: 'pci',
        address: '0000:00:01.0',
        deviceType: 2,
        transitional: false,
        deviceId: 0x1042,
        driver: 'virtio-pci',
        iommuGroup: 3,
      },
      {
        kind: 'pci',
        address: '0000:00:02.0',
        deviceType: 1,
        transitional: true,
        deviceId: 0x1000,
        driver: undefined,
        iommuGroup: undefined,
      },
      expect.objectContaining({
        address: '0000:01:00.0',
        deviceType: 1,
        transitional: false,
        iommuGroup: 12,
      }),
    ]);
  });

  it('finds nothing on a machine without PCI', () => {
    expect(listDevices({ root: machine.root })).toEqual([]);
  });
});

describe('describePciDevice', () => {
  it('takes an address without its domain, and says if there is no device or no address', () => {
    machine.pci('0000:00:01.0', { device: '0x1042' });
    const files = new SystemFiles(machine.root);
    expect(describePciDevice(files, '00:01.0').address).toBe('0000:00:01.0');
    expect(() => describePciDevice(files, '00:02.0')).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
    expect(() => describePciDevice(files, 'eth0')).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });
});

describe("a device in VFIO's no-IOMMU mode", () => {
  const device = (): PciDeviceInfo => {
    machine.pci('0000:00:01.0', { device: '0x1042', driver: 'vfio-pci', group: 0 });
    machine.tree({
      'sys/kernel/iommu_groups/0/name': 'vfio-noiommu\n',
      'sys/kernel/iommu_groups/0/type': 'unknown\n',
    });
    return describePciDevice(new SystemFiles(machine.root), '0000:00:01.0');
  };

  it('is not behind an IOMMU, though it has a group', () => {
    expect(device().iommuGroup).toBeUndefined();
  });

  it('is not to be bound to vfio-pci, which it is, but to be opened with physical memory', () => {
    const found = device();
    expect(() => requireIommu(found)).toThrow(expect.objectContaining({ code: 'IOMMU_MISSING' }));
    expect(() => requireIommu(found)).toThrow('{ unsafePhysicalMemory: true, takeOver: true }');
  });

  it('is taken from vfio-pci for physical memory', () => {
    const found = device();
    const files = new SystemFiles(machine.root);
    expect(() => openPhysicalPci(files, found, { interrupts: 'polling' })).toThrow(
      expect.objectContaining({
        code: 'DEVICE_BUSY',
        message: expect.stringContaining('takeOver') as string,
      }),
    );
  });
});

describe('pciBars', () => {
  it('reads what the kernel assigned', () => {
    const empty = '0x0000000000000000 0x0000000000000000 0x0000000000000000';
    machine.tree({
      'sys/bus/pci/devices/0000:00:01.0/resource': `${[
        '0x000000000000c000 0x000000000000c07f 0x0000000000040101',
        '0x00000000febd1000 0x00000000febd1fff 0x0000000000040200',
        empty,
        empty,
        '0x00000000fe000000 0x00000000fe003fff 0x000000000014220c',
        empty,
        '0x00000000feb80000 0x00000000febbffff 0x000000000004e200',
      ].join('\n')}\n`,
    });
    expect(pciBars(new SystemFiles(machine.root), '0000:00:01.0')).toEqual([
      { kind: 'io', index: 0, address: 0xc000, size: 0x80 },
      { kind: 'memory', index: 1, address: 0xfebd1000, size: 0x1000, type: '32-bit', prefetchable: false },
      undefined,
      undefined,
      { kind: 'memory', index: 4, address: 0xfe000000, size: 0x4000, type: '64-bit', prefetchable: true },
      undefined,
    ]);
  });
});

describe('IOMMU groups', () => {
  it('names the other devices that stand in the way', () => {
    machine.pci('0000:00:01.0', { device: '0x1042', group: 3 });
    machine.pci('0000:00:01.1', { device: '0x2922', vendor: '0x8086', driver: 'ahci', group: 3 });
    machine.pci('0000:00:01.2', { device: '0x1041', driver: 'vfio-pci', group: 3 });
    machine.pci('0000:00:01.3', { device: '0x1041', group: 3 });
    machine.tree({ 'sys/kernel/iommu_groups/3/type': 'DMA-FQ\n' });
    const files = new SystemFiles(machine.root);
    expect(otherGroupMembers(files, 3, '0000:00:01.0')).toBe('0000:00:01.1 (ahci)');
    expect(otherGroupMembers(files, 4, '0000:00:01.0')).toBe('none that sysfs names');
    expect(groupType(files, 3)).toBe('DMA-FQ');
  });
});
