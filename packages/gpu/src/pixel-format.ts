/**
 * The formats of pixels: four bytes each, in different orders. The numbers and names are those of the specification; a name lists
 * the bytes in the order in memory.
 */
import { type Named, requireBytes, VirtioError } from '@virtio/core';
import { BYTES_PER_PIXEL } from './protocol.ts';

/**
 * The formats of 2D resources, by number. `X` is an unused byte.
 *
 * @see VIRTIO 1.4, 5.7.6.8
 */
export const PixelFormat = {
  B8G8R8A8_UNORM: 1,
  B8G8R8X8_UNORM: 2,
  A8R8G8B8_UNORM: 3,
  X8R8G8B8_UNORM: 4,
  R8G8B8A8_UNORM: 67,
  X8B8G8R8_UNORM: 68,
  A8B8G8R8_UNORM: 121,
  R8G8B8X8_UNORM: 134,
} as const;

/** The number of a format. */
export type PixelFormatNumber = (typeof PixelFormat)[keyof typeof PixelFormat];

/** The positions of the components of a pixel in its 32-bit little-endian word: the lowest bit of each. */
export interface PixelShifts {
  readonly red: number;
  readonly green: number;
  readonly blue: number;
  readonly alpha: number;
  /** Whether the format has alpha; if not, the unused byte is set to 255. */
  readonly hasAlpha: boolean;
}

const ORDERS: Readonly<Record<PixelFormatNumber, string>> = {
  1: 'BGRA',
  2: 'BGRX',
  3: 'ARGB',
  4: 'XRGB',
  67: 'RGBA',
  68: 'XBGR',
  121: 'ABGR',
  134: 'RGBX',
};

const SHIFTS: ReadonlyMap<number, PixelShifts> = new Map(
  Object.entries(ORDERS).map(([format, order]) => [
    Number(format),
    {
      red: 8 * order.indexOf('R'),
      green: 8 * order.indexOf('G'),
      blue: 8 * order.indexOf('B'),
      alpha: 8 * order.search(/[AX]/),
      hasAlpha: order.includes('A'),
    },
  ]),
);

/** The positions of the components of a pixel, or `undefined` if there is no such format. */
export function pixelShifts(format: number): PixelShifts | undefined {
  return SHIFTS.get(format);
}

/**
 * A pixel as a 32-bit word, to be stored in a little-endian `Uint32Array`.
 *
 * @param red 0 to 255, like the other components
 * @throws {@link VirtioError} `INVALID_PARAM` if there is no such format
 *
 * @example
 * ```ts
 * import { packPixel, PixelFormat } from '@virtio/gpu';
 *
 * const orange = packPixel(PixelFormat.B8G8R8X8_UNORM, 255, 165, 0); // 0xffffa500
 * console.log(orange.toString(16));
 * ```
 */
export function packPixel(
  format: PixelFormatNumber,
  red: number,
  green: number,
  blue: number,
  alpha = 255,
): number {
  const shifts = SHIFTS.get(format);
  if (shifts === undefined) {
    throw new VirtioError('INVALID_PARAM', `there is no format ${String(format)}; use one of PixelFormat`);
  }
  return (
    (((red & 255) << shifts.red) |
      ((green & 255) << shifts.green) |
      ((blue & 255) << shifts.blue) |
      ((shifts.hasAlpha ? alpha & 255 : 255) << shifts.alpha)) >>>
    0
  );
}

/**
 * Refuses pixels that are not in bytes, such as those of images with 16 bits or floats for each component.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireImageData(named: Named, data: unknown): void {
  if (!(data instanceof Uint8ClampedArray)) requireBytes(named, data);
}

/**
 * An image in bytes R, G, B, A as 32-bit words; a copy if it is not aligned to four bytes.
 *
 * @param count pixels
 */
export function rgbaWords(rgba: Uint8Array | Uint8ClampedArray, count: number): Uint32Array {
  const { buffer, byteOffset } = rgba;
  if (byteOffset % BYTES_PER_PIXEL === 0) return new Uint32Array(buffer, byteOffset, count);
  return new Uint32Array(Uint8Array.from(rgba.subarray(0, count * BYTES_PER_PIXEL)).buffer);
}

/**
 * Converts pixels in bytes R, G, B, A, the format of canvases and image files.
 *
 * @param from the index of the first pixel
 * @param to the index of the first word
 * @param count pixels
 */
export function convertRgba(
  rgba: Uint32Array,
  from: number,
  words: Uint32Array,
  to: number,
  count: number,
  { red, green, blue, alpha, hasAlpha }: PixelShifts,
): void {
  const opaque = hasAlpha ? 0 : 255 << alpha;
  if (red === 16 && green === 8 && blue === 0) {
    // The two that displays have, with shifts that the engine knows.
    const mask = hasAlpha ? 0xff000000 : 0;
    for (let i = 0; i < count; i += 1) {
      const word = rgba[from + i] as number;
      words[to + i] = ((word & 255) << 16) | (word & 0xff00) | ((word >>> 16) & 255) | (word & mask) | opaque;
    }
    return;
  }
  const kept = hasAlpha ? 255 : 0;
  for (let i = 0; i < count; i += 1) {
    const word = rgba[from + i] as number;
    words[to + i] =
      ((word & 255) << red) |
      (((word >>> 8) & 255) << green) |
      (((word >>> 16) & 255) << blue) |
      (((word >>> 24) & kept) << alpha) |
      opaque;
  }
}

/** Converts the image of a cursor: like {@link convertRgba}, with premultiplied alpha. */
export function convertPremultiplied(
  rgba: Uint8Array | Uint8ClampedArray,
  from: number,
  words: Uint32Array,
  to: number,
  count: number,
  { red, green, blue, alpha }: PixelShifts,
): void {
  for (let i = 0, at = from; i < count; i += 1, at += BYTES_PER_PIXEL) {
    const a = rgba[at + 3] as number;
    words[to + i] =
      (multiply(rgba[at] as number, a) << red) |
      (multiply(rgba[at + 1] as number, a) << green) |
      (multiply(rgba[at + 2] as number, a) << blue) |
      (a << alpha);
  }
}

/** `value × alpha / 255`, rounded. */
function multiply(value: number, alpha: number): number {
  return Math.round((value * alpha) / 255);
}
