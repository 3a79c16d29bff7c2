/**
 * A queue that owns its buffers, for devices that send unasked: received packets, input events, control messages. All
 * buffers are with the device but those that are being looked at; each goes back after use.
 */
import { VirtioError } from './errors.ts';
import { type BufferDirection, type DmaRegion, type Hal, PAGE_SIZE } from './hal.ts';
import type { VirtQueue } from './virt-queue.ts';

/** What an {@link OwningQueue} may be told. */
export interface OwningQueueOptions {
  /** The bytes of each buffer. */
  readonly bufferSize: number;
  /** How many buffers (default: as many as the queue has descriptors). */
  readonly count?: number;
  /** Whether `VIRTIO_F_ACCESS_PLATFORM` was negotiated. */
  readonly accessPlatform: boolean;
}

const DIRECTION: BufferDirection = 'device-to-driver';

/** A queue with buffers of its own that the device fills. Each buffer is one device-writable element. */
export class OwningQueue implements Disposable {
  /** The queue below. */
  readonly queue: VirtQueue;
  /** The bytes of each buffer. */
  readonly bufferSize: number;
  /** The bytes that the device wrote to the buffer that {@link OwningQueue.pop} returned last. */
  usedLength = 0;

  readonly #hal: Hal;
  readonly #region: DmaRegion;
  readonly #buffers: Uint8Array[] = [];
  /** By token: the buffer that is in the chain, or -1. */
  readonly #bufferOf: Int32Array;
  /** By buffer: 1 while the driver has it. */
  readonly #taken: Uint8Array;
  #disposed = false;

  /**
   * Allocates the buffers. {@link OwningQueue.postAll} gives them to the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR`
   */
  constructor(
    queue: VirtQueue,
    hal: Hal,
    { bufferSize, count = queue.size, accessPlatform }: OwningQueueOptions,
  ) {
    if (!(bufferSize >= 1 && count >= 1 && count <= queue.size)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${queue.index}: ${count} buffers of ${bufferSize} bytes were asked for; it takes 1 to ${queue.size} of 1 byte or more`,
      );
    }
    this.queue = queue;
    this.bufferSize = bufferSize;
    this.#hal = hal;
    // Buffers start at multiples of 8, so that structures in them are aligned.
    const stride = Math.ceil(bufferSize / 8) * 8;
    this.#region = hal.dmaAlloc(Math.ceil((stride * count) / PAGE_SIZE), DIRECTION, accessPlatform);
    for (let i = 0; i < count; i += 1) {
      this.#buffers.push(this.#region.bytes.subarray(i * stride, i * stride + bufferSize));
    }
    this.#bufferOf = new Int32Array(queue.size).fill(-1);
    this.#taken = new Uint8Array(count).fill(1);
  }

  /** How many buffers there are. */
  get count(): number {
    return this.#buffers.length;
  }

  /** Gives all buffers that the driver has to the device, and notifies it if it wants that. */
  postAll(): void {
    for (let i = 0; i < this.#taken.length; i += 1) if (this.#taken[i] === 1) this.#post(i);
    this.queue.publish();
    this.queue.kick();
  }

  /** After a reset of the device and of the queue: all buffers are the driver's again. */
  reclaim(): void {
    this.#taken.fill(1);
    this.#bufferOf.fill(-1);
  }

  /**
   * Takes the next buffer that the device has filled.
   *
   * @returns the buffer's number for {@link OwningQueue.buffer} and {@link OwningQueue.repost}, with the bytes written in
   * {@link OwningQueue.usedLength}, or -1 if there is none
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`
   */
  pop(): number {
    const token = this.queue.pop();
    if (token < 0) return -1;
    const buffer = this.#bufferOf[token] as number;
    this.#bufferOf[token] = -1;
    this.#taken[buffer] = 1;
    this.usedLength = this.queue.usedLength;
    return buffer;
  }

  /** A buffer that {@link OwningQueue.pop} returned: all of its bytes, of which the device wrote `usedLength`. */
  buffer(number: number): Uint8Array {
    const buffer = this.#buffers[number];
    if (buffer === undefined) {
      throw new VirtioError('INVALID_PARAM', `queue ${this.queue.index} has no buffer ${number}`);
    }
    return buffer;
  }

  /**
   * Gives a buffer back to the device. Call {@link OwningQueue.flush} after the last one.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the driver does not have the buffer
   */
  repost(number: number): void {
    if (this.#taken[number] !== 1) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.queue.index}: buffer ${number} is not the driver's to repost`,
      );
    }
    this.#post(number);
  }

  /** Publishes reposted buffers, and notifies the device if it wants that. */
  flush(): void {
    this.queue.publish();
    this.queue.kick();
  }

  /**
   * Calls `handler` with each buffer that the device has filled, and gives it back afterwards.
   *
   * @param handler gets the bytes that the device wrote; they are valid only during the call
   * @returns how many buffers there were
   */
  poll(handler: (bytes: Uint8Array) => void): number {
    let count = 0;
    try {
      // The device could refill reposted buffers for ever; one round takes each buffer once at most.
      while (count < this.#buffers.length) {
        const buffer = this.pop();
        if (buffer < 0) break;
        count += 1;
        try {
          handler(this.buffer(buffer).subarray(0, this.usedLength));
        } finally {
          this.#post(buffer);
        }
      }
    } finally {
      if (count > 0 && this.queue.failure === undefined) this.flush();
    }
    return count;
  }

  /** Gives the buffers' memory back. The device must have been reset, or must no longer have the queue. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#hal.dmaDealloc(this.#region);
  }

  #post(buffer: number): void {
    const bytes = this.#buffers[buffer] as Uint8Array;
    this.queue.begin(1);
    this.queue.pushWritable(
      this.#region.address + bytes.byteOffset - this.#region.bytes.byteOffset,
      this.bufferSize,
    );
    const token = this.queue.submit();
    this.#bufferOf[token] = buffer;
    this.#taken[buffer] = 0;
  }
}
