/**
 * Sample formats and frame rates: their numbers in the protocol, and the sizes of frames.
 */
import { VirtioError } from '@virtio/core';

/**
 * The sample formats, by number. The name gives the number of significant bits. With `_3` a sample has 3 bytes; else the next of
 * 1, 2, 4 or 8 bytes, with the sample in the lower bits. All are little-endian.
 *
 * @see VIRTIO 1.4, 5.14.6.6.2
 */
export const PcmFormat = {
  IMA_ADPCM: 0,
  MU_LAW: 1,
  A_LAW: 2,
  S8: 3,
  U8: 4,
  S16: 5,
  U16: 6,
  S18_3: 7,
  U18_3: 8,
  S20_3: 9,
  U20_3: 10,
  S24_3: 11,
  U24_3: 12,
  S20: 13,
  U20: 14,
  S24: 15,
  U24: 16,
  S32: 17,
  U32: 18,
  FLOAT: 19,
  FLOAT64: 20,
  DSD_U8: 21,
  DSD_U16: 22,
  DSD_U32: 23,
  IEC958_SUBFRAME: 24,
} as const;

/** The name of a sample format. */
export type PcmFormatName = keyof typeof PcmFormat;

/** The size of a sample of each format in memory, in bits. */
export const SAMPLE_BITS: Readonly<Record<PcmFormatName, number>> = {
  IMA_ADPCM: 4,
  MU_LAW: 8,
  A_LAW: 8,
  S8: 8,
  U8: 8,
  S16: 16,
  U16: 16,
  S18_3: 24,
  U18_3: 24,
  S20_3: 24,
  U20_3: 24,
  S24_3: 24,
  U24_3: 24,
  S20: 32,
  U20: 32,
  S24: 32,
  U24: 32,
  S32: 32,
  U32: 32,
  FLOAT: 32,
  FLOAT64: 64,
  DSD_U8: 8,
  DSD_U16: 16,
  DSD_U32: 32,
  IEC958_SUBFRAME: 32,
};

/**
 * The frame rates in Hz; the index of each is its number in the protocol.
 *
 * @see VIRTIO 1.4, 5.14.6.6.2
 */
export const PCM_RATES = [
  5512, 8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000, 176_400, 192_000,
  384_000, 12_000, 24_000,
] as const;

/** A frame rate in Hz. */
export type PcmRate = (typeof PCM_RATES)[number];

/** The number of a format in the protocol, or -1. */
export function formatNumber(format: string): number {
  return Object.hasOwn(PcmFormat, format) ? PcmFormat[format as PcmFormatName] : -1;
}

/** The number of a rate in the protocol, or -1. */
export function rateNumber(rate: number): number {
  return (PCM_RATES as readonly number[]).indexOf(rate);
}

/** The rates whose bits are set, in ascending order. */
export function ratesOf(bits: bigint): PcmRate[] {
  return PCM_RATES.filter((_rate, bit) => ((bits >> BigInt(bit)) & 1n) !== 0n).sort((a, b) => a - b);
}

/** The layout of samples in memory. */
export interface FrameShape {
  readonly format: PcmFormatName;
  readonly channels: number;
}

/** The size of a frame in bits: one sample of each channel. */
export function frameBits({ format, channels }: FrameShape): number {
  return SAMPLE_BITS[format] * channels;
}

/**
 * The size of a number of frames in bytes. IMA ADPCM with an odd number of channels has frames with half a byte: their number must be
 * even.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if that is not a whole number of bytes
 *
 * @example
 * ```ts
 * import { bytesOfFrames } from '@virtio/sound';
 *
 * bytesOfFrames({ format: 'S16', channels: 2 }, 480); // 1920
 * ```
 */
export function bytesOfFrames(shape: FrameShape, frames: number): number {
  const bytes = (frameBits(shape) * frames) / 8;
  if (Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
  throw new VirtioError(
    'INVALID_PARAM',
    `${frames} frames of ${shape.channels} ${shape.format} samples are not a whole number of bytes`,
  );
}

/** The number of frames in a number of bytes, rounded down. */
export function framesOfBytes(shape: FrameShape, bytes: number): number {
  return Math.floor((bytes * 8) / frameBits(shape));
}

/** Whether a number of bytes is a whole number of frames. */
export function isWholeFrames(shape: FrameShape, bytes: number): boolean {
  return (bytes * 8) % frameBits(shape) === 0;
}
