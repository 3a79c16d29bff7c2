import { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import {
  bytesOfFrames,
  formatNumber,
  frameBits,
  framesOfBytes,
  isWholeFrames,
  PCM_RATES,
  PcmFormat,
  rateNumber,
  ratesOf,
  SAMPLE_BITS,
} from './formats.ts';

describe('sample formats', () => {
  it('have the numbers of the specification [5.14.6.6.2]', () => {
    expect(Object.values(PcmFormat)).toEqual(Array.from({ length: 25 }, (_, n) => n));
    expect([PcmFormat.S16, PcmFormat.S32, PcmFormat.FLOAT, PcmFormat.IEC958_SUBFRAME]).toEqual([
      5, 17, 19, 24,
    ]);
    expect(formatNumber('U8')).toBe(4);
    expect(formatNumber('toString')).toBe(-1);
  });

  it('say how much room a frame takes', () => {
    expect(frameBits({ format: 'S16', channels: 2 })).toBe(32);
    expect(frameBits({ format: 'S24_3', channels: 6 })).toBe(144);
    expect(frameBits({ format: 'S24', channels: 1 })).toBe(32);
    expect(Object.keys(SAMPLE_BITS)).toEqual(Object.keys(PcmFormat));
    expect(bytesOfFrames({ format: 'FLOAT64', channels: 2 }, 10)).toBe(160);
    expect(framesOfBytes({ format: 'S16', channels: 2 }, 4003)).toBe(1000);
    expect(isWholeFrames({ format: 'S18_3', channels: 2 }, 12)).toBe(true);
    expect(isWholeFrames({ format: 'S18_3', channels: 2 }, 13)).toBe(false);
  });

  it('count frames of half a byte', () => {
    const shape = { format: 'IMA_ADPCM', channels: 1 } as const;
    expect(bytesOfFrames(shape, 10)).toBe(5);
    expect(framesOfBytes(shape, 5)).toBe(10);
    expect(isWholeFrames(shape, 3)).toBe(true);
    expect(() => bytesOfFrames(shape, 3)).toThrow(VirtioError);
    expect(() => bytesOfFrames({ format: 'S16', channels: 2 }, -1)).toThrow(VirtioError);
  });
});

describe('frame rates', () => {
  it('have the numbers of the specification, those of 1.4 too [5.14.6.6.2]', () => {
    expect(rateNumber(5512)).toBe(0);
    expect(rateNumber(48_000)).toBe(7);
    expect(rateNumber(384_000)).toBe(13);
    expect(rateNumber(12_000)).toBe(14);
    expect(rateNumber(24_000)).toBe(15);
    expect(rateNumber(44_000)).toBe(-1);
    expect(PCM_RATES).toHaveLength(16);
  });

  it('are told by their bits, in ascending order', () => {
    expect(ratesOf((1n << 7n) | (1n << 14n) | (1n << 6n) | (1n << 40n))).toEqual([12_000, 44_100, 48_000]);
  });
});
