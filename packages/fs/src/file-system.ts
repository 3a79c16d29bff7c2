/** The tree of files that a file system device shares. What it can do is in `@virtio/files`; here is how a session begins and ends. */
import type { WaitOptions } from '@virtio/core';
import { FileSystem, type FileSystemOptions, type SyncOptions, type Task } from '@virtio/files';
import { type ConnectOptions, FuseClient } from './client.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** Options of {@link FuseFileSystem.mount}. */
export interface MountOptions extends ConnectOptions, FileSystemOptions, WaitOptions {}

/**
 * A tree of files that the host shares over FUSE.
 *
 * What the server refuses is a {@link FileError} (`ENOENT`, `EACCES`, …), what goes wrong below it a `VirtioError`. Each method with
 * promises takes a `signal` that cancels it: the server is asked to end the request (`INTERRUPT`), and the promise rejects with `ABORTED`
 * when it has. Each method that spins takes `timeoutMs`: how long the server may take for an answer (default 60,000).
 *
 * @example
 * ```ts
 * import { FileError, FuseFileSystem, type VirtioFs } from '@virtio/fs';
 *
 * export async function countVisit(device: VirtioFs): Promise<number> {
 *   await using fs = await FuseFileSystem.mount(device);
 *   let visits = 0;
 *   try {
 *     visits = Number(await fs.readFile('/visits.txt', 'utf8'));
 *   } catch (error) {
 *     if (!FileError.is(error, 'ENOENT')) throw error;
 *   }
 *   await fs.writeFile('/visits.txt', String(visits + 1));
 *   return visits + 1;
 * }
 * ```
 */
export class FuseFileSystem extends FileSystem<FuseClient> {
  readonly #options: ConnectOptions;

  private constructor(device: VirtioFs, options: SyncOptions<MountOptions>) {
    super(new FuseClient(device), options);
    this.#options = options;
  }

  /**
   * Mounts what a device shares.
   *
   * @param device the device, which no one else may use until the file system is unmounted; it is not disposed then
   * @throws {@link VirtioError} `ALREADY_USED` if the device has a file system that is not unmounted, `DEVICE_BUSY` if it has
   * requests of someone else in flight, `UNSUPPORTED` if the server speaks another FUSE, `INVALID_PARAM`, `DMA_ERROR`
   */
  static async mount(device: VirtioFs, options: MountOptions = {}): Promise<FuseFileSystem> {
    const fs = new FuseFileSystem(device, options);
    await fs.client.run(fs.enter(), options);
    return fs;
  }

  /** As {@link FuseFileSystem.mount}, but spins. */
  static mountSync(device: VirtioFs, options: SyncOptions<MountOptions> = {}): FuseFileSystem {
    const fs = new FuseFileSystem(device, options);
    fs.client.runSync(fs.enter(), options);
    return fs;
  }

  protected connect(): Task<unknown> {
    return this.client.connect(this.#options);
  }

  protected disconnect(): Task<void> {
    return this.client.disconnect();
  }
}
