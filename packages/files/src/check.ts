/** What enters from callers is checked here, before anything is sent: nothing is silently cut on its way to the server. */
import { requireInteger, VirtioError } from '@virtio/core';

export const MAX_U32 = 0xffff_ffff;

/** The largest number of a user or a group; the one behind it means none. */
export const MAX_ID = MAX_U32 - 1;

/** Whose arguments are refused, for messages that stand for no device. */
export const CLIENT = 'the file system';

/** A size of a file, or a position in it. */
export function checkSize(name: string, value: unknown): number {
  return requireInteger(CLIENT, name, value, 0, Number.MAX_SAFE_INTEGER);
}

/** Permissions, and what may stand above them: a string of octal digits would be taken for a decimal number. */
export function checkMode(name: string, value: unknown): number {
  return requireInteger(CLIENT, name, value, 0, 0xffff);
}

/** The number of a user or a group, or as in `node:fs` -1, which leaves it as it is: `undefined` then. */
export function checkOwner(name: string, value: unknown): number | undefined {
  const id = requireInteger(CLIENT, name, value, -1, MAX_ID);
  return id === -1 ? undefined : id;
}

/**
 * A path.
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
    `${CLIENT}: ${name} is a string, and ${typeof value} was given: ${String(value)}`,
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

/** What ends a read or write whose bytes the caller has transferred or resized meanwhile. `length`: how many there were. */
export function resized(length: number): VirtioError {
  return new VirtioError(
    'INVALID_PARAM',
    `${CLIENT}: the ${length} bytes to be read or written were transferred or resized meanwhile, and may be read or written in part; leave ` +
      'them as they are until the call has ended',
  );
}
