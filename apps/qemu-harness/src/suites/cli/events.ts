/** The command line on network cards and input devices: frames as the switch sees them, events as QEMU sent them. */
import { readPcap, PcapWriter } from '@virtio/net';
import { deepEqual, equal, match } from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { guestTest } from '../../framework/define.ts';
import { device as inputDevice, host as inputHost } from '../input/_input.ts';
import { GUEST_MAC, HOST_MAC, makeFrame, numberOf } from '../net/_frames.ts';
import { host as netHost, prepare, switched } from '../net/_switch.ts';
import { interrupt } from '../_program.ts';
import { json, onSplit, place, start, virtio } from './_virtio.ts';

const COUNT = 20;
const CAPTURE = '/tmp/cli.pcap';

export default [
  guestTest({
    device: 'cli',
    name: 'captures the frames that the host sends, and sends those of a capture',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { net: switched() },
    prepare,
    host: netHost,
    async guest(context) {
      const at = place(context, 'net');
      await context.host('plug', null);
      const dump = start(['net', 'dump', ...at, '-w', CAPTURE, '--count', String(COUNT)]);
      await dump.said(/waiting for frames/);
      await context.host('send', { count: COUNT });
      const { status, stderr } = await dump.ended;
      equal(status, 0, stderr);
      match(stderr, /20 frames, \d+ bytes\n$/);
      const frames = [...readPcap(Uint8Array.from(readFileSync(CAPTURE)))];
      deepEqual(
        frames.map(({ frame }) => numberOf(frame)),
        Array.from({ length: COUNT }, (_, number) => number),
      );

      const pieces: Uint8Array[] = [];
      const writer = new PcapWriter((piece) => pieces.push(piece));
      for (let number = 0; number < COUNT; number += 1) {
        writer.write(makeFrame(number, GUEST_MAC, HOST_MAC), BigInt(number) * 1_000_000n);
      }
      writeFileSync(CAPTURE, Buffer.concat(pieces));
      const sent = await json<{ frames: number; bytes: number }>([
        'net',
        'inject',
        at[0],
        CAPTURE,
        ...at.slice(1),
      ]);
      const seen = await context.host('seen', { frames: COUNT });
      deepEqual([seen.good, seen.wrong, seen.bytes, sent.frames], [COUNT, 0, sent.bytes, COUNT]);
      rmSync(CAPTURE);

      const text = start(['net', 'dump', ...at]);
      await text.said(/waiting for frames/);
      await context.host('sendOne', { number: 0, size: 77 });
      await text.said(/ 52:54:00:ab:cd:02 > 52:54:00:ab:cd:01 0x88b5 77 bytes\n$/);
      await interrupt(text, 0);
    },
  }),

  guestTest({
    device: 'cli',
    name: 'shows the keys that are pressed on the host',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { input: inputDevice('keyboard') },
    host: inputHost,
    async guest(context) {
      const at = place(context, 'input');
      const watch = start(['input', 'watch', ...at, '--count', '4', '--no-color']);
      await watch.said(/waiting for events/);
      const second = await virtio(['input', 'watch', ...at]);
      equal(second.status, 5, second.stderr);
      await context.host('send', { kind: 'keyboard', from: 0, to: 4 });
      const { status, stdout, stderr } = await watch.ended;
      equal(status, 0, stderr);
      equal(
        stdout.toString(),
        [
          'EV_KEY KEY_A                down',
          'EV_KEY KEY_A                up',
          'EV_KEY KEY_B                down',
          'EV_KEY KEY_B                up',
          '',
        ].join('\n'),
      );

      const events = start(['input', 'watch', ...at, '--syn']);
      await events.said(/waiting for events/);
      await context.host('send', { kind: 'keyboard', from: 4, to: 5 });
      await events.said(/^EV_KEY KEY_C +down\nEV_SYN SYN_REPORT +0\n$/);
      await interrupt(events, 0);
    },
  }),
];
