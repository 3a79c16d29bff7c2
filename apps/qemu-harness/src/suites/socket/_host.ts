/** The host's half of the socket tests: programs at the far ends, which are unix sockets. They read only when they are told to. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { nodeHttp } from '../_http.ts';
import { connect, createServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { pattern, type HostEnv } from '../../framework/define.ts';

const TIMEOUT_MS = 60_000;
const PIECE = 1 << 18;

/** The bytes that the side `seed` sends, from a position on. */
export function bytesOf(seed: number, position: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  pattern(bytes, seed, position);
  return bytes;
}

/** The SHA-256 of what the side `seed` sends in all. */
export function hashOf(seed: number, length: number): string {
  const hash = createHash('sha256');
  for (let at = 0; at < length; at += PIECE) hash.update(bytesOf(seed, at, Math.min(PIECE, length - at)));
  return hash.digest('hex');
}

/** A connection of a program on the host. */
class Peer {
  readonly socket: Socket;
  received = 0;
  ended = false;
  closed = false;
  readonly #hash = createHash('sha256');
  #text = '';

  constructor(socket: Socket) {
    this.socket = socket;
    // What a test has left open must not keep the harness from its end.
    socket.unref();
    socket.pause();
    socket.on('error', () => undefined);
    socket.on('end', () => (this.ended = true));
    socket.on('close', () => (this.closed = true));
  }

  /** Reads until there were `total` bytes in all. */
  async takeUntil(total: number): Promise<void> {
    await this.#until(
      () => {
        while (this.received < total) {
          const wanted = Math.min(total - this.received, Math.max(1, this.socket.readableLength));
          const bytes = this.socket.read(wanted) as Buffer | null;
          if (bytes === null) break;
          this.received += bytes.length;
          this.#hash.update(bytes);
          if (this.#text.length < 4096) this.#text += bytes.toString('latin1');
        }
        return this.received >= total;
      },
      () => `${this.received} of ${total} bytes came`,
    );
  }

  /** Reads on until the far side has ended. */
  async takeAll(): Promise<void> {
    await this.#until(
      () => {
        for (
          let bytes = this.socket.read() as Buffer | null;
          bytes !== null;
          bytes = this.socket.read() as Buffer | null
        ) {
          this.received += bytes.length;
          this.#hash.update(bytes);
        }
        return this.ended || this.closed;
      },
      () => `the connection goes on after ${this.received} bytes`,
    );
  }

  async write(bytes: Uint8Array): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    this.socket.write(bytes, (error) => (error ? reject(error) : resolve(undefined)));
    await promise;
  }

  async send(seed: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += PIECE) {
      await this.write(bytesOf(seed, at, Math.min(PIECE, length - at)));
    }
  }

  hash(): string {
    return this.#hash.copy().digest('hex');
  }

  text(): string {
    return this.#text;
  }

  async #until(done: () => boolean, problem: () => string): Promise<void> {
    const deadline = Date.now() + TIMEOUT_MS;
    while (!done()) {
      if (Date.now() > deadline || this.socket.closed) throw new Error(problem());
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const go = (): void => resolve(undefined);
      const timer = setTimeout(go, 200);
      for (const event of ['readable', 'end', 'close']) this.socket.once(event, go);
      await promise;
      clearTimeout(timer);
      for (const event of ['readable', 'end', 'close']) this.socket.off(event, go);
    }
  }
}

/** What the programs of one test have open. */
interface State {
  readonly peers: Map<string, Peer>;
  /** Waits for connections of the guest, by key. */
  readonly arriving: Map<string, PromiseWithResolvers<Peer>>;
  readonly swarm: { done: number; bad: string[] };
}

const states = new Map<string, State>();

function stateOf({ directory }: HostEnv): State {
  const state: State = states.get(directory) ?? {
    peers: new Map(),
    arriving: new Map(),
    swarm: { done: 0, bad: [] },
  };
  states.set(directory, state);
  return state;
}

/** A connection by its name; waits for one that the guest makes: the guest learns of it before its program here does. */
async function peer(env: HostEnv, key: string): Promise<Peer> {
  const { arriving, peers } = stateOf(env);
  await arriving.get(key)?.promise;
  const found = peers.get(key);
  if (found === undefined) throw new Error(`no connection is named '${key}'`);
  return found;
}

async function serve(env: HostEnv, port: number, onConnection: (socket: Socket) => void): Promise<void> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, onConnection);
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject).listen(`${env.directory}/vsock_${port}`, () => resolve(undefined));
  await promise;
  server.unref();
}

/** Asks the device for a connection to a port of the guest; the line that it answers, `undefined` if it refuses. */
async function dial(
  env: HostEnv,
  port: number,
): Promise<{ readonly socket: Socket; readonly line: string } | undefined> {
  const socket = connect({ path: `${env.directory}/vsock`, allowHalfOpen: true });
  await once(socket, 'connect');
  socket.pause();
  socket.on('error', () => undefined);
  socket.write(`CONNECT ${port}\n`);
  let line = '';
  const deadline = Date.now() + TIMEOUT_MS;
  while (!line.endsWith('\n')) {
    const byte = socket.read(1) as Buffer | null;
    if (byte !== null) {
      line += byte.toString('latin1');
      continue;
    }
    if (socket.readableEnded || socket.closed || Date.now() > deadline) {
      socket.destroy();
      if (Date.now() > deadline) {
        throw new Error(`the device neither accepts nor refuses a connection to port ${port}`);
      }
      return undefined;
    }
    await Promise.race([once(socket, 'readable'), once(socket, 'end'), delay(100)]).catch(() => undefined);
  }
  return { socket, line: line.trim() };
}

/** Serves one connection of many: an id of four bytes, then both sides send their own bytes at once. */
async function serveOne(state: State, socket: Socket, length: number): Promise<void> {
  const one = new Peer(socket);
  await one.takeUntil(4);
  const id = Buffer.from(one.text(), 'latin1').readUInt32BE();
  const expected = createHash('sha256')
    .update(Buffer.from(one.text(), 'latin1'))
    .update(bytesOf(id, 0, length))
    .digest('hex');
  await Promise.all([one.takeUntil(4 + length), one.send(1000 + id, length)]);
  if (one.hash() !== expected) state.swarm.bad.push(`${id}: other bytes came`);
  state.swarm.done += 1;
  await one.takeAll();
  socket.end();
}

interface Key {
  readonly key: string;
}

/** What tests ask of the host. */
export const host = {
  /** A program listens on a port; the next connection to it is named by `key`. */
  listen: async ({ port, key }: Key & { port: number }, env: HostEnv): Promise<void> => {
    const state = stateOf(env);
    const arriving = Promise.withResolvers<Peer>();
    arriving.promise.catch(() => undefined);
    state.arriving.set(key, arriving);
    await serve(env, port, (socket) => {
      const made = new Peer(socket);
      state.peers.set(key, made);
      arriving.resolve(made);
    });
  },
  /** Waits for that connection. */
  arrived: async ({ key }: Key, env: HostEnv): Promise<void> => {
    await peer(env, key);
  },
  /** A program connects to a port of the guest; the line that the device answers, '' if it refuses. */
  dial: async ({ key, port }: Key & { port: number }, env: HostEnv): Promise<string> => {
    const dialled = await dial(env, port);
    if (dialled === undefined) return '';
    stateOf(env).peers.set(key, new Peer(dialled.socket));
    return dialled.line;
  },
  send: async ({ key, seed, length }: Key & { seed: number; length: number }, env: HostEnv): Promise<void> =>
    (await peer(env, key)).send(seed, length),
  sendText: async ({ key, text: sent }: Key & { text: string }, env: HostEnv): Promise<void> =>
    (await peer(env, key)).write(Buffer.from(sent)),
  /** It reads until it has had so many bytes in all; the hash of them. */
  take: async ({ key, total }: Key & { total: number }, env: HostEnv): Promise<string> => {
    const one = await peer(env, key);
    await one.takeUntil(total);
    return one.hash();
  },
  /** The same for a short text. */
  takeText: async ({ key, length }: Key & { length: number }, env: HostEnv): Promise<string> => {
    const one = await peer(env, key);
    await one.takeUntil(length);
    return one.text();
  },
  /** It reads to the end; how many bytes there were in all, and their hash. */
  takeAll: async ({ key }: Key, env: HostEnv): Promise<{ bytes: number; hash: string }> => {
    const one = await peer(env, key);
    await one.takeAll();
    return { bytes: one.received, hash: one.hash() };
  },
  /** It says that it will send no more. */
  end: async ({ key }: Key, env: HostEnv): Promise<void> => {
    (await peer(env, key)).socket.end();
    await delay(0);
  },
  /** It goes away. */
  destroy: async ({ key }: Key, env: HostEnv): Promise<void> => {
    const { socket } = await peer(env, key);
    const closed = once(socket, 'close');
    socket.destroy();
    await closed;
  },
  /** Whether the guest's side has ended, as the program sees it within a time. */
  sawEnd: async ({ key, ms }: Key & { ms: number }, env: HostEnv): Promise<boolean> => {
    const one = await peer(env, key);
    one.socket.resume();
    for (const deadline = Date.now() + ms; !one.ended && !one.closed && Date.now() < deadline;) {
      await delay(20);
    }
    return one.ended || one.closed;
  },
  /** A program serves many connections at once, each with bytes of its own both ways. */
  swarm: async ({ port, length }: { port: number; length: number }, env: HostEnv): Promise<void> => {
    const state = stateOf(env);
    await serve(env, port, (socket) => {
      serveOne(state, socket, length).catch((error: unknown) => state.swarm.bad.push(String(error)));
    });
  },
  swarmResult: async (
    { count }: { count: number },
    env: HostEnv,
  ): Promise<{ done: number; bad: readonly string[] }> => {
    const { swarm } = stateOf(env);
    const deadline = Date.now() + TIMEOUT_MS;
    while (swarm.done + swarm.bad.length < count && Date.now() < deadline) await delay(50);
    return swarm;
  },
  /** Programs connect to a port of the guest, all at once; how many were accepted. */
  dialMany: async (
    { port, count, length }: { port: number; count: number; length: number },
    env: HostEnv,
  ): Promise<number> => {
    const state = stateOf(env);
    const dialled = await Promise.all(Array.from({ length: count }, () => dial(env, port)));
    for (const one of dialled) {
      if (one === undefined) continue;
      serveOne(state, one.socket, length).catch((error: unknown) => state.swarm.bad.push(String(error)));
    }
    return dialled.filter((one) => one !== undefined).length;
  },
  /** Asks an HTTP server in the guest. */
  fetch: async (
    { port, path, body, times }: { port: number; path: string; body: string; times: number },
    env: HostEnv,
  ): Promise<readonly { status: number; body: string }[]> => {
    const answers: { status: number; body: string }[] = [];
    for (let n = 0; n < times; n += 1) {
      const dialled = await dial(env, port);
      if (dialled === undefined) throw new Error(`nobody listens on port ${port} of the guest`);
      const asked = nodeHttp().request({
        createConnection: () => dialled.socket,
        path: `${path}${n}`,
        method: 'POST',
        headers: { host: 'guest', connection: 'close' },
      });
      asked.end(body);
      const [response] = (await once(asked, 'response')) as [NodeJS.ReadableStream & { statusCode?: number }];
      answers.push({ status: response.statusCode ?? 0, body: await text(response) });
    }
    return answers;
  },
  /** The program that is the device dies. */
  killBackend: (_args: null, env: HostEnv): Promise<void> => env.killBackend('socket'),
  /** It is started again, and the device is plugged in anew. */
  replug: async (_args: null, env: HostEnv): Promise<void> => {
    const id = env.deviceId('socket');
    const gone = env.qmpEvent('DEVICE_DELETED');
    await env.qmp('device_del', { id });
    await gone;
    await env.qmp('chardev-remove', { id: `${id}-chardev` });
    await env.startBackend('socket');
    const data = { addr: { type: 'unix', data: { path: `${env.directory}/vhost` } }, server: false };
    await env.qmp('chardev-add', { id: `${id}-chardev`, backend: { type: 'socket', data } });
    await env.qmp('device_add', {
      ...{ driver: 'vhost-user-vsock-pci', id: `${id}-again`, bus: `${id}-port` },
      chardev: `${id}-chardev`,
    });
  },
  /** The device is unplugged. */
  unplug: async (_args: null, env: HostEnv): Promise<void> => {
    const gone = env.qmpEvent('DEVICE_DELETED');
    await env.qmp('device_del', { id: env.deviceId('socket') });
    await gone;
  },
};
