/**
 * A music box with Bach's first prelude, C major (BWV 846), its first eleven bars and an end, into a WAV file of the host:
 *
 *     npm run guest -- --sound music-box.wav apps/qemu-harness/examples/music-box.ts
 *
 * Twelve tines at most sound at once, the low ones on the left, the high ones on the right.
 */
import { DeviceType } from '@virtio/core';
import { listDevices, openDriver } from '@virtio/linux';
import { VirtioSound } from '@virtio/sound';

const RATE = 48_000;
/** Seconds from note to note, and how fast a tine dies away. */
const STEP = 0.19;
const DECAY = 3.2;

/** The five notes of each half bar, as keys of a piano: 60 is the middle C. */
const BARS: readonly (readonly [number, number, number, number, number])[] = [
  [60, 64, 67, 72, 76],
  [60, 62, 69, 74, 77],
  [59, 62, 67, 74, 77],
  [60, 64, 67, 72, 76],
  [60, 64, 69, 76, 81],
  [60, 62, 66, 69, 74],
  [59, 62, 67, 74, 79],
  [59, 60, 64, 67, 72],
  [57, 60, 64, 67, 72],
  [50, 57, 62, 66, 72],
  [55, 59, 62, 67, 71],
];
const keys = [
  ...BARS.flatMap(([a, b, c, d, e]) => [a, b, c, d, e, c, d, e, a, b, c, d, e, c, d, e]),
  ...[60, 64, 67, 72, 76, 79, 84],
];

const found = listDevices().find(({ deviceType }) => deviceType === DeviceType.Sound);
if (found === undefined) throw new Error('there is no sound device: add --sound music-box.wav');
using sound = openDriver(VirtioSound, found, { unsafePhysicalMemory: found.kind === 'mmio' });
await using stream = await sound.openPlayback({ format: 'S16', rate: RATE, channels: 2 });

const step = Math.round(STEP * RATE);
const total = (keys.length + 1) * step + Math.round(DECAY * RATE);
/** What was not played yet of the tines that sound, left and right in turn. */
const ringing = new Float32Array(2 * (step + Math.round(DECAY * RATE)));

/** Plucks a tine: a tone, and the high ones of the metal, which die away sooner. */
function pluck(key: number, loudness: number): void {
  const angle = (2 * Math.PI * 440 * 2 ** ((key - 69) / 12)) / RATE;
  const right = Math.min(1, Math.max(0, (key - 48) / 36));
  const frames = ringing.length >> 1;
  for (let n = 0; n < frames; n += 1) {
    const fade = Math.exp((-5 * n) / (DECAY * RATE)) * Math.min(1, n / 96);
    const tone =
      Math.sin(angle * n) +
      0.5 * fade ** 2 * Math.sin(3 * angle * n) +
      0.2 * fade ** 5 * Math.sin(6.3 * angle * n);
    const value = loudness * fade * tone;
    ringing[2 * n] = (ringing[2 * n] ?? 0) + value * Math.sqrt(1 - right);
    ringing[2 * n + 1] = (ringing[2 * n + 1] ?? 0) + value * Math.sqrt(right);
  }
}

/** Takes the next frames and moves the rest up. */
function next(count: number): Int16Array {
  const samples = Int16Array.from(ringing.subarray(0, 2 * count), (value) => 32_767 * Math.tanh(value));
  ringing.copyWithin(0, 2 * count);
  ringing.fill(0, ringing.length - 2 * count);
  return samples;
}

console.log(`${keys.length} notes, ${(total / RATE).toFixed(1)} s`);
let played = 0;
for (const [n, key] of keys.entries()) {
  pluck(key, n % 8 === 0 ? 0.26 : 0.18);
  await stream.write(next(step));
  played += step;
  if (n % 16 === 0) process.stdout.write(`♪ bar ${n / 16 + 1}\n`);
}
for (; played < total; played += step) await stream.write(next(step));
await stream.drain();
console.log(`played, with ${stream.underruns} under-runs`);
