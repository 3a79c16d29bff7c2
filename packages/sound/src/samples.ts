/**
 * Converts JavaScript's samples (interleaved `Int16Array`, `Int32Array`, `Float32Array`) to the bytes of a format and back. Samples out
 * of range are clipped; nothing is dithered.
 *
 * In between, a sample is a number from -1 to 1: an integer of n bits is divided by 2^(n-1). All integers of up to 53 bits are
 * preserved.
 */
import { requireBytes, VirtioError } from '@virtio/core';
import { formatNumber, type PcmFormatName, SAMPLE_BITS } from './formats.ts';

/** Samples, interleaved. Integers use their full range; floats go from -1 to 1. */
export type Samples = Int16Array | Int32Array | Float32Array | Float64Array;

/** Data for a playback stream: bytes in the stream's format, or an array of integers or floats whose bytes are in that format. */
export type PcmData = Uint8Array | Int8Array | Uint16Array | Uint32Array | Samples;

type Put = (view: DataView, at: number, value: number) => void;
type Get = (view: DataView, at: number) => number;

interface Codec {
  readonly size: number;
  readonly put: Put;
  readonly get: Get;
}

const clip = (value: number, low: number, high: number): number =>
  value < low ? low : value > high ? high : value;

/** An integer of `bits` in `size` bytes; an unsigned one has its zero in the middle of the range. */
function integer(bits: number, size: number, signed: boolean): Codec {
  const scale = 2 ** (bits - 1);
  const offset = signed ? 0 : scale;
  const range = 2 ** bits;
  const put: Put = (view, at, value) => {
    // NaN becomes silence: it is neither below nor above.
    const sample = clip(Math.round(value * scale), -scale, scale - 1) + offset;
    let rest = Number.isNaN(sample) ? offset : sample < 0 ? sample + 2 ** (8 * size) : sample;
    for (let byte = 0; byte < size; byte += 1) {
      view.setUint8(at + byte, rest % 256);
      rest = Math.floor(rest / 256);
    }
  };
  const get: Get = (view, at) => {
    let raw = 0;
    for (let byte = size - 1; byte >= 0; byte -= 1) raw = raw * 256 + view.getUint8(at + byte);
    // The bits above the sample are of no interest.
    raw %= range;
    if (signed) return (raw >= scale ? raw - range : raw) / scale;
    return (raw - offset) / scale;
  };
  return { size, put, get };
}

const CODECS: Partial<Readonly<Record<PcmFormatName, Codec>>> = {
  S8: integer(8, 1, true),
  U8: integer(8, 1, false),
  S16: integer(16, 2, true),
  U16: integer(16, 2, false),
  S18_3: integer(18, 3, true),
  U18_3: integer(18, 3, false),
  S20_3: integer(20, 3, true),
  U20_3: integer(20, 3, false),
  S24_3: integer(24, 3, true),
  U24_3: integer(24, 3, false),
  S20: integer(20, 4, true),
  U20: integer(20, 4, false),
  S24: integer(24, 4, true),
  U24: integer(24, 4, false),
  S32: integer(32, 4, true),
  U32: integer(32, 4, false),
  FLOAT: {
    size: 4,
    put: (view, at, value) => view.setFloat32(at, value, true),
    get: (view, at) => view.getFloat32(at, true),
  },
  FLOAT64: {
    size: 8,
    put: (view, at, value) => view.setFloat64(at, value, true),
    get: (view, at) => view.getFloat64(at, true),
  },
};

/**
 * Fills an array with silence in a format.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if there is no such format
 */
export function fillSilence(format: PcmFormatName, bytes: Uint8Array): void {
  requireBytes('fillSilence', bytes);
  if (formatNumber(format) < 0) {
    throw new VirtioError('INVALID_PARAM', `there is no format ${format}; use one of PcmFormat`);
  }
  const codec = CODECS[format];
  if (codec === undefined || (format.startsWith('U') && codec.size > 1)) {
    const size = codec?.size ?? SAMPLE_BITS[format] / 8;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    bytes.fill(SILENT_BYTE[format] ?? 0);
    if (codec === undefined) return;
    for (let at = 0; at + size <= bytes.length; at += size) codec.put(view, at, 0);
    return;
  }
  bytes.fill(format === 'U8' ? 0x80 : 0);
}

/** Silence in the formats that are not linear. In mu-law it is all ones, in A-law 0x55 with the sign; in DSD as many ones as zeros. */
const SILENT_BYTE: Partial<Readonly<Record<PcmFormatName, number>>> = {
  MU_LAW: 0xff,
  A_LAW: 0xd5,
  DSD_U8: 0x69,
  DSD_U16: 0x69,
  DSD_U32: 0x69,
};

function codecOf(format: PcmFormatName): Codec {
  const codec = Object.hasOwn(CODECS, format) ? CODECS[format] : undefined;
  if (codec !== undefined) return codec;
  throw new VirtioError(
    'UNSUPPORTED',
    `samples cannot be converted to or from ${format}, which is not linear; write its bytes to the stream instead`,
  );
}

/** The divisor that scales a sample of an array to the range from -1 to 1. */
function scaleOf(samples: Samples): number {
  if (samples instanceof Int16Array) return 0x8000;
  return samples instanceof Int32Array ? 0x8000_0000 : 1;
}

/**
 * Converts interleaved samples to the bytes of a format, for `write`.
 *
 * @returns `into`, or a new array: the bytes, little-endian
 * @throws {@link VirtioError} `UNSUPPORTED` for a format that is not linear, `INVALID_PARAM` if `into` has another size
 *
 * @example
 * ```ts
 * import { encodeSamples } from '@virtio/sound';
 *
 * const bytes = encodeSamples('S16', new Float32Array([0, 0.5, -1])); // 00 00, 00 40, 00 80
 * ```
 */
export function encodeSamples(
  format: PcmFormatName,
  samples: Samples,
  into: Uint8Array = new Uint8Array(samples.length * codecOf(format).size),
): Uint8Array {
  const { size, put } = codecOf(format);
  requireSize(into.length, samples.length, size, format);
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  const scale = scaleOf(samples);
  for (let n = 0; n < samples.length; n += 1) put(view, n * size, (samples[n] ?? 0) / scale);
  return into;
}

/**
 * Converts the bytes of a format to interleaved samples.
 *
 * @param into room for all samples in `bytes`; its type is that of the result
 * @returns `into`
 * @throws {@link VirtioError} `UNSUPPORTED` for a format that is not linear, `INVALID_PARAM` if `into` has another size
 */
export function decodeSamples<S extends Samples>(format: PcmFormatName, bytes: Uint8Array, into: S): S {
  const { size, get } = codecOf(format);
  requireSize(bytes.length, into.length, size, format);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const scale = scaleOf(into);
  for (let n = 0; n < into.length; n += 1) {
    const value = get(view, n * size) * scale;
    into[n] = scale === 1 ? value : clip(Math.round(value), -scale, scale - 1);
  }
  return into;
}

function requireSize(bytes: number, samples: number, size: number, format: string): void {
  if (bytes === samples * size) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${samples} samples of format ${format} have ${samples * size} bytes, not the ${bytes} of the array`,
  );
}

/** The bytes of the data, without copying them. */
export function bytesOf(data: PcmData): Uint8Array {
  return data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
