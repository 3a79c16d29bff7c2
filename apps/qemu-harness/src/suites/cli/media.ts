/** The command line on displays and sound: QEMU's screen dump, the samples of its WAV file, and what it captured. */
import { encode } from 'fast-png';
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { guestTest } from '../../framework/define.ts';
import { makePicture } from '../gpu/_picture.ts';
import { expectShown, gpuDevice, host as gpuHost } from '../gpu/_screen.ts';
import { numbered, numberOf, type Signal, whole } from '../sound/_signal.ts';
import { alsaSound, expectPlayed, host as soundHost, prepareAlsa, TAIL, wavSound } from '../sound/_sound.ts';
import { readWav } from '../sound/_wav.ts';
import { interrupt } from '../_program.ts';
import { json, onSplit, place, start, virtio } from './_virtio.ts';

const PICTURE = '/tmp/cli.png';
const WAV = '/tmp/cli.wav';
const RATE = 48_000;

/** A WAV file of stereo samples of 16 bits. */
function wavFile(samples: Int16Array): Buffer {
  const data = Buffer.from(samples.buffer, samples.byteOffset, samples.byteLength);
  const head = Buffer.alloc(44);
  head.write('RIFF', 0, 'latin1');
  head.writeUInt32LE(36 + data.length, 4);
  head.write('WAVEfmt ', 8, 'latin1');
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(2, 22);
  head.writeUInt32LE(RATE, 24);
  head.writeUInt32LE(RATE * 4, 28);
  head.writeUInt16LE(4, 32);
  head.writeUInt16LE(16, 34);
  head.write('data', 36, 'latin1');
  head.writeUInt32LE(data.length, 40);
  return Buffer.concat([head, data]);
}

export default [
  guestTest({
    device: 'cli',
    name: 'shows a picture, pixel for pixel, until it is interrupted',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { gpu: gpuDevice() },
    host: gpuHost,
    async guest(context) {
      const [address, ...how] = place(context, 'gpu');
      const spec = { width: 640, height: 480, seed: 12 };
      writeFileSync(PICTURE, encode({ ...spec, channels: 4, data: makePicture(spec).data }));
      const show = start(['gpu', 'show', address, PICTURE, '--fit', 'image', ...how]);
      await show.said(/cli.png \(640 × 480\) is on display 0 \(640 × 480\)/);
      await expectShown(context, { expected: spec });
      await interrupt(show, 0);
      const wrong = await virtio(['gpu', 'show', address, PICTURE, '--scanout', '3', ...how]);
      equal(wrong.status, 2);
      match(wrong.stderr, /--scanout is 3; the device has 1, the first is 0/);
      rmSync(PICTURE);
    },
  }),

  guestTest({
    device: 'cli',
    name: 'plays a WAV file, every sample in its place',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { sound: wavSound(RATE) },
    host: soundHost,
    async guest(context) {
      const [address, ...how] = place(context, 'sound');
      const signal: Signal = { rate: RATE, frames: RATE, seed: 3 };
      const samples = new Int16Array(2 * (signal.frames + TAIL));
      samples.set(whole(signal));
      writeFileSync(WAV, wavFile(samples));
      const played = await json<{ format: string; rate: number; seconds: number; underruns: number }>([
        ...['sound', 'play', address, WAV],
        ...how,
      ]);
      const verdict = await context.host('judge', { expected: [{ signal }], frames: signal.frames });
      context.note(`${played.underruns} underruns, silence of ${verdict.silence.join(' and ')} frames`);
      expectPlayed(verdict, RATE);
      deepEqual([played.format, played.rate], ['S16', RATE]);
      writeFileSync(WAV, 'no WAV');
      equal((await virtio(['sound', 'play', address, WAV, ...how])).status, 2);
      rmSync(WAV);
    },
  }),

  guestTest({
    device: 'cli',
    name: 'records a WAV file, every sample in its place',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { sound: alsaSound(RATE) },
    prepare: prepareAlsa,
    async guest(context) {
      const [address, ...how] = place(context, 'sound');
      const recorded = await json<{ seconds: number; overruns: number }>([
        ...['sound', 'record', address, WAV, '--seconds', '1', '--rate', String(RATE)],
        ...how,
      ]);
      equal(recorded.seconds, 1);
      const { rate, channels, complete, samples } = readWav(WAV);
      deepEqual([rate, channels, complete, samples.length], [RATE, 2, true, 2 * RATE]);
      const first = numberOf(samples[0] ?? 0, samples[1] ?? 0);
      ok(first >= 0, `the first frame is ${samples[0]}, ${samples[1]}`);
      equal(Buffer.compare(Buffer.from(samples.buffer), Buffer.from(numbered(first, RATE).buffer)), 0);
      context.note(`from frame ${first} on, ${recorded.overruns} overruns`);

      const open = start(['sound', 'record', address, WAV, ...how]);
      await open.said(/recording until SIGINT/);
      await interrupt(open, 0);
      ok(readFileSync(WAV).length >= 44);
      rmSync(WAV);
    },
  }),
];
