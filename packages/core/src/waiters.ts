/**
 * Promises that wait for a queue which the device fills unasked: received bytes, input events. (Requests, which the device
 * answers, wait in a {@link RequestQueue}.) While somebody waits, interrupts of the queue are asked for and the event loop
 * stays alive; otherwise neither.
 */
import { VirtioError } from './errors.ts';
import type { Transport } from './transport.ts';
import type { VirtQueue } from './virt-queue.ts';

/** The part of the DOM's `AbortSignal` that is needed here, as engines without an operating system have no such class. */
export interface AbortSignalLike {
  /** Whether the wait is cancelled. */
  readonly aborted: boolean;
  /** Why, for the `cause` of the error. */
  readonly reason?: unknown;
  /** Adds a listener for the cancellation. */
  addEventListener(type: 'abort', listener: () => void): void;
  /** Removes it. */
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** What calls that wait with a promise may be told. */
export interface WaitOptions {
  /** Cancels the wait, which then rejects with `ABORTED`. Nothing is lost: the next call goes on where this one was. */
  readonly signal?: AbortSignalLike | undefined;
}

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

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: VirtioError) => void;
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
      if (this.#transport.interrupts === undefined) {
        throw new VirtioError(
          'UNSUPPORTED',
          `${this.#transport.who()}: this transport has no interrupts, so no promise can be kept. Use the synchronous or the ` +
            'non-blocking form, or give the transport PollingInterrupts',
        );
      }
      if (this.#queue.failure !== undefined) throw this.#queue.failure;
      if (signal?.aborted === true) throw abortError(this.#transport, signal);
      const aborted = (): void => {
        this.#waiting.delete(waiter);
        waiter.reject(abortError(this.#transport, signal));
        this.settle();
      };
      const waiter: Waiter = {
        resolve: () => {
          signal?.removeEventListener('abort', aborted);
          resolve();
        },
        reject: (error) => {
          signal?.removeEventListener('abort', aborted);
          reject(error);
        },
      };
      signal?.addEventListener('abort', aborted);
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

/**
 * Gives a promise a way out. What the promise stands for goes on when the wait is cancelled: whoever calls this has to see to
 * what comes of it.
 *
 * @param transport for the message of the error
 * @returns a promise that settles as the given one does, or rejects with `ABORTED` when the signal says so
 */
export function abortable<T>(
  transport: Transport,
  promise: Promise<T>,
  { signal }: WaitOptions = {},
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      signal.removeEventListener('abort', aborted);
      reject(abortError(transport, signal));
    };
    promise.finally(() => signal.removeEventListener('abort', aborted)).then(resolve, reject);
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted);
  });
}

function abortError(transport: Transport, signal: AbortSignalLike | undefined): VirtioError {
  return new VirtioError('ABORTED', `${transport.who()}: the wait was cancelled by its caller`, {
    cause: signal?.reason,
  });
}
