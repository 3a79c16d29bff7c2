import { BufferChains, createQueue } from '@virtio/core';
import { FakePciDevice, FakePciFunction, ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { decode, device, encode, negotiate, open } from '../fixture.ts';
import { mapThroughConfig, PciCfgWindow } from './pci-cfg.ts';

const CAP = 0x80;

describe('PciCfgWindow', () => {
  /** A window of 16 bytes at 0x100 of BAR 4, and what it does to configuration space. */
  function window() {
    const pci = new FakePciFunction({ vendorId: 0x1af4, deviceId: 0x1042 });
    return { pci, part: new PciCfgWindow(pci.config, CAP, 4, 0x100, 16) };
  }

  it('selects BAR, offset and length, then accesses the data at that width [4.1.4.9]', () => {
    const { pci, part } = window();
    part.read16(6);
    part.write8(1, 0xab);
    expect(pci.config.trace()).toEqual([
      'write8 config 0x84 = 0x4',
      'write32 config 0x88 = 0x106',
      'write32 config 0x8c = 0x2',
      'read16 config 0x90 = 0x0',
      'write8 config 0x84 = 0x4',
      'write32 config 0x88 = 0x101',
      'write32 config 0x8c = 0x1',
      'write8 config 0x90 = 0xab',
    ]);
  });

  it('accesses nothing outside itself or misaligned [4.1.4.9.2]', () => {
    const { pci, part } = window();
    expect(() => part.read32(14)).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    expect(() => part.write32(16, 0)).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    expect(() => part.write16(3, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    const odd = new PciCfgWindow(pci.config, CAP, 4, 0x101, 15);
    expect(() => odd.read16(2)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(pci.config.accesses).toEqual([]);
    odd.read8(2);
    expect(pci.config.accesses).toHaveLength(4);
  });
});

describe('mapThroughConfig', () => {
  it('is unsupported by a device without the capability', () => {
    const pci = new FakePciDevice(device(), { capabilities: (all) => all.slice(0, -1) });
    expect(() => mapThroughConfig(pci.config, 'PCI 0000:00:03.0')).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED',
        message: expect.stringContaining('0000:00:03.0') as string,
      }),
    );
  });

  it.each(ringVariants)('drives a device through configuration space alone: $name', ({ features }) => {
    const fake = device({ features });
    const pci = new FakePciDevice(fake);
    const transport = open(pci, { mapBar: mapThroughConfig(pci.config, 'x') });
    const set = negotiate(transport, 'RING_PACKED', 'INDIRECT_DESC', 'EVENT_IDX', 'IN_ORDER');
    const queue = createQueue(transport, fake.hal, set, { index: 1, size: 8 });
    transport.finishInit();
    for (let n = 0; n < 20; n += 1) {
      const reply = new Uint8Array(5);
      BufferChains.of(queue).addNotifyWaitPop([encode('hello')], [reply]);
      expect(decode(reply)).toBe('HELLO');
    }
    expect(transport.readConfig(4, 4)).toBe(0x0807_0605);
    transport.writeConfig(6, 2, 0xbeef);
    expect(transport.readConfig(4, 4)).toBe(0xbeef_0605);
    expect(pci.bar(4).accesses, 'no BAR was touched').toEqual([]);
    transport[Symbol.dispose]();
    queue[Symbol.dispose]();
    fake.assertClean();
  });
});
