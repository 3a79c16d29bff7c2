import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeUtf8, encodeUtf8 } from './utf8.ts';

describe('UTF-8', () => {
  it('is encoded as TextEncoder does it, lone surrogates included', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect([...encodeUtf8(text)]).toEqual([...new TextEncoder().encode(text)]);
      }),
    );
    expect([...encodeUtf8('a\ud800b')]).toEqual([...new TextEncoder().encode('a\ud800b')]);
  });

  it('is decoded to what was encoded', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(decodeUtf8(encodeUtf8(text))).toBe(text.toWellFormed());
      }),
    );
  });

  it.each([
    ['a lone continuation', [0x80]],
    ['an overlong slash', [0xc0, 0xaf]],
    ['an overlong NUL', [0xe0, 0x80, 0x80]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['too high a code point', [0xf4, 0x90, 0x80, 0x80]],
    ['a sequence that ends early', [0xe2, 0x82]],
    ['a byte that never occurs', [0xff]],
  ])('shows %s as U+FFFD and goes on behind it', (_what, bytes) => {
    const text = decodeUtf8(Uint8Array.from([65, ...bytes, 66]));
    expect(text).toMatch(/^A\ufffd+B$/);
  });

  it('survives any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const plain = (text: string): string => text.replaceAll('\ufffd', '').replaceAll('\ufeff', '');
        expect(plain(decodeUtf8(bytes))).toBe(plain(new TextDecoder().decode(bytes)));
      }),
    );
  });
});
