/** Frames between the guest and the host's switch: all of them, in order, as they were sent. */
import { NetControl, type VirtioNet } from '@virtio/net';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest, onPci, small } from '../../framework/define.ts';
import { isLegacy } from '../_open.ts';
import { fillFrame, GUEST_MAC, HOST_MAC, makeFrame, numberOf, Sequence } from './_frames.ts';
import { openNet, openRaw, turn } from './_net.ts';
import { host, prepare, switched, tag, untag } from './_switch.ts';

/** Frames each way in the long test; the others take fewer. */
const MANY = 1_000_000;
const SOME = 6_000;

/** Receives numbered frames until so many came. */
async function receiveNumbered(net: VirtioNet, count: number): Promise<Sequence> {
  const sequence = new Sequence();
  let came = 0;
  const take = (frame: Uint8Array): void => {
    came += 1;
    sequence.take(frame);
  };
  while (came < count) {
    {
      using packet = await net.receive();
      take(packet.data);
    }
    while (net.poll(({ data }) => take(data)) > 0) await turn();
  }
  return sequence;
}

/** Sends numbered frames, built in the driver's own memory. */
async function sendNumbered(net: VirtioNet, count: number): Promise<void> {
  for (let number = 0; number < count;) {
    let sent = 0;
    for (; number < count && sent < 64; number += 1, sent += 1) {
      using buffer = net.takeBuffer();
      if (buffer === undefined) break;
      buffer.send(fillFrame(buffer.data, number, GUEST_MAC, HOST_MAC), { kick: false });
    }
    if (sent > 0) net.kick();
    if (sent < 64 && number < count) await net.send(makeFrame(number++, GUEST_MAC, HOST_MAC));
    await turn();
  }
  await net.flush();
}

async function bothWays(
  context: Parameters<typeof openNet>[0] & {
    host: (name: string, args: unknown) => Promise<unknown>;
    note: (line: string) => void;
  },
  count: number,
): Promise<void> {
  using open = openNet(context);
  const { net } = open;
  await context.host('plug', null);
  const began = performance.now();
  const [received] = await Promise.all([
    receiveNumbered(net, count),
    sendNumbered(net, count),
    context.host('send', { count }),
  ]);
  const seen = (await context.host('seen', { frames: count })) as Awaited<ReturnType<typeof host.seen>>;
  const seconds = (performance.now() - began) / 1000;
  context.note(
    `${count} frames each way in ${seconds.toFixed(1)} s: ${Math.round((2 * count) / seconds)} a second`,
  );
  deepEqual([received.count, received.wrong, received.firstWrong], [count, 0, '']);
  deepEqual([seen.good, seen.wrong, seen.firstWrong], [count, 0, '']);
  equal(net.dropped, 0);
  equal(net.quirks, 0);
}

export default [
  guestTest({
    device: 'net',
    name: 'carries frames of mixed sizes each way at once, in order, each as it was sent',
    essential: true,
    timeoutS: 120,
    devices: { net: switched() },
    prepare,
    host,
    guest: (context) =>
      bothWays(context as unknown as Parameters<typeof bothWays>[0], small(context.cell, SOME, 500)),
  }),

  guestTest({
    device: 'net',
    name: 'carries a million frames of mixed sizes each way at once',
    onlyFull: true,
    timeoutS: 600,
    skip: ({ machine, transport, ring }) =>
      machine === 'q35' && transport === 'pci-vfio' && ring.name === 'split'
        ? undefined
        : 'so many go through the first kind of guest only',
    devices: { net: switched() },
    prepare,
    host,
    guest: (context) =>
      bothWays(context as unknown as Parameters<typeof bothWays>[0], small(context.cell, MANY, 5000)),
  }),

  guestTest({
    device: 'net',
    name: 'carries frames in buffers of the caller, by promises, tokens and spinning',
    long: true,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openRaw(context);
      const { net } = open;
      await context.host('plug', null);
      const count = 1200;
      // As many buffers as there is room for; each goes back when its frame was looked at.
      const buffers = new Map<number, Uint8Array>();
      for (let n = 0; n < 64; n += 1) {
        const buffer = new Uint8Array(net.minReceiveBuffer);
        buffers.set(net.receiveBegin(buffer, { kick: false }), buffer);
      }
      net.kick();
      const sending = context.host('send', { count });
      const received = new Sequence();
      while (received.count + received.wrong < count) {
        const token = net.pollReceive();
        if (token < 0) {
          await turn();
          continue;
        }
        const buffer = buffers.get(token) ?? new Uint8Array(0);
        buffers.delete(token);
        const length = net.receiveComplete(token);
        received.take(buffer.subarray(net.headerSize, net.headerSize + length));
        buffers.set(net.receiveBegin(buffer), buffer);
      }
      await sending;
      deepEqual([received.count, received.wrong, received.firstWrong], [count, 0, '']);
      for (let number = 0; number < 300; number += 3) {
        await net.send(makeFrame(number, GUEST_MAC, HOST_MAC));
        net.sendSync(makeFrame(number + 1, GUEST_MAC, HOST_MAC));
        const frame = makeFrame(number + 2, GUEST_MAC, HOST_MAC);
        const buffer = new Uint8Array(net.headerSize + frame.length);
        buffer.set(frame, net.fillBufferHeader(buffer));
        const token = net.transmitBegin(buffer);
        while (net.pollTransmit() !== token) await turn();
        equal(net.transmitComplete(token), buffer.length);
      }
      const seen = await context.host('seen', { frames: 300 });
      deepEqual([seen.good, seen.wrong, seen.firstWrong], [300, 0, '']);
    },
  }),

  guestTest({
    device: 'net',
    name: 'carries frames of any size: short ones, jumbo frames, and the longest that QEMU has',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, { transmitBufferSize: 65_000, buffers: 64 });
      const { net } = open;
      await context.host('plug', null);
      let number = 0;
      for (const size of [22, 59, 60, 61, 1514, 1515, 2036, 2037, 4000, 9014, 9018, 30_000, 64_000]) {
        const sending = context.host('sendOne', { number, size });
        using packet = await net.receive();
        await sending;
        equal(packet.length, size);
        equal(numberOf(packet.data), number);
        equal(packet.pieces, Math.ceil((size + net.headerSize) / 2048));
        await net.send(makeFrame(number, GUEST_MAC, HOST_MAC, size));
        number += 1;
        const seen = await context.host('seen', { frames: number });
        deepEqual([seen.good, seen.wrong, seen.firstWrong], [number, 0, '']);
      }
      equal(net.quirks, 0);
    },
  }),

  guestTest({
    device: 'net',
    name: 'carries frames without mergeable buffers, where one that is too long vanishes',
    devices: { net: switched({ mrg_rxbuf: false }) },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      equal(net.headerSize, isLegacy(context.cell) ? 10 : 12);
      await context.host('plug', null);
      await context.host('sendOne', { number: 0, size: 5000 });
      await context.host('sendOne', { number: 1, size: 1514 });
      using packet = await net.receive();
      deepEqual([numberOf(packet.data), packet.length], [1, 1514]);
      const received = receiveNumbered(net, 200);
      await context.host('send', { count: 200 });
      const { count, wrong, firstWrong } = await received;
      deepEqual([count, wrong, firstWrong], [200, 0, '']);
    },
  }),

  guestTest({
    device: 'net',
    name: 'goes through streams, both ways',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const count = 1000;
      const reader = net.readable(ReadableStream<Uint8Array>).getReader();
      const writer = net.writable(WritableStream<Uint8Array>).getWriter();
      const received = new Sequence();
      const reading = (async () => {
        while (received.count + received.wrong < count) {
          const { value } = await reader.read();
          if (value !== undefined) received.take(value);
        }
        await reader.cancel();
      })();
      const sending = context.host('send', { count });
      for (let number = 0; number < count; number += 1) {
        await writer.write(makeFrame(number, GUEST_MAC, HOST_MAC));
      }
      await writer.close();
      await Promise.all([reading, sending]);
      const seen = await context.host('seen', { frames: count });
      deepEqual([received.count, received.firstWrong], [count, '']);
      deepEqual([seen.good, seen.firstWrong], [count, '']);
    },
  }),

  guestTest({
    device: 'net',
    name: 'keeps VLAN tags, both ways',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      await context.host('sendOne', { number: 5, vlan: 0xabc, size: 1514 });
      using packet = await net.receive();
      deepEqual(untag(packet.data), { vlan: 0xabc, number: 5 });
      equal(packet.length, 1518);
      const frame = tag(makeFrame(6, GUEST_MAC, HOST_MAC, 1514), 7);
      await net.send(frame);
      await context.host('seen', { frames: 1 });
      equal(await context.host('lastFrame', null), Buffer.from(frame).toString('hex'));
    },
  }),

  guestTest({
    device: 'net',
    name: 'lets a flood wait: memory does not grow, and nothing is lost',
    long: true,
    timeoutS: 120,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const count = 20_000;
      // Nobody reads: the frames wait in the ring, in QEMU and in the socket.
      const sending = context.host('send', { count });
      await delay(1000);
      ok(net.canReceive);
      const before = process.memoryUsage().rss;
      await delay(1000);
      const grown = process.memoryUsage().rss - before;
      context.note(`memory grew by ${grown >> 10} KiB in a second of flood`);
      ok(grown < 8 << 20);
      const { count: good, wrong, firstWrong } = await receiveNumbered(net, count);
      await sending;
      deepEqual([good, wrong, firstWrong], [count, 0, '']);
    },
  }),

  guestTest({
    device: 'net',
    name: 'waits for a host that does not read, and goes on when it does',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      await context.host('pause', { paused: true });
      // More than all buffers on the way hold.
      const count = 4000;
      let done = false;
      const sending = sendNumbered(net, count).then(() => {
        done = true;
      });
      await delay(1500);
      equal(done, false);
      equal(net.canSend, false);
      await context.host('pause', { paused: false });
      await sending;
      const seen = await context.host('seen', { frames: count });
      deepEqual([seen.good, seen.wrong, seen.firstWrong], [count, 0, '']);
    },
  }),

  guestTest({
    device: 'net',
    name: 'is reset under load, and goes on',
    long: true,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      for (let round = 0; round < 5; round += 1) {
        const first = round * 1000;
        // As much is on its way both ways as can be; a receiver waits.
        const waiting = net.receive().catch((error: unknown) => error);
        void net.send(makeFrame(0, GUEST_MAC, HOST_MAC)).catch(() => undefined);
        await context.host('send', { first, count: 40 });
        while (net.trySend(makeFrame(1, GUEST_MAC, HOST_MAC), { kick: false }));
        net.kick();
        net.reset();
        await waiting;
        await delay(50);
        while (net.poll(() => undefined) > 0);
        await context.host('send', { first: first + 500, count: 20 });
        let next = -1;
        while (next < first + 519) {
          using packet = await net.receive();
          const number = numberOf(packet.data);
          ok(number >= 0, 'a frame is not as it was sent');
          if (number >= first + 500) {
            equal(number, next < 0 ? first + 500 : next + 1);
            next = number;
          }
        }
      }
      await net.flush();
      await context.host('restart', null);
      await sendNumbered(net, 100);
      const seen = await context.host('seen', { frames: 100 });
      ok(seen.good >= 100, seen.firstWrong);
    },
  }),

  guestTest({
    device: 'net',
    name: 'resets its queues one by one',
    skip: (cell) => (onPci(cell) ? undefined : "QEMU's MMIO has no registers for it"),
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      for (let n = 0; n < 3; n += 1) {
        net.resetQueue(0);
        const received = receiveNumbered(net, 50);
        await context.host('send', { count: 50 });
        equal((await received).count, 50);
        net.resetQueue(1);
        await context.host('restart', null);
        await sendNumbered(net, 50);
        equal((await context.host('seen', { frames: 50 })).good, 50);
      }
      await net.control(NetControl.setAllMulticast(true));
    },
  }),

  guestTest({
    device: 'net',
    name: 'is unplugged under load, and all ends with DEVICE_REMOVED',
    skip: (cell) => (onPci(cell) ? undefined : 'MMIO devices cannot be unplugged'),
    devices: { net: switched({}, { hotplug: true }) },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const failed = new Promise<{ code: string }>((resolve) => {
        net.on('failure', resolve);
      });
      const ends = [receiveNumbered(net, 1 << 30), sendNumbered(net, 1 << 30)].map((end) =>
        end.catch((error: unknown) => (error as { code?: string }).code),
      );
      void context.host('send', { count: 3000 }).catch(() => undefined);
      await delay(200);
      await context.host('removeDevice', null);
      equal((await failed).code, 'DEVICE_REMOVED');
      deepEqual(await Promise.all(ends), ['DEVICE_REMOVED', 'DEVICE_REMOVED']);
    },
  }),
];
