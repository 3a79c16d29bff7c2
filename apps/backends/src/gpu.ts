/** QEMU's vhost-user-gpu as a graphics card without 3D: it ends when its front end goes. */
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { Backend, type Folder } from './backend.ts';
import { UNPACKED } from './packages.ts';

/** A running vhost-user-gpu. */
export class GpuBackend implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  readonly #backend: Backend;

  private constructor(backend: Backend, socket: string) {
    this.#backend = backend;
    this.socket = socket;
  }

  /** Starts it. */
  static async start(folder: Folder): Promise<GpuBackend> {
    const [program = '', ...args] = await ensureUnpacked(UNPACKED.gpu, (line) => console.log(line));
    const socket = folder.file('gpu.sock');
    return new GpuBackend(await Backend.start(program, [...args, '--socket-path', socket], [socket]), socket);
  }

  /** Kills it. */
  async kill(): Promise<void> {
    await this.#backend.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
