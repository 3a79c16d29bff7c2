import { describe, expect, it } from 'vitest';
import { FORMATS } from '../test/gpu-device.ts';
import {
  convertPremultiplied,
  convertRgba,
  packPixel,
  PixelFormat,
  type PixelFormatNumber,
  type PixelShifts,
  pixelShifts,
  rgbaWords,
} from './pixel-format.ts';

const cases = Object.entries(PixelFormat).map(([name, format]) => ({
  name,
  format,
  order: FORMATS[format] ?? '',
}));

/** The bytes that a pixel has in memory, by the name of its format. */
const bytesOf = (order: string, values: Readonly<Record<string, number>>): number[] =>
  Array.from(order, (part) => values[part] ?? 255);

describe.each(cases)('$name', ({ name, format, order }) => {
  const shifts = pixelShifts(format) as PixelShifts;

  it('has the order that its name says', () => {
    expect(order).toHaveLength(4);
    expect(name.replaceAll(/[8_]|UNORM/g, '')).toBe(order);
  });

  it('packs a pixel', () => {
    const words = Uint32Array.of(packPixel(format, 1, 2, 3, 4));
    expect([...new Uint8Array(words.buffer)]).toEqual(bytesOf(order, { R: 1, G: 2, B: 3, A: 4 }));
  });

  it('converts images, a part of a buffer to a part of another', () => {
    const rgba = Uint8Array.of(9, 9, 9, 9, 250, 2, 3, 4, 5, 6, 7, 200);
    const words = new Uint32Array(4);
    convertRgba(rgbaWords(rgba, 3), 1, words, 1, 2, shifts);
    expect([...new Uint8Array(words.buffer)]).toEqual([
      ...[0, 0, 0, 0],
      ...bytesOf(order, { R: 250, G: 2, B: 3, A: 4 }),
      ...bytesOf(order, { R: 5, G: 6, B: 7, A: 200 }),
      ...[0, 0, 0, 0],
    ]);
  });
});

describe('pixels', () => {
  it('are taken from wherever they lie', () => {
    const bytes = Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    for (const offset of [0, 1, 2]) {
      const words = rgbaWords(bytes.subarray(offset), 2);
      expect([...new Uint8Array(words.buffer, words.byteOffset, 8)]).toEqual([
        ...bytes.subarray(offset, offset + 8),
      ]);
    }
  });

  it('of unknown formats are none', () => {
    expect(pixelShifts(0)).toBeUndefined();
    expect(pixelShifts(5)).toBeUndefined();
    expect(() => packPixel(5 as PixelFormatNumber, 1, 2, 3)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('of a cursor are multiplied by alpha', () => {
    const words = new Uint32Array(3);
    const rgba = Uint8ClampedArray.of(255, 128, 1, 255, 255, 128, 1, 128, 255, 128, 1, 0);
    const format: PixelFormatNumber = PixelFormat.B8G8R8A8_UNORM;
    convertPremultiplied(rgba, 0, words, 0, 3, pixelShifts(format) as PixelShifts);
    expect([...new Uint8Array(words.buffer)]).toEqual([1, 128, 255, 255, 1, 64, 128, 128, 0, 0, 0, 0]);
  });
});
