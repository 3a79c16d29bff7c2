/**
 * The callers that wait for one condition of one connection. A packet for one connection wakes no callers of the others, however many
 * there are. While a caller waits, the event loop stays alive; the rx queue has its interrupts anyway.
 */
import { cancellable, requireWaitable, type Transport, type Waiter, type WaitOptions } from '@virtio/core';

/** Counts the lines in which callers wait, and keeps the event loop alive while there are any. */
export class Waiting {
  readonly transport: Transport;
  readonly #changed: () => void;
  #lines = 0;

  /** @param changed called when the first line begins to wait, and when the last one no longer does */
  constructor(transport: Transport, changed: () => void) {
    this.transport = transport;
    this.#changed = changed;
  }

  /** Whether anybody waits. */
  get anybody(): boolean {
    return this.#lines > 0;
  }

  /** @internal A line begins to wait. */
  begin(): void {
    this.#lines += 1;
    this.transport.interrupts?.hold();
    if (this.#lines === 1) this.#changed();
  }

  /** @internal A line no longer waits. */
  end(): void {
    this.#lines -= 1;
    this.transport.interrupts?.release();
    if (this.#lines === 0) this.#changed();
  }
}

/** A line of promises. */
export class WaitLine {
  readonly #all: Waiting;
  readonly #waiting = new Set<Waiter<void>>();
  #holding = false;
  #wakes = 0;

  constructor(all: Waiting) {
    this.#all = all;
  }

  /** Whether anybody waits. */
  get anybody(): boolean {
    return this.#waiting.size > 0;
  }

  /** How many times the callers were woken: a device may answer before the caller begins to wait. */
  get wakes(): number {
    return this.#wakes;
  }

  /**
   * Waits for the next {@link WaitLine.wake}; the caller then checks its condition again.
   *
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` if the transport has no interrupts
   */
  wait(options?: WaitOptions): Promise<void> {
    const { transport } = this.#all;
    return new Promise((resolve, reject) => {
      requireWaitable(transport, options);
      let entered: Waiter<void>;
      cancellable({ resolve, reject }, transport, options?.signal, {
        enter: (waiter) => {
          entered = waiter;
          this.#waiting.add(waiter);
          this.#settle();
        },
        leave: () => {
          this.#waiting.delete(entered);
          this.#settle();
        },
      });
    });
  }

  /** Wakes all callers, which then check their conditions again. */
  wake(): void {
    this.#wakes += 1;
    if (this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const waiter of waiting) waiter.resolve();
    this.#settle();
  }

  #settle(): void {
    const holds = this.#waiting.size > 0;
    if (holds === this.#holding) return;
    this.#holding = holds;
    if (holds) this.#all.begin();
    else this.#all.end();
  }
}
