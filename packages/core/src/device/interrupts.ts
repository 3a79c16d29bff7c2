/**
 * How a driver learns that the device has done something: one interface for MSI-X, INTx, MMIO interrupts and polling, so
 * that a driver never knows which one it has.
 */
import { InterruptStatus } from './device-status.ts';

/** What a source has to tell that looks at the queues by itself: a device need not interrupt meanwhile. */
export interface Lookout {
  /** Whether the source looks at all queues now, again and again, while there are holds. */
  readonly looking: boolean;
  /** Sets the one handler for a queue that is called when the source no longer looks. `undefined` removes it. */
  onRest(queue: number, handler: (() => void) | undefined): void;
  /** A look or an interrupt has brought something. */
  brought(): void;
}

/** Calls back when the device has, or may have, used buffers or changed its configuration. Calls may be spurious. */
export interface InterruptSource {
  /** Sets the one handler for a queue. `undefined` removes it. */
  onQueue(queue: number, handler: (() => void) | undefined): void;
  /** Sets the one handler for configuration changes; a device that needs a reset reports it in this way as well. */
  onConfig(handler: (() => void) | undefined): void;
  /** Sets the one handler for the removal of the device (hot-unplug). */
  onRemoval(handler: (() => void) | undefined): void;
  /**
   * A caller waits now. While the count of holds is above zero, an event loop stays alive and a polling source polls.
   */
  hold(): void;
  /** Ends one {@link InterruptSource.hold}. */
  release(): void;
  /**
   * Runs a callback soon, after timers and other work of the event loop had a turn (`setImmediate` in Node.js). Drivers use it
   * where a device has more to say whenever it is looked at.
   */
  defer(callback: () => void): void;
  /** For sources that look at the queues by themselves, always or at times. */
  readonly lookout?: Lookout | undefined;
}

/** What {@link InterruptHandlers.handleInterrupt} asks of a transport. */
export interface InterruptRegisters {
  /** Reads which interrupts are pending and acknowledges them. */
  ackInterrupt(): InterruptStatus;
  /** Whether the device no longer answers. */
  isGone(): boolean;
}

const call = (handler: () => void): void => handler();

const ANY = InterruptStatus.QUEUE_INTERRUPT | InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT;

/**
 * The handlers that a driver has set, for authors of transports: an {@link InterruptSource} but for where its interrupts come from,
 * and what holding it means. Calling a handler allocates nothing.
 *
 * @example
 * ```ts
 * import { InterruptHandlers, type InterruptRegisters } from '@virtio/core';
 *
 * // A platform that runs one program, which has nothing to keep alive while it waits.
 * export class BareInterrupts extends InterruptHandlers {
 *   constructor(device: InterruptRegisters, onIrq: (handler: () => boolean) => void) {
 *     super();
 *     onIrq(() => this.handleInterrupt(device));
 *   }
 *
 *   hold(): void {}
 *
 *   release(): void {}
 * }
 * ```
 */
export abstract class InterruptHandlers implements InterruptSource {
  /** By the index of the queue. Indices may have gaps, and wide ones. */
  protected readonly queueHandlers = new Map<number, () => void>();
  /** For changes of the configuration. */
  protected configHandler: (() => void) | undefined;
  /** For the removal of the device. */
  protected removalHandler: (() => void) | undefined;

  onQueue(queue: number, handler: (() => void) | undefined): void {
    if (handler === undefined) this.queueHandlers.delete(queue);
    else this.queueHandlers.set(queue, handler);
  }

  onConfig(handler: (() => void) | undefined): void {
    this.configHandler = handler;
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.removalHandler = handler;
  }

  abstract hold(): void;

  abstract release(): void;

  /** A microtask, for platforms that have nothing else; those with an event loop override it. */
  defer(callback: () => void): void {
    void Promise.resolve().then(callback);
  }

  /** Calls the handlers of all queues, where which of them has used buffers is not known. */
  protected callQueues(): void {
    this.queueHandlers.forEach(call);
  }

  /**
   * Handles an interrupt of a line that stands for all that a device has to say, as its interrupt status tells. The status is
   * acknowledged before the handlers run: what the device does after they have looked sets it, and asserts the line, again.
   * Acknowledged afterwards, that would be lost.
   *
   * A status with all bits set may be that of a device that is no longer there, which is a removal.
   *
   * @returns whether the interrupt was this device's: a line may be shared
   * @see VIRTIO 1.4, 4.1.5.5 and 4.2.3.4.1
   */
  protected handleInterrupt(device: InterruptRegisters): boolean {
    const { bits } = device.ackInterrupt();
    if (bits === 0) return false;
    if ((bits & ANY) === ANY && device.isGone()) {
      this.removalHandler?.();
      return false;
    }
    if ((bits & InterruptStatus.QUEUE_INTERRUPT) !== 0) this.callQueues();
    if ((bits & InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT) !== 0) this.configHandler?.();
    return true;
  }
}

/** Options of {@link PollingInterrupts}. */
export interface PollingOptions {
  /** Asks the platform to call back soon, after other work had a turn: `setImmediate` in Node.js. */
  readonly schedule: (callback: () => void) => void;
  /**
   * Whether the configuration changed since the last call, or the device may be gone or need a reset, at which the driver then
   * looks; asked at each turn.
   */
  readonly configChanged?: () => boolean;
}

/** That of a source that never does anything else. */
const ALWAYS_LOOKING: Lookout = {
  looking: true,
  onRest() {
    return;
  },
  brought() {
    return;
  },
};

/** Interrupts for a transport that has none: asks at each turn of an event loop, for as long as a caller waits. */
export class PollingInterrupts extends InterruptHandlers {
  /** The device is never asked to interrupt. */
  readonly lookout = ALWAYS_LOOKING;
  readonly #options: PollingOptions;
  #holds = 0;
  #scheduled = false;

  constructor(options: PollingOptions) {
    super();
    this.#options = options;
  }

  /** For a platform that learns by itself that the device was unplugged: tells the driver. */
  remove(): void {
    this.removalHandler?.();
  }

  override defer(callback: () => void): void {
    this.#options.schedule(callback);
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
      if (this.#options.configChanged?.() === true) this.configHandler?.();
      this.callQueues();
    } finally {
      if (this.#holds > 0) this.#next();
    }
  };
}
