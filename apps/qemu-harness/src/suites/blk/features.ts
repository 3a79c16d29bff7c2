/** What a disk may offer beyond reading and writing. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { disk, guestTest, pattern, type HostEnv, type ImageExtent } from '../../framework/define.ts';
import { isLegacy } from '../_open.ts';
import { hashWritten, KIB, MIB, openDisk, rejectsWith, sameBytes, SECTOR, throwsWith } from './_disk.ts';

/** Bytes of a range that the image does not hold data for. */
function emptyBytes(extents: readonly ImageExtent[], from: number, length: number): number {
  return extents
    .filter(({ data }) => !data)
    .map((extent) => Math.min(extent.start + extent.length, from + length) - Math.max(extent.start, from))
    .reduce((sum, bytes) => sum + Math.max(0, bytes), 0);
}

const host = {
  empty: async (args: { from: number; length: number }, env: HostEnv) =>
    emptyBytes(await env.mapImage('disk'), args.from, args.length),
  hash: (args: { from: number; length: number }, env: HostEnv) =>
    env.hashImage('disk', args.from, args.length),
};

const MODERN_ONLY = 'legacy devices do not have it';

export default [
  guestTest({
    device: 'blk',
    name: 'refuses to write a read-only disk before the device sees it, and reads it',
    devices: { disk: disk({ size: MIB, seed: 1, readOnly: true }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      equal(blk.readOnly, true);
      ok(blk.features.has('RO'));
      const before = await context.host('hash', { from: 0, length: MIB });
      const data = new Uint8Array(SECTOR);
      await rejectsWith('INVALID_PARAM', blk.write(0, data));
      throwsWith('INVALID_PARAM', () => blk.writeSync(0, data));
      throwsWith('INVALID_PARAM', () => blk.submitWrite(0, data));
      await rejectsWith('INVALID_PARAM', blk.discard({ sector: 0, sectors: 1 }));
      await rejectsWith('INVALID_PARAM', blk.writeZeroes({ sector: 0, sectors: 1 }));
      await blk.read(3, data);
      sameBytes(data, pattern(new Uint8Array(SECTOR), 1, 3 * SECTOR), 'sector 3');
      equal(await context.host('hash', { from: 0, length: MIB }), before);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'discards: the image gives the space back',
    devices: { disk: disk({ size: 16 * MIB, format: 'qcow2', seed: 2 }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      ok(blk.features.has('DISCARD'));
      equal(await context.host('empty', { from: 0, length: 16 * MIB }), 0);
      await blk.discard({ sector: (2 * MIB) / SECTOR, sectors: (4 * MIB) / SECTOR });
      await blk.flush();
      equal(await context.host('empty', { from: 2 * MIB, length: 4 * MIB }), 4 * MIB);
      equal(await context.host('empty', { from: 0, length: 16 * MIB }), 4 * MIB);
      const after = new Uint8Array(KIB);
      await blk.read((6 * MIB) / SECTOR, after);
      sameBytes(after, pattern(new Uint8Array(KIB), 2, 6 * MIB), 'what follows');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'writes zeroes, with and without giving the space back',
    devices: { disk: disk({ size: 16 * MIB, format: 'qcow2', seed: 3 }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      ok(blk.features.has('WRITE_ZEROES'));
      equal(blk.config.writeZeroes?.mayUnmap, true);
      await blk.writeZeroes({ sector: MIB / SECTOR, sectors: MIB / SECTOR });
      await blk.writeZeroes({ sector: (4 * MIB) / SECTOR, sectors: (2 * MIB) / SECTOR }, { unmap: true });
      await blk.flush();
      equal(await context.host('empty', { from: 4 * MIB, length: 2 * MIB }), 2 * MIB);
      const data = new Uint8Array(64 * KIB);
      for (const sector of [MIB, 2 * MIB - 64 * KIB, 4 * MIB, 6 * MIB - 64 * KIB].map(
        (byte) => byte / SECTOR,
      )) {
        await blk.read(sector, data.fill(1));
        ok(
          data.every((byte) => byte === 0),
          `sector ${sector} is not zero`,
        );
      }
      for (const byte of [MIB - 64 * KIB, 2 * MIB, 4 * MIB - 64 * KIB, 6 * MIB]) {
        await blk.read(byte / SECTOR, data);
        sameBytes(data, pattern(new Uint8Array(64 * KIB), 3, byte), `the bytes at ${byte}`);
      }
    },
  }),

  guestTest({
    device: 'blk',
    name: 'works on a disk with blocks of 4096 bytes',
    devices: {
      disk: disk({ size: 8 * MIB }, { logical_block_size: 4096, physical_block_size: 4096 }),
    },
    host,
    async guest(context) {
      using blk = openDisk(context);
      equal(blk.blockSize, 4096);
      equal(blk.capacity, (8 * MIB) / SECTOR);
      const written = await hashWritten(blk, MIB, (chunk, position) => void pattern(chunk, 4, position));
      await blk.flush();
      equal(await context.host('hash', { from: 0, length: MIB }), written);
      // Less than a block: the device refuses, and only this request.
      const [small, whole] = await Promise.allSettled([
        blk.read(1, new Uint8Array(SECTOR)),
        blk.read(8, new Uint8Array(4096)),
      ]);
      equal(small.status, 'rejected');
      equal(whole.status, 'fulfilled');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'tells the topology, the geometry and the limits that QEMU was given',
    devices: {
      disk: disk(
        { size: 64 * MIB },
        {
          physical_block_size: 4096,
          min_io_size: 8192,
          opt_io_size: 65536,
          cyls: 130,
          heads: 16,
          secs: 63,
          'seg-max-adjust': false,
          'max-discard-sectors': 4096,
          discard_granularity: 4096,
        },
      ),
    },
    guest(context) {
      using blk = openDisk(context);
      const { config, blockSize } = blk;
      equal(blockSize, 512);
      deepEqual(config.geometry, { cylinders: 130, heads: 16, sectors: 63 });
      deepEqual(config.topology, { physicalBlockExp: 3, alignmentOffset: 0, minIoSize: 16, optIoSize: 128 });
      equal(config.segMax, 126);
      equal(config.discard?.maxSectors, 4096);
      equal(config.discard.alignment, 8);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'discards more than one request may hold, in several segments',
    devices: { disk: disk({ size: 16 * MIB, format: 'qcow2', seed: 5 }, { 'max-discard-sectors': 2048 }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      const { maxSectors = 0, maxSegments = 0 } = blk.config.discard ?? {};
      equal(maxSectors, 2048);
      if (maxSegments > 1) {
        const ranges = Array.from({ length: Math.min(4, maxSegments) }, (_, n) => ({
          sector: n * 4096,
          sectors: 2048,
        }));
        await blk.discard(ranges);
        await blk.flush();
        equal(await context.host('empty', { from: 0, length: 16 * MIB }), ranges.length * MIB);
        return;
      }
      // A device with one segment: what is too long for it is refused here, and the rest is the caller's to ask for.
      await rejectsWith('INVALID_PARAM', blk.discard({ sector: 0, sectors: 4096 }));
      await Promise.all([0, 2048].map((sector) => blk.discard({ sector, sectors: 2048 })));
      await blk.flush();
      equal(await context.host('empty', { from: 0, length: 16 * MIB }), 2 * MIB);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'uses four queues, each by name and all in turn',
    devices: { disk: disk({ size: 8 * MIB, seed: 6 }, { 'num-queues': 4 }) },
    async guest(context) {
      using blk = openDisk(context);
      equal(blk.config.numQueues, 4);
      equal(blk.queueCount, 4);
      const check = async (sector: number, queue?: number): Promise<void> => {
        const data = new Uint8Array(4 * KIB);
        await blk.read(sector, data, queue === undefined ? {} : { queue });
        sameBytes(data, pattern(new Uint8Array(4 * KIB), 6, sector * SECTOR), `sector ${sector}`);
      };
      for (let queue = 0; queue < 4; queue++) await check(queue * 100, queue);
      await Promise.all(Array.from({ length: 400 }, (_, n) => check(n * 8)));
      throwsWith('INVALID_PARAM', () => blk.readSync(0, new Uint8Array(SECTOR), { queue: 4 }));
    },
  }),

  guestTest({
    device: 'blk',
    name: 'asks the device for its id',
    devices: { disk: disk({ size: MIB }, { serial: 'TS-4711 guest disk' }) },
    async guest(context) {
      using blk = openDisk(context);
      equal(await blk.deviceId(), 'TS-4711 guest disk');
      equal(blk.deviceIdSync(), 'TS-4711 guest disk');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'switches the write cache, and QEMU knows it',
    devices: { disk: disk({ size: MIB }, { 'write-cache': 'on' }) },
    skip: (cell) => (isLegacy(cell) ? MODERN_ONLY : undefined),
    host: {
      async cache(_args: null, env) {
        const all = (await env.qmp('query-block')) as {
          qdev?: string;
          inserted?: { cache: { writeback: boolean } };
        }[];
        const id = env.deviceId('disk');
        return all.find(({ qdev = '' }) => qdev.split('/').includes(id))?.inserted?.cache.writeback ?? null;
      },
    },
    async guest(context) {
      using blk = openDisk(context);
      ok(blk.features.has('CONFIG_WCE'));
      equal(blk.writeCache(), 'writeback');
      equal(await context.host('cache', null), true);
      blk.setWriteCache('writethrough');
      equal(blk.writeCache(), 'writethrough');
      equal(await context.host('cache', null), false);
      await blk.write(0, new Uint8Array(SECTOR));
      blk.setWriteCache('writeback');
      equal(await context.host('cache', null), true);
    },
  }),
];
