/**
 * Requests on a queue, in all three ways to wait at once: non-blocking (`poll`), synchronous (`waitSync`) and with
 * promises (`done`). A driver has a fixed number of slots, each with what a request needs (header, status, shared
 * buffers) in arrays that the driver allocates once; this class keeps track of which slot is where.
 *
 * A slot outlives its chain: the queue's token is free again as soon as the chain is popped, the slot only when the
 * driver has looked at the result. Whoever waits is told in the way in which they wait, so that promises, spinning and
 * polling can be mixed on one queue.
 *
 * Promise users share notifications: all that is submitted in one turn of the event loop is published and kicked once.
 */
import { cancellable, requireInterrupts, type Waiter, type WaitOptions } from './wait.ts';
import { VirtioError } from './errors.ts';
import type { SpinOptions, VirtQueue } from './virt-queue.ts';
import type { Transport } from './transport.ts';

const FREE = 0;
const HELD = 1;
const IN_FLIGHT = 2;
const DONE = 3;
const LOST = 4;

interface RoomWaiter extends Waiter {
  /** The descriptors that it needs. */
  readonly descriptors: number;
}

/** Tracks the requests of one queue. */
export class RequestQueue {
  /** The queue below. */
  readonly queue: VirtQueue;
  /** The number of slots: as many as the queue has descriptors. */
  readonly slots: number;

  readonly #transport: Transport;
  readonly #abandon: (slot: number) => void;
  readonly #report: (error: VirtioError) => void;
  readonly #state: Uint8Array;
  readonly #lengths: Float64Array;
  readonly #slotOf: Uint16Array;
  readonly #free: Uint16Array;
  #freeCount: number;
  /** Slots that are done and that nobody waits for, oldest first; `#inRing` marks them, so that none is in it twice. */
  readonly #doneRing: Uint16Array;
  readonly #inRing: Uint8Array;
  #doneHead = 0;
  #doneCount = 0;
  /** The slot that `waitSync` spins for, or -1. */
  #spinsFor = -1;
  readonly #waiters: (Waiter | undefined)[] = [];
  #waiting = 0;
  readonly #room: RoomWaiter[] = [];
  /** Those who were told that there is room and have not taken it yet, and the descriptors that they will take. */
  #woken = 0;
  #wokenDescriptors = 0;
  #holding = false;
  #kickScheduled = false;
  #failure: VirtioError | undefined;

  /**
   * @param queue the queue, which must be used through this object only
   * @param transport whose interrupts tell of used buffers
   * @param abandon gives back what a slot holds (shared buffers) when its request was lost to a reset; the device no
   * longer has it
   * @param report tells the driver that the device has lied; the driver then calls {@link RequestQueue.fail}
   */
  constructor(
    queue: VirtQueue,
    transport: Transport,
    abandon: (slot: number) => void,
    report?: (error: VirtioError) => void,
  ) {
    this.queue = queue;
    this.slots = queue.size;
    this.#transport = transport;
    this.#abandon = abandon;
    this.#report = report ?? ((error) => this.fail(error));
    this.#state = new Uint8Array(this.slots);
    this.#lengths = new Float64Array(this.slots);
    this.#slotOf = new Uint16Array(this.slots);
    this.#free = new Uint16Array(this.slots);
    this.#doneRing = new Uint16Array(this.slots);
    this.#inRing = new Uint8Array(this.slots);
    this.#freeCount = 0;
    this.#refill();
    transport.interrupts?.onQueue(queue.index, this.#interrupt);
  }

  /** Requests in flight. */
  get inFlight(): number {
    return this.queue.inFlight;
  }

  /** Why nothing works any more, until {@link RequestQueue.reset}. */
  get failure(): VirtioError | undefined {
    return this.#failure ?? this.queue.failure;
  }

  /**
   * Takes a slot and begins a chain of `count` buffers for it: push the buffers, then call {@link RequestQueue.submit}, or
   * {@link RequestQueue.cancel} if that does not work out.
   *
   * @returns the slot, or -1 if there is no room now
   */
  tryBegin(count: number): number {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#freeCount === 0 || !this.queue.tryBegin(count)) return -1;
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount] as number;
    this.#state[slot] = HELD;
    return slot;
  }

  /**
   * The same as {@link RequestQueue.tryBegin}, but looks for used chains if there is no room.
   *
   * @throws {@link VirtioError} `QUEUE_FULL`
   */
  begin(count: number): number {
    let slot = this.tryBegin(count);
    if (slot < 0) {
      this.drain();
      slot = this.tryBegin(count);
    }
    if (slot < 0) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.#transport.who()}: queue ${this.queue.index} has no room for a request of ${count} buffers with ` +
          `${this.queue.inFlight} requests in flight; complete one first`,
      );
    }
    return slot;
  }

  /**
   * Whether others wait for room: who is new then waits behind them, or those who come back at once would keep them waiting
   * for ever.
   */
  get crowded(): boolean {
    return this.#room.length > 0 || this.#woken > 0;
  }

  /**
   * Waits until {@link RequestQueue.tryBegin} for `count` buffers may succeed; the first to wait is the first to go on.
   *
   * @param options a signal that cancels the wait, which then rejects with `ABORTED` and leaves the room to the next
   * @example
   * ```ts
   * import type { RequestQueue } from '@virtio/core';
   *
   * export async function send(requests: RequestQueue, address: number, length: number): Promise<void> {
   *   let slot = requests.crowded ? -1 : requests.tryBegin(1);
   *   while (slot < 0) {
   *     await requests.room(1);
   *     slot = requests.tryBegin(1);
   *   }
   *   requests.queue.pushReadable(address, length);
   *   requests.submit(slot);
   *   requests.flushSoon();
   *   await requests.done(slot);
   *   requests.release(slot);
   * }
   * ```
   */
  async room(count: number, options: WaitOptions = {}): Promise<void> {
    if (count > this.queue.size) this.queue.begin(count);
    this.drain();
    if (this.#doneCount === this.slots) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.#transport.who()}: all ${this.slots} requests of queue ${this.queue.index} are done and wait to be completed`,
      );
    }
    const descriptors = this.queue.descriptorsFor(count);
    await new Promise<void>((resolve, reject) => {
      this.#checkWaitable();
      const waiter: RoomWaiter = {
        descriptors,
        ...cancellable({ resolve, reject }, this.#transport, options.signal, () => {
          this.#room.splice(this.#room.indexOf(waiter), 1);
          this.#settle();
        }),
      };
      this.#room.push(waiter);
      this.#watch();
      this.#makeRoom();
    });
    this.#woken -= 1;
    this.#wokenDescriptors -= descriptors;
  }

  /** Gives a slot and the chain that was begun for it back. */
  cancel(slot: number): void {
    this.queue.rewind();
    this.release(slot);
  }

  /** Ends the slot's chain. The device sees it after {@link RequestQueue.flush}, or {@link RequestQueue.flushSoon}. */
  submit(slot: number): void {
    const token = this.queue.submit();
    this.#slotOf[token] = slot;
    this.#state[slot] = IN_FLIGHT;
  }

  /** Publishes what was submitted, and notifies the device if it wants that. */
  flush(): void {
    this.queue.publish();
    this.queue.kick();
  }

  /** Calls {@link RequestQueue.flush} when the current turn of the event loop ends, once for all that was submitted in it. */
  flushSoon(): void {
    if (this.#kickScheduled) return;
    this.#kickScheduled = true;
    void Promise.resolve().then(this.#kickNow);
  }

  /** Takes all chains that the device has used. Call it where the transport has no interrupts. */
  drain(): void {
    if (this.failure !== undefined) return;
    try {
      for (;;) {
        const token = this.queue.pop();
        if (token < 0) break;
        this.#used(this.#slotOf[token] as number, this.queue.usedLength);
      }
    } catch (error) {
      this.#report(error as VirtioError);
    }
    this.#settle();
  }

  /**
   * The next request, in the order in which the device used them, that nobody waits for in another way.
   *
   * @returns its slot, to be completed and released, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    for (;;) {
      if (this.#doneCount === 0) this.drain();
      if (this.#doneCount === 0) break;
      const slot = this.#doneRing[this.#doneHead] as number;
      this.#inRing[slot] = 0;
      this.#doneHead = this.#doneHead + 1 === this.slots ? 0 : this.#doneHead + 1;
      this.#doneCount -= 1;
      // A slot that was completed since in another way is no longer of interest.
      if (this.#state[slot] === DONE) return slot;
    }
    if (this.failure !== undefined) throw this.failure;
    return -1;
  }

  /** Whether the request of a slot is done. */
  isDone(slot: number): boolean {
    if (this.#state[slot] !== DONE) this.drain();
    return this.#state[slot] === DONE;
  }

  /** The bytes that the device wrote for a slot that is done. */
  usedLength(slot: number): number {
    return this.#lengths[slot] as number;
  }

  /**
   * Checks that a slot can be completed now.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN` if it is not a request of the caller's, `NOT_READY` if it is not done, or why the
   * request was lost
   */
  requireDone(slot: number): void {
    const state = this.#state[slot];
    if (state === DONE) return;
    if (state === IN_FLIGHT && this.isDone(slot)) return;
    if (state === IN_FLIGHT || state === LOST) {
      if (this.failure !== undefined) throw this.failure;
      throw new VirtioError(
        'NOT_READY',
        `${this.#transport.who()}: request ${slot} is still in flight; poll() until it is done`,
      );
    }
    throw new VirtioError(
      'WRONG_TOKEN',
      `${this.#transport.who()}: ${slot} is not a request that was submitted and not completed`,
    );
  }

  /**
   * Waits until the request of a slot is done.
   *
   * @returns a promise that rejects if the request is lost because the device failed, was reset or is gone
   */
  done(slot: number): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#state[slot] === DONE) {
        resolve();
        return;
      }
      this.#checkWaitable();
      this.#waiters[slot] = { resolve, reject };
      this.#waiting += 1;
      this.#watch();
    });
  }

  /**
   * Spins until the request of a slot is done.
   *
   * @throws {@link VirtioError} why the request was lost, or `NOT_READY`: it is still in flight
   */
  waitSync(slot: number, options?: SpinOptions): void {
    this.#spinsFor = slot;
    try {
      this.queue.spin(this.#spun, options);
    } catch (error) {
      if (VirtioError.is(error, 'DEVICE_NEEDS_RESET') || VirtioError.is(error, 'DEVICE_REMOVED')) {
        this.#report(error);
      }
      throw error;
    } finally {
      this.#spinsFor = -1;
    }
  }

  /** Whether the request that `waitSync` spins for is done. A member, so that no closure is made for each request. */
  readonly #spun = (): boolean => {
    this.drain();
    if (this.#state[this.#spinsFor] === DONE) return true;
    if (this.failure !== undefined) throw this.failure;
    return false;
  };

  /** Frees a slot whose request is done and completed. */
  release(slot: number): void {
    const state = this.#state[slot];
    if (state !== HELD && state !== DONE) return;
    this.#state[slot] = FREE;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
    if (this.#room.length > 0) this.#makeRoom();
  }

  /** Fails all requests in flight, and all calls until {@link RequestQueue.reset}. What they hold stays with the device until then. */
  fail(error: VirtioError): void {
    const first = this.#failure === undefined;
    this.#failure = error;
    if (!first) return;
    this.queue.fail(error);
    for (let slot = 0; slot < this.slots; slot += 1) {
      if (this.#state[slot] !== IN_FLIGHT) continue;
      this.#state[slot] = LOST;
      const waiter = this.#waiters[slot];
      this.#waiters[slot] = undefined;
      waiter?.reject(error);
    }
    for (const waiter of this.#room.splice(0)) waiter.reject(error);
    this.#waiting = 0;
    this.#settle();
  }

  /**
   * Gives back what lost requests hold. The device must have been reset. `fail` is called first if that has not happened.
   */
  forget(error: VirtioError): void {
    this.fail(error);
    for (let slot = 0; slot < this.slots; slot += 1) if (this.#state[slot] === LOST) this.#abandon(slot);
  }

  /** After a reset of the device and {@link RequestQueue.forget}: begins anew. Requests that are done stay done. */
  reset(): void {
    this.queue.reset();
    this.#failure = undefined;
    for (let slot = 0; slot < this.slots; slot += 1) if (this.#state[slot] === LOST) this.#state[slot] = FREE;
    this.#refill();
  }

  readonly #interrupt = (): void => {
    this.drain();
  };

  readonly #kickNow = (): void => {
    this.#kickScheduled = false;
    if (this.failure !== undefined) return;
    try {
      this.flush();
    } catch (error) {
      this.#report(error as VirtioError);
    }
  };

  #used(slot: number, length: number): void {
    this.#lengths[slot] = length;
    this.#state[slot] = DONE;
    const waiter = this.#waiters[slot];
    if (waiter !== undefined) {
      this.#waiters[slot] = undefined;
      this.#waiting -= 1;
      waiter.resolve();
      return;
    }
    if (slot === this.#spinsFor || this.#inRing[slot] === 1) return;
    this.#inRing[slot] = 1;
    const place = this.#doneHead + this.#doneCount;
    this.#doneRing[place >= this.slots ? place - this.slots : place] = slot;
    this.#doneCount += 1;
  }

  /** Tells those who wait for room, in their order, as far as there is some for each of them. */
  #makeRoom(): void {
    for (;;) {
      const next = this.#room[0];
      if (next === undefined || this.#freeCount <= this.#woken) return;
      if (this.queue.availableDescriptors < this.#wokenDescriptors + next.descriptors) return;
      this.#room.shift();
      this.#woken += 1;
      this.#wokenDescriptors += next.descriptors;
      next.resolve();
    }
  }

  /** Somebody waits: interrupts are wanted. */
  #watch(): void {
    if (this.#holding) return;
    this.#holding = true;
    this.#transport.interrupts?.hold();
    this.#arm();
  }

  /** Asks for the next interrupt, and drains soon if there are used chains already. */
  #arm(): void {
    try {
      if (this.queue.enableInterrupts()) void Promise.resolve().then(this.#interrupt);
    } catch (error) {
      this.#report(error as VirtioError);
    }
  }

  #checkWaitable(): void {
    if (this.failure !== undefined) throw this.failure;
    requireInterrupts(this.#transport);
  }

  /** After a drain: asks for the next interrupt if somebody still waits, and for none otherwise. */
  #settle(): void {
    if (this.#room.length > 0) this.#makeRoom();
    if (!this.#holding) return;
    if (this.failure === undefined) {
      if (this.#waiting > 0 || this.#room.length > 0) {
        this.#arm();
        return;
      }
      this.queue.disableInterrupts();
    }
    this.#holding = false;
    this.#transport.interrupts?.release();
  }

  #refill(): void {
    this.#freeCount = 0;
    for (let slot = this.slots - 1; slot >= 0; slot -= 1) {
      if (this.#state[slot] !== FREE) continue;
      this.#free[this.#freeCount] = slot;
      this.#freeCount += 1;
    }
  }
}
