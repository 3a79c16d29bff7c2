/** What is played, compared on the host sample by sample. */
import {
  bytesOfFrames,
  encodeSamples,
  type PcmFormatName,
  streamCommand,
  parametersCommand,
} from '@virtio/sound';
import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { type GuestTest, guestTest } from '../../framework/define.ts';
import {
  alsaSound,
  expectPlayed,
  host,
  openSound,
  playSignal,
  prepareAlsa,
  silence,
  TAIL,
  wavSound,
  wide,
} from './_sound.ts';
import { frames, type Signal, whole } from './_signal.ts';

const PERIOD_MS = 40;
const PERIODS = 8;

/** Room for a busy host: 320 ms. */
function parameters(rate: number, format: PcmFormatName = 'S16'): object {
  const periodBytes = bytesOfFrames({ format, channels: 2 }, (rate * PERIOD_MS) / 1000);
  return { format, rate, channels: 2, periodBytes, bufferBytes: PERIODS * periodBytes };
}

/** The formats of QEMU's device: the bits that a sample loses on its way, and what QEMU adds. */
const FORMATS = [
  { format: 'U8', shift: 8, offset: 256 },
  { format: 'S8', shift: 8, offset: 0 },
  { format: 'U16', shift: 0, offset: 1 },
  { format: 'S16', shift: 0, offset: 0 },
  { format: 'U32', shift: 0, offset: 0 },
  { format: 'S32', shift: 0, offset: 0 },
  { format: 'FLOAT', shift: 0, offset: 0 },
] as const;

/** Plays a signal of so many seconds; every sample of it is found in its place. */
function playsAll(seconds: number, share: Pick<GuestTest, 'essential' | 'long'>): GuestTest {
  return guestTest({
    device: 'sound',
    name: `plays ${seconds} s at 48 kHz, every sample in its place`,
    ...share,
    timeoutS: 120,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const signal: Signal = { rate: 48_000, frames: seconds * 48_000, seed: 1 };
      const stream = await sound.openPlayback(parameters(48_000));
      const began = performance.now();
      await playSignal(stream, signal);
      await stream.write(silence(TAIL));
      await stream.close();
      const took = (performance.now() - began) / 1000;
      const verdict = await context.host('judge', {
        expected: [{ signal }],
        frames: signal.frames,
        picture: true,
      });
      expectPlayed(verdict, 48_000);
      equal(stream.failedPeriods, 0);
      context.note(
        `${took.toFixed(1)} s, ${stream.underruns} underruns, silence of ${verdict.silence.join(' and ')} frames`,
      );
      ok(took > 0.8 * seconds, 'played faster than it can be heard');
    },
  });
}

export default [
  playsAll(3, { essential: true }),
  playsAll(10, { long: true }),

  guestTest({
    device: 'sound',
    name: 'plays 10 s at 44.1 kHz through a WritableStream',
    long: true,
    timeoutS: 120,
    devices: { sound: wavSound(44_100) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const signal: Signal = { rate: 44_100, frames: 441_000, seed: 2 };
      const stream = await opened.sound.openPlayback(parameters(44_100));
      const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
      const step = 4410;
      for (let at = 0; at < signal.frames; at += step) {
        const bytes = new Uint8Array(frames(signal, at, step).buffer);
        // Chunks end anywhere, also within a frame.
        await writer.write(bytes.subarray(0, 1001));
        await writer.write(bytes.subarray(1001));
      }
      await writer.write(new Uint8Array(4 * TAIL));
      await writer.close();
      const verdict = await context.host('judge', { expected: [{ signal }], frames: signal.frames });
      expectPlayed(verdict, 44_100);
      context.note(`${stream.underruns} underruns`);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'plays every format that the device has',
    long: true,
    timeoutS: 120,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const expected = [];
      let total = 0;
      const [info] = await sound.control.streamInfos();
      deepEqual([...(info?.formats ?? [])].sort(), FORMATS.map(({ format }) => format).sort());
      for (const [number, { format, shift, offset }] of FORMATS.entries()) {
        const signal: Signal = { rate: 48_000, frames: 48_000, seed: 10 + number };
        const samples = whole(signal);
        // What has 8 bits gets samples of which only 8 count.
        const cut = shift === 0 ? samples : samples.map((sample) => (sample >> shift) << shift);
        const stream = await sound.openPlayback(parameters(48_000, format));
        await stream.write(encodeSamples(format, cut));
        await stream.write(encodeSamples(format, silence(TAIL)));
        await stream.close();
        expected.push({ signal, shift, offset });
        total += signal.frames;
      }
      const verdict = await context.host('judge', { expected, frames: total + TAIL });
      expectPlayed(verdict, 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'plays all 32 bits of a sample',
    devices: { sound: alsaSound(48_000) },
    prepare: prepareAlsa,
    host,
    async guest(context) {
      using opened = openSound(context);
      const signal: Signal = { rate: 48_000, frames: 96_000, seed: 3 };
      const stream = await opened.sound.openPlayback(parameters(48_000, 'S32'));
      await stream.write(wide(whole(signal), 7919));
      await stream.write(new Int32Array(2 * TAIL));
      await stream.close();
      equal(await context.host('judgeRaw', { signal, low: 7919 }), null);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'plays by spinning and without waiting, too',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const first: Signal = { rate: 48_000, frames: 48_000, seed: 4 };
      const second: Signal = { rate: 48_000, frames: 48_000, seed: 5 };
      const stream = sound.openPlaybackSync(parameters(48_000));
      stream.writeSync(whole(first));
      stream.writeSync(silence(TAIL));
      stream.drainSync();
      // So that it takes periods before it is started.
      sound.control.releaseSync(stream.id);
      sound.control.prepareSync(stream.id);
      const bytes = new Uint8Array(whole(second).buffer);
      for (let at = 0; at < bytes.length;) {
        const taken = stream.submitWrite(bytes.subarray(at));
        at += taken;
        if (stream.state === 'prepared' && taken > 0) stream.startSync();
        if (taken === 0) await delay(5);
      }
      stream.writeSync(silence(TAIL));
      stream.closeSync();
      const verdict = await context.host('judge', {
        expected: [{ signal: first }, { signal: second }],
        frames: first.frames + second.frames + TAIL,
      });
      expectPlayed(verdict, 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'pauses without losing or repeating a frame',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const signal: Signal = { rate: 48_000, frames: 144_000, seed: 6 };
      const stream = await opened.sound.openPlayback(parameters(48_000));
      const playing = playSignal(stream, signal).then(() => stream.write(silence(TAIL)));
      for (let round = 0; round < 3; round += 1) {
        await delay(500);
        await stream.pause();
        await delay(300);
        const before = await context.host('size', null);
        await delay(500);
        equal(await context.host('size', null), before, 'something was played during the pause');
        await stream.start();
      }
      await playing;
      await stream.close();
      expectPlayed(await context.host('judge', { expected: [{ signal }], frames: signal.frames }), 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'stops at once, forgets what was not played, and starts anew',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const long: Signal = { rate: 48_000, frames: 480_000, seed: 7 };
      const next: Signal = { rate: 48_000, frames: 48_000, seed: 8 };
      const stream = await opened.sound.openPlayback(parameters(48_000));
      const playing = playSignal(stream, long);
      const ended = rejects(playing, (error: { code?: string }) => error.code === 'ABORTED');
      await delay(1500);
      await stream.stop();
      await ended;
      equal(stream.state, 'released');
      await stream.write(silence(TAIL));
      await stream.write(whole(next));
      await stream.write(silence(TAIL));
      await stream.close();
      const verdict = await context.host('judge', {
        expected: [{ signal: long, atLeast: 24_000 }, { signal: next }],
        frames: 24_000 + next.frames + TAIL,
      });
      expectPlayed(verdict, 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'reports an underrun, and goes on after it',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const told: number[] = [];
      sound.on('xrun', (id) => told.push(id));
      const signal: Signal = { rate: 48_000, frames: 96_000, seed: 9 };
      const stream = await sound.openPlayback(parameters(48_000));
      await stream.write(frames(signal, 0, 48_000));
      const before = stream.underruns;
      await delay(1500);
      equal(stream.underruns, before + 1);
      equal(told.length, before + 1);
      await stream.write(frames(signal, 48_000, 48_000));
      await stream.write(silence(TAIL));
      await stream.close();
      expectPlayed(await context.host('judge', { expected: [{ signal }], frames: signal.frames }), 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'plays two streams at once, none of them through the other',
    long: true,
    devices: { sound: wavSound(48_000, { streams: 4 }) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const signal: Signal = { rate: 48_000, frames: 96_000, seed: 11 };
      const streams = [
        await sound.openPlayback(parameters(48_000)),
        await sound.openPlayback(parameters(48_000)),
      ];
      deepEqual(
        streams.map(({ id }) => id),
        [0, 1],
      );
      // The mixer adds them up: the left channel is the first stream's, the right one the second's.
      await Promise.all(
        streams.map(async (stream, side) => {
          const samples = whole(signal);
          for (let n = 1 - side; n < samples.length; n += 2) samples[n] = 0;
          await stream.write(samples);
          await stream.write(silence(TAIL));
          await stream.drain();
        }),
      );
      const found = await context.host('channels', { signal });
      deepEqual(found, [null, null]);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'tells what it can do, and refuses what it cannot',
    devices: { sound: wavSound(48_000, { streams: 3 }) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const { control } = sound;
      deepEqual([control.jacks, control.streams, control.channelMaps, control.controls], [0, 3, 0, 0]);
      deepEqual(
        (await control.streamInfos()).map(({ direction, channelsMin, channelsMax }) => [
          direction,
          channelsMin,
          channelsMax,
        ]),
        [
          ['output', 1, 2],
          ['output', 1, 2],
          ['input', 1, 2],
        ],
      );
      deepEqual([await control.jackInfos(), control.channelMapInfosSync()], [[], []]);
      const wanted = { format: 'S16', rate: 48_000, channels: 2, periodBytes: 4000, bufferBytes: 16_000 };
      for (const wrong of [
        { format: 'S24' },
        { rate: 12_000 },
        { channels: 3 },
        { periodBytes: 4001, bufferBytes: 16_004 },
        { bufferBytes: 15_000 },
        { features: ['EVT_XRUNS' as const] },
      ]) {
        await rejects(
          control.setParameters(0, { ...wanted, ...wrong }),
          (error: { code?: string }) => error.code === 'INVALID_PARAM',
        );
      }
      await rejects(control.start(0), (error: { code?: string }) => error.code === 'INVALID_PARAM');
      throws(() => control.remapJackSync(0, 0, 0));
      // What the driver does not check, the device refuses.
      const token = control.submit(parametersCommand(0, { ...wanted, rate: 24_000 }));
      while (!(control.poll() === token));
      throws(
        () => control.complete(token),
        (error: { code?: string }) => error.code === 'UNSUPPORTED',
      );
      await control.setParameters(0, wanted);
      const prepared = control.submit(streamCommand(0, 'PREPARE'));
      while (!(control.poll() === prepared));
      control.complete(prepared);
      equal(control.streamState(0), 'prepared');
      // One channel, and two again: what QEMU tells of its channels follows the parameters that were set last.
      await (await sound.openPlayback({ stream: 1, channels: 1 })).close();
      await (await sound.openPlayback({ stream: 1, channels: 2 })).close();
    },
  }),

  guestTest({
    device: 'sound',
    name: 'plays single I/O messages of a caller who drives the stream',
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const { control } = sound;
      const signal: Signal = { rate: 48_000, frames: 48_000, seed: 12 };
      const period = 4 * 4800;
      await control.setParameters(0, {
        format: 'S16',
        rate: 48_000,
        channels: 2,
        periodBytes: period,
        bufferBytes: 2 * period,
      });
      await control.prepare(0);
      const bytes = new Uint8Array(whole(signal).buffer);
      await control.start(0);
      for (let at = 0; at < bytes.length; at += 3 * period) {
        const piece = (n: number): Uint8Array => bytes.subarray(at + n * period, at + (n + 1) * period);
        if (at + period > bytes.length) break;
        const promise = sound.transfer('output', 0, piece(0));
        equal((await promise).length, period);
        if (piece(1).length > 0) equal(sound.transferSync('output', 0, piece(1)).length, period);
        if (piece(2).length > 0) {
          const token = sound.submitTransfer('output', 0, piece(2));
          while (sound.pollTransfer('output') !== token) await delay(2);
          equal(sound.completeTransfer('output', token).length, period);
        }
      }
      await sound.transfer('output', 0, new Uint8Array(period));
      await sound.transfer('output', 0, new Uint8Array(period));
      await control.stop(0);
      await control.release(0);
      expectPlayed(await context.host('judge', { expected: [{ signal }], frames: signal.frames }), 48_000);
    },
  }),
];
