/**
 * Captures in the classic pcap format, for Wireshark or tcpdump, with microseconds or nanoseconds. npm has readers that need Node.js's
 * streams, and no writer in plain ECMAScript; a reader and a writer here are less code than an adapter.
 */
import { requireBytes, requireInteger, VirtioError } from '@virtio/core';

const MAGIC_MICRO = 0xa1b2c3d4;
const MAGIC_NANO = 0xa1b23c4d;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
const ETHERNET = 1;
/** The longest frame that tools accept; a longer one makes them report a broken file. */
const MAX_SNAP_LENGTH = 262_144;

/** A frame in a capture. */
export interface CapturedFrame {
  /** When it was captured, in nanoseconds since 1970. */
  readonly timestamp: bigint;
  /** The bytes that were kept of it: a view of the capture. */
  readonly frame: Uint8Array<ArrayBuffer>;
  /** Its length on the wire, in bytes. */
  readonly originalLength: number;
}

/** Options of {@link PcapWriter}. */
export interface PcapOptions {
  /** Whether times are kept to the nanosecond (default false: microseconds, which every tool reads). */
  readonly nanoseconds?: boolean;
  /** How many bytes of each frame are kept at most (default 262,144: all). */
  readonly snapLength?: number;
}

/**
 * Writes a capture piece by piece, through a function of the caller.
 *
 * @example
 * ```ts
 * import { PcapWriter } from '@virtio/net';
 *
 * export function capture(frames: readonly Uint8Array[], append: (bytes: Uint8Array) => void): void {
 *   const writer = new PcapWriter(append);
 *   for (const frame of frames) writer.write(frame, BigInt(Date.now()) * 1_000_000n);
 * }
 * ```
 */
export class PcapWriter {
  readonly #append: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly #unit: bigint;
  readonly #snapLength: number;

  /**
   * Writes the file header.
   *
   * @param append receives the bytes of the file, in order; each piece has memory of its own
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  constructor(append: (bytes: Uint8Array<ArrayBuffer>) => void, options: PcapOptions = {}) {
    const { nanoseconds = false, snapLength = MAX_SNAP_LENGTH } = options;
    requireInteger('a capture', 'snapLength', snapLength, 1, MAX_SNAP_LENGTH);
    this.#append = append;
    this.#unit = nanoseconds ? 1n : 1000n;
    this.#snapLength = snapLength;
    const head = new DataView(new ArrayBuffer(FILE_HEADER));
    head.setUint32(0, nanoseconds ? MAGIC_NANO : MAGIC_MICRO, true);
    head.setUint16(4, 2, true);
    head.setUint16(6, 4, true);
    head.setUint32(16, snapLength, true);
    head.setUint32(20, ETHERNET, true);
    append(new Uint8Array(head.buffer));
  }

  /**
   * Adds a frame.
   *
   * @param frame from its Ethernet header on, without the VirtIO header; it is copied
   * @param timestamp when it was sent or received, in nanoseconds since 1970
   * @throws {@link VirtioError} `INVALID_PARAM`, also for a time before 1970 or after 2106
   */
  write(frame: Uint8Array, timestamp: bigint): void {
    requireBytes('a capture', frame);
    if (typeof timestamp !== 'bigint') {
      throw new VirtioError(
        'INVALID_PARAM',
        `a capture: timestamp is ${String(timestamp)}; give nanoseconds as a bigint`,
      );
    }
    const seconds = timestamp / 1_000_000_000n;
    if (timestamp < 0n || seconds > 0xffffffffn) {
      throw new VirtioError('INVALID_PARAM', `a capture holds times from 1970 to 2106, not ${timestamp} ns`);
    }
    const kept = Math.min(frame.length, this.#snapLength);
    const record = new Uint8Array(RECORD_HEADER + kept);
    const view = new DataView(record.buffer);
    view.setUint32(0, Number(seconds), true);
    view.setUint32(4, Number((timestamp % 1_000_000_000n) / this.#unit), true);
    view.setUint32(8, kept, true);
    view.setUint32(12, frame.length, true);
    record.set(frame.subarray(0, kept), RECORD_HEADER);
    this.#append(record);
  }
}

/**
 * Reads a capture of Ethernet frames, in either byte order and either unit of time.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if the bytes are not such a capture, or end in the middle of a frame; the frames before that
 * have been yielded by then
 */
export function* readPcap(bytes: Uint8Array<ArrayBuffer>): Generator<CapturedFrame, void, undefined> {
  if (!(bytes instanceof Uint8Array)) throw invalid('it is not a Uint8Array');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < FILE_HEADER) {
    throw invalid(`it has ${bytes.length} bytes, fewer than the ${FILE_HEADER} of a file header`);
  }
  const magics: readonly (readonly [number, boolean, bigint])[] = [
    [MAGIC_MICRO, true, 1000n],
    [MAGIC_MICRO, false, 1000n],
    [MAGIC_NANO, true, 1n],
    [MAGIC_NANO, false, 1n],
  ];
  const magic = magics.find(([value, order]) => view.getUint32(0, order) === value);
  if (magic === undefined) {
    throw invalid(
      `it starts with 0x${view.getUint32(0).toString(16)}; pcapng is another format: convert it with editcap -F pcap`,
    );
  }
  const [, little, unit] = magic;
  const link = view.getUint32(20, little) & 0xffff;
  if (link !== ETHERNET) throw invalid(`its link type is ${link}, not Ethernet (${ETHERNET})`);
  for (let at = FILE_HEADER; at < bytes.length;) {
    if (at + RECORD_HEADER > bytes.length) {
      throw invalid(`it ends at ${bytes.length}, in the header of a frame`);
    }
    const kept = view.getUint32(at + 8, little);
    const end = at + RECORD_HEADER + kept;
    if (end > bytes.length) {
      throw invalid(`it ends at ${bytes.length}, in the ${kept} bytes of the frame at ${at}`);
    }
    yield {
      timestamp:
        BigInt(view.getUint32(at, little)) * 1_000_000_000n + BigInt(view.getUint32(at + 4, little)) * unit,
      frame: bytes.subarray(at + RECORD_HEADER, end),
      originalLength: view.getUint32(at + 12, little),
    };
    at = end;
  }
}

const invalid = (what: string): VirtioError =>
  new VirtioError('INVALID_PARAM', `not a pcap capture of Ethernet frames: ${what}`);
