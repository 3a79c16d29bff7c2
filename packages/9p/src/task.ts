/**
 * One text for two ways to wait. What the client does is written as generators that yield whenever there is something to
 * wait for; `P9Client.run` carries them on with promises, `P9Client.runSync` by spinning. A generator that needs several
 * answers sends all its requests first and then waits for each, so that many are in flight in either way.
 */

/** Something to do on a client, in either way: see {@link P9Client.run} and {@link P9Client.runSync}. */
export type Task<T> = Generator<number, T, undefined>;

/** Yielded to wait for a free tag. All other values that are not {@link CHECK} are tags to wait for an answer to. */
export const ROOM = -1;

/** Yielded where a task can be cancelled: throws into it if it was. */
export const CHECK = -2;

/** Added to a tag whose request must not be cancelled, as it tidies up. */
export const HOLD = 0x1_0000;
