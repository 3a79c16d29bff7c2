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
/** Seconds from note to note, and how long a tine sounds. */
const STEP = 0.19;
const DECAY = 3.2;
/** Frames of a period: 100 ms. Ten of them lie ready, so that a busy machine is no reason for a gap. */
const PERIOD = RATE / 10;

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

const step = Math.round(STEP * RATE);
const decay = Math.round(DECAY * RATE);
const total = keys.length * step + decay;

/** A partial of a tine: a sine that dies away, without a sine for each frame. */
function addPartial(tine: Float32Array, pitch: number, loudness: number, seconds: number): void {
  const angle = (2 * Math.PI * pitch) / RATE;
  const fade = Math.exp(-5 / (seconds * RATE));
  const [cos, sin] = [fade * Math.cos(angle), fade * Math.sin(angle)];
  let [x, y] = [loudness, 0];
  for (let n = 0; n < tine.length; n += 1) {
    tine[n] = (tine[n] ?? 0) + y;
    [x, y] = [cos * x - sin * y, sin * x + cos * y];
  }
}

const tines = new Map<number, Float32Array>();

/** The sound of a key: a tone, and the high ones of the metal, which die away sooner. */
function tine(key: number): Float32Array {
  const known = tines.get(key);
  if (known !== undefined) return known;
  const pitch = 440 * 2 ** ((key - 69) / 12);
  const made = new Float32Array(decay);
  addPartial(made, pitch, 1, DECAY);
  addPartial(made, 3 * pitch, 0.5, DECAY / 3);
  addPartial(made, 6.3 * pitch, 0.2, DECAY / 6);
  // Plucked within 2 ms, as what begins at once clicks.
  for (let n = 0; n < 96; n += 1) made[n] = (made[n] ?? 0) * (n / 96);
  tines.set(key, made);
  return made;
}

/** All frames, left and right in turn. Made before the first is played: this takes longer than a buffer lasts. */
function score(): Int16Array {
  const sum = new Float32Array(2 * total);
  keys.forEach((key, place) => {
    const sound = tine(key);
    const right = Math.min(1, Math.max(0, (key - 48) / 36));
    const loudness = place % 8 === 0 ? 1.4 : 1;
    const [toLeft, toRight] = [loudness * Math.sqrt(1 - right), loudness * Math.sqrt(right)];
    let at = 2 * place * step;
    for (const value of sound) {
      sum[at] = (sum[at] ?? 0) + toLeft * value;
      sum[at + 1] = (sum[at + 1] ?? 0) + toRight * value;
      at += 2;
    }
  });
  const peak = sum.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return Int16Array.from(sum, (value) => (30_000 / peak) * value);
}

const found = listDevices().find(({ deviceType }) => deviceType === DeviceType.Sound);
if (found === undefined) throw new Error('there is no sound device: add --sound music-box.wav');
using sound = openDriver(VirtioSound, found, { unsafePhysicalMemory: found.kind === 'mmio' });

console.log(`winding up: ${keys.length} notes, ${(total / RATE).toFixed(1)} s`);
const frames = score();
await using stream = await sound.openPlayback({
  format: 'S16',
  rate: RATE,
  channels: 2,
  periodBytes: 4 * PERIOD,
  bufferBytes: 10 * 4 * PERIOD,
});
const bar = 16 * step;
for (let at = 0; at < total; at += bar) {
  if (at < keys.length * step) process.stdout.write(`♪ bar ${at / bar + 1}\n`);
  await stream.write(frames.subarray(2 * at, 2 * (at + bar)));
}
await stream.drain();
console.log(`played, with ${stream.underruns} under-runs`);
