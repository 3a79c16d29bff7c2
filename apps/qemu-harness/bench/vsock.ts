/**
 * The guest's half of `vsock.bench.ts`. Ours by promises and spinning; Linux' own by calls that block, which is the fastest that Node.js
 * has for a socket that it does not know.
 */
import { closeSync } from 'node:fs';
import { openDriver } from '@virtio/linux';
import { VirtioSocket, VsockConnectionManager, type VsockConnection } from '@virtio/socket';
import { bindKernel, C, finish, loadModules, median, must } from './_linux.ts';

const DEVICE = '0000:00:01.0';
const HOST = 2;
const PORT = { takes: 1, sends: 2, echoes: 3 } as const;
const ROUNDS = 3;
const SECONDS = 1;
const PIECE = 65_536;
const MIB = 1 << 20;

/** One way to use a socket. */
interface Way extends Disposable {
  connect(port: number): Promise<{
    send(bytes: Uint8Array): Promise<void> | void;
    receive(into: Uint8Array): Promise<number> | number;
    close(): void;
  }>;
}

function ours(spins: boolean): Way {
  const device = openDriver(VirtioSocket, DEVICE, { unsafePhysicalMemory: true, bufferSize: 65_580 });
  const sockets = new VsockConnectionManager(device, { timers: globalThis });
  return {
    async connect(port) {
      const connection: VsockConnection = await sockets.connect({ cid: HOST, port });
      return {
        send: (bytes) => (spins ? connection.writeSync(bytes) : connection.write(bytes)),
        receive: (into) => (spins ? connection.readSync(into) : connection.read(into)),
        close: () => connection.abort(),
      };
    },
    [Symbol.dispose]: () => {
      sockets[Symbol.dispose]();
      device[Symbol.dispose]();
    },
  };
}

const [AF_VSOCK, SOCK_STREAM] = [40, 1];
const [SOL_SOCKET, SO_RCVTIMEO, SO_SNDTIMEO] = [1, 20, 21];
/** After how many seconds a call that blocks has failed. */
const PATIENCE_S = 3n;

function linux(): Way {
  bindKernel(DEVICE, true);
  return {
    connect(port) {
      const fd = must(C.socket(AF_VSOCK, SOCK_STREAM, 0), 'socket');
      const address = new Uint8Array(16);
      const view = new DataView(address.buffer);
      view.setUint16(0, AF_VSOCK, true);
      view.setUint32(4, port, true);
      view.setUint32(8, HOST, true);
      const limit = new Uint8Array(BigInt64Array.of(PATIENCE_S, 0n).buffer);
      for (const option of [SO_RCVTIMEO, SO_SNDTIMEO]) {
        must(C.setsockopt(fd, SOL_SOCKET, option, limit, limit.length), 'setsockopt');
      }
      must(C.connect(fd, address, address.length), 'connect');
      return Promise.resolve({
        send: (bytes) => {
          for (let at = 0; at < bytes.length;) {
            at += must(C.send(fd, at === 0 ? bytes : bytes.subarray(at), bytes.length - at, 0), 'send');
          }
        },
        receive: (into) => must(C.recv(fd, into, into.length, 0), 'recv'),
        close: () => closeSync(fd),
      });
    },
    [Symbol.dispose]: () => bindKernel(DEVICE, false),
  };
}

const ways = {
  'ours, promises': () => ours(false),
  'ours, spinning': () => ours(true),
  'Linux, blocking': linux,
} as const;
const found = new Map<string, number[]>();
const note = (key: string, rate: number): void => void found.set(key, [...(found.get(key) ?? []), rate]);

/** Units a second. */
async function rateOf(step: () => Promise<number> | number): Promise<number> {
  for (const warm = performance.now() + 200; performance.now() < warm;) await step();
  const began = performance.now();
  let count = 0;
  while (performance.now() < began + 1000 * SECONDS) {
    const more = step();
    count += typeof more === 'number' ? more : await more;
  }
  return (count * 1000) / (performance.now() - began);
}

/** Measures one thing on a connection of its own. What fails is said, and has no rate. */
async function attempt(
  way: Way,
  what: string,
  port: number,
  step: (connection: Awaited<ReturnType<Way['connect']>>) => Promise<number> | number,
): Promise<void> {
  try {
    const connection = await way.connect(port);
    try {
      note(what, await rateOf(() => step(connection)));
    } finally {
      connection.close();
    }
  } catch (error) {
    console.log(`    ${what}: ${String(error)}`);
  }
}

async function measure(name: keyof typeof ways): Promise<void> {
  console.log(`  ${name} …`);
  using way = ways[name]();
  const piece = new Uint8Array(PIECE).fill(3);
  const into = new Uint8Array(PIECE);
  const one = Uint8Array.of(1);
  await attempt(way, `${name} · MiB/s to the host`, PORT.takes, async (out) => {
    await out.send(piece);
    return piece.length / MIB;
  });
  await attempt(way, `${name} · MiB/s from the host`, PORT.sends, async (back) => {
    return (await back.receive(into)) / MIB;
  });
  await attempt(way, `${name} · round trips a second`, PORT.echoes, async (echo) => {
    await echo.send(one);
    return echo.receive(one);
  });
}

loadModules();
bindKernel(DEVICE, false);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const name of Object.keys(ways) as (keyof typeof ways)[]) await measure(name);
}
for (const what of ['MiB/s to the host', 'MiB/s from the host', 'round trips a second']) {
  const base = median(found.get(`Linux, blocking · ${what}`) ?? []);
  const cells = Object.keys(ways).map((name) => {
    const rate = median(found.get(`${name} · ${what}`) ?? []);
    if (Number.isNaN(rate)) return `${name} –`;
    const ratio = Number.isNaN(base) ? '' : ` (${(rate / base).toFixed(2)})`;
    return `${name} ${rate.toFixed(rate < 100 ? 1 : 0)}${ratio}`;
  });
  console.log(`${what.padEnd(24)} ${cells.join('   ')}`);
}
finish();
