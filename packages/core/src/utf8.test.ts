import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeUtf8Lossless, decodeUtf8, encodeUtf8Lossless, encodeUtf8 } from './utf8.ts';

const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 64 }),
  // Mostly lead and continuation bytes, so that sequences are broken in every way.
  fc
    .array(
      fc.constantFrom(
        0x41,
        0x80,
        0xbf,
        0xc2,
        0xdf,
        0xe0,
        0xed,
        0xef,
        0xf0,
        0xf4,
        0xf5,
        0xa0,
        0x9f,
        0x90,
        0x8f,
      ),
    )
    .map((values) => Uint8Array.from(values)),
);

describe('UTF-8 of texts', () => {
  it('are encoded and decoded as TextEncoder and TextDecoder do', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(encodeUtf8(text)).toEqual(new Uint8Array(new TextEncoder().encode(text)));
      }),
    );
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        expect(decodeUtf8(bytes)).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('have U+FFFD for lone surrogates', () => {
    expect(decodeUtf8(encodeUtf8('a\ud800b\udc80'))).toBe('a\ufffdb\ufffd');
  });

  it('can be longer than what one call takes', () => {
    const text = 'Ωж漢😀'.repeat(20_000);
    expect(decodeUtf8(encodeUtf8(text))).toBe(text);
  });
});

describe('UTF-8 of names', () => {
  it('survive whatever their bytes are', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        expect(encodeUtf8Lossless(decodeUtf8Lossless(bytes))).toEqual(new Uint8Array(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('of UTF-8 are plain strings', () => {
    for (const name of ['ascii', 'žluťoučký', '日本語', 'עברית', '😀👩‍👩‍👧']) {
      expect(decodeUtf8Lossless(new TextEncoder().encode(name))).toBe(name);
    }
  });

  it('have a lone surrogate for each byte that is not UTF-8', () => {
    expect(decodeUtf8Lossless(Uint8Array.of(0x66, 0xff, 0xe2, 0x82, 0x66))).toBe('f\udcff\udce2\udc82f');
  });

  it('cannot have other lone surrogates', () => {
    for (const name of ['\ud800', 'a\udc00', '\udc7f', '\udd00', '\ud800\ud800']) {
      expect(encodeUtf8Lossless(name)).toBeUndefined();
    }
  });
});
