import {
  BufferChains,
  CommonFeatures,
  createQueue,
  DeviceStatus,
  DeviceType,
  FeatureTable,
  InterruptStatus,
  Layout,
  MappedRegisters,
  QUEUE_FEATURES,
  VirtioError,
  type VirtioErrorCode,
} from '@virtio/core';
import {
  FakeDevice,
  type FakeDeviceOptions,
  FakeMmioDevice,
  type FakeMmioDeviceOptions,
} from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { InterruptLine } from './interrupts.ts';
import { MmioTransport } from './mmio-transport.ts';
import { MMIO_MAGIC, MmioRegister } from './registers.ts';

const table = new FeatureTable('TestFeatures', { LOW: 5, HIGH: 66 });
const TestConfig = new Layout('test_config', {
  capacity: 'u64',
  size: 'u32',
  seg: 'u16',
  kind: 'u8',
  flag: 'u8',
});
const names = CommonFeatures;

function setUp(options: Partial<FakeDeviceOptions> = {}, registers: FakeMmioDeviceOptions = {}) {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [64, 8], config: 16, ...options });
  const line = new InterruptLine();
  const mmio = new FakeMmioDevice(device, { onInterrupt: () => line.fire(), ...registers });
  const open = () => new MmioTransport(mmio, { name: 'MMIO 0xa000000', interrupts: line });
  return { device, mmio, line, open };
}

function negotiate(transport: MmioTransport, without: readonly string[] = []) {
  const supported = QUEUE_FEATURES.filter((name) => !without.includes(name));
  return transport.beginInit({ table, supported: [...supported, 'LOW', 'HIGH'] });
}

function codeOf(action: () => unknown): VirtioErrorCode | undefined {
  try {
    action();
  } catch (error) {
    if (VirtioError.is(error)) return error.code;
    throw error;
  }
  return undefined;
}

describe('finding a device', () => {
  it('reads magic value and version, then the device id [4.2.3.1.1]', () => {
    const { mmio, open } = setUp();
    const transport = open();
    expect(transport).toMatchObject({ version: 2, deviceType: DeviceType.Block, configSize: 16 });
    expect(mmio.trace()).toEqual([
      'read32 MagicValue = 0x74726976',
      'read32 Version = 0x2',
      'read32 DeviceID = 0x2',
      'read32 VendorID = 0x554d4551',
    ]);
    expect(transport.vendor).toBe(0x554d4551);
  });

  it('knows a legacy device by its version [4.2.4]', () => {
    const transport = setUp({ legacy: true }).open();
    expect(transport.version).toBe(1);
    expect(transport.requiresLegacyLayout()).toBe(true);
  });

  it('touches nothing more after a device id of 0, and says NO_DEVICE [4.2.2.2, 4.2.3.1.1]', () => {
    const { device, mmio, open } = setUp({}, { deviceId: 0 });
    expect(codeOf(open)).toBe('NO_DEVICE');
    expect(mmio.trace()).toHaveLength(3);
    expect(MmioTransport.probe(mmio)).toBeUndefined();
    device.assertClean();
  });

  it.each([
    ['a wrong magic value', { magic: 0x74726977 }, 'INVALID_DEVICE', 'BAD_MAGIC', 1],
    ['a version that is not known', { version: 3 }, 'INVALID_DEVICE', 'UNKNOWN_VERSION', 2],
    ['version 0', { version: 0 }, 'INVALID_DEVICE', 'UNKNOWN_VERSION', 2],
    ['a device type that is not known', { deviceId: 63 }, 'INVALID_DEVICE_TYPE', undefined, 3],
  ] as const)('refuses %s, having read no further [4.2.2.2]', (_, registers, code, reason, reads) => {
    const { mmio, open } = setUp({}, registers);
    expect(open).toThrow(expect.objectContaining({ code, reason }));
    mmio.accesses.length = 0;
    expect(codeOf(open)).toBe(code);
    expect(mmio.trace()).toHaveLength(reads);
    expect(MmioTransport.probe(mmio)).toBeUndefined();
  });

  it('refuses a window that does not hold all registers, having touched nothing', () => {
    const { mmio } = setUp({}, { size: 0xfc });
    expect(codeOf(() => new MmioTransport(mmio, { name: 'small' }))).toBe('CONFIG_SPACE_TOO_SMALL');
    expect(codeOf(() => MmioTransport.probe(mmio))).toBe('CONFIG_SPACE_TOO_SMALL');
    expect(mmio.accesses).toEqual([]);
  });

  it('tells what is there without opening it', () => {
    expect(MmioTransport.probe(setUp({ legacy: true }).mmio)).toEqual({
      version: 1,
      deviceType: DeviceType.Block,
      vendor: 0x554d4551,
    });
  });
});

describe('features', () => {
  it('writes the selector before each word [4.2.2.2]', () => {
    const { mmio, open } = setUp({ features: (1n << 5n) | (1n << 66n) });
    const transport = open();
    mmio.trace();
    expect(transport.readDeviceFeatures()).toBe((1n << 5n) | (1n << 32n) | (1n << 66n));
    transport.writeDriverFeatures((1n << 5n) | (1n << 32n) | (1n << 66n));
    const trace = mmio.trace();
    expect(trace.filter((line) => line.startsWith('write32 Driver'))).toEqual([
      'write32 DriverFeaturesSel = 0x0',
      'write32 DriverFeatures = 0x20',
      'write32 DriverFeaturesSel = 0x1',
      'write32 DriverFeatures = 0x1',
      'write32 DriverFeaturesSel = 0x2',
      'write32 DriverFeatures = 0x4',
    ]);
    trace.forEach((line, i) => {
      if (line.startsWith('read32 DeviceFeatures ')) {
        expect(trace[i - 1]).toMatch(/^write32 DeviceFeaturesSel/);
      }
    });
  });

  it('is not misled by a device that takes each selector above 0 for 1', () => {
    const { device, open } = setUp({ features: 1n << 34n }, { quirks: { aliasFeatureWords: true } });
    const transport = open();
    const features = negotiate(transport);
    expect(features.names()).toEqual(['VERSION_1', 'RING_PACKED']);
    expect(device.accepted).toBe((1n << 32n) | (1n << 34n));
    device.assertObeyed();
  });

  it('hides what MMIO does not have: administration queues, SR-IOV, notification data of the device [2.2.1, 4.2.5]', () => {
    const { device, open } = setUp({
      features: names.set('ADMIN_VQ', 'SR_IOV', 'NOTIF_CONFIG_DATA', 'INDIRECT_DESC').bits,
    });
    expect(names.names(open().readDeviceFeatures())).toEqual(['INDIRECT_DESC', 'VERSION_1']);
    negotiate(open());
    device.assertObeyed();
  });

  it('reads and writes one word of a legacy device, without FEATURES_OK [3.1.2]', () => {
    const { device, mmio, open } = setUp({
      legacy: true,
      features: names.set('INDIRECT_DESC', 'EVENT_IDX').bits,
    });
    const transport = open();
    mmio.trace();
    expect(negotiate(transport).names()).toEqual(['INDIRECT_DESC', 'EVENT_IDX']);
    expect(mmio.trace()).toEqual([
      'write32 Status = 0x0',
      'read32 Status = 0x0',
      'read32 MagicValue = 0x74726976',
      'read32 Status = 0x0',
      'read32 MagicValue = 0x74726976',
      'write32 Status = 0x1',
      'read32 Status = 0x1',
      'write32 Status = 0x3',
      'write32 DeviceFeaturesSel = 0x0',
      'read32 DeviceFeatures = 0x30000000',
      'write32 DriverFeaturesSel = 0x0',
      'write32 DriverFeatures = 0x30000000',
      'write32 GuestPageSize = 0x1000',
    ]);
    expect(mmio.guestPageSize).toBe(4096);
    device.assertObeyed();
  });

  it('does not write a page size to a modern device', () => {
    const { mmio, open } = setUp();
    const transport = open();
    mmio.trace();
    transport.setGuestPageSize(4096);
    expect(mmio.trace()).toEqual([]);
  });
});

describe('queues of a modern device', () => {
  it('are set up in the order of the specification, 64 bits in halves [4.2.3.2]', () => {
    const { device, mmio, open } = setUp({}, {});
    const transport = open();
    negotiate(transport);
    const region = device.hal.dmaAlloc(2, 'both', false);
    mmio.trace();
    transport.queueSet(1, 8, region.address, region.address + 128, region.address + 4096);
    const hex = (value: number) => `0x${value.toString(16)}`;
    expect(mmio.trace()).toEqual([
      'write32 QueueSel = 0x1',
      'read32 QueueReady = 0x0',
      'write32 QueueSel = 0x1',
      'read32 QueueSizeMax = 0x8',
      'write32 QueueSize = 0x8',
      `write32 QueueDescLow = ${hex(region.address)}`,
      'write32 QueueDescHigh = 0x0',
      `write32 QueueDriverLow = ${hex(region.address + 128)}`,
      'write32 QueueDriverHigh = 0x0',
      `write32 QueueDeviceLow = ${hex(region.address + 4096)}`,
      'write32 QueueDeviceHigh = 0x0',
      'write32 QueueReady = 0x1',
    ]);
    expect(transport.queueUsed(1)).toBe(true);
    expect(transport.queueUsed(0)).toBe(false);
    expect(device.queues[1]).toMatchObject({ size: 8, descriptors: region.address });
  });

  it('keep the upper half of addresses above 4 GiB', () => {
    const { open, mmio } = setUp();
    const transport = open();
    negotiate(transport);
    mmio.trace();
    // There is no memory, which the device finds when the queue becomes ready.
    expect(() => transport.queueSet(0, 8, 0x12_3456_7000, 0x12_3456_7080, 0x1f_ffff_f000)).toThrow(
      'not in memory',
    );
    expect(mmio.trace().filter((line) => /Queue(Desc|Device)/.test(line))).toEqual([
      'write32 QueueDescLow = 0x34567000',
      'write32 QueueDescHigh = 0x12',
      'write32 QueueDeviceLow = 0xfffff000',
      'write32 QueueDeviceHigh = 0x1f',
    ]);
  });

  it('are refused a size above the maximum, and a second set-up [4.2.2.2]', () => {
    const { device, open } = setUp();
    const transport = open();
    const features = negotiate(transport);
    expect(transport.maxQueueSize(1)).toBe(8);
    for (const queue of [7, -1, 0.5, NaN, 0x1_0000, 2 ** 32 + 1]) {
      expect(transport.maxQueueSize(queue)).toBe(0);
    }
    expect(codeOf(() => transport.queueSet(1, 16, 4096, 4096, 4096))).toBe('INVALID_PARAM');
    createQueue(transport, device.hal, features, { index: 1 });
    expect(codeOf(() => transport.queueSet(1, 8, 4096, 4096, 4096))).toBe('ALREADY_USED');
    expect(codeOf(() => createQueue(transport, device.hal, features, { index: 1 }))).toBe('ALREADY_USED');
    device.assertObeyed();
  });

  it('are stopped by writing 0 to QueueReady and reading it back [4.2.2.2]', () => {
    const { device, mmio, open } = setUp();
    const transport = open();
    createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    mmio.trace();
    transport.queueUnset(0);
    expect(mmio.trace()).toEqual([
      'write32 QueueSel = 0x0',
      'write32 QueueReady = 0x0',
      'read32 QueueReady = 0x0',
    ]);
    expect(device.queues[0]?.ring).toBeUndefined();
  });

  it('are notified with one 32-bit write of their index [4.2.3.3]', () => {
    const { device, mmio, open } = setUp();
    const transport = open();
    const queue = createQueue(transport, device.hal, negotiate(transport), { index: 1 });
    transport.finishInit();
    mmio.trace();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    expect(mmio.trace()).toEqual(['write32 QueueNotify = 0x1']);
    expect(device.notifications).toEqual([{ queue: 1, next: 0 }]);
  });

  it.each([
    ['split', 0n, 0x0001_0001],
    ['packed', names.set('RING_PACKED').bits, 0x8001_0001],
  ])('tell where the next entry will be with NOTIFICATION_DATA: %s [4.2.3.3, 2.9]', (_, features, value) => {
    const { device, mmio, open } = setUp({ features: features | names.set('NOTIFICATION_DATA').bits });
    const transport = open();
    const queue = createQueue(transport, device.hal, negotiate(transport), { index: 1 });
    transport.finishInit();
    mmio.trace();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    expect(mmio.trace()).toEqual([`write32 QueueNotify = 0x${value.toString(16)}`]);
    device.assertObeyed();
  });

  it('are notified through mapped memory by one store', () => {
    const memory = new Uint32Array(0x200 / 4);
    memory[MmioRegister.MagicValue / 4] = MMIO_MAGIC;
    memory[MmioRegister.Version / 4] = 2;
    memory[MmioRegister.DeviceID / 4] = DeviceType.Network;
    const transport = new MmioTransport(new MappedRegisters(memory.buffer), { name: 'mapped' });
    transport.notify(3, 0x8001);
    expect(memory[MmioRegister.QueueNotify / 4]).toBe(3);
    transport.writeDriverFeatures(names.set('NOTIFICATION_DATA').bits);
    transport.notify(3, 0x8001);
    expect(memory[MmioRegister.QueueNotify / 4]).toBe(0x8001_0003);
  });
});

describe('resetting one queue', () => {
  const features = names.set('RING_RESET').bits;

  it('waits until QueueReset reads 0, while the others run [4.2.2.2, 2.6.1]', () => {
    const { device, mmio, open } = setUp({ features });
    const transport = open();
    const negotiated = negotiate(transport);
    const queue = createQueue(transport, device.hal, negotiated, { index: 0, size: 4 });
    const other = createQueue(transport, device.hal, negotiated, { index: 1 });
    transport.finishInit();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    const lost = device.queue(0).pop();
    device.queueResetReads = 2;
    mmio.trace();
    transport.queueReset(0);
    expect(mmio.trace()).toEqual([
      'write32 QueueSel = 0x0',
      'write32 QueueReset = 0x1',
      'read32 QueueReset = 0x1',
      'read32 QueueReset = 0x1',
      'read32 QueueReset = 0x0',
      'read32 QueueReady = 0x0',
    ]);
    expect(lost?.pending).toBe(false);
    queue.reset();
    expect(transport.queueUsed(0)).toBe(true);
    for (const running of [queue, other]) {
      const token = BufferChains.of(running).add([Uint8Array.of(2)], []);
      running.kick();
      device.queue(running.index).pop()?.complete();
      expect(BufferChains.of(running).popUsed(token)).toBe(0);
    }
    device.assertObeyed();
  });

  it('finds out that a device offers it without having the register [2.6.1.1.2]', () => {
    const { device, open } = setUp({ features }, { quirks: { ignoreQueueReset: true } });
    const transport = open();
    createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    transport.finishInit();
    expect(codeOf(() => transport.queueReset(0))).toBe('UNSUPPORTED');
  });

  it('tells of a device that is removed meanwhile', () => {
    const { device, mmio, open } = setUp({ features });
    const transport = open();
    createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    transport.finishInit();
    const read = mmio.read32.bind(mmio);
    vi.spyOn(mmio, 'read32').mockImplementation((offset) => {
      const value = read(offset);
      if (offset === MmioRegister.QueueReset) device.remove();
      return value;
    });
    expect(codeOf(() => transport.queueReset(0))).toBe('DEVICE_REMOVED');
  });

  it('is refused without the feature', () => {
    const { mmio, open } = setUp();
    const transport = open();
    negotiate(transport);
    mmio.trace();
    expect(codeOf(() => transport.queueReset(0))).toBe('UNSUPPORTED');
    expect(mmio.trace()).toEqual([]);
  });

  it('gives up after a while', () => {
    const { device, open } = setUp({ features });
    const transport = open();
    createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    device.queueResetReads = Infinity;
    let now = 0;
    vi.spyOn(Date, 'now').mockImplementation(() => (now += 1000));
    expect(codeOf(() => transport.queueReset(0))).toBe('NOT_READY');
  });
});

describe('queues of a legacy device', () => {
  const legacy = { legacy: true, features: names.set('INDIRECT_DESC', 'EVENT_IDX').bits };

  it('are set up by size, alignment and page number [4.2.4]', () => {
    const { device, mmio, open } = setUp(legacy);
    const transport = open();
    const features = negotiate(transport);
    mmio.trace();
    createQueue(transport, device.hal, features, { index: 0, size: 16 });
    const { descriptors = 0 } = device.queues[0] ?? {};
    expect(mmio.trace().slice(-7)).toEqual([
      'write32 QueueSel = 0x0',
      'read32 QueuePFN = 0x0',
      'write32 QueueSel = 0x0',
      'read32 QueueSizeMax = 0x40',
      'write32 QueueSize = 0x10',
      'write32 QueueAlign = 0x1000',
      `write32 QueuePFN = 0x${(descriptors / 4096).toString(16)}`,
    ]);
    expect(device.queues[0]).toMatchObject({
      driverArea: descriptors + 256,
      deviceArea: descriptors + 4096,
    });
    expect(transport.queueUsed(0)).toBe(true);
    device.assertObeyed();
  });

  it('carry requests', () => {
    const { device, open } = setUp(legacy);
    device.handle(0, (chain) => {
      chain.write(chain.bytes().reverse());
    });
    const transport = open();
    const queue = createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    transport.finishInit();
    const reply = new Uint8Array(3);
    for (let n = 0; n < 200; n += 1) {
      expect(BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(n, 2), Uint8Array.of(3)], [reply])).toBe(
        3,
      );
      expect([...reply]).toEqual([3, 2, n]);
    }
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });

  it('are given back by writing page 0', () => {
    const { device, mmio, open } = setUp(legacy);
    const transport = open();
    createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    mmio.trace();
    transport.queueUnset(0);
    expect(mmio.trace()).toEqual(['write32 QueueSel = 0x0', 'write32 QueuePFN = 0x0']);
    expect(transport.queueUsed(0)).toBe(false);
  });

  it('are refused other layouts, and addresses that their register does not hold', () => {
    const { open } = setUp(legacy);
    const transport = open();
    negotiate(transport);
    const set = (base: number, driver = base + 16 * 8, device = base + 4096) =>
      codeOf(() => transport.queueSet(1, 8, base, driver, device));
    expect(set(4096 + 16)).toBe('INVALID_PARAM');
    expect(set(8192, 8192 + 64)).toBe('INVALID_PARAM');
    expect(set(8192, 8192 + 128, 8192 + 8192)).toBe('INVALID_PARAM');
    expect(set(0)).toBe('DMA_ERROR');
    expect(set(4096 * 2 ** 32)).toBe('DMA_ERROR');
  });

  it('cannot be reset alone', () => {
    const transport = setUp(legacy).open();
    negotiate(transport);
    expect(codeOf(() => transport.queueReset(0))).toBe('UNSUPPORTED');
  });
});

describe('the configuration space', () => {
  const config = new Uint8Array(16).map((_, i) => i + 1);

  it('is accessed at the width of each field, 64 bits in halves [4.2.2.2]', () => {
    const { mmio, open } = setUp({ config });
    const transport = open();
    negotiate(transport);
    mmio.trace();
    const { capacity, size, seg, kind, flag } = TestConfig.fields;
    expect(transport.readConfigSpace(size)).toBe(0x0c0b0a09);
    expect(transport.readConfigSpace(seg)).toBe(0x0e0d);
    expect(transport.readConfigSpace(kind)).toBe(0x0f);
    transport.writeConfigSpace(flag, 0xaa);
    transport.writeConfigSpace(seg, 0x1234);
    transport.writeConfigSpace(size, 0xdeadbeef);
    expect(mmio.trace()).toEqual([
      'read32 Config+0x8 = 0xc0b0a09',
      'read16 Config+0xc = 0xe0d',
      'read8 Config+0xe = 0xf',
      'write8 Config+0xf = 0xaa',
      'write16 Config+0xc = 0x1234',
      'write32 Config+0x8 = 0xdeadbeef',
    ]);
    expect(transport.readConfigSpace(capacity)).toBe(0x0807060504030201n);
    expect(mmio.trace()).toEqual([
      'read32 ConfigGeneration = 0x0',
      'read32 Config+0x0 = 0x4030201',
      'read32 Config+0x4 = 0x8070605',
      'read32 ConfigGeneration = 0x0',
    ]);
  });

  it('is read again if its generation changed meanwhile [2.5.1]', () => {
    const { device, open } = setUp({ config });
    const transport = open();
    let changes = 2;
    device.onConfigRead = () => {
      if (changes === 0) return;
      changes -= 1;
      device.changeConfig((view) => {
        view.setBigUint64(0, BigInt(changes), true);
      });
    };
    expect(transport.readConfigSpace(TestConfig.fields.capacity)).toBe(0n);
  });

  it('of a legacy device is read until two reads agree [2.5.4]', () => {
    const { device, mmio, open } = setUp({ config, legacy: true });
    const transport = open();
    const values = [1n, 2n, 3n, 3n];
    device.onConfigRead = (offset) => {
      if (offset !== 0) return;
      new DataView(device.config.buffer).setBigUint64(0, values.shift() ?? 3n, true);
    };
    expect(transport.readConfigLayout(TestConfig)).toMatchObject({ capacity: 3n, flag: 16 });
    expect(values).toEqual([]);
    expect(mmio.trace().some((line) => line.includes('ConfigGeneration'))).toBe(false);
    device.onConfigRead = () => {
      device.config[15] = (device.config[15] ?? 0) + 1;
    };
    expect(codeOf(() => transport.readConfigLayout(TestConfig))).toBe('NOT_READY');
  });

  it('ends with the window', () => {
    const { mmio, open } = setUp({ config }, { size: 0x10a });
    const transport = open();
    expect(transport.configSize).toBe(10);
    expect(codeOf(() => transport.readConfigSpace(TestConfig.fields.size))).toBe('CONFIG_SPACE_TOO_SMALL');
    mmio.trace();
    expect(codeOf(() => transport.readConfig(8, 4))).toBe('CONFIG_SPACE_TOO_SMALL');
    expect(codeOf(() => transport.readConfig(-1, 1))).toBe('CONFIG_SPACE_TOO_SMALL');
    expect(
      codeOf(() => {
        transport.writeConfig(10, 1, 0);
      }),
    ).toBe('CONFIG_SPACE_TOO_SMALL');
    expect(mmio.trace()).toEqual([]);
  });

  it('may be missing', () => {
    const transport = setUp({ config: 0 }).open();
    expect(codeOf(() => transport.readConfigSpace(TestConfig.fields.size))).toBe('CONFIG_SPACE_MISSING');
  });
});

describe('shared memory', () => {
  it('is found by its id', () => {
    const { mmio, open } = setUp({ sharedMemory: { 1: { address: 0x12_3456_7000, length: 0x1_0000_1000 } } });
    const transport = open();
    mmio.trace();
    expect(transport.sharedMemory(1)).toEqual({ address: 0x12_3456_7000, length: 0x1_0000_1000 });
    expect(mmio.trace()[0]).toBe('write32 SHMSel = 0x1');
    expect(transport.sharedMemory(0)).toBeUndefined();
    for (const id of [-1, NaN, 0.5, 256, 2 ** 32 + 1, '1', undefined]) {
      expect(codeOf(() => transport.sharedMemory(id as number))).toBe('INVALID_PARAM');
    }
  });

  it('is none where the registers read as zero, or on a legacy device', () => {
    expect(
      setUp({ sharedMemory: { 0: { address: 0, length: 0 } } })
        .open()
        .sharedMemory(0),
    ).toBeUndefined();
    const { mmio, open } = setUp({ legacy: true });
    const transport = open();
    mmio.trace();
    expect(transport.sharedMemory(0)).toBeUndefined();
    expect(mmio.trace()).toEqual([]);
  });

  it('is refused where no address can be', () => {
    const { open } = setUp({ sharedMemory: { 0: { address: 2 ** 53, length: 4096 } } });
    expect(codeOf(() => open().sharedMemory(0))).toBe('INVALID_DEVICE');
  });
});

describe('interrupts', () => {
  it('are read and acknowledged, unknown bits ignored [4.2.2.2, 4.2.3.4.1]', () => {
    const { device, mmio, open } = setUp();
    const transport = open();
    mmio.raise(0x80000001);
    mmio.trace();
    expect(transport.ackInterrupt().bits).toBe(InterruptStatus.QUEUE_INTERRUPT);
    expect(mmio.trace()).toEqual(['read32 InterruptStatus = 0x80000001', 'write32 InterruptACK = 0x1']);
    mmio.interruptStatus = 0;
    expect(transport.ackInterrupt().bits).toBe(0);
    expect(mmio.trace()).toEqual(['read32 InterruptStatus = 0x0']);
    device.assertObeyed();
  });

  it('reach each queue, or the configuration handler, and release the line', async () => {
    const { device, mmio, open } = setUp();
    const transport = open();
    const queue = createQueue(transport, device.hal, negotiate(transport), { index: 0 });
    const handlers = { first: vi.fn(), second: vi.fn(), config: vi.fn(), removal: vi.fn() };
    transport.interrupts?.onQueue(0, handlers.first);
    transport.interrupts?.onQueue(1, handlers.second);
    transport.interrupts?.onConfig(handlers.config);
    transport.interrupts?.onRemoval(handlers.removal);
    transport.finishInit();
    device.handle(0, () => undefined);
    queue.enableInterrupts();
    BufferChains.of(queue).add([Uint8Array.of(1)], []);
    queue.kick();
    expect(handlers.first).not.toHaveBeenCalled();
    await Promise.resolve();
    expect(handlers.first).toHaveBeenCalledOnce();
    expect(handlers.second).toHaveBeenCalledOnce();
    expect(handlers.config).not.toHaveBeenCalled();
    expect(mmio.asserted).toBe(false);

    device.changeConfig((view) => {
      view.setUint8(0, 9);
    });
    await Promise.resolve();
    expect(handlers.config).toHaveBeenCalledOnce();
    expect(handlers.first).toHaveBeenCalledOnce();

    transport.interrupts?.onQueue(0, undefined);
    mmio.raise(3);
    await Promise.resolve();
    expect(handlers.first).toHaveBeenCalledOnce();
    expect(handlers.second).toHaveBeenCalledTimes(2);
    expect(handlers.config).toHaveBeenCalledTimes(2);
    expect(handlers.removal).not.toHaveBeenCalled();
  });

  it('that are not lost if the device works on while the handler runs', async () => {
    const { mmio, open } = setUp();
    const transport = open();
    let calls = 0;
    transport.interrupts?.onQueue(0, () => {
      calls += 1;
      if (calls === 1) mmio.raise(InterruptStatus.QUEUE_INTERRUPT);
    });
    mmio.raise(InterruptStatus.QUEUE_INTERRUPT);
    await Promise.resolve();
    await Promise.resolve();
    expect(calls).toBe(2);
    expect(mmio.asserted).toBe(false);
  });

  it('of another device on the line, or spurious ones, are not claimed', () => {
    const { line, open } = setUp();
    const handler = vi.fn();
    open().interrupts?.onQueue(0, handler);
    expect(line.fire()).toBe(false);
    expect(handler).not.toHaveBeenCalled();
    expect(new InterruptLine().fire()).toBe(false);
  });

  it('tell of a removal', () => {
    const { device, line, open } = setUp();
    const transport = open();
    const removal = vi.fn();
    const queue = vi.fn();
    transport.interrupts?.onRemoval(removal);
    transport.interrupts?.onQueue(0, queue);
    device.remove();
    expect(line.fire()).toBe(false);
    expect(removal).toHaveBeenCalledOnce();
    expect(queue).not.toHaveBeenCalled();
  });

  it('tell a driver that the transport leaves behind that the device is gone for it', () => {
    const { line, open } = setUp();
    const transport = open();
    let gone = false;
    transport.interrupts?.onRemoval(() => (gone = transport.isGone()));
    transport[Symbol.dispose]();
    expect(gone).toBe(true);
    expect(line.fire()).toBe(false);
    expect(() => transport.reset()).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    expect(transport.removed().message).toContain('is closed');
  });

  it('of a device that did not stop: it is not taken for gone, as it may still write to memory', () => {
    const { mmio, open } = setUp();
    const transport = open();
    const read = mmio.read32.bind(mmio);
    vi.spyOn(mmio, 'read32').mockImplementation((at) => (at === MmioRegister.Status ? 4 : read(at)));
    let now = Date.now();
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => (now += 1000));
    try {
      expect(codeOf(() => transport[Symbol.dispose]())).toBe('NOT_READY');
    } finally {
      clock.mockRestore();
    }
    expect(codeOf(() => transport.reset())).toBe('NOT_READY');
  });

  it('keep count of who waits', () => {
    const { line, open } = setUp();
    const transport = open();
    transport.interrupts?.hold();
    transport.interrupts?.hold();
    transport.interrupts?.release();
    expect(line.holds).toBe(1);
    for (let n = 0; n < 3; n += 1) transport.interrupts?.release();
    // A release too many would take away the next hold.
    transport.interrupts?.hold();
    expect(line.holds).toBe(1);
  });
});

describe.each([
  ['modern', 0n],
  ['legacy', undefined],
])('a whole life on %s registers', (version, modern) => {
  const legacy = modern === undefined;

  it('accesses control registers with 32 bits and in their direction only [4.2.2.2]', async () => {
    const { device, mmio, open } = setUp({
      legacy,
      features: names.set('INDIRECT_DESC', 'EVENT_IDX', 'RING_RESET').bits,
      sharedMemory: { 0: { address: 0x1000, length: 0x1000 } },
    });
    const transport = open();
    const features = negotiate(transport);
    const queue = createQueue(transport, device.hal, features, { index: 0, size: 4 });
    transport.interrupts?.onQueue(0, () => undefined);
    transport.finishInit();
    device.handle(0, (chain) => {
      chain.write([1]);
    });
    queue.enableInterrupts();
    BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(1)], [new Uint8Array(1)]);
    await Promise.resolve();
    transport.readConfigLayout(TestConfig);
    transport.writeConfigSpace(TestConfig.fields.seg, 3);
    transport.sharedMemory(0);
    if (!legacy) transport.queueReset(0);
    transport[Symbol.dispose]();
    queue[Symbol.dispose]();
    // The model knows each register's direction, and which version has it.
    expect(device.violations).toEqual([]);
    const control = mmio.accesses.filter(({ offset }) => offset < MmioRegister.Config);
    expect(control.length).toBeGreaterThan(30);
    expect(control.filter(({ width }) => width !== 4)).toEqual([]);
    expect(mmio.accesses.some(({ width }) => width === 2)).toBe(true);
    expect(version).toBe(transport.version === 1 ? 'legacy' : 'modern');
    device.assertClean();
  });
});

it('never touches the shared memory registers unless a region is asked for [4.2.3.1.1]', () => {
  const { device, mmio, open } = setUp({ sharedMemory: { 0: { address: 0x1000, length: 0x1000 } } });
  const touched = (): boolean => mmio.trace().some((line) => line.includes('SHM'));
  const transport = open();
  const queue = createQueue(transport, device.hal, negotiate(transport), { index: 0, size: 4 });
  transport.finishInit();
  device.handle(0, (chain) => {
    chain.write([1]);
  });
  BufferChains.of(queue).addNotifyWaitPop([Uint8Array.of(1)], [new Uint8Array(1)]);
  transport.readConfigLayout(TestConfig);
  transport.reset();
  expect(touched()).toBe(false);
  transport.sharedMemory(0);
  expect(touched()).toBe(true);
  queue[Symbol.dispose]();
});

describe('the life of a transport', () => {
  it('names its device', () => {
    expect(setUp().open().who()).toBe('Block device (MMIO 0xa000000)');
  });

  it('resets and waits for it [2.4.2]', () => {
    const { device, open } = setUp();
    const transport = open();
    negotiate(transport);
    expect(transport.getStatus().has(DeviceStatus.FEATURES_OK)).toBe(true);
    device.resetReads = 3;
    transport.reset();
    expect(device.status.bits).toBe(0);
  });

  it.each(['ones', 'zeros'] as const)('is not there any more when all registers read as %s', (silence) => {
    const { device, open } = setUp({}, { silence });
    const transport = open();
    expect(transport.getStatus().bits).toBe(0);
    device.remove();
    expect(transport.isGone()).toBe(true);
    for (const action of [
      () => transport.readDeviceFeatures(),
      () => transport.maxQueueSize(0),
      () => {
        transport.queueSet(0, 4, 0x1000, 0x2000, 0x3000);
      },
      () => {
        transport.reset();
      },
      () => {
        transport.checkAlive();
      },
    ]) {
      expect(codeOf(action)).toBe('DEVICE_REMOVED');
    }
  });

  it('resets the device and lets the line go when it is disposed', () => {
    const { device, mmio, line } = setUp();
    const onDispose = vi.fn();
    const transport = new MmioTransport(mmio, { name: 'x', interrupts: line, onDispose });
    negotiate(transport);
    transport[Symbol.dispose]();
    transport[Symbol.dispose]();
    expect(device.status.bits).toBe(0);
    expect(onDispose).toHaveBeenCalledOnce();
    mmio.interruptStatus = 1;
    expect(line.fire()).toBe(false);
    expect(mmio.interruptStatus).toBe(1);
  });

  it('is disposed without error when the device is gone', () => {
    const { device, open } = setUp();
    const transport = open();
    device.remove();
    expect(() => {
      transport[Symbol.dispose]();
    }).not.toThrow();
  });
});
