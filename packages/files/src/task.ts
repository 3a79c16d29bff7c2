/**
 * One text for two ways to wait. The client's operations are generators that yield whenever there is something to wait for;
 * `FileClient.run` goes on with promises, `FileClient.runSync` by spinning. A generator that needs several
 * answers sends all its requests first and then waits for each, so that many are in flight in either way.
 */

/** How many requests one task has in flight. */
export const WINDOW = 32;

/** An operation of a client, for `FileClient.run` or `FileClient.runSync`. */
export type Task<T> = Generator<number, T, undefined>;

/** Yielded to wait for a free tag. All other values that are not {@link CHECK} are tags to wait for an answer to. */
export const ROOM = -1;

/** Yielded where a task can be cancelled: the error is thrown into it there. */
export const CHECK = -2;

/** Added to a tag whose request must not be cancelled, as it tidies up. */
export const HOLD = 0x1_0000;
