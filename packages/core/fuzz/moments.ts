/**
 * Moments inside of the driver at which the device may act. A device runs beside its driver, so it writes between any two
 * accesses of the driver; here it gets its turn before and after each atomic one, which is where the driver looks at what
 * the device has done. Unlike a second thread, that can be replayed.
 */
const { load, store } = Atomics;

let left = 0;
let action: (() => void) | undefined;

/** Calls `act` once, at the `count`th moment from now. What was to be called before is forgotten. */
export function atMoment(count: number, act: () => void): void {
  left = count;
  action = act;
}

/** Forgets what was to be called. */
export function noMoment(): void {
  action = undefined;
}

function pass(): void {
  if (action === undefined) return;
  left -= 1;
  if (left > 0) return;
  const act = action;
  action = undefined;
  act();
}

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
