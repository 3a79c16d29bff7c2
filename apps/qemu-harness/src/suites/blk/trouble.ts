/** When something goes wrong or changes: errors, resizing, resets, removal; and how the driver waits. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { VirtioBlk } from '@virtio/blk';
import { DeviceType, type VirtioError } from '@virtio/core';
import { listDevices } from '@virtio/linux';
import { disk, guestTest, onPci, pattern, type Cell, type GuestContext } from '../../framework/define.ts';
import { endings, KIB, MIB, openDisk, rejectsWith, sameBytes, SECTOR, throwsWith } from './_disk.ts';

const EIO = constants.errno.EIO;
const PCI_ONLY = 'only PCI devices interrupt a process here';

const physicalOnly = ({ transport }: Cell): string | undefined =>
  transport === 'pci-physical' ? undefined : 'only a PCI device without an IOMMU is reached in this way';

/** Looks for what interrupts would tell, where there are none. */
function lookWithoutInterrupts({ transport }: Cell, blk: VirtioBlk): Disposable {
  const timer = transport === 'pci-vfio' ? undefined : setInterval(() => blk.pollEvents(), 50);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * How 30 readers end, each of which reads on until it can no more: when a device goes, QEMU still ends what it has in flight.
 */
function readersOf(blk: VirtioBlk): Promise<string[]> {
  const readOn = async (sector: number): Promise<never> => {
    for (;;) await blk.read(sector, new Uint8Array(SECTOR));
  };
  return endings(Array.from({ length: 30 }, (_, n) => readOn(n)));
}

/** A module of the kernel, loaded until it is disposed. */
function loadModule(name: string): Disposable {
  execFileSync('modprobe', [name]);
  return { [Symbol.dispose]: () => void execFileSync('modprobe', ['-r', name]) };
}

const sysfsOf = (context: Pick<GuestContext, 'device'>): string => {
  const location = context.device('disk');
  if (location.kind !== 'pci') throw new Error('the disk is not on PCI');
  return `/sys/bus/pci/devices/${location.address}`;
};

/** QEMU makes one request of neighbours that it finds together, which then have one end. */
const APART = { 'request-merging': false };

export default [
  guestTest({
    device: 'blk',
    name: 'refuses bad requests before the device sees them, and goes on',
    devices: { disk: disk({ size: MIB, seed: 1 }) },
    async guest(context) {
      using blk = openDisk(context);
      const sector = new Uint8Array(SECTOR);
      for (const attempt of [
        () => blk.read(MIB / SECTOR, sector),
        () => blk.read(MIB / SECTOR - 1, new Uint8Array(2 * SECTOR)),
        () => blk.read(-1, sector),
        () => blk.read(0.5, sector),
        () => blk.read(2 ** 53, sector),
        () => blk.read(0, new Uint8Array(0)),
        () => blk.read(0, []),
        () => blk.read(0, new Uint8Array(511)),
        () => blk.write(MIB / SECTOR, sector),
        () => blk.write(0, [sector, new Uint8Array(0)]),
        () => blk.discard({ sector: MIB / SECTOR, sectors: 1 }),
      ]) {
        await rejectsWith('INVALID_PARAM', attempt());
      }
      throwsWith('WRONG_TOKEN', () => blk.complete(12345));
      await blk.read(7, sector);
      sameBytes(sector, pattern(new Uint8Array(SECTOR), 1, 7 * SECTOR), 'sector 7');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'reports injected I/O errors on the requests they hit and no other',
    devices: {
      disk: disk(
        {
          size: 4 * MIB,
          seed: 2,
          errors: [
            { request: 'read', sector: 1000, errno: EIO },
            { request: 'write', sector: 3000, errno: EIO },
          ],
        },
        APART,
      ),
    },
    async guest(context) {
      using blk = openDisk(context);
      const only = (count: number, index: number): string[] =>
        Array.from({ length: count }, (_, n) => (n === index ? 'IO_ERROR' : 'ok'));
      const reads = Array.from({ length: 64 }, (_, n) => blk.read(n * 32, new Uint8Array(32 * SECTOR)));
      deepEqual(await endings(reads), only(64, Math.floor(1000 / 32)));
      const writes = Array.from({ length: 32 }, (_, n) =>
        blk.write(2560 + n * 32, new Uint8Array(32 * SECTOR)),
      );
      deepEqual(await endings(writes), only(32, Math.floor((3000 - 2560) / 32)));
      throwsWith('IO_ERROR', () => blk.readSync(1000, new Uint8Array(SECTOR)));
      blk.readSync(999, new Uint8Array(SECTOR));
      const token = blk.submitRead(1000, new Uint8Array(SECTOR));
      while (blk.poll() !== token);
      throwsWith('IO_ERROR', () => blk.complete(token));
    },
  }),

  guestTest({
    device: 'blk',
    name: 'reports a flush that failed',
    devices: { disk: disk({ size: MIB, errors: [{ request: 'flush', errno: EIO }] }) },
    async guest(context) {
      using blk = openDisk(context);
      await blk.write(0, new Uint8Array(SECTOR));
      await rejectsWith('IO_ERROR', blk.flush());
      await blk.read(0, new Uint8Array(SECTOR));
    },
  }),

  guestTest({
    device: 'blk',
    name: 'learns that the disk was resized, from a configuration interrupt',
    devices: { disk: disk({ size: 4 * MIB, seed: 3 }) },
    host: {
      resize: (args: { size: number }, env) =>
        env.qmp('block_resize', { 'node-name': env.nodeName('disk'), size: args.size }),
    },
    async guest(context) {
      using blk = openDisk(context);
      for (const size of [8 * MIB, 2 * MIB]) {
        const { promise, resolve } = Promise.withResolvers<number>();
        const stop = blk.on('capacity', resolve);
        using _looking = lookWithoutInterrupts(context.cell, blk);
        await context.host('resize', { size });
        equal(await promise, size / SECTOR);
        stop();
        equal(blk.capacity, size / SECTOR);
        await blk.read(size / SECTOR - 1, new Uint8Array(SECTOR));
        await rejectsWith('INVALID_PARAM', blk.read(size / SECTOR, new Uint8Array(SECTOR)));
      }
    },
  }),

  guestTest({
    device: 'blk',
    name: 'sleeps while it waits for an interrupt, and spins when it is told to',
    long: true,
    devices: { disk: disk({ size: MIB, iops: 2 }) },
    skip: ({ transport }) => (transport === 'pci-vfio' ? undefined : PCI_ONLY),
    async guest(context) {
      using blk = openDisk(context);
      const data = new Uint8Array(SECTOR);
      const load = async (body: () => unknown): Promise<{ share: number; ms: number }> => {
        const began = performance.now();
        const cpu = process.cpuUsage();
        await body();
        const ms = performance.now() - began;
        const { user, system } = process.cpuUsage(cpu);
        return { share: (user + system) / 1000 / ms, ms };
      };
      // The device lets two requests a second pass.
      for (let n = 0; n < 2; n++) await blk.read(0, data);
      const asleep = await load(async () => {
        for (let n = 0; n < 4; n++) await blk.read(0, data);
      });
      const spinning = await load(() => {
        for (let n = 0; n < 4; n++) blk.readSync(0, data);
      });
      const percent = (share: number): string => `${Math.round(share * 100)} %`;
      context.note(`processor used: ${percent(asleep.share)} asleep, ${percent(spinning.share)} spinning`);
      ok(asleep.ms > 1000, `four requests took ${asleep.ms} ms: the device did not hold them back`);
      ok(asleep.share < 0.25, `${percent(asleep.share)} of a processor while waiting for interrupts`);
      ok(spinning.share > 0.5, `${percent(spinning.share)} of a processor while spinning`);
    },
  }),

  ...(['msix', 'intx', 'polling'] as const).map((interrupts) =>
    guestTest({
      device: 'blk',
      name: `keeps promises with interrupts by ${interrupts}`,
      devices: { disk: disk({ size: MIB, seed: 4 }) },
      skip: ({ transport }) => (transport === 'pci-vfio' ? undefined : PCI_ONLY),
      async guest(context) {
        using blk = openDisk(context, 'disk', { interrupts });
        const data = Array.from({ length: 64 }, () => new Uint8Array(4 * KIB));
        await Promise.all(data.map((bytes, n) => blk.read(n * 8, bytes)));
        sameBytes(Buffer.concat(data), pattern(new Uint8Array(256 * KIB), 4), 'the disk');
      },
    }),
  ),

  guestTest({
    device: 'blk',
    name: 'is reset with requests in flight, which reject, and works again',
    long: true,
    devices: { disk: disk({ size: MIB, seed: 5, iops: 2 }, APART) },
    async guest(context) {
      using blk = openDisk(context);
      const ends = endings(Array.from({ length: 8 }, (_, n) => blk.read(n, new Uint8Array(SECTOR))));
      await delay(100);
      blk.reset();
      const codes = await ends;
      const lost = codes.filter((code) => code === 'DEVICE_RESET').length;
      ok(lost >= 4 && codes.every((code) => code === 'ok' || code === 'DEVICE_RESET'), codes.join());
      const data = new Uint8Array(SECTOR);
      await blk.read(9, data);
      sameBytes(data, pattern(new Uint8Array(SECTOR), 5, 9 * SECTOR), 'sector 9 after the reset');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'is unplugged with requests in flight, which reject, and is let go',
    devices: { disk: { ...disk({ size: MIB, iops: 1 }, APART), hotplug: true } },
    skip: (cell) => (onPci(cell) ? undefined : 'MMIO has no hot-unplug'),
    timeoutS: 90,
    host: {
      unplug: (_args: null, env) => env.qmp('device_del', { id: env.deviceId('disk') }),
      gone: (_args: null, env) => env.qmpEvent('DEVICE_DELETED', 60_000),
    },
    async guest(context) {
      const gone = context.host('gone', null);
      {
        using blk = openDisk(context);
        const failure = new Promise<VirtioError>((resolve) => blk.on('failure', resolve));
        const ends = readersOf(blk);
        await delay(100);
        await context.host('unplug', null);
        equal((await failure).code, 'DEVICE_REMOVED');
        deepEqual(new Set(await ends), new Set(['DEVICE_REMOVED']));
        await rejectsWith('DEVICE_REMOVED', blk.read(0, new Uint8Array(SECTOR)));
      }
      await gone;
    },
  }),

  guestTest({
    device: 'blk',
    name: 'is removed by the kernel with requests in flight, which reject, and is found again',
    long: true,
    devices: { disk: disk({ size: MIB, seed: 6, iops: 10 }, APART) },
    skip: physicalOnly,
    async guest(context) {
      const path = sysfsOf(context);
      {
        using blk = openDisk(context, 'disk', { interrupts: 'polling' });
        const failure = new Promise<VirtioError>((resolve) => blk.on('failure', resolve));
        const ends = readersOf(blk);
        await delay(100);
        const began = performance.now();
        writeFileSync(`${path}/remove`, '1');
        ok(!existsSync(path), 'the kernel still has the device');
        equal((await failure).code, 'DEVICE_REMOVED');
        deepEqual(new Set(await ends), new Set(['DEVICE_REMOVED']));
        const ms = Math.round(performance.now() - began);
        context.note(`noticed after ${ms} ms`);
        ok(ms < 5000, `the last request rejected after ${ms} ms`);
        await rejectsWith('DEVICE_REMOVED', blk.read(0, new Uint8Array(SECTOR)));
        throwsWith('DEVICE_REMOVED', () => blk.readSync(0, new Uint8Array(SECTOR)));
      }
      writeFileSync('/sys/bus/pci/rescan', '1');
      const found = listDevices().find((device) => device.kind === 'pci' && path.endsWith(device.address));
      equal(found?.deviceType, DeviceType.Block);
      using blk = openDisk(context);
      const data = new Uint8Array(SECTOR);
      await blk.read(11, data);
      sameBytes(
        data,
        pattern(new Uint8Array(SECTOR), 6, 11 * SECTOR),
        'sector 11 of the device that was found again',
      );
    },
  }),

  guestTest({
    device: 'blk',
    name: 'keeps promises with interrupts by uio, until it is unplugged, which it notices',
    long: true,
    devices: { disk: { ...disk({ size: MIB, seed: 7, iops: 10 }, APART), hotplug: true } },
    skip: physicalOnly,
    timeoutS: 90,
    host: {
      unplug: (_args: null, env) => env.qmp('device_del', { id: env.deviceId('disk') }),
      gone: (_args: null, env) => env.qmpEvent('DEVICE_DELETED', 60_000),
    },
    async guest(context) {
      using _module = loadModule('uio_pci_generic');
      const gone = context.host('gone', null);
      {
        using blk = openDisk(context, 'disk', { interrupts: 'uio' });
        const interrupts = (): number => Number(readFileSync(`${sysfsOf(context)}/uio/uio0/event`, 'utf8'));
        const before = interrupts();
        // The device lets ten requests a second pass: an answer is never there yet when the driver first looks.
        const count = 20;
        for (let n = 0; n < count; n++) {
          const data = new Uint8Array(SECTOR);
          await blk.read(n, data);
          sameBytes(data, pattern(new Uint8Array(SECTOR), 7, n * SECTOR), `sector ${n}`);
        }
        const came = interrupts() - before;
        context.note(`${came} interrupts for ${count} requests`);
        ok(came >= count, `${came} interrupts for ${count} requests`);

        const failure = new Promise<VirtioError>((resolve) => blk.on('failure', resolve));
        const ends = readersOf(blk);
        await delay(100);
        await context.host('unplug', null);
        equal((await failure).code, 'DEVICE_REMOVED');
        deepEqual(new Set(await ends), new Set(['DEVICE_REMOVED']));
        await rejectsWith('DEVICE_REMOVED', blk.read(0, new Uint8Array(SECTOR)));
      }
      await gone;
    },
  }),
];
