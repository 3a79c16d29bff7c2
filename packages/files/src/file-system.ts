/**
 * A shared tree in the shape of `node:fs/promises`, with the synchronous methods of `node:fs` as well. Paths are strings with slashes;
 * relative ones start at the root, as there is no working directory. Links are followed as a kernel follows them, and never lead out of
 * the tree.
 *
 * Each operation is written once, as a task; the methods here run it in two ways, with promises and spinning.
 */
import { requireInteger, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import * as attributes from './attributes.ts';
import type { Time } from './attributes.ts';
import { CLIENT, MAX_ID } from './check.ts';
import type { FileClient } from './client.ts';
import type { FsContext } from './context.ts';
import * as entries from './entries.ts';
import { type FileHandle, openHandle } from './file-handle.ts';
import * as files from './files.ts';
import * as listing from './listing.ts';
import type { OpenFlags } from './open-flags.ts';
import {
  type CopyFileOptions,
  type Data,
  type DataStream,
  decodeAs,
  type Encoding,
  isAsyncIterable,
  type MkdirOptions,
  type ReaddirOptions,
  type ReadFileOptions,
  readOptions,
  type ReadTextOptions,
  type RmOptions,
  type SetxattrOptions,
  type SyncOptions,
  toChunks,
  type WriteFileOptions,
} from './options.ts';
import * as removal from './remove.ts';
import type { Dirent, StatFs, Stats } from './stats.ts';
import type { Task } from './task.ts';

/** Options of a {@link FileSystem}. */
export interface FileSystemOptions {
  /** Permissions that new files and directories do not get (default 0o022). */
  readonly umask?: number;
  /** The group of new files, if the protocol has a field for it (default 0). */
  readonly gid?: number;
}

/**
 * A tree of files that the host shares.
 *
 * An operation that the server refuses ends with a {@link FileError} (`ENOENT`, `EACCES`, …); all other failures are `VirtioError`s. Each
 * method with promises takes a `signal` that cancels it: the promise rejects with `ABORTED` when the server has ended the request. Each
 * synchronous method takes `timeoutMs`: how long the server may take for an answer (default 60,000).
 */
export abstract class FileSystem<C extends FileClient = FileClient> implements Disposable, AsyncDisposable {
  /** The client of the protocol, for operations that have no method here. */
  readonly client: C;

  readonly #context: FsContext;
  #mounted = true;

  /** @internal use `mount` of the class for the protocol */
  protected constructor(client: C, options: FileSystemOptions) {
    const { umask = 0o022, gid = 0 } = options;
    requireInteger(CLIENT, 'umask', umask, 0, 0o777);
    requireInteger(CLIENT, 'gid', gid, 0, MAX_ID);
    this.client = client;
    this.#context = { client, umask, gid };
  }

  /** Begins a session with the server, and ends an earlier one. */
  protected abstract connect(): Task<unknown>;

  /** Ends the session with the server. */
  protected abstract disconnect(): Task<unknown>;

  /** Connects to the server again, after the device was reset. Handles that were open then fail with `ESTALE`. */
  remount(options?: WaitOptions): Promise<void> {
    return this.client.run(this.enter(), options);
  }

  /** The synchronous form of {@link FileSystem.remount}. */
  remountSync(options?: SpinOptions): void {
    this.client.runSync(this.enter(), options);
  }

  /**
   * Ends the session with the server. Handles that are still open fail with `ESTALE`; close them first, as a server of 9P keeps
   * their files open until the next session. The device can be mounted again.
   */
  unmount(options?: WaitOptions): Promise<void> {
    return this.client.run(this.#leave(), options);
  }

  /** The synchronous form of {@link FileSystem.unmount}. */
  unmountSync(options?: SpinOptions): void {
    this.client.runSync(this.#leave(), options);
  }

  /** The same as {@link FileSystem.unmount}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.unmount();
  }

  /** The same as {@link FileSystem.unmountSync}, for `using`. */
  [Symbol.dispose](): void {
    this.unmountSync();
  }

  /** Opens a file. */
  open(path: string, flags: OpenFlags = 'r', mode = 0o666, options?: WaitOptions): Promise<FileHandle> {
    return this.client.run(openHandle(this.#context, path, flags, mode), options);
  }

  /** The synchronous form of {@link FileSystem.open}. */
  openSync(path: string, flags: OpenFlags = 'r', mode = 0o666, options?: SpinOptions): FileHandle {
    return this.client.runSync(openHandle(this.#context, path, flags, mode), options);
  }

  /** Reads a file: as bytes, or as text if an encoding is given. */
  readFile(path: string, options?: ReadFileOptions | null): Promise<Uint8Array<ArrayBuffer>>;
  readFile(path: string, options: ReadTextOptions | Encoding): Promise<string>;
  async readFile(
    path: string,
    options?: ReadFileOptions | ReadTextOptions | Encoding | null,
  ): Promise<Uint8Array<ArrayBuffer> | string> {
    const { encoding, flag = 'r', signal } = readOptions(options);
    const bytes = await this.client.run(files.readFile(this.#context, path, flag), { signal });
    return decodeAs(bytes, encoding);
  }

  /** The synchronous form of {@link FileSystem.readFile}. */
  readFileSync(path: string, options?: SyncOptions<ReadFileOptions> | null): Uint8Array<ArrayBuffer>;
  readFileSync(path: string, options: SyncOptions<ReadTextOptions> | Encoding): string;
  readFileSync(
    path: string,
    options?: SyncOptions<ReadFileOptions> | SyncOptions<ReadTextOptions> | Encoding | null,
  ): Uint8Array<ArrayBuffer> | string {
    const { encoding, flag = 'r', ...rest } = readOptions(options);
    return decodeAs(this.client.runSync(files.readFile(this.#context, path, flag), rest), encoding);
  }

  /** Creates or replaces a file: with a buffer, a text, or pieces as they arrive. */
  async writeFile(path: string, data: Data | DataStream, options: WriteFileOptions = {}): Promise<void> {
    const { flag = 'w', mode = 0o666, signal } = options;
    if (!isAsyncIterable(data)) {
      await this.client.run(files.writeFile(this.#context, path, toChunks(data), flag, mode), { signal });
      return;
    }
    await using handle = await this.open(path, flag, mode, { signal });
    await handle.writeFile(data, { signal });
  }

  /** The synchronous form of {@link FileSystem.writeFile}. */
  writeFileSync(
    path: string,
    data: Data | Iterable<Data>,
    options: SyncOptions<WriteFileOptions> = {},
  ): void {
    const { flag = 'w', mode = 0o666 } = options;
    this.client.runSync(files.writeFile(this.#context, path, toChunks(data), flag, mode), options);
  }

  /** Writes at the end of a file, which is created if it does not exist. */
  appendFile(path: string, data: Data | DataStream, options?: WriteFileOptions): Promise<void> {
    return this.writeFile(path, data, { flag: 'a', ...options });
  }

  /** The synchronous form of {@link FileSystem.appendFile}. */
  appendFileSync(path: string, data: Data | Iterable<Data>, options?: SyncOptions<WriteFileOptions>): void {
    this.writeFileSync(path, data, { flag: 'a', ...options });
  }

  /**
   * Lists a directory, in the server's order.
   *
   * @throws {@link FileError} `EOVERFLOW` if there are more than 1,048,576 entries; use {@link FileSystem.opendir}
   */
  readdir(path: string, options?: ReaddirOptions & { readonly withFileTypes?: false }): Promise<string[]>;
  readdir(path: string, options: ReaddirOptions & { readonly withFileTypes: true }): Promise<Dirent[]>;
  readdir(path: string, options: ReaddirOptions = {}): Promise<string[] | Dirent[]> {
    return this.client.run(listing.readdir(this.#context, path, options), options);
  }

  /** The synchronous form of {@link FileSystem.readdir}. */
  readdirSync(
    path: string,
    options?: SyncOptions<ReaddirOptions> & { readonly withFileTypes?: false },
  ): string[];
  readdirSync(
    path: string,
    options: SyncOptions<ReaddirOptions> & { readonly withFileTypes: true },
  ): Dirent[];
  readdirSync(path: string, options: SyncOptions<ReaddirOptions> = {}): string[] | Dirent[] {
    return this.client.runSync(listing.readdir(this.#context, path, options), options);
  }

  /** Lists a directory of any size, a part at a time. The directory is closed when the iteration ends. */
  async *opendir(path: string, options?: WaitOptions): AsyncGenerator<Dirent, undefined> {
    const { client } = this;
    const cursor = await client.run(listing.opendir(this.#context, path), options);
    try {
      for (;;) {
        const part = await client.run(listing.nextDirents(this.#context, path, cursor), options);
        if (part === undefined) return undefined;
        yield* part;
      }
    } finally {
      await client.run(client.forget(cursor.fid));
    }
  }

  /** Makes a directory. @returns with `recursive`, the first directory that was made, or `undefined` if all existed */
  mkdir(path: string, options: MkdirOptions = {}): Promise<string | undefined> {
    return this.client.run(entries.mkdir(this.#context, path, options), options);
  }

  /** The synchronous form of {@link FileSystem.mkdir}. */
  mkdirSync(path: string, options: SyncOptions<MkdirOptions> = {}): string | undefined {
    return this.client.runSync(entries.mkdir(this.#context, path, options), options);
  }

  /** Copies a file and its permissions. */
  copyFile(source: string, target: string, options?: CopyFileOptions): Promise<void> {
    return this.client.run(
      files.copyFile(this.#context, source, target, options?.exclusive === true),
      options,
    );
  }

  /** The synchronous form of {@link FileSystem.copyFile}. */
  copyFileSync(source: string, target: string, options?: SyncOptions<CopyFileOptions>): void {
    this.client.runSync(files.copyFile(this.#context, source, target, options?.exclusive === true), options);
  }

  /** Reads a file's attributes. */
  stat(path: string, options?: WaitOptions): Promise<Stats> {
    return this.client.run(attributes.stat(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.stat}. */
  statSync(path: string, options?: SpinOptions): Stats {
    return this.client.runSync(attributes.stat(this.#context, path), options);
  }

  /** Reads a file's attributes. If it is a link, these are the link's own. */
  lstat(path: string, options?: WaitOptions): Promise<Stats> {
    return this.client.run(attributes.lstat(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.lstat}. */
  lstatSync(path: string, options?: SpinOptions): Stats {
    return this.client.runSync(attributes.lstat(this.#context, path), options);
  }

  /** Rejects if there is no such file. It does not check permissions, as the server decides about them. */
  access(path: string, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.access(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.access}. */
  accessSync(path: string, options?: SpinOptions): void {
    this.client.runSync(attributes.access(this.#context, path), options);
  }

  /**
   * Makes a directory for temporary files, with a new name; only its owner can use it.
   *
   * @param prefix the path, to which six characters are added
   * @returns the path of the directory
   */
  mkdtemp(prefix: string, options?: WaitOptions): Promise<string> {
    return this.client.run(entries.mkdtemp(this.#context, prefix), options);
  }

  /** The synchronous form of {@link FileSystem.mkdtemp}. */
  mkdtempSync(prefix: string, options?: SpinOptions): string {
    return this.client.runSync(entries.mkdtemp(this.#context, prefix), options);
  }

  /** Removes a file, or with `recursive`, a tree. */
  rm(path: string, options: RmOptions = {}): Promise<void> {
    return this.client.run(removal.rm(this.#context, path, options), options);
  }

  /** The synchronous form of {@link FileSystem.rm}. */
  rmSync(path: string, options: SyncOptions<RmOptions> = {}): void {
    this.client.runSync(removal.rm(this.#context, path, options), options);
  }

  /** Removes an empty directory. */
  rmdir(path: string, options?: WaitOptions): Promise<void> {
    return this.client.run(removal.rmdir(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.rmdir}. */
  rmdirSync(path: string, options?: SpinOptions): void {
    this.client.runSync(removal.rmdir(this.#context, path), options);
  }

  /** Removes a file. */
  unlink(path: string, options?: WaitOptions): Promise<void> {
    return this.client.run(removal.unlink(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.unlink}. */
  unlinkSync(path: string, options?: SpinOptions): void {
    this.client.runSync(removal.unlink(this.#context, path), options);
  }

  /** Renames a file or a directory, and replaces a file that has the new name. */
  rename(path: string, newPath: string, options?: WaitOptions): Promise<void> {
    return this.client.run(entries.rename(this.#context, path, newPath), options);
  }

  /** The synchronous form of {@link FileSystem.rename}. */
  renameSync(path: string, newPath: string, options?: SpinOptions): void {
    this.client.runSync(entries.rename(this.#context, path, newPath), options);
  }

  /** Makes a hard link: another name, `newPath`, of the file at `path`. */
  link(path: string, newPath: string, options?: WaitOptions): Promise<void> {
    return this.client.run(entries.link(this.#context, path, newPath), options);
  }

  /** The synchronous form of {@link FileSystem.link}. */
  linkSync(path: string, newPath: string, options?: SpinOptions): void {
    this.client.runSync(entries.link(this.#context, path, newPath), options);
  }

  /** Makes a symbolic link at `path`. */
  symlink(target: string, path: string, options?: WaitOptions): Promise<void> {
    return this.client.run(entries.symlink(this.#context, target, path), options);
  }

  /** The synchronous form of {@link FileSystem.symlink}. */
  symlinkSync(target: string, path: string, options?: SpinOptions): void {
    this.client.runSync(entries.symlink(this.#context, target, path), options);
  }

  /** Makes a device node, a FIFO or a socket: `mode` is a `FileType` and permissions. */
  mknod(path: string, mode: number, major = 0, minor = 0, options?: WaitOptions): Promise<void> {
    return this.client.run(entries.mknod(this.#context, path, mode, major, minor), options);
  }

  /** The synchronous form of {@link FileSystem.mknod}. */
  mknodSync(path: string, mode: number, major = 0, minor = 0, options?: SpinOptions): void {
    this.client.runSync(entries.mknod(this.#context, path, mode, major, minor), options);
  }

  /** Reads the target of a symbolic link. */
  readlink(path: string, options?: WaitOptions): Promise<string> {
    return this.client.run(entries.readlink(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.readlink}. */
  readlinkSync(path: string, options?: SpinOptions): string {
    return this.client.runSync(entries.readlink(this.#context, path), options);
  }

  /** The path of a file from the root, without links. */
  realpath(path: string, options?: WaitOptions): Promise<string> {
    return this.client.run(entries.realpath(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.realpath}. */
  realpathSync(path: string, options?: SpinOptions): string {
    return this.client.runSync(entries.realpath(this.#context, path), options);
  }

  /** Changes permissions. */
  chmod(path: string, mode: number, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.chmod(this.#context, path, mode), options);
  }

  /** The synchronous form of {@link FileSystem.chmod}. */
  chmodSync(path: string, mode: number, options?: SpinOptions): void {
    this.client.runSync(attributes.chmod(this.#context, path, mode), options);
  }

  /** Changes owner and group; -1 leaves one as it is. */
  chown(path: string, uid: number, gid: number, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.chown(this.#context, path, uid, gid), options);
  }

  /** The synchronous form of {@link FileSystem.chown}. */
  chownSync(path: string, uid: number, gid: number, options?: SpinOptions): void {
    this.client.runSync(attributes.chown(this.#context, path, uid, gid), options);
  }

  /** Changes owner and group; of a link, its own. */
  lchown(path: string, uid: number, gid: number, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.lchown(this.#context, path, uid, gid), options);
  }

  /** The synchronous form of {@link FileSystem.lchown}. */
  lchownSync(path: string, uid: number, gid: number, options?: SpinOptions): void {
    this.client.runSync(attributes.lchown(this.#context, path, uid, gid), options);
  }

  /** Changes the times of the last access and the last change: to the microsecond, or with `bigint`s to the nanosecond. */
  utimes(path: string, atime: Time, mtime: Time, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.utimes(this.#context, path, atime, mtime), options);
  }

  /** The synchronous form of {@link FileSystem.utimes}. */
  utimesSync(path: string, atime: Time, mtime: Time, options?: SpinOptions): void {
    this.client.runSync(attributes.utimes(this.#context, path, atime, mtime), options);
  }

  /** Like {@link FileSystem.utimes}, but changes the times of a link itself. */
  lutimes(path: string, atime: Time, mtime: Time, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.lutimes(this.#context, path, atime, mtime), options);
  }

  /** The synchronous form of {@link FileSystem.lutimes}. */
  lutimesSync(path: string, atime: Time, mtime: Time, options?: SpinOptions): void {
    this.client.runSync(attributes.lutimes(this.#context, path, atime, mtime), options);
  }

  /** Sets the size of a file: truncates it, or extends it with zeros. */
  truncate(path: string, size = 0, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.truncate(this.#context, path, size), options);
  }

  /** The synchronous form of {@link FileSystem.truncate}. */
  truncateSync(path: string, size = 0, options?: SpinOptions): void {
    this.client.runSync(attributes.truncate(this.#context, path, size), options);
  }

  /** Reads the statistics of the file system that a file is on. */
  statfs(path: string, options?: WaitOptions): Promise<StatFs> {
    return this.client.run(attributes.statfs(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.statfs}. */
  statfsSync(path: string, options?: SpinOptions): StatFs {
    return this.client.runSync(attributes.statfs(this.#context, path), options);
  }

  /**
   * Reads an extended attribute.
   *
   * @throws {@link FileError} `ENODATA` if there is none of that name, `E2BIG` if it is longer than 65,536 bytes
   */
  getxattr(path: string, name: string, options?: WaitOptions): Promise<Uint8Array<ArrayBuffer>> {
    return this.client.run(attributes.getxattr(this.#context, path, name), options);
  }

  /** The synchronous form of {@link FileSystem.getxattr}. */
  getxattrSync(path: string, name: string, options?: SpinOptions): Uint8Array<ArrayBuffer> {
    return this.client.runSync(attributes.getxattr(this.#context, path, name), options);
  }

  /** The names of a file's extended attributes. */
  listxattr(path: string, options?: WaitOptions): Promise<string[]> {
    return this.client.run(attributes.listxattr(this.#context, path), options);
  }

  /** The synchronous form of {@link FileSystem.listxattr}. */
  listxattrSync(path: string, options?: SpinOptions): string[] {
    return this.client.runSync(attributes.listxattr(this.#context, path), options);
  }

  /** Sets an extended attribute. An empty value removes it, as in 9P, which has no other way to remove one. */
  setxattr(path: string, name: string, value: Uint8Array, options: SetxattrOptions = {}): Promise<void> {
    return this.client.run(attributes.setxattr(this.#context, path, name, value, options), options);
  }

  /** The synchronous form of {@link FileSystem.setxattr}. */
  setxattrSync(
    path: string,
    name: string,
    value: Uint8Array,
    options: SyncOptions<SetxattrOptions> = {},
  ): void {
    this.client.runSync(attributes.setxattr(this.#context, path, name, value, options), options);
  }

  /** Removes an extended attribute. */
  removexattr(path: string, name: string, options?: WaitOptions): Promise<void> {
    return this.client.run(attributes.removexattr(this.#context, path, name), options);
  }

  /** The synchronous form of {@link FileSystem.removexattr}. */
  removexattrSync(path: string, name: string, options?: SpinOptions): void {
    this.client.runSync(attributes.removexattr(this.#context, path, name), options);
  }

  /** @internal */
  protected *enter(): Task<void> {
    if (!this.#mounted) {
      throw new VirtioError('DISPOSED', 'this file system was unmounted; mount the device again');
    }
    yield* this.connect();
  }

  *#leave(): Task<void> {
    if (!this.#mounted) return;
    this.#mounted = false;
    yield* this.disconnect();
  }
}
