/**
 * A queue for data that the device sends without a request: received packets, input events, control messages. The device has all
 * buffers except those that the driver is reading; each is given back afterwards.
 */
import { VirtioError } from '../errors.ts';
import { BufferQueue, type BufferQueueOptions, type BufferQueueParts } from './buffer-queue.ts';

/** Options of a {@link ReceiveQueue}. */
export interface ReceiveQueueOptions extends BufferQueueOptions {
  /**
   * Takes what the device has sent, by {@link ReceiveQueue.pop} and {@link ReceiveQueue.repost}, or by
   * {@link ReceiveQueue.poll}. What it throws fails the driver.
   *
   * @returns whether there is something for callers that wait
   */
  readonly receive: () => boolean;
  /** The queue was reset: buffers that were popped are invalid, and all buffers are about to be given to the device again. */
  readonly restarted?: () => void;
  /** Whether interrupts are enabled even while nobody waits (default false). They do not keep the event loop alive. */
  readonly always?: boolean;
}

/**
 * A queue whose buffers the device fills. {@link BufferDriver.createReceiveQueue} makes it.
 *
 * @example
 * ```ts
 * import { type ReceiveQueue, requireWaitable, type Transport, type WaitOptions } from '@virtio/core';
 *
 * // `queue` was made with `receive: () => packets.length > 0 || queue.poll((bytes) => packets.push(bytes.slice())) > 0`.
 * export async function next(
 *   transport: Transport,
 *   queue: ReceiveQueue,
 *   packets: Uint8Array[],
 *   options?: WaitOptions,
 * ): Promise<Uint8Array> {
 *   for (;;) {
 *     // Also after a wait: who has cancelled it takes nothing.
 *     requireWaitable(transport, options);
 *     queue.drain();
 *     const packet = packets.shift();
 *     if (packet !== undefined) return packet;
 *     await queue.wait(options);
 *   }
 * }
 * ```
 */
export class ReceiveQueue extends BufferQueue {
  /** The bytes that the device wrote to the buffer that {@link ReceiveQueue.pop} returned last. */
  usedLength = 0;

  readonly #receive: () => boolean;
  readonly #restarted: (() => void) | undefined;
  #news = false;
  /** Whether something was popped since the last drain. */
  #popped = false;

  /** @internal use {@link BufferDriver.createReceiveQueue} */
  constructor(parts: BufferQueueParts, options: ReceiveQueueOptions) {
    super(parts, options, 'device-to-driver', options.always);
    this.#receive = options.receive;
    this.#restarted = options.restarted;
  }

  /**
   * Takes the next buffer that the device has filled.
   *
   * @returns the buffer's number for {@link ReceiveQueue.buffer} and {@link ReceiveQueue.repost}, with the bytes written in
   * {@link ReceiveQueue.usedLength}, or -1 if there is none
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`
   */
  pop(): number {
    const token = this.queue.pop();
    if (token < 0) return -1;
    const buffer = this.bufferOf[token] as number;
    this.taken[buffer] = 1;
    this.usedLength = this.queue.usedLength;
    this.#popped = true;
    return buffer;
  }

  /**
   * Gives a buffer back to the device; it is available after {@link ReceiveQueue.kick}.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if the driver does not have the buffer, or why the device no longer works
   */
  repost(number: number): void {
    if (this.taken[number] !== 1) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()}: buffer ${number} of queue ${this.queue.index} was not popped and cannot be given back`,
      );
    }
    const { head } = this;
    const address = this.addressOf(number);
    this.queue.begin(head > 0 ? 2 : 1);
    if (head > 0) this.queue.pushWritable(address, head);
    this.queue.pushWritable(address + head, this.bufferSize - head);
    this.bufferOf[this.queue.submit()] = number;
    this.taken[number] = 0;
  }

  /**
   * Calls `handler` with each buffer that the device has filled, and gives it back afterwards. One call takes each buffer at most
   * once, as a device could fill them forever.
   *
   * @param handler gets the bytes that the device wrote; they are valid only during the call
   * @returns how many buffers there were
   */
  poll(handler: (bytes: Uint8Array<ArrayBuffer>) => void): number {
    let count = 0;
    try {
      while (count < this.buffers) {
        const number = this.pop();
        if (number < 0) break;
        count += 1;
        try {
          handler(this.buffer(number).subarray(0, this.usedLength));
        } finally {
          // The handler may have reset the driver, or have led to a failure.
          if (this.taken[number] === 1 && this.failure === undefined) this.repost(number);
        }
        if (this.failure !== undefined) break;
      }
    } finally {
      if (count > 0 && this.failure === undefined) this.kick();
    }
    return count;
  }

  /** Takes what the device has sent, and wakes callers that wait if there is something for them. */
  override drain(): void {
    if (!this.canDrain()) return;
    try {
      this.#news = this.#receive();
    } catch (error) {
      this.report(error as VirtioError);
      return;
    }
    if (this.#popped) {
      this.#popped = false;
      this.brought();
    }
    if (this.#news) {
      this.wake();
      return;
    }
    this.update();
    this.transport.look();
  }

  /** @internal */
  override restart(): void {
    this.taken.fill(1);
    this.#restarted?.();
  }

  /** @internal Gives all buffers to the device. */
  override start(): void {
    if (!this.isOpen) {
      super.start();
      return;
    }
    for (let number = 0; number < this.buffers; number += 1) {
      if (this.taken[number] === 1) this.repost(number);
    }
    super.start();
    this.kick();
  }

  protected override opened(): void {
    if (this.live && this.failure === undefined) this.start();
  }

  protected override get news(): boolean {
    return this.#news;
  }
}
