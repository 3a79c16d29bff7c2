/**
 * Tasks: one implementation for two ways to wait. The client's operations are generators that yield whenever they have to wait;
 * `FileClient.run` waits with promises, `FileClient.runSync` by spinning. A generator that needs several answers sends all its
 * requests first and then waits for each, so that many are in flight in either way.
 */

/** The largest number of requests that one task has in flight. */
export const WINDOW = 32;

/** An operation of a client, for `FileClient.run` or `FileClient.runSync`. */
export type Task<T> = Generator<number, T, undefined>;

/**
 * Yielded to wait for a free tag, where a task can be cancelled, too. Values other than this and {@link CHECK} are tags whose answers the
 * task waits for.
 */
export const ROOM = -1;

/** Yielded where a task can be cancelled: the error is thrown into it there. */
export const CHECK = -2;

/** Added to the tag of a request that must not be cancelled, as it cleans up. */
export const HOLD = 0x1_0000;
