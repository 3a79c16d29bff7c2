/** The promises of callers that wait for an answer, by slot. A promise is settled where its used chain is found. */

/** Settles the promise of a caller. */
export type Resolve = (value: unknown) => void;

function nothing(): void {
  return;
}

/**
 * What a promise is resolved with to reject it. The `reject` function of a promise is never kept, so that engines need not make it:
 * it would be a seventh of what a promise costs.
 */
export class Rejection {
  readonly #error: unknown;

  constructor(error: unknown) {
    this.#error = error;
  }

  then(_resolve: unknown, reject: (error: unknown) => void): void {
    reject(this.#error);
  }
}

/** The `resolve` functions of promises, one for each slot. */
export class Promises {
  /** How many wait. */
  count = 0;

  readonly #resolves: Resolve[];

  constructor(slots: number) {
    this.#resolves = new Array<Resolve>(slots).fill(nothing);
  }

  /** Makes a promise for a slot. */
  make(slot: number): Promise<unknown> {
    // A function of its own, which engines inline together with the constructor: no function but `resolve` is then made.
    return new Promise((resolve) => {
      this.put(slot, resolve);
    });
  }

  /** Stores the function of a promise for a slot. */
  put(slot: number, resolve: Resolve): void {
    this.#resolves[slot] = resolve;
    this.count += 1;
  }

  /** Removes the promise of a slot; returns its function. */
  remove(slot: number): Resolve {
    const resolve = this.#resolves[slot] as Resolve;
    this.#resolves[slot] = nothing;
    this.count -= 1;
    return resolve;
  }
}
