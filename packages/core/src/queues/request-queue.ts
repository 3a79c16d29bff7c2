/**
 * Requests on a queue, with three ways to wait that can be mixed: tokens that are polled for, spinning, and promises.
 *
 * A request has a slot from `tryBegin` until its result has been handed over. The driver keeps what belongs to a request (header,
 * status) in arrays and DMA memory by slot, allocated once. The ring's descriptors are free again as soon as the chain is used,
 * the slot only when its result has been taken.
 */
import { Deadline } from '../deadline.ts';
import { asError, VirtioError } from '../errors.ts';
import type { AnswerOptions, Request, SubmitOptions } from './request.ts';
import { RequestLifeCycle } from './request-life-cycle.ts';
import { CANCELLED, type RoomWaiter } from './room-line.ts';
import { type SpinOptions, SPINS_PER_CHECK, spinTime } from './spin.ts';
import { type AbortSignalLike, cancellable, requireWaitable, type WaitOptions } from './wait.ts';

/**
 * A queue for requests: a virtqueue, and the requests that are on it. {@link Driver.createRequestQueue} makes it.
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
export class RequestQueue<R = unknown> extends RequestLifeCycle<R> {
  // Promises.

  /**
   * Throws if the caller cannot wait with a promise. Call it before anything is sent.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if the transport has no interrupts, `ABORTED`, or why the device no longer works
   */
  checkWaitable(options?: WaitOptions): void {
    requireWaitable(this.transport, options);
    if (this.failure !== undefined) throw this.failure;
  }

  /** Whether callers wait for room; a new request with a promise then waits behind them. */
  get crowded(): boolean {
    return this.line.length > 0;
  }

  /**
   * Waits for the answer to the request of a slot that was just submitted. The device is notified when the turn ends.
   *
   * @returns a promise of its result; it rejects with the request's error, `ABORTED`, or why the request was lost
   */
  settled(slot: number, options?: AnswerOptions): Promise<R> {
    const { table } = this;
    this.kickSoon();
    if (options !== undefined) {
      const mine = table.generation(slot);
      const { signal, holds = true } = options;
      // These may be getters of the caller's, which have used the driver.
      if (table.generation(slot) !== mine || !table.isInFlight(slot)) return this.#ended(slot, mine);
      if (signal !== undefined || !holds) return this.#settledWith(slot, signal, holds);
    }
    const promise = this.promises.make(slot);
    table.await(slot);
    this.interest.begin();
    return promise as Promise<R>;
  }

  /** The result of a request that has ended before anybody waited for it. */
  #ended(slot: number, generation: number): Promise<R> {
    return new Promise((resolve) => {
      if (this.table.generation(slot) !== generation || !this.table.isDone(slot)) throw this.lostError();
      resolve(this.finish(slot) as R);
    });
  }

  #settledWith(slot: number, signal: AbortSignalLike | undefined, holds: boolean): Promise<R> {
    const { table } = this;
    const mine = table.generation(slot);
    return new Promise<unknown>((resolve, reject) => {
      cancellable({ resolve, reject }, this.transport, signal, {
        enter: (waiter) => {
          this.awaitAnswer(slot, waiter, holds);
        },
        leave: () => {
          if (table.generation(slot) === mine) this.giveUp(slot);
        },
      });
    }) as Promise<R>;
  }

  /**
   * Waits until a request can begin, begins it, and waits for its answer. Callers are served in the order in which they began to
   * wait.
   *
   * @param count the buffers of its chain
   * @param start builds and submits the request, and returns its slot, or -1 if there is still no room. What it sends must not
   * change in the meantime: copy arrays of the caller
   */
  whenRoom(count: number, start: () => number, options?: AnswerOptions): Promise<R> {
    return new Promise<unknown>((resolve, reject) => {
      this.checkWaitable(options);
      this.drain();
      // Draining may have failed the driver, and a listener may have cancelled; nothing would then settle this promise.
      this.checkWaitable(options);
      if (count > this.queue.size) this.queue.begin(count);
      // With all descriptors free, the device has none of the requests whose slots are taken.
      const { isBuilding, availableDescriptors } = this.queue;
      if (this.table.free === 0 && !isBuilding && availableDescriptors === this.slots) {
        throw new VirtioError(
          'QUEUE_FULL',
          `${this.transport.who()}: all ${this.slots} requests of queue ${this.queue.index} are done and not completed; complete one first`,
        );
      }
      const { signal, holds = true } = options ?? {};
      let place: RoomWaiter;
      cancellable({ resolve, reject }, this.transport, signal, {
        enter: (waiter) => {
          const descriptors = this.queue.descriptorsFor(count);
          place = { ...waiter, descriptors, start, holds, slot: -1, generation: 0 };
          this.line.join(place);
          this.interest.begin(holds);
          this.line.serve();
        },
        leave: () => {
          this.#leave(place);
        },
      });
    }) as Promise<R>;
  }

  /** Submits a request and waits with a promise: for room, if necessary, and for the answer. */
  request<T>(request: Request<T>, options?: AnswerOptions): Promise<T> {
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
   * Submits a request and spins until the device has answered.
   *
   * @throws {@link VirtioError} `QUEUE_FULL`, the request's error, `NOT_READY` after the time allowed, or why it was lost
   */
  requestSync<T>(request: Request<T>, options?: SpinOptions): T {
    this.checkSpin(options);
    return this.waitSync(this.#startOrThrow(request), options) as unknown as T;
  }

  /**
   * Throws if `timeoutMs` is invalid. Call it before anything is sent.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  checkSpin(options: SpinOptions | undefined): void {
    if (options !== undefined) spinTime(this.transport, options);
  }

  /**
   * Notifies the device of the request of a slot that was just submitted, and spins until it is answered.
   *
   * @returns its result
   * @throws {@link VirtioError} as {@link RequestQueue.requestSync}
   */
  waitSync(slot: number, options?: SpinOptions): R {
    const { table } = this;
    const mine = table.generation(slot);
    table.spin(slot);
    let deadline: Deadline | undefined;
    try {
      this.kick();
      for (let spins = 1; ; spins += 1) {
        this.drain();
        // A listener may have reset the driver in the meantime: the slot is then free, or another request has it.
        if (table.generation(slot) !== mine || table.isLost(slot)) throw this.lostError();
        if (table.isDone(slot)) break;
        if (spins % SPINS_PER_CHECK !== 0) continue;
        this.#checkAlive();
        if (!table.isInFlight(slot) || table.generation(slot) !== mine) continue;
        deadline ??= new Deadline(spinTime(this.transport, options));
        if (deadline.isOver) throw this.#late(spinTime(this.transport, options));
      }
    } catch (error) {
      if (table.generation(slot) === mine) this.giveUp(slot);
      throw error;
    }
    return this.finish(slot) as R;
  }

  /**
   * The same as {@link RequestQueue.waitSync} for two requests that were just submitted, the second of which depends on the
   * first: `poll()` returns neither of them. If the first fails, the second is given up.
   *
   * @returns the result of the second
   * @throws {@link VirtioError} as {@link RequestQueue.requestSync}
   */
  waitSyncBoth(first: number, second: number, options?: SpinOptions): R {
    const { table } = this;
    const mine = table.generation(second);
    table.spin(second);
    try {
      this.waitSync(first, options);
    } catch (error) {
      if (table.generation(second) === mine) this.giveUp(second);
      throw error;
    }
    if (table.generation(second) !== mine) throw this.lostError();
    return this.waitSync(second, options);
  }

  // Tokens.

  /**
   * Submits a request without waiting for its answer.
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
   * Takes the next request that is done, of those that were submitted to be polled for, in the order in which the device used
   * them.
   *
   * @returns its token, once, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    const { table, lost } = this;
    if (table.done === 0) this.drain();
    if (table.done > 0) return table.token(table.takeDone());
    if (this.failure !== undefined) throw this.failure;
    // The failure was found just now, and a listener or another thread has reset the device: all tokens are invalid.
    if (this.lost !== lost && this.lost !== undefined) throw this.lost;
    return -1;
  }

  /**
   * Whether {@link RequestQueue.complete} will end the request: with its result, or with the error why it was lost.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    const slot = this.#slot(token);
    if (this.table.isInFlight(slot)) this.drain();
    return !this.table.isInFlight(slot);
  }

  /**
   * Ends a request that is done: its buffers belong to the caller again, and its token is no longer valid.
   *
   * @returns its result
   * @throws {@link VirtioError} the request's error; `NOT_READY` if the device still has it, `WRONG_TOKEN` if the token names no
   * request that was submitted and not completed, or is from before a reset; or why it was lost
   */
  complete(token: number): R {
    const { table } = this;
    let slot = this.#slot(token);
    if (table.isInFlight(slot)) {
      this.drain();
      slot = this.#slot(token);
    }
    if (table.isDone(slot)) return this.finish(slot) as R;
    if (table.isLost(slot)) throw this.lostError();
    throw new VirtioError(
      'NOT_READY',
      `${this.transport.who()}: request ${token} is still in flight; poll() until it is done, or cancel() it`,
    );
  }

  /**
   * Gives a request up. The device may still carry it out; its buffers stay shared until it is answered or the device is reset.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.giveUp(this.#slot(token));
  }

  #start(request: Request<unknown>): number {
    const slot = this.tryBegin(request.buffers);
    if (slot >= 0) this.fill(slot, request);
    return slot;
  }

  #startOrThrow(request: Request<unknown>): number {
    const slot = this.begin(request.buffers);
    this.fill(slot, request);
    return slot;
  }

  /** A caller that waited for room has cancelled, before or after the request began. */
  #leave(waiter: RoomWaiter): void {
    if (waiter.slot >= 0) {
      if (this.table.generation(waiter.slot) === waiter.generation) this.giveUp(waiter.slot);
      return;
    }
    if (!this.line.leave(waiter)) {
      // Its request is being built.
      waiter.slot = CANCELLED;
      return;
    }
    this.line.serve();
    this.update();
  }

  /** Checks whether the device still works; if not, tells the driver. */
  #checkAlive(): void {
    try {
      this.transport.checkAlive();
    } catch (error) {
      this.report(error as VirtioError);
      throw error;
    }
  }

  /** The slot that a token names. */
  #slot(token: number): number {
    const slot = this.table.slotOf(token);
    if (slot >= 0) return slot;
    if (this.failure !== undefined) throw this.failure;
    throw new VirtioError(
      'WRONG_TOKEN',
      `${this.transport.who()}: ${String(token)} is not the token of a request that was submitted and not completed, or it is ` +
        'from before a reset',
    );
  }

  #late(timeoutMs: number): VirtioError {
    return new VirtioError(
      'NOT_READY',
      `${this.transport.who()}: queue ${this.queue.index} was asked to finish within ${timeoutMs} ms and did not. The device ` +
        'still has the request, and its answer will be dropped: wait longer, or reset the device',
    );
  }
}
