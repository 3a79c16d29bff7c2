/**
 * Spreads requests over the queues of a device, in three forms: non-blocking, synchronous, with promises.
 *
 * A token names a request: its slot in the low 15 bits (a queue has at most 32768 of them) and the queue above.
 */
import { type SpinOptions, VirtioError } from '@virtio/core';
import type { BlkData, BlkQueue } from './blk-queue.ts';

const SLOT_BITS = 15;
const SLOT_MASK = (1 << SLOT_BITS) - 1;
const MOST_TOKEN = 0x7fffffff;

/** What every request may be told. */
export interface RequestOptions {
  /** The index of the queue to use. By default requests go round the queues. */
  readonly queue?: number;
}

/** What a non-blocking request may be told. */
export interface NonBlockingOptions extends RequestOptions {
  /** `false` to leave the device unaware of the request until `kick()`, so that several are announced at once. */
  readonly kick?: boolean;
}

/** What a synchronous request may be told. */
export interface SyncOptions extends RequestOptions, SpinOptions {}

/** Spreads requests over queues. */
export class Dispatcher {
  readonly #who: string;
  readonly #queues: readonly BlkQueue[];
  readonly #canWait: boolean;
  readonly #report: (error: VirtioError) => void;
  #turn = 0;
  #pollTurn = 0;

  /**
   * @param who the device, for messages
   * @param queues in the order of their indices
   * @param canWait whether the transport has interrupts
   * @param report tells the driver that the device no longer works
   */
  constructor(
    who: string,
    queues: readonly BlkQueue[],
    canWait: boolean,
    report: (error: VirtioError) => void,
  ) {
    this.#who = who;
    this.#queues = queues;
    this.#canWait = canWait;
    this.#report = report;
  }

  /** Submits a request and returns its token. */
  start(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: NonBlockingOptions | undefined,
  ): number {
    const index = this.#pick(options);
    let queue = this.#queues[index] as BlkQueue;
    let slot = queue.start(type, sector, data, segments);
    if (slot < 0 && options?.queue === undefined) {
      for (let n = this.#queues.length - 1; n > 0 && slot < 0; n -= 1) {
        queue = this.#queues[this.#pick(undefined)] as BlkQueue;
        slot = queue.start(type, sector, data, segments);
      }
    }
    if (slot < 0) slot = queue.startOrThrow(type, sector, data, segments);
    if (options?.kick !== false) queue.requests.flush();
    return (queue.requests.queue.index << SLOT_BITS) | slot;
  }

  /** Submits a request, spins until it is done and ends it; see {@link BlkQueue.finish}. */
  runSync(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: SyncOptions | undefined,
  ): number {
    const queue = this.#queues[this.#pick(options)] as BlkQueue;
    return queue.runSync(type, sector, data, segments, options, this.#report);
  }

  /** Submits a request as soon as there is room, waits until it is done and ends it; see {@link BlkQueue.finish}. */
  run(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: RequestOptions | undefined,
  ): Promise<number> {
    if (!this.#canWait) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#who}: this transport has no interrupts, so no promise can be kept. Use the synchronous or the non-blocking ` +
          'form, or give the transport PollingInterrupts',
      );
    }
    const queue = this.#queues[this.#pick(options)] as BlkQueue;
    return queue.run(type, sector, data, segments);
  }

  /** The token of the next request that is done, or -1. */
  poll(): number {
    const queues = this.#queues;
    for (let n = queues.length; n > 0; n -= 1) {
      const queue = queues[this.#pollTurn] as BlkQueue;
      this.#pollTurn = this.#pollTurn + 1 === queues.length ? 0 : this.#pollTurn + 1;
      const slot = queue.poll();
      if (slot >= 0) return (queue.requests.queue.index << SLOT_BITS) | slot;
    }
    return -1;
  }

  /** Ends a non-blocking request; see {@link BlkQueue.finish}. */
  complete(token: number): number {
    const queue =
      Number.isInteger(token) && token <= MOST_TOKEN ? this.#queues[token >> SLOT_BITS] : undefined;
    if (queue === undefined) {
      throw new VirtioError('WRONG_TOKEN', `${this.#who}: ${token} is not a token of this driver`);
    }
    return queue.complete(token & SLOT_MASK);
  }

  /** Shows all submitted requests to the device. */
  kick(): void {
    for (const queue of this.#queues) queue.requests.flush();
  }

  #pick(options: RequestOptions | undefined): number {
    const wanted = options?.queue;
    const { length } = this.#queues;
    if (wanted === undefined) {
      const turn = this.#turn;
      this.#turn = turn + 1 === length ? 0 : turn + 1;
      return turn;
    }
    if (!(Number.isInteger(wanted) && wanted >= 0 && wanted < length)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#who}: there is no queue ${wanted}; the driver uses ${length}, counted from 0`,
      );
    }
    return wanted;
  }
}
