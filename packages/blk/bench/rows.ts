/**
 * What one read of 4 KiB costs in the driver, in each of its three forms. The device is next to nothing: it writes the statuses
 * and moves the used index, so that what is measured is the driver and its queue.
 *
 * The packages are given, so that those of another commit can be measured by the same loops.
 */
import type { Row } from '@virtio/checks/measure';
import type * as testing from '@virtio/testing';
import type * as disk from '../examples/fake-disk.ts';
import type * as blk from '../src/index.ts';

/** The packages to be measured. */
export interface Packages {
  readonly testing: Pick<typeof testing, 'FakeHal' | 'FakeInterrupts' | 'FakeTransport'>;
  readonly disk: Pick<typeof disk, 'FakeDisk'>;
  readonly blk: Pick<typeof blk, 'VirtioBlk'>;
}

const SIZE = 4096;
const DEPTH = 32;
const BATCHES = 1000;

/** The part of the driver that is measured. */
interface Reader {
  read(sector: number, data: Uint8Array): Promise<void>;
  readSync(sector: number, data: Uint8Array): void;
  submitRead(sector: number, data: Uint8Array, options?: { readonly kick?: boolean }): number;
  kick(): void;
  poll(): number;
  complete(token: number): unknown;
}

function open({ testing, disk, blk }: Packages, ring: bigint) {
  /** Buffers in one DMA region, shared without a record. */
  class BenchHal extends testing.FakeHal {
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
  class BenchInterrupts extends testing.FakeInterrupts {
    handler: () => void = () => undefined;

    override onQueue(_queue: number, handler: (() => void) | undefined): void {
      if (handler) this.handler = handler;
    }
  }

  /** Calls the device without looking at features. */
  class BenchTransport extends testing.FakeTransport {
    kicked: () => void = () => undefined;

    override notify(): void {
      this.kicked();
    }
  }

  const hal = new BenchHal();
  const fake = new disk.FakeDisk({ sectors: 4096, ring, hal });
  const { device } = fake;
  const interrupts = new BenchInterrupts();
  const transport = new BenchTransport(device, { interrupts });
  const driver = new blk.VirtioBlk(transport, hal);
  // The name that it had before.
  const old = driver as typeof driver & { readNonBlocking?: Reader['submitRead'] };
  if (old.readNonBlocking !== undefined) driver.submitRead = old.readNonBlocking;
  const reader: Reader = driver;
  // One round with a real device model, to learn where the statuses lie.
  fake.holdBack = true;
  const tokens = hal.buffers.map((buffer, n) => reader.submitRead(n * 8, buffer));
  device.run();
  const statuses = fake.held.map(({ chain }) => {
    const { address } = chain.elements.at(-1) ?? { address: 0 };
    return hal.view(address, 1, 'write');
  });
  fake.release();
  for (const token of tokens) reader.complete(token);
  const queue = device.queue(0);
  const answer = (): void => {
    for (let n = 0; n < DEPTH; n += 1) (statuses[n] as Uint8Array)[0] = 0;
    queue.drain(SIZE + 1);
  };
  return { reader, buffers: hal.buffers, interrupts, transport, answer };
}

/** The loops over one ring. */
export function rows(packages: Packages, ring: bigint): Row[] {
  const { reader, buffers, interrupts, transport, answer } = open(packages, ring);
  const first = buffers[0] as Uint8Array;
  const deferred = { kick: false };
  const { handler } = interrupts;
  const later = (): void => {
    answer();
    queueMicrotask(handler);
  };
  /** The device answers inside of the call, or tells those who await by an interrupt, in a later microtask as from an event loop. */
  const row = (name: string, operations: number, kicked: () => void, loop: () => unknown): Row => [
    name,
    operations,
    () => {
      transport.kicked = kicked;
      return loop();
    },
  ];
  return [
    row('non-blocking, one at a time', BATCHES, answer, () => {
      for (let n = 0; n < BATCHES; n += 1) {
        reader.submitRead(n, first);
        reader.complete(reader.poll());
      }
    }),
    row(`non-blocking, ${DEPTH} at a time`, (BATCHES / 10) * DEPTH, answer, () => {
      for (let n = 0; n < BATCHES / 10; n += 1) {
        for (let i = 0; i < DEPTH; i += 1) reader.submitRead(n, buffers[i] as Uint8Array, deferred);
        reader.kick();
        for (let i = 0; i < DEPTH; i += 1) reader.complete(reader.poll());
      }
    }),
    row('synchronous', BATCHES, answer, () => {
      for (let n = 0; n < BATCHES; n += 1) reader.readSync(n, first);
    }),
    row('promise, one at a time', BATCHES, later, async () => {
      for (let n = 0; n < BATCHES; n += 1) await reader.read(n, first);
    }),
    row(`promise, ${DEPTH} at a time`, (BATCHES / 10) * DEPTH, later, async () => {
      for (let n = 0; n < BATCHES / 10; n += 1) {
        await Promise.all(buffers.map((buffer) => reader.read(n, buffer)));
      }
    }),
  ];
}

/** What the promises of a batch cost by themselves, with no driver: made, settled in a later microtask, and awaited. */
export function bareRow(): Row {
  const resolves: (() => void)[] = [];
  const make = (): Promise<void> =>
    new Promise((resolve) => {
      resolves.push(resolve);
    });
  const settle = (): void => {
    for (const resolve of resolves) resolve();
    resolves.length = 0;
  };
  const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(1));
  return [
    `bare promises, ${DEPTH} at a time`,
    (BATCHES / 10) * DEPTH,
    async () => {
      for (let n = 0; n < BATCHES / 10; n += 1) {
        const all = Promise.all(buffers.map(make));
        queueMicrotask(settle);
        await all;
      }
    },
  ];
}
