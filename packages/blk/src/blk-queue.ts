/**
 * The requests of one queue: each slot has a header that the device reads and a status byte that it writes, both in one
 * DMA region, and remembers the buffers that it shared. Nothing is allocated for a request.
 *
 * The header is never read back, as the device could have changed it; what messages need is kept beside it.
 */
import { type DmaRegion, type Hal, type RequestQueue, type SpinOptions, VirtioError } from '@virtio/core';
import { deviceWritesData, RequestHeader, requestName, RequestStatus, RequestType } from './protocol.ts';

/** Data of a request: one buffer, or several in a row. */
export type BlkData = Uint8Array | readonly Uint8Array[];

// A slot: the header, then what the device writes behind the data: the sector of a zone append, and the status.
const SLOT_SIZE = 32;
const SLOT_WORDS = SLOT_SIZE / 4;
const APPEND_SECTOR = RequestHeader.size;
const APPEND_SECTOR_SIZE = 8;
const STATUS = APPEND_SECTOR + APPEND_SECTOR_SIZE;
/** What the status byte holds until the device writes it: none of the specification's. */
const NO_STATUS = 0xff;

const TWO_32 = 4294967296;

// Who waits for a slot.
const POLLED = 0;
const AWAITED = 1;
/** Nobody any more: the caller gave up, the device did not. */
const ORPHANED = 2;

const NO_BUFFER = new Uint8Array(0);

/** What a {@link BlkQueue} is made of. */
export interface BlkQueueParts {
  readonly requests: RequestQueue;
  /** At least {@link slotBytes} of the queue. */
  readonly region: DmaRegion;
  readonly hal: Hal;
  readonly accessPlatform: boolean;
  /** Whether VERSION_1 was negotiated. Older devices may report wrong lengths. */
  readonly modern: boolean;
  /** Whether the statuses of zoned devices are possible. */
  readonly zoned: boolean;
  /** The device, for messages. */
  readonly who: string;
}

/** The bytes of DMA memory that the slots of a queue take. */
export function slotBytes(slots: number): number {
  return slots * SLOT_SIZE;
}

/** Builds and ends the requests of one queue. */
export class BlkQueue {
  /** The queue below. */
  readonly requests: RequestQueue;
  /** The most bytes of a segment. */
  sizeMax = Infinity;

  readonly #parts: BlkQueueParts;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;
  readonly #address: number;

  // By slot.
  readonly #waits: Uint8Array;
  readonly #types: Uint8Array;
  readonly #sectors: Float64Array;
  readonly #expected: Float64Array;
  readonly #counts: Uint16Array;
  readonly #buffers: Uint8Array[][];
  readonly #addresses: number[][];

  #orphans: number[] = [];
  #disposed: VirtioError | undefined;

  constructor(parts: BlkQueueParts) {
    const { requests, region } = parts;
    const { slots } = requests;
    this.#parts = parts;
    this.requests = requests;
    this.#words = new Uint32Array(region.bytes.buffer, region.bytes.byteOffset, slots * SLOT_WORDS);
    this.#bytes = region.bytes;
    this.#address = region.address;
    this.#waits = new Uint8Array(slots);
    this.#types = new Uint8Array(slots);
    this.#sectors = new Float64Array(slots);
    this.#expected = new Float64Array(slots);
    this.#counts = new Uint16Array(slots);
    this.#buffers = Array.from({ length: slots }, () => []);
    this.#addresses = Array.from({ length: slots }, () => []);
  }

  /**
   * Submits a request to be polled for; the queue is not yet flushed.
   *
   * @param segments into how many segments the data is cut
   * @returns its slot, or -1 if there is no room now
   */
  start(type: number, sector: number, data: BlkData, segments: number): number {
    return this.#start(type, sector, data, segments, POLLED);
  }

  /** The same, but looks for used chains if there is no room, and throws `QUEUE_FULL` if there still is none. */
  startOrThrow(type: number, sector: number, data: BlkData, segments: number): number {
    return this.#startOrThrow(type, sector, data, segments, POLLED);
  }

  /**
   * Submits a request, spins until it is done, and ends it; see {@link BlkQueue.finish}.
   *
   * @param report tells the driver that the device no longer works
   */
  runSync(
    type: number,
    sector: number,
    data: BlkData,
    segments: number,
    options: SpinOptions | undefined,
    report: (error: VirtioError) => void,
  ): number {
    const { requests } = this;
    const slot = this.#startOrThrow(type, sector, data, segments, AWAITED);
    requests.flush();
    try {
      requests.waitSync(slot, options);
    } catch (error) {
      if (VirtioError.is(error, 'DEVICE_NEEDS_RESET') || VirtioError.is(error, 'DEVICE_REMOVED')) {
        report(error);
      }
      if (requests.failure === undefined) {
        // The caller gives up, the device does not: its buffers stay with it until it is done or reset.
        this.#waits[slot] = ORPHANED;
        this.#orphans.push(slot);
      }
      throw error;
    }
    return this.finish(slot);
  }

  /**
   * Submits a request as soon as there is room (who comes first is served first), waits until it is done, and ends it; see
   * {@link BlkQueue.finish}.
   */
  run(type: number, sector: number, data: BlkData, segments: number): Promise<number> {
    const slot = this.requests.crowded ? -1 : this.#start(type, sector, data, segments, AWAITED);
    return slot >= 0 ? this.#end(slot) : this.#runWhenRoom(type, sector, data, segments);
  }

  /** The next request that is done and that nobody waits for in another way: its slot, or -1. */
  poll(): number {
    for (;;) {
      const slot = this.requests.poll();
      if (slot < 0 || this.#waits[slot] === POLLED) return slot;
      if (this.#waits[slot] === ORPHANED) this.#reapOrphans();
    }
  }

  /** Ends a request that is polled for; see {@link BlkQueue.finish}. */
  complete(slot: number): number {
    if (this.#waits[slot] !== POLLED) {
      throw new VirtioError(
        'WRONG_TOKEN',
        `${this.#parts.who}: the token is not of a request that was submitted to be polled for`,
      );
    }
    this.requests.requireDone(slot);
    return this.finish(slot);
  }

  /**
   * Ends a request that is done: gives its buffers and its slot back, and judges it.
   *
   * @returns the sector of a zone append, otherwise 0
   * @throws {@link VirtioError} `IO_ERROR`, `UNSUPPORTED`, `DEVICE_MISBEHAVED` (this request alone), `DISPOSED`
   */
  finish(slot: number): number {
    // The status was in memory that is no longer there, and the buffers were given back then.
    if (this.#disposed !== undefined) throw this.#disposed;
    const type = this.#types[slot] as number;
    const status = this.#bytes[slot * SLOT_SIZE + STATUS] as number;
    const written = this.requests.usedLength(slot);
    // 2.7.8.3: what lies beyond the used length counts for nothing, the status included. 5.2.6.3: legacy lengths are ignored.
    const whole = !this.#parts.modern || written >= (this.#expected[slot] as number);
    const good = whole && status === RequestStatus.OK;
    const result = good && type === RequestType.ZONE_APPEND ? this.#appendedAt(slot) : 0;
    try {
      this.#giveBack(slot, good);
    } finally {
      this.requests.release(slot);
    }
    if (!good) throw this.#failed(slot, status, written);
    return result;
  }

  /** Gives the buffers of a request back that the device does not have any more, without looking at them. */
  abandon(slot: number): void {
    this.#giveBack(slot, false);
  }

  /** The queue was reset: what was lost is free again. */
  afterReset(): void {
    this.#reapOrphans();
    this.#orphans = [];
  }

  /** The device was reset for good. Requests that are done and not ended will not be. */
  dispose(error: VirtioError): void {
    this.#disposed = error;
    for (let slot = 0; slot < this.requests.slots; slot += 1) this.#giveBack(slot, false);
  }

  #start(type: number, sector: number, data: BlkData, segments: number, waits: number): number {
    if (this.#orphans.length > 0) this.#reapOrphans();
    const slot = this.requests.tryBegin(segments + 2);
    if (slot >= 0) this.#fill(slot, type, sector, data, waits);
    return slot;
  }

  #startOrThrow(type: number, sector: number, data: BlkData, segments: number, waits: number): number {
    let slot = this.#start(type, sector, data, segments, waits);
    if (slot >= 0) return slot;
    slot = this.requests.begin(segments + 2);
    this.#fill(slot, type, sector, data, waits);
    return slot;
  }

  async #end(slot: number): Promise<number> {
    this.requests.flushSoon();
    await this.requests.done(slot);
    return this.finish(slot);
  }

  async #runWhenRoom(type: number, sector: number, data: BlkData, segments: number): Promise<number> {
    for (;;) {
      await this.requests.room(segments + 2);
      const slot = this.#start(type, sector, data, segments, AWAITED);
      // In the same turn, so that nothing happens to the request before somebody waits for it.
      if (slot >= 0) return this.#end(slot);
    }
  }

  #fill(slot: number, type: number, sector: number, data: BlkData, waits: number): void {
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
    this.#waits[slot] = waits;
    this.#types[slot] = type;
    this.#sectors[slot] = sector;
    const address = this.#address + slot * SLOT_SIZE;
    const incoming = deviceWritesData(type);
    const append = type === RequestType.ZONE_APPEND ? APPEND_SECTOR_SIZE : 0;
    let expected = 1 + append;
    try {
      queue.pushReadable(address, RequestHeader.size);
      if (data instanceof Uint8Array) {
        expected += this.#push(slot, data, incoming);
      } else {
        for (let i = 0; i < data.length; i += 1) {
          expected += this.#push(slot, data[i] as Uint8Array, incoming);
        }
      }
      queue.pushWritable(address + STATUS - append, 1 + append);
      this.#expected[slot] = expected;
    } catch (error) {
      this.#giveBack(slot, false);
      requests.cancel(slot);
      throw error;
    }
    requests.submit(slot);
  }

  /** Shares a buffer and adds it to the chain; returns how many bytes the device may write. */
  #push(slot: number, buffer: Uint8Array, incoming: boolean): number {
    const { hal, accessPlatform } = this.#parts;
    const { queue } = this.requests;
    const { length } = buffer;
    const count = this.#counts[slot] as number;
    let address = hal.share(buffer, incoming ? 'device-to-driver' : 'driver-to-device', accessPlatform);
    (this.#buffers[slot] as Uint8Array[])[count] = buffer;
    (this.#addresses[slot] as number[])[count] = address;
    this.#counts[slot] = count + 1;
    for (let left = length; left > 0;) {
      const piece = left < this.sizeMax ? left : this.sizeMax;
      if (incoming) queue.pushWritable(address, piece);
      else queue.pushReadable(address, piece);
      address += piece;
      left -= piece;
    }
    return incoming ? length : 0;
  }

  #giveBack(slot: number, good: boolean): void {
    const { hal, accessPlatform } = this.#parts;
    const count = this.#counts[slot] as number;
    const buffers = this.#buffers[slot] as Uint8Array[];
    const addresses = this.#addresses[slot] as number[];
    const direction =
      good && deviceWritesData(this.#types[slot] as number) ? 'device-to-driver' : 'driver-to-device';
    this.#counts[slot] = 0;
    for (let i = 0; i < count; i += 1) {
      const buffer = buffers[i] as Uint8Array;
      buffers[i] = NO_BUFFER;
      hal.unshare(addresses[i] as number, buffer, direction, accessPlatform);
    }
  }

  #reapOrphans(): void {
    this.#orphans = this.#orphans.filter((slot) => {
      if (!this.requests.isDone(slot)) return true;
      this.#giveBack(slot, false);
      this.requests.release(slot);
      return false;
    });
  }

  #appendedAt(slot: number): number {
    const word = slot * SLOT_WORDS + APPEND_SECTOR / 4;
    return (this.#words[word] as number) + (this.#words[word + 1] as number) * TWO_32;
  }

  #failed(slot: number, status: number, written: number): VirtioError {
    const { who, zoned } = this.#parts;
    const what = `${who}: ${requestName(this.#types[slot] as number)} at sector ${this.#sectors[slot] as number}`;
    const [name] = Object.entries(RequestStatus).find(([, value]) => value === status) ?? [];
    if (status === RequestStatus.IOERR || (zoned && name?.startsWith('ZONE_') === true)) {
      return new VirtioError(
        'IO_ERROR',
        `${what} failed: the device answered ${name ?? ''}. Other requests are not affected`,
      );
    }
    if (status === RequestStatus.UNSUPP) {
      return new VirtioError(
        'UNSUPPORTED',
        `${what}: the device answered that it does not support this request`,
      );
    }
    const expected = this.#expected[slot] as number;
    const lie =
      status === NO_STATUS
        ? 'without a status'
        : status === RequestStatus.OK
          ? `as done with ${written} of ${expected} bytes written`
          : `with status ${status}, which the specification does not have`;
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${what}: the device gave it back ${lie}. Its data is not to be trusted; other requests are not affected`,
    );
  }
}
