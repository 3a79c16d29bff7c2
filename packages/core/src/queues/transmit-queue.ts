/**
 * A queue with buffers that the driver fills and sends. The number of free buffers limits what can be sent: a slow device makes
 * the sender wait, and memory does not grow. Buffers that the device has used are taken back when one is needed, so sending needs
 * no interrupts.
 */
import { requireInteger } from '../check.ts';
import { VirtioError } from '../errors.ts';
import { BufferQueue, type BufferQueueOptions, type BufferQueueParts } from './buffer-queue.ts';

/** Options of a {@link TransmitQueue}. */
export interface TransmitQueueOptions extends BufferQueueOptions {
  /** Called when the device has given buffers back. What it throws fails the driver. */
  readonly freed?: () => void;
  /** Whether interrupts are enabled even while nobody waits (default false). They do not keep the event loop alive. */
  readonly always?: boolean;
}

/** A queue whose buffers the device reads. {@link BufferDriver.createTransmitQueue} makes it. */
export class TransmitQueue extends BufferQueue {
  readonly #free: Uint16Array;
  /** By buffer: the count of its {@link TransmitQueue.send}, from 1 on, or 0 if the device does not have it. */
  readonly #sentAs: Float64Array;
  #sends = 0;
  readonly #freed: (() => void) | undefined;
  #freeCount = 0;
  #news = false;

  /** @internal use {@link BufferDriver.createTransmitQueue} */
  constructor(parts: BufferQueueParts, options: TransmitQueueOptions) {
    super(parts, options, 'driver-to-device', options.always);
    this.#freed = options.freed;
    this.#free = new Uint16Array(this.buffers);
    this.#sentAs = new Float64Array(this.buffers);
    this.#refill();
  }

  /** How many buffers are free, as of the last drain. */
  get available(): number {
    return this.#freeCount;
  }

  /** Whether the device has none of the buffers, as of the last drain. */
  get idle(): boolean {
    return this.queue.inFlight === 0;
  }

  /** How many buffers have been sent in all. */
  get sends(): number {
    return this.#sends;
  }

  /**
   * Whether the device has used the first buffers that were sent, as of the last drain. Others may be sent all the time, so that the
   * queue is never {@link TransmitQueue.idle}.
   *
   * @param count how many: {@link TransmitQueue.sends} at an earlier time
   */
  hasUsedFirst(count: number): boolean {
    return this.#sentAs.every((sentAs) => sentAs === 0 || sentAs > count);
  }

  /**
   * Takes a free buffer for the driver to fill, until {@link TransmitQueue.send} or {@link TransmitQueue.putBack}. Takes back
   * what the device has used if there is none.
   *
   * @returns its number, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  take(): number {
    if (this.#freeCount === 0 || this.failure !== undefined) this.drain();
    if (this.failure !== undefined) throw this.failure;
    if (this.#freeCount === 0) return -1;
    this.#freeCount -= 1;
    const number = this.#free[this.#freeCount] as number;
    this.taken[number] = 1;
    return number;
  }

  /**
   * Sends a buffer; it is available to the device after {@link TransmitQueue.kick}.
   *
   * @param length how many of its bytes, from its start
   * @throws {@link VirtioError} `INVALID_PARAM`, or why the device no longer works
   */
  send(number: number, length: number): void {
    this.#requireTaken(number);
    requireInteger(this.transport, 'length', length, 1, this.bufferSize);
    // A buffer is free only if its descriptors are, too.
    const head = length > this.head ? this.head : 0;
    const address = this.addressOf(number);
    this.queue.begin(head > 0 ? 2 : 1);
    if (head > 0) this.queue.pushReadable(address, head);
    this.queue.pushReadable(address + head, length - head);
    this.bufferOf[this.queue.submit()] = number;
    this.taken[number] = 0;
    this.#sends += 1;
    this.#sentAs[number] = this.#sends;
  }

  /**
   * Sends as many of the bytes as there are free buffers for, and notifies the device if it wants that. The bytes are copied.
   *
   * @returns how many bytes were sent
   * @throws {@link VirtioError} why the device no longer works
   */
  write(bytes: Uint8Array): number {
    let sent = 0;
    while (sent < bytes.length) {
      const number = this.take();
      if (number < 0) break;
      const length = Math.min(bytes.length - sent, this.bufferSize);
      if (length <= 0) {
        // A listener that was called meanwhile has transferred them.
        this.putBack(number);
        break;
      }
      this.buffer(number).set(bytes.subarray(sent, sent + length));
      this.send(number, length);
      sent += length;
    }
    if (sent > 0) this.kick();
    return sent;
  }

  /** Returns a buffer that was taken without sending it. */
  putBack(number: number): void {
    this.#requireTaken(number);
    this.#release(number);
  }

  /** Takes back what the device has used. */
  override drain(): void {
    if (!this.canDrain()) return;
    this.#news = false;
    try {
      // Lengths are ignored: the device had nothing to write.
      for (let token = this.queue.pop(); token >= 0; token = this.queue.pop()) {
        this.#release(this.bufferOf[token] as number);
        this.#news = true;
      }
      if (this.#news) this.#freed?.();
    } catch (error) {
      this.report(error as VirtioError);
      return;
    }
    if (this.#news) {
      this.brought();
      this.wake();
      return;
    }
    this.update();
    this.transport.look();
  }

  /** @internal Who waits is told if something was on its way. */
  override lose(error: VirtioError): void {
    if (this.idle) super.lose(error);
    else this.fail(error);
  }

  /** @internal */
  override restart(): void {
    this.#refill();
  }

  protected override opened(): void {
    this.#refill();
  }

  protected override get news(): boolean {
    return this.#news;
  }

  #refill(): void {
    this.taken.fill(0);
    this.#sentAs.fill(0);
    this.#freeCount = this.isOpen ? this.buffers : 0;
    for (let n = 0; n < this.buffers; n += 1) this.#free[n] = this.buffers - 1 - n;
  }

  #release(number: number): void {
    this.taken[number] = 0;
    this.#sentAs[number] = 0;
    this.#free[this.#freeCount] = number;
    this.#freeCount += 1;
  }

  #requireTaken(number: number): void {
    if (this.taken[number] === 1) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: buffer ${number} of queue ${this.queue.index} was not taken`,
    );
  }
}
