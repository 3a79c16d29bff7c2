import { VirtioError } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PcmFormat, type PcmFormatName, SAMPLE_BITS } from './formats.ts';
import { bytesOf, decodeSamples, encodeSamples, fillSilence } from './samples.ts';

const LINEAR = (Object.keys(PcmFormat) as PcmFormatName[]).filter((name) => /^[SUF]/.test(name));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

describe('encodeSamples', () => {
  it.each<[PcmFormatName, number[], string]>([
    ['S8', [0, 0.5, -1, 1], '0040807f'],
    ['U8', [0, 0.5, -1, 1], '80c000ff'],
    ['S16', [0, 0.5, -1, 2], '000000400080ff7f'],
    ['U16', [0, -1, 1], '00800000ffff'],
    ['S18_3', [0, -1, 1, 0.5], '0000000000feffff01000001'],
    ['U18_3', [0, -1, 1], '000002000000ffff03'],
    ['S20_3', [-1, 1], '0000f8ffff07'],
    ['S24_3', [-1, 1], '000080ffff7f'],
    ['S20', [-1, 1], '0000f8ffffff0700'],
    ['U20', [0, 1], '00000800ffff0f00'],
    ['S24', [-1, 1], '000080ffffff7f00'],
    ['S32', [-1, 1, 0.5], '00000080ffffff7f00000040'],
    ['U32', [-1, 1, 0], '00000000ffffffff00000080'],
    ['FLOAT', [1, -0.5], '0000803f000000bf'],
    ['FLOAT64', [1], '000000000000f03f'],
  ])('writes %s', (format, samples, expected) => {
    expect(hex(encodeSamples(format, Float64Array.from(samples)))).toBe(expected);
  });

  it('makes silence of what is no number', () => {
    expect(hex(encodeSamples('U8', Float32Array.of(NaN)))).toBe('80');
    expect(hex(encodeSamples('S16', Float32Array.of(NaN, Infinity, -Infinity)))).toBe('0000ff7f0080');
  });

  it('refuses other sizes and formats that are not linear', () => {
    expect(() => encodeSamples('S16', new Int16Array(2), new Uint8Array(3))).toThrow(VirtioError);
    expect(() => decodeSamples('S16', new Uint8Array(3), new Int16Array(2))).toThrow(VirtioError);
    expect(() => encodeSamples('MU_LAW', new Int16Array(2))).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED' }),
    );
  });
});

describe('decodeSamples', () => {
  it.each(LINEAR.filter((format) => SAMPLE_BITS[format] >= 16))(
    'gives back 16-bit samples that went through %s',
    (format) => {
      fc.assert(
        fc.property(fc.int16Array(), (samples) => {
          const bytes = encodeSamples(format, samples);
          expect(decodeSamples(format, bytes, new Int16Array(samples.length))).toEqual(samples);
        }),
      );
    },
  );

  it('gives back 32-bit samples that went through S32, U32 and FLOAT64', () => {
    fc.assert(
      fc.property(fc.int32Array(), fc.constantFrom('S32', 'U32', 'FLOAT64'), (samples, format) => {
        const bytes = encodeSamples(format, samples);
        expect(decodeSamples(format, bytes, new Int32Array(samples.length))).toEqual(samples);
      }),
    );
  });

  it('ignores the bits above a sample', () => {
    const bytes = Uint8Array.of(0xff, 0xff, 0x07, 0xa5);
    expect(decodeSamples('S20', bytes, new Float64Array(1))[0]).toBe(0x7ffff / 0x80000);
  });
});

describe('fillSilence', () => {
  it.each(LINEAR)('fills %s with zeros of its range', (format) => {
    const bytes = new Uint8Array(48).fill(0x5a);
    fillSilence(format, bytes);
    const samples = decodeSamples(format, bytes, new Float64Array((48 * 8) / SAMPLE_BITS[format]));
    expect(new Set(samples)).toEqual(new Set([0]));
  });

  it.each<[PcmFormatName, number]>([
    ['MU_LAW', 0xff],
    ['A_LAW', 0xd5],
    ['DSD_U32', 0x69],
    ['IMA_ADPCM', 0],
    ['IEC958_SUBFRAME', 0],
  ])('fills %s with its silent byte', (format, byte) => {
    const bytes = new Uint8Array(8).fill(0x5a);
    fillSilence(format, bytes);
    expect([...bytes]).toEqual(Array(8).fill(byte));
  });
});

describe('bytesOf', () => {
  it('gives the bytes of any array, without copying', () => {
    const samples = Int16Array.of(1, 2, 3).subarray(1);
    expect(hex(bytesOf(samples))).toBe('02000300');
    expect(bytesOf(samples).buffer).toBe(samples.buffer);
  });
});
