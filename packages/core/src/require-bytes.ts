/**
 * What callers without types get wrong most: a driver that takes another kind of array, or its length alone, for bytes would fill
 * a part of it, or nothing, without a word.
 */
import { VirtioError } from './errors.ts';
import type { Transport } from './transport.ts';

/**
 * Refuses what is no `Uint8Array`.
 *
 * @param transport of the device that the message names
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireBytes(transport: Pick<Transport, 'who'>, value: unknown): asserts value is Uint8Array {
  if (value instanceof Uint8Array) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${transport.who()}: bytes were expected in a Uint8Array, and ${describe(value)} was given; of an array or its buffer, give ` +
      'new Uint8Array(buffer, byteOffset, byteLength)',
  );
}

function describe(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value !== 'object') return `a ${typeof value}`;
  return `an object of type ${Object.prototype.toString.call(value).slice('[object '.length, -1)}`;
}
