/**
 * The requests of one queue: each slot has a header that the device reads and a status byte that it writes, both in one DMA
 * region. Nothing is allocated for a request that is read or written.
 *
 * The header is never read back, as the device could have changed it; what messages need is kept beside it.
 */
import {
  type DmaRegion,
  type RequestHandler,
  type RequestQueue,
  type SpinOptions,
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

/** Data of a request: one buffer, or several in a row. */
export type BlkData = Uint8Array | readonly Uint8Array[];

/** Makes the result of a request that has one; an append gets the sector at which the data is. */
export type Decode = (appendedAt: number) => unknown;

// A slot: the header, then what the device writes behind the data: the sector of a zone append, and the status.
const SLOT_SIZE = 32;
const SLOT_WORDS = SLOT_SIZE / 4;
const APPEND_SECTOR = RequestHeader.size;
const APPEND_SECTOR_SIZE = 8;
const STATUS = APPEND_SECTOR + APPEND_SECTOR_SIZE;
/** What the status byte holds until the device writes it: none of the specification's. */
const NO_STATUS = 0xff;

const TWO_32 = 4294967296;

// What each request looks at, named once.
const { OK } = RequestStatus;
const { ZONE_APPEND } = RequestType;

/** The descriptors of a request beside its data: header and status. */
export const OVERHEAD = 2;

/** What a {@link BlkQueue} needs of its driver. */
export interface BlkQueueHost {
  /** Makes the queue below. */
  readonly createRequests: (handler: RequestHandler<unknown>) => RequestQueue;
  /** DMA memory that lives as long as the driver. */
  readonly allocate: (bytes: number) => DmaRegion;
  /** Whether VERSION_1 was negotiated. Older devices may report wrong lengths. */
  readonly modern: boolean;
  /** Whether the statuses of zoned devices are possible. */
  readonly zoned: boolean;
  /** The device, for messages. */
  readonly who: string;
  /** Counts what a sloppy device did. */
  readonly quirk: (queue: number, message: string) => void;
}

/** Builds and judges the requests of one queue. */
export class BlkQueue implements RequestHandler<unknown> {
  /** The queue below. */
  readonly requests: RequestQueue;
  /** The most bytes of a segment. */
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
   * Submits a request; the device is not yet told.
   *
   * @param segments into how many segments the data is cut
   * @returns its slot, or -1 if there is no room now
   */
  start(type: number, sector: number, data: BlkData, segments: number, decode?: Decode): number {
    const slot = this.requests.tryBegin(segments + OVERHEAD);
    if (slot >= 0) this.#fill(slot, type, sector, data, decode);
    return slot;
  }

  /** The same, but looks for answers if there is no room, and throws `QUEUE_FULL` if there still is none. */
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
    // The array is the caller's, who may change it meanwhile.
    const kept = data instanceof Uint8Array ? data : [...data];
    const begin = (): number => this.start(type, sector, kept, segments, decode);
    return requests.whenRoom(segments + OVERHEAD, begin, options);
  }

  /** Submits a request, and spins until it is answered. */
  runSync(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    decode: Decode | undefined,
    options: SpinOptions | undefined,
  ): unknown {
    this.requests.checkSpin(options);
    const slot = this.startOrThrow(type, sector, data, segments, decode);
    return this.requests.waitSync(slot, options);
  }

  /**
   * Judges an answer by its status. Devices in use leave the status out of the length that they report, or count in what they
   * read; Linux does not look at it either.
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
        `${requestName(type)} was answered as done, with ${usedLength} of ${expected} bytes written; its status counts`,
      );
    }
  }

  /** The result of a good answer; `undefined` of reads and writes. */
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

  /** Shares a buffer and adds it to the chain, cut into segments; returns its length. */
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
        ? 'without a status'
        : `with status ${status}, which the specification does not have`;
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${what}: the device gave it back ${lie}. Its data is not to be trusted; other requests are not affected`,
    );
  }

  /** A device may refuse what does not fit its blocks. */
  #likelyReason(slot: number): string {
    const { blockSize } = this;
    const start = (this.#sectors[slot] as number) * SECTOR_SIZE;
    const length = this.#lengths[slot] as number;
    if (start % blockSize === 0 && length % blockSize === 0) return '';
    return (
      `The disk has blocks of ${blockSize} bytes, and ${length} bytes at byte ${start} are not whole blocks, which is the ` +
      'likely reason: read and write whole ones. '
    );
  }
}
