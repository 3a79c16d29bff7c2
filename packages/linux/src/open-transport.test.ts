import { VirtioBlk } from '@virtio/blk';
import { describe, expect, it } from 'vitest';
import { openDriver } from './open-driver.ts';
import { openTransport } from './open-transport.ts';

describe('openTransport', () => {
  it('refuses what is no address, or where nothing is', () => {
    expect(() => openTransport('eth0')).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => openTransport('fffe:ff:1f.7')).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
  });

  it('takes PCI addresses and MMIO windows by name', () => {
    expect(() => openTransport('pci:fffe:ff:1f.7')).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
    for (const window of ['mmio:0xfeb00000', 'mmio:0xfeb00000+0x1000', 'mmio:0xfeb00000+512']) {
      expect(() => openTransport(window)).toThrow('MMIO 0xfeb00000 is not behind an IOMMU');
    }
    for (const other of ['mmio:', 'mmio:feb00000', 'mmio:0xfeb00000+', 'mmio:0xfeb00000 ']) {
      expect(() => openTransport(other)).toThrow('is not the address of a device');
    }
  });

  it('refuses names that every object has, and what callers without types give', () => {
    for (const name of ['toString:1', 'constructor:5', '__proto__:x', 'hasOwnProperty:x', 'valueOf:']) {
      expect(() => openTransport(name)).toThrow(`"${name}" is not the address of a PCI function`);
    }
    expect(() => openTransport('vhost-userx')).toThrow('is not the address of a PCI function');
    const others: readonly unknown[] = [
      undefined,
      null,
      42,
      1n,
      {},
      [],
      { kind: 'pci' },
      { kind: 'pci', address: 5 },
      { kind: 'mmio' },
      { address: '0xfeb00000', size: 512 },
      { address: 0xfeb00000n, size: 512 },
      { address: 0xfeb00000 },
    ];
    for (const what of others) {
      for (const open of [openTransport, (other: string) => openDriver(VirtioBlk, other)]) {
        expect(() => open(what as string)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
      }
    }
  });

  it('refuses kinds of interrupts that do not exist, which would never come', () => {
    for (const interrupts of ['MSIX', 'msi', '', 1, null]) {
      expect(() => openTransport('fffe:ff:1f.7', { interrupts: interrupts as 'msix' })).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
  });

  it('says who opens devices in other processes', () => {
    expect(() => openTransport('vhost-user:/tmp/vhost.sock')).toThrow('@virtio/vhost-user');
  });

  it('opens nothing without an IOMMU unless that is asked for by name', () => {
    expect(() => openTransport({ address: 0xfeb00000, size: 512 })).toThrow(
      expect.objectContaining({ code: 'IOMMU_MISSING' }),
    );
    expect(() => openTransport({ address: 0xfeb00000, size: 512 })).toThrow('unsafePhysicalMemory');
  });

  it('says so if a device cannot interrupt in the way that was asked for', () => {
    const options = { unsafePhysicalMemory: true, interrupts: 'msix' } as const;
    expect(() => openTransport({ address: 0xfeb00000, size: 512 }, options)).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED' }),
    );
  });
});
