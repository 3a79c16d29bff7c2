/**
 * Moments inside of the driver at which the device may act. A device runs beside its driver, so it writes between any two
 * accesses of the driver; here it gets its turn before and after each atomic one, which is where the driver looks at what
 * the device has done. Unlike a second thread, that can be replayed.
 */
const original = { load: Atomics.load, store: Atomics.store };

/** Lets a device act at moments inside of the driver, from its making until it is disposed. One at a time. */
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

  /** Calls `act` once, at the `count`th moment from now. What was to be called before is forgotten. */
  at(count: number, act: () => void): void {
    this.#left = count;
    this.#action = act;
  }

  /** Forgets what was to be called. */
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
