/** The promises of callers that wait for an answer, by slot. A promise is settled where its used chain is found. */

function nothing(): void {
  return;
}

/** The `resolve` and `reject` functions of promises: two for each slot, and no other functions are made. */
export class Promises {
  /** How many wait. */
  count = 0;

  readonly #resolves: ((value: unknown) => void)[];
  readonly #rejects: ((error: unknown) => void)[];

  // The functions of the promise that was made last; `#capture` stores them here, so that no promise needs a function of its own.
  #resolve: (value: unknown) => void = nothing;
  #reject: (error: unknown) => void = nothing;

  constructor(slots: number) {
    this.#resolves = new Array<typeof nothing>(slots).fill(nothing);
    this.#rejects = new Array<typeof nothing>(slots).fill(nothing);
  }

  /** Makes a promise for a slot. */
  make(slot: number): Promise<unknown> {
    const promise = new Promise<unknown>(this.#capture);
    this.put(slot, this.#resolve, this.#reject);
    return promise;
  }

  /** Stores the functions of a promise for a slot. */
  put(slot: number, resolve: (value: unknown) => void, reject: (error: unknown) => void): void {
    this.#resolves[slot] = resolve;
    this.#rejects[slot] = reject;
    this.count += 1;
  }

  /** The `resolve` function of a slot. */
  resolveOf(slot: number): (value: unknown) => void {
    return this.#resolves[slot] as (value: unknown) => void;
  }

  /** Removes the promise of a slot; returns its `reject` function. */
  remove(slot: number): (error: unknown) => void {
    const reject = this.#rejects[slot] as (error: unknown) => void;
    this.#resolves[slot] = nothing;
    this.#rejects[slot] = nothing;
    this.count -= 1;
    return reject;
  }

  readonly #capture = (resolve: (value: unknown) => void, reject: (error: unknown) => void): void => {
    this.#resolve = resolve;
    this.#reject = reject;
  };
}
