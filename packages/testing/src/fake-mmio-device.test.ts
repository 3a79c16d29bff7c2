/** Registers are accessed one by one, at the offsets of the specification's tables. */
import { CommonFeatures, DeviceType, InterruptStatus } from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import { FakeDevice, type FakeDeviceOptions } from './fake-device.ts';
import { FakeMmioDevice, type FakeMmioDeviceOptions } from './fake-mmio-device.ts';

function setUp(options: Partial<FakeDeviceOptions> = {}, registers: FakeMmioDeviceOptions = {}) {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [8, 4], config: 10, ...options });
  return { device, mmio: new FakeMmioDevice(device, registers) };
}

/** Goes as far as FEATURES_OK. */
function negotiate(mmio: FakeMmioDevice, features: bigint) {
  for (const status of [0, 1, 3]) mmio.write32(0x70, status);
  for (const word of [0, 1]) {
    mmio.write32(0x24, word);
    mmio.write32(0x20, Number((features >> BigInt(32 * word)) & 0xffffffffn));
  }
  mmio.write32(0x70, 11);
  mmio.read32(0x70);
}

describe('modern registers [4.2.2]', () => {
  it('identify the device', () => {
    const { mmio } = setUp();
    expect([0, 4, 8, 12].map((at) => mmio.read32(at))).toEqual([0x74726976, 2, 2, 0x554d4551]);
    expect(mmio.size).toBe(0x10c);
  });

  it('take a queue through its life', () => {
    const { device, mmio } = setUp();
    negotiate(mmio, device.features);
    expect(mmio.read32(0x70)).toBe(11);
    const { address } = device.hal.dmaAlloc(3, 'both', false);
    mmio.write32(0x30, 1);
    expect([mmio.read32(0x34), mmio.read32(0x44)]).toEqual([4, 0]);
    mmio.write32(0x38, 4);
    for (const [at, value] of [
      [0x80, address],
      [0x90, address + 4096],
      [0xa0, address + 8192],
    ] as const) {
      mmio.write32(at, value);
      mmio.write32(at + 4, 0);
    }
    mmio.write32(0x44, 1);
    expect(mmio.read32(0x44)).toBe(1);
    expect(device.queue(1).areas.map((area) => area.address)).toEqual([
      address,
      address + 4096,
      address + 8192,
    ]);
    mmio.write32(0x70, 15);
    mmio.write32(0x50, 1);
    expect(device.notifications).toEqual([{ queue: 1, next: 0 }]);
    mmio.write32(0x44, 0);
    expect(mmio.read32(0x44)).toBe(0);
    mmio.write32(0x70, 0);
    mmio.write32(0x30, 5);
    expect(mmio.read32(0x34)).toBe(0);
    device.assertObeyed();
  });

  it('show features and shared memory by selector', () => {
    const { device, mmio } = setUp({
      features: 1n | (1n << 65n),
      sharedMemory: { 2: { address: 0x3_0000_0000, length: 0x1_0000_0001 } },
    });
    const words = [0, 1, 2, 3].map((word) => {
      mmio.write32(0x14, word);
      return mmio.read32(0x10);
    });
    expect(words).toEqual([1, 1, 2, 0]);
    mmio.write32(0xac, 2);
    expect([0xb0, 0xb4, 0xb8, 0xbc].map((at) => mmio.read32(at))).toEqual([1, 1, 0, 3]);
    mmio.write32(0xac, 0);
    expect([0xb0, 0xb4, 0xb8, 0xbc].map((at) => mmio.read32(at))).toEqual(new Array(4).fill(0xffffffff));
    device.assertObeyed();
  });

  it('assert the interrupt until all is acknowledged [4.2.2.1]', async () => {
    const onInterrupt = vi.fn(() => false);
    const { device, mmio } = setUp({}, { onInterrupt });
    negotiate(mmio, device.features);
    mmio.write32(0x70, 15);
    device.changeConfig(() => undefined);
    mmio.raise(InterruptStatus.QUEUE_INTERRUPT);
    expect([mmio.read32(0x60), mmio.asserted]).toEqual([3, true]);
    mmio.write32(0x64, 1);
    expect([mmio.read32(0x60), mmio.asserted]).toEqual([2, true]);
    await Promise.resolve();
    expect(onInterrupt).toHaveBeenCalledOnce();
    mmio.write32(0x64, 2);
    expect([mmio.read32(0x60), mmio.asserted]).toEqual([0, false]);
    expect(mmio.read32(0xfc)).toBe(1);
  });

  it('read as all ones when the device is gone', () => {
    const { device, mmio } = setUp();
    device.remove();
    expect([mmio.read32(0), mmio.read32(0x70), mmio.read16(0x100), mmio.read8(0x101)]).toEqual([
      0xffffffff, 0xffffffff, 0xffff, 0xff,
    ]);
    mmio.write32(0x70, 1);
    expect(device.statusWrites).toEqual([]);
  });

  it('record each access with its width', () => {
    const { mmio } = setUp({ config: Uint8Array.of(1, 2, 3, 4) });
    mmio.read16(0x102);
    mmio.write32(0x30, 1);
    expect(mmio.accesses).toEqual([
      { kind: 'read', offset: 0x102, width: 2, value: 0x403 },
      { kind: 'write', offset: 0x30, width: 4, value: 1 },
    ]);
    expect(mmio.trace(false)).toEqual(['read16 Config+0x2 = 0x403', 'write32 QueueSel = 0x1']);
    mmio.recording = false;
    mmio.read8(0x100);
    expect(mmio.trace()).toHaveLength(2);
    expect(mmio.trace()).toEqual([]);
  });
});

describe('legacy registers [4.2.4]', () => {
  it('place a queue by page number, page size and alignment', () => {
    const { device, mmio } = setUp({ legacy: true });
    expect(mmio.read32(4)).toBe(1);
    for (const status of [0, 1, 3]) mmio.write32(0x70, status);
    mmio.write32(0x28, 1024);
    const { address } = device.hal.dmaAlloc(2, 'both', false);
    mmio.write32(0x30, 0);
    mmio.write32(0x38, 8);
    mmio.write32(0x3c, 256);
    mmio.write32(0x40, address / 1024 + 1);
    const start = address + 1024;
    // 8 descriptors are 128 bytes, the available ring 22; the used ring is at the next multiple of 256.
    expect(device.queues[0]).toMatchObject({
      descriptors: start,
      driverArea: start + 128,
      deviceArea: start + 256,
    });
    expect(mmio.read32(0x40)).toBe(address / 1024 + 1);
    mmio.write32(0x40, 0);
    expect([mmio.read32(0x40), device.queues[0]?.ring]).toEqual([0, undefined]);
    device.assertObeyed();
  });

  it('show 32 features', () => {
    const { mmio } = setUp({ legacy: true, features: 5n | (1n << 40n) });
    mmio.write32(0x14, 0);
    expect(mmio.read32(0x10)).toBe(5);
    mmio.write32(0x14, 1);
    expect(mmio.read32(0x10)).toBe(0);
  });
});

describe('a driver that breaks the rules of MMIO', () => {
  it.each<[string, (mmio: FakeMmioDevice, device: FakeDevice) => void, string, Partial<FakeDeviceOptions>?]>([
    ['8 bits of a register [4.2.2.2]', (m) => m.read8(0x70), '32 bits'],
    [
      '16 bits of a register [4.2.2.2]',
      (m) => {
        m.write16(0x50, 1);
      },
      '32 bits',
    ],
    ['reading a write-only register [4.2.2.2]', (m) => m.read32(0x30), 'no such register'],
    [
      'writing a read-only register [4.2.2.2]',
      (m) => {
        m.write32(0x60, 1);
      },
      'no such register',
    ],
    ['a register that does not exist [4.2.2.2]', (m) => m.read32(0x18), 'no such register'],
    [
      'a legacy register of a modern device',
      (m) => {
        m.write32(0x28, 4096);
      },
      'no such register',
    ],
    ['a modern register of a legacy device', (m) => m.read32(0x44), 'no such register', { legacy: true }],
    [
      'undefined bits of InterruptACK [4.2.2.2]',
      (m) => {
        m.write32(0x64, 4);
      },
      'undefined bits',
    ],
    ['features without a selector [4.2.2.2]', (m) => m.read32(0x10), 'before DeviceFeaturesSel'],
    [
      'accepting without a selector [4.2.2.2]',
      (m) => {
        m.write32(0x20, 0);
      },
      'before DriverFeaturesSel',
    ],
    [
      'a page size that is no power of two',
      (m) => {
        m.write32(0x28, 1000);
      },
      'power of two',
      { legacy: true },
    ],
    [
      'another page size while a queue is in use [4.2.4]',
      (m, { hal }) => {
        m.write32(0x28, 4096);
        m.write32(0x30, 0);
        m.write32(0x38, 8);
        m.write32(0x3c, 4096);
        m.write32(0x40, hal.dmaAlloc(2, 'both', false).address / 4096);
        m.write32(0x28, 8192);
      },
      'while a queue was in use',
      { legacy: true },
    ],
    [
      'neither 0 nor 1 in QueueReady',
      (m) => {
        m.write32(0x44, 2);
      },
      '2 was written to QueueReady',
    ],
    [
      'memory of a queue that was stopped, without reading that back [4.2.2.2]',
      (m, { hal, features }) => {
        negotiate(m, features);
        const region = hal.dmaAlloc(1, 'both', false);
        m.write32(0x30, 0);
        m.write32(0x38, 8);
        m.write32(0x80, region.address);
        m.write32(0x90, region.address + 256);
        m.write32(0xa0, region.address + 512);
        m.write32(0x44, 1);
        m.write32(0x44, 0);
        hal.dmaDealloc(region, false);
      },
      'taken back while queue 0',
    ],
    [
      'a queue before the page size',
      (m) => {
        m.write32(0x30, 0);
        m.write32(0x3c, 4096);
        m.write32(0x40, 1);
      },
      'before GuestPageSize',
      { legacy: true },
    ],
    [
      'a queue without alignment',
      (m) => {
        m.write32(0x28, 4096);
        m.write32(0x30, 0);
        m.write32(0x40, 1);
      },
      'QueueAlign is 0',
      { legacy: true },
    ],
    [
      'resetting a queue without RING_RESET',
      (m) => {
        m.write32(0xc0, 1);
      },
      'without RING_RESET',
    ],
    [
      'a queue that does not exist',
      (m) => {
        m.write32(0x30, 7);
        m.write32(0x44, 1);
      },
      'does not exist',
    ],
    [
      'the configuration beyond its end',
      (m) => {
        m.write16(0x10a, 1);
      },
      'has 10 bytes',
    ],
  ])('is told of %s', (_, act, message, options = {}) => {
    const { device, mmio } = setUp(options);
    try {
      act(mmio, device);
    } catch {
      // What a device cannot go on after is thrown as well.
    }
    expect(device.violations.map((violation) => violation.message).join()).toContain(message);
  });

  it('is told of any access after device id 0 [4.2.3.1.1]', () => {
    const { mmio } = setUp({}, { deviceId: 0 });
    expect([mmio.read32(0), mmio.read32(4), mmio.read32(8)]).toEqual([0x74726976, 2, 0]);
    expect(() => mmio.read32(0x0c)).toThrow('DeviceID is 0');
    expect(() => mmio.read8(0x100)).toThrow('DeviceID is 0');
  });

  it('is told of changes to a queue that is ready [4.2.2.2]', () => {
    const { device, mmio } = setUp({ features: CommonFeatures.set('RING_RESET').bits });
    negotiate(mmio, device.features);
    const { address } = device.hal.dmaAlloc(1, 'both', false);
    mmio.write32(0x30, 0);
    mmio.write32(0x38, 8);
    mmio.write32(0x80, address);
    mmio.write32(0x90, address + 256);
    mmio.write32(0xa0, address + 512);
    mmio.write32(0x44, 1);
    for (const at of [0x38, 0x80, 0x84, 0x90, 0xa4]) {
      expect(() => {
        mmio.write32(at, 1);
      }).toThrow('QueueReady set');
    }
    device.queueResetReads = 1;
    mmio.write32(0xc0, 1);
    expect([mmio.read32(0xc0), mmio.read32(0xc0), mmio.read32(0x44)]).toEqual([1, 0, 0]);
  });
});
