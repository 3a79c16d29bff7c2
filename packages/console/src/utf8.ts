/** UTF-8 without `TextDecoder`, which is not part of ECMAScript. */

const REPLACEMENT = 0xfffd;

/** The lowest code point that takes so many continuation bytes. */
const LOWEST = [0, 0x80, 0x800, 0x10000] as const;

/** Decodes UTF-8. What is not valid becomes U+FFFD. */
export function decodeUtf8(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length;) {
    const first = bytes[i] as number;
    i += 1;
    if (first < 0x80) {
      text += String.fromCharCode(first);
      continue;
    }
    const more = first >= 0xf0 && first < 0xf8 ? 3 : first >= 0xe0 ? 2 : first >= 0xc0 ? 1 : 0;
    let point = first & (0x3f >> more);
    let taken = 0;
    while (taken < more && i + taken < bytes.length && ((bytes[i + taken] as number) & 0xc0) === 0x80) {
      point = (point << 6) | ((bytes[i + taken] as number) & 0x3f);
      taken += 1;
    }
    const valid =
      more > 0 &&
      first < 0xf8 &&
      taken === more &&
      point >= (LOWEST[more] as number) &&
      point <= 0x10ffff &&
      !(point >= 0xd800 && point <= 0xdfff);
    if (valid) i += more;
    text += String.fromCodePoint(valid ? point : REPLACEMENT);
  }
  return text;
}

/** Encodes text as UTF-8. Lone surrogates become U+FFFD. */
export function encodeUtf8(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(text.length * 3);
  let length = 0;
  for (const character of text) {
    let point = character.codePointAt(0) as number;
    if (point >= 0xd800 && point <= 0xdfff) point = REPLACEMENT;
    const more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    bytes[length] = more === 0 ? point : ((0xff00 >> (more + 1)) & 0xff) | (point >> (6 * more));
    for (let i = more - 1; i >= 0; i -= 1) bytes[length + more - i] = 0x80 | ((point >> (6 * i)) & 0x3f);
    length += more + 1;
  }
  return bytes.subarray(0, length);
}
