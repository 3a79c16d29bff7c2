/**
 * The callers' buffers that requests have shared with the device, by slot; each is given back exactly once.
 *
 * The memory of a buffer belongs to its caller, who may transfer or resize it while the device has it. The device then still has
 * what was shared, and nothing is copied back.
 */
import { VirtioError } from '../errors.ts';
import type { BufferDirection, Hal } from '../memory/hal.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

const NO_BUFFER = new Uint8Array(0);

/** How many buffers of a slot are kept in typed arrays, which is enough for most requests. */
const PLACES = 2;

/** A buffer behind those. */
interface Shared {
  readonly buffer: Uint8Array;
  readonly address: number;
  readonly length: number;
}

/** Shares buffers and unshares them. Allocates nothing for the first two of a request. */
export class SharedBuffers {
  readonly #queue: VirtQueue;
  readonly #hal: Hal;
  readonly #accessPlatform: boolean;
  // By slot. The first so many buffers of a slot are read by the device, the others written.
  readonly #counts: Uint16Array;
  readonly #readable: Uint16Array;
  readonly #more: Shared[][];
  // By place, of which each slot has so many.
  readonly #buffers: Uint8Array[];
  readonly #addresses: Float64Array;
  readonly #lengths: Float64Array;

  constructor(queue: VirtQueue, slots: number) {
    this.#queue = queue;
    this.#hal = queue.hal;
    this.#accessPlatform = queue.accessPlatform;
    this.#counts = new Uint16Array(slots);
    this.#readable = new Uint16Array(slots);
    this.#more = Array.from({ length: slots }, () => []);
    this.#buffers = new Array<Uint8Array>(slots * PLACES).fill(NO_BUFFER);
    this.#addresses = new Float64Array(slots * PLACES);
    this.#lengths = new Float64Array(slots * PLACES);
  }

  /**
   * Shares a buffer.
   *
   * @param writable whether the device writes it; buffers that it reads come first
   * @returns its address for the device
   * @throws {@link VirtioError} `DMA_ERROR`, `INVALID_PARAM` if it is empty, `DEVICE_RESET` if the driver was reset meanwhile
   */
  share(slot: number, buffer: Uint8Array, writable: boolean): number {
    const { length } = buffer;
    if (length === 0) throw this.#empty();
    const address = this.#hal.share(
      buffer,
      writable ? 'device-to-driver' : 'driver-to-device',
      this.#accessPlatform,
    );
    // The array, or the platform, has called the driver: another request may have the slot by now.
    if (!this.#queue.isBuilding) {
      this.#hal.unshare(address, buffer, 'driver-to-device', this.#accessPlatform);
      throw this.#queue.failure ?? this.#reset();
    }
    const count = this.#counts[slot] as number;
    if (count < PLACES) {
      const place = slot * PLACES + count;
      this.#buffers[place] = buffer;
      this.#addresses[place] = address;
      this.#lengths[place] = length;
    } else {
      (this.#more[slot] as Shared[]).push({ buffer, address, length });
    }
    this.#counts[slot] = count + 1;
    if (!writable) this.#readable[slot] = count + 1;
    return address;
  }

  /**
   * Unshares all buffers of a slot, which the device no longer has.
   *
   * @param written whether what the device wrote is needed; otherwise it is ignored
   * @returns whether the buffers that the device wrote still have their size, so that they contain what it wrote
   */
  giveBack(slot: number, written: boolean): boolean {
    const count = this.#counts[slot] as number;
    if (count === 0) return true;
    const firstWritten = written ? (this.#readable[slot] as number) : count;
    this.#counts[slot] = 0;
    this.#readable[slot] = 0;
    let whole = true;
    for (let i = 0; i < count && i < PLACES; i += 1) {
      const place = slot * PLACES + i;
      const buffer = this.#buffers[place] as Uint8Array;
      this.#buffers[place] = NO_BUFFER;
      const counts = i >= firstWritten;
      const same = this.#unshare(
        buffer,
        this.#addresses[place] as number,
        this.#lengths[place] as number,
        counts,
      );
      whole = whole && same;
    }
    if (count > PLACES) {
      const more = (this.#more[slot] as Shared[]).splice(0);
      more.forEach(({ buffer, address, length }, i) => {
        const same = this.#unshare(buffer, address, length, i + PLACES >= firstWritten);
        whole = whole && same;
      });
    }
    return whole;
  }

  /** Returns false if the buffer changed its size and what the device wrote is needed (`counts`), so that it cannot be copied there. */
  #unshare(buffer: Uint8Array, address: number, length: number, counts: boolean): boolean {
    const same = !counts || buffer.length === length;
    const direction: BufferDirection = counts && same ? 'device-to-driver' : 'driver-to-device';
    this.#hal.unshare(address, buffer, direction, this.#accessPlatform);
    return same;
  }

  #reset(): VirtioError {
    return new VirtioError(
      'DEVICE_RESET',
      `${this.#queue.transport.who()} was reset while the request was built, so it was not sent: ask again`,
    );
  }

  #empty(): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#queue.transport.who()}: a buffer of the request is empty, or its memory was transferred; leave it out`,
    );
  }
}
