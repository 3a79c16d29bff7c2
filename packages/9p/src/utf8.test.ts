import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeName, decodeText, encodeName, encodeText } from './utf8.ts';

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

describe('texts', () => {
  it('are encoded and decoded as TextEncoder and TextDecoder do', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(encodeText(text)).toEqual(new Uint8Array(new TextEncoder().encode(text)));
      }),
    );
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        expect(decodeText(bytes)).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('have U+FFFD for lone surrogates', () => {
    expect(decodeText(encodeText('a\ud800b\udc80'))).toBe('a\ufffdb\ufffd');
  });

  it('can be longer than what one call takes', () => {
    const text = 'Ωж漢😀'.repeat(20_000);
    expect(decodeText(encodeText(text))).toBe(text);
  });
});

describe('names', () => {
  it('survive whatever their bytes are', () => {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        expect(encodeName(decodeName(bytes))).toEqual(new Uint8Array(bytes));
      }),
      { numRuns: 2000 },
    );
  });

  it('of UTF-8 are plain strings', () => {
    for (const name of ['ascii', 'žluťoučký', '日本語', 'עברית', '😀👩‍👩‍👧']) {
      expect(decodeName(new TextEncoder().encode(name))).toBe(name);
    }
  });

  it('have a lone surrogate for each byte that is not UTF-8', () => {
    expect(decodeName(Uint8Array.of(0x66, 0xff, 0xe2, 0x82, 0x66))).toBe('f\udcff\udce2\udc82f');
  });

  it('cannot have other lone surrogates', () => {
    for (const name of ['\ud800', 'a\udc00', '\udc7f', '\udd00', '\ud800\ud800']) {
      expect(encodeName(name)).toBeUndefined();
    }
  });
});
