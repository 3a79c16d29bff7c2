/**
 * What a file system does with paths, as tasks. Each finds its file, does its work on it, and has the server forget the fid,
 * whatever happens.
 */
import { decodeUtf8Lossless, VirtioError } from '@virtio/core';
import { type AttributeChanges, isDirectory, isSymlink, type P9Client } from './client.ts';
import { copyData } from './copy-data.ts';
import type { P9Fid } from './fid.ts';
import { OpenFlag, SetattrValid } from './messages.ts';
import { P9Error, refuse } from './p9-error.ts';
import { resolve, resolveParent } from './resolve.ts';
import { Stats } from './stats.ts';
import type { Task } from './task.ts';

/** A buffer for a file of which nothing is known: so much is read while its size is asked for. */
const SMALL_BUFFER = 32768;

/** How much of a file is trusted to be there when its size is all that is known. */
const FIRST_BUFFER = 16777216;

/** How much more is trusted to be there than has come. */
const GROWTH = 4;

/** The longest file that is read into one buffer. */
const MAX_BUFFER = 0x7fff_ffff;

/** How often opening starts over because somebody creates and removes the file at the same time. */
const MAX_RACES = 16;

const { ACCMODE, CREAT, EXCL, NOFOLLOW, DIRECTORY, RDONLY } = OpenFlag;

/** What all operations on a file system share. */
export interface FsContext {
  readonly client: P9Client;
  /** Permissions that new files do not get. */
  readonly umask: number;
  /** The group of new files. */
  readonly gid: number;
}

/** When a file was last accessed or changed: seconds since 1970 as a number, nanoseconds as a `bigint`, or a date. */
export type Time = number | bigint | Date;

const NS = 1_000_000_000n;

/** Runs a task, and has its errors say what was tried and on which path. */
export function* named<V>(syscall: string, path: string, task: Task<V>, dest?: string): Task<V> {
  try {
    return yield* task;
  } catch (error) {
    throw P9Error.is(error) ? new P9Error(-error.errno, syscall, path, dest) : error;
  }
}

/** Does something with the file at a path. */
export function* withFile<V>(
  client: P9Client,
  path: string,
  follow: boolean,
  use: (fid: P9Fid, names: readonly string[]) => Task<V>,
): Task<V> {
  const { fid, names } = yield* resolve(client, path, { follow });
  try {
    return yield* use(fid as P9Fid, names);
  } finally {
    yield* client.forget(fid);
  }
}

/** Does something with the directory of a path's last name. */
export function* withParent<V>(
  client: P9Client,
  path: string,
  code: 'EEXIST' | 'EBUSY' | 'EINVAL',
  use: (directory: P9Fid, name: string) => Task<V>,
): Task<V> {
  const { directory, name } = yield* resolveParent(client, path, code);
  try {
    return yield* use(directory, name);
  } finally {
    yield* client.forget(directory);
  }
}

/** Opens a file, which is created if the flags say so. */
export function* openFile(fs: FsContext, path: string, flags: number, mode: number): Task<P9Fid> {
  const { client } = fs;
  const follow = (flags & NOFOLLOW) === 0 && (flags & (CREAT | EXCL)) !== (CREAT | EXCL);
  for (let race = 1; ; race += 1) {
    const create = (flags & CREAT) !== 0;
    const { fid, directory, names } = yield* resolve(client, path, { follow, create });
    const target = fid ?? (yield* own(client, directory as P9Fid));
    try {
      if (fid === undefined) {
        // The link was looked for already: what appears in the meantime is looked at anew.
        yield* client.create(
          target,
          names.at(-1) as string,
          flags | EXCL,
          checkMode(mode) & ~fs.umask,
          fs.gid,
        );
        return target;
      }
      if (create && (flags & EXCL) !== 0) throw refuse('EEXIST', 'open');
      if (isSymlink(target.qid)) throw refuse('ELOOP', 'open');
      checkKind(target, flags);
      yield* client.open(target, flags & ~(CREAT | EXCL | NOFOLLOW));
      return target;
    } catch (error) {
      yield* client.forget(target);
      const raced = fid === undefined ? 'EEXIST' : 'ENOENT';
      if (!P9Error.is(error, raced) || !create || (flags & EXCL) !== 0 || race === MAX_RACES) throw error;
    }
  }
}

/** A fid that may be turned into another: the root's is cloned. */
function* own(client: P9Client, fid: P9Fid): Task<P9Fid> {
  return fid === client.root ? yield* client.clone(fid) : fid;
}

/** Servers differ in what they say about directories that are to be written, so this says it. */
function checkKind({ qid }: P9Fid, flags: number): void {
  if (isDirectory(qid)) {
    if ((flags & ACCMODE) !== RDONLY || (flags & (CREAT | OpenFlag.TRUNC)) !== 0) {
      throw refuse('EISDIR', 'open');
    }
  } else if ((flags & DIRECTORY) !== 0) {
    throw refuse('ENOTDIR', 'open');
  }
}

/** Reads all of an open file. */
export function* readAll(client: P9Client, fid: P9Fid, start = 0): Task<Uint8Array<ArrayBuffer>> {
  const first = new Uint8Array(SMALL_BUFFER);
  const { count, size } = yield* client.readFirst(fid, first, start);
  const expected = Math.max(0, size - start);
  // Some files say that they are empty and are not.
  if (count === 0 || (expected > 0 && count >= expected)) return first.slice(0, Math.min(count, expected));
  if (expected > MAX_BUFFER) throw refuse('EFBIG', 'read');
  let buffer = new Uint8Array(expected > 0 ? Math.min(expected, FIRST_BUFFER) : SMALL_BUFFER * GROWTH);
  buffer.set(first.subarray(0, count));
  for (let length = count; ;) {
    const more = yield* client.read(fid, buffer.subarray(length), start + length);
    length += more;
    if (more === 0 || length === expected) return buffer.subarray(0, length);
    if (length < buffer.length) continue;
    // Only what was there so far speaks for what is to come.
    if (length >= MAX_BUFFER) throw refuse('EFBIG', 'read');
    const larger = expected > length ? Math.min(expected, length * GROWTH) : length * GROWTH;
    const next = new Uint8Array(Math.min(larger, MAX_BUFFER));
    next.set(buffer);
    buffer = next;
  }
}

/** Reads the file at a path. */
export function* readFile(fs: FsContext, path: string, flags: number): Task<Uint8Array<ArrayBuffer>> {
  const fid = yield* named('open', path, openFile(fs, path, flags, 0o666));
  try {
    return yield* named('read', path, readAll(fs.client, fid));
  } finally {
    yield* fs.client.forget(fid);
  }
}

/** Writes to an open file at a position, or at its end if it is open to append. */
export function* writeAt(
  client: P9Client,
  fid: P9Fid,
  bytes: Uint8Array,
  offset: number,
  append: boolean,
): Task<void> {
  if (!append) {
    yield* client.write(fid, bytes, offset);
    return;
  }
  // Most servers append whatever the offset is; others take it as it is.
  const { size } = yield* client.getattr(fid);
  yield* client.write(fid, bytes, size, 1);
}

/** Writes the file at a path. */
export function* writeFile(
  fs: FsContext,
  path: string,
  chunks: Iterable<Uint8Array>,
  flags: number,
  mode: number,
): Task<void> {
  const { client } = fs;
  const fid = yield* named('open', path, openFile(fs, path, flags, mode));
  try {
    let offset = 0;
    for (const bytes of chunks) {
      yield* named('write', path, writeAt(client, fid, bytes, offset, (flags & OpenFlag.APPEND) !== 0));
      offset += bytes.length;
    }
    // Servers may report here that what they accepted could not be written.
    yield* named('close', path, client.clunk(fid));
  } finally {
    yield* client.forget(fid);
  }
}

/** Copies a file. */
export function* copyFile(fs: FsContext, source: string, target: string, exclusive: boolean): Task<void> {
  const { client } = fs;
  const from = yield* openFile(fs, source, RDONLY, 0);
  try {
    const { size, mode } = yield* client.getattr(from);
    const flags = OpenFlag.WRONLY | CREAT | (exclusive ? EXCL : 0);
    const to = yield* openFile(fs, target, flags, mode & 0o7777);
    try {
      if (to.qid.path === from.qid.path) return;
      yield* client.setattr(to, changes({ size: 0 }));
      const { end, written } = yield* copyData(client, from, to, size);
      // The file became shorter while it was copied.
      if (written > end) yield* client.setattr(to, changes({ size: end }));
      yield* client.clunk(to);
    } finally {
      yield* client.forget(to);
    }
  } finally {
    yield* client.forget(from);
  }
}

/** Reads the attributes of the file at a path. */
export function* stat({ client }: FsContext, path: string, follow: boolean): Task<Stats> {
  return yield* withFile(client, path, follow, function* (fid) {
    return new Stats(yield* client.getattr(fid));
  });
}

/** Changes attributes of the file at a path. */
export function* setattr(
  { client }: FsContext,
  path: string,
  values: AttributeChanges,
  follow = true,
): Task<void> {
  yield* withFile(client, path, follow, (fid) => client.setattr(fid, values));
}

/** The fields of a change of attributes. */
export function changes({
  mode,
  uid,
  gid,
  size,
  atime,
  mtime,
}: {
  mode?: number;
  uid?: number;
  gid?: number;
  size?: number;
  atime?: Time;
  mtime?: Time;
}): AttributeChanges {
  const V = SetattrValid;
  const [atimeSeconds, atimeNs] = timestamp(atime);
  const [mtimeSeconds, mtimeNs] = timestamp(mtime);
  return {
    valid:
      (mode === undefined ? 0 : V.MODE) |
      (uid === undefined ? 0 : V.UID) |
      (gid === undefined ? 0 : V.GID) |
      (size === undefined ? 0 : V.SIZE) |
      (atime === undefined ? 0 : V.ATIME | V.ATIME_SET) |
      (mtime === undefined ? 0 : V.MTIME | V.MTIME_SET),
    mode: checkMode(mode ?? 0),
    uid: uid ?? 0,
    gid: gid ?? 0,
    size: checkSize(size ?? 0),
    atime: atimeSeconds,
    atimeNs,
    mtime: mtimeSeconds,
    mtimeNs,
  };
}

/** A size or an offset that a file can have. */
export function checkSize(size: number): number {
  if (Number.isSafeInteger(size) && size >= 0) return size;
  throw new VirtioError(
    'INVALID_PARAM',
    `${size} is no size or position; these are whole numbers from 0 to 2^53 - 1`,
  );
}

/** Permissions, and what may stand above them: a string of octal digits would be taken for a decimal number. */
export function checkMode(mode: number): number {
  if (Number.isInteger(mode) && mode >= 0 && mode <= 0xffff) return mode;
  throw new VirtioError('INVALID_PARAM', `${mode} (${typeof mode}) is no mode; give a number, such as 0o644`);
}

function timestamp(time: Time | undefined): [seconds: number, nanoseconds: number] {
  if (time === undefined) return [0, 0];
  if (typeof time === 'bigint') {
    const rest = ((time % NS) + NS) % NS;
    return [Number((time - rest) / NS), Number(rest)];
  }
  const seconds = time instanceof Date ? time.getTime() / 1000 : time;
  if (!Number.isFinite(seconds)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${String(time)} is no time; give seconds since 1970, nanoseconds as a bigint, or a valid Date`,
    );
  }
  const whole = Math.floor(seconds);
  // A number of seconds has microseconds left, today; the rest would be noise.
  return [whole, Math.min(999_999, Math.round((seconds - whole) * 1e6)) * 1000];
}

/** The names of the extended attributes in a list of the server's. */
export function xattrNames(list: Uint8Array): string[] {
  const names: string[] = [];
  for (let start = 0; start < list.length;) {
    const zero = list.indexOf(0, start);
    const end = zero < 0 ? list.length : zero;
    if (end > start) names.push(decodeUtf8Lossless(list.subarray(start, end)));
    start = end + 1;
  }
  return names;
}
