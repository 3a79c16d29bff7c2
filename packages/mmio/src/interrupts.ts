/**
 * The interrupt of an MMIO device: one line for all queues and for changes of the configuration. The platform provides the line
 * ({@link MmioInterrupt}); this module finds the cause, and drivers see core's `InterruptSource`.
 */
import { InterruptHandlers, type InterruptRegisters } from '@virtio/core';

/** The interrupt line of one device, which the platform provides. */
export interface MmioInterrupt {
  /**
   * Sets the only handler of the line. `undefined` removes it.
   *
   * The handler returns whether the interrupt was this device's: a line may be shared. When it has returned, the device has
   * de-asserted the line, unless there is more to handle.
   */
  onLine(handler: (() => boolean) | undefined): void;
  /** Records that a caller waits: the event loop stays alive while there are more holds than releases. */
  hold(): void;
  /** Ends one {@link MmioInterrupt.hold}. */
  release(): void;
}

/**
 * An interrupt line that its owner fires: for platforms where interrupt handlers are called from outside, and for tests.
 *
 * @example
 * ```ts
 * import type { RegisterWindow } from '@virtio/core';
 * import { InterruptLine, MmioTransport } from '@virtio/mmio';
 *
 * export function open(window: RegisterWindow, onIrq: (handler: () => void) => void): MmioTransport {
 *   const line = new InterruptLine();
 *   onIrq(() => line.fire());
 *   return new MmioTransport(window, { name: 'MMIO 0xa000000', interrupts: line });
 * }
 * ```
 */
export class InterruptLine implements MmioInterrupt {
  /** How many callers wait now. */
  holds = 0;
  #handler: (() => boolean) | undefined;

  /**
   * Runs the handler.
   *
   * @returns whether the interrupt was the device's
   */
  fire(): boolean {
    return this.#handler?.() ?? false;
  }

  onLine(handler: (() => boolean) | undefined): void {
    this.#handler = handler;
  }

  hold(): void {
    this.holds += 1;
  }

  release(): void {
    // Without a hold it would take away the next one.
    if (this.holds > 0) this.holds -= 1;
  }
}

/** Hands the interrupts of a line to the handlers of a driver. */
export class InterruptDispatcher extends InterruptHandlers {
  readonly #line: MmioInterrupt;

  constructor(line: MmioInterrupt, device: InterruptRegisters) {
    super();
    this.#line = line;
    line.onLine(() => this.handleInterrupt(device));
  }

  hold(): void {
    this.#line.hold();
  }

  release(): void {
    this.#line.release();
  }

  /** Removes the handler from the line. A driver that still has the device is told that it is gone. */
  close(): void {
    this.#line.onLine(undefined);
    this.removalHandler?.();
  }
}
