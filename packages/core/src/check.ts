/**
 * Checks of arguments for callers without types. Without them, another kind of array would silently be filled in part or not at
 * all, and a value that is no number, or a number that is too large, would be truncated.
 */
import { VirtioError } from './errors.ts';
import { describe, show } from './show.ts';

/** What names the device in messages: a transport, or a text. */
export type Named = string | { who(): string };

const nameOf = (named: Named): string => (typeof named === 'string' ? named : named.who());

/**
 * Refuses what is not a `Uint8Array`, and one whose buffer was transferred.
 *
 * @param named the device for the message
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireBytes(named: Named, value: unknown): asserts value is Uint8Array {
  if (value instanceof Uint8Array) {
    if (value.length > 0 || (value.buffer as { readonly detached?: boolean }).detached !== true) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${nameOf(named)}: the array's buffer was transferred before the call, so it has no bytes; give one that this program still has`,
    );
  }
  throw new VirtioError(
    'INVALID_PARAM',
    `${nameOf(named)}: a Uint8Array was expected, and ${describe(value)} was given; make one of another kind of array with ` +
      'new Uint8Array(buffer, byteOffset, byteLength)',
  );
}

/**
 * Refuses what is not an integer within bounds.
 *
 * @param named the device for the message
 * @param name the argument for the message
 * @param min the smallest value that is accepted
 * @param max the largest one
 * @returns the value
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireInteger(named: Named, name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
  throw new VirtioError(
    'INVALID_PARAM',
    `${nameOf(named)}: ${name} is ${show(value)}; give an integer from ${min} to ${max}`,
  );
}
