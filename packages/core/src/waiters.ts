/**
 * Promises that wait for a queue which the device fills unasked: received bytes, input events. (Requests, which the device
 * answers, wait in a {@link RequestQueue}.) While somebody waits, interrupts of the queue are asked for and the event loop
 * stays alive; otherwise neither.
 */
import { cancellable, requireInterrupts, type WaitOptions, type Waiter } from './wait.ts';
import { type VirtioError } from './errors.ts';
import type { Transport } from './transport.ts';
import type { VirtQueue } from './virt-queue.ts';

/** What {@link Waiters} need of their driver. */
export interface WaitersOptions {
  /**
   * Looks what the device has used, then calls {@link Waiters.wake} if those who wait should look again, or
   * {@link Waiters.settle} if there is nothing for them. Called at each interrupt, and when one may have been missed.
   */
  readonly drain: () => void;
  /** The device has lied: the driver fails, and calls {@link Waiters.fail}. */
  readonly report: (error: VirtioError) => void;
  /** Whether the driver wants interrupts even while nobody waits (default false); it then asks for the first one itself. */
  readonly always?: boolean;
}

/**
 * Those who wait for one queue. It takes the queue's interrupt; there can be one object of this kind, or one
 * {@link RequestQueue}, on a queue.
 *
 * @example
 * ```ts
 * import { OwningQueue, type Transport, type VirtioError, Waiters, type WaitOptions } from '@virtio/core';
 *
 * // Hands on whole packets that a device sends when it likes.
 * export class Packets {
 *   readonly #queue: OwningQueue;
 *   readonly #waiters: Waiters;
 *   readonly #report: (error: VirtioError) => void;
 *   readonly #packets: Uint8Array[] = [];
 *
 *   constructor(transport: Transport, queue: OwningQueue, report: (error: VirtioError) => void) {
 *     this.#queue = queue;
 *     this.#report = report;
 *     this.#waiters = new Waiters(transport, queue.queue, { drain: () => this.#drain(), report });
 *   }
 *
 *   async next(options?: WaitOptions): Promise<Uint8Array> {
 *     for (;;) {
 *       this.#drain();
 *       const packet = this.#packets.shift();
 *       if (packet !== undefined) return packet;
 *       await this.#waiters.wait(options);
 *     }
 *   }
 *
 *   #drain(): void {
 *     try {
 *       this.#queue.poll((bytes) => this.#packets.push(bytes.slice()));
 *     } catch (error) {
 *       this.#report(error as VirtioError);
 *     }
 *     if (this.#packets.length > 0) this.#waiters.wake();
 *     else this.#waiters.settle();
 *   }
 * }
 * ```
 */
export class Waiters {
  readonly #transport: Transport;
  readonly #queue: VirtQueue;
  readonly #drain: () => void;
  readonly #report: (error: VirtioError) => void;
  readonly #always: boolean;
  readonly #waiting = new Set<Waiter>();
  #holding = false;

  constructor(transport: Transport, queue: VirtQueue, { drain, report, always = false }: WaitersOptions) {
    this.#transport = transport;
    this.#queue = queue;
    this.#drain = drain;
    this.#report = report;
    this.#always = always;
    transport.interrupts?.onQueue(queue.index, drain);
  }

  /**
   * Waits for the next {@link Waiters.wake}. Whoever waits then looks again whether it has what it waits for: another one may
   * have taken it.
   *
   * @throws {@link VirtioError} `ABORTED` by the signal, `UNSUPPORTED` if the transport has no interrupts, why the queue has
   * failed, or what {@link Waiters.fail} was called with
   */
  wait({ signal }: WaitOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      requireInterrupts(this.#transport);
      if (this.#queue.failure !== undefined) throw this.#queue.failure;
      const waiter = cancellable({ resolve, reject }, this.#transport, signal, () => {
        this.#waiting.delete(waiter);
        this.settle();
      });
      this.#waiting.add(waiter);
      this.#watch();
    });
  }

  /** Lets all who wait look again. */
  wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const waiter of waiting) waiter.resolve();
    this.settle();
  }

  /** Ends all waits with an error. */
  fail(error: VirtioError): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const waiter of waiting) waiter.reject(error);
    this.settle();
  }

  /** After a look at the queue: asks for the next interrupt if somebody still waits, and for none otherwise. */
  settle(): void {
    if (!this.#holding) return;
    if (this.#waiting.size > 0 && this.#queue.failure === undefined) {
      this.#arm();
      return;
    }
    if (!this.#always && this.#queue.failure === undefined) this.#queue.disableInterrupts();
    this.#holding = false;
    this.#transport.interrupts?.release();
  }

  #watch(): void {
    if (this.#holding) return;
    this.#holding = true;
    this.#transport.interrupts?.hold();
    this.#arm();
  }

  /** What was used before interrupts were asked for may not be announced, so it is looked for soon. */
  #arm(): void {
    try {
      if (this.#queue.enableInterrupts()) void Promise.resolve().then(this.#drain);
    } catch (error) {
      this.#report(error as VirtioError);
    }
  }
}
