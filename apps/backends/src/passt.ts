/** passt, which connects a network device to the sockets of the host. It ends when its client leaves. */
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { Backend, type Folder } from './backend.ts';
import { UNPACKED } from './packages.ts';

/** A running passt. */
export class Passt implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  /** The address of the driver's station. */
  readonly address = '192.0.2.7';
  /** The address at which the driver's station reaches the host's loopback. */
  readonly gateway = '192.0.2.1';
  readonly #backend: Backend;

  private constructor(backend: Backend, socket: string) {
    this.#backend = backend;
    this.socket = socket;
  }

  /** Starts it; datagrams to a port of the host's loopback go to the same port of the driver's station. */
  static async start(folder: Folder, port: number): Promise<Passt> {
    const socket = folder.file('net.sock');
    const [program = '', ...before] = await ensureUnpacked(UNPACKED.passt, (line) => console.log(line));
    const args = ['--foreground', '--vhost-user', '--socket', socket, '--ipv4-only', '--quiet'];
    // As nobody it could not reach the folder.
    if (process.getuid?.() === 0) args.push('--runas', '0:0');
    const net = ['--address', '192.0.2.7', '--netmask', '24', '--gateway', '192.0.2.1'];
    const ports = [
      '--map-host-loopback',
      '192.0.2.1',
      '--tcp-ports',
      'none',
      '--udp-ports',
      `127.0.0.1/${port}`,
    ];
    const backend = await Backend.start(program, [...before, ...args, ...net, ...ports], [socket]);
    return new Passt(backend, socket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend.kill();
  }
}
