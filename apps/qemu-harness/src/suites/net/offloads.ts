/** What the device does for a packet, or leaves to be done, with a tap of the host behind it: sums, and packets larger than the wire's. */
import type { VirtioNet } from '@virtio/net';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { guestTest, pattern } from '../../framework/define.ts';
import { host, onTap, prepare, withoutTap } from './_host-tap.ts';
import { hasGoodSum, partialSum, PORTS, UDP_HEADERS, udpFrame, udpPayload } from './_ip.ts';
import { MiniTcp } from './_mini-tcp.ts';
import { openNet } from './_net.ts';

/** Packets of 64 KiB, whole. */
const LARGE = { transmitBufferSize: 65_550, buffers: 64 } as const;

const bytesOf = (length: number, seed: number): Uint8Array => pattern(new Uint8Array(length), seed);
const hashOf = (...all: readonly Uint8Array[]): string => {
  const hash = createHash('sha256');
  for (const bytes of all) hash.update(bytes);
  return hash.digest('hex');
};

/** The next datagram of the host's echo port, and what the device says of it. */
async function receiveFrom(net: VirtioNet, port: number): Promise<{ payload: Uint8Array; partial: boolean }> {
  const signal = AbortSignal.timeout(5000);
  for (;;) {
    using packet = await net.receive({ signal });
    const payload = udpPayload(packet.data, [PORTS.echo, port]);
    if (payload === undefined) continue;
    const { checksum } = packet.header;
    if (checksum === undefined) ok(hasGoodSum(packet.data), 'a checksum is wrong');
    else deepEqual(checksum, partialSum('udp'));
    return { payload: payload.slice(), partial: checksum !== undefined };
  }
}

export default [
  guestTest({
    device: 'net',
    name: 'leaves checksums and the cutting of large packets to the device',
    timeoutS: 90,
    devices: { net: onTap(1) },
    skip: withoutTap,
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, LARGE);
      const { net } = open;
      const hostMac = Uint8Array.from(await context.host('plug', null));
      for (const name of ['CSUM', 'HOST_TSO4', 'HOST_UFO'] as const) ok(net.features.has(name), name);
      const header = { checksum: partialSum('udp') };

      // Linux throws away what has a wrong sum, so what arrives was completed.
      for (const size of [1, 2, 999, 1472]) {
        const payload = bytesOf(size, size);
        await net.send(udpFrame(hostMac, [6000, PORTS.sink], payload, true), { header });
        const { sizes, hash } = await context.host('kept', { bytes: size });
        deepEqual([sizes, hash], [[size], hashOf(payload)]);
      }

      // One large datagram, which arrives whole: in fragments, or never cut at all.
      const whole = bytesOf(20_000, 3);
      await net.send(udpFrame(hostMac, [6000, PORTS.sink], whole, true), {
        header: { ...header, gso: { type: 'UDP', size: 1480, headerLength: UDP_HEADERS } },
      });
      deepEqual(await context.host('kept', { bytes: whole.length }), {
        sizes: [20_000],
        hash: hashOf(whole),
      });

      // Many datagrams in one packet.
      if (net.features.has('HOST_USO')) {
        const many = bytesOf(20_500, 4);
        await net.send(udpFrame(hostMac, [6000, PORTS.sink], many, true), {
          header: { ...header, gso: { type: 'UDP_L4', size: 1000, headerLength: UDP_HEADERS } },
        });
        const { sizes, hash } = await context.host('kept', { bytes: many.length });
        deepEqual([sizes, hash], [[...Array<number>(20).fill(1000), 500], hashOf(many)]);
      } else {
        context.note('the host has no HOST_USO');
      }

      // A stream in segments of 30,000 bytes.
      const stream = bytesOf(200_000, 5);
      const reply = bytesOf(100_000, 77);
      await context.host('answer', { length: reply.length });
      const tcp = new MiniTcp(net, hostMac, 6001);
      await tcp.connect();
      await tcp.send(stream);
      equal(hashOf(await tcp.finish()), hashOf(reply));
      deepEqual(await context.host('streams', null), [{ bytes: stream.length, hash: hashOf(stream) }]);
      // Nothing was asked for the other way.
      deepEqual([tcp.partial, tcp.longest <= 1460], [0, true]);
      equal(net.quirks, 0);
    },
  }),

  guestTest({
    device: 'net',
    name: 'takes partial checksums and large packets where it is asked to',
    timeoutS: 90,
    devices: { net: onTap(1) },
    skip: withoutTap,
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, { ...LARGE, receiveOffloads: true });
      const { net } = open;
      const hostMac = Uint8Array.from(await context.host('plug', null));
      for (const name of ['GUEST_CSUM', 'GUEST_TSO4'] as const) ok(net.features.has(name), name);
      const payload = bytesOf(1000, 1);
      await net.send(udpFrame(hostMac, [6000, PORTS.echo], payload));
      const echo = await receiveFrom(net, 6000);
      equal(hashOf(echo.payload), hashOf(payload));
      equal(echo.partial, true);

      const stream = bytesOf(100_000, 5);
      const reply = bytesOf(400_000, 77);
      await context.host('answer', { length: reply.length });
      const tcp = new MiniTcp(net, hostMac, 6001);
      await tcp.connect();
      await tcp.send(stream);
      equal(hashOf(await tcp.finish()), hashOf(reply));
      context.note(`the longest segment had ${tcp.longest} bytes; ${tcp.partial} had a partial checksum`);
      ok(tcp.longest > 1460);
      ok(tcp.partial > 0);
      equal(net.dropped, 0);
      equal(net.quirks, 0);
    },
  }),
];
