/** Tasks that read and write the contents of files. */
import { changes } from './attributes.ts';
import { checkMode } from './check.ts';
import type { Attributes, FileClient } from './client.ts';
import { type FsContext, named } from './context.ts';
import { isDirectory, isSymlink, type Fid } from './client.ts';
import { type OpenFlags, parseOpenFlags } from './open-flags.ts';
import { FileError, refuse } from './file-error.ts';
import { OpenFlag } from './numbers.ts';
import { resolve } from './resolve.ts';
import type { Task } from './task.ts';

/** The size of the first read of a file, while its size is asked for. */
const SMALL_BUFFER = 32768;

/** The largest buffer that is allocated for a file because of its reported size alone. */
const FIRST_BUFFER = 16777216;

/** By which factor the buffer may exceed the data that was read. */
const GROWTH = 4;

/** The longest file that is read into one buffer. */
const MAX_BUFFER = 0x7fff_ffff;

/** How often opening starts over because another program creates and removes the file at the same time. */
const MAX_RACES = 16;

const { ACCMODE, CREAT, EXCL, NOFOLLOW, DIRECTORY, RDONLY } = OpenFlag;

/** Opens a file, which is created if the flags say so. */
export function* openFile(fs: FsContext, path: string, flags: number, mode: number): Task<Fid> {
  const { client } = fs;
  const permissions = checkMode('mode', mode) & ~fs.umask;
  const follow = (flags & NOFOLLOW) === 0 && (flags & (CREAT | EXCL)) !== (CREAT | EXCL);
  for (let race = 1; ; race += 1) {
    const create = (flags & CREAT) !== 0;
    const { fid, directory, names } = yield* resolve(client, path, { follow, create });
    const target = fid ?? (yield* own(client, directory as Fid));
    try {
      if (fid === undefined) {
        // The path was resolved already; if a link appeared meanwhile, it is resolved again.
        yield* client.create(target, names.at(-1) as string, flags | EXCL, permissions, fs.gid);
        return target;
      }
      if (create && (flags & EXCL) !== 0) throw refuse('EEXIST', 'open');
      if (isSymlink(target.qid)) throw refuse('ELOOP', 'open');
      checkKind(target, flags);
      yield* client.open(target, flags & ~(CREAT | EXCL | NOFOLLOW));
      // Some servers ignore O_TRUNC, as Linux's client opens with it and truncates as well.
      if ((flags & OpenFlag.TRUNC) !== 0 && !client.qidsTellKinds) {
        yield* client.setattr(target, changes({ size: 0 }));
      }
      return target;
    } catch (error) {
      yield* client.forget(target);
      const raced = fid === undefined ? 'EEXIST' : 'ENOENT';
      if (!FileError.is(error, raced) || !create || (flags & EXCL) !== 0 || race === MAX_RACES) throw error;
    }
  }
}

/** A fid that `create` may turn into another: that of the root is cloned. */
function* own(client: FileClient, fid: Fid): Task<Fid> {
  return fid === client.root ? yield* client.clone(fid) : fid;
}

/** Refuses to write to directories, as the servers' answers to that differ. */
function checkKind({ qid }: Fid, flags: number): void {
  if (isDirectory(qid)) {
    if ((flags & ACCMODE) !== RDONLY || (flags & (CREAT | OpenFlag.TRUNC)) !== 0) {
      throw refuse('EISDIR', 'open');
    }
  } else if ((flags & DIRECTORY) !== 0) {
    throw refuse('ENOTDIR', 'open');
  }
}

/** Reads all of an open file. */
export function* readAll(client: FileClient, fid: Fid, start = 0): Task<Uint8Array<ArrayBuffer>> {
  const first = new Uint8Array(SMALL_BUFFER);
  const { count, size } = yield* client.readFirst(fid, first, start);
  const expected = Math.max(0, size - start);
  // Some files report that they are empty, but are not.
  if (count === 0 || (expected > 0 && count >= expected)) return first.slice(0, Math.min(count, expected));
  if (expected > MAX_BUFFER) throw refuse('EFBIG', 'read');
  let buffer = new Uint8Array(expected > 0 ? Math.min(expected, FIRST_BUFFER) : SMALL_BUFFER * GROWTH);
  buffer.set(first.subarray(0, count));
  for (let length = count; ;) {
    const more = yield* client.read(fid, buffer.subarray(length), start + length);
    length += more;
    if (more === 0 || length === expected) return buffer.subarray(0, length);
    if (length < buffer.length) continue;
    // The buffer grows only in proportion to the data that was read.
    if (length >= MAX_BUFFER) throw refuse('EFBIG', 'read');
    const larger = expected > length ? Math.min(expected, length * GROWTH) : length * GROWTH;
    const next = new Uint8Array(Math.min(larger, MAX_BUFFER));
    next.set(buffer);
    buffer = next;
  }
}

/** Reads the file at a path. */
export function* readFile(fs: FsContext, path: string, flags: OpenFlags): Task<Uint8Array<ArrayBuffer>> {
  const fid = yield* named('open', path, openFile(fs, path, parseOpenFlags(flags), 0o666));
  try {
    return yield* named('read', path, readAll(fs.client, fid));
  } finally {
    yield* fs.client.forget(fid);
  }
}

/** Writes to an open file at a position, or at its end if it is open to append. */
export function* writeAt(
  client: FileClient,
  fid: Fid,
  bytes: Uint8Array,
  offset: number,
  append: boolean,
): Task<void> {
  if (!append) {
    yield* client.write(fid, bytes, offset);
    return;
  }
  // Most servers append whatever the offset is; others write at the offset.
  const { size } = yield* client.getattr(fid);
  yield* client.write(fid, bytes, size, 1);
}

/** Writes the file at a path. */
export function* writeFile(
  fs: FsContext,
  path: string,
  chunks: Iterable<Uint8Array>,
  openFlags: OpenFlags,
  mode: number,
): Task<void> {
  const { client } = fs;
  const flags = parseOpenFlags(openFlags);
  const fid = yield* named('open', path, openFile(fs, path, flags, mode));
  try {
    let offset = 0;
    for (const bytes of chunks) {
      const { length } = bytes;
      yield* named('write', path, writeAt(client, fid, bytes, offset, (flags & OpenFlag.APPEND) !== 0));
      offset += length;
    }
    // Servers may report only here that data which they accepted could not be written.
    yield* named('close', path, client.clunk(fid));
  } finally {
    yield* client.forget(fid);
  }
}

/** A time of attributes, in nanoseconds. */
function nanoseconds(seconds: number, rest: number): bigint {
  return BigInt(seconds) * 1_000_000_000n + BigInt(rest);
}

/** Attributes by which two files that have the same inode number differ, as numbers that can be compared. */
function identity(of: Attributes): readonly (number | bigint)[] {
  const { mode, uid, gid, nlink, rdev, size, mtime, mtimeNs, ctime, ctimeNs, btime, btimeNs } = of;
  const times = [nanoseconds(mtime, mtimeNs), nanoseconds(ctime, ctimeNs), nanoseconds(btime, btimeNs)];
  return [mode, uid, gid, nlink, rdev, size, ...times];
}

/**
 * Whether two fids with the same number in their qids stand for one file. Numbers are those of the host's inodes, and files of two file
 * systems below the shared directory may have the same.
 *
 * Another program may change the file meanwhile, and a copy to itself would empty it: so the attributes of `other` are compared with those
 * of `one` before and after.
 */
function* isSame(client: FileClient, one: Fid, other: Fid): Task<boolean> {
  const before = identity(yield* client.getattr(one));
  const between = identity(yield* client.getattr(other));
  const after = identity(yield* client.getattr(one));
  return between.every((value, i) => {
    const [first, last] = [before[i] as number | bigint, after[i] as number | bigint];
    return first <= last ? first <= value && value <= last : last <= value && value <= first;
  });
}

/** Copies a file and its permissions. */
export function* copyFile(fs: FsContext, source: string, target: string, exclusive: boolean): Task<void> {
  yield* named('copyfile', source, copy(fs, source, target, exclusive), target);
}

function* copy(fs: FsContext, source: string, target: string, exclusive: boolean): Task<void> {
  const { client } = fs;
  const from = yield* openFile(fs, source, RDONLY, 0);
  try {
    const { size, mode } = yield* client.getattr(from);
    const flags = OpenFlag.WRONLY | CREAT | (exclusive ? EXCL : 0);
    const to = yield* openFile(fs, target, flags, mode & 0o7777);
    try {
      if (to.qid.path === from.qid.path && (yield* isSame(client, from, to))) return;
      yield* client.setattr(to, changes({ size: 0 }));
      const { end, written } = yield* client.copy(from, to, size);
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
