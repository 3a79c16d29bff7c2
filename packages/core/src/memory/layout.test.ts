import { describe, expect, it } from 'vitest';
import { Layout } from './layout.ts';

const Example = new Layout('example', { a: 'u8', b: 'u16', c: 'u32', d: 'u64', e: 'bytes3', f: 'i32' });

describe('Layout', () => {
  it('places fields one behind the other', () => {
    expect(Example.offset).toEqual({ a: 0, b: 1, c: 3, d: 7, e: 15, f: 18 });
    expect(Example.size).toBe(22);
    expect(Example.fields.d).toEqual({
      name: 'example.d',
      access: 'read-write',
      type: 'u64',
      offset: 7,
      size: 8,
    });
  });

  it('writes little-endian and reads back', () => {
    const bytes = new Uint8Array(30).fill(0xee);
    const view = new DataView(bytes.buffer, 2);
    const values = {
      a: 1,
      b: 0x0203,
      c: 0x04050607,
      d: 0x08090a0b0c0d0e0fn,
      e: Uint8Array.of(16, 17, 18),
      f: -2,
    };
    Example.write(view, 4, values);
    expect([...bytes.subarray(6, 28)]).toEqual([
      1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8, 16, 17, 18, 0xfe, 0xff, 0xff, 0xff,
    ]);
    expect(Example.read(view, 4)).toEqual(values);
    expect(bytes[5]).toBe(0xee);
    expect(bytes[28]).toBe(0xee);
  });

  it('zeroes what is not given', () => {
    const view = new DataView(new Uint8Array(22).fill(0xff).buffer);
    Example.write(view, 0, { e: Uint8Array.of(9) });
    expect(Example.read(view)).toEqual({ a: 0, b: 0, c: 0, d: 0n, e: Uint8Array.of(9, 0, 0), f: 0 });
  });

  it('refuses a view that is too small, bytes that are too long and numbers for bytes', () => {
    const view = new DataView(new ArrayBuffer(22));
    const refused = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    expect(() => Example.read(view, 1)).toThrow(refused);
    expect(() => Example.read(view, -1)).toThrow(refused);
    expect(() => Example.write(view, 0, { e: new Uint8Array(4) })).toThrow(refused);
    expect(() => Example.write(view, 0, { e: 5 as never })).toThrow(refused);
    expect(() => Example.write(view, NaN, {})).toThrow(refused);
  });

  it.each([
    ['a', 256],
    ['a', -1],
    ['b', 0.5],
    ['b', NaN],
    ['c', 2 ** 32],
    ['c', '7'],
    ['c', new Uint8Array(4)],
    ['d', 2n ** 64n],
    ['d', -1n],
    ['f', 2 ** 31],
    ['f', -(2 ** 31) - 1],
    ['e', null],
  ])('refuses what field %s cannot hold: %s', (field, value) => {
    const bytes = new Uint8Array(22);
    const write = (): void => {
      Example.write(new DataView(bytes.buffer), 0, { [field]: value });
    };
    expect(write).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }) as Error);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('takes the largest and the smallest that its fields can hold', () => {
    const view = new DataView(new ArrayBuffer(22));
    const values = {
      a: 255,
      b: 65_535,
      c: 2 ** 32 - 1,
      d: 2n ** 64n - 1n,
      e: new Uint8Array(3),
      f: -(2 ** 31),
    };
    Example.write(view, 0, values);
    expect(Example.read(view)).toEqual(values);
    Example.write(view, 0, { d: 7 as never, f: 2 ** 31 - 1 });
    expect(Example.read(view)).toMatchObject({ d: 7n, f: 2 ** 31 - 1 });
  });

  it('takes the access to a field from its declaration, and does not mind it in memory', () => {
    const Config = new Layout('config', { a: 'bytes3 read-only', b: 'u16 write-only', c: 'u8' });
    expect(Object.values(Config.fields).map(({ type, access }) => `${type} ${access}`)).toEqual([
      'bytes3 read-only',
      'u16 write-only',
      'u8 read-write',
    ]);
    expect(Config.offset).toEqual({ a: 0, b: 3, c: 5 });
    const view = new DataView(new ArrayBuffer(Config.size));
    Config.write(view, 0, { a: Uint8Array.of(1, 2, 3), b: 4, c: 5 });
    expect(Config.read(view)).toEqual({ a: Uint8Array.of(1, 2, 3), b: 4, c: 5 });
  });

  it('copies bytes, so that they do not change under the caller', () => {
    const bytes = new Uint8Array(22);
    const { e } = Example.read(new DataView(bytes.buffer));
    bytes.fill(1);
    expect([...e]).toEqual([0, 0, 0]);
  });
});
