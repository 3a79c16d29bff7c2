import { CommonFeatures, VirtioError } from '@virtio/core';
import { type BlkFeatureName, type BlkOptions, VirtioBlk } from '@virtio/blk';
import { InterruptLines, PciRoot, PciTransport } from '@virtio/pci';
import {
  FakePciBridge,
  FakePciBus,
  FakePciDevice,
  type FakePciDeviceOptions,
  ringVariants,
} from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { FakeDisk, type FakeDiskOptions, pattern } from '../../blk/examples/fake-disk.ts';
import { SoftwareHypervisor, SoftwarePorts } from '../examples/software-hypervisor.ts';
import { HypCam } from './hyp-cam.ts';
import { HypPciTransport } from './hyp-pci-transport.ts';
import { Hypercall, HypIoRegion, isPkvm } from './hypercalls.ts';
import { PortCam, PortRegion } from './port-cam.ts';

const ECAM = 0x20_b000_0000;
const FEATURES: readonly BlkFeatureName[] = ['FLUSH', 'DISCARD', 'WRITE_ZEROES', 'MQ', 'CONFIG_WCE'];

interface Options extends FakeDiskOptions {
  readonly pci?: FakePciDeviceOptions;
}

/** A machine with a disk behind a bridge, and its interrupts. */
function machine({ pci: pciOptions = {}, ...options }: Options = {}) {
  const disk = new FakeDisk({
    sectors: 512,
    features: FEATURES,
    queues: [64, 32],
    config: { maxDiscardSectors: 64, maxDiscardSeg: 4, maxWriteZeroesSectors: 64, maxWriteZeroesSeg: 4 },
    ...options,
  });
  const lines = new InterruptLines(3);
  const pci = new FakePciDevice(disk.device, {
    onVector: (vector) => lines.fire(vector),
    onIntx: () => lines.fire(0),
    ...pciOptions,
  });
  pci.enableMsix();
  const bus = new FakePciBus();
  bus.add(4, 0, new FakePciBridge({ secondary: 1, subordinate: 1 })).add(7, 0, pci);
  bus.assign({ memory64: 0x12_0000_0000 });
  const hypervisor = new SoftwareHypervisor(bus, ECAM);
  return { bus, hypervisor, disk, pci, lines };
}

/** Boots the machine under pKVM and opens the disk. */
function boot(options: Options = {}, driver: BlkOptions = {}) {
  const fixed = machine(options);
  const { hypervisor, lines } = fixed;
  expect(isPkvm(hypervisor)).toBe(true);
  const root = new PciRoot(new HypCam(hypervisor, ECAM, 'ecam'));
  const [found] = [...root.virtioDevices()];
  if (!found) throw new Error('there is no disk');
  const transport = new HypPciTransport(hypervisor, root.access, found[0], lines);
  return { ...fixed, transport, blk: new VirtioBlk(transport, fixed.disk.device.hal, driver) };
}

function assertClean({ disk, pci }: ReturnType<typeof machine>): void {
  disk.device.assertClean();
  expect(pci.misuse).toEqual([]);
}

describe.each(ringVariants)('the block driver under pKVM: $name', ({ features: ring }) => {
  it('reads and writes in all three forms', async () => {
    const fixed = boot({ ring });
    const { blk, disk } = fixed;
    expect(blk.transport.name).toBe('PCI 0000:01:07.0');
    expect(blk.features.has('RING_PACKED')).toBe((ring & CommonFeatures.mask('RING_PACKED')) !== 0n);

    const data = pattern(8 * 512);
    blk.writeSync(3, data);
    expect(disk.bytes.subarray(3 * 512, 11 * 512)).toEqual(data);
    const back = new Uint8Array(8 * 512);
    blk.readSync(3, [back.subarray(0, 512), back.subarray(512)]);
    expect(back).toEqual(data);

    // 40 at once over two queues, ended by interrupts.
    const written = Array.from({ length: 40 }, (_, i) => pattern(512, i));
    await Promise.all(written.map((sector, i) => blk.write(100 + i, sector)));
    const read = written.map(() => new Uint8Array(512));
    await Promise.all(read.map((sector, i) => blk.read(100 + i, sector)));
    expect(read).toEqual(written);

    const tokens = new Map(
      [5, 6, 7].map((sector) => [blk.submitRead(sector, back.subarray(0, 512)), sector]),
    );
    while (tokens.size > 0) {
      const token = blk.poll();
      expect(tokens.delete(token)).toBe(true);
      blk.complete(token);
    }

    await blk.flush();
    await blk.discard({ sector: 100, sectors: 8 });
    await blk.writeZeroes({ sector: 200, sectors: 8 });
    expect(await blk.deviceId()).toBe('fake-disk');
    blk[Symbol.dispose]();
    assertClean(fixed);
  });
});

describe('the block driver under pKVM', () => {
  it('reaches the device by hypercalls alone, at the width of each register [4.1.3.1]', () => {
    const { hypervisor, bus, disk, lines } = machine();
    hypervisor.recording = true;
    const root = new PciRoot(new HypCam(hypervisor, ECAM, 'ecam'));
    const before = hypervisor.count;
    const [found] = [...root.virtioDevices()];
    expect(hypervisor.count).toBeGreaterThan(before);
    if (!found) throw new Error('there is no disk');
    const blk = new VirtioBlk(new HypPciTransport(hypervisor, root.access, found[0], lines), disk.device.hal);
    const bar = bus.find(1, 7, 0)?.bars.find(({ kind }) => kind === 'memory64');
    const address = bar?.address ?? 0;
    expect(address).toBeGreaterThan(2 ** 32);
    const registers = hypervisor.calls.filter(
      (call) => call.address >= address && call.address < address + 64,
    );
    for (const { address: at, size } of registers) {
      // 8 bits: status and generation; 16: MSI-X to status, then queue_select up to the addresses; 32: features, addresses.
      const offset = at - address;
      expect(size, `offset ${offset}`).toBe(
        offset === 20 || offset === 21 ? 1 : offset < 16 || offset >= 32 ? 4 : 2,
      );
    }
    expect(new Set(registers.map(({ call }) => call))).toEqual(
      new Set([Hypercall.IO_READ, Hypercall.IO_WRITE]),
    );
    blk[Symbol.dispose]();
  });

  it('notifies with one hypercall a kick', () => {
    const { blk, hypervisor, pci } = boot({ ring: 0n });
    const notifications = pci.structures.find(({ type }) => type === 'notify');
    const [bar] = pci.bars.filter(({ index }) => index === notifications?.bar);
    hypervisor.recording = true;
    const sector = new Uint8Array(512);
    blk.submitRead(0, sector, { queue: 1 });
    expect(hypervisor.calls).toEqual([
      { call: 24, address: (bar?.address ?? 0) + (notifications?.offset ?? 0) + 4, size: 2, value: 1 },
    ]);
    hypervisor.calls.length = 0;
    blk.complete(blk.poll());
    expect(hypervisor.calls, 'and completes without any').toEqual([]);
  });

  it('hears of a changed capacity', async () => {
    const fixed = boot();
    const { blk, disk } = fixed;
    const heard: unknown[] = [];
    blk.on('capacity', (capacity) => heard.push(capacity));
    disk.device.changeConfig((config) => config.setBigUint64(0, 1024n, true));
    await Promise.resolve();
    await Promise.resolve();
    expect(heard).toEqual([1024]);
    expect(blk.capacity).toBe(1024);
    blk[Symbol.dispose]();
    assertClean(fixed);
  });

  it('comes back from a device that needs a reset', async () => {
    const fixed = boot();
    const { blk, disk } = fixed;
    disk.holdBack = true;
    const lost = blk.read(0, new Uint8Array(512));
    await Promise.resolve();
    disk.device.needsReset();
    await expect(lost).rejects.toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    disk.holdBack = false;
    disk.held.length = 0;
    blk.reset();
    const data = pattern(512);
    await blk.write(9, data);
    expect(disk.bytes.subarray(9 * 512, 10 * 512)).toEqual(data);
    blk[Symbol.dispose]();
    assertClean(fixed);
  });

  it('ends all requests when the device is unplugged', async () => {
    const { blk, disk, lines } = boot();
    disk.holdBack = true;
    const lost = [0, 1, 2].map((sector) => blk.read(sector, new Uint8Array(512)));
    await Promise.resolve();
    disk.device.remove();
    lines.remove();
    for (const request of lost) await expect(request).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
    await expect(blk.read(0, new Uint8Array(512))).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
    blk[Symbol.dispose]();
    disk.device.hal.assertClean();
  });

  it.each(['ones', 'zeros'] as const)(
    'finds by looking that the device was unplugged, where its registers then read as %s',
    async (silence) => {
      const looks: ((blk: VirtioBlk) => void)[] = [
        (blk) => blk.pollEvents(),
        (blk) =>
          expect(() => blk.readSync(0, new Uint8Array(512))).toThrow(
            expect.objectContaining({ code: 'DEVICE_REMOVED' }),
          ),
      ];
      for (const look of looks) {
        const { blk, bus, disk } = boot();
        bus.silentMemory = silence;
        disk.holdBack = true;
        const lost = [0, 1, 2].map((sector) => blk.read(sector, new Uint8Array(512)));
        await Promise.resolve();
        disk.device.remove();
        look(blk);
        expect(blk.failure?.code).toBe('DEVICE_REMOVED');
        for (const request of lost) await expect(request).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
        expect(() => blk.reset()).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
        blk[Symbol.dispose]();
        disk.device.hal.assertClean();
      }
    },
  );

  it('works by polling where no interrupts arrive', () => {
    const fixed = machine();
    const root = new PciRoot(new HypCam(fixed.hypervisor, ECAM, 'ecam'));
    const [found] = [...root.virtioDevices()];
    if (!found) throw new Error('there is no disk');
    const blk = new VirtioBlk(
      new HypPciTransport(fixed.hypervisor, root.access, found[0]),
      fixed.disk.device.hal,
    );
    const data = pattern(1024);
    blk.writeSync(0, data);
    blk.pollEvents();
    expect(fixed.disk.bytes.subarray(0, 1024)).toEqual(data);
    blk[Symbol.dispose]();
    assertClean(fixed);
  });

  it('works with INTx', async () => {
    const fixed = machine({ pci: {} });
    const lines = new InterruptLines(0);
    const pci = new FakePciDevice(fixed.disk.device, { vectors: 0, onIntx: () => lines.fire(0) });
    fixed.bus.add(9, 0, pci);
    fixed.bus.assign({ memory64: 0x12_0000_0000 });
    const root = new PciRoot(new HypCam(fixed.hypervisor, ECAM, 'ecam'));
    const found = [...root.bus(0)].find(([at]) => at.device === 9);
    if (!found) throw new Error('there is no disk');
    const blk = new VirtioBlk(
      new HypPciTransport(fixed.hypervisor, root.access, found[0], lines),
      fixed.disk.device.hal,
    );
    const data = pattern(512);
    await blk.write(7, data);
    expect(fixed.disk.bytes.subarray(7 * 512, 8 * 512)).toEqual(data);
    blk[Symbol.dispose]();
    fixed.disk.device.assertClean();
  });

  it('refuses what is no virtio device, and what lies', () => {
    const { hypervisor, pci } = machine({
      pci: {
        structures: (all) => all.map((one) => (one.type === 'common' ? { ...one, offset: 0x8000 } : one)),
      },
    });
    const access = new HypCam(hypervisor, ECAM, 'ecam');
    const root = new PciRoot(access);
    const [bridge] = [...root.functions()];
    const [disk] = [...root.virtioDevices()];
    expect(() => bridge && new HypPciTransport(hypervisor, access, bridge[0])).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
    expect(() => disk && new HypPciTransport(hypervisor, access, disk[0])).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
    expect(pci.misuse).toEqual([]);
  });

  it('is not there under another hypervisor', () => {
    const { hypervisor } = machine();
    hypervisor.signature = 'KVMK';
    expect(isPkvm(hypervisor)).toBe(false);
  });

  it('has windows of 8 bytes as well', () => {
    const { hypervisor, pci } = machine();
    const bar = pci.bars.find(({ index }) => index === 1);
    const region = new HypIoRegion(hypervisor, bar?.address ?? 0, 16);
    region.write64(0, 0x1234_5678_fee0_1000n);
    expect(region.read64(0)).toBe(0x1234_5678_fee0_1000n);
    expect(pci.msixEntry(0).address).toBe(0x1234_5678_fee0_1000);
  });
});

describe('the block driver by I/O ports', () => {
  /** A disk that prefers its ISR status in I/O space. */
  function withPorts() {
    const fixed = machine({
      pci: {
        header: {
          bars: {
            0: { kind: 'io', size: 64 },
            1: { kind: 'memory', size: 0x1_0000 },
            4: { kind: 'memory64', size: 0x4000 },
          },
        },
        structures: (all) => [{ type: 'isr', bar: 0, offset: 0x13, length: 1 }, ...all],
      },
    });
    const ports = new SoftwarePorts(fixed.bus);
    return { ...fixed, ports, root: new PciRoot(new PortCam(ports)) };
  }

  it('finds the disk, and drives it with BARs in memory', async () => {
    const fixed = withPorts();
    const { root, bus, disk, lines } = fixed;
    const found = [...root.virtioDevices()];
    expect(found.map(([at]) => String(at))).toEqual(['0000:01:07.0']);
    const space = { mapRegisters: (address: number, size: number) => bus.mapRegisters(address, size) };
    for (const [at] of found) {
      const blk = new VirtioBlk(PciTransport.open(root.access, at, space, lines), disk.device.hal);
      const data = pattern(2048);
      await blk.write(1, data);
      const back = new Uint8Array(2048);
      await blk.read(1, back);
      expect(back).toEqual(data);
      blk[Symbol.dispose]();
    }
    assertClean(fixed);
  });

  it('reaches structures in I/O space', () => {
    const { root, bus, ports, pci } = withPorts();
    const [found] = [...root.virtioDevices()];
    if (!found) throw new Error('there is no disk');
    const transport = PciTransport.open(root.access, found[0], {
      mapRegisters: (address, size) => bus.mapRegisters(address, size),
      mapPorts: (port, count) => new PortRegion(ports, port, count),
    });
    ports.recording = true;
    transport.ackInterrupt();
    expect(ports.ports).toEqual([(pci.bars.find(({ index }) => index === 0)?.address ?? 0) + 0x13]);
  });

  it('says that a function is missing', () => {
    const { root, bus } = withPorts();
    const [found] = [...root.virtioDevices()];
    const gone = found?.[0];
    const disk = bus.find(1, 7, 0) as FakePciDevice;
    disk.device.remove();
    const open = (): unknown => gone && PciTransport.open(root.access, gone, bus);
    expect(open).toThrow(VirtioError);
    expect(open).toThrow(expect.objectContaining({ code: 'NO_DEVICE' }));
  });
});
