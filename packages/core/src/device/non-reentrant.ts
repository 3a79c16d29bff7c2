/**
 * A handler of interrupts that is never called while it runs. A device may answer, and interrupt, inside the notification that
 * the handler itself sends; if it does so each time, nested calls would fill the stack.
 */
import type { InterruptSource } from './interrupts.ts';

/** Calls a handler, one call at a time. */
export class NonReentrant {
  readonly #handler: () => void;
  readonly #interrupts: InterruptSource | undefined;
  #running = false;
  #again = false;

  /** @param interrupts runs the calls that came while the handler ran, one for all of them, after other work has had a turn */
  constructor(handler: () => void, interrupts: InterruptSource | undefined) {
    this.#handler = handler;
    this.#interrupts = interrupts;
  }

  /** Calls the handler now, or once more later if it is running. */
  readonly call = (): void => {
    if (this.#running) {
      this.#again = true;
      return;
    }
    this.#running = true;
    try {
      this.#handler();
    } finally {
      this.#running = false;
      if (this.#again) {
        this.#again = false;
        this.#interrupts?.defer(this.call);
      }
    }
  };
}
