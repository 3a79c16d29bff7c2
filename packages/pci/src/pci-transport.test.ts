import {
  BufferChains,
  CommonFeatures,
  createQueue,
  DeviceStatus,
  DeviceType,
  FeatureTable,
  Layout,
  MappedRegisters,
  type RegisterWindow,
} from '@virtio/core';
import { FakeHal, FakePciDevice, type FakePciDeviceOptions, ringVariants } from '@virtio/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { decode, device as fakeDevice, encode, fixture, negotiate, open, setQueue } from '../fixture.ts';
import { Command, readCommand } from './config-space.ts';
import { CommonCfg } from './pci-transport.ts';

const bits = (...names: Parameters<typeof CommonFeatures.set>): bigint => CommonFeatures.set(...names).bits;

afterEach(() => {
  vi.restoreAllMocks();
});

function fakeDeviceOnPci(features: bigint): FakePciDevice {
  return new FakePciDevice(fakeDevice({ features }));
}

/** A window in which nothing happens. */
const unmapped: RegisterWindow = {
  size: 64,
  read8: () => 0,
  read16: () => 0,
  read32: () => 0,
  write8: () => undefined,
  write16: () => undefined,
  write32: () => undefined,
};

/** Makes time fly: each look at the clock is a second later. */
function hurry(): void {
  let now = 0;
  vi.spyOn(Date, 'now').mockImplementation(() => (now += 1000));
}

describe('features', () => {
  it('are read as four words, the selection written before each [4.1.4.3]', () => {
    const { transport, pci } = fixture({
      device: { features: bits('INDIRECT_DESC') | (1n << 65n) | (1n << 127n) },
    });
    pci.bar(4).accesses.length = 0;
    expect(transport.readDeviceFeatures()).toBe(
      bits('INDIRECT_DESC', 'VERSION_1') | (1n << 65n) | (1n << 127n),
    );
    expect(pci.bar(4).trace()).toEqual(
      [0x1000_0000, 1, 2, 0x8000_0000].flatMap((value, word) => [
        `write32 device_feature_select = 0x${word}`,
        `read32 device_feature = 0x${value.toString(16)}`,
      ]),
    );
  });

  it('are written as two words, and more only where there are bits', () => {
    const { transport, pci, device } = fixture();
    pci.bar(4).accesses.length = 0;
    transport.writeDriverFeatures(bits('EVENT_IDX', 'VERSION_1'));
    expect(pci.bar(4).trace()).toEqual([
      'write32 driver_feature_select = 0x0',
      'write32 driver_feature = 0x20000000',
      'write32 driver_feature_select = 0x1',
      'write32 driver_feature = 0x1',
    ]);
    transport.writeDriverFeatures(bits('VERSION_1') | (1n << 66n));
    expect(device.accepted).toBe(bits('VERSION_1') | (1n << 66n));
  });

  it.each([
    ['NOTIF_CONFIG_DATA', 56, 58],
    ['RING_RESET', 58, 60],
    ['ADMIN_VQ', 60, 64],
  ] as const)('fail with %s if its registers are missing', (feature, short, enough) => {
    const attempt = (commonLength: number): unknown => {
      const { transport } = fixture({ device: { features: bits(feature) }, pci: { commonLength } });
      return negotiate(transport, feature);
    };
    expect(() => attempt(short)).toThrow(
      expect.objectContaining({
        code: 'INVALID_DEVICE',
        message: expect.stringContaining(feature) as string,
      }),
    );
    expect(attempt(enough)).toEqual(CommonFeatures.set(feature, 'VERSION_1'));
  });

  it('leave an older device with 56 bytes of common configuration alone', () => {
    const { transport, device } = fixture({ pci: { commonLength: 56 } });
    negotiate(transport, 'RING_RESET', 'NOTIF_CONFIG_DATA');
    expect(transport.getStatus().has(DeviceStatus.FEATURES_OK)).toBe(true);
    device.assertClean();
  });
});

describe('a queue', () => {
  it('is configured before it is enabled, at the width of each field [4.1.4.3.2]', () => {
    const fixed = fixture({ device: { hal: new FakeHal({ base: 0xfe_ffff_f000 }) } });
    const { transport, pci } = fixed;
    negotiate(transport);
    pci.bar(4).accesses.length = 0;
    const addresses = setQueue(fixed, 1, 4);
    expect(Math.min(...addresses)).toBeLessThan(0xff_0000_0000);
    expect(Math.max(...addresses)).toBeGreaterThan(0xff_0000_0000);
    const trace = pci.bar(4).trace();
    expect(trace.filter((line) => line.startsWith('write'))).toEqual([
      'write16 queue_select = 0x1',
      'write16 queue_select = 0x1',
      'write16 queue_size = 0x4',
      ...['queue_desc', 'queue_driver', 'queue_device'].flatMap((name, i) => {
        const address = addresses[i] as number;
        return [
          `write32 ${name} = 0x${(address % 2 ** 32).toString(16)}`,
          `write32 ${name}_hi = 0x${Math.floor(address / 2 ** 32).toString(16)}`,
        ];
      }),
      'write16 queue_enable = 0x1',
    ]);
    expect(trace.at(-1)).toBe('write16 queue_enable = 0x1');
    expect(transport.queueUsed(1)).toBe(true);
    expect(transport.queueUsed(0)).toBe(false);
  });

  it('does not exist from num_queues on, whatever its size says', () => {
    const { transport } = fixture();
    expect([0, 1, 2, 3].map((queue) => transport.maxQueueSize(queue))).toEqual([16, 8, 0, 0]);
  });

  it.each([0, -1, 6, 32])('never has %d descriptors without RING_PACKED [4.1.4.3.2]', (size) => {
    const { transport, device } = fixture();
    negotiate(transport);
    expect(() => transport.queueSet(0, size, 0x1000, 0x2000, 0x3000)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(device.violations).toEqual([]);
  });

  it('may have any number of descriptors but 0 with RING_PACKED [4.1.4.3.2]', () => {
    const { transport, device, hal } = fixture({ device: { features: bits('RING_PACKED') } });
    const features = negotiate(transport, 'RING_PACKED');
    expect(() => transport.queueSet(0, 0, 0x1000, 0x2000, 0x3000)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    const queue = createQueue(transport, hal, features, { index: 0, size: 6 });
    expect(device.queues[0]?.size).toBe(6);
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('is refused if its notifications would leave their structure', () => {
    // The structure holds as many bytes as the device says that it needs, less the last queue's.
    const { transport } = fixture({
      pci: {
        structures: (all) => all.map((one) => (one.type === 'notify' ? { ...one, length: 4 } : one)),
      },
    });
    negotiate(transport);
    expect(() => transport.queueSet(1, 8, 0x1000, 0x2000, 0x3000)).toThrow(
      expect.objectContaining({
        code: 'INVALID_DEVICE',
        message: expect.stringContaining('queue 1') as string,
      }),
    );
    expect(transport.queueUsed(1)).toBe(false);
  });

  it.each<[string, FakePciDeviceOptions]>([
    ['their multiplier', { multiplier: 2 }],
    [
      'their structure',
      {
        structures: (all) =>
          all.map((one) => (one.type === 'notify' ? { ...one, offset: one.offset + 2 } : one)),
      },
    ],
  ])('is refused if its notifications would not be aligned to 32 bits by %s', (_, pci) => {
    const { transport } = fixture({ device: { features: bits('NOTIFICATION_DATA') }, pci });
    negotiate(transport, 'NOTIFICATION_DATA');
    expect(() => transport.queueSet(1, 8, 0x1000, 0x2000, 0x3000)).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
  });

  it('is not unset without RING_RESET: 0 is never written to queue_enable [4.1.4.3.2]', () => {
    const { transport, pci, hal } = fixture();
    createQueue(transport, hal, negotiate(transport), { index: 0, size: 8 });
    pci.bar(4).accesses.length = 0;
    transport.queueUnset(0);
    expect(pci.bar(4).trace()).toEqual([]);
  });
});

describe('a reset of one queue', () => {
  const ringReset = { device: { features: bits('RING_RESET') } };

  it('waits until queue_reset reads as 0 [4.1.4.3.2]', () => {
    const { transport, pci, device, hal } = fixture(ringReset);
    const queue = createQueue(transport, hal, negotiate(transport, 'RING_RESET'), { index: 1, size: 8 });
    transport.finishInit();
    device.queueResetReads = 3;
    pci.bar(4).accesses.length = 0;
    transport.queueReset(1);
    expect(pci.bar(4).trace().slice(1)).toEqual([
      'write16 queue_select = 0x1',
      'write16 queue_reset = 0x1',
      'read16 queue_reset = 0x1',
      'read16 queue_reset = 0x1',
      'read16 queue_reset = 0x1',
      'read16 queue_reset = 0x0',
      'read8 device_status = 0xf',
    ]);
    expect(() => transport.notify(1, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    queue.reset();
    const reply = new Uint8Array(3);
    BufferChains.of(queue).addNotifyWaitPop([encode('abc')], [reply]);
    expect(decode(reply)).toBe('ABC');
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('is what unsetting a queue does', () => {
    const { transport, device, hal } = fixture(ringReset);
    const queue = createQueue(transport, hal, negotiate(transport, 'RING_RESET'), { index: 0, size: 8 });
    transport.queueUnset(0);
    transport.queueUnset(0);
    expect(transport.queueUsed(0)).toBe(false);
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('is refused unless it was negotiated', () => {
    const { transport, device } = fixture(ringReset);
    negotiate(transport);
    expect(() => transport.queueReset(0)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
    expect(device.violations).toEqual([]);
  });

  it('is refused for a queue that does not exist', () => {
    const { transport } = fixture(ringReset);
    negotiate(transport, 'RING_RESET');
    expect(() => transport.queueReset(2)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('gives up on a device that never finishes', () => {
    const { transport, device, hal } = fixture(ringReset);
    createQueue(transport, hal, negotiate(transport, 'RING_RESET'), { index: 0, size: 8 });
    device.queueResetReads = Infinity;
    hurry();
    expect(() => transport.queueReset(0)).toThrow(expect.objectContaining({ code: 'NOT_READY' }));
  });

  it('ends when the device is unplugged', () => {
    const { transport, device, hal } = fixture(ringReset);
    createQueue(transport, hal, negotiate(transport, 'RING_RESET'), { index: 0, size: 8 });
    device.remove();
    expect(() => transport.queueReset(0)).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
  });
});

describe('a notification', () => {
  const forms = [
    { name: "16 bits: the queue's index", features: [], trace: 'write16 notify+0x4 = 0x1' },
    {
      name: "16 bits: the device's value",
      features: ['NOTIF_CONFIG_DATA'],
      trace: 'write16 notify+0x4 = 0x101',
    },
    {
      name: '32 bits: index and place',
      features: ['NOTIFICATION_DATA'],
      trace: 'write32 notify+0x4 = 0x10001',
    },
    {
      name: '32 bits: value and place',
      features: ['NOTIFICATION_DATA', 'NOTIF_CONFIG_DATA'],
      trace: 'write32 notify+0x4 = 0x10101',
    },
  ] as const;

  it.each(forms)('has $name [4.1.5.2.1]', ({ features, trace }) => {
    const { transport, pci, device, hal } = fixture({ device: { features: bits(...features) } });
    const queue = createQueue(transport, hal, negotiate(transport, ...features), { index: 1, size: 8 });
    transport.finishInit();
    pci.bar(4).accesses.length = 0;
    BufferChains.of(queue).addNotifyWaitPop([encode('x')], [new Uint8Array(1)]);
    expect(pci.bar(4).trace()).toEqual([trace]);
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it.each(forms)('is one store in mapped memory: $name', ({ features, trace }) => {
    const doorbells = new MappedRegisters(new ArrayBuffer(64));
    const pci = fakeDeviceOnPci(bits(...features));
    const transport = open(pci, {
      mapBar: (bar, offset, length) => (offset === 0x3000 ? doorbells : pci.mapBar(bar, offset, length)),
    });
    negotiate(transport, ...features);
    setQueue({ transport, hal: pci.device.hal }, 1, 8);
    transport.notify(1, 1);
    const value = Number(trace.split(' = ')[1]);
    expect(doorbells.mapped.u32[1]).toBe(value);
    expect(doorbells.mapped.u32.reduce((sum, word) => sum + word)).toBe(value);
  });

  it('keeps all 32 bits in mapped memory and out of it', () => {
    const pci = fakeDeviceOnPci(bits('NOTIFICATION_DATA'));
    const doorbells = new MappedRegisters(new ArrayBuffer(64));
    const written: number[] = [];
    for (const window of [
      doorbells,
      { ...unmapped, write32: (_: number, value: number) => written.push(value) },
    ]) {
      const transport = open(pci, {
        mapBar: (bar, offset, length) => (offset === 0x3000 ? window : pci.mapBar(bar, offset, length)),
      });
      negotiate(transport, 'NOTIFICATION_DATA');
      setQueue({ transport, hal: pci.device.hal }, 1, 8);
      transport.notify(1, 0xffff);
    }
    expect(doorbells.mapped.u32[1]).toBe(0xffff_0001);
    expect(written).toEqual([0xffff_0001]);
  });

  it('goes to the same place for all queues if the multiplier is 0', () => {
    const { transport, pci, device, hal } = fixture({ pci: { multiplier: 0 } });
    const features = negotiate(transport);
    const queues = [0, 1].map((index) => createQueue(transport, hal, features, { index, size: 8 }));
    transport.finishInit();
    pci.bar(4).accesses.length = 0;
    for (const queue of queues) BufferChains.of(queue).addNotifyWaitPop([encode('x')], [new Uint8Array(1)]);
    expect(pci.bar(4).trace()).toEqual(['write16 notify+0x0 = 0x0', 'write16 notify+0x0 = 0x1']);
    transport.reset();
    for (const queue of queues) queue[Symbol.dispose]();
    device.assertClean();
  });

  it('goes where queue_notify_off says, times the multiplier [4.1.4.4]', () => {
    const { transport, pci, hal } = fixture({ pci: { multiplier: 256, notifyOffset: (queue) => 7 - queue } });
    createQueue(transport, hal, negotiate(transport), { index: 1, size: 8 });
    transport.finishInit();
    pci.bar(4).accesses.length = 0;
    transport.notify(1, 0);
    expect(pci.bar(4).trace()).toEqual(['write16 notify+0x600 = 0x1']);
  });

  it('is refused for a queue that is not set up, or was before a reset', () => {
    const { transport, hal } = fixture();
    expect(() => transport.notify(0, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    createQueue(transport, hal, negotiate(transport), { index: 1, size: 8 });
    expect(() => transport.notify(0, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    transport.reset();
    expect(() => transport.notify(1, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });
});

describe('the configuration space', () => {
  const layout = new Layout('config', { word: 'u32', half: 'u16', byte: 'u8', byte2: 'u8', wide: 'u64' });

  it('is read and written at the width of the field [4.1.3.1]', () => {
    const { transport, pci, device } = fixture();
    negotiate(transport);
    pci.bar(4).accesses.length = 0;
    expect(transport.readConfigSpace(layout.fields.word)).toBe(0x0403_0201);
    expect(transport.readConfigSpace(layout.fields.half)).toBe(0x0605);
    expect(transport.readConfigSpace(layout.fields.byte)).toBe(7);
    transport.writeConfigSpace(layout.fields.half, 0x1234);
    transport.writeConfigSpace(layout.fields.byte, 0x56);
    transport.writeConfigSpace(layout.fields.wide, 0x1122_3344_5566_7788n);
    expect(pci.bar(4).trace()).toEqual([
      'read32 device+0x0 = 0x4030201',
      'read16 device+0x4 = 0x605',
      'read8 device+0x6 = 0x7',
      'write16 device+0x4 = 0x1234',
      'write8 device+0x6 = 0x56',
      'write32 device+0x8 = 0x55667788',
      'write32 device+0xc = 0x11223344',
    ]);
    expect(transport.readConfigSpace(layout.fields.wide)).toBe(0x1122_3344_5566_7788n);
    device.assertClean();
  });

  it('has the size that the device states, up to 4096 bytes', () => {
    expect(fixture().transport.configSize).toBe(16);
    const large = fixture({ device: { config: 10_000 } });
    expect(large.transport.configSize).toBe(4096);
  });

  it('reads a wide field again if the generation changed meanwhile [2.5.1]', () => {
    const { transport, device } = fixture();
    let reads = 0;
    device.onConfigRead = () => {
      reads += 1;
      if (reads === 1) device.generation += 1;
    };
    transport.readConfigSpace(layout.fields.wide);
    expect(reads).toBe(4);
  });

  it('is missing if no capability names one', () => {
    const { transport } = fixture({ device: { config: 0 } });
    expect(transport.configSize).toBe(0);
    for (const access of [
      () => transport.readConfigSpace(layout.fields.word),
      () => transport.readConfig(0, 4),
      () => transport.writeConfig(0, 1, 0),
    ]) {
      expect(access).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_MISSING' }));
    }
  });

  it('ends where it ends', () => {
    const { transport, device } = fixture();
    for (const access of [
      () => transport.readConfig(16, 1),
      () => transport.readConfig(16, 4),
      () => transport.writeConfig(16, 2, 0),
    ]) {
      expect(access).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    }
    expect(device.violations).toEqual([]);
  });
});

describe('shared memory', () => {
  it('is where its BAR is, in 64 bits [4.1.4.7]', () => {
    const { pci, transport } = fixture({
      device: {
        sharedMemory: { 1: { address: 0, length: 0x3000 }, 7: { address: 0, length: 0x1_8000_0000 } },
      },
    });
    // A BAR without an address, whose region would be at the start of the machine's memory.
    expect(() => transport.sharedMemory(1)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM', reason: 'BAR_NOT_ALLOCATED' }),
    );
    pci.assign(2, 0x40_0000_0000);
    const moved = open(pci);
    expect(moved.sharedMemory(1)).toEqual({ address: 0x40_0000_0000, length: 0x3000 });
    expect(moved.sharedMemory(7)).toEqual({ address: 0x40_0000_3000, length: 0x1_8000_0000 });
  });

  it('is undefined where there is none, or an empty one', () => {
    const { transport } = fixture({ device: { sharedMemory: { 1: { address: 0, length: 0 } } } });
    expect(transport.sharedMemory(0)).toBeUndefined();
    expect(transport.sharedMemory(1)).toBeUndefined();
    for (const id of [-1, NaN, 0.5, 256, 2 ** 32, '0', undefined]) {
      expect(() => transport.sharedMemory(id as number)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
  });

  it('is refused in a BAR in I/O space, whose address is a port', () => {
    const { transport } = fixture({
      device: { sharedMemory: { 3: { address: 0, length: 0x10 } } },
      pci: {
        header: {
          bars: {
            0: { kind: 'io', size: 64, address: 0xc000 },
            1: { kind: 'memory', size: 0x1_0000 },
            4: { kind: 'memory64', size: 0x4000 },
          },
        },
        structures: (all) =>
          all.map((one) => (one.type === 'sharedMemory' ? { ...one, bar: 0, offset: 0 } : one)),
      },
    });
    expect(() => transport.sharedMemory(3)).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE', reason: 'BAR_IN_IO_SPACE' }),
    );
  });

  it('has queues with an index of 16 bits only', () => {
    const { transport } = fixture();
    for (const queue of [-1, 0.5, NaN, 0x1_0000, 2 ** 32]) expect(transport.maxQueueSize(queue)).toBe(0);
  });

  it.each([
    ['reaches out of its BAR', { length: 0x1_0000_0000 }],
    ['starts outside its BAR', { offset: 0x2_0000_0000 }],
    ['is in a BAR that does not exist', { bar: 0 }],
  ])('is refused if it %s', (_, lie) => {
    const { transport } = fixture({
      device: { sharedMemory: { 3: { address: 0, length: 0x1000 } } },
      pci: {
        structures: (all) => all.map((one) => (one.type === 'sharedMemory' ? { ...one, ...lie } : one)),
      },
    });
    expect(() => transport.sharedMemory(3)).toThrow(
      expect.objectContaining({
        code: 'INVALID_DEVICE',
        message: expect.stringContaining('region 3') as string,
      }),
    );
  });
});

describe('administration queues', () => {
  const common = (index: number, count: number): MappedRegisters => {
    const window = new MappedRegisters(new ArrayBuffer(64));
    window.write16(CommonCfg.offset.num_queues, 2);
    window.write16(CommonCfg.offset.queue_size, 8);
    window.write16(CommonCfg.offset.admin_queue_index, index);
    window.write16(CommonCfg.offset.admin_queue_num, count);
    return window;
  };
  const transportWith = (index: number, count: number) => {
    const pci = fakeDeviceOnPci(0n);
    const window = common(index, count);
    return open(pci, {
      mapBar: (bar, offset, length) => (offset === 0 ? window : pci.mapBar(bar, offset, length)),
    });
  };

  it('are none unless ADMIN_VQ was negotiated [4.1.4.3]', () => {
    const transport = transportWith(4, 2);
    expect(transport.adminQueues()).toBeUndefined();
    expect(transport.maxQueueSize(4)).toBe(0);
  });

  it('are those that the device names [4.1.4.3.2]', () => {
    const transport = transportWith(4, 2);
    transport.writeDriverFeatures(bits('ADMIN_VQ', 'VERSION_1'));
    expect(transport.adminQueues()).toEqual({ index: 4, count: 2 });
    expect([1, 2, 3, 4, 5, 6].map((queue) => transport.maxQueueSize(queue))).toEqual([8, 0, 0, 8, 8, 0]);
  });

  it.each([
    [1, 1],
    [0xffff, 2],
  ])('are refused at %d, %d of them', (index, count) => {
    const transport = transportWith(index, count);
    transport.writeDriverFeatures(bits('ADMIN_VQ', 'VERSION_1'));
    expect(() => transport.adminQueues()).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
  });
});

describe('a device that is unplugged', () => {
  it.each(['ones', 'zeros'] as const)('is DEVICE_REMOVED wherever the driver looks: %s', (silentBars) => {
    const { transport, device } = fixture({
      device: { features: bits('RING_RESET') },
      pci: { header: { silentBars } },
    });
    expect(transport.getStatus().bits).toBe(0);
    negotiate(transport, 'RING_RESET');
    device.remove();
    expect(transport.isGone()).toBe(true);
    for (const access of [
      () => transport.checkAlive(),
      () => transport.reset(),
      () => transport.readDeviceFeatures(),
      () => transport.maxQueueSize(0),
      () => transport.queueSet(0, 8, 0x1000, 0x2000, 0x3000),
      () => transport.queueReset(0),
      () => negotiate(transport),
    ]) {
      expect(access).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    }
  });

  it('is disposed without a word', () => {
    const onDispose = vi.fn();
    const { transport, device, pci } = fixture({ transport: { onDispose } });
    device.remove();
    pci.config.accesses.length = 0;
    transport[Symbol.dispose]();
    expect(onDispose).toHaveBeenCalledOnce();
    expect(pci.config.accesses).toEqual([]);
  });
});

describe('a reset', () => {
  it('waits until the status reads as 0 [4.1.4.3.2]', () => {
    const { transport, device, pci } = fixture();
    negotiate(transport);
    device.resetReads = 2;
    pci.bar(4).accesses.length = 0;
    negotiate(transport);
    const trace = pci.bar(4).trace();
    expect(trace.slice(0, 6)).toEqual([
      'write8 device_status = 0x0',
      'read8 device_status = 0xb',
      'read8 device_status = 0xb',
      'read8 device_status = 0x0',
      'read8 device_status = 0x0',
      'write8 device_status = 0x1',
    ]);
    device.assertClean();
  });
});

describe('opening and disposing', () => {
  it('let the function decode addresses and master the bus, and restore what was', () => {
    const onDispose = vi.fn();
    const { transport, pci, device } = fixture({ transport: { onDispose } });
    expect([pci.memoryEnabled, pci.ioEnabled, pci.busMaster, pci.intxDisabled]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    negotiate(transport);
    transport[Symbol.dispose]();
    transport[Symbol.dispose]();
    expect(device.status.bits).toBe(0);
    expect(readCommand(pci.config).bits).toBe(0);
    expect(onDispose).toHaveBeenCalledOnce();
    expect(pci.misuse).toEqual([]);
  });

  it('take bus mastering from a device that does not stop', () => {
    const pci = fakeDeviceOnPci(0n);
    pci.enable({ memory: true, busMaster: true });
    const onDispose = vi.fn();
    const transport = open(pci, { onDispose });
    negotiate(transport);
    pci.device.resetHangs = true;
    hurry();
    expect(() => transport[Symbol.dispose]()).toThrow(expect.objectContaining({ code: 'NOT_READY' }));
    expect(readCommand(pci.config).bits).toBe(Command.MEMORY_SPACE);
    expect(onDispose).toHaveBeenCalledOnce();
  });

  it('do not size BARs that the platform knows', () => {
    const { pci } = fixture();
    pci.config.accesses.length = 0;
    const bar = {
      kind: 'memory',
      index: 4,
      address: 0,
      size: 0x4000,
      type: '64-bit',
      prefetchable: true,
    } as const;
    const transport = open(pci, { bars: [undefined, undefined, undefined, undefined, bar, undefined] });
    expect(pci.config.trace().filter((line) => line.startsWith('write32'))).toEqual([]);
    expect(transport.configSize).toBe(16);
  });

  it('say which device it is', () => {
    const { transport } = fixture();
    expect(transport.deviceType).toBe(DeviceType.Block);
    expect(transport.name).toBe('PCI 0000:00:03.0');
    expect(transport.who()).toBe('Block device (PCI 0000:00:03.0)');
    expect(transport.requiresLegacyLayout()).toBe(false);
  });
});

describe.each(ringVariants)('a driver over PCI: $name', ({ features }) => {
  const table = new FeatureTable('TestFeatures', {});

  it.each([
    ['plain notifications', 0n],
    ['notification data', bits('NOTIFICATION_DATA')],
  ])('sends and receives, with %s', (_, more) => {
    const { transport, device, pci, hal } = fixture({ device: { features: features | more } });
    const supported = CommonFeatures.names((1n << 64n) - 1n);
    const negotiated = transport.beginInit({ table, supported });
    expect(negotiated.bits).toBe(features | more | bits('VERSION_1'));
    const queues = [0, 1].map((index) => createQueue(transport, hal, negotiated, { index, size: 8 }));
    transport.finishInit();
    for (let n = 0; n < 40; n += 1) {
      for (const queue of queues) {
        const reply = new Uint8Array(5);
        expect(BufferChains.of(queue).addNotifyWaitPop([encode('he'), encode('llo')], [reply])).toBe(5);
        expect(decode(reply)).toBe('HELLO');
      }
    }
    transport[Symbol.dispose]();
    for (const queue of queues) queue[Symbol.dispose]();
    device.assertClean();
    expect(pci.misuse).toEqual([]);
  });
});
