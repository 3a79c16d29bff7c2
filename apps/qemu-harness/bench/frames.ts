/**
 * The guest's part of `frames.bench.ts`: rounds in turn, medians, and our results as a multiple of those of Linux's own driver.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { openDriver, Tap } from '@virtio/linux';
import { VirtioNet } from '@virtio/net';
import {
  addressOf,
  bindKernel,
  C,
  finish,
  host,
  interfaceOf,
  loadModules,
  median,
  must,
  wouldBlock,
} from './_linux.ts';

const [CABLE, USER] = ['0000:00:01.0', '0000:00:02.0'];
const SIZES = [64, 1500];
const BATCHES = [1, 32, 256];
const ROUNDS = 3;
const SECONDS = 0.6;
const ETHER_TYPE = 0x88b5;
const MIB = 1 << 20;
const AMOUNT = 16 * MIB;

/** One of the two ways to send and receive frames. */
interface Way extends Disposable {
  /** Sends up to so many frames at once; how many there was room for. */
  send(batch: number): number;
  /** Waits until all are sent. */
  settle(): void;
  /** Takes up to so many frames; how many there were. */
  receive(batch: number): number;
}

function frame(size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size).fill(1);
  bytes.set([2, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0xab, 0xcd, 1, ETHER_TYPE >> 8, ETHER_TYPE & 0xff]);
  return bytes;
}

function ours(size: number): Way {
  const net = openDriver(VirtioNet, CABLE);
  const sent = frame(size);
  const late = { kick: false };
  const take = (packet: { readonly length: number }): void => {
    if (packet.length !== size) throw new Error(`a frame of ${packet.length} bytes came`);
  };
  return {
    send(batch) {
      let count = 0;
      while (count < batch && net.trySend(sent, late)) count += 1;
      if (count > 0) net.kick();
      return count;
    },
    settle: () => net.flushSync(),
    receive(batch) {
      if (batch > 1) return net.poll(take);
      using packet = net.tryReceive();
      if (packet === undefined) return 0;
      take(packet);
      return 1;
    },
    [Symbol.dispose]: () => net[Symbol.dispose](),
  };
}

const [AF_PACKET, SOCK_RAW, SOL_SOCKET, SOL_PACKET] = [17, 3, 1, 263];
const [SO_SNDBUFFORCE, SO_RCVBUFFORCE, PACKET_QDISC_BYPASS] = [32, 33, 20];
const MSG_DONTWAIT = 0x40;
/** `struct mmsghdr`: a `msghdr` of 56 bytes and the length that came. */
const MMSGHDR = 64;

/** Arrays that the kernel is told of by their addresses only. */
const kept: Uint8Array[] = [];

/** Headers for `sendmmsg` and `recvmmsg`, one buffer each. */
function messages(count: number, size: number, distinct: boolean): Uint8Array {
  const data = new Uint8Array(distinct ? count * size : size);
  if (!distinct) data.set(frame(size));
  const vectors = new Uint8Array(16 * count);
  const headers = new Uint8Array(MMSGHDR * count);
  const [vectorView, headerView] = [new DataView(vectors.buffer), new DataView(headers.buffer)];
  const [dataAt, vectorsAt] = [addressOf(data), addressOf(vectors)];
  for (let n = 0; n < count; n += 1) {
    vectorView.setBigUint64(16 * n, dataAt + BigInt(distinct ? n * size : 0), true);
    vectorView.setBigUint64(16 * n + 8, BigInt(size), true);
    headerView.setBigUint64(MMSGHDR * n + 16, vectorsAt + BigInt(16 * n), true);
    headerView.setBigUint64(MMSGHDR * n + 24, 1n, true);
  }
  kept.push(data, vectors);
  return headers;
}

function linux(size: number): Way {
  bindKernel(CABLE, true);
  const name = interfaceOf(CABLE);
  writeFileSync(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, '1');
  execFileSync('ifconfig', [name, 'up']);
  const type = ((ETHER_TYPE & 0xff) << 8) | (ETHER_TYPE >> 8);
  const fd = must(C.socket(AF_PACKET, SOCK_RAW, type), 'socket');
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETHER_TYPE);
  view.setInt32(4, must(C.if_nametoindex(name), 'if_nametoindex'), true);
  must(C.bind(fd, address, address.length), 'bind');
  const set = (level: number, option: number, value: number): void => {
    must(C.setsockopt(fd, level, option, new Uint8Array(Int32Array.of(value).buffer), 4), 'setsockopt');
  };
  set(SOL_SOCKET, SO_SNDBUFFORCE, 8 * MIB);
  set(SOL_SOCKET, SO_RCVBUFFORCE, 32 * MIB);
  set(SOL_PACKET, PACKET_QDISC_BYPASS, 1);
  const sent = frame(size);
  const into = new Uint8Array(2048);
  const out = messages(256, size, false);
  const back = messages(256, 2048, true);
  const counted = (result: unknown, what: string): number => {
    const number = Number(result);
    if (number >= 0) return number;
    if (!wouldBlock()) must(-1, what);
    return 0;
  };
  return {
    send: (batch) =>
      batch === 1
        ? counted(C.send(fd, sent, size, MSG_DONTWAIT), 'send') > 0
          ? 1
          : 0
        : counted(C.sendmmsg(fd, out, batch, MSG_DONTWAIT), 'sendmmsg'),
    settle: () => undefined,
    receive: (batch) =>
      batch === 1
        ? counted(C.recv(fd, into, into.length, MSG_DONTWAIT), 'recv') > 0
          ? 1
          : 0
        : counted(C.recvmmsg(fd, back, batch, MSG_DONTWAIT, null), 'recvmmsg'),
    [Symbol.dispose]: () => {
      closeSync(fd);
      bindKernel(CABLE, false);
    },
  };
}

/** Frames a second. */
function rateOf(step: () => number, settle: () => void): number {
  const warm = performance.now() + 100;
  while (performance.now() < warm) step();
  const began = performance.now();
  const end = began + 1000 * SECONDS;
  let count = 0;
  while (performance.now() < end) {
    for (let n = 0; n < 16; n += 1) count += step();
  }
  settle();
  return (count * 1000) / (performance.now() - began);
}

/** Takes what is still on its way. */
async function drain(way: Way): Promise<void> {
  await host('stop');
  for (let quiet = 0; quiet < 5; quiet += 1) {
    while (way.receive(256) > 0) quiet = 0;
    await delay(20);
  }
}

const ways = { ours, linux };
const found = new Map<string, number[]>();

async function measure(who: keyof typeof ways, size: number): Promise<void> {
  console.log(`  ${who}, frames of ${size} bytes …`);
  using way = ways[who](size);
  const note = (what: string, rate: number): void => {
    const key = `${who} ${what}`;
    found.set(key, [...(found.get(key) ?? []), rate]);
  };
  for (const batch of BATCHES) {
    note(
      `sent ${size} ${batch}`,
      rateOf(
        () => way.send(batch),
        () => way.settle(),
      ),
    );
  }
  await host('flood', { size });
  await delay(50);
  for (const batch of BATCHES) {
    note(
      `received ${size} ${batch}`,
      rateOf(
        () => way.receive(batch),
        () => undefined,
      ),
    );
  }
  await drain(way);
}

/** Fetches and sends so many bytes over HTTP, in this process as the driver; MiB a second each way. */
async function http(port: number): Promise<[number, number]> {
  const go = async (method: 'GET' | 'POST'): Promise<number> => {
    const began = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const path = method === 'GET' ? `/${AMOUNT}` : '/';
    const asked = request({ host: '10.0.2.2', port, path, method, agent: false }, (response) => {
      response
        .resume()
        .on('end', () => resolve(undefined))
        .on('error', reject);
    }).on('error', reject);
    asked.end(method === 'GET' ? undefined : Buffer.alloc(AMOUNT, 3));
    await promise;
    return AMOUNT / MIB / ((performance.now() - began) / 1000);
  };
  return [await go('GET'), await go('POST')];
}

async function tcp(who: keyof typeof ways, port: number): Promise<void> {
  console.log(`  ${who}, TCP …`);
  using stack = new DisposableStack();
  if (who === 'ours') {
    const net = stack.use(openDriver(VirtioNet, USER));
    const tap = stack.use(new Tap({ name: 'virtio0', macAddress: net.macAddress, mtu: net.mtu }));
    tap.up();
    stack.use(tap.connect(net));
    execFileSync('ifconfig', ['virtio0', '10.0.2.15', 'netmask', '255.255.255.0']);
  } else {
    bindKernel(USER, true);
    stack.defer(() => bindKernel(USER, false));
    execFileSync('ifconfig', [interfaceOf(USER), '10.0.2.15', 'netmask', '255.255.255.0', 'up']);
  }
  const [down, up] = await http(port);
  for (const [what, rate] of [
    ['tcp down', down],
    ['tcp up', up],
  ] as const) {
    found.set(`${who} ${what}`, [...(found.get(`${who} ${what}`) ?? []), rate]);
  }
}

loadModules();
for (const address of [CABLE, USER]) bindKernel(address, false);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const size of SIZES) {
    for (const who of ['ours', 'linux'] as const) await measure(who, size);
  }
}
const of = (who: string, what: string): number => median(found.get(`${who} ${what}`) ?? []);
console.log(
  `\n${'frames a second'.padEnd(34)}${'ours'.padStart(10)}${'Mbit/s'.padStart(9)}${'Linux'.padStart(10)}${'Mbit/s'.padStart(9)}${'×'.padStart(7)}`,
);
for (const way of ['sent', 'received']) {
  for (const size of SIZES) {
    for (const batch of BATCHES) {
      const [a, b] = [of('ours', `${way} ${size} ${batch}`), of('linux', `${way} ${size} ${batch}`)];
      const mbit = (rate: number): string => ((rate * size * 8) / 1e6).toFixed(0).padStart(9);
      console.log(
        `${`${way}, ${size} bytes, ${batch} at a time`.padEnd(34)}${a.toFixed(0).padStart(10)}${mbit(a)}${b.toFixed(0).padStart(10)}${mbit(b)}${(a / b).toFixed(2).padStart(7)}`,
      );
    }
  }
}

execFileSync('modprobe', ['tun']);
const port = (await host('port')) as number;
for (let round = 0; round < ROUNDS; round += 1) {
  for (const who of ['ours', 'linux'] as const) await tcp(who, port);
}
for (const what of ['down', 'up']) {
  const [a, b] = [of('ours', `tcp ${what}`), of('linux', `tcp ${what}`)];
  console.log(
    `TCP ${what}: ${a.toFixed(1)} MiB/s through the Tap, ${b.toFixed(1)} through Linux' own interface, ${(a / b).toFixed(2)}`,
  );
}
finish();
