/**
 * A level-triggered interrupt line and its handler. The handler is called as on a processor: not inside the access that asserted
 * the line but after it (in a microtask), and again while the line stays asserted and the handler returns true.
 */

/** Handles an asserted line. Returns whether the interrupt was for the device. */
export type InterruptHandler = () => boolean;

/** A level-triggered line. */
export class InterruptPin {
  /** How often the handler was called. */
  calls = 0;
  readonly #handler: InterruptHandler | undefined;
  #asserted = false;
  #scheduled = false;

  constructor(handler: InterruptHandler | undefined) {
    this.#handler = handler;
  }

  /** Whether the line is asserted. */
  get asserted(): boolean {
    return this.#asserted;
  }

  /** Asserts or de-asserts the line. */
  set(asserted: boolean): void {
    this.#asserted = asserted;
    if (asserted) this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled || !this.#handler) return;
    this.#scheduled = true;
    void Promise.resolve().then(() => {
      this.#scheduled = false;
      if (!this.#asserted) return;
      this.calls += 1;
      if (this.#handler?.() === true && this.asserted) this.#schedule();
    });
  }
}
