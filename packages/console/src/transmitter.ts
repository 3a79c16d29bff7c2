/**
 * The sending half of a port: a fixed number of buffers that bytes are copied to. How many are free is how much more can be
 * sent; a device that is slow makes its sender wait, and needs no memory for that.
 */
import type { DmaRegion, VirtQueue } from '@virtio/core';

/** The buffers of a queue to the device. */
export class Transmitter {
  /** The queue below. */
  readonly queue: VirtQueue;

  readonly #region: DmaRegion;
  readonly #bufferSize: number;
  readonly #free: Uint16Array;
  #freeCount = 0;
  /** By token: the buffer that is in the chain. */
  readonly #bufferOf: Uint16Array;

  /** @param region `count` buffers of `bufferSize` bytes each */
  constructor(queue: VirtQueue, region: DmaRegion, count: number, bufferSize: number) {
    this.queue = queue;
    this.#region = region;
    this.#bufferSize = bufferSize;
    this.#free = new Uint16Array(count);
    this.#bufferOf = new Uint16Array(queue.size);
    this.reset();
  }

  /** Whether the device has used all that was sent. */
  get idle(): boolean {
    return this.queue.inFlight === 0;
  }

  /** Whether there is a free buffer. */
  get ready(): boolean {
    return this.#freeCount > 0;
  }

  /**
   * Looks which buffers the device has used.
   *
   * @throws VirtioError `DEVICE_MISBEHAVED`
   */
  drain(): void {
    // 5.3.6.3: lengths are of no interest here, and wrong with some legacy devices.
    for (let token = this.queue.pop(); token >= 0; token = this.queue.pop()) {
      this.#free[this.#freeCount] = this.#bufferOf[token] as number;
      this.#freeCount += 1;
    }
  }

  /**
   * Sends as many bytes as there are buffers for.
   *
   * @returns how many
   */
  write(bytes: Uint8Array): number {
    const size = this.#bufferSize;
    let sent = 0;
    while (sent < bytes.length && this.#freeCount > 0) {
      const part = bytes.subarray(sent, sent + size);
      // A buffer is free only if its descriptor is, too.
      this.queue.begin(1);
      this.#freeCount -= 1;
      const buffer = this.#free[this.#freeCount] as number;
      this.#region.bytes.set(part, buffer * size);
      this.queue.pushReadable(this.#region.address + buffer * size, part.length);
      this.#bufferOf[this.queue.submit()] = buffer;
      sent += part.length;
    }
    if (sent === 0) return 0;
    this.queue.publish();
    this.queue.kick();
    return sent;
  }

  /**
   * After a reset of the queue: all buffers are free.
   *
   * @returns whether bytes were on their way
   */
  reset(): boolean {
    const lost = this.#freeCount < this.#free.length;
    this.#freeCount = this.#free.length;
    for (let buffer = 0; buffer < this.#freeCount; buffer += 1) this.#free[buffer] = buffer;
    return lost;
  }
}
