/** The flags of `open`, by their names in `node:fs`. */
import { requireInteger, VirtioError } from '@virtio/core';
import { CLIENT } from './check.ts';
import { OpenFlag } from './numbers.ts';

const { RDONLY, WRONLY, RDWR, CREAT, EXCL, TRUNC, APPEND, SYNC } = OpenFlag;

const NAMES = {
  r: RDONLY,
  rs: RDONLY | SYNC,
  'r+': RDWR,
  'rs+': RDWR | SYNC,
  w: WRONLY | CREAT | TRUNC,
  wx: WRONLY | CREAT | TRUNC | EXCL,
  'w+': RDWR | CREAT | TRUNC,
  'wx+': RDWR | CREAT | TRUNC | EXCL,
  a: WRONLY | CREAT | APPEND,
  ax: WRONLY | CREAT | APPEND | EXCL,
  as: WRONLY | CREAT | APPEND | SYNC,
  'a+': RDWR | CREAT | APPEND,
  'ax+': RDWR | CREAT | APPEND | EXCL,
  'as+': RDWR | CREAT | APPEND | SYNC,
} as const;

/** Flags of `open`: a name of `node:fs`, or a sum of `OpenFlag`. */
export type OpenFlags = keyof typeof NAMES | number;

/**
 * The number of flags that may be given by name.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function parseOpenFlags(flags: OpenFlags): number {
  if (typeof flags === 'number') return requireInteger(CLIENT, 'flags', flags, 0, 0x7fff_ffff);
  if (Object.hasOwn(NAMES, flags)) return NAMES[flags];
  throw new VirtioError(
    'INVALID_PARAM',
    `'${flags}' is not a flag of open; give ${Object.keys(NAMES).join(', ')}, or a number`,
  );
}
