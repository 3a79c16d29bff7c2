/** Tasks that remove files, directories and trees. */
import type { FileClient } from './client.ts';
import { type FsContext, isDirectoryAt, named, withParent } from './context.ts';
import { isDirectory, type Fid } from './client.ts';
import { listDirectory, MAX_DEPTH } from './listing.ts';
import type { RmOptions } from './options.ts';
import { FileError, refuse } from './file-error.ts';
import { AT_REMOVEDIR } from './numbers.ts';
import type { Task } from './task.ts';

/** Not an error number of Linux, but old servers answer it to an unknown message. */
const ENOTSUPP = 524;

/** Removes a file. */
export function* unlink({ client }: FsContext, path: string): Task<void> {
  const task = withParent(client, path, 'EBUSY', function* (directory, name, slash) {
    // The server does not see the slash, and would remove a file, or a link to a directory.
    if (slash) throw refuse((yield* isDirectoryAt(client, directory, name)) ? 'EISDIR' : 'ENOTDIR', 'unlink');
    yield* unlinkIn(client, directory, name, 0);
  });
  yield* named('unlink', path, task);
}

/** Removes an empty directory. */
export function* rmdir({ client }: FsContext, path: string): Task<void> {
  const task = withParent(client, path, 'EBUSY', (directory, name) =>
    unlinkIn(client, directory, name, AT_REMOVEDIR),
  );
  yield* named('rmdir', path, task);
}

function* unlinkIn(client: FileClient, directory: Fid, name: string, flags: number): Task<void> {
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
export function* rm(
  fs: FsContext,
  path: string,
  { recursive = false, force = false }: RmOptions,
): Task<void> {
  yield* named('rm', path, remove(fs, path, recursive, force));
}

function* remove({ client }: FsContext, path: string, recursive: boolean, force: boolean): Task<void> {
  try {
    yield* withParent(client, path, 'EINVAL', function* (directory, name, slash) {
      if (slash && !(yield* isDirectoryAt(client, directory, name))) throw refuse('ENOTDIR', 'rm');
      try {
        yield* unlinkIn(client, directory, name, 0);
      } catch (error) {
        if (!recursive || !mayBeDirectory(error)) throw error;
        yield* removeTree(client, directory, name, error as FileError);
      }
    });
  } catch (error) {
    if (!(force && FileError.is(error, 'ENOENT'))) throw error;
  }
}

/** A directory that is being removed, and the rest of its contents: directories, and files that the server did not remove. */
interface Level {
  readonly parent: Fid;
  readonly name: string;
  readonly directory: Fid;
  readonly rest: { readonly name: string; readonly reason: Error }[];
}

/** Removes a directory with its contents. A stack in place of recursion keeps deep trees from being slow. */
function* removeTree(client: FileClient, parent: Fid, name: string, reason: Error): Task<void> {
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
function* emptyDirectory(client: FileClient, parent: Fid, name: string, reason: Error): Task<Level> {
  const { fid: directory } = yield* client.walk(parent, [name]);
  if (directory === undefined) throw refuse('ENOENT', 'rm');
  try {
    // Not a directory: then the server had another reason not to remove it.
    if (!isDirectory(directory.qid)) throw reason;
    const entries = yield* listDirectory(client, directory);
    const rest: Level['rest'] = [];
    const names = entries.map((entry) => entry.name);
    yield* client.unlinkEach(directory, names, (name, error) => {
      if (mayBeDirectory(error) || isUnknownMessage(error)) rest.push({ name, reason: error });
      else if (error.code !== 'ENOENT') throw error;
    });
    return { parent, name, directory, rest };
  } catch (error) {
    yield* client.forget(directory);
    throw error;
  }
}

/** Removes a file on a server that does not know the message for it. @returns false if it may be a directory */
function* removedOtherwise(client: FileClient, directory: Fid, name: string, reason: Error): Task<boolean> {
  if (!isUnknownMessage(reason)) return false;
  try {
    yield* unlinkIn(client, directory, name, 0);
    return true;
  } catch (error) {
    if (mayBeDirectory(error)) return false;
    throw error;
  }
}

/** The errors of servers for a directory that is removed like a file; v86's server removes it if it is empty, or else answers ENOTEMPTY. */
function mayBeDirectory(error: unknown): boolean {
  return FileError.is(error) && ['EISDIR', 'EPERM', 'EACCES', 'ENOTEMPTY'].includes(error.code);
}

/** Whether the server does not know a message, so that an older message is worth a try. */
export function isUnknownMessage(error: unknown): boolean {
  return (
    FileError.is(error, 'EOPNOTSUPP') ||
    FileError.is(error, 'ENOSYS') ||
    (FileError.is(error) && error.errno === -ENOTSUPP)
  );
}
