/**
 * Requests on a queue, in all three ways to wait at once: tokens that are polled for, spinning, and promises.
 *
 * A request has a slot from `tryBegin` until its result was handed over. The driver keeps what belongs to a request (header,
 * status) in arrays and DMA memory by slot, allocated once. The ring's descriptors are free again as soon as the chain is used,
 * the slot only when its result was taken.
 *
 * A caller may give up: by a time-out, an abort, or `cancel`. The device then still has the request. Its buffers stay shared and
 * its slot stays taken until the device answers or is reset; the answer reaches nobody, and can never be taken for another's.
 *
 * A token is a slot with a generation, which changes each time the slot becomes free: a token of an earlier request, or of one
 * from before a reset, is refused.
 *
 * Anything may happen inside a callback: a listener may reset or dispose the driver while a call spins, a device may answer
 * inside `notify`. So nothing here keeps a state of the queue across a call that may lead outside.
 */
import type { Transport } from '../device/transport.ts';
import { asError, VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import { Announcer } from './announcer.ts';
import type { DriverQueue } from './driver-queue.ts';
import { Interest } from './interest.ts';
import { SharedBuffers } from './shared-buffers.ts';
import { type SpinOptions, SPINS_PER_CHECK, spinTime } from './spin.ts';
import { cancellable, requireWaitable, type Waiter, type WaitOptions } from './wait.ts';

// Where the request of a slot is.
const FREE = 0;
const BEGUN = 1;
const IN_FLIGHT = 2;
const DONE = 3;
/** The device has it, and its caller no longer waits. */
const LATE = 4;
/** The device no longer works; until it is reset, the request's buffers are still its own. */
const LOST = 5;

// How its caller waits.
const POLLED = 0;
const AWAITED = 1;
const SPUN = 2;
const GIVEN_UP = 3;

/** Tokens stay below, so that engines keep them as small integers. */
const TOKENS = 2 ** 30;

/** How the answers to requests are judged, and what becomes of them. */
export interface RequestHandler<R> {
  /**
   * Judges an answer while the request's buffers are still shared.
   *
   * @param usedLength the bytes that the device says it has written; never more than it was offered
   * @throws VirtioError if the answer is bad: what the device wrote to shared buffers is then not copied to the caller's
   */
  judge?(slot: number, usedLength: number): void;
  /** Makes the result of a good answer. The buffers are the caller's again. */
  result(slot: number, usedLength: number): R;
}

/** A request that is built by a function: for commands where a few allocations do not matter. */
export interface Request<R> extends RequestHandler<R> {
  /** How many descriptors it takes. */
  readonly buffers: number;
  /**
   * Builds the chain: pushes exactly {@link Request.buffers} descriptors, those that the device reads first. Called when there
   * is room, which may be later.
   */
  fill(slot: number): void;
}

/** Options of non-blocking requests. */
export interface SubmitOptions {
  /** `false` to leave the device unaware of the request until `kick()`, so that several are announced at once. */
  readonly kick?: boolean;
}

/** What a {@link RequestQueue} is made of; {@link Driver.createRequestQueue} sees to it. */
export interface RequestQueueParts<R> {
  readonly queue: VirtQueue;
  readonly transport: Transport;
  /** For requests that have no handler of their own. */
  readonly handler: RequestHandler<R>;
  /** Tells the driver that the device has lied or is gone; it then calls `RequestQueue.fail`. */
  readonly report: (error: VirtioError) => void;
  /** Where a device has several queues whose tokens must differ: how many, and which of them this is. */
  readonly lane?: readonly [index: number, of: number];
}

interface RoomWaiter extends Waiter<unknown> {
  readonly descriptors: number;
  readonly start: () => number;
  /** The slot and its generation once the request has begun; -1 before. */
  slot: number;
  generation: number;
}

/**
 * Tracks the requests of one queue.
 *
 * @example
 * ```ts
 * import type { RequestQueue, WaitOptions } from '@virtio/core';
 *
 * // A device that answers a byte with a byte; `memory` is DMA memory of the driver's, two bytes a slot.
 * export function increment(
 *   requests: RequestQueue<unknown>,
 *   memory: { bytes: Uint8Array; address: number },
 *   value: number,
 *   options?: WaitOptions,
 * ): Promise<number> {
 *   return requests.request(
 *     {
 *       buffers: 2,
 *       fill(slot) {
 *         memory.bytes[slot * 2] = value;
 *         requests.queue.pushReadable(memory.address + slot * 2, 1);
 *         requests.queue.pushWritable(memory.address + slot * 2 + 1, 1);
 *       },
 *       result: (slot) => memory.bytes[slot * 2 + 1] ?? 0,
 *     },
 *     options,
 *   );
 * }
 * ```
 */
export class RequestQueue<R = unknown> implements DriverQueue {
  /** The queue below. */
  readonly queue: VirtQueue;
  /** The number of slots: as many as the queue has descriptors. */
  readonly slots: number;

  readonly #transport: Transport;
  readonly #handler: RequestHandler<R>;
  readonly #report: (error: VirtioError) => void;
  readonly #announcer: Announcer;
  readonly #interest: Interest;
  readonly #shared: SharedBuffers;
  readonly #lane: number;
  readonly #lanes: number;
  readonly #generations: number;

  // By slot.
  readonly #state: Uint8Array;
  readonly #waits: Uint8Array;
  readonly #generation: Int32Array;
  readonly #lengths: Float64Array;
  readonly #handlers: RequestHandler<unknown>[];
  readonly #resolves: (((value: unknown) => void) | undefined)[] = [];
  readonly #rejects: (((error: unknown) => void) | undefined)[] = [];
  /** By token of the ring. */
  readonly #slotOf: Uint16Array;

  readonly #free: Uint16Array;
  #freeCount = 0;
  /** Slots that are done and polled for, oldest first; `#inRing` marks them. */
  readonly #doneRing: Uint16Array;
  readonly #inRing: Uint8Array;
  #doneHead = 0;
  #doneCount = 0;
  /** Promises that wait for an answer. */
  #awaited = 0;
  readonly #room: RoomWaiter[] = [];
  #makingRoom = false;
  #listeners: readonly (() => void)[] = [];
  #failure: VirtioError | undefined;
  /** Why requests were lost last. */
  #lost: VirtioError | undefined;

  // The ends of the promise that was made last; `#capture` puts them there, so that none needs a function of its own.
  #resolve: (value: unknown) => void = nothing;
  #reject: (error: unknown) => void = nothing;

  /** @internal use {@link Driver.createRequestQueue} */
  constructor({ queue, transport, handler, report, lane: [lane, lanes] = [0, 1] }: RequestQueueParts<R>) {
    const { size } = queue;
    this.queue = queue;
    this.slots = size;
    this.#transport = transport;
    this.#handler = handler;
    this.#report = report;
    this.#announcer = new Announcer(queue, report);
    this.#shared = new SharedBuffers(queue, size);
    this.#lane = lane;
    this.#lanes = lanes;
    this.#generations = Math.max(2, Math.floor(TOKENS / (size * lanes)));
    this.#state = new Uint8Array(size);
    this.#waits = new Uint8Array(size);
    this.#generation = new Int32Array(size);
    this.#lengths = new Float64Array(size);
    this.#handlers = new Array<RequestHandler<unknown>>(size).fill(handler);
    this.#resolves = new Array<undefined>(size).fill(undefined);
    this.#rejects = new Array<undefined>(size).fill(undefined);
    this.#slotOf = new Uint16Array(size);
    this.#free = new Uint16Array(size);
    this.#doneRing = new Uint16Array(size);
    this.#inRing = new Uint8Array(size);
    for (let slot = size - 1; slot >= 0; slot -= 1) this.#free[this.#freeCount++] = slot;
    this.#interest = new Interest(transport, queue, { onUsed: this.#onUsed, report });
  }

  /** Requests that the device has. */
  get inFlight(): number {
    return this.queue.inFlight;
  }

  /** Why nothing works any more, until the driver is reset. */
  get failure(): VirtioError | undefined {
    return this.#failure ?? this.queue.failure;
  }

  // Building a request.

  /**
   * Takes a slot and begins a chain of `count` buffers for it: push the buffers, then call {@link RequestQueue.submit}, or
   * {@link RequestQueue.rewind} if that does not work out.
   *
   * @returns the slot, or -1 if there is no room now
   */
  tryBegin(count: number): number {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#freeCount === 0 || !this.queue.tryBegin(count)) return -1;
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount] as number;
    this.#state[slot] = BEGUN;
    return slot;
  }

  /**
   * The same as {@link RequestQueue.tryBegin}, but looks for answers if there is no room.
   *
   * @throws {@link VirtioError} `QUEUE_FULL`
   */
  begin(count: number): number {
    let slot = this.tryBegin(count);
    if (slot < 0) {
      this.drain();
      slot = this.tryBegin(count);
    }
    if (slot < 0) throw this.#full(count);
    return slot;
  }

  /** Shares a buffer that the device reads and pushes it as one descriptor. It is given back when the request has ended. */
  shareReadable(slot: number, buffer: Uint8Array): void {
    const address = this.#shared.share(slot, buffer, false);
    this.queue.pushReadable(address, buffer.length);
  }

  /** Shares a buffer that the device writes and pushes it as one descriptor. It is given back when the request has ended. */
  shareWritable(slot: number, buffer: Uint8Array): void {
    const address = this.#shared.share(slot, buffer, true);
    this.queue.pushWritable(address, buffer.length);
  }

  /**
   * Shares a buffer and leaves it to the caller to push its descriptors, of which there may be several. Buffers that the device
   * reads come first.
   *
   * @returns its address for the device
   */
  share(slot: number, buffer: Uint8Array, writable: boolean): number {
    return this.#shared.share(slot, buffer, writable);
  }

  /** Undoes {@link RequestQueue.tryBegin}: gives back the slot, its shared buffers and the chain that was begun. */
  rewind(slot: number): void {
    if (this.#state[slot] !== BEGUN) return;
    this.queue.rewind();
    this.#end(slot, false);
  }

  /**
   * Ends the chain of a slot. The device sees it after {@link RequestQueue.kick}; whoever asked waits by
   * {@link RequestQueue.settled}, {@link RequestQueue.waitSync} or {@link RequestQueue.poll}.
   *
   * @returns the token of the request
   */
  submit(slot: number): number {
    this.#slotOf[this.queue.submit()] = slot;
    this.#state[slot] = IN_FLIGHT;
    this.#waits[slot] = POLLED;
    return this.token(slot);
  }

  /** The token of the request that a slot holds. */
  token(slot: number): number {
    return ((this.#generation[slot] as number) * this.slots + slot) * this.#lanes + this.#lane;
  }

  /** Shows the device all that was submitted, and notifies it if it wants that. */
  kick(): void {
    this.#announcer.kick();
  }

  /** Calls {@link RequestQueue.kick} when the current turn of the event loop ends, once for all that was submitted in it. */
  kickSoon(): void {
    this.#announcer.kickSoon();
  }

  // Promises.

  /**
   * Refuses to wait with a promise before anything is sent.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if the transport has no interrupts, `ABORTED`, or why the device no longer works
   */
  checkWaitable(options?: WaitOptions): void {
    requireWaitable(this.#transport, options);
    if (this.failure !== undefined) throw this.failure;
  }

  /** Whether others wait for room: who asks with a promise then waits behind them. */
  get crowded(): boolean {
    return this.#room.length > 0;
  }

  /**
   * Waits for the answer to the request of a slot that was just submitted. The device is told of it when the turn ends.
   *
   * @returns a promise of its result; it rejects with the request's error, `ABORTED`, or why the request was lost
   */
  settled(slot: number, options?: WaitOptions): Promise<R> {
    this.kickSoon();
    const promise = new Promise<unknown>(this.#capture);
    this.#await(slot, this.#resolve, this.#reject, options?.signal);
    return promise as Promise<R>;
  }

  /**
   * Waits until a request can begin, begins it, and waits for its answer. Who waits first is first.
   *
   * @param count the buffers of its chain
   * @param start builds and submits the request, and returns its slot, or -1 if there still is no room. What it sends must not
   * change in the meantime: copy arrays that are the caller's
   */
  whenRoom(count: number, start: () => number, options?: WaitOptions): Promise<R> {
    return new Promise<unknown>((resolve, reject) => {
      this.checkWaitable(options);
      this.drain();
      // What was found may have failed the driver, after which nobody would tell this one.
      if (this.failure !== undefined) throw this.failure;
      if (count > this.queue.size) this.queue.begin(count);
      if (this.#doneCount === this.slots) {
        throw new VirtioError(
          'QUEUE_FULL',
          `${this.#transport.who()}: all ${this.slots} requests of queue ${this.queue.index} are done and wait to be completed`,
        );
      }
      const waiter: RoomWaiter = {
        descriptors: this.queue.descriptorsFor(count),
        start,
        slot: -1,
        generation: 0,
        ...cancellable({ resolve, reject }, this.#transport, options?.signal, () => {
          this.#leave(waiter);
        }),
      };
      this.#room.push(waiter);
      this.#interest.begin();
      this.#makeRoom();
    }) as Promise<R>;
  }

  /** Asks, and waits with a promise: for room, if need be, and for the answer. */
  request<T>(request: Request<T>, options?: WaitOptions): Promise<T> {
    try {
      this.checkWaitable(options);
      const slot = this.crowded ? -1 : this.#start(request);
      const result =
        slot >= 0
          ? this.settled(slot, options)
          : this.whenRoom(request.buffers, () => this.#start(request), options);
      return result as Promise<unknown> as Promise<T>;
    } catch (error) {
      return Promise.reject(asError(error));
    }
  }

  // Spinning.

  /**
   * Asks, and spins until the answer is there.
   *
   * @throws {@link VirtioError} `QUEUE_FULL`, the request's error, `NOT_READY` after the time allowed, or why it was lost
   */
  requestSync<T>(request: Request<T>, options?: SpinOptions): T {
    this.checkSpin(options);
    return this.waitSync(this.#startOrThrow(request), options) as unknown as T;
  }

  /**
   * Refuses a bad `timeoutMs` before anything is sent.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  checkSpin(options: SpinOptions | undefined): void {
    if (options !== undefined) spinTime(this.#transport, options);
  }

  /**
   * Tells the device of the request of a slot that was just submitted, and spins until it is answered.
   *
   * @returns its result
   * @throws {@link VirtioError} as {@link RequestQueue.requestSync}
   */
  waitSync(slot: number, options?: SpinOptions): R {
    const generation = this.#generation[slot];
    this.#waits[slot] = SPUN;
    let deadline = 0;
    try {
      this.kick();
      for (let spins = 1; ; spins += 1) {
        this.drain();
        // A listener may have reset the driver in the meantime: the slot is then free, or another's.
        if (this.#generation[slot] !== generation || this.#state[slot] === LOST) throw this.#lostError();
        if (this.#state[slot] === DONE) break;
        if (spins % SPINS_PER_CHECK !== 0) continue;
        this.#checkAlive();
        if (this.#state[slot] !== IN_FLIGHT || this.#generation[slot] !== generation) continue;
        const now = Date.now();
        if (deadline === 0) deadline = now + spinTime(this.#transport, options);
        if (now >= deadline) throw this.#late(spinTime(this.#transport, options));
      }
    } catch (error) {
      if (this.#generation[slot] === generation) this.#giveUp(slot);
      throw error;
    }
    return this.#finish(slot) as R;
  }

  /**
   * The same for two requests that were just submitted, the second of which makes no sense without the first: both are out of reach of
   * `poll()` from before the device is told of them. If the first one fails, the second is given up.
   *
   * @returns the result of the second
   * @throws {@link VirtioError} as {@link RequestQueue.requestSync}
   */
  waitSyncBoth(first: number, second: number, options?: SpinOptions): R {
    const generation = this.#generation[second];
    this.#waits[second] = SPUN;
    try {
      this.waitSync(first, options);
    } catch (error) {
      if (this.#generation[second] === generation) this.#giveUp(second);
      throw error;
    }
    if (this.#generation[second] !== generation) throw this.#lostError();
    return this.waitSync(second, options);
  }

  // Tokens.

  /**
   * Asks without waiting.
   *
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, or why the device no longer works
   */
  submitRequest(request: Request<unknown>, options?: SubmitOptions): number {
    const token = this.token(this.#startOrThrow(request));
    if (options?.kick !== false) this.kick();
    return token;
  }

  /**
   * The next request that is done and was submitted to be polled for, in the order in which the device used them.
   *
   * @returns its token, once, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    const lost = this.#lost;
    if (this.#doneCount === 0) this.drain();
    if (this.#doneCount > 0) {
      const slot = this.#doneRing[this.#doneHead] as number;
      this.#leaveRing(slot);
      return this.token(slot);
    }
    if (this.failure !== undefined) throw this.failure;
    // Found just now, and brought back by a listener, or by itself: all tokens are void.
    if (this.#lost !== lost && this.#lost !== undefined) throw this.#lost;
    return -1;
  }

  /**
   * Whether {@link RequestQueue.complete} will end the request: with its result, or with why it was lost.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    const slot = this.#slot(token);
    if (this.#state[slot] === IN_FLIGHT) this.drain();
    return this.#state[slot] !== IN_FLIGHT;
  }

  /**
   * Ends a request that is done: its buffers are the caller's again, and its token is void.
   *
   * @returns its result
   * @throws {@link VirtioError} the request's error; `NOT_READY` if the device still has it, `WRONG_TOKEN` if the token is of no
   * request that was submitted and not completed, or of one from before a reset; or why it was lost
   */
  complete(token: number): R {
    let slot = this.#slot(token);
    if (this.#state[slot] === IN_FLIGHT) {
      this.drain();
      slot = this.#slot(token);
    }
    if (this.#state[slot] === DONE) return this.#finish(slot) as R;
    if (this.#state[slot] === LOST) throw this.#lostError();
    throw new VirtioError(
      'NOT_READY',
      `${this.#transport.who()}: request ${token} is still in flight; poll() until it is done, or cancel() it`,
    );
  }

  /**
   * Gives a request up. The device may still carry it out; its buffers stay shared until it is answered or the device is reset.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.#giveUp(this.#slot(token));
  }

  /**
   * Calls a listener when requests that are polled for are done, by interrupts, which are asked for while there is a listener.
   *
   * @returns a function that removes the listener
   */
  listen(listener: () => void): () => void {
    const entry = (): void => {
      listener();
    };
    this.#listeners = [...this.#listeners, entry];
    // Not while the device has failed: after a reset.
    this.#update();
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== entry);
      this.#update();
    };
  }

  /** Takes all that the device has used, and settles what waits for it. For platforms without interrupts. */
  drain(): void {
    if (this.failure !== undefined) return;
    let any = false;
    try {
      for (let token = this.queue.pop(); token >= 0; token = this.queue.pop()) {
        any = true;
        this.#used(this.#slotOf[token] as number, this.queue.usedLength);
        // What was settled may have led to a failure.
        if (this.queue.failure !== undefined) break;
      }
    } catch (error) {
      any = true;
      this.#report(error as VirtioError);
    }
    if (!any) {
      this.#transport.look();
      return;
    }
    if (this.#room.length > 0) this.#makeRoom();
    this.#update();
  }

  // For the driver.

  /** @internal Ends all waits with an error, and refuses all calls until {@link RequestQueue.restart}. */
  fail(error: VirtioError): void {
    const failed = this.#failure !== undefined;
    this.#failure = error;
    this.queue.fail(error);
    if (failed) return;
    this.#lost = error;
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (this.#state[slot] !== IN_FLIGHT && this.#state[slot] !== LATE) continue;
      this.#state[slot] = LOST;
      if (this.#waits[slot] === AWAITED) this.#unawait(slot)(error);
    }
    for (const waiter of this.#room.splice(0)) waiter.reject(error);
    this.#update();
  }

  /** @internal */
  lose(error: VirtioError): void {
    this.fail(error);
  }

  /** @internal The device was reset and has nothing any more: all tokens are void, all buffers their callers'. */
  forget(error: VirtioError): void {
    if (this.#failure === undefined) this.fail(error);
    this.queue.rewind();
    this.#doneHead = 0;
    this.#doneCount = 0;
    this.#inRing.fill(0);
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (this.#state[slot] !== FREE) this.#end(slot, false);
    }
  }

  /** @internal The queue is empty and was given to the device anew. */
  restart(): void {
    this.#failure = undefined;
  }

  /** @internal The device is live. */
  start(): void {
    this.#update();
  }

  /** @internal */
  [Symbol.dispose](): void {
    this.#listeners = [];
  }

  readonly #onUsed = (): void => {
    this.drain();
    if (this.#doneCount === 0) return;
    for (const listener of this.#listeners) {
      try {
        listener();
      } catch (error) {
        void Promise.reject(asError(error));
      }
    }
  };

  readonly #capture = (resolve: (value: unknown) => void, reject: (error: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };

  #start(request: Request<unknown>): number {
    const slot = this.tryBegin(request.buffers);
    if (slot >= 0) this.#fill(slot, request);
    return slot;
  }

  #startOrThrow(request: Request<unknown>): number {
    const slot = this.begin(request.buffers);
    this.#fill(slot, request);
    return slot;
  }

  #fill(slot: number, request: Request<unknown>): void {
    try {
      request.fill(slot);
      this.submit(slot);
    } catch (error) {
      this.rewind(slot);
      throw error;
    }
    this.#handlers[slot] = request;
  }

  /** Leaves the ends of a promise with a slot. */
  #await(
    slot: number,
    resolve: (value: unknown) => void,
    reject: (error: unknown) => void,
    signal?: WaitOptions['signal'],
  ): void {
    if (signal !== undefined) {
      const generation = this.#generation[slot];
      ({ resolve, reject } = cancellable({ resolve, reject }, this.#transport, signal, () => {
        if (this.#generation[slot] === generation) this.#giveUp(slot);
      }));
    }
    this.#waits[slot] = AWAITED;
    this.#resolves[slot] = resolve;
    this.#rejects[slot] = reject;
    this.#awaited += 1;
    this.#interest.begin();
  }

  /** Takes the ends of the promise from a slot; returns the one that rejects. */
  #unawait(slot: number): (error: unknown) => void {
    const reject = this.#rejects[slot] ?? nothing;
    this.#resolves[slot] = undefined;
    this.#rejects[slot] = undefined;
    this.#waits[slot] = POLLED;
    this.#awaited -= 1;
    return reject;
  }

  /** The device has used the chain of a slot. */
  #used(slot: number, length: number): void {
    if (this.#state[slot] === LATE) {
      this.#end(slot, false);
      return;
    }
    this.#lengths[slot] = length;
    this.#state[slot] = DONE;
    const waits = this.#waits[slot];
    if (waits === SPUN) return;
    if (waits === AWAITED) {
      const resolve = this.#resolves[slot] ?? nothing;
      const reject = this.#unawait(slot);
      let value: unknown;
      try {
        value = this.#finish(slot);
      } catch (error) {
        reject(error);
        return;
      }
      resolve(value);
      return;
    }
    this.#inRing[slot] = 1;
    const place = this.#doneHead + this.#doneCount;
    this.#doneRing[place >= this.slots ? place - this.slots : place] = slot;
    this.#doneCount += 1;
  }

  /** Takes a slot out of the ring: it was polled, or completed by its token. Those before it, mostly none, move up. */
  #leaveRing(slot: number): void {
    const ring = this.#doneRing;
    const last = this.slots - 1;
    let place = this.#doneHead;
    while (ring[place] !== slot) place = place === last ? 0 : place + 1;
    while (place !== this.#doneHead) {
      const before = place === 0 ? last : place - 1;
      ring[place] = ring[before] as number;
      place = before;
    }
    this.#doneHead = place === last ? 0 : place + 1;
    this.#doneCount -= 1;
    this.#inRing[slot] = 0;
  }

  /** Judges the answer of a slot that is done, gives back what it holds, and returns its result. */
  #finish(slot: number): unknown {
    const handler = this.#handlers[slot] as RequestHandler<unknown>;
    const length = this.#lengths[slot] as number;
    const generation = this.#generation[slot];
    let good = false;
    try {
      if (handler.judge !== undefined) handler.judge(slot, length);
      good = true;
    } finally {
      // A judge may have failed the driver, and a listener have reset it.
      if (!good && this.#generation[slot] === generation) this.#end(slot, false);
    }
    this.#shared.giveBack(slot, true);
    try {
      return handler.result(slot, length);
    } finally {
      if (this.#generation[slot] === generation) this.#end(slot, false);
    }
  }

  /** Frees a slot and what it holds. */
  #end(slot: number, written: boolean): void {
    if (this.#waits[slot] === AWAITED) this.#unawait(slot);
    if (this.#inRing[slot] === 1) this.#leaveRing(slot);
    this.#state[slot] = FREE;
    this.#waits[slot] = POLLED;
    this.#handlers[slot] = this.#handler;
    const next = (this.#generation[slot] as number) + 1;
    this.#generation[slot] = next === this.#generations ? 0 : next;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
    this.#shared.giveBack(slot, written);
    if (this.#room.length > 0) this.#makeRoom();
  }

  /** The caller no longer waits. */
  #giveUp(slot: number): void {
    const state = this.#state[slot];
    if (this.#waits[slot] === AWAITED) this.#unawait(slot);
    if (state === IN_FLIGHT) {
      this.#state[slot] = LATE;
      this.#waits[slot] = GIVEN_UP;
    } else if (state === DONE) this.#end(slot, false);
    this.#update();
  }

  /** One who waited for room has cancelled, before the request began or after. */
  #leave(waiter: RoomWaiter): void {
    if (waiter.slot >= 0) {
      if (this.#generation[waiter.slot] === waiter.generation) this.#giveUp(waiter.slot);
      return;
    }
    // A signal may call listeners that were removed meanwhile: others must not leave in its place.
    const place = this.#room.indexOf(waiter);
    if (place < 0) return;
    this.#room.splice(place, 1);
    this.#makeRoom();
    this.#update();
  }

  /** Lets those who wait for room begin, in their order, as far as there is some for each of them. */
  #makeRoom(): void {
    if (this.#makingRoom || this.failure !== undefined) return;
    this.#makingRoom = true;
    try {
      for (;;) {
        const next = this.#room[0];
        if (next === undefined || this.#freeCount === 0 || this.queue.isBuilding) return;
        if (this.queue.availableDescriptors < next.descriptors) return;
        this.#room.shift();
        let slot: number;
        try {
          slot = next.start();
        } catch (error) {
          next.reject(error);
          continue;
        }
        if (slot < 0) {
          this.#room.unshift(next);
          return;
        }
        next.slot = slot;
        next.generation = this.#generation[slot] as number;
        this.#await(slot, next.resolve, next.reject);
        this.kickSoon();
      }
    } finally {
      this.#makingRoom = false;
    }
  }

  #update(): void {
    this.#interest.update(this.#awaited > 0 || this.#room.length > 0 || this.#listeners.length > 0);
  }

  /** Looks whether the device still works; if not, tells the driver. */
  #checkAlive(): void {
    try {
      this.#transport.checkAlive();
    } catch (error) {
      this.#report(error as VirtioError);
      throw error;
    }
  }

  /** The slot that a token names. */
  #slot(token: number): number {
    const local = (token - this.#lane) / this.#lanes;
    const slot = local % this.slots;
    if (
      Number.isInteger(token) &&
      token >= 0 &&
      this.#waits[slot] === POLLED &&
      (this.#generation[slot] as number) * this.slots + slot === local
    ) {
      const state = this.#state[slot];
      if (state === IN_FLIGHT || state === DONE || state === LOST) return slot;
    }
    if (this.failure !== undefined) throw this.failure;
    throw new VirtioError(
      'WRONG_TOKEN',
      `${this.#transport.who()}: ${String(token)} is not the token of a request that was submitted and not completed, or it is ` +
        'from before a reset',
    );
  }

  #lostError(): VirtioError {
    return (
      this.failure ??
      this.#lost ??
      new VirtioError('DEVICE_RESET', `${this.#transport.who()}: the request was lost: ask again`)
    );
  }

  #full(count: number): VirtioError {
    return new VirtioError(
      'QUEUE_FULL',
      `${this.#transport.who()}: queue ${this.queue.index} has no room for a request of ${count} buffers with ` +
        `${this.queue.inFlight} requests in flight; complete one first`,
    );
  }

  #late(timeoutMs: number): VirtioError {
    return new VirtioError(
      'NOT_READY',
      `${this.#transport.who()}: queue ${this.queue.index} was asked to finish within ${timeoutMs} ms and did not. The device ` +
        'still has the request, and its answer will be dropped: wait longer, or reset the device',
    );
  }
}

function nothing(): void {
  return;
}
