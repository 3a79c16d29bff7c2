/** Copies parts of arrays: short ones in a loop, and long ones through a view, which then costs less than the loop. */

/** The size from which a view is faster than a loop, in bytes. */
const WORTH_A_VIEW = 256;

/**
 * Copies a part of an array. Copying a whole array allocates nothing.
 *
 * @param at where the part begins in `from`
 * @param count its size in bytes
 * @param into where it is copied to in `to`
 */
export function copyPart(from: Uint8Array, at: number, count: number, to: Uint8Array, into: number): void {
  if (at === 0 && count === from.length) to.set(from, into);
  else if (count >= WORTH_A_VIEW) to.set(from.subarray(at, at + count), into);
  else for (let n = 0; n < count; n += 1) to[into + n] = from[at + n] as number;
}
