/**
 * Promises that wait for a queue which the device fills unasked. While somebody waits, interrupts of the queue are asked
 * for and the event loop stays alive.
 */
import { type Transport, VirtioError, type VirtQueue } from '@virtio/core';

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

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: VirtioError) => void;
}

/** Those who wait for one queue. */
export class Waiters {
  readonly #transport: Transport;
  readonly #queue: VirtQueue;
  readonly #drain: () => void;
  readonly #report: (error: VirtioError) => void;
  readonly #always: boolean;
  readonly #waiting = new Set<Waiter>();
  #holding = false;

  /**
   * @param drain looks what the device has used, then calls {@link Waiters.wake} or {@link Waiters.settle}; called at
   * each interrupt
   * @param report tells the driver that the device has lied; the driver then calls {@link Waiters.fail}
   * @param always whether interrupts are wanted even while nobody waits; the driver then asks for the first one
   */
  constructor(
    transport: Transport,
    queue: VirtQueue,
    drain: () => void,
    report: (error: VirtioError) => void,
    always = false,
  ) {
    this.#transport = transport;
    this.#queue = queue;
    this.#drain = drain;
    this.#report = report;
    this.#always = always;
    transport.interrupts?.onQueue(queue.index, drain);
  }

  /** Waits for the next {@link Waiters.wake}. Whoever waits looks again whether it has what it waits for. */
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
      const aborted = (): void => {
        this.#waiting.delete(waiter);
        reject(this.#aborted(signal?.reason));
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
      if (signal?.aborted === true) throw this.#aborted(signal.reason);
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

  #aborted(reason: unknown): VirtioError {
    return new VirtioError('ABORTED', `${this.#transport.who()}: the wait was cancelled by its caller`, {
      cause: reason,
    });
  }
}
