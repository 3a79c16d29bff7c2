/**
 * Each operation of the file system as a task that names itself in its errors: the one text behind its two methods, the
 * one with promises and the one that spins.
 */
import {
  type DirectoryCursor,
  link,
  listDirectory,
  MAX_DEPTH,
  MAX_ENTRIES,
  mkdir,
  mkdtemp,
  nextEntries,
  openDirectory,
  remove,
  rename,
  statEntries,
  unlink,
} from './directories.ts';
import { isDirectory, isSymlink, type RawDirectoryEntry } from './client.ts';
import type { P9Fid } from './fid.ts';
import { FileHandle } from './file-handle.ts';
import { AT_REMOVEDIR, FileType, type Qid } from './messages.ts';
import { type OpenFlags, parseOpenFlags } from './open-flags.ts';
import {
  changes,
  copyFile,
  type FsContext,
  named,
  openFile,
  readFile,
  setattr,
  stat,
  type Time,
  withFile,
  withParent,
  writeFile,
  xattrNames,
} from './operations.ts';
import type { RmOptions, SetxattrOptions } from './options.ts';
import { P9Error, refuse } from './p9-error.ts';
import { resolve, trimSlashes } from './resolve.ts';
import { Dirent, direntKind, type StatFs, type Stats, toStatFs } from './stats.ts';
import type { Task } from './task.ts';

const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

/** An entry of a tree, with its path from the top. */
interface TreeEntry {
  readonly name: string;
  readonly entry: Dirent;
}

/** A directory of a tree that is being listed. */
interface Level {
  readonly directory: P9Fid;
  /** Its path from the top, with a slash at its end. */
  readonly prefix: string;
  /** The directories in it that are still to be listed. */
  readonly rest: string[];
}

/** The operations of a file system as tasks. */
export class PathTasks {
  readonly #fs: FsContext;

  constructor(fs: FsContext) {
    this.#fs = fs;
  }

  open(path: string, flags: OpenFlags, mode: number): Task<FileHandle> {
    return named('open', path, this.#open(path, parseOpenFlags(flags), mode));
  }

  readFile(path: string, flags: OpenFlags): Task<Uint8Array<ArrayBuffer>> {
    return readFile(this.#fs, path, parseOpenFlags(flags));
  }

  writeFile(path: string, data: Iterable<Uint8Array>, flags: OpenFlags, mode: number): Task<void> {
    return writeFile(this.#fs, path, data, parseOpenFlags(flags), mode);
  }

  copyFile(path: string, newPath: string, exclusive: boolean): Task<void> {
    return named('copyfile', path, copyFile(this.#fs, path, newPath, exclusive), newPath);
  }

  stat(path: string): Task<Stats> {
    return named('stat', path, stat(this.#fs, path, true));
  }

  lstat(path: string): Task<Stats> {
    return named('lstat', path, stat(this.#fs, path, false));
  }

  *access(path: string): Task<void> {
    yield* named('access', path, stat(this.#fs, path, true));
  }

  readdir(path: string): Task<string[]> {
    return named('scandir', path, this.#names(path));
  }

  readdirTypes(path: string): Task<Dirent[]> {
    return named('scandir', path, this.#dirents(path));
  }

  readdirTree(path: string): Task<TreeEntry[]> {
    return named('scandir', path, this.#listTree(path));
  }

  openDirectory(path: string): Task<P9Fid> {
    return named('opendir', path, openDirectory(this.#fs.client, path));
  }

  nextDirents(path: string, cursor: DirectoryCursor): Task<Dirent[] | undefined> {
    return named('readdir', path, this.#nextDirents(path, cursor));
  }

  mkdir(path: string, mode: number, recursive: boolean): Task<string | undefined> {
    return named('mkdir', path, mkdir(this.#fs, path, mode, recursive));
  }

  mkdtemp(prefix: string): Task<string> {
    return named('mkdtemp', `${prefix}XXXXXX`, mkdtemp(this.#fs, prefix));
  }

  rm(path: string, { recursive = false, force = false }: RmOptions): Task<void> {
    return named('rm', path, remove(this.#fs, path, recursive, force));
  }

  rmdir(path: string): Task<void> {
    return named('rmdir', path, unlink(this.#fs, path, AT_REMOVEDIR));
  }

  unlink(path: string): Task<void> {
    return named('unlink', path, unlink(this.#fs, path, 0));
  }

  rename(path: string, newPath: string): Task<void> {
    return named('rename', path, rename(this.#fs, path, newPath), newPath);
  }

  link(path: string, newPath: string): Task<void> {
    return named('link', path, link(this.#fs, path, newPath), newPath);
  }

  symlink(target: string, path: string): Task<void> {
    return named('symlink', target, this.#symlink(target, path), path);
  }

  mknod(path: string, mode: number, major: number, minor: number): Task<void> {
    return named('mknod', path, this.#mknod(path, mode, major, minor));
  }

  readlink(path: string): Task<string> {
    const { client } = this.#fs;
    return named(
      'readlink',
      path,
      withFile(client, path, false, (fid) => {
        // Servers that keep links in files would give the contents of any file for its target.
        if (!isSymlink(fid.qid)) throw refuse('EINVAL', 'readlink');
        return client.readlink(fid);
      }),
    );
  }

  realpath(path: string): Task<string> {
    return named('realpath', path, this.#realpath(path));
  }

  chmod(path: string, mode: number): Task<void> {
    return named('chmod', path, setattr(this.#fs, path, changes({ mode })));
  }

  chown(path: string, uid: number, gid: number): Task<void> {
    return named('chown', path, setattr(this.#fs, path, changes({ uid, gid })));
  }

  lchown(path: string, uid: number, gid: number): Task<void> {
    return named('lchown', path, setattr(this.#fs, path, changes({ uid, gid }), false));
  }

  utimes(path: string, atime: Time, mtime: Time): Task<void> {
    return named('utimes', path, setattr(this.#fs, path, changes({ atime, mtime })));
  }

  lutimes(path: string, atime: Time, mtime: Time): Task<void> {
    return named('lutimes', path, setattr(this.#fs, path, changes({ atime, mtime }), false));
  }

  truncate(path: string, size: number): Task<void> {
    return named('truncate', path, this.#truncate(path, size));
  }

  statfs(path: string): Task<StatFs> {
    const { client } = this.#fs;
    return named(
      'statfs',
      path,
      withFile(client, path, true, function* (fid) {
        return toStatFs(yield* client.statfs(fid));
      }),
    );
  }

  getxattr(path: string, name: string): Task<Uint8Array<ArrayBuffer>> {
    const { client } = this.#fs;
    return named(
      'getxattr',
      path,
      withFile(client, path, true, (fid) => {
        // To the server, the empty name is the list of names.
        if (name === '') throw refuse('ENODATA', 'getxattr');
        return client.getxattr(fid, name);
      }),
    );
  }

  listxattr(path: string): Task<string[]> {
    const { client } = this.#fs;
    return named(
      'listxattr',
      path,
      withFile(client, path, true, function* (fid) {
        return xattrNames(yield* client.getxattr(fid, ''));
      }),
    );
  }

  setxattr(path: string, name: string, value: Uint8Array, { only }: SetxattrOptions): Task<void> {
    const flags = only === undefined ? 0 : only === 'create' ? XATTR_CREATE : XATTR_REPLACE;
    const { client } = this.#fs;
    const use = (fid: P9Fid): Task<void> => client.setxattr(fid, name, value, flags);
    return named('setxattr', path, withFile(client, path, true, use));
  }

  removexattr(path: string, name: string): Task<void> {
    const { client } = this.#fs;
    const use = (fid: P9Fid): Task<void> => client.setxattr(fid, name, new Uint8Array(0), XATTR_REPLACE);
    return named('removexattr', path, withFile(client, path, true, use));
  }

  *#open(path: string, flags: number, mode: number): Task<FileHandle> {
    const fid = yield* openFile(this.#fs, path, flags, mode);
    return new FileHandle(this.#fs, fid, path, flags);
  }

  *#names(path: string): Task<string[]> {
    const entries = yield* withFile(this.#fs.client, path, true, (fid) => this.#list(fid));
    return entries.map(({ name }) => name);
  }

  *#dirents(path: string): Task<Dirent[]> {
    return yield* withFile(this.#fs.client, path, true, (fid) => this.#listTypes(fid, path));
  }

  #list(fid: P9Fid): Task<RawDirectoryEntry[]> {
    if (!isDirectory(fid.qid)) throw refuse('ENOTDIR', 'scandir');
    return listDirectory(this.#fs.client, fid);
  }

  *#listTypes(fid: P9Fid, path: string): Task<Dirent[]> {
    return yield* this.#toDirents(fid, path, yield* this.#list(fid));
  }

  /** Lists a directory and all those below it, one after the other. */
  *#listTree(path: string): Task<TreeEntry[]> {
    const { client } = this.#fs;
    const list = this.#listTypes.bind(this);
    const top = trimSlashes(path);
    return yield* withFile(client, path, true, function* (root) {
      const found: TreeEntry[] = [];
      const enter = function* (directory: P9Fid, prefix: string): Task<Level> {
        const parentPath = prefix === '' ? path : `${top}/${prefix.slice(0, -1)}`;
        const rest: string[] = [];
        for (const entry of yield* list(directory, parentPath)) {
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
          let fid: P9Fid | undefined;
          try {
            ({ fid } = yield* client.walk(level.directory, [name]));
            if (fid !== undefined) levels.push(yield* enter(fid, `${level.prefix}${name}/`));
          } catch (error) {
            yield* client.forget(fid);
            // What is no longer there, or no longer a directory, holds nothing.
            if (!P9Error.is(error, 'ENOENT') && !P9Error.is(error, 'ENOTDIR')) throw error;
          }
        }
        return found;
      } finally {
        for (const { directory } of levels) if (directory !== root) yield* client.forget(directory);
      }
    });
  }

  *#nextDirents(path: string, cursor: DirectoryCursor): Task<Dirent[] | undefined> {
    for (;;) {
      const entries = yield* nextEntries(this.#fs.client, cursor);
      if (entries === undefined) return undefined;
      const dirents = yield* this.#toDirents(undefined, path, entries);
      if (dirents.length > 0) return dirents;
    }
  }

  /** Asks for the types that the server did not tell. Entries that are gone by then are left out. */
  *#toDirents(
    directory: P9Fid | undefined,
    path: string,
    entries: readonly RawDirectoryEntry[],
  ): Task<Dirent[]> {
    const { client } = this.#fs;
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

  *#symlink(target: string, path: string): Task<void> {
    const { client, gid } = this.#fs;
    if (target === '') throw refuse('ENOENT', 'symlink');
    yield* withParent(client, path, 'EEXIST', (directory, name): Task<Qid> =>
      client.symlink(directory, name, target, gid),
    );
  }

  *#mknod(path: string, mode: number, major: number, minor: number): Task<void> {
    const { client, gid, umask } = this.#fs;
    yield* withParent(client, path, 'EEXIST', (directory, name): Task<Qid> =>
      client.mknod(directory, name, mode & ~umask, major, minor, gid),
    );
  }

  *#realpath(path: string): Task<string> {
    const { client } = this.#fs;
    const { fid, names } = yield* resolve(client, path, { follow: true });
    yield* client.forget(fid);
    return `/${names.join('/')}`;
  }

  *#truncate(path: string, size: number): Task<void> {
    const { client } = this.#fs;
    yield* withFile(client, path, true, (fid) => {
      if (isDirectory(fid.qid)) throw refuse('EISDIR', 'truncate');
      return client.setattr(fid, changes({ size }));
    });
  }
}
