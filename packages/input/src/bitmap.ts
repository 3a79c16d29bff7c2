/** A set of small numbers as the device reports it: one bit each, the lowest bit of the first byte for 0. */

/** The codes or properties that a device has. Immutable. */
export class Bitmap implements Iterable<number> {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes.slice();
  }

  /** How many bytes the device reported. */
  get byteLength(): number {
    return this.#bytes.length;
  }

  /** Whether `code` is in the set. */
  has(code: number): boolean {
    return Number.isInteger(code) && ((this.#bytes[Math.floor(code / 8)] ?? 0) & (1 << (code & 7))) !== 0;
  }

  /** All codes in the set, ascending. */
  *[Symbol.iterator](): Generator<number, undefined> {
    for (let code = 0; code < this.#bytes.length * 8; code += 1) if (this.has(code)) yield code;
  }
}
