/** How a back end tells of used buffers: by an eventfd a vring, or not at all, and then the rings are looked at. */
import { InterruptHandlers } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';

/** The interrupts of a vhost-user device. Removal and changes of the configuration come through its sockets in either case. */
export class VhostUserInterrupts extends InterruptHandlers {
  /** Whether the rings are looked at at each turn of the event loop while somebody waits. */
  readonly polling: boolean;
  readonly #poller: EventPoller;
  #holds = 0;
  #scheduled = false;

  constructor(poller: EventPoller, polling: boolean) {
    super();
    this.#poller = poller;
    this.polling = polling;
  }

  hold(): void {
    this.#holds += 1;
    this.#poller.hold();
    this.#next();
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

  #next(): void {
    if (!this.polling || this.#scheduled || this.#holds <= 0) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    try {
      if (this.#holds > 0) this.callQueues();
    } finally {
      this.#next();
    }
  };
}
