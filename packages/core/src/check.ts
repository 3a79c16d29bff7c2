/**
 * What callers without types get wrong most, refused at the door: another kind of array for bytes would be filled in part or not
 * at all without a word, and a number that is none, or too large, would be cut to something else.
 */
import { VirtioError } from './errors.ts';
import { describe, show } from './show.ts';

/** Names the device in messages: a transport, or the text itself. */
export type Named = string | { who(): string };

const nameOf = (named: Named): string => (typeof named === 'string' ? named : named.who());

/**
 * Refuses what is not a `Uint8Array`.
 *
 * @param named the device for the message
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireBytes(named: Named, value: unknown): asserts value is Uint8Array {
  if (value instanceof Uint8Array) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${nameOf(named)}: bytes were expected in a Uint8Array, and ${describe(value)} was given; of an array or its buffer, give ` +
      'new Uint8Array(buffer, byteOffset, byteLength)',
  );
}

/**
 * Refuses what is not an integer within bounds.
 *
 * @param named the device for the message
 * @param name the argument for the message
 * @param min the least value that is accepted
 * @param max the greatest one
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
