/**
 * Interrupts of a PCI function. The platform provides the lines ({@link PciInterrupts}: eventfds of VFIO, an interrupt controller
 * on bare metal); which queue has which vector, sharing, and INTx with its status register are decided here once, and drivers see
 * core's `InterruptSource`.
 */
import { InterruptHandlers, type InterruptRegisters, VirtioError } from '@virtio/core';

/** The value of a vector register for "no interrupt" [4.1.5.1.2]. */
export const NO_VECTOR = 0xffff;

/**
 * The interrupt lines of one function, from the platform. With `vectors` above 0 MSI-X is enabled and so many entries of the
 * table, from 0, reach the driver; with 0 MSI-X is disabled and INTx does, as line 0.
 */
export interface PciInterrupts {
  /** How many MSI-X vectors are enabled: at most the size of the device's table [4.1.5.1.2.2]. 0: INTx. */
  readonly vectors: number;

  /**
   * Sets the only handler of a line: of MSI-X vector `line`, or of INTx if `line` is 0. `undefined` removes it.
   *
   * The handler returns whether the interrupt was this function's: a shared INTx line may be another's. Only after it returned
   * may a masked INTx line be unmasked.
   */
  onLine(line: number, handler: (() => boolean) | undefined): void;

  /** Sets the only handler of the removal of the device (hot-unplug). `undefined` removes it. */
  onRemoval(handler: (() => void) | undefined): void;

  /** A caller waits: an event loop stays alive while there are more holds than releases. */
  hold(): void;

  /** Ends one {@link PciInterrupts.hold}. */
  release(): void;

  /**
   * Another thread waits for a line from now on.
   *
   * @param alone whether this thread no longer needs the line
   * @returns a descriptor that it signals, for that thread to close; `undefined` if there is none
   */
  lendLine?(line: number, alone: boolean): number | undefined;

  /** Closes a descriptor of {@link PciInterrupts.lendLine}, where there is no thread to do that. */
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
  /** How many wait now. */
  holds = 0;
  readonly #handlers: ((() => boolean) | undefined)[] = [];
  #removal: (() => void) | undefined;

  /** @param vectors how many MSI-X vectors are enabled; 0 for INTx */
  constructor(vectors: number) {
    this.vectors = vectors;
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

  /** The device was unplugged. */
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
    this.holds -= 1;
  }

  /** There is no descriptor; those who have some override this. */
  lendLine(_line: number, _alone: boolean): number | undefined {
    return undefined;
  }

  /** @see {@link InterruptLines.lendLine} */
  closeLent(_descriptor: number): void {
    return;
  }
}

/** What the dispatcher asks of its transport. */
export interface InterruptingFunction extends InterruptRegisters {
  /** Names the device in messages. */
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

  /** Removes the handlers from the lines. */
  close(): void {
    this.#lines.onRemoval(undefined);
    const lines = Math.max(1, this.#lines.vectors);
    for (let line = 0; line < lines; line += 1) this.#lines.onLine(line, undefined);
  }

  /**
   * Maps configuration changes to vector 0, unless they are mapped. Before the queues: a device that runs out of resources for
   * vectors (4.1.5.1.2) then still has one for this.
   *
   * @param tryVector writes the vector register and reads it back
   */
  mapConfig(tryVector: (vector: number) => number): void {
    if (this.#lines.vectors === 0 || this.#configVector !== NO_VECTOR) return;
    this.#configVector = this.#map(tryVector, 0, 'configuration changes');
  }

  /**
   * Maps a queue: to a vector of its own if there are enough, else to a shared one, also if the device refuses.
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

  /** The descriptor for another thread of the vector of a queue, or `undefined` if that has to poll: INTx cannot be shared so. */
  lendQueue(queue: number): number | undefined {
    const vector = this.#queuesOf.findIndex((queues) => queues.includes(queue));
    if (vector < 0) return undefined;
    const alone = this.#queuesOf[vector]?.length === 1 && vector !== this.#configVector;
    return this.#lines.lendLine?.(vector, alone);
  }

  /** Closes a descriptor of {@link InterruptDispatcher.lendQueue}, where there is no thread to do that. */
  closeLent(descriptor: number): void {
    this.#lines.closeLent?.(descriptor);
  }

  /** 4.1.5.1.2.1: after a reset nothing is mapped. */
  unmapAll(): void {
    this.#configVector = NO_VECTOR;
    for (const queues of this.#queuesOf) queues.length = 0;
  }

  /** Forgets the vector of a queue. */
  unmapQueue(queue: number): void {
    for (const queues of this.#queuesOf) {
      const place = queues.indexOf(queue);
      if (place >= 0) queues.splice(place, 1);
    }
  }

  /**
   * What is mapped already needs no new resources: vectors of few queues first, that of the configuration, at which a driver looks
   * at the device, last. Then any other.
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
      // 4.1.5.1.2.2: what reads back says whether the mapping succeeded; if not, another may.
      const mapped = tryVector(vector);
      if (mapped === vector) return vector;
      if (this.#device.isGone()) throw this.#device.removed();
      if (mapped !== NO_VECTOR) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `${this.#device.who()}: ${what} was given interrupt vector ${vector}, the device says ${mapped}; ` +
            'it must say the same, or 65535 for none',
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
    // 4.1.4.5.2: the ISR status is not read. 4.1.5.4.2: one vector may stand for queues and configuration both.
    const queues = this.#queuesOf[vector] as number[];
    for (let i = 0; i < queues.length; i += 1) this.queueHandlers.get(queues[i] as number)?.();
    if (vector === this.#configVector) this.configHandler?.();
    return true;
  }
}
