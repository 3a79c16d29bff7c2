/** Spreads requests over the queues of a device, in three forms: non-blocking, synchronous, with promises. */
import {
  asError,
  requireInteger,
  type SpinOptions,
  spinTime,
  type SubmitOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { BlkData, BlkQueue, Decode } from './blk-queue.ts';

/** Options of every request. */
export interface QueueChoice {
  /** The index of the queue to use (default: the queues in turn). */
  readonly queue?: number;
}

/** Options of requests with a promise. */
export interface RequestOptions extends QueueChoice, WaitOptions {}

/** Options of non-blocking requests. */
export interface NonBlockingOptions extends QueueChoice, SubmitOptions {}

/** Options of synchronous requests. */
export interface SyncOptions extends QueueChoice, SpinOptions {}

/** A request and its data, in the same shape for the three forms. */
export interface Command<R> {
  readonly type: number;
  readonly sector: number;
  readonly data: BlkData;
  /** The number of segments of the data. */
  readonly segments: number;
  /** Makes the result (default: there is none). */
  readonly decode?: (appendedAt: number) => R;
}

/** Spreads requests over queues. */
export class Dispatcher {
  readonly #who: string;
  readonly #queues: readonly BlkQueue[];
  #chosen: BlkQueue;
  #turn = 0;
  #pollTurn = 0;

  /**
   * @param who the device, for messages
   * @param queues in the order of their indices
   */
  constructor(who: string, queues: readonly BlkQueue[]) {
    this.#who = who;
    this.#queues = queues;
    this.#chosen = queues[0] as BlkQueue;
  }

  /** Submits a command, and returns a promise of its result. */
  ask<R>(command: () => Command<R>, options: RequestOptions | undefined): Promise<R> {
    try {
      const { type, sector, data, segments, decode } = command();
      return this.run(type, sector, data, segments, options, decode) as Promise<R>;
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  /** Submits a command, spins until it is answered, and returns its result. */
  askSync<R>({ type, sector, data, segments, decode }: Command<R>, options: SyncOptions | undefined): R {
    return this.runSync(type, sector, data, segments, options, decode) as R;
  }

  /** Submits a command and returns its token. */
  submit(
    { type, sector, data, segments, decode }: Command<unknown>,
    options: NonBlockingOptions | undefined,
  ): number {
    return this.start(type, sector, data, segments, options, decode);
  }

  /** Submits a request as soon as there is room (first come, first served), and waits for its result. */
  run(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: RequestOptions | undefined,
    decode?: Decode,
  ): Promise<unknown> {
    const queue = this.#queues[this.#pick(options)] as BlkQueue;
    return queue.run(type, sector, data, segments, decode, options);
  }

  /** Submits a request, spins until it is answered, and returns its result. */
  runSync(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: SyncOptions | undefined,
    decode?: Decode,
  ): unknown {
    if (options !== undefined) spinTime(this.#who, options);
    const slot = this.#begin(type, sector, data, segments, options, decode);
    return this.#chosen.requests.waitSync(slot, options);
  }

  /** Submits a request and returns its token. */
  start(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: NonBlockingOptions | undefined,
    decode?: Decode,
  ): number {
    const slot = this.#begin(type, sector, data, segments, options, decode);
    const { requests } = this.#chosen;
    const token = requests.token(slot);
    if (options?.kick !== false) requests.kick();
    return token;
  }

  /** The token of the next request that is done, or -1. */
  poll(): number {
    const queues = this.#queues;
    for (let n = queues.length; n > 0; n -= 1) {
      const queue = queues[this.#pollTurn] as BlkQueue;
      this.#pollTurn = this.#pollTurn + 1 === queues.length ? 0 : this.#pollTurn + 1;
      const token = queue.requests.poll();
      if (token >= 0) return token;
    }
    return -1;
  }

  /** Ends a non-blocking request. */
  complete(token: number): unknown {
    return this.#queueOf(token).requests.complete(token);
  }

  /** Cancels a non-blocking request. */
  cancel(token: number): void {
    this.#queueOf(token).requests.cancel(token);
  }

  /** Notifies the device of all submitted requests. */
  kick(): void {
    for (const queue of this.#queues) queue.requests.kick();
  }

  /** Token numbers are dealt to the queues in turn, so that the remainder is the queue's index. */
  #queueOf(token: number): BlkQueue {
    // For callers without types: a bigint cannot be mixed with numbers.
    const queue = typeof token === 'number' ? this.#queues[token % this.#queues.length] : undefined;
    if (queue !== undefined) return queue;
    throw new VirtioError('WRONG_TOKEN', `${this.#who}: ${String(token)} is not a token of this driver`);
  }

  /**
   * Submits a request on the queue that was asked for, or on the next in turn that has room, which is `#chosen` then.
   *
   * @returns its slot
   */
  #begin(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: QueueChoice | undefined,
    decode: Decode | undefined,
  ): number {
    let queue = this.#queues[this.#pick(options)] as BlkQueue;
    let slot = queue.start(type, sector, data, segments, decode);
    if (slot < 0 && options?.queue === undefined) {
      for (let n = this.#queues.length - 1; n > 0 && slot < 0; n -= 1) {
        queue = this.#queues[this.#pick(undefined)] as BlkQueue;
        slot = queue.start(type, sector, data, segments, decode);
      }
    }
    if (slot < 0) slot = queue.startOrThrow(type, sector, data, segments, decode);
    this.#chosen = queue;
    return slot;
  }

  #pick(options: QueueChoice | undefined): number {
    const { length } = this.#queues;
    if (options?.queue !== undefined) return requireInteger(this.#who, 'queue', options.queue, 0, length - 1);
    const turn = this.#turn;
    this.#turn = turn + 1 === length ? 0 : turn + 1;
    return turn;
  }
}
