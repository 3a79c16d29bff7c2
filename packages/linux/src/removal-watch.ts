/**
 * Notices that a device is gone where the kernel does not report it: by checking repeatedly, even while no caller waits for the
 * device.
 */

/** How often, in milliseconds. */
const PERIOD_MS = 500;

/** Checks repeatedly whether a device is there, until it is gone. Does not keep the event loop alive. */
export class RemovalWatch implements Disposable {
  readonly #timer: NodeJS.Timeout;

  /** @param onGone called once */
  constructor(isThere: () => boolean, onGone: () => void) {
    this.#timer = setInterval(() => {
      if (isThere()) return;
      this[Symbol.dispose]();
      onGone();
    }, PERIOD_MS);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
