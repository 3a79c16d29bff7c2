/**
 * Interrupts of a vhost-user device: one eventfd per vring, or none; then the rings are polled.
 *
 * Sleeping and waking up take longer than a fast back end takes to answer. So the rings are polled when a caller begins to wait and
 * when a buffer was used; the back end is not asked to signal meanwhile. When nothing was used for a while, it is asked to, and the
 * process sleeps. A lookout that finds nothing makes the next ones rarer; one that finds something restores them.
 *
 * A turn of the event loop takes several microseconds, in which a back end that is not asked anything goes to sleep. So each turn polls
 * many times, in microtasks: callers get answers and make their next requests in between.
 */
import { InterruptHandlers, type Lookout } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';

/** After lookouts that found nothing, at most so many are left out. */
const MOST_SKIPPED = 64;

/** How often a turn of the event loop polls after it began or last found something, and how often in all: some 10 and 100 microseconds. */
const POLLS = 64;
const MOST_POLLS = 512;

/** The interrupts of a vhost-user device. Removal and changes of the configuration always come through its sockets. */
export class VhostUserInterrupts extends InterruptHandlers implements Lookout {
  /** Whether the rings are polled for as long as a caller waits. */
  readonly polling: boolean;
  readonly #poller: EventPoller;
  readonly #spinMs: number;
  readonly #rests = new Map<number, () => void>();
  #holds = 0;
  #looking = false;
  #scheduled = false;
  /** Whether no caller waited at the last turn. Most callers make their next request at once. */
  #idle = false;
  /** Counts used buffers that were found. */
  #answers = 0;
  /** {@link VhostUserInterrupts.#answers} when the lookout began or last found something, and when it ends. */
  #seen = 0;
  #until = 0;
  /** How often this turn of the event loop still polls unless it finds something, and how often at the most. */
  #polls = 0;
  #mostPolls = 0;
  /** {@link VhostUserInterrupts.#answers} at the last poll. */
  #polled = 0;
  /** How many lookouts are left out after one that found nothing, and how many of them remain. */
  #skip = 0;
  #skipped = 0;

  /** @param spinUs how long a wait spins before it sleeps, in microseconds */
  constructor(poller: EventPoller, polling: boolean, spinUs: number) {
    super();
    this.#poller = poller;
    this.polling = polling;
    this.#spinMs = spinUs / 1000;
  }

  get lookout(): Lookout {
    return this;
  }

  /** Whether the rings are polled now, so that the back end need not signal. */
  get looking(): boolean {
    return this.polling || this.#looking;
  }

  onRest(queue: number, handler: (() => void) | undefined): void {
    if (handler === undefined) this.#rests.delete(queue);
    else this.#rests.set(queue, handler);
  }

  brought(): void {
    this.#answers += 1;
    this.#lookOut();
  }

  hold(): void {
    this.#holds += 1;
    this.#poller.hold();
    if (this.polling) this.#next();
    else if (this.#spinMs > 0) this.#lookOut();
  }

  release(): void {
    this.#holds -= 1;
    this.#poller.release();
  }

  /** @internal the vring's eventfd was signalled */
  fire(queue: number): void {
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
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  /** A buffer may be used soon: starts a lookout, unless the last ones found nothing. */
  #lookOut(): void {
    if (this.#looking || this.polling || this.#holds <= 0) return;
    if (this.#skipped > 0) {
      this.#skipped -= 1;
      return;
    }
    this.#looking = true;
    this.#idle = false;
    this.#seen = this.#answers;
    this.#until = this.#spinMs > 0 ? performance.now() + this.#spinMs : 0;
    this.#next();
  }

  /** Whether to poll at another turn. */
  #goesOn(): boolean {
    if (this.#holds <= 0) {
      const before = this.#idle;
      this.#idle = true;
      return !before;
    }
    this.#idle = false;
    if (this.polling) return true;
    if (this.#answers !== this.#seen) {
      this.#seen = this.#answers;
      if (this.#spinMs > 0) this.#until = performance.now() + this.#spinMs;
      this.#skip = 0;
      return true;
    }
    if (this.#spinMs > 0 && performance.now() < this.#until) return true;
    this.#skip = Math.min(2 * this.#skip + 1, MOST_SKIPPED);
    this.#skipped = this.#skip;
    return false;
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    // Without time to spin, what is polled for was used while the callers were told of the last.
    const spins = this.polling || this.#spinMs > 0;
    this.#polls = spins ? POLLS : 0;
    this.#mostPolls = spins ? MOST_POLLS : 0;
    this.#poll();
  };

  readonly #poll = (): void => {
    try {
      if (this.#holds > 0) this.callQueues();
    } finally {
      if (this.#answers !== this.#polled) {
        this.#polled = this.#answers;
        this.#polls = POLLS;
      }
      this.#polls -= 1;
      this.#mostPolls -= 1;
      if (this.#polls > 0 && this.#mostPolls > 0) queueMicrotask(this.#poll);
      else if (this.#goesOn()) this.#next();
      else if (this.#looking) this.#rest();
    }
  };

  /** Ends the lookout: from now on the back end signals. */
  #rest(): void {
    this.#looking = false;
    this.#rests.forEach(call);
  }
}

function call(handler: () => void): void {
  handler();
}
