/** The tree of files that a 9P device shares. Its operations are in `@virtio/files`; the start and end of a session are here. */
import type { WaitOptions } from '@virtio/core';
import { FileSystem, type FileSystemOptions, type SyncOptions, type Task } from '@virtio/files';
import { P9Client } from './client.ts';
import type { ConnectOptions } from './client-types.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** Options of {@link P9FileSystem.mount}. */
export interface MountOptions extends ConnectOptions, FileSystemOptions, WaitOptions {}

/**
 * A tree of files that the host shares over 9P.
 *
 * If the server refuses a request, a {@link P9Error} is thrown (`ENOENT`, `EACCES`, …); for other failures, a `VirtioError`. Each method
 * with promises takes a `signal` that cancels it: the promise rejects with `ABORTED` when the server has finished with the request. Each
 * method that spins takes `timeoutMs`: how long the server may take for an answer (default 60,000).
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
export class P9FileSystem extends FileSystem<P9Client> {
  readonly #options: ConnectOptions;

  private constructor(device: Virtio9p, options: SyncOptions<MountOptions>) {
    super(new P9Client(device), options);
    this.#options = options;
  }

  /**
   * Mounts the file system that a device shares.
   *
   * @param device the device, which nothing else may use until the file system is unmounted; it is not disposed then
   * @throws {@link VirtioError} `ALREADY_USED` if the device has a file system that is not unmounted, `DEVICE_BUSY` if it has
   * requests of another user in flight, `UNSUPPORTED` if the server does not speak 9P2000.L, `INVALID_PARAM`, `DMA_ERROR`
   * @throws {@link P9Error} if the server does not let the user in
   */
  static async mount(device: Virtio9p, options: MountOptions = {}): Promise<P9FileSystem> {
    const fs = new P9FileSystem(device, options);
    await fs.client.run(fs.enter(), options);
    return fs;
  }

  /** As {@link P9FileSystem.mount}, but spins. */
  static mountSync(device: Virtio9p, options: SyncOptions<MountOptions> = {}): P9FileSystem {
    const fs = new P9FileSystem(device, options);
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
