/**
 * Signals that both sides can generate, so that they need not be transferred. Each frame differs from the next, and left from
 * right.
 */

/** What a signal is: a rate, and a seed that tells signals of a test apart. */
export interface Signal {
  readonly rate: number;
  readonly frames: number;
  readonly seed: number;
}

const FULL = 32_767;

/**
 * Frames of a stereo signal: a sweep upwards on the left, another one downwards on the right, and each second, and with the last frame, a
 * click. Its first and last frames are loud, so that silence around it is told from it.
 *
 * @param from the first frame
 * @param count how many
 */
export function frames({ rate, frames: total, seed }: Signal, from: number, count: number): Int16Array {
  const samples = new Int16Array(2 * count);
  const seconds = total / rate;
  for (let n = 0; n < count; n += 1) {
    const frame = from + n;
    const time = frame / rate;
    if (frame % rate < 4 || frame === total - 1) {
      samples[2 * n] = FULL - seed;
      samples[2 * n + 1] = -FULL + seed;
      continue;
    }
    // The phase of a sweep is the integral of its frequency.
    const left = 2 * Math.PI * (200 + 20 * seed + (1800 * time) / (2 * seconds)) * time;
    const right = 2 * Math.PI * (4000 - 30 * seed - (3000 * time) / (2 * seconds)) * time;
    samples[2 * n] = Math.round(20_000 * Math.sin(left));
    samples[2 * n + 1] = Math.round(15_000 * Math.sin(right));
  }
  return samples;
}

/** A whole signal. */
export const whole = (signal: Signal): Int16Array => frames(signal, 0, signal.frames);

/** Frames that tell their own number: what is captured is looked for by it. */
export function numbered(from: number, count: number): Int16Array {
  const samples = new Int16Array(2 * count);
  for (let n = 0; n < count; n += 1) {
    const frame = from + n + 1;
    samples[2 * n] = frame & 0x7fff;
    samples[2 * n + 1] = -(frame >> 15) - 1;
  }
  return samples;
}

/** The number that a frame of {@link numbered} tells. */
export const numberOf = (left: number, right: number): number => ((-right - 1) << 15) + left - 1;
