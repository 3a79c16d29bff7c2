/** What concerns a queue as a whole: resetting one of several, and a device that gives up on its driver. */
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { DeviceType, Driver, FeatureTable, type RequestQueue, VirtioError } from '@virtio/core';
import type { SomeTransport } from '@virtio/linux';
import { disk, guestTest, onPci, pattern } from '../../framework/define.ts';
import { open } from '../_open.ts';
import { endings, KIB, MIB, openDisk, sameBytes, SECTOR } from './_disk.ts';

const NO_RING_RESET = "QEMU's MMIO transport cannot reset one queue";

/** An address that no memory is mapped at for the device. */
const NOWHERE = 0x7ff0_0000;

/** A driver that tells its device to read a request where there is nothing. */
class Careless extends Driver<never> {
  readonly #requests: RequestQueue;

  constructor({ transport, hal }: SomeTransport) {
    super(transport, hal, {
      deviceType: DeviceType.Block,
      table: new FeatureTable('Features', {}),
      supported: [],
    });
    this.#requests = this.setUp(() => this.createRequestQueue({ index: 0 }));
    this.start();
  }

  async ask(): Promise<void> {
    await this.#requests.request({
      buffers: 1,
      fill: () => this.#requests.queue.pushReadable(NOWHERE, 16),
      result: () => undefined,
    });
  }
}

export default [
  guestTest({
    device: 'blk',
    name: 'resets a queue at rest, time after time',
    devices: { disk: disk({ size: MIB, seed: 33 }, { 'num-queues': 2 }) },
    skip: (cell) => (onPci(cell) ? undefined : NO_RING_RESET),
    async guest(context) {
      using blk = openDisk(context);
      ok(blk.features.has('RING_RESET'));
      const data = new Uint8Array(4 * KIB);
      for (let round = 0; round < 20; round += 1) {
        const queue = round % 2;
        for (let n = 0; n < round; n += 1) {
          await blk.read(n * 8, data.fill(0), { queue });
          sameBytes(data, pattern(new Uint8Array(4 * KIB), 33, n * 4 * KIB), `round ${round}, block ${n}`);
        }
        blk.resetQueue(queue);
      }
    },
  }),

  guestTest({
    device: 'blk',
    name: 'resets one queue under load while the other goes on',
    devices: { disk: disk({ size: 4 * MIB, seed: 31 }, { 'num-queues': 2 }) },
    skip: (cell) => {
      if (!onPci(cell)) return NO_RING_RESET;
      return cell.ring.properties.in_order === true
        ? 'QEMU 10.0 uses no more buffers of a ring in order that was reset with requests in flight; reset at rest, it does'
        : undefined;
    },
    async guest(context) {
      using blk = openDisk(context);
      ok(blk.features.has('RING_RESET'));
      const piece = 4 * KIB;
      for (let round = 0; round < 10; round += 1) {
        const reads = (queue: number): { data: Uint8Array[]; ends: Promise<string[]> } => {
          const data = Array.from({ length: 60 }, () => new Uint8Array(piece));
          const all = data.map((bytes, n) => blk.read((n * piece) / SECTOR, bytes, { queue }));
          return { data, ends: endings(all) };
        };
        const first = reads(0);
        const second = reads(1);
        // Everything is submitted, and some of it done.
        await blk.read(0, new Uint8Array(SECTOR), { queue: round % 2 });
        blk.resetQueue(0);
        const lost = await first.ends;
        ok(
          lost.every((end) => end === 'ok' || end === 'DEVICE_RESET'),
          lost.join(),
        );
        deepEqual(new Set(await second.ends), new Set(['ok']));
        sameBytes(
          Buffer.concat(second.data),
          pattern(new Uint8Array(60 * piece), 31),
          'read by the other queue',
        );
        const again = reads(0);
        deepEqual(new Set(await again.ends), new Set(['ok']));
        sameBytes(Buffer.concat(again.data), pattern(new Uint8Array(60 * piece), 31), 'read after the reset');
      }
    },
  }),

  guestTest({
    device: 'blk',
    name: 'hears from QEMU that the device needs a reset, and brings it back',
    devices: { disk: disk({ size: MIB, seed: 32 }) },
    skip: ({ transport }) =>
      transport === 'pci-vfio'
        ? undefined
        : 'only an IOMMU keeps a device from an address that nobody gave it',
    async guest(context) {
      {
        using device = open(context, 'disk');
        using driver = new Careless(device);
        const failures: string[] = [];
        driver.on('failure', ({ code }) => failures.push(code));
        for (let round = 1; round <= 2; round += 1) {
          await rejects(driver.ask(), (error) => VirtioError.is(error, 'DEVICE_NEEDS_RESET'));
          equal(failures.length, round);
          driver.reset();
        }
      }
      using blk = openDisk(context);
      const data = new Uint8Array(SECTOR);
      await blk.read(3, data);
      sameBytes(data, pattern(new Uint8Array(SECTOR), 32, 3 * SECTOR), 'sector 3');
    },
  }),
];
