/** A network device of DPDK's testpmd (Debian 13: dpdk-dev), which sends back whatever comes: split and packed rings, in order or not. */
import { crc32 } from 'node:zlib';
import {
  BufferDriver,
  DeviceType,
  type DriverOptions,
  type FeatureName,
  FeatureTable,
  type Hal,
  type ReceiveQueue,
  type Transport,
  type TransmitQueue,
  VirtioError,
} from '@virtio/core';
import { VirtioNet } from '@virtio/net';
import { openDriver } from '@virtio/vhost-user';
import { expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import { Testpmd } from '../src/testpmd.ts';

/** So many packets are on their way at most: fewer than each ring holds, so that none has a reason to be lost. */
const WINDOW = 64;

/** A packet that carries its number, data by it, and the checksum of both. */
function packet(number: number): Uint8Array {
  const bytes = new Uint8Array(60 + ((number * 97) % 1455));
  // To and from made-up stations, of a type for experiments.
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
  for (let i = 18; i < bytes.length - 4; i += 1) bytes[i] = i * 7 + number;
  const view = new DataView(bytes.buffer);
  view.setUint32(14, number);
  view.setUint32(bytes.length - 4, crc32(bytes.subarray(14, -4)));
  return bytes;
}

/** The number of a packet, if it is as long as it was and its checksum is right; else -1. */
function numberOf(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const number = view.getUint32(14);
  const length = 60 + ((number * 97) % 1455);
  if (bytes.length !== length) return -1;
  return view.getUint32(length - 4) === crc32(bytes.subarray(14, -4)) ? number : -1;
}

/**
 * Waits until the first packet comes back, with the number 0. testpmd begins to take packets a moment before it can send any, and
 * what it takes meanwhile is lost.
 */
async function connect(
  send: () => Promise<void> | void,
  came: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  for (;;) {
    await send();
    try {
      await came(AbortSignal.timeout(20));
      return;
    } catch (error) {
      if (!VirtioError.is(error, 'ABORTED')) throw error;
    }
  }
}

/** Sends packets and takes those that come back, until all did; those of before do not count. Returns their numbers. */
async function loop(net: VirtioNet, first: number, count: number): Promise<number[]> {
  await connect(
    () => net.send(packet(0)),
    async (signal) => {
      using _came = await net.receive({ signal });
    },
  );
  const back: number[] = [];
  for (let sent = 0; back.length < count;) {
    while (sent < count && sent - back.length < WINDOW) {
      await net.send(packet(first + sent));
      sent += 1;
    }
    using came = await net.receive();
    const number = numberOf(came.copy());
    if (number < 0 || number >= first) back.push(number);
  }
  return back;
}

const numbers = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

const RINGS: Readonly<Record<string, readonly FeatureName[]>> = {
  split: ['RING_PACKED', 'IN_ORDER'],
  'split, in order': ['RING_PACKED'],
  packed: ['IN_ORDER'],
  'packed, in order': [],
};

it('what is sent comes back whole and in order, over each form of ring', async () => {
  using folder = new Folder();
  await using testpmd = await Testpmd.start(folder);
  // One front end after the other: it serves each anew.
  for (const [name, without] of Object.entries(RINGS)) {
    using net = await openDriver(VirtioNet, `vhost-user:${testpmd.socket}`, { without });
    expect([name, net.features.has('RING_PACKED'), net.features.has('IN_ORDER')]).toEqual([
      name,
      name.startsWith('packed'),
      name.endsWith('in order'),
    ]);
    // Several times around each ring of 256, so that both wrap counters had both values.
    expect(await loop(net, 1, 2000)).toEqual(numbers(1, 2000));
    // In the midst of packets the rings begin anew.
    for (let n = 0; n < 20; n += 1) await net.send(packet(n));
    net.reset();
    expect(await loop(net, 5000, 1000)).toEqual(numbers(5000, 1000));
    expect([net.quirks, net.dropped]).toEqual([0, 0]);
  }
});

it('a back end that was killed is waited for, and the driver goes on after a reset', async () => {
  using folder = new Folder();
  for (const without of [['RING_PACKED'], []] as const) {
    const first = await Testpmd.start(folder);
    using net = await openDriver(VirtioNet, `vhost-user:${first.socket}`, { without, reconnect: true });
    try {
      expect(await loop(net, 1, 300)).toEqual(numbers(1, 300));
      const waiting = net.receive();
      waiting.catch(() => undefined);
      await first.kill();
      // It keeps no record of what is in flight, so nobody knows what was sent.
      await expect(waiting).rejects.toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    } finally {
      await first.kill();
    }
    net.reset();
    await using _second = await Testpmd.start(folder);
    expect(await loop(net, 1000, 1000)).toEqual(numbers(1000, 1000));
  }
});

const HEADER = 12;

/** Two pairs of queues, used from the start: what a front end without the control queue can have of them. */
class TwoPairs extends BufferDriver<never> {
  static readonly deviceType = DeviceType.Network;

  readonly receivers: readonly ReceiveQueue[];
  readonly senders: readonly TransmitQueue[];
  /** The numbers of the packets that came, by pair. */
  readonly came: readonly number[][] = [[], []];

  constructor(transport: Transport, hal: Hal, options: DriverOptions = {}) {
    const table = new FeatureTable<never>('TwoPairs', {});
    super(transport, hal, { deviceType: DeviceType.Network, table, supported: [] }, options);
    [this.receivers, this.senders] = this.setUp(() => [
      [0, 1].map((pair) => {
        const queue: ReceiveQueue = this.createReceiveQueue({
          index: 2 * pair,
          size: 256,
          bufferSize: 2048,
          receive: () =>
            queue.poll((bytes) => {
              const number = numberOf(bytes.subarray(HEADER));
              if (number !== 0) this.came[pair]?.push(number);
            }) > 0,
        });
        return queue;
      }),
      [0, 1].map((pair) => this.createTransmitQueue({ index: 2 * pair + 1, size: 256, bufferSize: 2048 })),
    ]);
    this.start();
  }

  /** Sends packets with these numbers on a pair, and waits until as many came back on it. */
  async loop(pair: number, all: readonly number[]): Promise<void> {
    const receiver = this.receivers[pair] as ReceiveQueue;
    const sender = this.senders[pair] as TransmitQueue;
    const came = this.came[pair] as number[];
    const send = (number: number): boolean => {
      const buffer = sender.take();
      if (buffer < 0) return false;
      const bytes = packet(number);
      sender.buffer(buffer).fill(0, 0, HEADER).set(bytes, HEADER);
      sender.send(buffer, HEADER + bytes.length);
      return true;
    };
    await connect(
      () => {
        send(0);
        sender.kick();
      },
      (signal) => receiver.wait({ signal }),
    );
    for (let sent = 0; came.length < all.length;) {
      while (sent < all.length && sent - came.length < WINDOW && send(all[sent] as number)) sent += 1;
      sender.kick();
      await receiver.wait();
    }
  }
}

it('two pairs of queues work at once, and what is sent on one comes back on it', async () => {
  using folder = new Folder();
  await using testpmd = await Testpmd.start(folder, 2);
  for (const without of [['RING_PACKED'], []] as const) {
    using driver = await openDriver(TwoPairs, `vhost-user:${testpmd.socket}`, { without });
    const [first, second] = [numbers(1, 1500), numbers(100_000, 1500)];
    await Promise.all([driver.loop(0, first), driver.loop(1, second)]);
    expect(driver.came).toEqual([first, second]);
  }
});
