/** Stands for `node:crypto` in tests that run in a bare guest: SHA-256 and random bytes. */
import { Buffer } from 'buffer/';
import { machine } from '../machine.ts';

const INITIAL = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
] as const;
const BLOCK = 64;

/** A running hash. */
export class Hash {
  readonly #state = Uint32Array.from(INITIAL);
  readonly #block = new Uint8Array(BLOCK);
  #used = 0;
  #length = 0;

  update(bytes: Uint8Array | string): this {
    const data = typeof bytes === 'string' ? Buffer.from(bytes) : bytes;
    this.#length += data.length;
    let at = 0;
    if (this.#used > 0) {
      at = Math.min(BLOCK - this.#used, data.length);
      this.#block.set(data.subarray(0, at), this.#used);
      this.#used += at;
      if (this.#used < BLOCK) return this;
      machine.sha256Blocks(this.#block.buffer, 0, BLOCK, this.#state.buffer);
      this.#used = 0;
    }
    const length = (data.length - at) & -BLOCK;
    machine.sha256Blocks(data.buffer, data.byteOffset + at, length, this.#state.buffer);
    at += length;
    this.#block.set(data.subarray(at));
    this.#used = data.length - at;
    return this;
  }

  digest(): Buffer;
  digest(encoding: 'hex'): string;
  digest(encoding?: 'hex'): Buffer | string {
    const length = this.#length;
    const padding = new Uint8Array(((119 - (length % BLOCK)) % BLOCK) + 9);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(length / 2 ** 29));
    view.setUint32(padding.length - 4, (length * 8) >>> 0);
    this.update(padding);
    const result = Buffer.alloc(32);
    this.#state.forEach((word, index) => result.writeUInt32BE(word, 4 * index));
    return encoding === undefined ? result : result.toString(encoding);
  }
}

/** Begins a hash. */
export function createHash(algorithm: string): Hash {
  if (algorithm !== 'sha256') throw new Error(`there is no ${algorithm} in a bare guest`);
  return new Hash();
}

/** Fills bytes by chance. */
export function randomFillSync<T extends Uint8Array>(bytes: T): T {
  for (let index = 0; index < bytes.length; index += 1) bytes[index] = Math.random() * 256;
  return bytes;
}

/** So many bytes by chance. */
export function randomBytes(length: number): Buffer {
  return randomFillSync(Buffer.alloc(length));
}
