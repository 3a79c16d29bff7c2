/**
 * The 9P device: one queue that carries messages of the 9P protocol to the server and its replies back, and a configuration
 * space with the mount tag.
 *
 * A request is a message in one or two parts and room for the reply in one or two parts: the second ones hold the data of a
 * write or a read, which so need not be copied next to its header.
 */
import {
  decodeUtf8Lossless,
  DeviceType,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  requireBytes,
  requireInteger,
  type RequestQueue,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  HEADER_SIZE,
  MIN_REPLY_SIZE,
  P9Config,
  type P9FeatureName,
  P9Features,
  REQUEST_QUEUE,
} from './protocol.ts';

/** As many as QEMU's device has. */
const DEFAULT_QUEUE_SIZE = 128;

/** The most buffers in a chain: message and reply, each in two parts. */
const MAX_PARTS = 4;

/** Options of {@link Virtio9p}. */
export interface P9Options extends DriverOptions<P9FeatureName> {
  /** The size of the queue in descriptors (default 128, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
}

/** The events of {@link Virtio9p}. */
export interface P9Events extends DriverEvents {
  /** All requests in flight were lost, with the reason: a failure, a reset, or that the driver was disposed. */
  lost: VirtioError;
}

/**
 * The driver of a 9P device. It transfers messages without parsing them; `P9FileSystem` implements the protocol.
 *
 * A message is given in one or two parts, and so is the room for its reply:
 *
 * - `request`: the message, or its first part: at least a header of 7 bytes, whose size is that of both parts.
 * - `reply`: room for the reply, or its first part: at least 11 bytes, so that an error fits. A server that needs more may break
 *   the device: give as much as the reply can take.
 * - `requestData`, `replyData`: the second parts, not empty.
 *
 * All buffers belong to the device until the request has ended. Those in DMA memory are used as they are, others are copied.
 *
 * A request returns the size of the reply in bytes, which its header also has; 0 if there is no reply, as the request was cancelled
 * by a `Tflush`.
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { P9FileSystem, Virtio9p } from '@virtio/9p';
 *
 * export async function hostname(transport: Transport, hal: Hal): Promise<string> {
 *   using device = new Virtio9p(transport, hal);
 *   await using fs = await P9FileSystem.mount(device);
 *   return await fs.readFile('/etc/hostname', 'utf8');
 * }
 * ```
 */
export class Virtio9p extends Driver<P9FeatureName, P9Events> {
  /** The device type: 9P. */
  static readonly deviceType = DeviceType.P9;

  /** The mount tag: the name of the share; `undefined` if the device has no `MOUNT_TAG`. */
  readonly mountTag: string | undefined;

  readonly #requests: RequestQueue<number>;
  // By slot: the room for the reply, the token, and whether nobody wants the reply any more.
  readonly #replies: Uint8Array[] = [];
  readonly #tokens: number[] = [];
  readonly #unwanted: boolean[] = [];
  #epoch = 0;
  #messages: Uint8Array<ArrayBuffer> | undefined;

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a 9P device, `INVALID_DEVICE` if its mount tag is empty,
   * `CONFIG_SPACE_TOO_SMALL` if the tag is longer than the configuration space, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED`
   */
  constructor(transport: Transport, hal: Hal, options: P9Options = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    super(
      transport,
      hal,
      { deviceType: DeviceType.P9, table: P9Features, supported: ['MOUNT_TAG'] },
      options,
    );
    const { tag, requests } = this.setUp(() => ({
      tag: this.features.has('MOUNT_TAG') ? this.#readTag() : undefined,
      requests: this.createRequestQueue(
        { index: REQUEST_QUEUE, size: queueSize },
        { judge: this.#judge, result: this.#result },
      ),
    }));
    this.mountTag = tag;
    this.#requests = requests;
    this.start();
  }

  /** The size of the queue in descriptors. */
  get queueSize(): number {
    return this.#requests.slots;
  }

  /** How many requests can be in flight, even if each has the largest number of parts. */
  get capacity(): number {
    const { slots } = this.#requests;
    return this.features.has('INDIRECT_DESC') ? slots : Math.floor(slots / MAX_PARTS);
  }

  /** How many requests the device has. */
  get inFlight(): number {
    return this.#requests.inFlight;
  }

  /** How often the device was reset. A reset ends all requests and voids their tokens; the server has forgotten all fids. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * DMA memory for messages, which need not be copied then. It lives as long as the driver; each call returns the same.
   *
   * @throws {@link VirtioError} `DMA_ERROR`, `INVALID_PARAM` if an earlier call asked for less
   */
  messageMemory(bytes: number): Uint8Array<ArrayBuffer> {
    this.checkUsable();
    requireInteger(this.transport, 'bytes', bytes, 1, this.#messages?.length ?? Number.MAX_SAFE_INTEGER);
    this.#messages ??= this.allocate(bytes, 'both').bytes;
    return this.#messages.subarray(0, bytes);
  }

  /**
   * Sends a message and waits for the reply.
   *
   * @param options a signal that cancels the wait; the server still carries the request out
   * @returns the bytes of the reply, or 0; see {@link Virtio9p}
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR`, `ABORTED`, `UNSUPPORTED` without interrupts, `DEVICE_MISBEHAVED` if the
   * reply is shorter than a header or its header says another size than the device, or why the request was lost
   */
  async request(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: WaitOptions,
  ): Promise<number> {
    const requests = this.#requests;
    const parts = this.#check(request, reply, requestData, replyData);
    requests.checkWaitable(options);
    const start = (): number => {
      const slot = requests.tryBegin(parts);
      if (slot >= 0) this.#fill(slot, request, reply, requestData, replyData);
      return slot;
    };
    const slot = requests.crowded ? -1 : start();
    return await (slot >= 0 ? requests.settled(slot, options) : requests.whenRoom(parts, start, options));
  }

  /**
   * Sends a message and spins until the reply is there.
   *
   * @returns the bytes of the reply, or 0; see {@link Virtio9p}
   * @throws {@link VirtioError} as {@link Virtio9p.request}; `QUEUE_FULL`; `NOT_READY` after `options.timeoutMs` (60,000)
   */
  requestSync(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: SpinOptions,
  ): number {
    const requests = this.#requests;
    const parts = this.#check(request, reply, requestData, replyData);
    requests.checkSpin(options);
    const slot = requests.begin(parts);
    this.#fill(slot, request, reply, requestData, replyData);
    return requests.waitSync(slot, options);
  }

  /**
   * Sends a message without waiting for the reply.
   *
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  submitRequest(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: SubmitOptions,
  ): number {
    const requests = this.#requests;
    const slot = requests.begin(this.#check(request, reply, requestData, replyData));
    const token = this.#fill(slot, request, reply, requestData, replyData);
    if (options?.kick !== false) requests.kick();
    return token;
  }

  /** Notifies the device of messages that were submitted with `kick: false`. */
  kick(): void {
    this.#requests.kick();
  }

  /** Calls {@link Virtio9p.kick} when this turn of the event loop ends, once for all that was submitted in it. */
  kickSoon(): void {
    this.#requests.kickSoon();
  }

  /**
   * Takes what the device has answered, so that {@link Virtio9p.inFlight} is up to date.
   *
   * @internal
   */
  drain(): void {
    this.#requests.drain();
  }

  /**
   * The next request that was answered.
   *
   * @returns its token, for {@link Virtio9p.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    return this.#requests.poll();
  }

  /**
   * Whether {@link Virtio9p.complete} can complete a request: with its result, or with the reason why it was lost.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    return this.#requests.isDone(token);
  }

  /**
   * Completes a request: the reply is in its buffers.
   *
   * @returns the bytes of the reply, or 0; see {@link Virtio9p}
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED`, or why the request was lost
   */
  complete(token: number): number {
    return this.#requests.complete(token);
  }

  /**
   * Cancels a request. The server still carries it out, and those of its buffers that lie in DMA memory may be written until the
   * device has answered.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.#requests.cancel(token);
  }

  /**
   * Gives up the reply of a request: nothing is copied to its caller's buffers any more, and {@link Virtio9p.complete} throws `ABORTED` when the
   * device has answered. Buffers in DMA memory may be written until then.
   *
   * @internal
   */
  disown(token: number): void {
    const slot = this.#tokens.indexOf(token);
    if (slot >= 0) this.#unwanted[slot] = true;
  }

  protected override onFailure(error: VirtioError): void {
    this.emit('lost', error);
  }

  protected override onReset(): void {
    this.#epoch += 1;
  }

  protected override onDispose(): void {
    this.#epoch += 1;
  }

  protected override onQueueReset(): void {
    this.#epoch += 1;
    this.emit(
      'lost',
      new VirtioError('DEVICE_RESET', `${this.transport.who()}: its queue was reset: ask again`),
    );
  }

  #readTag(): string {
    const { transport } = this;
    const bytes = transport.readConsistent(() => {
      const length = transport.readConfigSpace(P9Config.fields.tagLength);
      if (length === 0) return undefined;
      return transport.readConfigSpace({
        name: 'virtio_9p_config.tag',
        access: 'read-only',
        type: `bytes${length}`,
        offset: P9Config.size,
        size: length,
      });
    });
    if (bytes === undefined) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} offers MOUNT_TAG, but the tag is empty; give the share a name on the host`,
      );
    }
    return decodeUtf8Lossless(bytes);
  }

  /** Checks what a caller gives, and counts the parts. */
  #check(request: Uint8Array, reply: Uint8Array, requestData?: Uint8Array, replyData?: Uint8Array): number {
    const { transport } = this;
    requireBytes(transport, request);
    requireBytes(transport, reply);
    if (requestData !== undefined) requireBytes(transport, requestData);
    if (replyData !== undefined) requireBytes(transport, replyData);
    const size = request.length + (requestData?.length ?? 0);
    if (request.length < HEADER_SIZE || readSize(request) !== size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a message begins with a header of ${HEADER_SIZE} bytes whose size counts the whole ` +
          `message; this one has ${size} bytes and does not say so`,
      );
    }
    if (reply.length < MIN_REPLY_SIZE || requestData?.length === 0 || replyData?.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a reply needs room for ${MIN_REPLY_SIZE} bytes at least, this one has ${reply.length}; ` +
          'data, if there is any, cannot be empty',
      );
    }
    return 2 + (requestData === undefined ? 0 : 1) + (replyData === undefined ? 0 : 1);
  }

  /** Builds and submits the chain of a slot. Returns its token. */
  #fill(
    slot: number,
    request: Uint8Array,
    reply: Uint8Array,
    requestData: Uint8Array | undefined,
    replyData: Uint8Array | undefined,
  ): number {
    const requests = this.#requests;
    try {
      requests.shareReadable(slot, request);
      if (requestData !== undefined) requests.shareReadable(slot, requestData);
      requests.shareWritable(slot, reply);
      if (replyData !== undefined) requests.shareWritable(slot, replyData);
    } catch (error) {
      requests.rewind(slot);
      throw error;
    }
    this.#replies[slot] = reply;
    this.#unwanted[slot] = false;
    return (this.#tokens[slot] = requests.submit(slot));
  }

  readonly #judge = (slot: number): void => {
    if (this.#unwanted[slot] !== true) return;
    throw new VirtioError('ABORTED', `${this.transport.who()}: nobody waits for this reply any more`);
  };

  readonly #result = (slot: number, usedLength: number): number => {
    if (usedLength === 0) return 0;
    const size = usedLength < HEADER_SIZE ? 0 : readSize(this.#replies[slot] as Uint8Array);
    if (usedLength >= HEADER_SIZE && size === usedLength) return usedLength;
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()}: the server's reply says that it has ${size} bytes, the device that it has ${usedLength}. ` +
        'The reply was dropped; whether the request was carried out is not known',
    );
  };
}

function readSize(message: Uint8Array): number {
  return new DataView(message.buffer, message.byteOffset, 4).getUint32(0, true);
}
