/** Hands what an interrupt controller has pending to the lines of devices, outside of any trap: the event loop asks. */
import type { MmioInterrupt } from '@virtio/mmio';
import type { PciInterrupts } from '@virtio/pci';

/** An interrupt controller. Sources are its own numbers. */
export interface InterruptController {
  /** Enables a source. */
  enable(source: number): void;
  /** Disables a source. */
  disable(source: number): void;
  /** Takes the next pending source, or -1 if there is none. */
  claim(): number;
  /** The source was handled: it may become pending again. */
  complete(source: number): void;
}

/** What is kept alive while a caller waits: a `BareLoop`. */
export interface Holdable {
  /** Somebody waits. */
  hold(): void;
  /** Ends one `hold`. */
  release(): void;
}

type Handler = () => boolean;

/** So many claims a turn: a line that nobody can quiet must not keep the loop from everything else. */
const CLAIMS = 64;

/**
 * Sources of an interrupt controller and the handlers of each: lines may be shared.
 *
 * The processor's own interrupts may stay masked: `wfi` ends when one is pending, masked or not, and the loop calls
 * {@link InterruptRouter.poll}.
 */
export class InterruptRouter {
  readonly #controller: InterruptController;
  readonly #loop: Holdable;
  readonly #handlers = new Map<number, Set<Handler>>();
  /** How many interrupts no handler claimed. */
  spurious = 0;

  constructor(controller: InterruptController, loop: Holdable) {
    this.#controller = controller;
    this.#loop = loop;
  }

  /** The line of an MMIO device. */
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

  /** The lines of a PCI function: its INTx line. */
  intx(source: number): PciInterrupts {
    return this.#pci(0, [source]);
  }

  /** The lines of a PCI function: one source a MSI-X vector. Its table must send the messages that cause them. */
  msix(sources: readonly number[]): PciInterrupts {
    return this.#pci(sources.length, sources);
  }

  /** Calls the handlers of what is pending. Returns whether anything was. */
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
      // Nothing here tells of a removal; the driver finds out when the device no longer answers.
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
