/**
 * How a back end tells of used buffers: by an eventfd a vring, or not at all, and then the rings are looked at.
 *
 * To sleep and be woken takes longer than a fast back end takes to answer. So who waits first spins, a turn of the event loop at a
 * time, and sleeps on the eventfd when nothing has come for a while. A spin that was in vain makes the next ones rarer, one that
 * was not brings them back.
 */
import { InterruptHandlers } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';

/** After spins in vain, at most so many waits go by without one. */
const MOST_SKIPPED = 64;

/** The interrupts of a vhost-user device. Removal and changes of the configuration come through its sockets in either case. */
export class VhostUserInterrupts extends InterruptHandlers {
  /** Whether the rings are looked at at each turn of the event loop while somebody waits. */
  readonly polling: boolean;
  readonly #poller: EventPoller;
  readonly #spinMs: number;
  #holds = 0;
  #scheduled = false;
  /** Counts what shows that the device answers: ends of waits, and used buffers that it told of. */
  #answers = 0;
  /** {@link VhostUserInterrupts.#answers} when the spin began, or last paid, and when it ends. */
  #seen = 0;
  #until = 0;
  /** How many waits go without a spin after one in vain, and how many of them are left. */
  #skip = 0;
  #skipped = 0;

  /** @param spinUs how long a wait spins before it sleeps, in microseconds */
  constructor(poller: EventPoller, polling: boolean, spinUs: number) {
    super();
    this.#poller = poller;
    this.polling = polling;
    this.#spinMs = spinUs / 1000;
  }

  hold(): void {
    this.#holds += 1;
    this.#poller.hold();
    if (this.polling) this.#next();
    else if (this.#spinMs > 0) this.#spin();
  }

  release(): void {
    this.#holds -= 1;
    this.#answers += 1;
    this.#poller.release();
  }

  /** @internal the vring's eventfd was signalled */
  fire(queue: number): void {
    this.#answers += 1;
    this.queueHandlers.get(queue)?.();
  }

  /** @internal all vrings may have used buffers */
  fireAll(): void {
    this.callQueues();
  }

  /** @internal the configuration, or the status, has changed */
  configChanged(): void {
    this.configHandler?.();
  }

  /** @internal the back end is gone */
  removed(): void {
    this.removalHandler?.();
  }

  override defer(callback: () => void): void {
    setImmediate(callback);
  }

  #next(): void {
    if (this.#scheduled || this.#holds <= 0) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  /** A wait begins: it spins, unless spins were in vain lately. */
  #spin(): void {
    if (this.#scheduled) return;
    if (this.#skipped > 0) {
      this.#skipped -= 1;
      return;
    }
    this.#seen = this.#answers;
    this.#until = performance.now() + this.#spinMs;
    this.#next();
  }

  /** Whether another turn may pay. */
  #goesOn(): boolean {
    const now = performance.now();
    if (this.#answers !== this.#seen) {
      this.#seen = this.#answers;
      this.#until = now + this.#spinMs;
      this.#skip = 0;
      return true;
    }
    if (now < this.#until) return true;
    this.#skip = Math.min(2 * this.#skip + 1, MOST_SKIPPED);
    this.#skipped = this.#skip;
    return false;
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    try {
      if (this.#holds > 0) this.callQueues();
    } finally {
      if (this.#holds > 0 && (this.polling || this.#goesOn())) this.#next();
    }
  };
}
