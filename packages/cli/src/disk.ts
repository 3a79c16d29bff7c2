/** Byte access to a disk: any offset and length, in whole blocks, with many requests in flight. */
import type { VirtioBlk } from '@virtio/blk';
import { CliError, ExitStatus, usage } from './errors.ts';
import { formatSize } from './quantities.ts';

const SECTOR = 512;

/** The size of one request in bytes, and the number of requests in flight. */
const CHUNK = 256 * 1024;
const DEPTH = 8;

/** A part of a disk, in bytes. */
export interface ByteRange {
  readonly start: number;
  readonly length: number;
}

/** A part of a disk, as the options give it. */
interface Wanted {
  readonly sector?: number | undefined;
  readonly offset?: number | undefined;
  readonly count?: number | undefined;
  readonly length?: number | undefined;
}

/** A disk. */
export class Disk {
  readonly blk: VirtioBlk;
  /** The size in bytes. */
  readonly size: number;
  /** Offsets and lengths of requests are multiples of this, in bytes. */
  readonly block: number;
  readonly #chunk: number;
  readonly #signal: AbortSignal;

  constructor(blk: VirtioBlk, signal: AbortSignal) {
    this.blk = blk;
    this.size = blk.capacity * SECTOR;
    this.block = Math.max(SECTOR, blk.blockSize);
    const most = Math.min(CHUNK, blk.maxSegments * blk.config.sizeMax);
    this.#chunk = Math.max(this.block, Math.floor(most / this.block) * this.block);
    this.#signal = signal;
  }

  /** The part that the options select. The default of its length is `fallback`, or else the rest of the disk. */
  range({ sector, offset, count, length }: Wanted, fallback?: number): ByteRange {
    const start = offset ?? (sector ?? 0) * SECTOR;
    if (start > this.size) {
      throw usage(`byte ${start} is beyond the end of the disk, which has ${this.size} bytes`);
    }
    const bytes = length ?? (count === undefined ? (fallback ?? this.size - start) : count * SECTOR);
    if (start + bytes > this.size) {
      throw usage(
        `${bytes} bytes from ${start} on go beyond the end of the disk, which has ${this.size} bytes`,
        `give a length of at most ${this.size - start} bytes`,
      );
    }
    return { start, length: bytes };
  }

  /** Reads a part, in pieces. Each piece is valid until the next one is read. */
  async *read({ start, length }: ByteRange): AsyncGenerator<Uint8Array, undefined> {
    const first = start - (start % this.block);
    const end = start + length;
    const count = Math.ceil((end - first) / this.#chunk);
    const buffers = Array.from({ length: Math.min(DEPTH, count) }, () => new Uint8Array(this.#chunk));
    const begin = (n: number): Promise<Uint8Array> => {
      const position = first + n * this.#chunk;
      const bytes = Math.min(this.#chunk, this.#roundUp(end) - position);
      const buffer = (buffers[n % DEPTH] as Uint8Array).subarray(0, bytes);
      const reading = this.blk.read(position / SECTOR, buffer, { signal: this.#signal }).then(() => buffer);
      // It may fail while this waits for another one.
      reading.catch(() => undefined);
      return reading;
    };
    const busy = buffers.map((_, n) => begin(n));
    for (let n = 0; n < count; n += 1) {
      const piece = await (busy[n % DEPTH] as Promise<Uint8Array>);
      const position = first + n * this.#chunk;
      yield piece.subarray(Math.max(0, start - position), Math.min(piece.length, end - position));
      if (n + DEPTH < count) busy[n % DEPTH] = begin(n + DEPTH);
    }
    return undefined;
  }

  /**
   * Writes a stream of bytes, from `start` on. If it begins or ends within a block, the rest of the block stays.
   *
   * @param most the largest number of bytes to write
   * @param done called with the number of bytes that are written
   * @returns how many bytes were written
   */
  async write(
    start: number,
    most: number,
    source: AsyncIterable<Uint8Array>,
    done: (bytes: number) => void,
  ): Promise<number> {
    const first = start - (start % this.block);
    const pending: Promise<void>[] = [];
    let chunk = new Uint8Array(this.#chunk);
    let position = first;
    let filled = start - first;
    let total = 0;
    let written = 0;
    if (filled > 0) chunk.set((await this.#block(first)).subarray(0, filled));
    const send = async (): Promise<void> => {
      const buffer = chunk.subarray(0, filled);
      const bytes = filled;
      const writing = this.blk.write(position / SECTOR, buffer, { signal: this.#signal }).then(() => {
        written += bytes;
        done(Math.min(written, total));
      });
      writing.catch(() => undefined);
      pending.push(writing);
      position += filled;
      filled = 0;
      chunk = new Uint8Array(this.#chunk);
      if (pending.length >= DEPTH) await pending.shift();
    };
    try {
      for await (const piece of source) {
        this.#signal.throwIfAborted();
        total += piece.length;
        if (total > most) {
          throw new CliError(
            ExitStatus.FAILED,
            `the input has more than the ${most} bytes that fit; the first ${formatSize(position - first)} were written`,
          );
        }
        for (let at = 0; at < piece.length;) {
          const taken = Math.min(piece.length - at, chunk.length - filled);
          chunk.set(piece.subarray(at, at + taken), filled);
          at += taken;
          filled += taken;
          if (filled === chunk.length) await send();
        }
      }
      const rest = filled % this.block;
      if (rest > 0) {
        const last = await this.#block(position + filled - rest);
        chunk.set(last.subarray(rest), filled);
        filled += this.block - rest;
      }
      if (filled > 0) await send();
    } finally {
      await Promise.allSettled(pending);
    }
    await Promise.all(pending);
    await this.blk.flush({ signal: this.#signal });
    return total;
  }

  /** Describes the data at the beginning of the disk. */
  async describeContents(): Promise<string> {
    const length = Math.min(this.size, 128 * 1024);
    const bytes = new Uint8Array(length);
    let at = 0;
    for await (const piece of this.read({ start: 0, length })) {
      bytes.set(piece, at);
      at += piece.length;
    }
    return recognize(bytes);
  }

  async #block(position: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.block);
    await this.blk.read(position / SECTOR, bytes, { signal: this.#signal });
    return bytes;
  }

  #roundUp(position: number): number {
    return Math.ceil(position / this.block) * this.block;
  }
}

/** The signatures of file systems and partition tables at the beginning of a disk. */
const MARKS: readonly (readonly [name: string, at: number, mark: string])[] = [
  ['a GPT partition table', 512, 'EFI PART'],
  ['a GPT partition table', 4096, 'EFI PART'],
  ['an encrypted volume (LUKS)', 0, 'LUKS\xba\xbe'],
  ['an XFS file system', 0, 'XFSB'],
  ['a qcow2 image', 0, 'QFI\xfb'],
  ['an ext2, ext3 or ext4 file system', 1080, '\x53\xef'],
  ['a btrfs file system', 65600, '_BHRfS_M'],
  ['LVM', 536, 'LVM2 001'],
  ['swap space', 4086, 'SWAPSPACE2'],
  ['an ISO 9660 file system', 32769, 'CD001'],
  ['an NTFS file system', 3, 'NTFS    '],
  ['an MBR partition table, or a boot sector', 510, '\x55\xaa'],
];

/** Describes the first bytes of a disk. */
export function recognize(bytes: Uint8Array): string {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  const found = MARKS.find(([, at, mark]) => text.startsWith(mark, at));
  if (found !== undefined) return found[0];
  return bytes.every((byte) => byte === 0) ? 'zeroes at its beginning' : 'data of an unknown kind';
}
