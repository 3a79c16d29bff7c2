/** Captures, compared with those that QEMU itself makes of the same traffic. */
import { PcapWriter, readPcap } from '@virtio/net';
import { deepEqual, equal } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
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
      for (let number = 0; number < count; number += 1) {
        await net.send(makeFrame(number, GUEST_MAC, HOST_MAC));
      }
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

  guestTest({
    device: 'net',
    name: 'captures are read by tcpdump without complaint: short, jumbo and tagged frames, to the nanosecond',
    long: true,
    devices: { net: plain },
    prepare,
    programs: ['tcpdump'],
    host: {
      ...host,
      /** Reads a capture of the guest's. */
      dissect: ({ capture }: { capture: string }, env: HostEnv) => {
        const file = `${env.directory}/guest.pcap`;
        writeFileSync(file, Buffer.from(capture, 'base64'));
        const [program = '', ...args] = env.command('tcpdump');
        const { status, stdout, stderr } = spawnSync(
          program,
          [...args, '-Z', 'root', '-r', file, '-e', '-n', '-tt', '--nano'],
          { encoding: 'utf8' },
        );
        return { status, lines: stdout.trim().split('\n'), complaints: stderr.trim().split('\n') };
      },
    },
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const pieces: Uint8Array[] = [];
      const writer = new PcapWriter((piece) => pieces.push(piece), { nanoseconds: true });
      const sizes = [22, 60, 61, 1514, 9014];
      let now = 1_700_000_000_000_000_001n;
      for (const [number, size] of sizes.entries()) {
        await context.host('sendOne', { number, size });
        using packet = await net.receive();
        writer.write(packet.data, now);
        now += 1_000_000_001n;
      }
      await context.host('sendOne', { number: 9, size: 100, vlan: 0xabc });
      using tagged = await net.receive();
      writer.write(tagged.data, now);
      const capture = Buffer.concat(pieces).toString('base64');
      const { status, lines, complaints } = await context.host('dissect', { capture });
      equal(status, 0, complaints.join('\n'));
      // It says what it reads, and nothing else.
      equal(complaints.length, 1);
      equal(complaints[0]?.includes('link-type EN10MB (Ethernet)'), true, complaints[0]);
      const frames = lines.filter((line) => !line.startsWith('\t'));
      deepEqual(
        frames.map((line) => Number(/length (\d+)/.exec(line)?.[1])),
        [...sizes, 104],
      );
      deepEqual(
        frames.map((line) => line.split(' ')[0]),
        Array.from({ length: sizes.length + 1 }, (_, n) => `170000000${n}.00000000${n + 1}`),
      );
      equal(frames.at(-1)?.includes('vlan 2748'), true, frames.at(-1));
    },
  }),
];
