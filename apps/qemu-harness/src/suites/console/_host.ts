/**
 * The host's half of the console tests: the far end of a port's chardev, which is a unix socket. QEMU listens, so that a test can
 * come and go as a program on the host does; and reads only when it is told to, so that the guest can be made to wait.
 */
import { createHash } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { pattern, type DeviceSpec, type HostEnv, type Properties } from '../../framework/define.ts';

const TIMEOUT_MS = 40_000;

/** The bytes that the side `seed` sends, from a position on. */
export function bytesOf(seed: number, position: number, length: number): Uint8Array {
  return pattern(new Uint8Array(length), seed, position);
}

/** The SHA-256 of what the side `seed` sends in all. */
export function hashOf(seed: number, length: number): string {
  return createHash('sha256')
    .update(bytesOf(seed, 0, length))
    .digest('hex');
}

/** A port of {@link consoleDevice}. */
export interface PortSpec {
  /** Its name for the test, and that of its socket. */
  readonly key: string;
  readonly number: number;
  readonly console?: boolean;
  /** The name that the guest sees. */
  readonly name?: string;
}

/** QEMU's arguments for a port and its socket. */
function portArguments({ key, number, console = false, name }: PortSpec): string[] {
  const model = console ? 'virtconsole' : 'virtserialport';
  const label = name === undefined ? '' : `,name=${name}`;
  return [
    '-chardev',
    `socket,id={id}-${key},path={dir}/${key},server=on,wait=off`,
    '-device',
    `${model},id={id}-port-${key},bus={id}.0,nr=${number},chardev={id}-${key}${label}`,
  ];
}

/** A console device with these ports. */
export function consoleDevice(ports: readonly PortSpec[], properties: Properties = {}): DeviceSpec {
  const onceAMachine = ports.some(({ name }) => name !== undefined);
  return { model: 'virtio-serial', properties, onceAMachine, after: ports.flatMap(portArguments) };
}

/** A program on the host that has a port open. */
class Peer {
  readonly #socket: Socket;
  /** Bytes that were taken from the socket. */
  received = 0;
  readonly #hash = createHash('sha256');
  #text = '';

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.pause().on('error', () => undefined);
  }

  /** Takes bytes until there were `total` in all. */
  async takeUntil(total: number): Promise<void> {
    const deadline = Date.now() + TIMEOUT_MS;
    while (this.received < total) {
      const bytes = this.#socket.read(
        Math.min(total - this.received, Math.max(1, this.#socket.readableLength)),
      ) as Buffer | null;
      if (bytes !== null) {
        this.received += bytes.length;
        this.#hash.update(bytes);
        if (this.#text.length < 4096) this.#text += bytes.toString('latin1');
        continue;
      }
      if (Date.now() > deadline || this.#socket.closed) {
        throw new Error(`${this.received} of ${total} bytes came through the socket`);
      }
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const timer = setTimeout(() => resolve(undefined), 200);
      this.#socket.once('readable', () => resolve(undefined));
      await promise;
      clearTimeout(timer);
      this.#socket.removeAllListeners('readable');
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.#socket.write(bytes, (error) => (error ? reject(error) : resolve(undefined)));
    await promise;
  }

  hash(): string {
    return this.#hash.copy().digest('hex');
  }

  text(): string {
    return this.#text;
  }

  async close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#socket.once('close', () => resolve(undefined)).destroy();
    await promise;
  }
}

const peers = new Map<string, Peer>();

function peer(env: HostEnv, key: string): Peer {
  const found = peers.get(`${env.directory}/${key}`);
  if (found === undefined) throw new Error(`nobody has ${key} open`);
  return found;
}

async function open(path: string): Promise<Socket> {
  const socket = connect(path);
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  socket.once('connect', () => resolve(undefined)).once('error', reject);
  await promise;
  return socket;
}

interface Key {
  readonly key: string;
}

/** What tests ask of the host. */
export const host = {
  /** A program opens the port. */
  open: async ({ key }: Key, env: HostEnv): Promise<void> => {
    const path = `${env.directory}/${key}`;
    peers.set(path, new Peer(await open(path)));
  },
  /** It closes the port, or ends. */
  close: async ({ key }: Key, env: HostEnv): Promise<void> => {
    const path = `${env.directory}/${key}`;
    await peers.get(path)?.close();
    peers.delete(path);
  },
  /** It writes its pattern; done when the operating system has all of it. */
  send: ({ key, seed, length }: Key & { seed: number; length: number }, env: HostEnv): Promise<void> =>
    peer(env, key).write(bytesOf(seed, 0, length)),
  sendText: ({ key, text }: Key & { text: string }, env: HostEnv): Promise<void> =>
    peer(env, key).write(Buffer.from(text)),
  /** It reads until it has had so many bytes in all, and returns the hash of them. */
  take: async ({ key, total }: Key & { total: number }, env: HostEnv): Promise<string> => {
    await peer(env, key).takeUntil(total);
    return peer(env, key).hash();
  },
  /** The same for a short text. */
  takeText: async ({ key, length }: Key & { length: number }, env: HostEnv): Promise<string> => {
    await peer(env, key).takeUntil(length);
    return peer(env, key).text();
  },
  /** A port is plugged in while the guest runs. */
  plug: async (
    { key, number, name }: Key & { number: number; name: string },
    env: HostEnv,
  ): Promise<void> => {
    const id = env.deviceId('serial');
    await env.qmp('chardev-add', {
      id: `${id}-${key}`,
      backend: {
        type: 'socket',
        data: {
          addr: { type: 'unix', data: { path: `${env.directory}/${key}` } },
          server: true,
          wait: false,
        },
      },
    });
    await env.qmp('device_add', {
      driver: 'virtserialport',
      id: `${id}-port-${key}`,
      bus: `${id}.0`,
      nr: number,
      chardev: `${id}-${key}`,
      name,
    });
  },
  /** A port is unplugged. */
  unplug: async ({ key }: Key, env: HostEnv): Promise<void> => {
    await env.qmp('device_del', { id: `${env.deviceId('serial')}-port-${key}` });
    await delay(0);
  },
};
