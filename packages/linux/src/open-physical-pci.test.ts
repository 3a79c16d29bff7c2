import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VirtioBlk } from '@virtio/blk';
import { DeviceStatus, DeviceType, PollingInterrupts } from '@virtio/core';
import { CommonCfg, type PciTransport } from '@virtio/pci';
import { FakeDevice, FakeHal, FakePciDevice } from '@virtio/testing';
import { expectTypedEnd } from '../test/typed-end.ts';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { openPhysicalPci } from './open-physical-pci.ts';
import type { OpenOptions } from './open-options.ts';
import { describePciDevice, pciPath } from './pci-devices.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

const ADDRESS = '0000:01:00.0';
const FOLDER = pciPath(ADDRESS);
const PAGE = 4096;
const MEMORY = 0x200;
const UNSET = 0x20000000;
const SECTORS = 8;

let machine: FakeMachine;

beforeEach(() => {
  machine = new FakeMachine();
});
afterEach(() => {
  machine[Symbol.dispose]();
});

/** A function in sysfs whose configuration space and BARs are plain files: memory that keeps what was written to it. */
function plug({
  driver,
  vendor,
  start = 0xfe00_0000,
  flags = MEMORY,
}: { driver?: string; vendor?: string; start?: number; flags?: number } = {}) {
  const pci = new FakePciDevice(new FakeDevice({ type: DeviceType.Block, config: 8, queues: [8] }));
  const lines = Array.from({ length: 6 }, (_, index) => {
    const bar = pci.bars.find((candidate) => candidate.index === index);
    if (bar === undefined) return '0x0 0x0 0x0';
    const first = start + index * 0x10_0000;
    machine.tree({ [`${FOLDER}/resource${index}`]: new Uint8Array(bar.size + PAGE) });
    return `0x${first.toString(16)} 0x${(first + bar.size - 1).toString(16)} 0x${flags.toString(16)}`;
  });
  machine.pci(ADDRESS, {
    device: '0x1042',
    ...(driver !== undefined && { driver }),
    ...(vendor !== undefined && { vendor }),
  });
  machine.tree({ [`${FOLDER}/config`]: pci.bytes, [`${FOLDER}/resource`]: `${lines.join('\n')}\n` });
  const place = (type: string): { path: string; offset: number } => {
    const found = pci.structures.find((structure) => structure.type === type);
    if (found === undefined) throw new Error(type);
    return {
      path: join(machine.root, FOLDER, `resource${found.bar}`),
      offset: found.offset + (start % PAGE),
    };
  };
  const common = place('common');
  const isr = place('isr');
  const config = place('device');
  const write = (path: string, offset: number, ...bytes: number[]): void => {
    const fd = openSync(path, 'r+');
    writeSync(fd, Uint8Array.from(bytes), 0, bytes.length, offset);
    closeSync(fd);
  };
  return {
    get status(): number | undefined {
      return readFileSync(common.path)[common.offset + 20];
    },
    setIsr: (value: number): void => write(isr.path, isr.offset, value),
    /** Makes the registers those of a disk with one queue of 8. As they keep what was written, features are the same in each word. */
    initialize: (): void => {
      const at = (field: keyof typeof CommonCfg.offset, value: number): void =>
        write(common.path, common.offset + CommonCfg.offset[field], value);
      at('device_feature', 1);
      at('num_queues', 1);
      at('queue_size', 8);
      write(config.path, config.offset, SECTORS);
    },
    /** As the kernel's files read once the function is gone. */
    unplug: (): void => write(join(machine.root, FOLDER, 'config'), 0, 0xff, 0xff, 0xff, 0xff),
  };
}

function open(options: OpenOptions = {}): PciTransport {
  const files = new SystemFiles(machine.root);
  return openPhysicalPci(files, describePciDevice(files, ADDRESS), options);
}

const LIVE = DeviceStatus.from(DeviceStatus.DRIVER | DeviceStatus.DRIVER_OK);

describe('a PCI device with physical addresses', () => {
  it('has its registers in the BARs that sysfs maps', () => {
    const device = plug();
    using transport = open();
    transport.setStatus(LIVE);
    expect(device.status).toBe(LIVE.bits);
    expect(transport.getStatus()).toBe(LIVE);
    expect(transport.isGone()).toBe(false);
  });

  it('is not taken from its driver if it is not virtio: the address may be wrong', () => {
    plug({ driver: 'nvme', vendor: '0x8086' });
    expect(() => open({ takeOver: true })).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE', reason: 'WRONG_VENDOR_ID' }),
    );
  });

  it('is opened once at a time, by whatever process: another driver would reset it', () => {
    const device = plug();
    {
      using transport = open();
      transport.setStatus(LIVE);
      expect(() => open()).toThrow(expect.objectContaining({ code: 'DEVICE_BUSY' }));
      expect(device.status).toBe(LIVE.bits);
      expect(transport.isGone()).toBe(false);
    }
    using again = open();
    expect(again.isGone()).toBe(false);
  });

  it('may have BARs that start within a page', () => {
    const device = plug({ start: 0xfe00_0400 });
    using transport = open();
    transport.setStatus(LIVE);
    expect(device.status).toBe(LIVE.bits);
  });

  it('is refused if the kernel had no addresses for its BARs', () => {
    plug({ flags: MEMORY | UNSET });
    expect(() => open()).toThrow(expect.objectContaining({ code: 'NOT_READY' }));
  });

  it('is stopped and left alone when it is unplugged, also while nobody waits', async () => {
    const device = plug();
    using transport = open({ interrupts: 'polling' });
    transport.setStatus(LIVE);
    const removed = new Promise<void>((resolve) => transport.interrupts?.onRemoval(resolve));
    // Only an event loop with something to do looks: the watch does not keep a process alive.
    const alive = setInterval(() => undefined, 1000);
    device.unplug();
    await removed;
    clearInterval(alive);
    expect(device.status, 'it was reset, in case that it is still in its slot').toBe(0);
    for (const look of [
      () => transport.checkAlive(),
      () => transport.reset(),
      () => transport.maxQueueSize(0),
    ]) {
      expect(look).toThrow(expect.objectContaining({ code: 'DEVICE_REMOVED' }));
    }
    transport.setStatus(LIVE);
    expect(device.status, 'its addresses may be of another device by now').toBe(0);
  });

  it('ends a driver that was not disposed before', async () => {
    const device = plug();
    device.initialize();
    const transport = open({ interrupts: 'polling' });
    const blk = new VirtioBlk(transport, new FakeHal());
    await expectTypedEnd(blk, () => transport[Symbol.dispose]());
    expect(device.status).toBe(0);
  });

  it('is no longer looked at once it is disposed', async () => {
    const device = plug();
    const transport = open({ interrupts: 'polling' });
    const removed = vi.fn<() => void>();
    transport.interrupts?.onRemoval(removed);
    transport[Symbol.dispose]();
    removed.mockClear();
    device.unplug();
    await sleep(700);
    expect(removed).not.toHaveBeenCalled();
  });
});

describe('interrupts through UIO', () => {
  /** A pipe takes the place of the UIO device: it has something to read for each interrupt, and ends with the device. */
  function uio() {
    const device = plug({ driver: 'uio_pci_generic' });
    machine.tree({ [`${FOLDER}/uio/uio0/name`]: 'uio_pci_generic\n', 'dev/null': '' });
    const path = join(machine.root, 'dev/uio0');
    expect(spawnSync('mkfifo', [path]).status).toBe(0);
    const transport = open({ interrupts: 'uio' });
    return { device, transport, pipe: openSync(path, 'w') };
  }

  it('reach the handler, and a spurious one disturbs nothing', async () => {
    const { device, transport, pipe } = uio();
    const queue = vi.fn<() => void>();
    transport.interrupts?.onQueue(0, queue);
    transport.interrupts?.hold();
    const interrupt = async (isr: number): Promise<void> => {
      device.setIsr(isr);
      writeSync(pipe, new Uint8Array(4));
      await sleep(50);
    };
    await interrupt(1);
    await interrupt(0);
    expect(queue).toHaveBeenCalledTimes(1);
    await interrupt(1);
    expect(queue).toHaveBeenCalledTimes(2);
    transport.interrupts?.release();
    transport[Symbol.dispose]();
    closeSync(pipe);
  });

  it('end a driver that was not disposed before', async () => {
    const { device, transport, pipe } = uio();
    device.initialize();
    const blk = new VirtioBlk(transport, new FakeHal());
    await expectTypedEnd(blk, () => transport[Symbol.dispose]());
    expect(device.status).toBe(0);
    closeSync(pipe);
  });

  it('tell of the removal at once: the kernel unbinds the driver first', async () => {
    const { device, transport, pipe } = uio();
    transport.setStatus(LIVE);
    const removed = vi.fn<() => void>();
    transport.interrupts?.onRemoval(removed);
    transport.interrupts?.hold();
    // It is still in its slot, so that the watch has nothing to see yet.
    closeSync(pipe);
    await vi.waitFor(() => expect(removed).toHaveBeenCalledOnce(), { interval: 5 });
    expect(device.status).toBe(0);
    expect(transport.isGone()).toBe(true);
    transport.interrupts?.release();
    device.unplug();
    await sleep(700);
    expect(removed, 'and not once more by the watch').toHaveBeenCalledOnce();
    transport[Symbol.dispose]();
  });
});

describe('a device without an interrupt line', () => {
  beforeEach(() => {
    plug({ driver: 'uio_pci_generic' });
    // Reading the start of this file gives EIO, as the kernel's UIO device does then.
    machine.tree({
      [`${FOLDER}/uio/uio0/name`]: 'uio_pci_generic\n',
      'dev/uio0': '-> /proc/self/mem',
      'sys/bus/pci/drivers/uio_pci_generic/bind': '',
    });
  });

  it('is polled, and not taken for unplugged', async () => {
    using transport = open();
    const removed = vi.fn<() => void>();
    transport.interrupts?.onRemoval(removed);
    transport.interrupts?.hold();
    await sleep(50);
    transport.interrupts?.release();
    expect(removed).not.toHaveBeenCalled();
    expect(transport.isGone()).toBe(false);
    expect(transport.interrupts).toBeInstanceOf(PollingInterrupts);
  });

  it('is refused if its interrupts were asked for', () => {
    expect(() => open({ interrupts: 'uio' })).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
    expect(() => open({ interrupts: 'uio' })).toThrow('no interrupt line');
  });
});
