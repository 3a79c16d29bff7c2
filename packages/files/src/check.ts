/** Checks the arguments of callers before anything is sent, so that nothing is silently truncated on its way to the server. */
import { requireInteger, VirtioError } from '@virtio/core';

export const MAX_U32 = 0xffff_ffff;

/** The largest number of a user or a group; the next number means none. */
export const MAX_ID = MAX_U32 - 1;

/** Names the file system in messages about arguments, which concern no device. */
export const CLIENT = 'the file system';

/** Checks the size of a file, or a position in it. */
export function checkSize(name: string, value: unknown): number {
  return requireInteger(CLIENT, name, value, 0, Number.MAX_SAFE_INTEGER);
}

/** Checks a mode: permissions, and the bits above them. A string is refused, as its octal digits would be read as a decimal number. */
export function checkMode(name: string, value: unknown): number {
  return requireInteger(CLIENT, name, value, 0, 0xffff);
}

/** Checks the number of a user or a group. Returns `undefined` for -1, which as in `node:fs` leaves it as it is. */
export function checkOwner(name: string, value: unknown): number | undefined {
  const id = requireInteger(CLIENT, name, value, -1, MAX_ID);
  return id === -1 ? undefined : id;
}

/**
 * Checks a path.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` unless it is a string
 */
export function requirePath(path: unknown): asserts path is string {
  requireString('a path', path);
}

/** @throws {@link VirtioError} `INVALID_PARAM` */
export function requireString(name: string, value: unknown): asserts value is string {
  if (typeof value === 'string') return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${CLIENT}: ${name} is ${String(value)} (${typeof value}); give a string`,
  );
}

/** @throws {@link VirtioError} `INVALID_PARAM` */
export function requireChoice(name: string, value: unknown, choices: readonly string[]): void {
  if (choices.includes(value as string)) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${CLIENT}: ${name} is ${String(value)} (${typeof value}); it can be ${choices.join(' or ')}`,
  );
}

/** The error of a read or write whose bytes the caller transferred or resized meanwhile. `length`: how many there were. */
export function resized(length: number): VirtioError {
  return new VirtioError(
    'INVALID_PARAM',
    `${CLIENT}: the buffer of ${length} bytes was transferred or resized during the call, and may have been read or written in part; do ` +
      'not touch it until the call has ended',
  );
}
