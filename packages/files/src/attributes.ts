/** Tasks that read and change the attributes of files, and read those of the file system. */
import { decodeUtf8Lossless, requireBytes, VirtioError } from '@virtio/core';
import { CLIENT, checkMode, checkOwner, checkSize, requireChoice, requireString } from './check.ts';
import type { AttributeChanges } from './client.ts';
import { type FsContext, named, withFile } from './context.ts';
import { isDirectory } from './client.ts';
import type { SetxattrOptions } from './options.ts';
import { refuse } from './file-error.ts';
import { SetattrValid } from './numbers.ts';
import { type StatFs, Stats, toStatFs } from './stats.ts';
import type { Task } from './task.ts';

const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

const NS = 1_000_000_000n;

/** A time: seconds since 1970 as a number, nanoseconds as a `bigint`, or a date. */
export type Time = number | bigint | Date;

/** Reads the attributes of the file at a path. */
export function* statFile({ client }: FsContext, path: string, follow: boolean): Task<Stats> {
  return yield* withFile(client, path, follow, function* (fid) {
    return new Stats(yield* client.getattr(fid));
  });
}

export function* stat(fs: FsContext, path: string): Task<Stats> {
  return yield* named('stat', path, statFile(fs, path, true));
}

export function* lstat(fs: FsContext, path: string): Task<Stats> {
  return yield* named('lstat', path, statFile(fs, path, false));
}

export function* access(fs: FsContext, path: string): Task<void> {
  yield* named('access', path, statFile(fs, path, true));
}

export function* chmod(fs: FsContext, path: string, mode: number): Task<void> {
  yield* named('chmod', path, setattr(fs, path, changes({ mode })));
}

export function* chown(fs: FsContext, path: string, uid: number, gid: number): Task<void> {
  yield* named('chown', path, setattr(fs, path, changes({ uid, gid })));
}

export function* lchown(fs: FsContext, path: string, uid: number, gid: number): Task<void> {
  yield* named('lchown', path, setattr(fs, path, changes({ uid, gid }), false));
}

export function* utimes(fs: FsContext, path: string, atime: Time, mtime: Time): Task<void> {
  yield* named('utimes', path, setattr(fs, path, changes({ atime, mtime })));
}

export function* lutimes(fs: FsContext, path: string, atime: Time, mtime: Time): Task<void> {
  yield* named('lutimes', path, setattr(fs, path, changes({ atime, mtime }), false));
}

export function* truncate({ client }: FsContext, path: string, size: number): Task<void> {
  const values = changes({ size });
  const task = withFile(client, path, true, (fid) => {
    if (isDirectory(fid.qid)) throw refuse('EISDIR', 'truncate');
    return client.setattr(fid, values);
  });
  yield* named('truncate', path, task);
}

export function* statfs({ client }: FsContext, path: string): Task<StatFs> {
  const task = withFile(client, path, true, function* (fid) {
    return toStatFs(yield* client.statfs(fid));
  });
  return yield* named('statfs', path, task);
}

export function* getxattr({ client }: FsContext, path: string, name: string): Task<Uint8Array<ArrayBuffer>> {
  requireString('the name of an attribute', name);
  const task = withFile(client, path, true, (fid) => {
    // For the server, the empty name means the list of names.
    if (name === '') throw refuse('ENODATA', 'getxattr');
    checkAttribute(name, 'getxattr');
    return client.getxattr(fid, name);
  });
  return yield* named('getxattr', path, task);
}

export function* listxattr({ client }: FsContext, path: string): Task<string[]> {
  const task = withFile(client, path, true, function* (fid) {
    return xattrNames(yield* client.getxattr(fid, ''));
  });
  return yield* named('listxattr', path, task);
}

export function* setxattr(
  { client }: FsContext,
  path: string,
  name: string,
  value: Uint8Array,
  { only }: SetxattrOptions,
): Task<void> {
  requireString('the name of an attribute', name);
  requireBytes(CLIENT, value);
  if (only !== undefined) requireChoice('only', only, ['create', 'replace']);
  const flags = only === undefined ? 0 : only === 'create' ? XATTR_CREATE : XATTR_REPLACE;
  const task = withFile(client, path, true, (fid) => {
    checkAttribute(name, 'setxattr');
    return client.setxattr(fid, name, value, flags);
  });
  yield* named('setxattr', path, task);
}

export function* removexattr({ client }: FsContext, path: string, name: string): Task<void> {
  requireString('the name of an attribute', name);
  const none = new Uint8Array(0);
  const task = withFile(client, path, true, (fid) => {
    checkAttribute(name, 'removexattr');
    return client.setxattr(fid, name, none, XATTR_REPLACE);
  });
  yield* named('removexattr', path, task);
}

/** Refuses the name of an attribute that a server would cut off at a zero byte. */
function checkAttribute(name: string, operation: string): void {
  if (name.includes('\0')) throw refuse('EINVAL', operation);
}

function* setattr({ client }: FsContext, path: string, values: AttributeChanges, follow = true): Task<void> {
  yield* withFile(client, path, follow, (fid) => client.setattr(fid, values));
}

/** New attributes of a file. Those that are left out stay as they are. */
export interface Changes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly size?: number;
  readonly atime?: Time;
  readonly mtime?: Time;
}

/**
 * The fields of a change of attributes.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` for a value that is not a number, or a number that a file cannot have
 */
export function changes(values: Changes): AttributeChanges {
  const V = SetattrValid;
  const { mode, size, atime, mtime } = values;
  const uid = 'uid' in values ? checkOwner('uid', values.uid) : undefined;
  const gid = 'gid' in values ? checkOwner('gid', values.gid) : undefined;
  const [atimeSeconds, atimeNs] = 'atime' in values ? timestamp('atime', atime) : [0, 0];
  const [mtimeSeconds, mtimeNs] = 'mtime' in values ? timestamp('mtime', mtime) : [0, 0];
  return {
    valid:
      ('mode' in values ? V.MODE : 0) |
      (uid === undefined ? 0 : V.UID) |
      (gid === undefined ? 0 : V.GID) |
      ('size' in values ? V.SIZE : 0) |
      ('atime' in values ? V.ATIME | V.ATIME_SET : 0) |
      ('mtime' in values ? V.MTIME | V.MTIME_SET : 0),
    mode: 'mode' in values ? checkMode('mode', mode) : 0,
    uid: uid ?? 0,
    gid: gid ?? 0,
    size: 'size' in values ? checkSize('size', size) : 0,
    atime: atimeSeconds,
    atimeNs,
    mtime: mtimeSeconds,
    mtimeNs,
  };
}

function timestamp(name: string, time: unknown): [seconds: number, nanoseconds: number] {
  const [seconds, nanoseconds] = typeof time === 'bigint' ? splitNs(time) : splitSeconds(time);
  if (Number.isSafeInteger(seconds)) return [seconds, nanoseconds];
  throw new VirtioError(
    'INVALID_PARAM',
    `${CLIENT}: ${name} is ${String(time)} (${typeof time}); give seconds since 1970, nanoseconds as a bigint, or a valid Date`,
  );
}

function splitNs(time: bigint): [seconds: number, nanoseconds: number] {
  const rest = ((time % NS) + NS) % NS;
  return [Number((time - rest) / NS), Number(rest)];
}

function splitSeconds(time: unknown): [seconds: number, nanoseconds: number] {
  const seconds = time instanceof Date ? time.getTime() / 1000 : time;
  if (typeof seconds !== 'number') return [NaN, 0];
  const whole = Math.floor(seconds);
  // A number of seconds is exact to microseconds today; further digits would be noise.
  return [whole, Math.min(999_999, Math.round((seconds - whole) * 1e6)) * 1000];
}

/** The names in the server's list of extended attributes. */
function xattrNames(list: Uint8Array): string[] {
  const names: string[] = [];
  for (let start = 0; start < list.length;) {
    const zero = list.indexOf(0, start);
    const end = zero < 0 ? list.length : zero;
    if (end > start) names.push(decodeUtf8Lossless(list.subarray(start, end)));
    start = end + 1;
  }
  return names;
}
