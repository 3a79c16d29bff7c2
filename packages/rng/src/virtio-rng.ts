/**
 * The entropy device has one queue, no feature and no configuration. What needs care is what it may do: return fewer
 * bytes than asked, and take its time, as hosts limit the rate. `requestEntropy` is one request and tells how many bytes came;
 * `fill` and `getRandomValues` ask until the buffer is full.
 */
import {
  abortable,
  DeviceType,
  Driver,
  type DriverOptions,
  FeatureTable,
  type Hal,
  type RequestQueue,
  requireBytes,
  type SpinOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';

/** The entropy device has no features of its own [5.4.3]. */
export const RngFeatures: FeatureTable<never> = new FeatureTable<never>('RngFeatures', {});

/** The arrays of integers, as `crypto.getRandomValues` takes them. */
export type IntegerArray =
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

/** The queue that requests go to [5.4.2]. */
const REQUEST_QUEUE = 0;

/** Requests in flight, in the ring's descriptors; QEMU's device has as many. */
const QUEUE_SIZE = 8;

/** The most that `fill` asks for at once, so that a buffer of any length needs little memory for DMA. */
const CHUNK = 65536;

/** The longest buffer that a descriptor can hold. */
const MAX_BUFFER = 0xffff_ffff;

/**
 * The driver of an entropy device.
 *
 * @see VIRTIO 1.4, 5.4
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioRng } from '@virtio/rng';
 *
 * export async function key(transport: Transport, hal: Hal): Promise<Uint8Array> {
 *   using rng = new VirtioRng(transport, hal);
 *   return await rng.fill(new Uint8Array(32));
 * }
 * ```
 */
export class VirtioRng extends Driver<never> {
  readonly #requests: RequestQueue;
  readonly #platform: boolean;
  // By slot: the buffer that the device fills, and its address. `#late` marks those whose caller has given up.
  readonly #buffers: (Uint8Array | undefined)[] = [];
  readonly #addresses: Float64Array;
  readonly #late: Uint8Array;
  #lateCount = 0;
  #epoch = 0;

  /**
   * Takes the device over.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is no entropy device, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED` if it
   * has no queue
   */
  constructor(transport: Transport, hal: Hal, options?: DriverOptions) {
    super(
      transport,
      hal,
      { deviceType: DeviceType.EntropySource, table: RngFeatures, supported: [] },
      options,
    );
    this.#platform = this.accessPlatform;
    this.#requests = this.setUp(() =>
      this.createRequestQueue({ index: REQUEST_QUEUE, size: QUEUE_SIZE }, this.#abandon),
    );
    this.#addresses = new Float64Array(this.#requests.slots);
    this.#late = new Uint8Array(this.#requests.slots);
  }

  /** How many requests can be in flight. */
  get slots(): number {
    return this.#requests.slots;
  }

  /**
   * Asks for random bytes without waiting for them. The device sees the request after {@link VirtioRng.flush}.
   *
   * @param buffer to be filled, from its start; it belongs to the device until {@link VirtioRng.complete}
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM` for an empty buffer, `DMA_ERROR`, or why the device no longer works
   */
  submit(buffer: Uint8Array): number {
    this.#check(buffer);
    if (this.#lateCount > 0) this.#sweep();
    return this.#fillSlot(this.#requests.begin(1), buffer);
  }

  /** Shows the device all requests that were submitted. */
  flush(): void {
    this.#requests.flush();
  }

  /**
   * The next request that the device has answered.
   *
   * @returns its token, for {@link VirtioRng.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    for (;;) {
      const slot = this.#requests.poll();
      if (slot < 0 || this.#late[slot] === 0) return slot;
      this.#dropLate(slot);
    }
  }

  /**
   * Ends a request.
   *
   * @returns how many random bytes stand at the start of its buffer: at least one. What is behind them is of no value.
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED` if the device gave no byte, or why the request
   * was lost
   */
  complete(token: number): number {
    this.#requests.requireDone(token);
    // 5.4.6.1: the length written says how many random bytes there are.
    const length = this.#requests.usedLength(token);
    this.#unshare(token, length > 0);
    this.#requests.release(token);
    if (length === 0) {
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.transport.who()}: asked for random bytes, the device answered with none, and must give at least one ` +
          '[5.4.6.2]. Ask again, or use another source',
      );
    }
    return length;
  }

  /**
   * Makes one request.
   *
   * @param buffer to be filled, from its start
   * @param options a signal that cancels the wait, as a host that limits the rate may take long. If the buffer lies in DMA
   * memory, the device may still write to it then.
   * @returns how many random bytes came: at least one, and perhaps fewer than there is room for
   * @throws {@link VirtioError} as {@link VirtioRng.submit} and {@link VirtioRng.complete}; `ABORTED`
   */
  async requestEntropy(buffer: Uint8Array, options?: WaitOptions): Promise<number> {
    this.#check(buffer);
    if (options?.signal?.aborted === true) await abortable(this.transport, Promise.resolve(), options);
    let slot = this.#requests.crowded ? -1 : this.#tryBegin();
    while (slot < 0) {
      await this.#requests.room(1, options);
      slot = this.#tryBegin();
    }
    this.#fillSlot(slot, buffer);
    this.#requests.flushSoon();
    const epoch = this.#epoch;
    const done = this.#requests.done(slot);
    try {
      await abortable(this.transport, done, options);
    } catch (error) {
      // A reset has given the slot back already.
      if (epoch === this.#epoch) this.#giveUp(slot, done);
      throw error;
    }
    if (epoch !== this.#epoch) throw this.#lost();
    return this.complete(slot);
  }

  /**
   * Makes one request and spins until it is answered.
   *
   * @param buffer to be filled, from its start. If the wait ends with `NOT_READY` and the buffer lies in DMA memory, the
   * device may still write to it.
   * @returns how many random bytes came: at least one, and perhaps fewer than there is room for
   * @throws {@link VirtioError} as {@link VirtioRng.submit} and {@link VirtioRng.complete}; `NOT_READY` after
   * `options.timeoutMs` (60,000)
   */
  requestEntropySync(buffer: Uint8Array, options?: SpinOptions): number {
    const slot = this.submit(buffer);
    try {
      this.flush();
      this.#requests.waitSync(slot, options);
    } catch (error) {
      this.#giveUp(slot);
      throw error;
    }
    return this.complete(slot);
  }

  /**
   * Fills a buffer of any length, with as many requests as that takes.
   *
   * @param options a signal that cancels the wait; see {@link VirtioRng.requestEntropy}
   * @returns the buffer
   * @throws {@link VirtioError} as {@link VirtioRng.requestEntropy}; the buffer is then filled in part
   */
  async fill<T extends Uint8Array>(buffer: T, options?: WaitOptions): Promise<T> {
    requireBytes(this.transport, buffer);
    for (let at = 0; at < buffer.length;) {
      at += await this.requestEntropy(buffer.subarray(at, at + CHUNK), options);
    }
    return buffer;
  }

  /**
   * Fills a buffer of any length, with as many requests as that takes, and spins meanwhile.
   *
   * @param options how long one request may take; see {@link VirtioRng.requestEntropySync}
   * @returns the buffer
   * @throws {@link VirtioError} as {@link VirtioRng.requestEntropySync}; the buffer is then filled in part
   */
  fillSync<T extends Uint8Array>(buffer: T, options?: SpinOptions): T {
    requireBytes(this.transport, buffer);
    for (let at = 0; at < buffer.length;) {
      at += this.requestEntropySync(buffer.subarray(at, at + CHUNK), options);
    }
    return buffer;
  }

  /**
   * Fills an array of integers: `crypto.getRandomValues`, for engines that have none. It spins until the host has given
   * enough, may be called without its object, and has no limit of 65,536 bytes.
   *
   * @returns the array
   * @throws {@link VirtioError} `INVALID_PARAM` for anything but an array of integers, and as {@link VirtioRng.fillSync}
   *
   * @example
   * ```ts
   * import type { VirtioRng } from '@virtio/rng';
   *
   * export function dice({ getRandomValues }: VirtioRng): number {
   *   const [value = 0] = getRandomValues(new Uint32Array(1));
   *   return 1 + (value % 6);
   * }
   * ```
   */
  readonly getRandomValues = <T extends IntegerArray>(array: T): T => {
    if (!isIntegerArray(array)) {
      throw new VirtioError(
        'INVALID_PARAM',
        'getRandomValues fills arrays of integers (Uint8Array, Int32Array, BigUint64Array, …) and was given something else',
      );
    }
    this.fillSync(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return array;
  };

  protected override onDispose(): void {
    this.#void();
  }

  protected override onReset(): void {
    this.#void();
  }

  protected override onQueueReset(): void {
    this.#void();
  }

  #lost(): VirtioError {
    return (
      this.failure ??
      new VirtioError(
        'DEVICE_RESET',
        `${this.transport.who()} was reset before its answer was looked at: ask again`,
      )
    );
  }

  /** Ends all requests, those included that were answered and not completed: their tokens mean nothing afterwards. */
  #void(): void {
    this.#epoch += 1;
    for (let slot = 0; slot < this.#late.length; slot += 1) {
      this.#abandon(slot);
      this.#requests.release(slot);
    }
  }

  #tryBegin(): number {
    if (this.#lateCount > 0) this.#sweep();
    return this.#requests.tryBegin(1);
  }

  #check(buffer: Uint8Array): void {
    requireBytes(this.transport, buffer);
    if (buffer.length >= 1 && buffer.length <= MAX_BUFFER) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: a request takes a buffer of 1 to ${MAX_BUFFER} bytes, not ${buffer.length}`,
    );
  }

  #fillSlot(slot: number, buffer: Uint8Array): number {
    const requests = this.#requests;
    try {
      // 5.4.6.1: no buffer that the device reads.
      const address = this.hal.share(buffer, 'device-to-driver', this.#platform);
      this.#buffers[slot] = buffer;
      this.#addresses[slot] = address;
      requests.queue.pushWritable(address, buffer.length);
    } catch (error) {
      this.#unshare(slot, false);
      requests.cancel(slot);
      throw error;
    }
    requests.submit(slot);
    return slot;
  }

  #unshare(slot: number, written: boolean): void {
    const buffer = this.#buffers[slot];
    if (buffer === undefined) return;
    this.#buffers[slot] = undefined;
    const direction = written ? 'device-to-driver' : 'driver-to-device';
    this.hal.unshare(this.#addresses[slot] as number, buffer, direction, this.#platform);
  }

  /** The caller no longer waits, but the device still has the buffer. */
  #giveUp(slot: number, done?: Promise<void>): void {
    this.#late[slot] = 1;
    this.#lateCount += 1;
    if (this.transport.interrupts === undefined || this.failure !== undefined) return;
    // Others may wait for its slot.
    (done ?? this.#requests.done(slot)).then(
      () => this.#sweep(),
      () => undefined,
    );
  }

  /** Ends the requests that were answered after their callers had given up, so that their slots are not lost. */
  #sweep(): void {
    for (let slot = 0; slot < this.#late.length; slot += 1) {
      if (this.#late[slot] === 1 && this.#requests.isDone(slot)) this.#dropLate(slot);
    }
  }

  #dropLate(slot: number): void {
    this.#late[slot] = 0;
    this.#lateCount -= 1;
    this.#unshare(slot, false);
    this.#requests.release(slot);
  }

  readonly #abandon = (slot: number): void => {
    if (this.#late[slot] === 1) {
      this.#late[slot] = 0;
      this.#lateCount -= 1;
    }
    this.#unshare(slot, false);
  };
}

function isIntegerArray(value: unknown): value is IntegerArray {
  return (
    ArrayBuffer.isView(value) &&
    !(value instanceof DataView) &&
    !(value instanceof Float32Array) &&
    !(value instanceof Float64Array) &&
    Object.prototype.toString.call(value) !== '[object Float16Array]'
  );
}
