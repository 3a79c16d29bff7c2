/** The tree of files that a file system device shares. `@virtio/files` has its methods; this begins and ends sessions. */
import type { WaitOptions } from '@virtio/core';
import { FileSystem, type FileSystemOptions, type SyncOptions, type Task } from '@virtio/files';
import { FuseClient } from './client.ts';
import type { ConnectOptions } from './session.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** Options of {@link FuseFileSystem.mount}. */
export interface MountOptions extends ConnectOptions, FileSystemOptions, WaitOptions {}

/**
 * A tree of files that the host shares over FUSE.
 *
 * An operation that the server refuses ends with a {@link FileError} (`ENOENT`, `EACCES`, …); all other failures are `VirtioError`s. Each
 * method with promises takes a `signal` that cancels it: the server is asked to end the request (`INTERRUPT`), and the promise rejects with
 * `ABORTED` when the server has answered it. Each synchronous method takes `timeoutMs`: how long the server may take for an answer
 * (default 60,000).
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
   * Mounts the tree that a device shares.
   *
   * @param device the device, which nothing else may use until the file system is unmounted; that does not dispose it
   * @throws {@link VirtioError} `ALREADY_USED` if the device has a file system that is not unmounted, `DEVICE_BUSY` if it has requests
   * of another user in flight, `UNSUPPORTED` if the server's version of FUSE is not supported, `INVALID_PARAM`, `DMA_ERROR`
   */
  static async mount(device: VirtioFs, options: MountOptions = {}): Promise<FuseFileSystem> {
    const fs = new FuseFileSystem(device, options);
    await fs.client.run(fs.enter(), options);
    return fs;
  }

  /** The synchronous form of {@link FuseFileSystem.mount}. */
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
