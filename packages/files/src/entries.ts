/** Tasks that change the entries of directories: making, linking, renaming. */
import { requireInteger } from '@virtio/core';
import { statFile } from './attributes.ts';
import { CLIENT, checkMode, MAX_U32, requirePath, requireString } from './check.ts';
import { checkNoSlash, type FsContext, isDirectoryAt, named, withFile, withParent } from './context.ts';
import { isSymlink } from './client.ts';
import type { MkdirOptions } from './options.ts';
import { FileError, refuse } from './file-error.ts';
import { isUnknownMessage } from './remove.ts';
import { resolve, splitLast, trimSlashes } from './resolve.ts';
import type { Task } from './task.ts';

const NAME_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** How many names are tried for a new directory. */
const MAX_ATTEMPTS = 128;

/** Makes a directory, and on request its missing parents. @returns the first directory that was made, if any */
export function* mkdir(
  fs: FsContext,
  path: string,
  { recursive = false, mode = 0o777 }: MkdirOptions,
): Task<string | undefined> {
  const permissions = checkMode('mode', mode);
  const first = yield* named('mkdir', path, makeDirectory(fs, path, permissions, recursive));
  return recursive ? first : undefined;
}

function* makeDirectory(
  fs: FsContext,
  path: string,
  mode: number,
  recursive: boolean,
  again = false,
): Task<string | undefined> {
  const { client } = fs;
  try {
    yield* withParent(client, path, 'EEXIST', (directory, name) =>
      client.mkdir(directory, name, mode & ~fs.umask, fs.gid),
    );
    return trimSlashes(path);
  } catch (error) {
    if (!recursive) throw error;
    if (FileError.is(error, 'EEXIST')) {
      const existing = yield* statFile(fs, path, true);
      if (!existing.isDirectory()) throw error;
      return undefined;
    }
    const { parent } = splitLast(path);
    // With its parent there, a second ENOENT means that nothing can be made in it, as in Linux's /proc.
    if (!FileError.is(error, 'ENOENT') || parent === '/' || again) throw error;
    const first = yield* makeDirectory(fs, parent, mode, true);
    const made = yield* makeDirectory(fs, path, mode, true, true);
    return first ?? made;
  }
}

/** Makes a directory with a new name: `prefix` and six characters. */
export function* mkdtemp(fs: FsContext, prefix: string): Task<string> {
  requirePath(prefix);
  return yield* named('mkdtemp', `${prefix}XXXXXX`, makeTemporary(fs, prefix));
}

function* makeTemporary({ client, gid }: FsContext, prefix: string): Task<string> {
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
      if (!FileError.is(error, 'EEXIST') || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

/** Renames a file or a directory. */
export function* rename(fs: FsContext, path: string, newPath: string): Task<void> {
  yield* named('rename', path, move(fs, path, newPath), newPath);
}

function* move({ client }: FsContext, path: string, newPath: string): Task<void> {
  yield* withParent(client, path, 'EBUSY', function* (from, name, slash) {
    yield* withParent(client, newPath, 'EBUSY', function* (to, newName, newSlash) {
      if ((slash || newSlash) && !(yield* isDirectoryAt(client, from, name))) {
        throw refuse('ENOTDIR', 'rename');
      }
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

/** Makes a hard link. If `path` ends with a symbolic link, the new name is of that link. */
export function* link({ client }: FsContext, path: string, newPath: string): Task<void> {
  const task = withFile(client, path, false, (fid) =>
    withParent(client, newPath, 'EEXIST', function* (directory, name, slash) {
      yield* checkNoSlash(client, directory, name, slash);
      yield* client.link(directory, fid, name);
    }),
  );
  yield* named('link', path, task, newPath);
}

/** Makes a symbolic link at `path`. */
export function* symlink({ client, gid }: FsContext, target: string, path: string): Task<void> {
  requireString('the target of a link', target);
  const task = withParent(client, path, 'EEXIST', function* (directory, name, slash) {
    if (target === '') throw refuse('ENOENT', 'symlink');
    if (target.includes('\0')) throw refuse('EINVAL', 'symlink');
    yield* checkNoSlash(client, directory, name, slash);
    yield* client.symlink(directory, name, target, gid);
  });
  yield* named('symlink', target, task, path);
}

/** Makes a device node, a FIFO or a socket. */
export function* mknod(
  { client, gid, umask }: FsContext,
  path: string,
  mode: number,
  major: number,
  minor: number,
): Task<void> {
  const kind = checkMode('mode', mode) & ~umask;
  requireInteger(CLIENT, 'major', major, 0, MAX_U32);
  requireInteger(CLIENT, 'minor', minor, 0, MAX_U32);
  const task = withParent(client, path, 'EEXIST', function* (directory, name, slash) {
    yield* checkNoSlash(client, directory, name, slash);
    yield* client.mknod(directory, name, kind, major, minor, gid);
  });
  yield* named('mknod', path, task);
}

/** Reads the target of a symbolic link. */
export function* readlink({ client }: FsContext, path: string): Task<string> {
  const task = withFile(client, path, false, (fid) => {
    // Servers that store links as files would return the contents of any file as its target.
    if (!isSymlink(fid.qid)) throw refuse('EINVAL', 'readlink');
    return client.readlink(fid);
  });
  return yield* named('readlink', path, task);
}

/** The path of a file from the root, without links. */
export function* realpath({ client }: FsContext, path: string): Task<string> {
  const { fid, names } = yield* named('realpath', path, resolve(client, path, { follow: true }));
  yield* client.forget(fid);
  return `/${names.join('/')}`;
}
