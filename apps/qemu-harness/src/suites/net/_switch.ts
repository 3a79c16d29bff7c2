/**
 * The host's half of the network tests: the other end of QEMU's `stream` back end, where the host is the switch and each frame has its
 * length ahead of it. What the host does not read stays in the socket, so that the guest can be made to wait. QEMU is the one that
 * connects: on a socket that it has accepted it would wait for the host with the whole machine (10.0).
 */
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { DeviceSpec, HostEnv, Properties } from '../../framework/define.ts';
import { formatMac } from '@virtio/net';
import { fillFrame, GUEST_MAC, HOST_MAC, makeFrame, numberOf, Sequence, sizeOf } from './_frames.ts';

const TIMEOUT_MS = 90_000;
const LENGTH = 4;
/** The type of the frames that QEMU itself announces devices with. */
const RARP = 0x8035;
/** Bytes that are written at once. */
const CHUNK = 1 << 18;

/** A network device with the host as its switch. */
export function switched(properties: Properties = {}, more: Partial<DeviceSpec> = {}): DeviceSpec {
  return {
    model: 'virtio-net',
    properties: { mac: formatMac(GUEST_MAC), ...properties },
    before: ['-netdev', 'stream,id={id}-net,server=off,addr.type=unix,addr.path={dir}/switch'],
    after: ['-set', 'device.{id}.netdev={id}-net'],
    ...more,
  };
}

/** The switch, with the cable of one guest. */
class Switch {
  readonly #socket: Socket;
  #rest: Buffer = Buffer.alloc(0);
  /** Frames that came from the guest. */
  sequence = new Sequence();
  frames = 0;
  bytes = 0;
  /** The last of them. */
  readonly last: Buffer[] = [];
  #waiting: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    // It was paused so that nothing is lost before somebody listens.
    socket.on('data', (data) => this.#take(data)).resume();
  }

  pause(paused: boolean): void {
    if (paused) this.#socket.pause();
    else this.#socket.resume();
  }

  /** Sends frames, as fast as the guest takes them. */
  async send(frames: Iterable<Uint8Array>): Promise<void> {
    let chunk = Buffer.alloc(CHUNK);
    let used = 0;
    const flush = async (): Promise<void> => {
      if (used === 0) return;
      const { promise, resolve, reject } = Promise.withResolvers<undefined>();
      this.#socket.write(chunk.subarray(0, used), (error) => (error ? reject(error) : resolve(undefined)));
      await promise;
      chunk = Buffer.alloc(CHUNK);
      used = 0;
    };
    for (const frame of frames) {
      if (used + LENGTH + frame.length > CHUNK) await flush();
      chunk.writeUInt32BE(frame.length, used);
      chunk.set(frame, used + LENGTH);
      used += LENGTH + frame.length;
    }
    await flush();
  }

  /** Waits until so many frames have come in all. */
  async until(frames: number): Promise<void> {
    const deadline = performance.now() + TIMEOUT_MS;
    while (this.frames < frames) {
      if (performance.now() > deadline || this.#socket.closed) {
        throw new Error(`${this.frames} of ${frames} frames came through the switch`);
      }
      const { promise, resolve } = Promise.withResolvers<undefined>();
      this.#waiting = () => resolve(undefined);
      await Promise.race([promise, delay(200)]);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #count(frame: Buffer): void {
    // When one guest is asked to announce itself, QEMU itself announces the devices of all tests.
    if (frame.length >= 14 && frame.readUInt16BE(12) === RARP) return;
    this.frames += 1;
    this.bytes += frame.length;
    this.sequence.take(frame);
    if (this.last.push(Buffer.from(frame)) > 8) this.last.shift();
  }

  #take(data: Buffer): void {
    let bytes = this.#rest.length === 0 ? data : Buffer.concat([this.#rest, data]);
    while (bytes.length >= LENGTH) {
      const end = LENGTH + bytes.readUInt32BE(0);
      if (bytes.length < end) break;
      this.#count(bytes.subarray(LENGTH, end));
      bytes = bytes.subarray(end);
    }
    this.#rest = Buffer.from(bytes);
    this.#waiting?.();
  }
}

const switches = new Map<string, Switch>();
const cables = new Map<string, Promise<Socket>>();

/** Listens for the guest's cable, before QEMU starts. */
export async function prepare(directory: string): Promise<void> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<Socket>();
  server.once('connection', (socket) => {
    server.close();
    resolve(socket.pause());
  });
  cables.set(directory, promise);
  const listening = Promise.withResolvers<undefined>();
  server
    .once('error', listening.reject)
    .listen(join(directory, 'switch'), () => listening.resolve(undefined));
  await listening.promise;
  server.unref();
}

function theSwitch({ directory }: HostEnv): Switch {
  const found = switches.get(directory);
  if (found === undefined) throw new Error('the cable is not plugged in');
  return found;
}

function* numbered(first: number, count: number): Generator<Uint8Array> {
  const buffer = new Uint8Array(2048);
  for (let number = first; number < first + count; number += 1) {
    yield buffer.subarray(0, fillFrame(buffer, number, HOST_MAC, GUEST_MAC, sizeOf(number)));
  }
}

/** What the switch has seen. */
export interface Seen {
  readonly frames: number;
  readonly bytes: number;
  /** Frames that came in order and as they were sent. */
  readonly good: number;
  readonly wrong: number;
  readonly firstWrong: string;
}

/** What tests ask of the host. */
export const host = {
  /** Puts the cable in. */
  plug: async (_args: null, env: HostEnv): Promise<void> => {
    const socket = await cables.get(env.directory);
    if (socket === undefined) throw new Error('there is no cable');
    switches.set(env.directory, new Switch(socket));
  },
  /** Pulls it out. */
  unplug: (_args: null, env: HostEnv): void => {
    theSwitch(env).close();
    switches.delete(env.directory);
  },
  /** Stops reading what the guest sends, or goes on. */
  pause: ({ paused }: { paused: boolean }, env: HostEnv): void => {
    theSwitch(env).pause(paused);
  },
  /** Sends numbered frames; done when the operating system has all of them. */
  send: async ({ first = 0, count }: { first?: number; count: number }, env: HostEnv): Promise<void> => {
    await theSwitch(env).send(numbered(first, count));
  },
  /** Sends one frame of a size, to an address, perhaps tagged. */
  sendOne: async (
    { number, size, to, vlan }: { number: number; size?: number; to?: readonly number[]; vlan?: number },
    env: HostEnv,
  ): Promise<void> => {
    let frame: Uint8Array = makeFrame(number, HOST_MAC, to ?? GUEST_MAC, size);
    if (vlan !== undefined) frame = tag(frame, vlan);
    await theSwitch(env).send([frame]);
  },
  /** Waits until so many frames have come from the guest in all, and tells of them. */
  seen: async ({ frames }: { frames: number }, env: HostEnv): Promise<Seen> => {
    const there = theSwitch(env);
    await there.until(frames);
    const { count, wrong, firstWrong } = there.sequence;
    return { frames: there.frames, bytes: there.bytes, good: count, wrong, firstWrong };
  },
  /** The last frame that came from the guest, in hexadecimal digits. */
  lastFrame: (_args: null, env: HostEnv): string => theSwitch(env).last.at(-1)?.toString('hex') ?? '',
  /** Begins to count anew. */
  restart: (_args: null, env: HostEnv): void => {
    const there = theSwitch(env);
    there.sequence = new Sequence();
    there.frames = 0;
    there.bytes = 0;
  },
  /** Switches the link. */
  setLink: async ({ up }: { up: boolean }, env: HostEnv): Promise<void> => {
    await env.qmp('set_link', { name: env.deviceId('net'), up });
  },
  /** Asks the guest to announce itself, as after a migration. */
  announce: async (_args: null, env: HostEnv): Promise<void> => {
    await env.qmp('announce-self', { initial: 50, max: 50, rounds: 1, step: 50 });
  },
  /** What QEMU knows of the filters that the guest has set. */
  filters: async (_args: null, env: HostEnv): Promise<unknown> =>
    env.qmp('query-rx-filter', { name: env.deviceId('net') }),
  /** Unplugs the device. */
  removeDevice: async (_args: null, env: HostEnv): Promise<void> => {
    await env.qmp('device_del', { id: env.deviceId('net') });
    await delay(0);
  },
};

/** Puts a VLAN tag into a frame. */
export function tag(frame: Uint8Array, vlan: number): Uint8Array<ArrayBuffer> {
  const tagged = new Uint8Array(frame.length + 4);
  tagged.set(frame.subarray(0, 12));
  tagged.set([0x81, 0x00, vlan >> 8, vlan & 0xff], 12);
  tagged.set(frame.subarray(12), 16);
  return tagged;
}

/** Takes the VLAN tag from a frame: its number, and the frame as {@link numberOf} knows it. */
export function untag(frame: Uint8Array): { readonly vlan: number; readonly number: number } {
  const plain = new Uint8Array(frame.length - 4);
  plain.set(frame.subarray(0, 12));
  plain.set(frame.subarray(16), 12);
  return { vlan: (((frame[14] ?? 0) << 8) | (frame[15] ?? 0)) & 0xfff, number: numberOf(plain) };
}
