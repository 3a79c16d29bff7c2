/**
 * How a driver learns that the device has done something: one interface for MSI-X, INTx, MMIO interrupts and polling, so
 * that a driver never knows which one it has.
 */

/** Calls back when the device has, or may have, used buffers or changed its configuration. Calls may be spurious. */
export interface InterruptSource {
  /** Sets the one handler for a queue. `undefined` removes it. */
  onQueue(queue: number, handler: (() => void) | undefined): void;
  /** Sets the one handler for configuration changes; a device that needs a reset reports it in this way as well. */
  onConfig(handler: (() => void) | undefined): void;
  /** Sets the one handler for the removal of the device (hot-unplug). */
  onRemoval(handler: (() => void) | undefined): void;
  /**
   * Somebody waits now. While the count of holds is above zero, an event loop stays alive and a polling source polls.
   */
  hold(): void;
  /** Ends one {@link InterruptSource.hold}. */
  release(): void;
}

/** What {@link PollingInterrupts} may be told. */
export interface PollingOptions {
  /** Asks the platform to call back soon, after other work had a turn: `setImmediate` in Node.js. */
  readonly schedule: (callback: () => void) => void;
  /**
   * Whether the configuration changed since the last call, or the device may be gone or need a reset, at which the driver then
   * looks; asked at each turn.
   */
  readonly configChanged?: () => boolean;
}

/** Interrupts for a transport that has none: asks at each turn of an event loop, for as long as somebody waits. */
export class PollingInterrupts implements InterruptSource {
  readonly #options: PollingOptions;
  readonly #queues = new Map<number, () => void>();
  #config: (() => void) | undefined;
  #removal: (() => void) | undefined;
  #holds = 0;
  #scheduled = false;

  constructor(options: PollingOptions) {
    this.#options = options;
  }

  onQueue(queue: number, handler: (() => void) | undefined): void {
    if (handler) this.#queues.set(queue, handler);
    else this.#queues.delete(queue);
  }

  onConfig(handler: (() => void) | undefined): void {
    this.#config = handler;
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.#removal = handler;
  }

  /** For a platform that learns by itself that the device was unplugged: tells the driver. */
  remove(): void {
    this.#removal?.();
  }

  hold(): void {
    this.#holds += 1;
    this.#next();
  }

  release(): void {
    this.#holds -= 1;
  }

  #next(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#options.schedule(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    if (this.#holds <= 0) return;
    try {
      if (this.#options.configChanged?.() === true) this.#config?.();
      for (const handler of this.#queues.values()) handler();
    } finally {
      if (this.#holds > 0) this.#next();
    }
  };
}
