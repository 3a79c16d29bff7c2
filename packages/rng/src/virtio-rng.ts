/**
 * The entropy device has one queue, no feature and no configuration. It may return fewer bytes
 * than asked for, and answer late, as hosts limit the rate. `requestEntropy` is one request and returns the number of bytes;
 * `fill` and `getRandomValues` ask until the buffer is full.
 */
import {
  DeviceType,
  Driver,
  type DriverOptions,
  type Hal,
  type Request,
  requireBytes,
  requireInteger,
  type RequestQueue,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { REQUEST_QUEUE, RngFeatures } from './protocol.ts';

/** The arrays of integers that `crypto.getRandomValues` takes. */
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

/** Options of {@link VirtioRng}. */
export interface RngOptions extends DriverOptions {
  /** The size of the queue in descriptors, one for each request (default 8, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
}

const DEFAULT_QUEUE_SIZE = 8;

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
  /** The device type: entropy source. */
  static readonly deviceType = DeviceType.EntropySource;

  readonly #requests: RequestQueue<number>;

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not an entropy device, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED` if
   * it has no queue
   */
  constructor(transport: Transport, hal: Hal, options: RngOptions = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    super(
      transport,
      hal,
      { deviceType: DeviceType.EntropySource, table: RngFeatures, supported: [] },
      options,
    );
    this.#requests = this.setUp(() =>
      this.createRequestQueue({ index: REQUEST_QUEUE, size: queueSize }, this.#handler),
    );
    this.start();
  }

  /** The size of the queue in descriptors, which is how many requests can be in flight. */
  get queueSize(): number {
    return this.#requests.slots;
  }

  /**
   * Makes one request.
   *
   * @param buffer to be filled, from its start
   * @param options a signal that cancels the wait, as a host that limits the rate may take long. If the buffer lies in DMA
   * memory, the device may still write to it then.
   * @returns how many random bytes came: at least one, and perhaps fewer than there is room for
   * @throws {@link VirtioError} `INVALID_PARAM` for an empty buffer, `DMA_ERROR`, `ABORTED`, `UNSUPPORTED` without interrupts,
   * `DEVICE_MISBEHAVED` if the device gave no byte, or why the request was lost
   */
  async requestEntropy(buffer: Uint8Array, options?: WaitOptions): Promise<number> {
    return this.#requests.request(this.#request(buffer), options);
  }

  /**
   * Makes one request and spins until it is answered.
   *
   * @param buffer to be filled, from its start. If the wait ends with `NOT_READY` and the buffer lies in DMA memory, the
   * device may still write to it.
   * @returns how many random bytes came: at least one, and perhaps fewer than there is room for
   * @throws {@link VirtioError} as {@link VirtioRng.requestEntropy} and {@link VirtioRng.submitRequestEntropy}; `NOT_READY` after
   * `options.timeoutMs` (60,000)
   */
  requestEntropySync(buffer: Uint8Array, options?: SpinOptions): number {
    return this.#requests.requestSync(this.#request(buffer), options);
  }

  /**
   * Makes one request without waiting for it.
   *
   * @param buffer to be filled, from its start; it belongs to the device until {@link VirtioRng.complete}
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM` for an empty buffer, `DMA_ERROR`, or why the device no longer works
   */
  submitRequestEntropy(buffer: Uint8Array, options?: SubmitOptions): number {
    return this.#requests.submitRequest(this.#request(buffer), options);
  }

  /** Notifies the device of requests that were submitted with `kick: false`. */
  kick(): void {
    this.#requests.kick();
  }

  /**
   * The next request that the device has answered.
   *
   * @returns its token, for {@link VirtioRng.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    return this.#requests.poll();
  }

  /**
   * Completes a request.
   *
   * @returns how many random bytes are at the start of its buffer: at least one. The bytes after them are not random.
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED` if the device gave no byte, or why the request
   * was lost
   */
  complete(token: number): number {
    return this.#requests.complete(token);
  }

  /** Cancels a request. If its buffer lies in DMA memory, the device may still write to it. Throws `WRONG_TOKEN` if there is none. */
  cancel(token: number): void {
    this.#requests.cancel(token);
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
    const { length } = buffer;
    for (let at = 0; at < length;) {
      at += await this.requestEntropy(buffer.subarray(at, at + CHUNK), options);
      if (buffer.length !== length) throw this.#resized(buffer.length, length);
    }
    return buffer;
  }

  /**
   * The same as {@link VirtioRng.fill}, spinning.
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
        'getRandomValues takes an array of integers (Uint8Array, Int32Array, BigUint64Array, …)',
      );
    }
    this.fillSync(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return array;
  };

  readonly #handler = {
    // 5.4.6.1: the length written says how many random bytes there are.
    judge: (_slot: number, usedLength: number): void => {
      if (usedLength > 0) return;
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.transport.who()}: asked for random bytes, the device answered with none, and must give at least one ` +
          '[5.4.6.2]. Ask again, or use another source',
      );
    },
    result: (_slot: number, usedLength: number): number => usedLength,
  };

  /** A caller would take a buffer for filled that is not, or that is not the one it gave. */
  #resized(now: number, before: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: a buffer of ${before} bytes was transferred or resized while it was filled, and has ${now} now; leave it as ` +
        'it is until then',
    );
  }

  #request(buffer: Uint8Array): Request<number> {
    requireBytes(this.transport, buffer);
    requireInteger(this.transport, "the buffer's length", buffer.length, 1, MAX_BUFFER);
    const requests = this.#requests;
    return {
      ...this.#handler,
      buffers: 1,
      // 5.4.6.1: no buffer that the device reads.
      fill: (slot) => {
        requests.shareWritable(slot, buffer);
      },
    };
  }
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
