/** Copies without making a view of a part, but where the part is so long that the view costs less than a loop. */

/** Parts of so many bytes are worth a view. */
const WORTH_A_VIEW = 256;

/**
 * Copies a part of an array. A whole one costs no allocation.
 *
 * @param at where the part begins
 * @param count its bytes
 * @param into where it goes to in `to`
 */
export function copyPart(from: Uint8Array, at: number, count: number, to: Uint8Array, into: number): void {
  if (at === 0 && count === from.length) to.set(from, into);
  else if (count >= WORTH_A_VIEW) to.set(from.subarray(at, at + count), into);
  else for (let n = 0; n < count; n += 1) to[into + n] = from[at + n] as number;
}
