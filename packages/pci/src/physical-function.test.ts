import { BufferChains, createQueue, DeviceType, type RegisterWindow } from '@virtio/core';
import { FakePciBridge, FakePciBus, FakePciDevice, FakePciFunction } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { decode, device, encode, negotiate } from '../fixture.ts';
import { BarAllocator, readBars } from './bars.ts';
import { CAM_SIZE, FunctionConfig, MmioCam } from './config-access.ts';
import { DeviceFunction } from './device-function.ts';
import { virtioDeviceType } from './device-id.ts';
import { PciRoot } from './pci-root.ts';
import { PciTransport } from './pci-transport.ts';

/** A machine: a block device on bus 0, another behind a bridge, and something that is not virtio. */
function machine(assign = true) {
  const bus = new FakePciBus();
  const near = bus.add(3, 0, new FakePciDevice(device()));
  const bridge = bus.add(5, 0, new FakePciBridge({ secondary: 2, subordinate: 2 }));
  const far = bridge.add(
    1,
    0,
    new FakePciDevice(device({ type: DeviceType.Console }), { transitional: true }),
  );
  bus.add(
    6,
    0,
    new FakePciFunction({
      vendorId: 0x8086,
      deviceId: 0x100e,
      bars: { 0: { kind: 'memory', size: 0x2_0000 } },
    }),
  );
  if (assign) bus.assign();
  return { bus, near, far };
}

describe.each(['cam', 'ecam'] as const)('a machine with a %s window', (cam) => {
  it('shows its virtio devices, and each is driven', () => {
    const { bus, near, far } = machine();
    const window = bus.configWindow(cam);
    expect(window.size).toBe(CAM_SIZE[cam]);
    const root = new PciRoot(new MmioCam(window, cam));
    const found = [...root.virtioDevices()];
    expect(found.map(([at, info]) => [String(at), virtioDeviceType(info)])).toEqual([
      ['0000:00:03.0', DeviceType.Block],
      ['0000:02:01.0', DeviceType.Console],
    ]);
    for (const [at] of found) {
      const pci = at.bus === 0 ? near : far;
      const { hal } = pci.device;
      const mapRegisters = (address: number, size: number): RegisterWindow => bus.mapRegisters(address, size);
      const transport = PciTransport.open(root.access, at, { mapRegisters });
      const queue = createQueue(transport, hal, negotiate(transport), { index: 0, size: 8 });
      transport.finishInit();
      const reply = new Uint8Array(5);
      BufferChains.of(queue).addNotifyWaitPop([encode('hello')], [reply]);
      expect(decode(reply)).toBe('HELLO');
      transport[Symbol.dispose]();
      queue[Symbol.dispose]();
      pci.device.assertClean();
      expect(pci.misuse).toEqual([]);
    }
  });
});

describe('PciTransport.open', () => {
  const at = new DeviceFunction(0, 3, 0);

  it('wants addresses in BARs, which BarAllocator assigns', () => {
    const { bus, near } = machine(false);
    const access = new MmioCam(bus.configWindow('ecam'), 'ecam');
    const space = { mapRegisters: (address: number, size: number) => bus.mapRegisters(address, size) };
    expect(() => PciTransport.open(access, at, space)).toThrow(
      expect.objectContaining({
        code: 'INVALID_PARAM',
        reason: 'BAR_NOT_ALLOCATED',
        message: expect.stringContaining('BarAllocator') as string,
      }),
    );
    const root = new PciRoot(access);
    const allocator = new BarAllocator({
      memory: { start: 0xe000_0000, size: 0x1000_0000 },
      memory64: { start: 0x40_0000_0000, size: 2 ** 32 },
    });
    for (const [where, info] of root.bus(0)) {
      if (info.headerType === 'standard') allocator.assign(new FunctionConfig(access, where), String(where));
    }
    expect(near.misuse).toEqual([]);
    expect(PciTransport.open(access, at, space).deviceType).toBe(DeviceType.Block);
  });

  it('says that there is no device where there is none', () => {
    const { bus } = machine();
    const access = new MmioCam(bus.configWindow('ecam'), 'ecam');
    const mapRegisters = vi.fn();
    expect(() => PciTransport.open(access, new DeviceFunction(0, 9, 0), { mapRegisters })).toThrow(
      expect.objectContaining({ code: 'NO_DEVICE' }),
    );
    expect(() => PciTransport.open(access, new DeviceFunction(0, 6, 0), { mapRegisters })).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
    expect(mapRegisters).not.toHaveBeenCalled();
  });

  /** A device that says that its ISR status is in an I/O BAR as well, which it prefers. */
  const withIo = () => {
    const bus = new FakePciBus();
    const bars = { 0: { kind: 'io', size: 64 }, 4: { kind: 'memory64', size: 0x4000 } } as const;
    const pci = new FakePciDevice(device(), {
      vectors: 0,
      header: { bars },
      structures: (all) => [{ type: 'isr', bar: 0, offset: 0x13, length: 1 }, ...all],
    });
    bus.add(3, 0, pci);
    bus.assign();
    return { bus, pci, access: new MmioCam(bus.configWindow('cam'), 'cam') };
  };

  it('uses structures in I/O space where ports can be mapped', () => {
    const { bus, access } = withIo();
    const mapPorts = vi.fn((port: number, count: number) => bus.mapPorts(port, count));
    PciTransport.open(access, at, {
      mapRegisters: (address, size) => bus.mapRegisters(address, size),
      mapPorts,
    });
    const [bar] = readBars(new FunctionConfig(access, at), 'x');
    expect(bar).toMatchObject({ kind: 'io', size: 64 });
    expect(mapPorts.mock.calls).toEqual([[(bar?.address ?? 0) + 0x13, 1]]);
  });

  it.each([true, false])(
    'passes them over if their BAR has no address (ports can be mapped: %s)',
    (ports) => {
      const { bus, access, pci } = withIo();
      pci.assign(0, 0);
      const transport = PciTransport.open(access, at, {
        mapRegisters: (address, size) => bus.mapRegisters(address, size),
        ...(ports && { mapPorts: (port: number, count: number) => bus.mapPorts(port, count) }),
      });
      pci.bar(4).accesses.length = 0;
      transport.ackInterrupt();
      expect(pci.bar(4).trace()).toEqual(['read8 isr = 0x0']);
    },
  );

  it('passes them over where they cannot', () => {
    const { bus, access, pci } = withIo();
    const transport = PciTransport.open(access, at, {
      mapRegisters: (address, size) => bus.mapRegisters(address, size),
    });
    pci.bar(4).accesses.length = 0;
    transport.ackInterrupt();
    expect(pci.bar(4).trace()).toEqual(['read8 isr = 0x0']);
  });
});
