/** The context that all operations on a file system share. */
import { type Fid, type FileClient, isDirectory } from './client.ts';
import { FileError, refuse } from './file-error.ts';
import { resolve, resolveParent } from './resolve.ts';
import type { Task } from './task.ts';

/** A file system, as its tasks see it. */
export interface FsContext {
  readonly client: FileClient;
  /** Permissions that new files do not get. */
  readonly umask: number;
  /** The group of new files. */
  readonly gid: number;
}

/** Runs a task, and adds the operation and the path to its errors. */
export function* named<V>(syscall: string, path: string, task: Task<V>, dest?: string): Task<V> {
  try {
    return yield* task;
  } catch (error) {
    throw FileError.is(error) ? new FileError(-error.errno, syscall, path, dest) : error;
  }
}

/** Runs a task on the file at a path, then forgets its fid. */
export function* withFile<V>(
  client: FileClient,
  path: string,
  follow: boolean,
  use: (fid: Fid, names: readonly string[]) => Task<V>,
): Task<V> {
  const { fid, names } = yield* resolve(client, path, { follow });
  try {
    return yield* use(fid as Fid, names);
  } finally {
    yield* client.forget(fid);
  }
}

/** Whether an entry is a directory. Fails if it does not exist. */
export function* isDirectoryAt(client: FileClient, directory: Fid, name: string): Task<boolean> {
  const { fid } = yield* client.walk(directory, [name]);
  if (fid === undefined) throw refuse('ENOENT', 'walk');
  yield* client.forget(fid);
  return isDirectory(fid.qid);
}

/** Refuses to make anything but a directory at a path that ends with a slash, with the error of Linux. */
export function* checkNoSlash(client: FileClient, directory: Fid, name: string, slash: boolean): Task<void> {
  if (!slash) return;
  yield* isDirectoryAt(client, directory, name);
  throw refuse('EEXIST', 'walk');
}

/** Runs a task on the directory of a path's last name, then forgets its fid. */
export function* withParent<V>(
  client: FileClient,
  path: string,
  code: 'EEXIST' | 'EBUSY' | 'EINVAL',
  use: (directory: Fid, name: string, slash: boolean) => Task<V>,
): Task<V> {
  const { directory, name, slash } = yield* resolveParent(client, path, code);
  try {
    return yield* use(directory, name, slash);
  } finally {
    yield* client.forget(directory);
  }
}
