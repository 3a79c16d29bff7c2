/**
 * The life of a request on a queue: its chain is begun, filled and submitted; its answer is checked, or comes late; its slot is
 * free again. How callers wait meanwhile is in `request-queue.ts`.
 *
 * A caller may give up: by a timeout, an abort, or `cancel`. The device then still has the request. Its buffers stay shared and
 * its slot stays taken until the device answers or is reset; the answer is dropped, and can never be taken for that of another
 * request.
 *
 * Anything may happen inside a callback: a listener may reset or dispose the driver while a call spins, a device may answer
 * inside `notify`. So nothing here relies on state of the queue that was read before a call which may run other code.
 */
import type { Transport } from '../device/transport.ts';
import { asError, VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import { Announcer } from './announcer.ts';
import type { DriverQueue } from './driver-queue.ts';
import { Interest } from './interest.ts';
import { Promises, Rejection, type Resolve } from './promises.ts';
import type { Request, RequestHandler } from './request.ts';
import { CANCELLED, RoomLine, type RoomWaiter } from './room-line.ts';
import { SharedBuffers } from './shared-buffers.ts';
import { Slots } from './slots.ts';
import type { Waiter } from './wait.ts';

/** What a {@link RequestQueue} is made of; {@link Driver.createRequestQueue} provides it. */
export interface RequestQueueParts<R> {
  readonly queue: VirtQueue;
  readonly transport: Transport;
  /** The handler of requests that have none of their own. */
  readonly handler: RequestHandler<R>;
  /** Tells the driver that the device has lied or is gone; it then calls `RequestLifeCycle.fail`. */
  readonly report: (error: VirtioError) => void;
  /** Where a device has several queues whose tokens must differ: the number of this queue, and how many there are. */
  readonly lane?: readonly [index: number, of: number];
}

/** The base of {@link RequestQueue}: the life of requests, independent of how their callers wait. */
export abstract class RequestLifeCycle<R> implements DriverQueue {
  /** The virtqueue. */
  readonly queue: VirtQueue;
  /** The number of slots: as many as the queue has descriptors. */
  readonly slots: number;

  protected readonly transport: Transport;
  protected readonly report: (error: VirtioError) => void;
  protected readonly table: Slots;
  protected readonly promises: Promises;
  protected readonly interest: Interest;
  protected readonly line: RoomLine;
  /** Why requests were lost the last time. */
  protected lost: VirtioError | undefined;

  readonly #handler: RequestHandler<R>;
  readonly #announcer: Announcer;
  readonly #shared: SharedBuffers;
  // By slot.
  readonly #lengths: Float64Array;
  readonly #handlers: RequestHandler<unknown>[];
  /** By token of the ring. */
  readonly #slotOf: Uint16Array;
  #listeners: readonly (() => void)[] = [];
  #failure: VirtioError | undefined;

  /** @internal use {@link Driver.createRequestQueue} */
  constructor({ queue, transport, handler, report, lane = [0, 1] }: RequestQueueParts<R>) {
    const { size } = queue;
    this.queue = queue;
    this.slots = size;
    this.transport = transport;
    this.report = report;
    this.table = new Slots(size, lane);
    this.promises = new Promises(size);
    this.#handler = handler;
    this.#announcer = new Announcer(queue, report);
    this.#shared = new SharedBuffers(queue, size);
    this.#lengths = new Float64Array(size);
    this.#handlers = new Array<RequestHandler<unknown>>(size).fill(handler);
    this.#slotOf = new Uint16Array(size);
    this.line = new RoomLine({
      hasRoom: (descriptors) =>
        this.failure === undefined &&
        this.table.free > 0 &&
        !queue.isBuilding &&
        queue.availableDescriptors >= descriptors,
      begun: this.#begun,
    });
    this.interest = new Interest(transport, queue, { onUsed: this.#onUsed, report });
  }

  /** How many requests the device has. */
  get inFlight(): number {
    return this.queue.inFlight;
  }

  /** Why the queue no longer works, until the driver is reset; `undefined` if it works. */
  get failure(): VirtioError | undefined {
    return this.#failure ?? this.queue.failure;
  }

  /**
   * Takes a slot and begins a chain of `count` buffers for it: push the buffers, then call {@link RequestLifeCycle.submit}, or
   * {@link RequestLifeCycle.rewind} to abandon it.
   *
   * @returns the slot, or -1 if there is no room now
   */
  tryBegin(count: number): number {
    if (this.#failure !== undefined) this.#revive(this.#failure);
    if (this.table.free === 0 || !this.queue.tryBegin(count)) return -1;
    return this.table.take();
  }

  /**
   * The same as {@link RequestLifeCycle.tryBegin}, but takes used buffers if there is no room, and throws if there is still none.
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

  /** Shares a buffer that the device reads and pushes it as one descriptor. It is unshared when the request has ended. */
  shareReadable(slot: number, buffer: Uint8Array): void {
    // Before it is shared: another thread may enlarge shared memory.
    const { length } = buffer;
    this.queue.pushReadable(this.#shared.share(slot, buffer, false), length);
  }

  /** Shares a buffer that the device writes and pushes it as one descriptor. It is unshared when the request has ended. */
  shareWritable(slot: number, buffer: Uint8Array): void {
    const { length } = buffer;
    this.queue.pushWritable(this.#shared.share(slot, buffer, true), length);
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

  /** Undoes {@link RequestLifeCycle.tryBegin}: frees the slot, unshares its buffers and abandons the chain that was begun. */
  rewind(slot: number): void {
    if (!this.table.isBegun(slot)) return;
    this.queue.rewind();
    this.#end(slot);
  }

  /**
   * Ends the chain of a slot. It is available to the device after {@link RequestLifeCycle.kick}; the caller waits by
   * {@link RequestQueue.settled}, {@link RequestQueue.waitSync} or {@link RequestQueue.poll}.
   *
   * @returns the token of the request
   */
  submit(slot: number): number {
    const { table } = this;
    this.#slotOf[this.queue.submit()] = slot;
    table.submit(slot);
    return table.token(slot);
  }

  /** The token of the request that a slot holds. */
  token(slot: number): number {
    return this.table.token(slot);
  }

  /** Makes all that was submitted available to the device, and notifies it if it wants that. */
  kick(): void {
    this.#announcer.kick();
  }

  /** Calls {@link RequestLifeCycle.kick} when the current turn of the event loop ends, once for all that was submitted in it. */
  kickSoon(): void {
    this.#announcer.kickSoon();
  }

  /**
   * Calls a listener when requests that are polled for are done. Interrupts are enabled while there is a listener.
   *
   * @returns a function that removes the listener
   */
  listen(listener: () => void): () => void {
    const entry = (): void => {
      listener();
    };
    this.#listeners = [...this.#listeners, entry];
    // Not while the device has failed: after a reset.
    this.update();
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== entry);
      this.update();
    };
  }

  /** Takes all buffers that the device has used, and settles the promises of their requests. For platforms without interrupts. */
  drain(): void {
    const { failure } = this;
    if (failure !== undefined) {
      // A lie that was found outside of a drain, of which the driver does not know.
      if (this.#failure === undefined) this.report(failure);
      else this.transport.look();
      return;
    }
    let any = false;
    try {
      for (let token = this.queue.pop(); token >= 0; token = this.queue.pop()) {
        any = true;
        this.#used(this.#slotOf[token] as number, this.queue.usedLength);
        // Settling a request may have led to a failure.
        if (this.queue.failure !== undefined) break;
      }
    } catch (error) {
      any = true;
      this.report(error as VirtioError);
    }
    if (!any) {
      this.transport.look();
      return;
    }
    if (this.line.length > 0) this.line.serve();
    this.interest.brought();
    this.update();
  }

  // For the driver.

  /** @internal Ends all waits with an error, and refuses all calls until {@link RequestLifeCycle.restart}. */
  fail(error: VirtioError): void {
    const failed = this.#failure !== undefined;
    this.#failure = error;
    this.queue.fail(error);
    if (failed) return;
    this.lost = error;
    const { table } = this;
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (!table.isInFlight(slot) && !table.isLate(slot)) continue;
      table.lose(slot);
      if (table.isAwaited(slot)) this.#unawait(slot)(new Rejection(error));
    }
    this.line.rejectAll(error);
    this.update();
  }

  /** @internal */
  lose(error: VirtioError): void {
    this.fail(error);
  }

  /**
   * @internal The device was reset and no longer has any buffers: all tokens are invalid, and all buffers belong to their callers
   * again.
   */
  forget(error: VirtioError): void {
    if (this.#failure === undefined) this.fail(error);
    this.queue.rewind();
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (!this.table.isFree(slot)) this.#end(slot);
    }
  }

  /** @internal The queue is empty and was given to the device again. */
  restart(): void {
    this.#failure = undefined;
  }

  /** @internal The device is live. */
  start(): void {
    this.update();
  }

  /** @internal */
  [Symbol.dispose](): void {
    this.#listeners = [];
  }

  // For those who wait.

  /** Builds and submits a request whose slot was taken. If that throws, nothing is left of it. */
  protected fill(slot: number, request: Request<unknown>): void {
    try {
      request.fill(slot);
      this.submit(slot);
    } catch (error) {
      this.rewind(slot);
      throw error;
    }
    this.#handlers[slot] = request;
  }

  /** Checks the answer of a slot that is done, releases what the slot holds, and returns the result. */
  protected finish(slot: number): unknown {
    const { table } = this;
    const handler = this.#handlers[slot] as RequestHandler<unknown>;
    const length = this.#lengths[slot] as number;
    const generation = table.generation(slot);
    try {
      if (handler.judge !== undefined) handler.judge(slot, length);
      // The handler may have failed the driver, and a listener may have reset it: the slot is then free, or another request has
      // it.
      if (table.generation(slot) !== generation) throw this.lostError();
      if (!this.#shared.giveBack(slot, true)) throw this.#resized();
      const result = handler.result(slot, length);
      if (table.generation(slot) === generation) this.#release(slot);
      return result;
    } catch (error) {
      if (table.generation(slot) === generation) this.#end(slot);
      throw error;
    }
  }

  /** The caller no longer waits. */
  protected giveUp(slot: number): void {
    const { table } = this;
    if (table.isAwaited(slot)) this.#unawait(slot);
    if (table.isInFlight(slot)) table.giveUp(slot);
    else if (table.isDone(slot)) this.#end(slot);
    this.update();
  }

  /** Enables interrupts for as long as a caller waits, and keeps the event loop alive unless none of them wants that. */
  protected update(): void {
    const { promises, line, table } = this;
    const holds = promises.count > table.watched || line.holding > 0 || this.#listeners.length > 0;
    this.interest.update(holds, holds || promises.count > 0 || line.length > 0);
  }

  /** A caller waits with a promise for the answer to the request of a slot. */
  protected awaitAnswer(slot: number, { resolve }: Waiter<unknown>, holds: boolean): void {
    this.promises.put(slot, resolve);
    if (holds) this.table.await(slot);
    else this.table.watch(slot);
    this.interest.begin(holds);
  }

  /** Why a request was lost. */
  protected lostError(): VirtioError {
    return (
      this.failure ??
      this.lost ??
      new VirtioError('DEVICE_RESET', `${this.transport.who()}: the request was lost: ask again`)
    );
  }

  /** The device has used the chain of a slot. */
  #used(slot: number, length: number): void {
    const { table } = this;
    if (!table.isInFlight(slot)) {
      if (table.isLate(slot)) this.#end(slot);
      return;
    }
    this.#lengths[slot] = length;
    table.finish(slot);
    if (!table.isAwaited(slot)) {
      if (table.isPolled(slot)) table.pushDone(slot);
      return;
    }
    const resolve = this.#unawait(slot);
    let value: unknown;
    try {
      value = this.finish(slot);
    } catch (error) {
      value = new Rejection(error);
    }
    resolve(value);
  }

  /** Frees a slot and what it holds. What the device wrote is ignored. */
  #end(slot: number): void {
    if (this.table.isAwaited(slot)) this.#unawait(slot);
    this.#shared.giveBack(slot, false);
    this.#release(slot);
  }

  /** Frees a slot that holds nothing any more, and lets the next caller that waits begin. */
  #release(slot: number): void {
    if (this.#handlers[slot] !== this.#handler) this.#handlers[slot] = this.#handler;
    this.table.release(slot);
    if (this.line.length > 0) this.line.serve();
  }

  /** Throws the failure, unless another thread that has the device has reset it meanwhile. */
  #revive(failure: VirtioError): void {
    this.transport.look();
    if (this.failure !== undefined) throw failure;
  }

  /** The caller no longer waits with a promise; returns the function that settles it. */
  #unawait(slot: number): Resolve {
    this.table.poll(slot);
    return this.promises.remove(slot);
  }

  /** A caller that waited for room now waits for the answer. */
  readonly #begun = (waiter: RoomWaiter, slot: number): void => {
    this.kickSoon();
    if (waiter.slot === CANCELLED) {
      this.giveUp(slot);
      return;
    }
    waiter.slot = slot;
    waiter.generation = this.table.generation(slot);
    this.awaitAnswer(slot, waiter, waiter.holds);
  };

  readonly #onUsed = (): void => {
    this.drain();
    if (this.table.done === 0) return;
    for (const listener of this.#listeners) {
      // A listener has disposed the driver.
      if (this.#listeners.length === 0) return;
      try {
        listener();
      } catch (error) {
        void Promise.reject(asError(error));
      }
    }
  };

  #resized(): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: a buffer was transferred or resized while the device had it, so what the device wrote is lost; leave ` +
        'the buffers of a request as they are until it has ended',
    );
  }

  #full(count: number): VirtioError {
    return new VirtioError(
      'QUEUE_FULL',
      `${this.transport.who()}: queue ${this.queue.index} has no room for a request of ${count} buffers with ` +
        `${this.queue.inFlight} requests in flight; complete one first`,
    );
  }
}
