/** Reading and writing: what one side writes, the other finds. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { createHash, randomFillSync } from 'node:crypto';
import { disk, guestTest, pattern, type HostEnv } from '../../framework/define.ts';
import { expectRing } from '../_open.ts';
import { hashRead, hashWritten, KIB, MIB, openDisk, sameBytes, SECTOR } from './_disk.ts';

const LARGE = 64 * MIB;
/** More sectors than a 32-bit number counts, and no multiple of that. */
const HUGE = 6 * 2 ** 40 + 64 * MIB;

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const host = {
  hash: (args: { from: number; length: number }, env: HostEnv) =>
    env.hashImage('disk', args.from, args.length),
};

export default [
  guestTest({
    device: 'blk',
    name: 'reads, in all three forms, what the host wrote',
    devices: { disk: disk({ size: 4 * MIB, seed: 1 }) },
    async guest(context) {
      using blk = openDisk(context);
      expectRing(blk.features, context.cell);
      equal(blk.capacity, (4 * MIB) / SECTOR);
      const expected = pattern(new Uint8Array(4 * MIB), 1);
      const actual = new Uint8Array(4 * MIB);
      const part = (n: number): Uint8Array => actual.subarray(n * 256 * KIB, (n + 1) * 256 * KIB);
      for (let n = 0; n < 16; n += 3) await blk.read(n * 512, part(n));
      for (let n = 1; n < 16; n += 3) blk.readSync(n * 512, part(n));
      for (let n = 2; n < 16; n += 3) {
        const token = blk.submitRead(n * 512, part(n));
        let done: number;
        do done = blk.poll();
        while (done < 0);
        equal(done, token);
        blk.complete(token);
      }
      sameBytes(actual, expected, 'the disk');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'writes, in all three forms, what the host then finds in the image file',
    essential: true,
    devices: { disk: disk({ size: MIB }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      const data = pattern(new Uint8Array(96 * KIB), 2);
      await blk.write(0, data.subarray(0, 32 * KIB));
      blk.writeSync(64, data.subarray(32 * KIB, 64 * KIB));
      const token = blk.submitWrite(128, data.subarray(64 * KIB));
      while (blk.poll() !== token);
      blk.complete(token);
      await blk.flush();
      blk.flushSync();
      equal(await context.host('hash', { from: 0, length: 96 * KIB }), sha256(data));
    },
  }),

  guestTest({
    device: 'blk',
    name: 'writes 64 MiB of random data with 32 requests in flight; the image has the same hash',
    long: true,
    devices: { disk: disk({ size: LARGE }) },
    timeoutS: 180,
    host,
    async guest(context) {
      using blk = openDisk(context);
      const start = performance.now();
      const written = await hashWritten(blk, LARGE, (chunk) => void randomFillSync(chunk));
      await blk.flush();
      context.note(
        `${(LARGE / MIB / ((performance.now() - start) / 1000)).toFixed(1)} MiB/s, hashing included`,
      );
      equal(blk.hal.bounced, 0);
      equal(await context.host('hash', { from: 0, length: LARGE }), written);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'reads 64 MiB that the host wrote with 32 requests in flight; the hash is the same',
    long: true,
    devices: { disk: disk({ size: LARGE, seed: 3 }) },
    timeoutS: 180,
    host,
    async guest(context) {
      using blk = openDisk(context);
      const start = performance.now();
      const read = await hashRead(blk, LARGE);
      context.note(
        `${(LARGE / MIB / ((performance.now() - start) / 1000)).toFixed(1)} MiB/s, hashing included`,
      );
      equal(await context.host('hash', { from: 0, length: LARGE }), read);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'writes and reads a qcow2 image',
    long: true,
    devices: { disk: disk({ size: 8 * MIB, format: 'qcow2', seed: 4 }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      equal(await context.host('hash', { from: 0, length: 8 * MIB }), await hashRead(blk, 8 * MIB));
      const written = await hashWritten(blk, 2 * MIB, (chunk, position) => void pattern(chunk, 5, position));
      await blk.flush();
      equal(await context.host('hash', { from: 0, length: 2 * MIB }), written);
      equal(await hashRead(blk, 2 * MIB), written);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'scatters and gathers: many buffers of odd places and sizes in one request',
    devices: { disk: disk({ size: MIB }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      using dma = blk.hal.alloc(16 * KIB);
      const whole = pattern(new Uint8Array(24 * KIB), 6);
      // Ordinary memory at odd offsets, and parts of DMA memory between them.
      const sizes = [512, 3, 1021, 4096, 1, 511, 8192, 7, 2041, 8192];
      const odd = new Uint8Array(32 * KIB);
      let taken = 0;
      let position = 0;
      const cut = sizes.map((size, index) => {
        const memory = index % 3 === 1 ? dma.bytes : odd;
        const buffer = memory.subarray(taken + index, taken + index + size);
        buffer.set(whole.subarray(position, position + size));
        taken = (taken + size) % (7 * KIB);
        position += size;
        return buffer.slice();
      });
      equal(position % SECTOR, 0, `${position} bytes`);
      await blk.write(8, cut);
      const back = cut.map((buffer) => new Uint8Array(buffer.length));
      await blk.read(8, back);
      deepEqual(back, cut);
      await blk.flush();
      equal(await context.host('hash', { from: 8 * SECTOR, length: position }), sha256(Buffer.concat(cut)));
    },
  }),

  guestTest({
    device: 'blk',
    name: 'keeps 300 small requests in flight apart, in DMA memory and in ordinary memory',
    devices: { disk: disk({ size: 4 * MIB, seed: 7 }) },
    async guest(context) {
      using blk = openDisk(context);
      using dma = blk.hal.alloc(300 * SECTOR);
      const sectors = Array.from({ length: 300 }, (_, n) => (n * 7919) % ((4 * MIB) / SECTOR));
      const buffers = sectors.map((_, n) =>
        n % 2 === 0 ? dma.bytes.subarray(n * SECTOR, (n + 1) * SECTOR) : new Uint8Array(SECTOR),
      );
      await Promise.all(sectors.map((sector, n) => blk.read(sector, buffers[n] ?? [])));
      for (const [n, sector] of sectors.entries()) {
        sameBytes(
          buffers[n] ?? new Uint8Array(),
          pattern(new Uint8Array(SECTOR), 7, sector * SECTOR),
          `sector ${sector}`,
        );
      }
      equal(blk.hal.bounced, 0);
    },
  }),

  guestTest({
    device: 'blk',
    name: 'reaches sectors beyond 2^32',
    devices: { disk: disk({ size: HUGE, format: 'qcow2' }) },
    host,
    async guest(context) {
      using blk = openDisk(context);
      equal(blk.capacity, HUGE / SECTOR);
      ok(blk.capacity > 2 ** 32);
      const data = pattern(new Uint8Array(4 * KIB), 8);
      await blk.write(blk.capacity - 8, data);
      await blk.write(2 ** 32 - 4, data);
      const back = new Uint8Array(4 * KIB);
      await blk.read(blk.capacity - 8, back);
      sameBytes(back, data, 'the last sectors');
      await blk.read(2 ** 32 - 4, back);
      sameBytes(back, data, 'the sectors around 2^32');
      await blk.read((blk.capacity % 2 ** 32) - 8, back);
      sameBytes(back, new Uint8Array(4 * KIB), 'where a 32-bit number would have led');
    },
  }),

  guestTest({
    device: 'blk',
    name: 'drives two disks with one Hal',
    devices: { disk: disk({ size: MIB, seed: 9 }), other: disk({ size: MIB }) },
    host: {
      hash: (args: { disk: string }, env) => env.hashImage(args.disk, 0, MIB),
    },
    async guest(context) {
      using first = openDisk(context, 'disk');
      using second = openDisk(context, 'other', { hal: first.hal });
      using buffer = first.hal.alloc(MIB);
      await first.read(0, buffer.bytes);
      await second.write(0, buffer.bytes);
      await second.flush();
      equal(await context.host('hash', { disk: 'other' }), await context.host('hash', { disk: 'disk' }));
    },
  }),
];
