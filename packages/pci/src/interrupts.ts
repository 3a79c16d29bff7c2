/**
 * Interrupts of a PCI function. The platform provides the lines ({@link PciInterrupts}: eventfds of VFIO, an interrupt controller
 * on bare metal); this module maps queues to vectors, shares vectors, and handles INTx with the ISR status; drivers see core's
 * `InterruptSource`.
 */
import { InterruptHandlers, type InterruptRegisters, requireInteger, VirtioError } from '@virtio/core';

/** The value of a vector register for "no interrupt" [4.1.5.1.2]. */
export const NO_VECTOR = 0xffff;

/** The vectors of the largest MSI-X table. */
const MAX_VECTORS = 2048;

/**
 * The interrupt lines of one function, from the platform. If `vectors` is above 0, MSI-X is enabled and that many entries of the
 * table, from entry 0, interrupt the driver; if it is 0, MSI-X is disabled and INTx is line 0.
 */
export interface PciInterrupts {
  /** How many MSI-X vectors are enabled: at most the size of the device's table [4.1.5.1.2.2]. 0: INTx. */
  readonly vectors: number;

  /**
   * Sets the only handler of a line: of MSI-X vector `line`, or of INTx if `line` is 0. `undefined` removes it.
   *
   * The handler returns whether the interrupt was this function's: an INTx line may be shared. A masked INTx line may be unmasked
   * only after the handler has returned.
   */
  onLine(line: number, handler: (() => boolean) | undefined): void;

  /** Sets the only handler of the removal of the device (hot-unplug). `undefined` removes it. */
  onRemoval(handler: (() => void) | undefined): void;

  /** Records that a caller waits: the event loop stays alive while there are more holds than releases. */
  hold(): void;

  /** Ends one {@link PciInterrupts.hold}. */
  release(): void;

  /**
   * Lends a line to another thread, which waits for it from now on.
   *
   * @param alone whether this thread no longer needs the line
   * @returns a descriptor that the line signals and that thread closes; `undefined` if there is none
   */
  lendLine?(line: number, alone: boolean): number | undefined;

  /** Closes a descriptor of {@link PciInterrupts.lendLine} that no thread has taken. */
  closeLent?(descriptor: number): void;
}

/**
 * Interrupt lines that their owner fires: for platforms where interrupt handlers are called from outside, and for tests.
 *
 * @example
 * ```ts
 * import { InterruptLines } from '@virtio/pci';
 *
 * const lines = new InterruptLines(3);
 * // The handler of the interrupt controller, for the message of MSI-X vector 1:
 * export const onMessage = (): boolean => lines.fire(1);
 * ```
 */
export class InterruptLines implements PciInterrupts {
  readonly vectors: number;
  /** How many callers wait now. */
  holds = 0;
  readonly #handlers: ((() => boolean) | undefined)[] = [];
  #removal: (() => void) | undefined;

  /**
   * @param vectors how many MSI-X vectors are enabled; 0 for INTx
   * @throws {@link VirtioError} `INVALID_PARAM` for more than a table can have
   */
  constructor(vectors: number) {
    this.vectors = requireInteger('InterruptLines', 'vectors', vectors, 0, MAX_VECTORS);
  }

  /**
   * Runs the handler of a line.
   *
   * @param line the MSI-X vector, or 0 for INTx
   * @returns whether the interrupt was this function's
   */
  fire(line: number): boolean {
    return this.#handlers[line]?.() ?? false;
  }

  /** Reports that the device was unplugged. */
  remove(): void {
    this.#removal?.();
  }

  onLine(line: number, handler: (() => boolean) | undefined): void {
    this.#handlers[line] = handler;
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.#removal = handler;
  }

  hold(): void {
    this.holds += 1;
  }

  release(): void {
    // Without a hold it would take away the next one.
    if (this.holds > 0) this.holds -= 1;
  }

  /** Returns `undefined`; a platform with descriptors overrides it. */
  lendLine(_line: number, _alone: boolean): number | undefined {
    return undefined;
  }

  /** @see {@link InterruptLines.lendLine} */
  closeLent(_descriptor: number): void {
    return;
  }
}

/** What the dispatcher needs of its transport. */
export interface InterruptingFunction extends InterruptRegisters {
  /** The device, for messages. */
  who(): string;
  /** The error of a device that no longer answers. */
  removed(): VirtioError;
}

/** Hands the interrupts of {@link PciInterrupts} to the handlers of a driver. */
export class InterruptDispatcher extends InterruptHandlers {
  readonly #lines: PciInterrupts;
  readonly #device: InterruptingFunction;
  /** Queues by MSI-X vector. */
  readonly #queuesOf: number[][] = [];
  #configVector = NO_VECTOR;

  constructor(lines: PciInterrupts, device: InterruptingFunction) {
    super();
    this.#lines = lines;
    this.#device = device;
    lines.onRemoval(() => this.removalHandler?.());
    if (lines.vectors === 0) {
      lines.onLine(0, () => this.handleInterrupt(device));
      return;
    }
    for (let vector = 0; vector < lines.vectors; vector += 1) {
      this.#queuesOf[vector] = [];
      lines.onLine(vector, () => this.#msix(vector));
    }
  }

  hold(): void {
    this.#lines.hold();
  }

  release(): void {
    this.#lines.release();
  }

  /** Removes the handlers from the lines. A driver that still has the device is told that it is gone. */
  close(): void {
    this.#lines.onRemoval(undefined);
    const lines = Math.max(1, this.#lines.vectors);
    for (let line = 0; line < lines; line += 1) this.#lines.onLine(line, undefined);
    this.removalHandler?.();
  }

  /**
   * Maps configuration changes to vector 0, unless they are mapped. This is done before the queues: a device that runs out of
   * resources for vectors (4.1.5.1.2) then still has one for them.
   *
   * @param tryVector writes the vector register and reads it back
   */
  mapConfig(tryVector: (vector: number) => number): void {
    if (this.#lines.vectors === 0 || this.#configVector !== NO_VECTOR) return;
    this.#configVector = this.#map(tryVector, 0, 'configuration changes');
  }

  /**
   * Maps a queue to a vector of its own; to a shared one if there are not enough or the device refuses.
   *
   * @param tryVector writes the vector register and reads it back
   */
  mapQueue(queue: number, tryVector: (vector: number) => number): void {
    const { vectors } = this.#lines;
    if (vectors === 0) return;
    this.unmapQueue(queue);
    // 4.1.5.1.2.2: never a vector outside the table.
    const own = vectors === 1 ? 0 : 1 + (queue % (vectors - 1));
    const vector = this.#map(tryVector, own, `queue ${queue}`);
    this.#queuesOf[vector]?.push(queue);
  }

  /** The descriptor of a queue's vector, for another thread; `undefined` if that thread must poll, as with INTx. */
  lendQueue(queue: number): number | undefined {
    const vector = this.#queuesOf.findIndex((queues) => queues.includes(queue));
    if (vector < 0) return undefined;
    const alone = this.#queuesOf[vector]?.length === 1 && vector !== this.#configVector;
    return this.#lines.lendLine?.(vector, alone);
  }

  /** Closes a descriptor of {@link InterruptDispatcher.lendQueue} that no thread has taken. */
  closeLent(descriptor: number): void {
    this.#lines.closeLent?.(descriptor);
  }

  /** 4.1.5.1.2.1: after a reset nothing is mapped. */
  unmapAll(): void {
    this.#configVector = NO_VECTOR;
    for (const queues of this.#queuesOf) queues.length = 0;
  }

  /** Removes the mapping of a queue. */
  unmapQueue(queue: number): void {
    for (const queues of this.#queuesOf) {
      const place = queues.indexOf(queue);
      if (place >= 0) queues.splice(place, 1);
    }
  }

  /**
   * Vectors to try next. Those that are mapped already need no new resources: those with few queues first, the one of the
   * configuration last, as its handler also checks the device. Then all others.
   */
  #alternatives(): number[] {
    const rank = (vector: number): number => {
      if (vector === this.#configVector) return 0x1_0000;
      const queues = this.#queuesOf[vector]?.length ?? 0;
      return queues > 0 ? queues : 0x2_0000;
    };
    return Array.from({ length: this.#lines.vectors }, (_, vector) => vector).sort(
      (a, b) => rank(a) - rank(b),
    );
  }

  #map(tryVector: (vector: number) => number, wanted: number, what: string): number {
    for (const vector of new Set([wanted, ...this.#alternatives()])) {
      // 4.1.5.1.2.2: the value read back shows whether the mapping succeeded; if not, another vector may work.
      const mapped = tryVector(vector);
      if (mapped === vector) return vector;
      if (this.#device.isGone()) throw this.#device.removed();
      if (mapped !== NO_VECTOR) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `${this.#device.who()}: ${what} was mapped to interrupt vector ${vector}, but the register reads back as ${mapped}; ` +
            'the device must return the same value, or 65535 for none',
        );
      }
    }
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#device.who()} has no interrupt vector for ${what}, not even one shared with others; open it with fewer ` +
        'vectors, with INTx, or without interrupts',
    );
  }

  #msix(vector: number): boolean {
    // 4.1.4.5.2: the ISR status is not read. 4.1.5.4.2: one vector may be used for queues and the configuration.
    const queues = this.#queuesOf[vector] as number[];
    for (let i = 0; i < queues.length; i += 1) this.queueHandlers.get(queues[i] as number)?.();
    if (vector === this.#configVector) this.configHandler?.();
    return true;
  }
}
