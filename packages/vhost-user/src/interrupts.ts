/**
 * How a back end tells of used buffers: by an eventfd a vring, or not at all, and then the rings are looked at.
 *
 * To sleep and be woken takes longer than a fast back end takes to answer. So the rings are looked at, a turn of the event loop at a
 * time, when somebody begins to wait and when something came; the back end is not asked to signal meanwhile. When nothing has come for a
 * while it is, and the process sleeps. A lookout that was in vain makes the next ones rarer, one that was not brings them back.
 */
import { InterruptHandlers, type Lookout } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';

/** After lookouts in vain, at most so many go by. */
const MOST_SKIPPED = 64;

/** The interrupts of a vhost-user device. Removal and changes of the configuration come through its sockets in either case. */
export class VhostUserInterrupts extends InterruptHandlers implements Lookout {
  /** Whether the rings are looked at at each turn of the event loop while somebody waits. */
  readonly polling: boolean;
  readonly #poller: EventPoller;
  readonly #spinMs: number;
  readonly #rests = new Map<number, () => void>();
  #holds = 0;
  #looking = false;
  #scheduled = false;
  /** Whether nobody waited at the last turn. Most who waited ask for more at once. */
  #idle = false;
  /** Counts what came. */
  #answers = 0;
  /** {@link VhostUserInterrupts.#answers} when the lookout began, or last paid, and when it ends. */
  #seen = 0;
  #until = 0;
  /** How many lookouts are left out after one in vain, and how many of them are left. */
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

  /** Whether the rings are looked at now, so that no back end need signal. */
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

  /** Something may come soon: looks for it, unless that was in vain lately. */
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

  /** Whether another turn may pay. */
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
    try {
      if (this.#holds > 0) this.callQueues();
    } finally {
      if (this.#goesOn()) this.#next();
      else if (this.#looking) this.#rest();
    }
  };

  /** From now on back ends signal. */
  #rest(): void {
    this.#looking = false;
    this.#rests.forEach(call);
  }
}

function call(handler: () => void): void {
  handler();
}
