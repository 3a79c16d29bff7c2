/** What the host's half of a test can do, for one test in one guest. */
import { createServer, type Server, type Socket } from 'node:net';
import type { Guest } from '../boot/guest.ts';
import type { Cell, HostEnv, HostSocket } from './define.ts';
import type { Backends } from './backends.ts';
import { hashImage, mapImage, readImage, type PreparedDisk } from './disk-image.ts';
import type { PlannedBackend, PlannedDevice, PlannedTest } from './plan.ts';

const READ_TIMEOUT_MS = 30_000;

/** The sockets of all tests of a guest: they listen before QEMU starts. */
export class HostSockets {
  readonly #servers: Server[] = [];
  readonly #connections = new Map<string, Promise<HostSocket>>();

  /** Listens on the sockets of a test's devices. */
  async open({ devices }: PlannedTest): Promise<void> {
    for (const path of [...devices.values()].flatMap(({ sockets }) => [...sockets.values()])) {
      const server = createServer();
      const connection = Promise.withResolvers<HostSocket>();
      connection.promise.catch(() => undefined);
      server.once('connection', (socket) => connection.resolve(new BufferedSocket(socket)));
      const listening = Promise.withResolvers<undefined>();
      server.once('error', listening.reject).listen(path, () => listening.resolve(undefined));
      await listening.promise;
      this.#servers.push(server);
      this.#connections.set(path, connection.promise);
    }
  }

  /** The connection to a socket. */
  async get(path: string): Promise<HostSocket> {
    const connection = this.#connections.get(path);
    if (connection === undefined) throw new Error(`Nothing listens on ${path}.`);
    return connection;
  }

  /** Stops listening. */
  close(): void {
    for (const server of this.#servers) server.close();
  }
}

/** A socket that is read by asking for bytes. What nobody asked for stays in QEMU, so that the guest feels it. */
class BufferedSocket implements HostSocket {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.pause();
    socket.on('error', () => undefined);
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.#socket.write(bytes, (error) => (error ? reject(error) : resolve(undefined)));
    return promise;
  }

  async read(length: number, timeoutMs = READ_TIMEOUT_MS): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let missing = length;
    const deadline = performance.now() + timeoutMs;
    while (missing > 0) {
      const left = deadline - performance.now();
      const piece = left > 0 ? await this.#next(missing, left) : undefined;
      if (piece === undefined) {
        throw new Error(
          `The socket gave ${length - missing} of ${length} bytes within ${timeoutMs / 1000} s.`,
        );
      }
      pieces.push(piece);
      missing -= piece.length;
    }
    return Buffer.concat(pieces);
  }

  async readFor(milliseconds: number): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    const deadline = performance.now() + milliseconds;
    for (;;) {
      const left = deadline - performance.now();
      const piece = left > 0 ? await this.#next(1 << 20, left) : undefined;
      if (piece === undefined) return Buffer.concat(pieces);
      pieces.push(piece);
    }
  }

  async #next(most: number, milliseconds: number): Promise<Uint8Array | undefined> {
    const take = (): Uint8Array | undefined => {
      const size = Math.min(most, this.#socket.readableLength);
      return size === 0 ? undefined : ((this.#socket.read(size) as Uint8Array | null) ?? undefined);
    };
    this.#socket.read(0);
    const there = take();
    if (there !== undefined) return there;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const done = (): void => resolve(undefined);
    const timer = setTimeout(done, milliseconds);
    this.#socket.once('readable', done).once('end', done);
    await promise;
    clearTimeout(timer);
    this.#socket.off('readable', done).off('end', done);
    return take();
  }
}

/** The environment of a test's host functions. */
export function createHostEnv(
  guest: Guest,
  planned: PlannedTest,
  cell: Cell,
  sockets: HostSockets,
  backends: Backends,
): HostEnv {
  const device = (name: string): PlannedDevice => {
    const found = planned.devices.get(name);
    if (found === undefined) throw new Error(`'${planned.test.name}' has no device '${name}'.`);
    return found;
  };
  const disk = (name: string): PreparedDisk => {
    const found = device(name).disk;
    if (found === undefined) throw new Error(`The device '${name}' of '${planned.test.name}' is no disk.`);
    return found;
  };
  const backend = (name: string): PlannedBackend => {
    const found = device(name).backend;
    if (found === undefined) throw new Error(`No program is the device '${name}' of '${planned.test.name}'.`);
    return found;
  };
  return {
    cell,
    directory: planned.directory,
    qmp: async (command, args) => (await guest.qmp).execute(command, args),
    qmpEvent: async (name, timeoutMs) => (await (await guest.qmp).waitFor(name, undefined, timeoutMs)).data,
    deviceId: (name) => device(name).id,
    nodeName: (name) => disk(name).nodeName,
    imagePath: (name) => disk(name).path,
    readImage: async (name, offset, length) => readImage(disk(name), offset, length),
    hashImage: async (name, offset, length) => hashImage(disk(name), offset, length),
    mapImage: async (name) => mapImage(disk(name)),
    socket: async (name, socket) => {
      const path = device(name).sockets.get(socket);
      if (path === undefined) throw new Error(`The device '${name}' has no socket '${socket}'.`);
      return sockets.get(path);
    },
    killBackend: async (name) => backends.kill(backend(name)),
    startBackend: async (name) => backends.start(backend(name)),
  };
}
