/** Deadlines of calls that wait without an event loop. */

/**
 * A deadline. ECMAScript has no clock but the time of day, which can be set back: the time by which it was set back is not waited for.
 */
export class Deadline {
  #left: number;
  #seen = Date.now();

  constructor(milliseconds: number) {
    this.#left = milliseconds;
  }

  /** Whether the time is over. */
  get isOver(): boolean {
    const now = Date.now();
    if (now > this.#seen) this.#left -= now - this.#seen;
    this.#seen = now;
    return this.#left <= 0;
  }
}
