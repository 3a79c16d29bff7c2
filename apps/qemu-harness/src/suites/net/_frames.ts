/** Frames that both sides can make and check: each has a number and a checksum, and sizes are mixed. */
import { crc32 } from 'node:zlib';
import { pattern } from '../../framework/define.ts';

/** The guest's station, in all tests. */
export const GUEST_MAC = [0x52, 0x54, 0, 0xab, 0xcd, 1] as const;
/** The host's. */
export const HOST_MAC = [0x52, 0x54, 0, 0xab, 0xcd, 2] as const;

/** A type for experiments [IEEE 802]. */
const ETHER_TYPE = 0x88b5;
/**
 * Addresses, type, number, checksum. The last two are little-endian: V8 13.6 on a riscv64 processor with Zbb takes a big-endian
 * `getUint32` of 2 ** 31 or more for another number once it has compiled a comparison of it with a second integer.
 */
const HEAD = 22;
const NUMBER = 14;
const CHECKSUM = 18;

const PAYLOAD = pattern(new Uint8Array(1 << 17), 11);

/** The sizes of frames, in turn; the smallest is that of Ethernet without its check sum. */
export const SIZES = [60, 1514, 61, 128, 590, 1500, 342, 1513, 64, 256, 1024, 777] as const;

/** The size of frame `number`. */
export function sizeOf(number: number): number {
  return SIZES[number % SIZES.length] ?? 60;
}

/**
 * Writes frame `number` into a buffer.
 *
 * @returns its length
 */
export function fillFrame(
  buffer: Uint8Array,
  number: number,
  from: readonly number[],
  to: readonly number[],
  size = sizeOf(number),
): number {
  buffer.set(to, 0);
  buffer.set(from, 6);
  const offset = (number * 7) & 0xffff;
  buffer.set(PAYLOAD.subarray(offset, offset + size - HEAD), HEAD);
  const view = new DataView(buffer.buffer, buffer.byteOffset, size);
  view.setUint16(12, ETHER_TYPE);
  view.setUint32(NUMBER, number, true);
  view.setUint32(CHECKSUM, crc32(buffer.subarray(HEAD, size), number), true);
  return size;
}

/** Frame `number` in memory of its own. */
export function makeFrame(
  number: number,
  from: readonly number[],
  to: readonly number[],
  size = sizeOf(number),
): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(size);
  fillFrame(frame, number, from, to, size);
  return frame;
}

/**
 * The number of a frame that is as it was sent.
 *
 * @returns -1 if it is none of these tests, or not as it was sent
 */
export function numberOf(frame: Uint8Array): number {
  if (frame.length < HEAD) return -1;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  if (view.getUint16(12) !== ETHER_TYPE) return -1;
  const number = view.getUint32(NUMBER, true);
  return view.getUint32(CHECKSUM, true) === crc32(frame.subarray(HEAD), number) ? number : -1;
}

/** Counts frames that must come in order, each as it was sent. */
export class Sequence {
  /** How many came as they should. */
  count = 0;
  /** The first that did not, and all that are wrong. */
  wrong = 0;
  firstWrong = '';
  #next: number;

  /** @param next the number of the first */
  constructor(next = 0) {
    this.#next = next;
  }

  take(frame: Uint8Array): void {
    const number = numberOf(frame);
    if (number === this.#next) {
      this.count += 1;
    } else {
      this.wrong += 1;
      if (this.firstWrong === '') {
        this.firstWrong = `number ${number} of ${frame.length} bytes where ${this.#next} was due`;
      }
    }
    this.#next = Math.max(this.#next, number) + 1;
  }
}
