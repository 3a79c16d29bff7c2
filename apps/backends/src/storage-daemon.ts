/** qemu-storage-daemon, which serves disks. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { QmpClient } from '@virtio/qemu-harness/qmp';
import { Backend, type Folder } from './backend.ts';

/** What it serves. */
export interface DiskOptions {
  /** `--blockdev` options in order; the last one is exported. */
  readonly blockdevs: readonly string[];
  /** Further arguments before them, e.g. `--object`. */
  readonly objects?: readonly string[];
  readonly writable?: boolean;
  readonly queues?: number;
}

/** A raw image as `--blockdev`. */
export function rawFile(path: string): string[] {
  return [`driver=file,node-name=file,filename=${path}`, 'driver=raw,node-name=disk,file=file'];
}

/** A running qemu-storage-daemon with one export. */
export class StorageDaemon implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  readonly #backend: Backend;
  readonly #monitor: string;

  private constructor(backend: Backend, socket: string, monitor: string) {
    this.#backend = backend;
    this.socket = socket;
    this.#monitor = monitor;
  }

  /** Starts it; the node that is exported must be named `disk`. */
  static async start(
    folder: Folder,
    { blockdevs, objects = [], writable = true, queues = 1 }: DiskOptions,
  ): Promise<StorageDaemon> {
    const socket = folder.file('disk.sock');
    const monitor = folder.file('monitor.sock');
    const args = [
      ...objects,
      ...blockdevs.flatMap((option) => ['--blockdev', option]),
      '--chardev',
      `socket,id=monitor,path=${monitor},server=on,wait=off`,
      '--monitor',
      'chardev=monitor',
      '--export',
      `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socket},` +
        `writable=${writable ? 'on' : 'off'},num-queues=${queues}`,
    ];
    return new StorageDaemon(
      await Backend.start('qemu-storage-daemon', args, [socket, monitor]),
      socket,
      monitor,
    );
  }

  /** Runs a command of its monitor. */
  async execute(command: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
    const socket = connect(this.#monitor);
    await once(socket, 'connect');
    try {
      const client = await QmpClient.connect(socket);
      return await client.execute(command, args);
    } finally {
      socket.destroy();
    }
  }

  /** Stops it (SIGSTOP), as a back end that hangs, and waits until it has stopped. */
  async freeze(): Promise<void> {
    await this.#backend.freeze();
  }

  /** Kills it. */
  async kill(): Promise<void> {
    await this.#backend.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
