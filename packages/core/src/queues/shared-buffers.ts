/** The callers' buffers that requests have shared with the device, by slot; each is given back exactly once. */
import { VirtioError } from '../errors.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';

const NO_BUFFER = new Uint8Array(0);

/** Shares buffers, and gives them back. Allocates nothing once a slot has had as many before. */
export class SharedBuffers {
  readonly #queue: VirtQueue;
  // By slot.
  readonly #buffers: Uint8Array[][];
  readonly #addresses: number[][];
  readonly #counts: Uint16Array;
  /** The first so many of a slot are read by the device, the others written. */
  readonly #readable: Uint16Array;

  constructor(queue: VirtQueue, slots: number) {
    this.#queue = queue;
    this.#buffers = Array.from({ length: slots }, () => []);
    this.#addresses = Array.from({ length: slots }, () => []);
    this.#counts = new Uint16Array(slots);
    this.#readable = new Uint16Array(slots);
  }

  /**
   * Shares a buffer.
   *
   * @param writable whether the device writes it; buffers that it reads come first
   * @returns its address for the device
   * @throws {@link VirtioError} `DMA_ERROR`, `INVALID_PARAM` if it is empty
   */
  share(slot: number, buffer: Uint8Array, writable: boolean): number {
    if (buffer.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#queue.transport.who()}: a request has an empty buffer; leave it out`,
      );
    }
    const { hal, accessPlatform } = this.#queue;
    const address = hal.share(buffer, writable ? 'device-to-driver' : 'driver-to-device', accessPlatform);
    const count = this.#counts[slot] as number;
    (this.#buffers[slot] as Uint8Array[])[count] = buffer;
    (this.#addresses[slot] as number[])[count] = address;
    this.#counts[slot] = count + 1;
    if (!writable) this.#readable[slot] = count + 1;
    return address;
  }

  /**
   * Gives all buffers of a slot back, which the device no longer has.
   *
   * @param written whether what the device wrote counts; otherwise it is not looked at
   */
  giveBack(slot: number, written: boolean): void {
    const count = this.#counts[slot] as number;
    if (count === 0) return;
    const readable = this.#readable[slot] as number;
    const buffers = this.#buffers[slot] as Uint8Array[];
    const addresses = this.#addresses[slot] as number[];
    const { hal, accessPlatform } = this.#queue;
    this.#counts[slot] = 0;
    this.#readable[slot] = 0;
    for (let i = 0; i < count; i += 1) {
      const buffer = buffers[i] as Uint8Array;
      buffers[i] = NO_BUFFER;
      const direction = written && i >= readable ? 'device-to-driver' : 'driver-to-device';
      hal.unshare(addresses[i] as number, buffer, direction, accessPlatform);
    }
  }
}
