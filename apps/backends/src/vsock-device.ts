/** vhost-device-vsock: a socket device whose host side is a Unix socket. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { Backend, type Folder } from './backend.ts';
import { UNPACKED } from './packages.ts';

/** A running vhost-device-vsock. */
export class VsockDevice implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  /** Where the host's programs are: this, and this with `_` and a port behind. */
  readonly host: string;
  readonly #backend: Backend;

  private constructor(backend: Backend, socket: string, host: string) {
    this.#backend = backend;
    this.socket = socket;
    this.host = host;
  }

  static async start(folder: Folder, cid: number): Promise<VsockDevice> {
    const socket = folder.file('vsock.sock');
    const host = folder.file('host');
    const [program = ''] = await ensureUnpacked(UNPACKED.vsock, (line) => console.log(line));
    const vm = `guest-cid=${cid},socket=${socket},uds-path=${host}`;
    return new VsockDevice(await Backend.start(program, ['--vm', vm], [socket]), socket, host);
  }

  /** Connects to a port of the driver's side. */
  async connect(port: number): Promise<Socket> {
    const socket = connect(this.host);
    await once(socket, 'connect');
    socket.write(`CONNECT ${port}\n`);
    // `OK` and a port come alone: what follows in one piece would be lost.
    await once(socket, 'data');
    return socket;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend.kill();
  }
}
