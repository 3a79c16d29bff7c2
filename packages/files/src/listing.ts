/** Tasks that list directories. Attributes of many entries are read with many requests in flight. */
import { VirtioError } from '@virtio/core';
import type { FileClient, RawDirectoryEntry } from './client.ts';
import { type FsContext, named, withFile } from './context.ts';
import { isDirectory, type Fid } from './client.ts';
import type { ReaddirOptions } from './options.ts';
import { FileError, refuse } from './file-error.ts';
import { WINDOW } from './task.ts';
import { FileType, OpenFlag } from './numbers.ts';
import { resolve, trimSlashes } from './resolve.ts';
import { Dirent, direntKind, Stats } from './stats.ts';
import type { Task } from './task.ts';

/** The largest number of entries of a directory or a tree that are kept in memory at once. */
const MAX_ENTRIES = 1 << 20;

/** How often `.` and `..` may occur in a directory; a server that sends them more often would never end. */
const MAX_DOTS = 64;

/** The deepest tree that is listed or removed. */
export const MAX_DEPTH = 2048;

/** The size of the memory for the answers to `readdir`, which is used for one after the other. */
const READDIR_ROOM = 32768;

const { RDONLY, DIRECTORY } = OpenFlag;

/** How far a directory was read. */
export interface DirectoryCursor {
  readonly fid: Fid;
  readonly room: Uint8Array;
  cookie: bigint;
  /** How often `.` and `..` occurred. */
  dots: number;
  /** An earlier cookie, the number of answers since, and after how many a later cookie replaces it. */
  mark: bigint;
  steps: number;
  lap: number;
}

/** An entry of a tree, with its path from the top. */
interface TreeEntry {
  readonly name: string;
  readonly entry: Dirent;
}

/** A directory of a tree that is being listed. */
interface Level {
  readonly directory: Fid;
  /** Its path from the top, with a slash at its end. */
  readonly prefix: string;
  /** The directories in it that are still to be listed. */
  readonly rest: string[];
}

/** The names or the entries of a directory, or of all directories below it as well. */
export function* readdir(
  { client }: FsContext,
  path: string,
  { withFileTypes = false, recursive = false }: ReaddirOptions,
): Task<string[] | Dirent[]> {
  const task = withFile(client, path, true, function* (fid): Task<string[] | Dirent[]> {
    if (recursive) {
      const tree = yield* listTree(client, fid, path);
      return withFileTypes ? tree.map(({ entry }) => entry) : tree.map(({ name }) => name);
    }
    const entries = yield* list(client, fid);
    return withFileTypes ? yield* toDirents(client, fid, path, entries) : entries.map(({ name }) => name);
  });
  return yield* named('scandir', path, task);
}

/** Opens a directory to be read in parts. */
export function* opendir({ client }: FsContext, path: string): Task<DirectoryCursor> {
  return yield* named('opendir', path, openDirectory(client, path));
}

/** The next entries of an open directory; `undefined` at the end. */
export function* nextDirents(
  { client }: FsContext,
  path: string,
  cursor: DirectoryCursor,
): Task<Dirent[] | undefined> {
  for (;;) {
    const entries = yield* named('readdir', path, nextEntries(client, cursor));
    if (entries === undefined) return undefined;
    const dirents = yield* named('readdir', path, toDirents(client, undefined, path, entries));
    if (dirents.length > 0) return dirents;
  }
}

/** All entries of a directory whose fid is not open. */
export function* listDirectory(client: FileClient, directory: Fid): Task<RawDirectoryEntry[]> {
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

function* openDirectory(client: FileClient, path: string): Task<DirectoryCursor> {
  const { fid } = yield* resolve(client, path, { follow: true });
  const directory = fid as Fid;
  try {
    if (!isDirectory(directory.qid)) throw refuse('ENOTDIR', 'readdir');
    yield* client.open(directory, RDONLY | DIRECTORY);
    return directoryCursor(directory);
  } catch (error) {
    yield* client.forget(directory);
    throw error;
  }
}

function directoryCursor(fid: Fid): DirectoryCursor {
  return { fid, room: new Uint8Array(READDIR_ROOM), cookie: 0n, dots: 0, mark: 0n, steps: 0, lap: 1 };
}

/** The next entries of an open directory, without `.` and `..`; `undefined` at the end. */
function* nextEntries(client: FileClient, cursor: DirectoryCursor): Task<RawDirectoryEntry[] | undefined> {
  const entries = yield* client.readdir(cursor.fid, cursor.cookie, cursor.room);
  const last = entries.at(-1);
  if (last === undefined) return undefined;
  cursor.cookie = last.offset;
  checkProgress(client, cursor);
  const others = entries.filter(({ name }) => name !== '.' && name !== '..');
  cursor.dots += entries.length - others.length;
  if (cursor.dots > MAX_DOTS) throw endless(client, `it sent . and .. ${cursor.dots} times`);
  return others;
}

/**
 * Finds cookies that form a cycle. Each is compared with an earlier one, which is replaced after 1, 2, 4, 8, … answers (Brent's
 * algorithm): so a cycle is found soon, and only one cookie is kept.
 */
function checkProgress(client: FileClient, cursor: DirectoryCursor): void {
  if (cursor.cookie === cursor.mark) throw endless(client, 'its cookies repeat');
  cursor.steps += 1;
  if (cursor.steps < cursor.lap) return;
  cursor.mark = cursor.cookie;
  cursor.steps = 0;
  cursor.lap *= 2;
}

function endless(client: FileClient, what: string): VirtioError {
  return new VirtioError(
    'DEVICE_MISBEHAVED',
    `${client.device.transport.who()}: the server's list of a directory never ends: ${what}; do not list this directory`,
  );
}

function* list(client: FileClient, fid: Fid): Task<RawDirectoryEntry[]> {
  if (!isDirectory(fid.qid)) throw refuse('ENOTDIR', 'scandir');
  return yield* listDirectory(client, fid);
}

/** Lists a directory and all those below it, one after the other. */
function* listTree(client: FileClient, root: Fid, path: string): Task<TreeEntry[]> {
  const top = trimSlashes(path);
  const found: TreeEntry[] = [];
  const enter = function* (directory: Fid, prefix: string): Task<Level> {
    const parentPath = prefix === '' ? path : `${top}/${prefix.slice(0, -1)}`;
    const rest: string[] = [];
    const entries = yield* list(client, directory);
    // This is a separate variable because QuickJS 2025-04-26 miscompiles a loop over a yield*.
    const dirents = yield* toDirents(client, directory, parentPath, entries);
    for (const entry of dirents) {
      found.push({ name: `${prefix}${entry.name}`, entry });
      if (entry.isDirectory()) rest.push(entry.name);
    }
    if (found.length > MAX_ENTRIES) throw refuse('EOVERFLOW', 'scandir');
    return { directory, prefix, rest };
  };
  const levels = [yield* enter(root, '')];
  try {
    for (let level = levels.at(-1); level !== undefined; level = levels.at(-1)) {
      const name = level.rest.pop();
      if (name === undefined) {
        levels.pop();
        if (level.directory !== root) yield* client.forget(level.directory);
        continue;
      }
      if (levels.length > MAX_DEPTH) throw refuse('ELOOP', 'scandir');
      let fid: Fid | undefined;
      try {
        ({ fid } = yield* client.walk(level.directory, [name]));
        if (fid !== undefined) levels.push(yield* enter(fid, `${level.prefix}${name}/`));
      } catch (error) {
        yield* client.forget(fid);
        // A directory that was removed or replaced meanwhile has no entries.
        if (!FileError.is(error, 'ENOENT') && !FileError.is(error, 'ENOTDIR')) throw error;
      }
    }
    return found;
  } finally {
    for (const { directory } of levels) if (directory !== root) yield* client.forget(directory);
  }
}

/** Asks for the types that the server did not report. Entries that are gone by then are left out. */
function* toDirents(
  client: FileClient,
  directory: Fid | undefined,
  path: string,
  entries: readonly RawDirectoryEntry[],
): Task<Dirent[]> {
  const unknown = entries.filter(({ type }) => direntKind(type) === undefined).map(({ name }) => name);
  const found = new Map<string, number>();
  if (unknown.length > 0) {
    // An open fid cannot be walked from.
    const stats =
      directory === undefined
        ? yield* withFile(client, path, true, (fid) => statEntries(client, fid, unknown))
        : yield* statEntries(client, directory, unknown);
    unknown.forEach((name, i) => {
      const mode = stats[i]?.mode;
      if (mode !== undefined) found.set(name, mode & FileType.MASK);
    });
  }
  const dirents: Dirent[] = [];
  for (const { name, type } of entries) {
    const kind = direntKind(type) ?? found.get(name);
    if (kind !== undefined) dirents.push(new Dirent(name, path, kind));
  }
  return dirents;
}

/** The attributes of entries of a directory, read with many requests in flight; `undefined` for entries that are gone. */
function* statEntries(
  client: FileClient,
  directory: Fid,
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
