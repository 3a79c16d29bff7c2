/**
 * A shared tree in the shape of `node:fs/promises`, with the synchronous methods of `node:fs` added. Paths are strings
 * with slashes; relative ones start at the root, as there is no working directory. Links are followed as a kernel does,
 * and never lead out of the tree.
 */
import type { P9Fid } from './fid.ts';
import type { FileHandle } from './file-handle.ts';
import { type DirectoryCursor, directoryCursor } from './directories.ts';
import { type MountOptions, P9FileSystemSync } from './file-system-sync.ts';
import type { OpenFlags } from './open-flags.ts';
import type { Time } from './operations.ts';
import {
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
  type SignalOption,
  toChunks,
  type WriteFileOptions,
} from './options.ts';
import type { Dirent, StatFs, Stats } from './stats.ts';
import type { Virtio9p } from './virtio-9p.ts';

/**
 * A tree that the host shares.
 *
 * What the server refuses rejects with a {@link P9Error} (`ENOENT`, `EACCES`, …), what goes wrong below with a `VirtioError`.
 *
 * @example
 * ```ts
 * import { P9Error, P9FileSystem, type Virtio9p } from '@virtio/9p';
 *
 * export async function countVisit(device: Virtio9p): Promise<number> {
 *   await using fs = await P9FileSystem.mount(device);
 *   let visits = 0;
 *   try {
 *     visits = Number(await fs.readFile('/visits.txt', 'utf8'));
 *   } catch (error) {
 *     if (!P9Error.is(error, 'ENOENT')) throw error;
 *   }
 *   await fs.writeFile('/visits.txt', String(visits + 1));
 *   return visits + 1;
 * }
 * ```
 */
export class P9FileSystem extends P9FileSystemSync implements AsyncDisposable {
  /**
   * Mounts what a device shares.
   *
   * @param device the device, which no one else may use until the file system is unmounted; it is not disposed then
   * @throws {@link VirtioError} `UNSUPPORTED` if the server does not speak 9P2000.L, `DEVICE_BUSY`, `DMA_ERROR`
   * @throws {@link P9Error} if the server does not let the user in
   */
  static async mount(device: Virtio9p, options: MountOptions = {}): Promise<P9FileSystem> {
    const fs = new P9FileSystem(device, options);
    await fs.client.run(fs.connect());
    return fs;
  }

  /** As {@link P9FileSystem.mount}, but spins. */
  static mountSync(device: Virtio9p, options: MountOptions = {}): P9FileSystem {
    const fs = new P9FileSystem(device, options);
    fs.client.runSync(fs.connect());
    return fs;
  }

  private constructor(device: Virtio9p, options: MountOptions) {
    super(device, options);
  }

  /** Connects to the server anew, after the device was reset. Handles that were open are `ESTALE` from then on. */
  remount(): Promise<void> {
    return this.client.run(this.connect());
  }

  /** Takes leave of the server. Handles that are open are of no use afterwards; the device can be mounted anew. */
  unmount(): Promise<void> {
    return this.client.run(this.disconnect());
  }

  /** The same as {@link P9FileSystem.unmount}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.unmount();
  }

  /** Opens a file. */
  open(
    path: string,
    flags: OpenFlags = 'r',
    mode = 0o666,
    { signal }: SignalOption = {},
  ): Promise<FileHandle> {
    return this.client.run(this.tasks.open(path, flags, mode), signal);
  }

  /** Reads a file: as bytes, or as text if an encoding is given. */
  readFile(path: string, options?: ReadFileOptions | null): Promise<Uint8Array<ArrayBuffer>>;
  readFile(path: string, options: ReadTextOptions | Encoding): Promise<string>;
  async readFile(
    path: string,
    options?: ReadFileOptions | ReadTextOptions | Encoding | null,
  ): Promise<Uint8Array<ArrayBuffer> | string> {
    const { encoding, flag = 'r', signal } = readOptions(options);
    return decodeAs(await this.client.run(this.tasks.readFile(path, flag), signal), encoding);
  }

  /** Writes a file, which is created or replaced: a buffer, a text, or pieces as they come. */
  async writeFile(path: string, data: Data | DataStream, options: WriteFileOptions = {}): Promise<void> {
    const { flag = 'w', mode = 0o666, signal } = options;
    if (!isAsyncIterable(data)) {
      await this.client.run(this.tasks.writeFile(path, toChunks(data), flag, mode), signal);
      return;
    }
    await using handle = await this.open(path, flag, mode, { signal });
    await handle.writeFile(data, { signal });
  }

  /** Writes at the end of a file, which is created if need be. */
  appendFile(path: string, data: Data | DataStream, options?: WriteFileOptions): Promise<void> {
    return this.writeFile(path, data, { flag: 'a', ...options });
  }

  /** Copies a file and its permissions, through this client. `exclusive`: the target must not exist yet. */
  copyFile(
    source: string,
    target: string,
    { exclusive = false, signal }: SignalOption & { readonly exclusive?: boolean } = {},
  ): Promise<void> {
    return this.client.run(this.tasks.copyFile(source, target, exclusive), signal);
  }

  /** Reads a file's attributes. */
  stat(path: string): Promise<Stats> {
    return this.client.run(this.tasks.stat(path));
  }

  /** Reads a file's attributes; those of the link itself if it is one. */
  lstat(path: string): Promise<Stats> {
    return this.client.run(this.tasks.lstat(path));
  }

  /** Rejects if there is no such file. It says nothing of permissions: the server has the last word on those. */
  access(path: string): Promise<void> {
    return this.client.run(this.tasks.access(path));
  }

  /**
   * Lists a directory, in the server's order.
   *
   * @throws {@link P9Error} `EOVERFLOW` above 1,048,576 entries; use {@link P9FileSystem.opendir}
   */
  readdir(path: string, options?: ReaddirOptions & { readonly withFileTypes?: false }): Promise<string[]>;
  readdir(path: string, options: ReaddirOptions & { readonly withFileTypes: true }): Promise<Dirent[]>;
  async readdir(
    path: string,
    { withFileTypes = false, recursive = false, signal }: ReaddirOptions = {},
  ): Promise<string[] | Dirent[]> {
    const { client, tasks } = this;
    if (recursive) {
      const tree = await client.run(tasks.readdirTree(path), signal);
      return withFileTypes ? tree.map(({ entry }) => entry) : tree.map(({ name }) => name);
    }
    return withFileTypes
      ? client.run(tasks.readdirTypes(path), signal)
      : client.run(tasks.readdir(path), signal);
  }

  /** Lists a directory of any size, a part at a time. The directory is closed when the iteration ends. */
  async *opendir(path: string, { signal }: SignalOption = {}): AsyncGenerator<Dirent, undefined> {
    const { client, tasks } = this;
    const fid: P9Fid = await client.run(tasks.openDirectory(path), signal);
    try {
      const cursor: DirectoryCursor = directoryCursor(fid);
      for (;;) {
        const entries = await client.run(tasks.nextDirents(path, cursor), signal);
        if (entries === undefined) return undefined;
        yield* entries;
      }
    } finally {
      await client.run(client.forget(fid));
    }
  }

  /** Makes a directory. @returns with `recursive` the first directory that was made, `undefined` if all were there */
  async mkdir(
    path: string,
    { recursive = false, mode = 0o777 }: MkdirOptions = {},
  ): Promise<string | undefined> {
    const first = await this.client.run(this.tasks.mkdir(path, mode, recursive));
    return recursive ? first : undefined;
  }

  /**
   * Makes a directory for temporary files, with a name that nothing has yet and for its owner alone.
   *
   * @param prefix the path, to which six characters are added
   * @returns the path of the directory
   */
  mkdtemp(prefix: string): Promise<string> {
    return this.client.run(this.tasks.mkdtemp(prefix));
  }

  /** Removes a file, or with `recursive` a tree, many entries at once. */
  rm(path: string, options: RmOptions = {}): Promise<void> {
    return this.client.run(this.tasks.rm(path, options), options.signal);
  }

  /** Removes an empty directory. */
  rmdir(path: string): Promise<void> {
    return this.client.run(this.tasks.rmdir(path));
  }

  /** Removes a file. */
  unlink(path: string): Promise<void> {
    return this.client.run(this.tasks.unlink(path));
  }

  /** Renames a file or a directory; what had the new name is replaced. */
  rename(path: string, newPath: string): Promise<void> {
    return this.client.run(this.tasks.rename(path, newPath));
  }

  /** Gives a file another name. */
  link(path: string, newPath: string): Promise<void> {
    return this.client.run(this.tasks.link(path, newPath));
  }

  /** Makes a symbolic link at `path`. */
  symlink(target: string, path: string): Promise<void> {
    return this.client.run(this.tasks.symlink(target, path));
  }

  /** Makes a device node, a FIFO or a socket: `mode` is a `FileType` and permissions. */
  mknod(path: string, mode: number, major = 0, minor = 0): Promise<void> {
    return this.client.run(this.tasks.mknod(path, mode, major, minor));
  }

  /** Reads where a symbolic link points. */
  readlink(path: string): Promise<string> {
    return this.client.run(this.tasks.readlink(path));
  }

  /** The path of a file from the root, with no link in it. */
  realpath(path: string): Promise<string> {
    return this.client.run(this.tasks.realpath(path));
  }

  /** Changes permissions. */
  chmod(path: string, mode: number): Promise<void> {
    return this.client.run(this.tasks.chmod(path, mode));
  }

  /** Changes owner and group. */
  chown(path: string, uid: number, gid: number): Promise<void> {
    return this.client.run(this.tasks.chown(path, uid, gid));
  }

  /** Changes owner and group; of the link itself if it is one. */
  lchown(path: string, uid: number, gid: number): Promise<void> {
    return this.client.run(this.tasks.lchown(path, uid, gid));
  }

  /** Changes the times of the last access and the last change: to the microsecond, or with `bigint`s to the nanosecond. */
  utimes(path: string, atime: Time, mtime: Time): Promise<void> {
    return this.client.run(this.tasks.utimes(path, atime, mtime));
  }

  /** As {@link P9FileSystem.utimes}; of the link itself if it is one. */
  lutimes(path: string, atime: Time, mtime: Time): Promise<void> {
    return this.client.run(this.tasks.lutimes(path, atime, mtime));
  }

  /** Cuts a file off, or extends it with zeros. */
  truncate(path: string, size = 0): Promise<void> {
    return this.client.run(this.tasks.truncate(path, size));
  }

  /** Asks about the file system that a file lies in. */
  statfs(path: string): Promise<StatFs> {
    return this.client.run(this.tasks.statfs(path));
  }

  /**
   * Reads an extended attribute.
   *
   * @throws {@link P9Error} `ENODATA` if there is none of that name, `E2BIG` above 65,536 bytes
   */
  getxattr(path: string, name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.client.run(this.tasks.getxattr(path, name));
  }

  /** The names of a file's extended attributes. */
  listxattr(path: string): Promise<string[]> {
    return this.client.run(this.tasks.listxattr(path));
  }

  /** Sets an extended attribute. An empty value removes it: the protocol has no other way to say that. */
  setxattr(path: string, name: string, value: Uint8Array, options: SetxattrOptions = {}): Promise<void> {
    return this.client.run(this.tasks.setxattr(path, name, value, options));
  }

  /** Removes an extended attribute. */
  removexattr(path: string, name: string): Promise<void> {
    return this.client.run(this.tasks.removexattr(path, name));
  }
}
