/** virtiofsd, which shares a folder. It ends when its client leaves. */
import { mkdirSync } from 'node:fs';
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { Backend, type Folder } from './backend.ts';
import { UNPACKED } from './packages.ts';

/** A running virtiofsd. */
export class FileServer implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  /** The folder that it shares. */
  readonly share: string;
  readonly #backend: Backend;

  private constructor(backend: Backend, socket: string, share: string) {
    this.#backend = backend;
    this.socket = socket;
    this.share = share;
  }

  /** Starts it on an empty folder, or on the one that an earlier one of the same `folder` shared. */
  static async start(folder: Folder, options: readonly string[] = []): Promise<FileServer> {
    const socket = folder.file('fs.sock');
    const share = folder.file('share');
    mkdirSync(share, { recursive: true });
    const [program = '', ...before] = await ensureUnpacked(UNPACKED.virtiofsd, (line) => console.log(line));
    const args = ['--shared-dir', share, '--socket-path', socket, '--tag', 'share', '--log-level', 'off'];
    // A sandbox needs namespaces, which containers often do not allow.
    const unconfined = ['--sandbox', 'none', '--seccomp', 'none'];
    const backend = await Backend.start(program, [...before, ...args, ...unconfined, ...options], [socket]);
    return new FileServer(backend, socket, share);
  }

  /** Kills it. */
  async kill(): Promise<void> {
    await this.#backend.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
