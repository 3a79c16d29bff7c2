/**
 * How a driver learns that the device has done something: one interface for MSI-X, INTx, MMIO interrupts and polling, so that
 * drivers do not depend on which one is used.
 */
import { InterruptStatus } from './device-status.ts';

/** State of a source of interrupts that polls the queues by itself. While it polls, the device need not interrupt. */
export interface Lookout {
  /** Whether the source polls all queues now, repeatedly, while there are holds. */
  readonly looking: boolean;
  /** Sets the only handler of a queue that is called when the source stops polling. `undefined` removes it. */
  onRest(queue: number, handler: (() => void) | undefined): void;
  /** The driver reports that a poll or an interrupt has found something. */
  brought(): void;
}

/**
 * A source of interrupts: calls its handlers when the device has, or may have, used buffers or changed its configuration. Calls
 * may be spurious.
 */
export interface InterruptSource {
  /** Sets the only handler of a queue. `undefined` removes it. */
  onQueue(queue: number, handler: (() => void) | undefined): void;
  /** Sets the only handler of configuration changes; a device that needs a reset reports it in this way as well. */
  onConfig(handler: (() => void) | undefined): void;
  /** Sets the only handler of the removal of the device (hot-unplug). */
  onRemoval(handler: (() => void) | undefined): void;
  /**
   * Records that a caller waits. While the number of holds is above zero, the event loop is kept alive and a polling source
   * polls.
   */
  hold(): void;
  /** Ends one {@link InterruptSource.hold}. */
  release(): void;
  /**
   * Runs a callback soon, after timers and other work of the event loop have had a turn (`setImmediate` in Node.js). Drivers use
   * it for a device that has more used buffers each time they poll.
   */
  defer(callback: () => void): void;
  /** Present if the source polls the queues by itself, always or at times. */
  readonly lookout?: Lookout | undefined;
}

/** What {@link InterruptHandlers.handleInterrupt} needs of a transport. */
export interface InterruptRegisters {
  /** Reads which interrupts are pending and acknowledges them. */
  ackInterrupt(): InterruptStatus;
  /** Whether the device no longer answers. */
  isGone(): boolean;
}

const call = (handler: () => void): void => handler();

const ANY = InterruptStatus.QUEUE_INTERRUPT | InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT;

/**
 * The base of an {@link InterruptSource}, for authors of transports: keeps the handlers that a driver has set. A subclass adds
 * where interrupts come from and what a hold does. Calling a handler allocates nothing.
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
  /** By the index of the queue. Indices may have large gaps. */
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

  /** Runs a callback in a microtask, for platforms that have nothing else; those with an event loop override it. */
  defer(callback: () => void): void {
    void Promise.resolve().then(callback);
  }

  /** Calls the handlers of all queues, for interrupts that do not say which queue has used buffers. */
  protected callQueues(): void {
    this.queueHandlers.forEach(call);
  }

  /**
   * Handles an interrupt of a line that a device uses for all its causes, which its interrupt status names. The status is
   * acknowledged before the handlers run: what the device does after they have looked sets it again, and asserts the line again.
   * If it were acknowledged afterwards, that would be lost.
   *
   * A status with all bits set may come from a device that is no longer there; the removal is then reported.
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
  /** Asks the platform to call back soon, after other work has had a turn: `setImmediate` in Node.js. */
  readonly schedule: (callback: () => void) => void;
  /**
   * Whether the configuration has changed since the last call, or the device may have been removed or need a reset; the driver
   * then checks that. Called at each turn.
   */
  readonly configChanged?: () => boolean;
}

/** The lookout of a source that always polls. */
const ALWAYS_LOOKING: Lookout = {
  looking: true,
  onRest() {
    return;
  },
  brought() {
    return;
  },
};

/** Polling in place of interrupts, for a transport that has none: polls at each turn of the event loop while a caller waits. */
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

  /** Tells the driver that the device was unplugged, for a platform that learns of it by itself. */
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
    // Without a hold it would take away the next one.
    if (this.#holds > 0) this.#holds -= 1;
  }

  #next(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#options.schedule(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    if (this.#holds === 0) return;
    try {
      if (this.#options.configChanged?.() === true) this.configHandler?.();
      this.callQueues();
    } finally {
      if (this.#holds > 0) this.#next();
    }
  };
}
