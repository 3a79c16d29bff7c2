/** Captures, compared with those that QEMU itself makes of the same traffic. */
import { PcapWriter, readPcap } from '@virtio/net';
import { deepEqual, equal } from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { guestTest, type HostEnv } from '../../framework/define.ts';
import { GUEST_MAC, HOST_MAC, makeFrame, numberOf, SIZES } from './_frames.ts';
import { openNet } from './_net.ts';
import { host, prepare, switched } from './_switch.ts';

const plain = switched();

/** The file header's fields that say how to read the rest: magic number, version and link type. */
const essentials = (file: Uint8Array): string =>
  Buffer.concat([file.subarray(0, 8), file.subarray(20, 24)]).toString('hex');

/** Of a capture, all but the times. */
function withoutTimes(file: Uint8Array<ArrayBuffer>): Buffer {
  const bytes = Buffer.from(file);
  for (let at = 24; at < bytes.length; at += 16 + bytes.readUInt32LE(at + 8)) bytes.fill(0, at, at + 8);
  return bytes.subarray(24);
}

export default [
  guestTest({
    device: 'net',
    name: "captures read as QEMU's own do, and are written as it writes them",
    devices: {
      net: {
        ...plain,
        after: [
          ...(plain.after ?? []),
          '-object',
          'filter-dump,id={id}-dump,netdev={id}-net,file={dir}/dump.pcap,maxlen=65535',
        ],
      },
    },
    prepare,
    host: {
      ...host,
      /** Reads QEMU's capture, and writes one of the same frames. */
      compare: (_args: null, { directory }: HostEnv) => {
        const file = Uint8Array.from(readFileSync(`${directory}/dump.pcap`));
        const pieces: Uint8Array[] = [];
        const writer = new PcapWriter((piece) => pieces.push(piece));
        const numbers: number[] = [];
        let earliest = 0n;
        let ordered = true;
        for (const { frame, timestamp, originalLength } of readPcap(file)) {
          numbers.push(originalLength === frame.length ? numberOf(frame) : -2);
          ordered &&= timestamp >= earliest;
          earliest = timestamp;
          writer.write(frame, timestamp);
        }
        const written = Uint8Array.from(Buffer.concat(pieces));
        return {
          numbers,
          ordered,
          // To the microsecond, as QEMU has them.
          same: Buffer.compare(file.subarray(24), written.subarray(24)) === 0,
          sameFrames: Buffer.compare(withoutTimes(file), withoutTimes(written)) === 0,
          essentials: [essentials(file), essentials(written)],
        };
      },
    },
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const count = 3 * SIZES.length;
      for (let number = 0; number < count; number += 1)
        await net.send(makeFrame(number, GUEST_MAC, HOST_MAC));
      await net.flush();
      await context.host('seen', { frames: count });
      const { numbers, ordered, same, sameFrames, essentials: heads } = await context.host('compare', null);
      deepEqual(
        numbers,
        Array.from({ length: count }, (_, number) => number),
      );
      deepEqual([ordered, sameFrames, same], [true, true, true]);
      equal(heads[0], heads[1]);
    },
  }),
];
