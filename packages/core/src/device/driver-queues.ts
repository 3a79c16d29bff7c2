/**
 * The queues of a driver, in the order in which they were made. A failure or a reset of the device affects all of them.
 *
 * What is called here may call a listener that disposes the driver, which empties the list: so the list is read again after each
 * call.
 */
import type { VirtioError } from '../errors.ts';
import type { Hal } from '../memory/hal.ts';
import type { BufferQueueParts } from '../queues/buffer-queue.ts';
import type { DriverQueue } from '../queues/driver-queue.ts';
import type { RequestHandler } from '../queues/request.ts';
import { RequestQueue } from '../queues/request-queue.ts';
import { createQueue } from '../ring/create-queue.ts';
import type { QueueOptions, VirtQueue } from '../ring/virt-queue.ts';
import type { ThreadQueues } from '../threads/for-threads.ts';
import type { LentParts, LentQueues } from '../threads/lent-queues.ts';
import type { FeatureSet } from './features.ts';
import type { InterruptSource } from './interrupts.ts';
import type { Transport } from './transport.ts';

/** What {@link DriverQueues} need of their driver. */
export interface DriverQueuesParts<Name extends string> {
  readonly transport: Transport;
  readonly hal: Hal;
  /** What was negotiated. */
  readonly features: () => FeatureSet<Name>;
  /** The device has lied or is gone. */
  readonly report: (error: VirtioError) => void;
  /** The device was sloppy. */
  readonly quirk: (queue: number, message: string) => void;
}

const NO_HANDLER: RequestHandler<never> = {
  result: () => undefined as never,
};

/** A queue and the driver's queue on top of it; some drivers use the virtqueue directly. */
interface Entry {
  readonly queue: VirtQueue;
  driverQueue: DriverQueue | undefined;
}

/** Makes the queues of one driver, and keeps them. */
export class DriverQueues<Name extends string> {
  readonly #parts: DriverQueuesParts<Name>;
  readonly #entries: Entry[] = [];

  constructor(parts: DriverQueuesParts<Name>) {
    this.#parts = parts;
  }

  /** Makes a virtqueue that the driver uses directly. */
  bare(options: QueueOptions): VirtQueue {
    return this.#add(options).queue;
  }

  /** Makes a queue of any kind. */
  create<Q extends DriverQueue>(options: QueueOptions, make: (parts: BufferQueueParts) => Q): Q {
    const entry = this.#add(options);
    const { transport, hal, report } = this.#parts;
    const driverQueue = make({ queue: entry.queue, transport, hal, report });
    entry.driverQueue = driverQueue;
    return driverQueue;
  }

  /** Makes a request queue. */
  requests<R>(
    options: QueueOptions,
    handler: RequestHandler<R> = NO_HANDLER,
    lane: readonly [index: number, of: number] = [0, 1],
  ): RequestQueue<R> {
    const { transport, report } = this.#parts;
    return this.create(options, ({ queue }) => new RequestQueue({ queue, transport, handler, report, lane }));
  }

  /** Makes queues for another thread, which drives them together. */
  lend(
    threads: ThreadQueues,
    options: readonly QueueOptions[],
    { config, options: more, features }: Pick<LentParts, 'config' | 'options' | 'features'>,
  ): LentQueues {
    const { transport, hal, report } = this.#parts;
    const entries = options.map((one) => {
      const entry = this.#add(one);
      entry.driverQueue = threads.member(entry.queue);
      return entry;
    });
    const queues = entries.map(({ queue }) => queue);
    const lent = threads.lend({ config, options: more, features, queues, transport, hal, report });
    // The first one speaks for all.
    (entries[0] as Entry).driverQueue = lent;
    return lent;
  }

  /** The queue with an index, and the driver's queue on top of it. */
  find(
    index: number,
  ): { readonly queue: VirtQueue; readonly driverQueue: DriverQueue | undefined } | undefined {
    return this.#entries.find(({ queue }) => queue.index === index);
  }

  /**
   * Calls a listener with the index of a queue that has something for callers that poll.
   *
   * @returns a function that removes it
   */
  listen(listener: (queue: number) => void): () => void {
    const removals = this.#entries.map(({ queue, driverQueue }) =>
      driverQueue?.listen(() => {
        listener(queue.index);
      }),
    );
    return () => {
      for (const remove of removals) remove?.();
    };
  }

  /** Takes the buffers that the device has used. */
  drain(): void {
    for (const { driverQueue } of this.#entries) driverQueue?.drain();
  }

  /** The configuration of the device has changed. */
  configChanged(): void {
    for (const { driverQueue } of this.#entries) driverQueue?.configChanged?.();
  }

  /** Asks for an interrupt when a buffer is used; returns whether there are used ones already. */
  enableInterrupts(): boolean {
    let used = false;
    for (const { queue } of this.#entries) used = queue.enableInterrupts() || used;
    return used;
  }

  /** Asks for no interrupts. */
  disableInterrupts(): void {
    for (const { queue } of this.#entries) queue.disableInterrupts();
  }

  /** The device is live. */
  start(): void {
    for (const { driverQueue } of this.#entries) driverQueue?.start();
  }

  /** The device no longer works: ends all waits. */
  fail(error: VirtioError): void {
    for (const { queue, driverQueue } of this.#entries) (driverQueue ?? queue).fail(error);
  }

  /** The device was reset and no longer has any buffers. */
  forget(error: VirtioError): void {
    for (const { driverQueue } of this.#entries) driverQueue?.forget(error);
  }

  /** Empties the rings and gives them to the device again, which has been reset. */
  restart(): void {
    for (const { queue, driverQueue } of this.#entries) {
      queue.reset();
      driverQueue?.restart();
    }
  }

  /** Gives all queues back. The device must have been reset. */
  release(interrupts: InterruptSource | undefined): void {
    for (const { queue, driverQueue } of this.#entries.splice(0)) {
      interrupts?.onQueue(queue.index, undefined);
      interrupts?.lookout?.onRest(queue.index, undefined);
      driverQueue?.[Symbol.dispose]();
      queue[Symbol.dispose]();
    }
  }

  /** Makes a queue, which is given back with the others from now on. */
  #add(options: QueueOptions): Entry {
    const { transport, hal, features, quirk } = this.#parts;
    const queue = createQueue(transport, hal, features(), options);
    queue.onQuirk = (message) => {
      quirk(queue.index, message);
    };
    const entry: Entry = { queue, driverQueue: undefined };
    this.#entries.push(entry);
    return entry;
  }
}
