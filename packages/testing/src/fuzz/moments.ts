/**
 * Moments within the driver at which the device may act. A real device runs in parallel, so it may write between any two accesses
 * of the driver; here it may act before and after each atomic access, with which the driver checks what the device has done. Unlike
 * with a second thread, that can be reproduced.
 */
const original = { load: Atomics.load, store: Atomics.store };

/** Lets a device act at moments within the driver, from construction to disposal. Only one may exist at a time. */
export class Moments implements Disposable {
  #left = 0;
  #action: (() => void) | undefined;

  constructor() {
    const pass = (): void => {
      this.#pass();
    };
    const { load, store } = original;
    Object.assign(Atomics, {
      load(array: Uint32Array, index: number): number {
        pass();
        const value = load(array, index);
        pass();
        return value;
      },
      store(array: Uint32Array, index: number, value: number): number {
        pass();
        const stored = store(array, index, value);
        pass();
        return stored;
      },
    });
  }

  /** Calls `act` once, at the `count`th moment from now. Replaces the call that was planned before. */
  at(count: number, act: () => void): void {
    this.#left = count;
    this.#action = act;
  }

  /** Cancels the planned call. */
  clear(): void {
    this.#action = undefined;
  }

  [Symbol.dispose](): void {
    this.#action = undefined;
    Object.assign(Atomics, original);
  }

  #pass(): void {
    if (this.#action === undefined) return;
    this.#left -= 1;
    if (this.#left > 0) return;
    const act = this.#action;
    this.#action = undefined;
    act();
  }
}
