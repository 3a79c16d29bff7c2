/** What is captured: ALSA feeds QEMU a file whose frames tell their number. */
import type { CaptureStream } from '@virtio/sound';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest, small } from '../../framework/define.ts';
import { alsaSound, CAPTURE_FRAMES, host, openSound, prepareAlsa } from './_sound.ts';
import { numbered, numberOf, type Signal, whole } from './_signal.ts';

const PARAMETERS = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: 4 * 960,
  bufferBytes: 8 * 4 * 960,
} as const;

async function read(stream: CaptureStream, count: number): Promise<Int16Array> {
  const samples = new Int16Array(2 * count);
  const bytes = new Uint8Array(samples.buffer);
  for (let at = 0; at < bytes.length;) at += await stream.read(bytes.subarray(at));
  return samples;
}

/** Where in the file captured frames are; fails unless they are there, all of them, in order. */
function expectNumbered(samples: Int16Array): number {
  const first = numberOf(samples[0] ?? 0, samples[1] ?? 0);
  ok(
    first >= 0 && first < CAPTURE_FRAMES,
    `the first frame is ${samples[0]}, ${samples[1]}: it is not of the file`,
  );
  const wanted = numbered(first, samples.length >> 1);
  const wrong = samples.findIndex((sample, n) => sample !== wanted[n]);
  equal(
    wrong,
    -1,
    `sample ${wrong} is ${samples[wrong]} in place of ${wanted[wrong]}; the first frame is number ${first}`,
  );
  return first;
}

export default [
  guestTest({
    device: 'sound',
    name: 'captures at 48 kHz, every sample in its place',
    essential: 'checks',
    timeoutS: 120,
    devices: { sound: alsaSound(48_000) },
    prepare: prepareAlsa,
    host,
    async guest(context) {
      using opened = openSound(context);
      const stream = await opened.sound.openCapture(PARAMETERS);
      const samples = await read(stream, small(context.cell, 240_000, 24_000));
      await stream.close();
      const first = expectNumbered(samples);
      deepEqual([stream.failedPeriods, opened.sound.quirks], [0, 0]);
      context.note(`${samples.length / 2} frames from frame ${first} on, ${stream.overruns} overruns`);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'captures through a ReadableStream, by spinning and without waiting',
    timeoutS: 120,
    devices: { sound: alsaSound(48_000) },
    prepare: prepareAlsa,
    host,
    async guest(context) {
      using opened = openSound(context);
      const stream = await opened.sound.openCapture(PARAMETERS);
      let total = 0;
      const chunks: Uint8Array[] = [];
      for await (const chunk of stream.readable(ReadableStream<Uint8Array>)) {
        chunks.push(chunk);
        total += chunk.length;
        if (total >= 4 * 48_000) break;
      }
      expectNumbered(new Int16Array(Uint8Array.from(Buffer.concat(chunks)).buffer));
      equal(stream.state, 'released');
      stream.closeSync();
      const again = opened.sound.openCaptureSync(PARAMETERS);
      const samples = new Int16Array(2 * 24_000);
      const bytes = new Uint8Array(samples.buffer);
      let at = 0;
      while (at < bytes.length / 2) at += again.readSync(bytes.subarray(at, bytes.length / 2));
      while (at < bytes.length) {
        const count = again.submitRead(bytes.subarray(at));
        at += count;
        if (count === 0) await delay(5);
      }
      expectNumbered(samples);
      again.closeSync();
    },
  }),

  guestTest({
    device: 'sound',
    name: 'keeps what was captured when it is stopped, and starts anew',
    devices: { sound: alsaSound(48_000) },
    prepare: prepareAlsa,
    host,
    async guest(context) {
      using opened = openSound(context);
      const stream = await opened.sound.openCapture(PARAMETERS);
      for (let round = 0; round < 3; round += 1) {
        await stream.start();
        await read(stream, 4800);
        // Nobody reads for a while: the buffer fills, and the device runs out of periods.
        await delay(600);
        const overruns = stream.overruns;
        ok(overruns > round - 1, 'nobody read, and nothing was lost');
        await stream.stop();
        const rest = new Int16Array(2 * 20_000);
        const bytes = new Uint8Array(rest.buffer);
        let at = 0;
        for (let count = -1; count !== 0; at += count) count = await stream.read(bytes.subarray(at));
        ok(at >= 8 * PARAMETERS.periodBytes, `${at} bytes were left`);
        expectNumbered(rest.subarray(0, at >> 1));
      }
      await stream.close();
    },
  }),

  guestTest({
    device: 'sound',
    name: 'captures and plays at once',
    timeoutS: 120,
    devices: { sound: alsaSound(48_000) },
    prepare: prepareAlsa,
    host,
    async guest(context) {
      using opened = openSound(context);
      const signal: Signal = { rate: 48_000, frames: 96_000, seed: 13 };
      const capture = await opened.sound.openCapture({ ...PARAMETERS, format: 'S16' });
      const playback = await opened.sound.openPlayback({ ...PARAMETERS, format: 'S16' });
      const [samples] = await Promise.all([
        read(capture, 96_000),
        (async () => {
          await playback.write(whole(signal));
          await playback.write(new Int16Array(2 * 8192));
          await playback.close();
        })(),
      ]);
      await capture.close();
      equal(await context.host('judgeRaw', { signal, low: 0 }), null);
      ok(samples.length > 0);
    },
  }),
];
