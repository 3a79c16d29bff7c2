/** What the sound tests share: devices with a file behind them, opening one, and the host's judgement of what was played. */
import { type PlaybackStream, VirtioSound } from '@virtio/sound';
import { deepEqual } from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type DeviceSpec, type GuestContext, type HostEnv, type Properties } from '../../framework/define.ts';
import { expectRing, open } from '../_open.ts';
import { numbered, type Signal, whole } from './_signal.ts';
import { readWav } from './_wav.ts';
import { drawWaves } from './_wave.ts';

/** How many frames of the numbered signal can be captured. */
export const CAPTURE_FRAMES = 1_000_000;

/**
 * ALSA's own configuration for QEMU: it has no card here. `feed` gives what a file holds, `tap` writes what is played to a file; both stand
 * over a device that takes and gives at any time.
 */
const ALSA = `
pcm.feed {
  @args [ FILE ]
  @args.FILE { type string }
  type file
  slave.pcm { type null }
  file /dev/null
  infile $FILE
  format raw
}
pcm.tap {
  @args [ FILE ]
  @args.FILE { type string }
  type file
  slave.pcm { type null }
  file $FILE
  format raw
}
`;

/** Plays into a WAV file with stereo frames of 16 bits. */
export function wavSound(rate: number, properties: Properties = {}, hotplug = false): DeviceSpec {
  return {
    model: 'virtio-sound',
    hotplug,
    properties,
    before: [
      '-audiodev',
      `wav,id={id}-audio,path={dir}/played.wav,out.frequency=${rate},out.channels=2,out.format=s16`,
    ],
    after: ['-set', 'device.{id}.audiodev={id}-audio'],
  };
}

/** Plays into a raw file of samples of 32 bits, and captures from a file with frames that tell their number. */
export function alsaSound(rate: number, properties: Properties = {}): DeviceSpec {
  const side = (name: string, dev: string, format: string): string =>
    `${name}.dev=${dev},${name}.frequency=${rate},${name}.channels=2,${name}.format=${format},${name}.try-poll=off`;
  return {
    model: 'virtio-sound',
    properties,
    environment: { ALSA_CONFIG_PATH: '{dir}/alsa.conf' },
    before: [
      '-audiodev',
      `alsa,id={id}-audio,${side('in', 'feed:{dir}/captured.raw', 's16')},${side('out', 'tap:{dir}/played.raw', 's32')}`,
    ],
    after: ['-set', 'device.{id}.audiodev={id}-audio'],
  };
}

/** Files for {@link alsaSound}. */
export function prepareAlsa(directory: string): void {
  writeFileSync(join(directory, 'alsa.conf'), ALSA);
  writeFileSync(join(directory, 'captured.raw'), Buffer.from(numbered(0, CAPTURE_FRAMES).buffer));
}

export interface OpenSound extends Disposable {
  readonly sound: VirtioSound;
}

export function openSound(context: Pick<GuestContext, 'cell' | 'device'>, name = 'sound'): OpenSound {
  using stack = new DisposableStack();
  const device = stack.use(open(context, name));
  const sound = stack.use(new VirtioSound(device.transport, device.hal));
  expectRing(sound.features, context.cell);
  const kept = stack.move();
  return { sound, [Symbol.dispose]: () => kept.dispose() };
}

/** What the host found. */
export interface Verdict {
  /** The frames of silence before, between and after the signals. */
  readonly silence: readonly number[];
  /** What is wrong, if something is. */
  readonly wrong: string | null;
  readonly complete: boolean;
  readonly rate: number;
}

/** What is expected of a file: a signal, of which only one channel may count, or a part of one that was broken off. */
export interface Expected {
  readonly signal: Signal;
  /** What is lost of each sample, in bits: 8 for formats with 8 bits. */
  readonly shift?: number;
  /**
   * What QEMU adds to each sample, wrapping round at the top: it takes 127, not 128, for the middle of U8, and 32767 for that of U16. Silence
   * is not silent then.
   */
  readonly offset?: number;
  /** The signal was broken off: at least so many of its frames are there, and any number of further ones. */
  readonly atLeast?: number;
}

/** What becomes of a sample on its way through QEMU: 16 bits of it. */
const throughQemu = (value: number, { shift = 0, offset = 0 }: Expected): number =>
  ((((value >> shift) << shift) + offset) << 16) >> 16;

/** Compares the frames of a file with signals, one after the other; between them, before and after there is silence, and nothing else. */
export function judge(
  samples: Int16Array,
  expected: readonly Expected[],
): Pick<Verdict, 'silence' | 'wrong'> {
  const silence: number[] = [];
  const total = samples.length >> 1;
  let at = 0;
  const skip = (...quiet: readonly (number | undefined)[]): void => {
    const from = at;
    const isQuiet = (sample: number | undefined): boolean => sample === 0 || quiet.includes(sample);
    while (at < total && isQuiet(samples[2 * at]) && isQuiet(samples[2 * at + 1])) at += 1;
    silence.push(at - from);
  };
  for (const [number, one] of expected.entries()) {
    const { signal, atLeast } = one;
    skip(expected[number - 1]?.offset, one.offset);
    const wanted = whole(signal).map((sample) => throughQemu(sample, one));
    let frame = 0;
    for (; frame < signal.frames; frame += 1) {
      const place = 2 * (at + frame);
      if (samples[place] !== wanted[2 * frame] || samples[place + 1] !== wanted[2 * frame + 1]) break;
    }
    if (frame < (atLeast ?? signal.frames)) {
      const show = (list: ArrayLike<number>, index: number): string =>
        `${list[2 * index]}, ${list[2 * index + 1]}`;
      const place = at + frame;
      return {
        silence,
        wrong:
          `signal ${number}: frame ${frame} of ${signal.frames} should be ${show(wanted, frame)}; frame ${place} of ${total} of the file is ` +
          `${show(samples, place)}, those before it ${show(samples, place - 2)}; ${show(samples, place - 1)}`,
      };
    }
    at += frame;
  }
  skip(expected.at(-1)?.offset);
  return {
    silence,
    wrong: at === total ? null : `there is something behind the signals, at frame ${at} of ${total}`,
  };
}

/** How long the host waits for a file to grow. */
const PATIENCE_MS = 20_000;

export const host = {
  /**
   * Waits until the file has so many frames, and judges it. QEMU writes it in pieces of 4096 bytes, so the last frames are missing until it is
   * closed: whoever calls has played silence behind the signals.
   */
  async judge(
    {
      expected,
      frames: least,
      picture = false,
    }: { expected: readonly Expected[]; frames: number; picture?: boolean },
    env: HostEnv,
  ): Promise<Verdict> {
    const path = join(env.directory, 'played.wav');
    const deadline = performance.now() + PATIENCE_MS;
    while ((!existsSync(path) || statSync(path).size < 44 + 4 * least) && performance.now() < deadline) {
      await delay(50);
    }
    const { samples, complete, rate } = readWav(path);
    const found = judge(samples, expected);
    if (picture) {
      // What was expected stands where it was played: behind the silence that QEMU put before it.
      const wanted = new Int16Array(samples.length);
      let at = 0;
      for (const [n, { signal }] of expected.entries()) {
        at += found.silence[n] ?? 0;
        wanted.set(whole(signal).subarray(0, wanted.length - 2 * at), 2 * at);
        at += signal.frames;
      }
      env.picture(
        `what QEMU's WAV file has, and what was expected: ${found.wrong ?? 'every sample is the same'}`,
        'image/svg+xml',
        drawWaves(
          [
            { title: 'played', samples },
            { title: 'expected', samples: wanted },
          ],
          rate,
        ),
      );
    }
    return { ...found, complete, rate };
  },
  /** Looks for the channels of a signal, each for itself: they were played by two streams. Returns what is wrong with each. */
  async channels({ signal }: { signal: Signal }, { directory }: HostEnv): Promise<(string | null)[]> {
    const path = join(directory, 'played.wav');
    const deadline = performance.now() + PATIENCE_MS;
    while (
      (!existsSync(path) || statSync(path).size < 44 + 4 * (signal.frames + 4000)) &&
      performance.now() < deadline
    ) {
      await delay(50);
    }
    const { samples } = readWav(path);
    const wanted = whole(signal);
    return [0, 1].map((channel) => {
      const played = samples.filter((_, n) => n % 2 === channel);
      const start = played.findIndex((sample) => sample !== 0);
      for (let n = 0; n < signal.frames; n += 1) {
        if (played[start + n] !== wanted[2 * n + channel]) {
          return `frame ${n} is ${played[start + n]} in place of ${wanted[2 * n + channel]}`;
        }
      }
      return played.subarray(start + signal.frames).every((sample) => sample === 0)
        ? null
        : 'there is something behind';
    });
  },
  /** How many frames the file has now, roughly. */
  size(_args: null, { directory }: HostEnv): number {
    const path = join(directory, 'played.wav');
    return existsSync(path) ? Math.max(0, statSync(path).size - 44) >> 2 : 0;
  },
  unplug: (_args: null, env: HostEnv): Promise<unknown> =>
    env.qmp('device_del', { id: env.deviceId('sound') }),
  /** Waits until the guest has let the device go. */
  gone: (_args: null, env: HostEnv): Promise<unknown> => env.qmpEvent('DEVICE_DELETED', 60_000),
  /** Judges the raw file of samples of 32 bits that the `tap` wrote: it holds exactly these words somewhere, with silence around. */
  async judgeRaw(
    { signal, low }: { signal: Signal; low: number },
    { directory }: HostEnv,
  ): Promise<string | null> {
    const path = join(directory, 'played.raw');
    const deadline = performance.now() + PATIENCE_MS;
    while ((!existsSync(path) || statSync(path).size < 8 * signal.frames) && performance.now() < deadline) {
      await delay(50);
    }
    const bytes = readFileSync(path);
    const words = new Int32Array(
      bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + (bytes.length & ~7)),
    );
    const wanted = wide(whole(signal), low);
    let at = 0;
    while (at < words.length && words[at] === 0) at += 1;
    at -= at % 2;
    for (let n = 0; n < wanted.length; n += 1) {
      if (words[at + n] !== wanted[n]) {
        return `sample ${n} of ${wanted.length} is ${words[at + n]} in place of ${wanted[n]}, at ${at}`;
      }
    }
    return words.subarray(at + wanted.length).every((word) => word === 0)
      ? null
      : 'there is something behind the signal';
  },
} as const;

/** Samples of 32 bits: those of 16, and something of their own in the lower bits, which differs in each. */
export function wide(samples: Int16Array, low: number): Int32Array {
  return Int32Array.from(samples, (sample, n) => (sample << 16) | ((n * low) & 0xffff));
}

/** Writes a signal in pieces of a tenth of a second. It is made before: a slow guest makes it slower than it is heard. */
export async function playSignal(stream: PlaybackStream, signal: Signal): Promise<void> {
  const samples = whole(signal);
  const step = 2 * Math.round(signal.rate / 10);
  for (let at = 0; at < samples.length; at += step) await stream.write(samples.subarray(at, at + step));
}

/** Frames of silence behind signals: more than QEMU keeps back. */
export const TAIL = 8192;

export const silence = (count: number): Int16Array => new Int16Array(2 * count);

/** Fails unless the host found the signals, and silence around them. */
export function expectPlayed(verdict: Verdict, rate: number): void {
  deepEqual({ wrong: verdict.wrong, rate: verdict.rate }, { wrong: null, rate });
}
