/**
 * What a file system does with directories and their entries, as tasks: listing, making, renaming, removing. What concerns many
 * entries is asked for many at once.
 */
import { VirtioError } from '@virtio/core';
import { isDirectory, type P9Client, type RawDirectoryEntry, WINDOW } from './client.ts';
import type { P9Fid } from './fid.ts';
import { AT_REMOVEDIR, OpenFlag, R, T } from './messages.ts';
import { checkMode, type FsContext, stat, withFile, withParent } from './operations.ts';
import { P9Error, refuse } from './p9-error.ts';
import { resolve, splitLast, trimSlashes } from './resolve.ts';
import { Stats } from './stats.ts';
import type { Task } from './task.ts';

/** The most entries of one directory that are kept in memory at once. */
export const MAX_ENTRIES = 1 << 20;

/** How often `.` and `..` may be in a directory; a server that has them more often would never end. */
const MAX_DOTS = 64;

/** The deepest tree that is listed or removed. */
export const MAX_DEPTH = 2048;

/** Memory for the answers of one `Treaddir` after the other. */
const READDIR_ROOM = 32768;

/** Not one of Linux's, but what old servers answer to a message that they do not know. */
const ENOTSUPP = 524;

const NAME_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** How many names are tried for a new directory. */
const MAX_ATTEMPTS = 128;

const { RDONLY, DIRECTORY } = OpenFlag;

/** Makes a directory, and if asked those above it. @returns the first directory that was made, if any */
export function* mkdir(
  fs: FsContext,
  path: string,
  mode: number,
  recursive: boolean,
): Task<string | undefined> {
  const { client } = fs;
  try {
    yield* withParent(client, path, 'EEXIST', (directory, name) =>
      client.mkdir(directory, name, checkMode(mode) & ~fs.umask, fs.gid),
    );
    return trimSlashes(path);
  } catch (error) {
    if (!recursive) throw error;
    if (P9Error.is(error, 'EEXIST')) {
      const existing = yield* stat(fs, path, true);
      if (!existing.isDirectory()) throw error;
      return undefined;
    }
    const { parent } = splitLast(path);
    if (!P9Error.is(error, 'ENOENT') || parent === '/') throw error;
    const first = yield* mkdir(fs, parent, mode, true);
    const made = yield* mkdir(fs, path, mode, true);
    return first ?? made;
  }
}

/** Makes a directory whose name nothing has yet: `prefix` and six characters. */
export function* mkdtemp({ client, gid }: FsContext, prefix: string): Task<string> {
  for (let attempt = 1; ; attempt += 1) {
    let path = prefix;
    for (let i = 0; i < 6; i += 1) {
      path += NAME_CHARACTERS.charAt(Math.floor(Math.random() * NAME_CHARACTERS.length));
    }
    try {
      yield* withParent(client, path, 'EEXIST', (directory, name) =>
        client.mkdir(directory, name, 0o700, gid),
      );
      return path;
    } catch (error) {
      if (!P9Error.is(error, 'EEXIST') || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

/** Renames. */
export function* rename({ client }: FsContext, path: string, newPath: string): Task<void> {
  yield* withParent(client, path, 'EBUSY', function* (from, name) {
    yield* withParent(client, newPath, 'EBUSY', function* (to, newName) {
      try {
        yield* client.renameat(from, name, to, newName);
      } catch (error) {
        if (!isUnknownMessage(error)) throw error;
        const { fid } = yield* client.walk(from, [name]);
        if (fid === undefined) throw refuse('ENOENT', 'rename');
        try {
          yield* client.rename(fid, to, newName);
        } finally {
          yield* client.forget(fid);
        }
      }
    });
  });
}

/** Gives a file another name; a link at the end of `path` gets it itself. */
export function* link({ client }: FsContext, path: string, newPath: string): Task<void> {
  yield* withFile(client, path, false, (fid) =>
    withParent(client, newPath, 'EEXIST', (directory, name) => client.link(directory, fid, name)),
  );
}

/** Removes a file (`flags` 0) or an empty directory (`AT_REMOVEDIR`). */
export function* unlink({ client }: FsContext, path: string, flags: number): Task<void> {
  yield* withParent(client, path, 'EBUSY', (directory, name) => unlinkIn(client, directory, name, flags));
}

function* unlinkIn(client: P9Client, directory: P9Fid, name: string, flags: number): Task<void> {
  try {
    yield* client.unlinkat(directory, name, flags);
  } catch (error) {
    if (!isUnknownMessage(error)) throw error;
    const { fid } = yield* client.walk(directory, [name]);
    if (fid === undefined) throw refuse('ENOENT', 'unlink');
    if (isDirectory(fid.qid) !== (flags !== 0)) {
      yield* client.forget(fid);
      throw refuse(flags === 0 ? 'EISDIR' : 'ENOTDIR', 'unlink');
    }
    yield* client.remove(fid);
  }
}

/** Removes a file, or a tree. */
export function* remove(fs: FsContext, path: string, recursive: boolean, force: boolean): Task<void> {
  const { client } = fs;
  try {
    yield* withParent(client, path, 'EINVAL', function* (directory, name) {
      try {
        yield* unlinkIn(client, directory, name, 0);
      } catch (error) {
        if (!recursive || !mayBeDirectory(error)) throw error;
        yield* removeTree(client, directory, name, error);
      }
    });
  } catch (error) {
    if (!(force && P9Error.is(error, 'ENOENT'))) throw error;
  }
}

/** A directory that is being removed, and what in it is left to remove: directories, or what the server would not. */
interface Level {
  readonly parent: P9Fid;
  readonly name: string;
  readonly directory: P9Fid;
  readonly rest: { readonly name: string; readonly reason: Error }[];
}

/** Removes a directory with all that it holds. A stack in place of recursion keeps deep trees from being slow. */
function* removeTree(client: P9Client, parent: P9Fid, name: string, reason: Error): Task<void> {
  const levels: Level[] = [yield* emptyDirectory(client, parent, name, reason)];
  try {
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const next = level.rest.pop();
      if (next === undefined) {
        levels.pop();
        yield* client.forget(level.directory);
        yield* unlinkIn(client, level.parent, level.name, AT_REMOVEDIR);
      } else if (!(yield* removedOtherwise(client, level.directory, next.name, next.reason))) {
        if (levels.length > MAX_DEPTH) throw refuse('ELOOP', 'rm');
        levels.push(yield* emptyDirectory(client, level.directory, next.name, next.reason));
      }
    }
  } finally {
    for (const { directory } of levels) yield* client.forget(directory);
  }
}

/** Removes all files of a directory, many at once. */
function* emptyDirectory(client: P9Client, parent: P9Fid, name: string, reason: Error): Task<Level> {
  const { fid: directory } = yield* client.walk(parent, [name]);
  if (directory === undefined) throw refuse('ENOENT', 'rm');
  try {
    // Not a directory: then the server had another reason not to remove it.
    if (!isDirectory(directory.qid)) throw reason;
    const entries = yield* listDirectory(client, directory);
    const rest: Level['rest'] = [];
    yield* client.pipeline(
      entries,
      (entry) => [T.unlinkat, { directory: directory.id, name: entry.name, flags: 0 }],
      function* (entry, tag) {
        try {
          yield* client.receive(tag, R.unlinkat);
        } catch (error) {
          if (mayBeDirectory(error) || isUnknownMessage(error)) {
            rest.push({ name: entry.name, reason: error });
          } else if (!P9Error.is(error, 'ENOENT')) throw error;
        }
        return true;
      },
    );
    return { parent, name, directory, rest };
  } catch (error) {
    yield* client.forget(directory);
    throw error;
  }
}

/** Removes a file on a server that does not know the message for it. @returns false if it may be a directory */
function* removedOtherwise(client: P9Client, directory: P9Fid, name: string, reason: Error): Task<boolean> {
  if (!isUnknownMessage(reason)) return false;
  try {
    yield* unlinkIn(client, directory, name, 0);
    return true;
  } catch (error) {
    if (mayBeDirectory(error)) return false;
    throw error;
  }
}

/** What servers answer when a directory is to be removed as a file. */
function mayBeDirectory(error: unknown): error is P9Error {
  return P9Error.is(error, 'EISDIR') || P9Error.is(error, 'EPERM') || P9Error.is(error, 'EACCES');
}

function isUnknownMessage(error: unknown): error is P9Error {
  return (
    P9Error.is(error, 'EOPNOTSUPP') ||
    P9Error.is(error, 'ENOSYS') ||
    (P9Error.is(error) && error.errno === -ENOTSUPP)
  );
}

/** Opens a directory for {@link nextEntries}. */
export function* openDirectory(client: P9Client, path: string): Task<P9Fid> {
  const { fid } = yield* resolve(client, path, { follow: true });
  const directory = fid as P9Fid;
  try {
    if (!isDirectory(directory.qid)) throw refuse('ENOTDIR', 'readdir');
    yield* client.open(directory, RDONLY | DIRECTORY);
    return directory;
  } catch (error) {
    yield* client.forget(directory);
    throw error;
  }
}

/** How far a directory was read. */
export interface DirectoryCursor {
  readonly fid: P9Fid;
  readonly room: Uint8Array;
  cookie: bigint;
  /** How often `.` and `..` came. */
  dots: number;
}

/** The start of an open directory. */
export function directoryCursor(fid: P9Fid): DirectoryCursor {
  return { fid, room: new Uint8Array(READDIR_ROOM), cookie: 0n, dots: 0 };
}

/** The next entries of an open directory, without `.` and `..`; `undefined` at the end. */
export function* nextEntries(
  client: P9Client,
  cursor: DirectoryCursor,
): Task<RawDirectoryEntry[] | undefined> {
  const entries = yield* client.readdir(cursor.fid, cursor.cookie, cursor.room);
  const last = entries.at(-1);
  if (last === undefined) return undefined;
  cursor.cookie = last.offset;
  const named = entries.filter(({ name }) => name !== '.' && name !== '..');
  cursor.dots += entries.length - named.length;
  if (cursor.dots > MAX_DOTS) {
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${client.device.transport.who()}: the server lists a directory without end: it gave . and .. ${cursor.dots} times`,
    );
  }
  return named;
}

/** All entries of a directory whose fid is not open. */
export function* listDirectory(client: P9Client, directory: P9Fid): Task<RawDirectoryEntry[]> {
  const fid = yield* client.clone(directory);
  try {
    yield* client.open(fid, RDONLY | DIRECTORY);
    const cursor = directoryCursor(fid);
    const all: RawDirectoryEntry[] = [];
    for (;;) {
      const entries = yield* nextEntries(client, cursor);
      if (entries === undefined) return all;
      for (const entry of entries) all.push(entry);
      if (all.length > MAX_ENTRIES) throw refuse('EOVERFLOW', 'readdir');
    }
  } finally {
    yield* client.forget(fid);
  }
}

/** The attributes of entries of a directory, asked for many at once; `undefined` for those that are gone. */
export function* statEntries(
  client: P9Client,
  directory: P9Fid,
  names: readonly string[],
): Task<(Stats | undefined)[]> {
  const all: (Stats | undefined)[] = [];
  for (let i = 0; i < names.length; i += WINDOW) {
    const fids = yield* client.walkEach(directory, names.slice(i, i + WINDOW));
    try {
      const known = fids.filter((fid) => fid !== undefined);
      const attributes = yield* client.getattrEach(known);
      for (const fid of fids) {
        const found = fid && attributes[known.indexOf(fid)];
        all.push(found && new Stats(found));
      }
    } finally {
      for (const fid of fids) yield* client.forget(fid);
    }
  }
  return all;
}
