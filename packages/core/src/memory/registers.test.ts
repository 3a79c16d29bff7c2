import { describe, expect, it } from 'vitest';
import { MappedRegisters, type RegisterWindow, subWindow } from './registers.ts';

const tooSmall = expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }) as Error;
const invalid = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;

describe('MappedRegisters', () => {
  it('reads and writes each width at its place, little-endian', () => {
    const buffer = new ArrayBuffer(32);
    const window = new MappedRegisters(buffer, 4, 16);
    window.write32(0, 0x11223344);
    window.write16(4, 0x5566);
    window.write8(7, 0x77);
    expect([...new Uint8Array(buffer, 4, 8)]).toEqual([0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0, 0x77]);
    expect(window.read32(0)).toBe(0x11223344);
    expect(window.read16(4)).toBe(0x5566);
    expect(window.read8(7)).toBe(0x77);
  });

  it('never touches anything outside the window', () => {
    const window = new MappedRegisters(new ArrayBuffer(32), 4, 6);
    for (const access of [
      () => window.read32(4),
      () => window.read16(6),
      () => window.read8(6),
      () => window.write32(4, 0),
      () => window.write16(6, 0),
      () => window.write8(-1, 0),
    ]) {
      expect(access).toThrow(tooSmall);
    }
    expect(() => new MappedRegisters(new ArrayBuffer(8), 4, 8)).toThrow(tooSmall);
    expect(() => new MappedRegisters(new ArrayBuffer(8), 2, 4)).toThrow(invalid);
  });

  it('refuses an access that is not aligned to its width', () => {
    const window = new MappedRegisters(new ArrayBuffer(8));
    expect(() => window.read32(2)).toThrow(invalid);
    expect(() => {
      window.write16(1, 0);
    }).toThrow(invalid);
  });
});

describe('subWindow', () => {
  const plain = (window: RegisterWindow): RegisterWindow => ({
    size: window.size,
    read8: (o) => window.read8(o),
    read16: (o) => window.read16(o),
    read32: (o) => window.read32(o),
    write8: (o, v) => window.write8(o, v),
    write16: (o, v) => window.write16(o, v),
    write32: (o, v) => window.write32(o, v),
  });

  for (const [kind, make] of [
    ['mapped', (window: RegisterWindow) => window],
    ['any other', plain],
  ] as const) {
    it(`is a part of a ${kind} window and ends with it`, () => {
      const buffer = new ArrayBuffer(32);
      const part = subWindow(make(new MappedRegisters(buffer)), 8, 12);
      part.write32(8, 0xdeadbeef);
      part.write16(2, 0x1234);
      part.write8(1, 0x56);
      expect(new DataView(buffer).getUint32(16, true)).toBe(0xdeadbeef);
      expect(part.read32(8)).toBe(0xdeadbeef);
      expect(part.read16(2)).toBe(0x1234);
      expect(part.read8(1)).toBe(0x56);
      expect(part.size).toBe(12);
      expect(() => part.read32(12)).toThrow(tooSmall);
      expect(() => subWindow(part, 8, 8)).toThrow(tooSmall);
    });
  }

  it('keeps a mapped window mapped, for the hot path', () => {
    const part = subWindow(new MappedRegisters(new ArrayBuffer(32)), 8, 8);
    expect(part.mapped?.u16.length).toBe(4);
    expect(part.mapped?.u16.byteOffset).toBe(8);
  });

  it('refuse bounds that are no numbers', () => {
    const window = new MappedRegisters(new ArrayBuffer(16));
    expect(() => subWindow(window, 0, NaN)).toThrow(tooSmall);
    expect(() => subWindow(window, NaN, 4)).toThrow(tooSmall);
    expect(() => new MappedRegisters(new ArrayBuffer(16), 0, NaN)).toThrow(tooSmall);
    expect(() => new MappedRegisters(new ArrayBuffer(16), NaN)).toThrow('multiple of 4');
    expect(() => window.read32(NaN)).toThrow(tooSmall);
  });
});
