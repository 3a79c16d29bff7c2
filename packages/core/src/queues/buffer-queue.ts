/**
 * A queue with buffers of its own in one DMA region, each a chain of one descriptor: what receiving and sending have in common. A
 * caller that is woken must check again, as another one may have taken what there was.
 */
import { requireInteger } from '../check.ts';
import type { Transport } from '../device/transport.ts';
import { asError, VirtioError } from '../errors.ts';
import { type BufferDirection, type DmaRegion, type Hal, PAGE_SIZE } from '../memory/hal.ts';
import { MAX_QUEUE_SIZE, type QueueOptions, type VirtQueue } from '../ring/virt-queue.ts';
import { Announcer } from './announcer.ts';
import type { DriverQueue } from './driver-queue.ts';
import { Interest } from './interest.ts';
import { spin, type SpinOptions } from './spin.ts';
import { cancellable, requireWaitable, type Waiter, type WaitOptions } from './wait.ts';

/** The largest buffer that a queue of this kind can have, in bytes. */
const MAX_BUFFER_SIZE = 2 ** 28;

/** How much is handed over without waiting before other work has a turn. */
const TURNS = 256;

/** Options of a queue with buffers of its own. */
export interface BufferQueueOptions extends QueueOptions {
  /** The bytes of each buffer. */
  readonly bufferSize: number;
  /** How many buffers (default, and at most: as many as the queue has descriptors for). */
  readonly buffers?: number | undefined;
  /** How many bytes at the start of each buffer have a descriptor of their own, as legacy devices may require (default 0: none). */
  readonly head?: number | undefined;
  /** Whether the buffers are allocated only by {@link BufferQueue.open}, for queues that may never be used (default false). */
  readonly closed?: boolean;
}

/** What a {@link BufferQueue} is made of; the driver provides it. */
export interface BufferQueueParts {
  readonly queue: VirtQueue;
  readonly transport: Transport;
  readonly hal: Hal;
  /** Tells the driver that the device has lied. */
  readonly report: (error: VirtioError) => void;
}

/** The base of {@link ReceiveQueue} and {@link TransmitQueue}. */
export abstract class BufferQueue implements DriverQueue {
  /** The ring. */
  readonly queue: VirtQueue;
  /** The bytes of each buffer. */
  readonly bufferSize: number;
  /** How many buffers there are. */
  readonly buffers: number;

  /** How many bytes at the start of each buffer have a descriptor of their own. */
  protected readonly head: number;
  protected readonly transport: Transport;
  protected readonly report: (error: VirtioError) => void;
  /** By token of the ring: the buffer of the chain. */
  protected readonly bufferOf: Uint16Array;
  /** By buffer: 1 while the driver has it. */
  protected readonly taken: Uint8Array;
  /** Whether the device is live, so that buffers may be with it. */
  protected live = false;

  readonly #hal: Hal;
  readonly #direction: BufferDirection;
  #region: DmaRegion | undefined;
  readonly #views: Uint8Array<ArrayBuffer>[] = [];
  readonly #stride: number;
  readonly #announcer: Announcer;
  readonly #interest: Interest;
  readonly #waiting = new Set<Waiter<void>>();
  #listeners: readonly (() => void)[] = [];
  #turns = 0;
  #disposed = false;

  protected constructor(
    { queue, transport, hal, report }: BufferQueueParts,
    options: BufferQueueOptions,
    direction: BufferDirection,
    always: boolean | undefined,
  ) {
    this.queue = queue;
    this.transport = transport;
    this.report = report;
    const { bufferSize, head = 0, closed = false } = options;
    this.bufferSize = requireInteger(transport, 'bufferSize', bufferSize, 1, MAX_BUFFER_SIZE);
    this.head = requireInteger(transport, 'head', head, 0, bufferSize - 1);
    const most = head > 0 ? Math.floor(queue.size / queue.descriptorsFor(2)) : queue.size;
    const buffers = Math.min(
      requireInteger(transport, 'buffers', options.buffers ?? most, 1, MAX_QUEUE_SIZE),
      most,
    );
    this.buffers = buffers;
    this.#hal = hal;
    // Buffers start at multiples of 8, so that structures in them are aligned.
    this.#stride = Math.ceil(bufferSize / 8) * 8;
    this.#direction = direction;
    this.bufferOf = new Uint16Array(queue.size);
    this.taken = new Uint8Array(buffers).fill(1);
    this.#announcer = new Announcer(queue, report);
    this.#interest = new Interest(transport, queue, { onUsed: this.#onUsed, report, always });
    if (!closed) this.#allocate();
  }

  /** Whether there are buffers. */
  get isOpen(): boolean {
    return this.#region !== undefined;
  }

  /**
   * Allocates the buffers of a queue that was made without any; they stay allocated until the driver is disposed.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  open(): void {
    if (this.isOpen) return;
    this.#allocate();
    this.opened();
  }

  /** Why the queue no longer works, until the driver is reset; `undefined` if it works. */
  get failure(): VirtioError | undefined {
    return this.queue.failure;
  }

  /**
   * All bytes of a buffer, by its number. While the device has it, the driver must not use them.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if there is no such buffer
   */
  buffer(number: number): Uint8Array<ArrayBuffer> {
    const view = this.#views[number];
    if (view !== undefined) return view;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: queue ${this.queue.index} has no buffer ${number}; it has ${this.buffers}`,
    );
  }

  /** Makes all that was submitted available to the device, and notifies it if it wants that. */
  kick(): void {
    this.#announcer.kick();
  }

  /** Calls {@link BufferQueue.kick} when the current turn of the event loop ends, once for all that was submitted in it. */
  kickSoon(): void {
    this.#announcer.kickSoon();
  }

  /**
   * Takes the buffers that the device has used, and wakes callers that wait if there is something for them. Call it before you
   * check whether there is something.
   */
  abstract drain(): void;

  /**
   * Waits until there may be something new; check again then.
   *
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` if the transport has no interrupts, or why the device no longer works
   */
  wait(options?: WaitOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      requireWaitable(this.transport, options);
      if (this.failure !== undefined) throw this.failure;
      let entered: Waiter<void>;
      cancellable({ resolve, reject }, this.transport, options?.signal, {
        enter: (waiter) => {
          entered = waiter;
          this.#waiting.add(waiter);
          this.#interest.begin();
        },
        leave: () => {
          this.#waiting.delete(entered);
          this.update();
        },
      });
    });
  }

  /**
   * Spins until `done` returns true; `done` must take what the device has used.
   *
   * @param awaited what the caller waits for, for the message
   * @throws {@link VirtioError} `NOT_READY` after the time allowed, or why the device no longer works
   */
  spin(done: () => boolean, options?: SpinOptions, awaited = 'what was waited for'): void {
    spin(this.transport, done, options, awaited, this.report);
  }

  /**
   * Lets timers and other work of the event loop have a turn once in a while. For loops that hand over what is there without
   * waiting, which a device that never stops sending would keep busy.
   *
   * @returns a promise to await, or `undefined` if no turn is due
   */
  fairTurn(): Promise<void> | undefined {
    this.#turns += 1;
    if (this.#turns < TURNS) return undefined;
    this.#turns = 0;
    const { interrupts } = this.transport;
    if (interrupts === undefined) return undefined;
    return new Promise<void>((resolve) => {
      interrupts.hold();
      interrupts.defer(() => {
        interrupts.release();
        resolve();
      });
    });
  }

  /** Wakes all callers that wait, which then check again. */
  wake(): void {
    if (this.#waiting.size > 0) {
      const waiting = [...this.#waiting];
      this.#waiting.clear();
      for (const waiter of waiting) waiter.resolve();
    }
    this.update();
  }

  /** Calls a listener at interrupts that bring something; interrupts are enabled while there is a listener. */
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

  /** @internal */
  fail(error: VirtioError): void {
    this.live = false;
    this.queue.fail(error);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const waiter of waiting) waiter.reject(error);
    this.update();
  }

  /** @internal No wait ends when buffers are lost: callers that wait check again when the queue works again. */
  lose(error: VirtioError): void {
    this.live = false;
    this.queue.fail(error);
    this.update();
  }

  /** @internal */
  forget(error: VirtioError): void {
    if (this.failure === undefined) this.fail(error);
    this.queue.rewind();
    this.taken.fill(1);
  }

  /** @internal */
  abstract restart(): void;

  /** @internal */
  start(): void {
    this.live = true;
    this.wake();
  }

  /** @internal Frees the memory. The device must have been reset. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#listeners = [];
    if (this.#region !== undefined) this.#hal.dmaDealloc(this.#region, this.queue.accessPlatform);
  }

  /** Buffers were allocated after construction. */
  protected abstract opened(): void;

  /** Whether the queue can be drained. If the device has failed, another thread that has it may have reset it meanwhile. */
  protected canDrain(): boolean {
    const { failure } = this;
    if (failure === undefined) return this.live;
    // A lie that was found outside of a drain, of which the driver does not know.
    if (this.live) this.report(failure);
    else this.transport.look();
    return false;
  }

  /** The device had used something when the queue was drained. */
  protected brought(): void {
    this.#interest.brought();
  }

  /** Whether {@link BufferQueue.drain} found something for callers that wait or listen. */
  protected abstract get news(): boolean;

  /** Called after draining: enables the next interrupt if a caller still waits. */
  protected update(): void {
    this.#interest.update(this.#waiting.size > 0 || this.#listeners.length > 0);
  }

  /** The address of a buffer for the device. */
  protected addressOf(number: number): number {
    return (this.#region?.address ?? 0) + number * this.#stride;
  }

  #allocate(): void {
    const pages = Math.ceil((this.#stride * this.buffers) / PAGE_SIZE);
    this.#region = this.#hal.dmaAlloc(pages, this.#direction, this.queue.accessPlatform);
    const { bytes } = this.#region;
    for (let n = 0; n < this.buffers; n += 1) {
      this.#views.push(bytes.subarray(n * this.#stride, n * this.#stride + this.bufferSize));
    }
  }

  readonly #onUsed = (): void => {
    this.drain();
    if (!this.news) return;
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
}
