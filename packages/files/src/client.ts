/**
 * What a file system needs from the protocol below it: fids, each of which stands for a file of the server, and a task for each operation
 * on them. These are messages of 9P; a client of FUSE implements them by its own requests.
 */
import type { SpinOptions, WaitOptions } from '@virtio/core';
import { type Qid, QidType } from './numbers.ts';
import type { FileError } from './file-error.ts';
import type { Task } from './task.ts';

/** A file or a directory of the server, under a number that the client chose. */
export interface Fid {
  /** The number. */
  readonly id: number;
  /** The identification of the file. It changes when `create` turns the fid of a directory into that of the new file. */
  qid: Qid;
}

/** Whether a file is a directory. */
export function isDirectory({ type }: Qid): boolean {
  return (type & QidType.DIRECTORY) !== 0;
}

/** Whether a file is a symbolic link. */
export function isSymlink({ type }: Qid): boolean {
  return (type & QidType.SYMLINK) !== 0;
}

/** The attributes of a file as the server reports them. */
export interface Attributes {
  readonly qid: Qid;
  /** A `FileType` and permissions. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly rdev: number;
  readonly size: number;
  readonly blksize: number;
  readonly blocks: number;
  /** Seconds since 1970, and nanoseconds. */
  readonly atime: number;
  readonly atimeNs: number;
  readonly mtime: number;
  readonly mtimeNs: number;
  readonly ctime: number;
  readonly ctimeNs: number;
  readonly btime: number;
  readonly btimeNs: number;
}

/** Changes of a file's attributes; see `SetattrValid`. */
export interface AttributeChanges {
  readonly valid: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly atime: number;
  readonly atimeNs: number;
  readonly mtime: number;
  readonly mtimeNs: number;
}

/** One entry of a directory, as the server reports it. */
export interface RawDirectoryEntry {
  /** The cookie of the next entry. */
  readonly offset: bigint;
  /** See `DirentType`. */
  readonly type: number;
  readonly name: string;
}

/** The statistics of a file system, as the server reports them. */
export interface RawStatFs {
  readonly type: number;
  readonly bsize: number;
  readonly blocks: number;
  readonly bfree: number;
  readonly bavail: number;
  readonly files: number;
  readonly ffree: number;
  readonly fsid: bigint;
  readonly namelen: number;
}

/** A lock on a part of a file. */
export interface LockRequest {
  /** See `LockType`. */
  readonly type: number;
  readonly start: number;
  readonly length: number;
  readonly process: number;
  readonly client: string;
}

/** The result of {@link FileClient.walk}. */
export interface Walk {
  /** The file at the end; `undefined` if the walk did not reach it. */
  readonly fid: Fid | undefined;
  /** The qids of the files that were reached, from the first name on. */
  readonly qids: readonly Qid[];
}

/** The result of {@link FileClient.copy}. */
export interface Copied {
  /** The end of the source, in bytes from its start. */
  readonly end: number;
  /** The end of the copy, in bytes from its start; more than `end` if the source became shorter meanwhile. */
  readonly written: number;
}

/** A client of a file server. It accepts only its own fids, not those of another client. */
export interface FileClient {
  /** The device. */
  readonly device: { readonly transport: { who(): string } };
  /** The root of the tree. */
  readonly root: Fid;
  /** Whether the types of qids distinguish directories and links from files. */
  readonly qidsTellKinds: boolean;

  /** Runs a task with promises. */
  run<V>(task: Task<V>, options?: WaitOptions): Promise<V>;
  /** Runs a task and spins until it ends. */
  runSync<V>(task: Task<V>, options?: SpinOptions): V;
  /** Whether a fid belongs to the current session. */
  isCurrent(fid: Fid): boolean;

  /** Walks from a directory down up to 16 names; fails if the first one fails. Links are not followed. */
  walk(from: Fid, names: readonly string[]): Task<Walk>;
  /** Walks to each of many entries of a directory. @returns `undefined` for those that do not exist */
  walkEach(directory: Fid, names: readonly string[]): Task<(Fid | undefined)[]>;
  /** Makes another fid of the same file, not open. */
  clone(fid: Fid): Task<Fid>;
  /** Opens a file or a directory. `flags` are a sum of `OpenFlag`. */
  open(fid: Fid, flags: number): Task<void>;
  /** Creates a file in a directory and opens it: `fid`, which was the directory's, becomes the file's. */
  create(fid: Fid, name: string, flags: number, mode: number, gid: number): Task<void>;
  /** Closes a file and forgets its fid; fails with what went wrong. */
  clunk(fid: Fid): Task<void>;
  /** Like {@link FileClient.clunk}, but does not wait for the answer, and ignores errors. The root stays. */
  forget(fid: Fid | undefined): Task<void>;

  /** Reads from an open file. @returns the number of bytes read, 0 at the end */
  read(fid: Fid, buffer: Uint8Array, offset: number): Task<number>;
  /** Reads the first piece of an open file, and asks for its size. */
  readFirst(fid: Fid, buffer: Uint8Array, offset: number): Task<{ count: number; size: number }>;
  /** Writes all bytes to an open file. `window`: how many requests may be in flight. */
  write(fid: Fid, bytes: Uint8Array, offset: number, window?: number): Task<void>;
  /** Copies the contents of an open file to another, from the beginning. */
  copy(from: Fid, to: Fid, size: number): Task<Copied>;
  /** Reads entries of an open directory after a cookie. @returns them, with `.` and `..`; none at the end */
  readdir(fid: Fid, cookie: bigint, room: Uint8Array): Task<readonly RawDirectoryEntry[]>;
  /** Writes what the server caches of an open file to the disk. */
  fsync(fid: Fid, dataOnly: boolean): Task<void>;

  /** Reads the attributes of a file. */
  getattr(fid: Fid): Task<Attributes>;
  /** Reads the attributes of many files. @returns them, `undefined` for files that the server refuses */
  getattrEach(fids: readonly Fid[]): Task<(Attributes | undefined)[]>;
  /** Changes the attributes of a file. */
  setattr(fid: Fid, changes: AttributeChanges): Task<void>;
  /** Reads the statistics of the file system. */
  statfs(fid: Fid): Task<RawStatFs>;
  /** Reads an extended attribute, or if the name is empty, the names of all, each followed by a zero byte. */
  getxattr(fid: Fid, name: string): Task<Uint8Array<ArrayBuffer>>;
  /** Sets an extended attribute. `flags` 1: it must not exist; 2: it must exist. An empty value removes it. */
  setxattr(fid: Fid, name: string, value: Uint8Array, flags: number): Task<void>;

  /** Makes a directory. */
  mkdir(directory: Fid, name: string, mode: number, gid: number): Task<unknown>;
  /** Makes a device node, a FIFO or a socket. */
  mknod(directory: Fid, name: string, mode: number, major: number, minor: number, gid: number): Task<unknown>;
  /** Makes a symbolic link. */
  symlink(directory: Fid, name: string, target: string, gid: number): Task<unknown>;
  /** Reads the target of a symbolic link. */
  readlink(fid: Fid): Task<string>;
  /** Makes a hard link: another name of a file. */
  link(directory: Fid, fid: Fid, name: string): Task<void>;
  /** Renames an entry of a directory. */
  renameat(directory: Fid, name: string, newDirectory: Fid, newName: string): Task<void>;
  /** Renames the file of a fid, on servers that do not know {@link FileClient.renameat}. */
  rename(fid: Fid, directory: Fid, name: string): Task<void>;
  /** Removes an entry of a directory. `flags` is 0, or `AT_REMOVEDIR` for a directory. */
  unlinkat(directory: Fid, name: string, flags: number): Task<void>;
  /** Removes many files of a directory; `refused` is called for each that the server does not remove. */
  unlinkEach(
    directory: Fid,
    names: Iterable<string>,
    refused: (name: string, error: FileError) => void,
  ): Task<void>;
  /** Removes the file of a fid, on servers that do not know {@link FileClient.unlinkat}, and forgets the fid. */
  remove(fid: Fid): Task<void>;

  /** Sets or removes a lock. @returns a number of `LockStatus` */
  lock(fid: Fid, request: LockRequest, flags: number): Task<number>;
  /** Looks for a lock that conflicts with this one. @returns it; its type is `LockType.UNLOCK` if there is none */
  getlock(fid: Fid, request: LockRequest): Task<LockRequest>;
}
