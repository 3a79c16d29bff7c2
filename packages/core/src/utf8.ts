/**
 * UTF-8 for drivers, as `TextEncoder` and `TextDecoder` are not in ECMAScript.
 *
 * Texts (the name of a port, a line of a console) are for people: what is not valid becomes U+FFFD, as everywhere in JavaScript.
 * Names that are sent back to the device (those of files) are bytes that are mostly but not always UTF-8, and must survive being
 * a string: a byte that is not part of valid UTF-8 becomes a lone surrogate, U+DC80 to U+DCFF, which becomes the byte again.
 * Python calls this `surrogateescape`.
 */

const REPLACEMENT = 0xfffd;
const ESCAPE = 0xdc00;
const CHUNK = 4096;

const isHigh = (unit: number): boolean => unit >= 0xd800 && unit < 0xdc00;
const isLow = (unit: number): boolean => unit >= 0xdc00 && unit < 0xe000;
const isEscape = (unit: number): boolean => unit >= 0xdc80 && unit <= 0xdcff;

/**
 * Encodes a text as UTF-8, with U+FFFD for lone surrogates: the bytes that `TextEncoder` gives.
 *
 * @example
 * ```ts
 * import { encodeUtf8 } from '@virtio/core';
 *
 * encodeUtf8('ž'); // Uint8Array of 0xc5, 0xbe
 * ```
 */
export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  return encode(text, false);
}

/**
 * Decodes UTF-8, with U+FFFD for what is not valid: the text that `TextDecoder` gives, except that a byte order mark is kept.
 *
 * @see {@link decodeUtf8Lossless} for names that are to be sent back
 */
export function decodeUtf8(bytes: Uint8Array): string {
  return decode(bytes, false);
}

/**
 * Encodes a string of {@link decodeUtf8Lossless} as the bytes that it was made from: lone surrogates U+DC80 to U+DCFF become the
 * bytes 0x80 to 0xff.
 *
 * @returns the bytes, or `undefined` if the string has another lone surrogate, which stands for no byte
 */
export function encodeUtf8Lossless(text: string): Uint8Array<ArrayBuffer> | undefined {
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    if (isHigh(unit) && isLow(text.charCodeAt(i + 1))) i += 1;
    else if (isHigh(unit) || (isLow(unit) && !isEscape(unit))) return undefined;
  }
  return encode(text, true);
}

/**
 * Decodes a name of UTF-8, where each byte that is not part of valid UTF-8 becomes a lone surrogate, U+DC80 to U+DCFF.
 *
 * @example
 * ```ts
 * import { decodeUtf8Lossless, encodeUtf8Lossless } from '@virtio/core';
 *
 * const name = decodeUtf8Lossless(Uint8Array.of(0x61, 0xff)); // 'a\udcff'
 * encodeUtf8Lossless(name); // Uint8Array of 0x61, 0xff
 * ```
 */
export function decodeUtf8Lossless(bytes: Uint8Array): string {
  return decode(bytes, true);
}

function encode(text: string, escaped: boolean): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length * 3);
  let at = 0;
  for (let i = 0; i < text.length; i += 1) {
    let code = text.charCodeAt(i);
    if (code < 0x80) {
      bytes[at++] = code;
      continue;
    }
    if (isHigh(code) && isLow(text.charCodeAt(i + 1))) {
      i += 1;
      code = 0x10000 + ((code & 0x3ff) << 10) + (text.charCodeAt(i) & 0x3ff);
    } else if (isHigh(code) || isLow(code)) {
      if (escaped && isEscape(code)) {
        bytes[at++] = code & 0xff;
        continue;
      }
      code = REPLACEMENT;
    }
    if (code < 0x800) {
      bytes[at++] = 0xc0 | (code >> 6);
    } else {
      if (code < 0x10000) {
        bytes[at++] = 0xe0 | (code >> 12);
      } else {
        bytes[at++] = 0xf0 | (code >> 18);
        bytes[at++] = 0x80 | ((code >> 12) & 0x3f);
      }
      bytes[at++] = 0x80 | ((code >> 6) & 0x3f);
    }
    bytes[at++] = 0x80 | (code & 0x3f);
  }
  return bytes.slice(0, at);
}

/** How many bytes a sequence with this lead byte has; 0 if no sequence begins with it. */
function sequenceLength(lead: number): number {
  if (lead < 0xc2 || lead > 0xf4) return 0;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

/** Whether `next` may follow `lead`: rules out overlong forms, surrogates and what is above U+10FFFF. */
function mayFollow(lead: number, next: number): boolean {
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  return next >= low && next <= high;
}

function decode(bytes: Uint8Array, escaped: boolean): string {
  const units = new Uint16Array(bytes.length);
  let count = 0;
  for (let i = 0; i < bytes.length;) {
    const lead = bytes[i] as number;
    if (lead < 0x80) {
      units[count++] = lead;
      i += 1;
      continue;
    }
    const length = sequenceLength(lead);
    // How much of a sequence there is; an unfinished one is replaced as a whole.
    let seen = 1;
    let code = lead & (0x7f >> length);
    while (seen < length && i + seen < bytes.length) {
      const next = bytes[i + seen] as number;
      if (!(seen === 1 ? mayFollow(lead, next) : (next & 0xc0) === 0x80)) break;
      code = (code << 6) | (next & 0x3f);
      seen += 1;
    }
    if (length === 0 || seen < length) {
      if (escaped) for (let j = 0; j < seen; j += 1) units[count++] = ESCAPE | (bytes[i + j] as number);
      else units[count++] = REPLACEMENT;
    } else if (code < 0x10000) {
      units[count++] = code;
    } else {
      units[count++] = 0xd800 | ((code - 0x10000) >> 10);
      units[count++] = 0xdc00 | (code & 0x3ff);
    }
    i += seen;
  }
  let text = '';
  for (let at = 0; at < count; at += CHUNK) {
    text += String.fromCharCode(...units.subarray(at, Math.min(at + CHUNK, count)));
  }
  return text;
}
