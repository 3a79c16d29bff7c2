/**
 * The requests of one queue: each slot has a header that the device reads and a status byte that it writes, both in one DMA
 * region. Reads and writes allocate nothing.
 *
 * The header is never read back, as the device could have changed it; error messages use copies of its fields.
 */
import {
  type DmaRegion,
  type RequestHandler,
  type RequestQueue,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  deviceWritesData,
  RequestHeader,
  requestName,
  RequestStatus,
  RequestType,
  SECTOR_SIZE,
} from './protocol.ts';

/** The data of a request: one buffer, or several that follow each other (scatter-gather). */
export type BlkData = Uint8Array | readonly Uint8Array[];

/** Makes the result of a request that has one. `appendedAt` is the sector at which a zone append put the data. */
export type Decode = (appendedAt: number) => unknown;

// A slot: the header, then what the device writes behind the data: the sector of a zone append, and the status.
const SLOT_SIZE = 32;
const SLOT_WORDS = SLOT_SIZE / 4;
const APPEND_SECTOR = RequestHeader.size;
const APPEND_SECTOR_SIZE = 8;
const STATUS = APPEND_SECTOR + APPEND_SECTOR_SIZE;
/** What the status byte holds until the device writes it: not a status of the specification. */
const NO_STATUS = 0xff;

const TWO_32 = 4294967296;

// Read by each request, so taken out of the tables once.
const { OK } = RequestStatus;
const { ZONE_APPEND } = RequestType;

/** The number of descriptors of a request besides its data: header and status. */
export const OVERHEAD = 2;

const lengthsOf = (data: BlkData): number[] =>
  data instanceof Uint8Array ? [data.length] : data.map(({ length }) => length);

/** What a {@link BlkQueue} needs from its driver. */
export interface BlkQueueHost {
  /** Makes the underlying request queue. */
  readonly createRequests: (handler: RequestHandler<unknown>) => RequestQueue;
  /** DMA memory that lives as long as the driver. */
  readonly allocate: (bytes: number) => DmaRegion;
  /** Whether VERSION_1 was negotiated. Older devices may report wrong lengths. */
  readonly modern: boolean;
  /** Whether the device may answer with the statuses of zoned devices. */
  readonly zoned: boolean;
  /** The device, for messages. */
  readonly who: string;
  /** Counts a harmless deviation of the device from the specification. */
  readonly quirk: (queue: number, message: string) => void;
}

/** Builds the requests of one queue, and checks their answers. */
export class BlkQueue implements RequestHandler<unknown> {
  /** The underlying request queue. */
  readonly requests: RequestQueue;
  /** The largest segment, in bytes. */
  sizeMax = Infinity;
  /** The block size of the disk in bytes. */
  blockSize = SECTOR_SIZE;

  readonly #host: BlkQueueHost;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #address: number;

  // By slot.
  readonly #types: Uint8Array;
  readonly #sectors: Float64Array;
  /** The bytes of data. */
  readonly #lengths: Float64Array;
  readonly #decodes: (Decode | undefined)[];

  constructor(host: BlkQueueHost) {
    this.#host = host;
    this.requests = host.createRequests(this);
    const { slots } = this.requests;
    const { bytes, address } = host.allocate(slots * SLOT_SIZE);
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, slots * SLOT_WORDS);
    this.#bytes = bytes;
    this.#address = address;
    this.#types = new Uint8Array(slots);
    this.#sectors = new Float64Array(slots);
    this.#lengths = new Float64Array(slots);
    this.#decodes = new Array<undefined>(slots).fill(undefined);
  }

  /**
   * Submits a request without notifying the device.
   *
   * @param segments the number of segments of the data
   * @returns its slot, or -1 if there is no room now
   */
  start(type: number, sector: number, data: BlkData, segments: number, decode?: Decode): number {
    const slot = this.requests.tryBegin(segments + OVERHEAD);
    if (slot >= 0) this.#fill(slot, type, sector, data, decode);
    return slot;
  }

  /** Like {@link BlkQueue.start}, but looks for answers if there is no room, and throws `QUEUE_FULL` if there still is none. */
  startOrThrow(type: number, sector: number, data: BlkData, segments: number, decode?: Decode): number {
    const slot = this.requests.begin(segments + OVERHEAD);
    this.#fill(slot, type, sector, data, decode);
    return slot;
  }

  /** Submits a request as soon as there is room, and waits for its answer. */
  run(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    decode: Decode | undefined,
    options: WaitOptions | undefined,
  ): Promise<unknown> {
    const { requests } = this;
    requests.checkWaitable(options);
    const slot = requests.crowded ? -1 : this.start(type, sector, data, segments, decode);
    if (slot >= 0) return requests.settled(slot, options);
    // The caller may change the array meanwhile.
    const kept = data instanceof Uint8Array ? data : [...data];
    const lengths = lengthsOf(kept);
    const begin = (): number => {
      if (!lengthsOf(kept).every((length, i) => length === lengths[i])) throw this.#resized(type, sector);
      // The device may have changed its limit of a segment.
      return this.start(type, sector, kept, this.#segments(lengths), decode);
    };
    return requests.whenRoom(segments + OVERHEAD, begin, options);
  }

  /**
   * Checks an answer by its status. Some devices in use leave the status out of the used length, or include what they read;
   * Linux ignores the used length, too.
   *
   * @throws {@link VirtioError} `IO_ERROR`, `UNSUPPORTED`, `DEVICE_MISBEHAVED` (this request alone)
   */
  judge(slot: number, usedLength: number): void {
    const status = this.#bytes[slot * SLOT_SIZE + STATUS] as number;
    if (status !== OK) throw this.#failed(slot, status);
    const type = this.#types[slot] as number;
    const expected =
      type === ZONE_APPEND
        ? 1 + APPEND_SECTOR_SIZE
        : deviceWritesData(type)
          ? (this.#lengths[slot] as number) + 1
          : 1;
    if (usedLength < expected && this.#host.modern) {
      this.#host.quirk(
        this.requests.queue.index,
        `${requestName(type)} succeeded, but the device reported ${usedLength} written bytes instead of ${expected}; only the status counts`,
      );
    }
  }

  /** The result of a successful request; `undefined` for reads and writes. */
  result(slot: number): unknown {
    const decode = this.#decodes[slot];
    if (decode === undefined) return undefined;
    this.#decodes[slot] = undefined;
    const word = slot * SLOT_WORDS + APPEND_SECTOR / 4;
    return decode((this.#words[word] as number) + (this.#words[word + 1] as number) * TWO_32);
  }

  #fill(slot: number, type: number, sector: number, data: BlkData, decode: Decode | undefined): void {
    const { requests } = this;
    const { queue } = requests;
    const word = slot * SLOT_WORDS;
    const words = this.#words;
    words[word] = type;
    words[word + 1] = 0;
    // A Uint32Array takes a number modulo 2^32.
    words[word + 2] = sector;
    words[word + 3] = sector < TWO_32 ? 0 : sector / TWO_32;
    this.#bytes[slot * SLOT_SIZE + STATUS] = NO_STATUS;
    this.#types[slot] = type;
    this.#sectors[slot] = sector;
    if (this.#decodes[slot] !== decode) this.#decodes[slot] = decode;
    const address = this.#address + slot * SLOT_SIZE;
    const incoming = deviceWritesData(type);
    const append = type === ZONE_APPEND ? APPEND_SECTOR_SIZE : 0;
    let length = 0;
    try {
      queue.pushReadable(address, RequestHeader.size);
      if (data instanceof Uint8Array) {
        length = this.#push(slot, data, incoming);
      } else {
        for (let i = 0; i < data.length; i += 1) {
          length += this.#push(slot, data[i] as Uint8Array, incoming);
        }
      }
      queue.pushWritable(address + STATUS - append, 1 + append);
      this.#lengths[slot] = length;
      requests.submit(slot);
    } catch (error) {
      requests.rewind(slot);
      throw error;
    }
  }

  /** Shares a buffer and adds it to the chain, split into segments; returns its length. */
  #push(slot: number, buffer: Uint8Array, incoming: boolean): number {
    const { requests, sizeMax } = this;
    const { queue } = requests;
    const { length } = buffer;
    let address = requests.share(slot, buffer, incoming);
    for (let left = length; left > 0;) {
      const piece = left < sizeMax ? left : sizeMax;
      if (incoming) queue.pushWritable(address, piece);
      else queue.pushReadable(address, piece);
      address += piece;
      left -= piece;
    }
    return length;
  }

  #segments(lengths: readonly number[]): number {
    return lengths.reduce((sum, length) => sum + Math.ceil(length / Math.min(this.sizeMax, length)), 0);
  }

  #resized(type: number, sector: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#host.who}: ${requestName(type)} at sector ${sector}: a buffer was transferred or resized while the request waited for room, so ` +
        'it was not sent; leave the buffers of a request as they are until it has ended',
    );
  }

  #failed(slot: number, status: number): VirtioError {
    const { who, zoned } = this.#host;
    const sector = this.#sectors[slot] as number;
    const what = `${who}: ${requestName(this.#types[slot] as number)} at sector ${sector}`;
    const [name] = Object.entries(RequestStatus).find(([, value]) => value === status) ?? [];
    if (status === RequestStatus.IOERR || (zoned && name?.startsWith('ZONE_') === true)) {
      return new VirtioError(
        'IO_ERROR',
        `${what} failed: the device answered ${name ?? ''}. ${this.#likelyReason(slot)}Other requests are not affected`,
      );
    }
    if (status === RequestStatus.UNSUPP) {
      return new VirtioError(
        'UNSUPPORTED',
        `${what}: the device answered that it does not support this request`,
      );
    }
    const lie =
      status === NO_STATUS
        ? 'did not write a status'
        : `wrote status ${status}, which the specification does not define`;
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${what}: the device answered, but ${lie}. Do not rely on the data; other requests are not affected`,
    );
  }

  /** A device may refuse requests that do not consist of whole blocks. */
  #likelyReason(slot: number): string {
    const { blockSize } = this;
    const start = (this.#sectors[slot] as number) * SECTOR_SIZE;
    const length = this.#lengths[slot] as number;
    if (start % blockSize === 0 && length % blockSize === 0) return '';
    return (
      `The disk has blocks of ${blockSize} bytes, and ${length} bytes at byte ${start} are not whole blocks, which is the ` +
      'likely reason: read and write whole blocks. '
    );
  }
}
