/**
 * Passes pending interrupts of a controller to the lines of devices. It is polled by the event loop, not called from a trap
 * handler.
 */
import { requireInteger } from '@virtio/core';
import type { MmioInterrupt } from '@virtio/mmio';
import type { PciInterrupts } from '@virtio/pci';

/** An interrupt controller. Sources are the controller's interrupt numbers. */
export interface InterruptController {
  /** Enables a source. */
  enable(source: number): void;
  /** Disables a source. */
  disable(source: number): void;
  /** Takes the next pending source, or -1 if there is none. */
  claim(): number;
  /** Reports that the source was handled: it may become pending again. */
  complete(source: number): void;
}

/** An event loop that is kept alive while a caller waits: a `BareLoop`. */
export interface Holdable {
  /** Records that a caller waits. */
  hold(): void;
  /** Ends one `hold`. */
  release(): void;
}

type Handler = () => boolean;

/** The most claims per turn: a line that stays asserted must not stop the loop from doing anything else. */
const CLAIMS = 64;

/** The vectors of the largest MSI-X table. */
const MAX_VECTORS = 2048;

/**
 * Calls the handlers of an interrupt controller's sources. Lines may be shared.
 *
 * Interrupts may stay masked in the processor: `wfi` returns when one is pending, masked or not, and the loop then calls
 * {@link InterruptRouter.poll}.
 */
export class InterruptRouter {
  readonly #controller: InterruptController;
  readonly #loop: Holdable;
  readonly #handlers = new Map<number, Set<Handler>>();
  /** How many interrupts belonged to no handler. */
  spurious = 0;

  constructor(controller: InterruptController, loop: Holdable) {
    this.#controller = controller;
    this.#loop = loop;
  }

  /** The interrupt line of an MMIO device. */
  mmio(source: number): MmioInterrupt {
    let current: Handler | undefined;
    return {
      onLine: (handler) => {
        current = this.#replace(source, current, handler);
      },
      hold: () => this.#loop.hold(),
      release: () => this.#loop.release(),
    };
  }

  /** The interrupts of a PCI function with INTx. */
  intx(source: number): PciInterrupts {
    return this.#pci(0, [source]);
  }

  /**
   * The interrupts of a PCI function with MSI-X: one source per vector. The messages in its MSI-X table must cause these sources.
   *
   * @throws VirtioError `INVALID_PARAM` without a source: no vectors would mean INTx, which has a source as well
   */
  msix(sources: readonly number[]): PciInterrupts {
    requireInteger('InterruptRouter', 'the number of sources', sources.length, 1, MAX_VECTORS);
    return this.#pci(sources.length, sources);
  }

  /** Calls the handlers of all pending interrupts. Returns whether there were any. */
  poll(): boolean {
    for (let claims = 0; claims < CLAIMS; claims += 1) {
      const source = this.#controller.claim();
      if (source < 0) return claims > 0;
      let taken = false;
      try {
        for (const handler of this.#handlers.get(source) ?? []) if (handler()) taken = true;
      } finally {
        this.#controller.complete(source);
      }
      if (!taken) this.spurious += 1;
    }
    return true;
  }

  #pci(vectors: number, sources: readonly number[]): PciInterrupts {
    const current: (Handler | undefined)[] = [];
    return {
      vectors,
      onLine: (line, handler) => {
        const source = sources[line];
        if (source !== undefined) current[line] = this.#replace(source, current[line], handler);
      },
      // Removals are not reported here; the driver notices when the device no longer answers.
      onRemoval: () => undefined,
      hold: () => this.#loop.hold(),
      release: () => this.#loop.release(),
    };
  }

  #replace(source: number, old: Handler | undefined, handler: Handler | undefined): Handler | undefined {
    const handlers = this.#handlers.get(source) ?? new Set();
    this.#handlers.set(source, handlers);
    if (old !== undefined) handlers.delete(old);
    if (handler !== undefined) handlers.add(handler);
    if (handlers.size > 0) this.#controller.enable(source);
    else this.#controller.disable(source);
    return handler;
  }
}
