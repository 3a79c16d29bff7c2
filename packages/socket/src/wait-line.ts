/**
 * Those who wait for one thing of one connection. A packet for one connection wakes nobody of the others, however many there are.
 * While somebody waits the event loop stays alive; the queue of received packets has its interrupts anyway.
 */
import { cancellable, requireWaitable, type Transport, type Waiter, type WaitOptions } from '@virtio/core';

/** A line of promises. */
export class WaitLine {
  readonly #transport: Transport;
  readonly #waiting = new Set<Waiter<void>>();
  #holding = false;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Waits for the next {@link WaitLine.wake}; whoever waits looks again then.
   *
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` if the transport has no interrupts
   */
  wait(options?: WaitOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      requireWaitable(this.#transport, options);
      const waiter = cancellable({ resolve, reject }, this.#transport, options?.signal, () => {
        this.#waiting.delete(waiter);
        this.#settle();
      });
      this.#waiting.add(waiter);
      this.#settle();
    });
  }

  /** Lets all who wait look again. */
  wake(): void {
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
    if (holds) this.#transport.interrupts?.hold();
    else this.#transport.interrupts?.release();
  }
}
