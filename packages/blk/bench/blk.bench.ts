/**
 * What one read of 4 KiB costs in the driver, in each of its three forms. The device is next to nothing: it writes the statuses
 * and moves the used index, so that what is measured is the driver and its queue.
 */
import { CommonFeatures, type Hal } from '@virtio/core';
import { measureAll, printMeasurements } from '@virtio/checks/measure';
import { type FakeDevice, FakeHal, FakeInterrupts, FakeTransport } from '@virtio/testing';
import { FakeDisk } from '../examples/fake-disk.ts';
import { VirtioBlk } from '../src/index.ts';

const SIZE = 4096;
const DEPTH = 32;
const BATCHES = 1000;

/** Buffers in one DMA region, shared without a record. */
class BenchHal extends FakeHal {
  readonly #region = this.dmaAlloc((DEPTH * SIZE) / 4096, 'both', false);
  readonly #offset = this.#region.address - this.#region.bytes.byteOffset;
  readonly buffers = Array.from({ length: DEPTH }, (_, n) =>
    this.#region.bytes.subarray(n * SIZE, (n + 1) * SIZE),
  );

  override share(buffer: Uint8Array): number {
    return this.#offset + buffer.byteOffset;
  }

  override unshare(): void {
    return;
  }
}

/** Hands the driver's handler to the device. */
class BenchInterrupts extends FakeInterrupts {
  handler: () => void = () => undefined;

  override onQueue(_queue: number, handler: (() => void) | undefined): void {
    if (handler) this.handler = handler;
  }
}

/** Calls the device without looking at features. */
class BenchTransport extends FakeTransport {
  kicked: () => void = () => undefined;

  override notify(): void {
    this.kicked();
  }
}

function open(ring: bigint): {
  blk: VirtioBlk;
  buffers: readonly Uint8Array[];
  device: FakeDevice;
  interrupts: BenchInterrupts;
  transport: BenchTransport;
} {
  const hal = new BenchHal();
  const disk = new FakeDisk({ sectors: 4096, ring, hal });
  const { device } = disk;
  const interrupts = new BenchInterrupts();
  const transport = new BenchTransport(device, { interrupts });
  const blk = new VirtioBlk(transport, hal satisfies Hal);
  // One round with a real device model, to learn where the statuses lie.
  disk.holdBack = true;
  const tokens = hal.buffers.map((buffer, n) => blk.submitRead(n * 8, buffer));
  device.run();
  const statuses = disk.held.map(({ chain }) => {
    const { address } = chain.elements.at(-1) ?? { address: 0 };
    return hal.view(address, 1, 'write');
  });
  disk.release();
  for (const token of tokens) blk.complete(token);
  const queue = device.queue(0);
  transport.kicked = () => {
    for (let n = 0; n < DEPTH; n += 1) (statuses[n] as Uint8Array)[0] = 0;
    queue.drain(SIZE + 1);
  };
  return { blk, buffers: hal.buffers, device, interrupts, transport };
}

async function bench(title: string, ring: bigint): Promise<void> {
  const { blk, buffers, interrupts, transport } = open(ring);
  const first = buffers[0] as Uint8Array;
  const deferred = { kick: false };
  const found = await measureAll([
    [
      'non-blocking, one at a time',
      BATCHES,
      () => {
        for (let n = 0; n < BATCHES; n += 1) {
          blk.submitRead(n, first);
          blk.complete(blk.poll());
        }
      },
    ],
    [
      `non-blocking, ${DEPTH} at a time`,
      (BATCHES / 10) * DEPTH,
      () => {
        for (let n = 0; n < BATCHES / 10; n += 1) {
          for (let i = 0; i < DEPTH; i += 1) blk.submitRead(n, buffers[i] as Uint8Array, deferred);
          blk.kick();
          for (let i = 0; i < DEPTH; i += 1) blk.complete(blk.poll());
        }
      },
    ],
    [
      'synchronous',
      BATCHES,
      () => {
        for (let n = 0; n < BATCHES; n += 1) blk.readSync(n, first);
      },
    ],
  ]);
  // Those who await are told by an interrupt, in a later microtask as from an event loop.
  const { kicked } = transport;
  const { handler } = interrupts;
  transport.kicked = () => {
    kicked();
    queueMicrotask(handler);
  };
  found.push(
    ...(await measureAll([
      [
        'promise, one at a time',
        BATCHES,
        async () => {
          for (let n = 0; n < BATCHES; n += 1) await blk.read(n, first);
        },
      ],
      [
        `promise, ${DEPTH} at a time`,
        (BATCHES / 10) * DEPTH,
        async () => {
          for (let n = 0; n < BATCHES / 10; n += 1) {
            await Promise.all(buffers.map((buffer) => blk.read(n, buffer)));
          }
        },
      ],
    ])),
  );
  printMeasurements(title, found);
}

const split = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;
await bench('4 KiB read, split ring', split);
await bench('4 KiB read, packed ring', split | CommonFeatures.mask('RING_PACKED'));
