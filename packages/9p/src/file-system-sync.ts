/**
 * The synchronous half of the file system: each method is the one of the same name without `Sync`, spinning until the
 * server has answered. For engines without an event loop, and for programs that start up.
 */
import { VirtioError } from '@virtio/core';
import { type ConnectOptions, P9Client } from './client.ts';
import type { FileHandle } from './file-handle.ts';
import type { OpenFlags } from './open-flags.ts';
import type { FsContext, Time } from './operations.ts';
import {
  type Data,
  decodeAs,
  type Encoding,
  type MkdirOptions,
  type ReaddirOptions,
  type ReadFileOptions,
  readOptions,
  type ReadTextOptions,
  type RmOptions,
  type SetxattrOptions,
  toChunks,
  type WriteFileOptions,
} from './options.ts';
import { PathTasks } from './path-tasks.ts';
import type { Dirent, StatFs, Stats } from './stats.ts';
import type { Task } from './task.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** How a file system is mounted. */
export interface MountOptions extends ConnectOptions {
  /** Permissions that new files and directories do not get (default 0o022). */
  readonly umask?: number;
  /** The group of new files (default 0). */
  readonly gid?: number;
}

/** The synchronous methods of `P9FileSystem`. */
export abstract class P9FileSystemSync implements Disposable {
  /** The protocol below, for what has no place here. */
  readonly client: P9Client;
  /** The operations as tasks. */
  protected readonly tasks: PathTasks;
  readonly #options: MountOptions;
  #mounted = true;

  /** Makes a file system that is not mounted yet. */
  protected constructor(device: Virtio9p, options: MountOptions) {
    this.client = new P9Client(device);
    this.#options = options;
    const { umask = 0o022, gid = 0 } = options;
    const context: FsContext = { client: this.client, umask, gid };
    this.tasks = new PathTasks(context);
  }

  /** Connects to the server, anew if need be. */
  protected *connect(): Task<void> {
    if (!this.#mounted) {
      throw new VirtioError('DISPOSED', 'this 9P file system was unmounted; mount the device anew');
    }
    yield* this.client.connect(this.#options);
  }

  /** Takes leave of the server. */
  protected *disconnect(): Task<void> {
    if (!this.#mounted) return;
    this.#mounted = false;
    yield* this.client.disconnect();
  }

  /** As `remount`, but spins. */
  remountSync(): void {
    this.client.runSync(this.connect());
  }

  /** As `unmount`, but spins. */
  unmountSync(): void {
    this.client.runSync(this.disconnect());
  }

  /** The same as {@link P9FileSystemSync.unmountSync}, for `using`. */
  [Symbol.dispose](): void {
    this.unmountSync();
  }

  /** As `open`, but spins. */
  openSync(path: string, flags: OpenFlags = 'r', mode = 0o666): FileHandle {
    return this.client.runSync(this.tasks.open(path, flags, mode));
  }

  /** As `readFile`, but spins. */
  readFileSync(path: string, options?: Omit<ReadFileOptions, 'signal'> | null): Uint8Array<ArrayBuffer>;
  readFileSync(path: string, options: Omit<ReadTextOptions, 'signal'> | Encoding): string;
  readFileSync(
    path: string,
    options?: ReadFileOptions | ReadTextOptions | Encoding | null,
  ): Uint8Array<ArrayBuffer> | string {
    const { encoding, flag = 'r' } = readOptions(options);
    return decodeAs(this.client.runSync(this.tasks.readFile(path, flag)), encoding);
  }

  /** As `writeFile`, but spins. */
  writeFileSync(
    path: string,
    data: Data | Iterable<Data>,
    { flag = 'w', mode = 0o666 }: Omit<WriteFileOptions, 'signal'> = {},
  ): void {
    this.client.runSync(this.tasks.writeFile(path, toChunks(data), flag, mode));
  }

  /** As `appendFile`, but spins. */
  appendFileSync(
    path: string,
    data: Data | Iterable<Data>,
    options?: Omit<WriteFileOptions, 'signal'>,
  ): void {
    this.writeFileSync(path, data, { flag: 'a', ...options });
  }

  /** As `copyFile`, but spins. */
  copyFileSync(source: string, target: string, { exclusive = false } = {}): void {
    this.client.runSync(this.tasks.copyFile(source, target, exclusive));
  }

  /** As `stat`, but spins. */
  statSync(path: string): Stats {
    return this.client.runSync(this.tasks.stat(path));
  }

  /** As `lstat`, but spins. */
  lstatSync(path: string): Stats {
    return this.client.runSync(this.tasks.lstat(path));
  }

  /** As `access`, but spins. */
  accessSync(path: string): void {
    this.client.runSync(this.tasks.access(path));
  }

  /** As `readdir`, but spins. */
  readdirSync(path: string, options?: ReaddirOptions & { readonly withFileTypes?: false }): string[];
  readdirSync(path: string, options: ReaddirOptions & { readonly withFileTypes: true }): Dirent[];
  readdirSync(
    path: string,
    { withFileTypes = false, recursive = false }: ReaddirOptions = {},
  ): string[] | Dirent[] {
    const { client, tasks } = this;
    if (recursive) {
      const tree = client.runSync(tasks.readdirTree(path));
      return withFileTypes ? tree.map(({ entry }) => entry) : tree.map(({ name }) => name);
    }
    return withFileTypes ? client.runSync(tasks.readdirTypes(path)) : client.runSync(tasks.readdir(path));
  }

  /** As `mkdir`, but spins. */
  mkdirSync(path: string, { recursive = false, mode = 0o777 }: MkdirOptions = {}): string | undefined {
    const first = this.client.runSync(this.tasks.mkdir(path, mode, recursive));
    return recursive ? first : undefined;
  }

  /** As `mkdtemp`, but spins. */
  mkdtempSync(prefix: string): string {
    return this.client.runSync(this.tasks.mkdtemp(prefix));
  }

  /** As `rm`, but spins. */
  rmSync(path: string, options: Omit<RmOptions, 'signal'> = {}): void {
    this.client.runSync(this.tasks.rm(path, options));
  }

  /** As `rmdir`, but spins. */
  rmdirSync(path: string): void {
    this.client.runSync(this.tasks.rmdir(path));
  }

  /** As `unlink`, but spins. */
  unlinkSync(path: string): void {
    this.client.runSync(this.tasks.unlink(path));
  }

  /** As `rename`, but spins. */
  renameSync(path: string, newPath: string): void {
    this.client.runSync(this.tasks.rename(path, newPath));
  }

  /** As `link`, but spins. */
  linkSync(path: string, newPath: string): void {
    this.client.runSync(this.tasks.link(path, newPath));
  }

  /** As `symlink`, but spins. */
  symlinkSync(target: string, path: string): void {
    this.client.runSync(this.tasks.symlink(target, path));
  }

  /** As `mknod`, but spins. */
  mknodSync(path: string, mode: number, major = 0, minor = 0): void {
    this.client.runSync(this.tasks.mknod(path, mode, major, minor));
  }

  /** As `readlink`, but spins. */
  readlinkSync(path: string): string {
    return this.client.runSync(this.tasks.readlink(path));
  }

  /** As `realpath`, but spins. */
  realpathSync(path: string): string {
    return this.client.runSync(this.tasks.realpath(path));
  }

  /** As `chmod`, but spins. */
  chmodSync(path: string, mode: number): void {
    this.client.runSync(this.tasks.chmod(path, mode));
  }

  /** As `chown`, but spins. */
  chownSync(path: string, uid: number, gid: number): void {
    this.client.runSync(this.tasks.chown(path, uid, gid));
  }

  /** As `lchown`, but spins. */
  lchownSync(path: string, uid: number, gid: number): void {
    this.client.runSync(this.tasks.lchown(path, uid, gid));
  }

  /** As `utimes`, but spins. */
  utimesSync(path: string, atime: Time, mtime: Time): void {
    this.client.runSync(this.tasks.utimes(path, atime, mtime));
  }

  /** As `lutimes`, but spins. */
  lutimesSync(path: string, atime: Time, mtime: Time): void {
    this.client.runSync(this.tasks.lutimes(path, atime, mtime));
  }

  /** As `truncate`, but spins. */
  truncateSync(path: string, size = 0): void {
    this.client.runSync(this.tasks.truncate(path, size));
  }

  /** As `statfs`, but spins. */
  statfsSync(path: string): StatFs {
    return this.client.runSync(this.tasks.statfs(path));
  }

  /** As `getxattr`, but spins. */
  getxattrSync(path: string, name: string): Uint8Array<ArrayBuffer> {
    return this.client.runSync(this.tasks.getxattr(path, name));
  }

  /** As `listxattr`, but spins. */
  listxattrSync(path: string): string[] {
    return this.client.runSync(this.tasks.listxattr(path));
  }

  /** As `setxattr`, but spins. */
  setxattrSync(path: string, name: string, value: Uint8Array, options: SetxattrOptions = {}): void {
    this.client.runSync(this.tasks.setxattr(path, name, value, options));
  }

  /** As `removexattr`, but spins. */
  removexattrSync(path: string, name: string): void {
    this.client.runSync(this.tasks.removexattr(path, name));
  }
}
