/**
 * Interfaces of the kernel's, in a network namespace of this process alone: `tap.test.ts` runs it. It prints what each step gave as JSON.
 */
import { createSocket } from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { VirtioError } from '@virtio/core';
import { Tap, type TapPacket, type TapPeer } from './tap.ts';

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 9);

const codeOf = async (body: () => unknown): Promise<string> => {
  try {
    await body();
    return 'none';
  } catch (error) {
    return VirtioError.is(error) ? error.code : String(error);
  }
};

/** The link-local address that the kernel gives an interface that is up, by which frames come of themselves. */
async function addressOf(name: string): Promise<string | undefined> {
  for (let looks = 0; looks < 100; looks += 1) {
    const [found] = networkInterfaces()[name] ?? [];
    if (found !== undefined) return found.address;
    await delay(50);
  }
  return undefined;
}

/** A frame of IPv6's that the kernel counts and drops. */
const frame = (length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  bytes.set([0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd].slice(0, length));
  return bytes;
};

/** A driver without a device: it has so many buffers, and gives what it is told. */
class FakePeer implements TapPeer {
  readonly sent: number[] = [];
  readonly incoming: Uint8Array[] = [];
  buffers = 4;
  released = 0;
  failure: Error | undefined;
  #wake: (() => void) | undefined;

  come(...frames: Uint8Array[]): void {
    this.incoming.push(...frames);
    this.#wake?.();
  }

  fail(error: Error): void {
    this.failure = error;
    this.#wake?.();
  }

  poll(handler: (packet: TapPacket) => void): number {
    const all = this.incoming.splice(0);
    for (const data of all) handler({ data, release: () => undefined });
    return all.length;
  }

  async receive({ signal }: { readonly signal?: unknown }): Promise<TapPacket> {
    for (;;) {
      if ((signal as AbortSignal).aborted) throw new VirtioError('ABORTED', 'cancelled');
      if (this.failure !== undefined) throw this.failure;
      const data = this.incoming.shift();
      if (data !== undefined) return { data, release: () => (this.released += 1) };
      const { promise, resolve } = Promise.withResolvers<undefined>();
      this.#wake = () => resolve(undefined);
      (signal as AbortSignal).addEventListener('abort', this.#wake);
      await promise;
    }
  }

  takeBuffer(): ReturnType<TapPeer['takeBuffer']> {
    if (this.buffers === 0) return undefined;
    return {
      data: new Uint8Array(2000),
      send: (length) => this.#send(length),
      [Symbol.dispose]: () => undefined,
    };
  }

  send(bytes: Uint8Array): Promise<void> {
    this.#send(bytes.length);
    return Promise.resolve();
  }

  kick(): void {
    return undefined;
  }

  #send(length: number): void {
    this.sent.push(length);
  }
}

const result: Record<string, unknown> = {};

{
  using tap = new Tap({ name: 'one%d', macAddress: MAC, mtu: 1400 });
  result.name = tap.name;
  result.mtu = tap.mtu;
  result.busy = await codeOf(() => new Tap({ name: 'one0' }));
  result.downRead = tap.tryRead(new Uint8Array(2000));
  result.downWrite = tap.write(frame(60));
  tap.up();
  result.address = (await addressOf('one0')) !== undefined;
  result.mac = networkInterfaces().one0?.[0]?.mac;
  result.written = [tap.write(frame(60)), tap.write(frame(1414)), tap.write(frame(13)), tap.write(frame(0))];
  const buffer = new Uint8Array(2000);
  result.read = (await tap.read(buffer)) >= 14 && buffer[12] === 0x86;
  // A frame comes again when the kernel asks once more whether its address is nobody else's; who has cancelled takes none.
  tap.down();
  tap.up();
  await addressOf('one0');
  await delay(500);
  result.cancelled = await codeOf(() => tap.read(buffer, { signal: AbortSignal.abort() }));
  result.kept = tap.tryRead(buffer) >= 14;
  const gone = new Uint8Array(16);
  gone.buffer.transfer();
  const wrong: readonly unknown[] = [[1, 2], new ArrayBuffer(8), 'abc', Uint16Array.of(1), null, gone];
  result.refused = await Promise.all(
    wrong.flatMap((value) => [
      codeOf(() => tap.tryRead(value as Uint8Array)),
      codeOf(() => tap.read(value as Uint8Array)),
      codeOf(() => tap.write(value as Uint8Array)),
    ]),
  );
  result.noSignal = await codeOf(() => tap.read(buffer, { signal: 5 as unknown as AbortSignal }));
  const stop = new AbortController();
  // What is there already is read first.
  while (tap.tryRead(buffer) >= 0);
  const reading = codeOf(async () => {
    while ((await tap.read(buffer, { signal: stop.signal })) >= 0);
  });
  stop.abort();
  result.aborted = await reading;
  const left = codeOf(async () => {
    while ((await tap.read(buffer)) >= 0);
  });
  tap[Symbol.dispose]();
  tap[Symbol.dispose]();
  result.disposed = [await left, await codeOf(() => tap.write(frame(60))), await codeOf(() => tap.up())];
  result.gone = networkInterfaces().one0 === undefined;
}

for (const buffers of [4, 0]) {
  using tap = new Tap({ name: 'two', macAddress: MAC });
  tap.up();
  const peer = new FakePeer();
  peer.buffers = buffers;
  const connection = tap.connect(peer);
  const address = await addressOf('two');
  const socket = createSocket('udp6');
  const { promise, resolve } = Promise.withResolvers<undefined>();
  socket.bind(0, () => resolve(undefined));
  await promise;
  // To all on the link: nobody has to be asked for an address. The kernel sends as soon as it has found its own to be nobody else's.
  const ours = (): number => peer.sent.filter((length) => length === 162).length;
  for (let looks = 0; looks < 300 && ours() < 200; looks += 1) {
    for (let n = 0; n < 20; n += 1) socket.send(new Uint8Array(100), 9, 'ff02::1%two', () => undefined);
    await delay(20);
  }
  socket.close();
  peer.come(...Array.from({ length: 150 }, () => frame(100)), frame(5));
  for (let looks = 0; looks < 100 && connection.counters.received < 150; looks += 1) await delay(20);
  const { received, dropped } = connection.counters;
  connection[Symbol.dispose]();
  result[`carried with ${buffers} buffers`] = [
    address !== undefined,
    ours() >= 200,
    received,
    dropped,
    await codeOf(() => connection.ended),
  ];
}

{
  using tap = new Tap({ name: 'three' });
  tap.up();
  const peer = new FakePeer();
  using connection = tap.connect(peer);
  peer.fail(new VirtioError('DEVICE_REMOVED', 'gone'));
  result.failed = await codeOf(() => connection.ended);
}

{
  using tap = new Tap({ name: 'four' });
  tap.up();
  const connection = tap.connect(new FakePeer());
  tap[Symbol.dispose]();
  result.disposedUnder = await codeOf(() => connection.ended);
}

process.stdout.write(JSON.stringify(result));
