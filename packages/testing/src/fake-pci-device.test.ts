/** Registers are accessed one by one, at the offsets of PCI and of the specification. */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { describe, expect, it, vi } from 'vitest';
import { FakeDevice, type FakeDeviceOptions } from './fake-device.ts';
import { FakePciBridge, FakePciBus } from './fake-pci-bus.ts';
import { FakePciDevice, type FakePciDeviceOptions } from './fake-pci-device.ts';
import { FakePciFunction } from './fake-pci-function.ts';
import { virtioCapability } from './pci-structures.ts';

const COMMAND = 0x04;
const BAR = (index: number) => 0x10 + 4 * index;

function setUp(options: Partial<FakeDeviceOptions> = {}, pciOptions: FakePciDeviceOptions = {}) {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [8, 4], config: 12, ...options });
  const pci = new FakePciDevice(device, pciOptions);
  pci.enable({ memory: true, busMaster: true });
  return { device, pci, common: pci.mapBar(4, 0, 64), config: pci.config };
}

/** Goes as far as DRIVER_OK, with one queue. */
function goLive({ device, common }: ReturnType<typeof setUp>, features = device.features) {
  common.write8(20, 0);
  common.write8(20, 1);
  common.write8(20, 3);
  for (const word of [0, 1]) {
    common.write32(8, word);
    common.write32(12, Number((features >> BigInt(32 * word)) & 0xffffffffn));
  }
  common.write8(20, 11);
  common.read8(20);
  const { address } = device.hal.dmaAlloc(1, 'both', false);
  common.write16(22, 1);
  common.write16(24, 4);
  common.write32(32, address);
  common.write32(40, address + 256);
  common.write32(48, address + 512);
  return () => {
    common.write16(28, 1);
    common.write8(20, 15);
  };
}

/** The capabilities of a function, by walking its list. */
function walk(config: { read8(offset: number): number }) {
  const found: { at: number; id: number; type: number }[] = [];
  for (let at = config.read8(0x34); at !== 0; at = config.read8(at + 1)) {
    found.push({ at, id: config.read8(at), type: config.read8(at + 3) });
  }
  return found;
}

describe('the header of a virtio function', () => {
  it('has the ids of a modern device [4.1.2]', () => {
    const { config } = setUp();
    expect(config.read32(0)).toBe(0x10421af4);
    expect(config.read8(0x08)).toBe(1);
    expect(config.read8(0x0e)).toBe(0);
    expect(config.read16(0x06) & 0x10).toBe(0x10);
  });

  it('has the ids of a transitional one [4.1.2.1]', () => {
    const { config } = setUp({}, { transitional: true });
    expect(config.read32(0)).toBe(0x10011af4);
    expect(config.read8(0x08)).toBe(0);
    expect(config.read16(0x2e)).toBe(2);
  });

  it('keeps read-only registers as they are', () => {
    const { config } = setUp();
    config.write32(0, 0);
    config.write16(COMMAND, 0xffff);
    config.write8(0x3c, 11);
    expect(config.read32(0)).toBe(0x10421af4);
    expect(config.read16(COMMAND)).toBe(0x0407);
    expect(config.read8(0x3c)).toBe(11);
  });

  it('has BARs that are sized by writing ones', () => {
    const { pci, config } = setUp();
    config.write16(COMMAND, 0);
    pci.assign(4, 0x12_0000_8000);
    expect(config.read32(BAR(4))).toBe(0x0000_800c);
    expect(config.read32(BAR(5))).toBe(0x12);
    expect(config.read16(BAR(5))).toBe(0x12);
    for (const bar of [4, 5]) config.write32(BAR(bar), 0xffff_ffff);
    expect(config.read32(BAR(4))).toBe(0xffff_c00c);
    expect(config.read32(BAR(5))).toBe(0xffff_ffff);
    config.write32(BAR(1), 0xffff_ffff);
    expect(config.read32(BAR(1))).toBe(0xffff_0000);
    config.write32(BAR(0), 0xffff_ffff);
    expect(config.read32(BAR(0))).toBe(0);
    config.write32(BAR(4), 0x4000);
    config.write32(BAR(5), 0);
    expect(pci.bars.find(({ index }) => index === 4)?.address).toBe(0x4000);
    expect(pci.misuse).toEqual([]);
  });

  it('has wide and I/O BARs too', () => {
    const fn = new FakePciFunction({
      vendorId: 1,
      deviceId: 2,
      bars: { 0: { kind: 'io', size: 32, address: 0xc000 }, 2: { kind: 'memory64', size: 2 ** 34 } },
    });
    for (const bar of [0, 2, 3]) fn.config.write32(BAR(bar), 0xffff_ffff);
    expect([0, 2, 3].map((bar) => fn.config.read32(BAR(bar)))).toEqual([0xffff_ffe1, 4, 0xffff_fffc]);
    expect(
      () => new FakePciFunction({ vendorId: 1, deviceId: 2, bars: { 0: { kind: 'io', size: 3 } } }),
    ).toThrow('3 bytes');
  });

  it('notes BARs that are moved or used at the wrong time', () => {
    const { pci, config } = setUp();
    config.write32(BAR(4), 0xffff_ffff);
    config.write16(COMMAND, 0);
    expect(pci.bar(4).read32(0)).toBe(0xffff_ffff);
    expect(pci.misuse).toEqual([
      expect.stringContaining('while the function decodes'),
      expect.stringContaining('does not decode'),
    ]);
  });
});

describe('the capabilities of a virtio function', () => {
  it('say where the structures are [4.1.4]', () => {
    const { config } = setUp({ sharedMemory: { 7: { address: 0, length: 0x1_0000_1000 } } });
    const list = walk(config);
    expect(list.map(({ id, type }) => (id === 9 ? type : -id))).toEqual([-1, -0x11, 1, 3, 4, 2, 8, 5]);
    const at = (type: number) => list.find((cap) => cap.id === 9 && cap.type === type)?.at ?? 0;
    const place = (type: number) => [
      config.read8(at(type) + 4),
      config.read32(at(type) + 8),
      config.read32(at(type) + 12),
    ];
    expect([1, 3, 4, 2].map(place)).toEqual([
      [4, 0, 64],
      [4, 0x1000, 1],
      [4, 0x2000, 12],
      [4, 0x3000, 8],
    ]);
    expect([config.read8(at(2) + 2), config.read32(at(2) + 16)]).toEqual([20, 4]);
    expect(config.read8(at(8) + 5)).toBe(7);
    expect([config.read32(at(8) + 12), config.read32(at(8) + 16), config.read32(at(8) + 20)]).toEqual([
      0x1000, 0, 1,
    ]);
    const msix = list[1]?.at ?? 0;
    expect([config.read16(msix + 2), config.read32(msix + 4), config.read32(msix + 8)]).toEqual([
      2, 1, 0x8001,
    ]);
  });

  it('may be whatever a test likes', () => {
    const { config } = setUp(
      {},
      {
        vectors: 0,
        structures: (all) => all.map((one) => (one.type === 'common' ? { ...one, bar: 7 } : one)),
        capabilities: (all) => [virtioCapability(0x77, { bar: 1 }), ...all],
      },
    );
    const list = walk(config);
    expect(list[0]).toMatchObject({ id: 9, type: 0x77 });
    expect(list.some(({ id }) => id === 0x11)).toBe(false);
    expect(config.read8((list.find(({ type, id }) => id === 9 && type === 1)?.at ?? 0) + 4)).toBe(7);
  });

  it('reach any structure through configuration space [4.1.4.9]', () => {
    const { config, device } = setUp({ config: Uint8Array.of(1, 2, 3, 4) });
    const at = walk(config).find(({ id, type }) => id === 9 && type === 5)?.at ?? 0;
    const access = (bar: number, offset: number, length: number) => {
      config.write8(at + 4, bar);
      config.write32(at + 8, offset);
      config.write32(at + 12, length);
    };
    access(4, 0x2000, 4);
    expect(config.read32(at + 16)).toBe(0x04030201);
    access(4, 0x2002, 2);
    expect(config.read16(at + 16)).toBe(0x0403);
    access(4, 20, 1);
    config.write8(at + 16, 1);
    expect(device.status.bits).toBe(1);
    expect(device.violations).toEqual([]);
    access(4, 0x2002, 4);
    config.read32(at + 16);
    access(4, 0x800, 4);
    config.read32(at + 16);
    expect(device.violations.map(({ message }) => message)).toEqual([
      expect.stringContaining('length 4 at offset 8194'),
      expect.stringContaining('no other capability'),
    ]);
  });
});

describe('the common configuration [4.1.4.3]', () => {
  it('takes a queue through its life', () => {
    const set = setUp({ features: CommonFeatures.set('RING_RESET').bits });
    const { device, pci, common } = set;
    expect([common.read16(18), common.read8(20), common.read8(21)]).toEqual([2, 0, 0]);
    common.write16(22, 1);
    expect([common.read16(24), common.read16(28), common.read16(30)]).toEqual([4, 0, 1]);
    goLive(set)();
    expect([common.read16(24), common.read16(28)]).toEqual([4, 1]);
    const [desc] = device.queue(1).areas;
    expect([common.read32(32), common.read32(36)]).toEqual([desc?.address, 0]);
    pci.mapBar(4, 0x3000, 8).write16(4, 1);
    expect(device.notifications).toEqual([{ queue: 1, next: 0 }]);
    device.queueResetReads = 1;
    common.write16(58, 1);
    expect([common.read16(58), common.read16(58), common.read16(28)]).toEqual([1, 0, 0]);
    common.write8(20, 0);
    expect(common.read8(20)).toBe(0);
    expect(device.violations).toEqual([]);
    expect(pci.bar(4).trace().slice(0, 3)).toEqual([
      'read16 num_queues = 0x2',
      'read8 device_status = 0x0',
      'read8 config_generation = 0x0',
    ]);
  });

  it('shows features by word', () => {
    const { common } = setUp({ features: 3n | (1n << 66n) });
    const words = [0, 1, 2, 3, 4].map((word) => {
      common.write32(0, word);
      return common.read32(4);
    });
    expect(words).toEqual([3, 1, 4, 0, 0]);
    common.write32(8, 0);
    common.write32(12, 3);
    expect(common.read32(12)).toBe(3);
  });

  it('asks for 32-bit notifications with data, and for its own value [4.1.5.2]', () => {
    const set = setUp({ features: CommonFeatures.set('NOTIFICATION_DATA', 'NOTIF_CONFIG_DATA').bits });
    goLive(set)();
    const notify = set.pci.mapBar(4, 0x3000, 8);
    expect(set.common.read16(56)).toBe(0x101);
    expect(() => notify.write16(4, 0x101)).toThrow('16 bits, not 32');
    expect(() => notify.write32(4, 1)).toThrow('no queue_notif_config_data');
    expect(() => notify.write32(0, 0x101)).toThrow('its place is 4');
    notify.write32(4, 0x101);
    expect(set.device.notifications).toEqual([{ queue: 1, next: 0 }]);
  });

  it.each<[string, (set: ReturnType<typeof setUp>) => void, string]>([
    ['a field at another width [4.1.3.1]', ({ common }) => common.read32(20), 'device_status has 1'],
    ['a place between fields [4.1.3.1]', ({ common }) => common.read16(34), 'no field starts there'],
    [
      'writing a read-only field [4.1.4.3.2]',
      ({ common }) => {
        common.write16(18, 1);
      },
      'wrote to num_queues',
    ],
    [
      '0 to queue_enable [4.1.4.3.2]',
      ({ common }) => {
        common.write16(28, 0);
      },
      '0 was written to queue_enable',
    ],
    [
      'a size that is no power of two [4.1.4.3.2]',
      ({ common }) => {
        common.write16(24, 3);
      },
      'set to 3',
    ],
    [
      'a vector outside the table [4.1.5.1.2.2]',
      ({ common }) => {
        common.write16(16, 3);
      },
      'vector 3',
    ],
    [
      'a queue whose vector was not read back [4.1.5.1.2.2]',
      (set) => {
        const live = goLive(set);
        set.common.write16(26, 1);
        live();
      },
      'queue 1 was enabled before the vector',
    ],
    [
      'a vector for changes that was not read back [4.1.5.1.2.2]',
      (set) => {
        const live = goLive(set);
        set.common.write16(16, 1);
        live();
      },
      'DRIVER_OK was set before the vector',
    ],
    [
      'queue_reset without the feature',
      ({ common }) => {
        common.write16(58, 1);
      },
      'RING_RESET was not',
    ],
    ['administration queues without the feature', ({ common }) => common.read16(60), 'ADMIN_VQ was not'],
    ['reading a notification register', ({ pci }) => pci.bar(4).read16(0x3000), 'read a notification'],
    [
      'writing the ISR status',
      ({ pci }) => {
        pci.bar(4).write8(0x1000, 1);
      },
      'wrote to the ISR',
    ],
    [
      'writing where nothing is',
      ({ pci }) => {
        pci.bar(4).write32(0x800, 1);
      },
      'no structure',
    ],
    [
      'notifying without being bus master',
      (set) => {
        goLive(set)();
        set.config.write16(COMMAND, 2);
        set.pci.bar(4).write16(0x3004, 1);
      },
      'bus master',
    ],
    [
      'changing a queue that is enabled [4.1.4.3.2]',
      (set) => {
        goLive(set)();
        set.common.write32(32, 0);
      },
      'queue_desc was written',
    ],
  ])('tells of %s', (_, act, message) => {
    const set = setUp();
    try {
      act(set);
    } catch {
      // What a device cannot go on after is thrown as well.
    }
    expect(set.device.violations.map((violation) => violation.message).join()).toContain(message);
  });
});

describe('interrupts of a PCI function', () => {
  it('are INTx with the ISR status without MSI-X [4.1.5.3]', async () => {
    const onIntx = vi.fn((): boolean => isr() !== 0);
    const set = setUp({}, { onIntx });
    const isr = () => set.pci.bar(4).read8(0x1000);
    goLive(set)();
    set.device.changeConfig(() => undefined);
    expect(set.config.read16(6) & 8).toBe(8);
    expect(set.pci.intxAsserted).toBe(true);
    await Promise.resolve();
    expect(onIntx).toHaveReturnedWith(true);
    expect(set.pci.intxAsserted).toBe(false);
    expect(set.config.read16(6) & 8).toBe(0);
    // Disabled in the command register: the status shows it, the line does not.
    set.config.write16(COMMAND, 0x406);
    set.device.changeConfig(() => undefined);
    expect([set.config.read16(6) & 8, set.pci.intxAsserted]).toEqual([8, false]);
  });

  it('are messages with MSI-X, by the vector that the driver chose [4.1.5.1.2]', async () => {
    const onVector = vi.fn();
    const set = setUp({}, { onVector });
    const { pci, common, device } = set;
    pci.enableMsix();
    const live = goLive(set);
    common.write16(16, 2);
    common.write16(26, 1);
    // 4.1.5.1.2.2: reading back shows whether the device has taken it.
    expect([common.read16(16), common.read16(26)]).toEqual([2, 1]);
    live();
    expect([
      common.read16(16),
      common.read16(26),
      pci.vectorOf('config'),
      pci.vectorOf(1),
      pci.vectorOf(0),
    ]).toEqual([2, 1, 2, 1, 0xffff]);
    device.changeConfig(() => undefined);
    device.changeConfig(() => undefined);
    device.front?.interruptQueue(1);
    device.front?.interruptQueue(0);
    expect(onVector).not.toHaveBeenCalled();
    await Promise.resolve();
    expect(onVector.mock.calls).toEqual([[2], [1]]);
    expect(pci.isr).toBe(0);
    expect(pci.intxAsserted).toBe(false);
    common.write8(20, 0);
    expect(pci.vectorOf('config')).toBe(0xffff);
  });

  it('wait in the pending bits while a vector, or all, are masked', async () => {
    const onVector = vi.fn();
    const set = setUp({}, { onVector });
    const { pci, common, config, device } = set;
    const msix = pci.bar(1);
    const control = (walk(config)[1]?.at ?? 0) + 2;
    config.write16(control, 0xc000);
    expect(pci.msixEnabled).toBe(true);
    msix.write32(0, 0xfee0_0000);
    msix.write32(8, 0x41);
    msix.write32(12, 1);
    const live = goLive(set);
    common.write16(16, 0);
    expect(common.read16(16)).toBe(0);
    live();
    device.changeConfig(() => undefined);
    expect(msix.read32(0x8000)).toBe(1);
    config.write16(control, 0x8000);
    await Promise.resolve();
    expect(onVector).not.toHaveBeenCalled();
    msix.write32(12, 0);
    await Promise.resolve();
    expect(onVector).toHaveBeenCalledExactlyOnceWith(0);
    expect(pci.msixEntry(0)).toEqual({ address: 0xfee0_0000, data: 0x41, masked: false });
    expect(msix.read32(0x8000)).toBe(0);
  });

  it('may be refused by the device', () => {
    const { common } = setUp({}, { refusedVectors: [1] });
    common.write16(16, 1);
    expect(common.read16(16)).toBe(0xffff);
  });
});

describe('a PCI bus', () => {
  function busOf() {
    const bus = new FakePciBus();
    const device = new FakeDevice({ type: DeviceType.Block, config: 4 });
    const far = new FakeDevice({ type: DeviceType.Network, config: 4 });
    bus.add(0, 0, new FakePciFunction({ vendorId: 0x8086, deviceId: 0x1237 }));
    bus.add(3, 0, new FakePciDevice(device));
    bus.add(
      3,
      2,
      new FakePciFunction({ vendorId: 0x1234, deviceId: 1, bars: { 0: { kind: 'io', size: 16 } } }),
    );
    const outer = bus.add(5, 0, new FakePciBridge({ secondary: 1, subordinate: 2 }));
    const inner = outer.add(0, 0, new FakePciBridge({ primary: 1, secondary: 2, subordinate: 2 }));
    inner.add(31, 0, new FakePciDevice(far));
    return { bus, device, far, outer, inner };
  }

  it.each([
    ['cam', 8],
    ['ecam', 12],
  ] as const)('shows each function in a %s window, and all ones elsewhere', (cam, shift) => {
    const { bus } = busOf();
    const window = bus.configWindow(cam, 4);
    const at = (number: number, device: number, fn: number) => ((number << 8) | (device << 3) | fn) << shift;
    expect(window.size).toBe(4 << (8 + shift));
    expect(window.read32(at(0, 3, 0))).toBe(0x10421af4);
    expect(window.read16(at(0, 3, 2))).toBe(0x1234);
    expect(window.read8(at(0, 3, 0) + 0x0e)).toBe(0x80);
    expect(window.read32(at(2, 31, 0))).toBe(0x10411af4);
    expect(window.read32(at(1, 0, 0) + 0x18) & 0xffffff).toBe(0x020201);
    for (const [number, device, fn] of [
      [0, 1, 0],
      [0, 3, 1],
      [1, 31, 0],
      [3, 0, 0],
    ] as const) {
      expect(window.read32(at(number, device, fn))).toBe(0xffff_ffff);
    }
    window.write16(at(0, 3, 0) + 4, 7);
    expect(window.trace().at(-1)).toBe('write16 0:3.0 config 0x4 = 0x7');
  });

  it('follows the bus numbers that bridges have now', () => {
    const { bus, outer, inner } = busOf();
    outer.config.write8(0x1a, 9);
    inner.config.write8(0x19, 9);
    inner.config.write8(0x1a, 9);
    expect(bus.find(9, 31, 0)).toBeDefined();
    expect(bus.find(2, 31, 0)).toBeUndefined();
    outer.config.write8(0x19, 0);
    expect(bus.find(9, 31, 0)).toBeUndefined();
  });

  it('decodes the addresses that BARs hold', () => {
    const { bus, device } = busOf();
    bus.assign();
    const pci = bus.find(0, 3, 0) as FakePciDevice;
    const { address } = pci.bars.find(({ index }) => index === 4) ?? { address: 0 };
    expect(address).toBeGreaterThan(2 ** 32);
    const window = bus.mapRegisters(address, 64);
    window.write8(20, 1);
    expect(device.status.bits).toBe(1);
    expect(bus.readMemory(address + 20, 1)).toBe(1);
    bus.writeMemory(address + 20, 1, 3);
    expect(window.read8(20)).toBe(3);
    expect(bus.readMemory(0x1234, 4)).toBe(0xffff_ffff);
    expect(bus.readPort(0xc004, 2)).toBe(0);
    expect(bus.mapPorts(0xc000, 16).read32(0)).toBe(0);
    expect(bus.readPort(0xd000, 2)).toBe(0xffff);
    pci.config.write16(4, 0);
    expect(bus.readMemory(address + 20, 1)).toBe(0xff);
  });

  it('loses a function that is unplugged', () => {
    const { bus, device } = busOf();
    bus.assign();
    const pci = bus.find(0, 3, 0);
    device.remove();
    expect(bus.find(0, 3, 0)).toBeUndefined();
    expect(pci?.config.read32(0)).toBe(0xffff_ffff);
    expect(pci?.bar(4).read8(20)).toBe(0xff);
  });

  it('has one function a slot', () => {
    const { bus } = busOf();
    const fn = new FakePciFunction({ vendorId: 1, deviceId: 1 });
    expect(() => bus.add(3, 0, fn)).toThrow('taken');
    expect(() => bus.add(32, 0, fn)).toThrow('no slot');
  });
});
