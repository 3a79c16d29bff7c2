/**
 * The 9P device: one queue that carries messages of the 9P protocol to the server and its replies back, and a
 * configuration space with the name of what is shared. The specification has only the device's id (9); the rest is the
 * practice of Linux and QEMU.
 *
 * A request is a message in one or two parts and room for the reply in one or two parts: the second ones hold the data of a
 * write or a read, which so need not be copied next to its header. All three ways to wait stand on the same slots.
 */
import {
  decodeUtf8Lossless,
  DeviceType,
  Driver,
  type DriverOptions,
  FeatureTable,
  type Hal,
  Layout,
  type RequestQueue,
  type SpinOptions,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { HEADER_SIZE } from './protocol.ts';

/** The features of the 9P device. */
export const P9Features = new FeatureTable('P9Features', {
  /** The configuration space has a mount tag. */
  MOUNT_TAG: 0,
});

/** The names of the features of the 9P device. */
export type P9FeatureName = 'MOUNT_TAG';

/** The fixed part of the configuration space. The tag follows: so many bytes, with no zero at its end. */
export const P9Config = new Layout('virtio_9p_config', { tagLength: 'u16' });

const QUEUE = 0;

/** As many as QEMU's device has. */
const QUEUE_SIZE = 128;

/** The smallest room for a reply: that of an error. */
export const MIN_REPLY_SIZE = 11;

/** The most buffers in a chain: message and reply, each in two parts. */
const MAX_PARTS = 4;

/**
 * The driver of a 9P device. It carries messages and does not look inside; `P9FileSystem` speaks the protocol.
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
export class Virtio9p extends Driver<P9FeatureName> {
  /** What is shared, as the host named it; `undefined` if the device has no `MOUNT_TAG`. */
  readonly mountTag: string | undefined;

  readonly #requests: RequestQueue;
  readonly #platform: boolean;
  // By slot: up to four buffers (message, its data, reply, its data) and their addresses. `#late` marks those whose caller
  // has given up, `#returned` whom to tell when the device has given them back.
  readonly #buffers: (Uint8Array | undefined)[];
  readonly #addresses: Float64Array;
  readonly #late: Uint8Array;
  readonly #returned: ((() => void) | undefined)[] = [];
  #lateCount = 0;
  #epoch = 0;
  #messages: Uint8Array<ArrayBuffer> | undefined;

  /**
   * Takes the device over.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is no 9P device, `INVALID_DEVICE` if its mount tag is empty,
   * `CONFIG_SPACE_TOO_SMALL` if it is longer than its configuration space, `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED`
   */
  constructor(transport: Transport, hal: Hal, options?: DriverOptions) {
    super(
      transport,
      hal,
      { deviceType: DeviceType.P9, table: P9Features, supported: ['MOUNT_TAG'] },
      options,
    );
    this.#platform = this.accessPlatform;
    const { tag, requests } = this.setUp(() => ({
      tag: this.features.has('MOUNT_TAG') ? this.#readTag() : undefined,
      requests: this.createRequestQueue({ index: QUEUE, size: QUEUE_SIZE }, this.#abandon),
    }));
    this.mountTag = tag;
    this.#requests = requests;
    this.#buffers = new Array<undefined>(requests.slots * MAX_PARTS).fill(undefined);
    this.#addresses = new Float64Array(requests.slots * MAX_PARTS);
    this.#late = new Uint8Array(requests.slots);
  }

  /** How many requests can certainly be in flight, whatever the number of their parts. */
  get capacity(): number {
    const { slots } = this.#requests;
    return this.features.has('INDIRECT_DESC') ? slots : Math.floor(slots / MAX_PARTS);
  }

  /** How many requests the device has. */
  get inFlight(): number {
    return this.#requests.inFlight;
  }

  /**
   * How often the device was reset. A reset ends all requests, and their tokens mean nothing afterwards; the server has
   * forgotten all fids.
   */
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
    this.#messages ??= this.allocate(bytes, 'both').bytes;
    if (this.#messages.length >= bytes) return this.#messages.subarray(0, bytes);
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: asked for ${bytes} bytes for messages after ${this.#messages.length}; ask for the most first`,
    );
  }

  /**
   * Sends a message without waiting for the reply. The device sees it after {@link Virtio9p.flush}.
   *
   * All buffers belong to the device until {@link Virtio9p.complete}. Those in DMA memory are used as they are.
   *
   * @param request the message, or its first part: at least a header of 7 bytes, whose size is that of both parts
   * @param reply room for the reply, or its first part: at least 11 bytes, so that an error fits. A server that needs more may
   * break the device: give as much as the reply can take.
   * @param requestData the second part of the message
   * @param replyData room for the second part of the reply
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  submit(request: Uint8Array, reply: Uint8Array, requestData?: Uint8Array, replyData?: Uint8Array): number {
    const parts = this.#check(request, reply, requestData, replyData);
    if (this.#lateCount > 0) this.#sweep();
    const slot = this.#requests.begin(parts);
    this.#fill(slot, request, reply, requestData, replyData);
    return slot;
  }

  /** Shows the device all messages that were submitted. */
  flush(): void {
    this.#requests.flush();
  }

  /** Calls {@link Virtio9p.flush} when this turn of the event loop ends, once for all that was submitted in it. */
  flushSoon(): void {
    this.#requests.flushSoon();
  }

  /**
   * The next request that was answered and that nobody waits for in another way.
   *
   * @returns its token, for {@link Virtio9p.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    for (;;) {
      const slot = this.#requests.poll();
      if (slot < 0 || this.#late[slot] === 0) return slot;
      this.#dropLate(slot);
    }
  }

  /** Whether a request was answered, so that {@link Virtio9p.complete} will end it. */
  isDone(token: number): boolean {
    return this.#requests.isDone(token);
  }

  /**
   * Waits until a request is answered.
   *
   * @returns a promise that rejects if the request was lost, and with `UNSUPPORTED` on a transport without interrupts
   */
  done(token: number): Promise<void> {
    return this.#requests.done(token);
  }

  /**
   * Spins until a request is answered.
   *
   * @throws {@link VirtioError} `NOT_READY` after `options.timeoutMs` (60,000): the request is still in flight; or why it was lost
   */
  waitSync(token: number, options?: SpinOptions): void {
    this.#requests.waitSync(token, options);
  }

  /**
   * Ends a request: the reply is in its buffers.
   *
   * @returns the bytes of the reply, which is what its header says as well; 0 if there is no reply, as the request was
   * cancelled by a `Tflush`
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED` if the reply is shorter than a header or its header
   * says another size than the device, or why the request was lost
   */
  complete(token: number): number {
    this.#requests.requireDone(token);
    const length = this.#requests.usedLength(token);
    const reply = this.#buffers[token * MAX_PARTS + 2];
    this.#unshare(token, length > 0);
    this.#requests.release(token);
    if (length === 0) return 0;
    const size = reply === undefined ? 0 : readSize(reply);
    if (length >= HEADER_SIZE && size === length) return length;
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()}: the server's reply says that it has ${size} bytes, the device that it has ${length}. ` +
        'The reply was dropped; whether the request was carried out is not known',
    );
  }

  /**
   * Gives a request up that nobody will complete. Its buffers stay with the device until it is answered. Not for requests of
   * an earlier {@link Virtio9p.epoch}: a reset has given those back.
   *
   * @param returned called when the device has given them back
   */
  abandon(token: number, returned?: () => void): void {
    this.#late[token] = 1;
    this.#lateCount += 1;
    this.#returned[token] = returned;
    if (this.transport.interrupts === undefined || this.failure !== undefined) return;
    // Others may wait for its slot.
    this.done(token).then(
      () => this.#sweep(),
      () => undefined,
    );
  }

  /**
   * Sends a message and waits for the reply.
   *
   * @returns as {@link Virtio9p.complete}
   * @throws {@link VirtioError} as {@link Virtio9p.submit} and {@link Virtio9p.complete}
   */
  async request(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
  ): Promise<number> {
    const parts = this.#check(request, reply, requestData, replyData);
    let slot = this.#requests.crowded ? -1 : this.#tryBegin(parts);
    while (slot < 0) {
      await this.#requests.room(parts);
      slot = this.#tryBegin(parts);
    }
    this.#fill(slot, request, reply, requestData, replyData);
    this.flushSoon();
    const epoch = this.#epoch;
    try {
      await this.done(slot);
    } catch (error) {
      // A reset has given the slot back already.
      if (epoch === this.#epoch) this.abandon(slot);
      throw error;
    }
    if (epoch !== this.#epoch) throw this.#lost();
    return this.complete(slot);
  }

  /**
   * Sends a message and spins until the reply is there.
   *
   * @returns as {@link Virtio9p.complete}
   * @throws {@link VirtioError} as {@link Virtio9p.submit}, {@link Virtio9p.waitSync} and {@link Virtio9p.complete}
   */
  requestSync(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: SpinOptions,
  ): number {
    const slot = this.submit(request, reply, requestData, replyData);
    try {
      this.flush();
      this.waitSync(slot, options);
    } catch (error) {
      this.abandon(slot);
      throw error;
    }
    return this.complete(slot);
  }

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
        `${this.transport.who()} was reset; whether this request was carried out is not known: ask again`,
      )
    );
  }

  /** Ends all requests of an epoch, those included that were answered and not completed. */
  #void(): void {
    this.#epoch += 1;
    for (let slot = 0; slot < this.#late.length; slot += 1) {
      this.#unshare(slot, false);
      this.#requests.release(slot);
      this.#forget(slot);
    }
  }

  #readTag(): string {
    const { transport } = this;
    const bytes = transport.readConsistent(() => {
      const length = transport.readConfigSpace(P9Config.fields.tagLength);
      if (length === 0) return undefined;
      return transport.readConfigSpace({
        name: 'virtio_9p_config.tag',
        type: `bytes${length}`,
        offset: P9Config.size,
        size: length,
      });
    });
    if (bytes === undefined) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} offers a mount tag, and the tag is empty; give the share a name on the host`,
      );
    }
    return decodeUtf8Lossless(bytes);
  }

  /** Checks what a caller gives, and counts the parts. */
  #check(request: Uint8Array, reply: Uint8Array, requestData?: Uint8Array, replyData?: Uint8Array): number {
    const size = request.length + (requestData?.length ?? 0);
    if (request.length < HEADER_SIZE || readSize(request) !== size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()}: a message begins with a header of ${HEADER_SIZE} bytes whose size counts the whole ` +
          `message; this one has ${size} bytes and does not say so`,
      );
    }
    if (reply.length < MIN_REPLY_SIZE || requestData?.length === 0 || replyData?.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()}: a reply needs room for ${MIN_REPLY_SIZE} bytes at least, this one has ${reply.length}; ` +
          'data, if there is any, cannot be empty',
      );
    }
    return 2 + (requestData === undefined ? 0 : 1) + (replyData === undefined ? 0 : 1);
  }

  #tryBegin(parts: number): number {
    if (this.#lateCount > 0) this.#sweep();
    return this.#requests.tryBegin(parts);
  }

  #fill(
    slot: number,
    request: Uint8Array,
    reply: Uint8Array,
    requestData: Uint8Array | undefined,
    replyData: Uint8Array | undefined,
  ): void {
    try {
      this.#push(slot, 0, request);
      if (requestData !== undefined) this.#push(slot, 1, requestData);
      this.#push(slot, 2, reply);
      if (replyData !== undefined) this.#push(slot, 3, replyData);
    } catch (error) {
      this.#unshare(slot, false);
      this.#requests.cancel(slot);
      throw error;
    }
    this.#requests.submit(slot);
  }

  #push(slot: number, part: number, buffer: Uint8Array): void {
    const { queue } = this.#requests;
    const place = slot * MAX_PARTS + part;
    const direction = part < 2 ? 'driver-to-device' : 'device-to-driver';
    const address = this.hal.share(buffer, direction, this.#platform);
    this.#buffers[place] = buffer;
    this.#addresses[place] = address;
    if (part < 2) queue.pushReadable(address, buffer.length);
    else queue.pushWritable(address, buffer.length);
  }

  /** Takes the buffers of a slot back; what the device wrote counts only if it answered. */
  #unshare(slot: number, written: boolean): void {
    for (let part = 0; part < MAX_PARTS; part += 1) {
      const place = slot * MAX_PARTS + part;
      const buffer = this.#buffers[place];
      if (buffer === undefined) continue;
      this.#buffers[place] = undefined;
      const direction = part >= 2 && written ? 'device-to-driver' : 'driver-to-device';
      this.hal.unshare(this.#addresses[place] as number, buffer, direction, this.#platform);
    }
  }

  /** Ends requests that were answered after their callers had given up, so that their slots are not lost. */
  #sweep(): void {
    for (let slot = 0; slot < this.#late.length; slot += 1) {
      if (this.#late[slot] === 1 && this.#requests.isDone(slot)) this.#dropLate(slot);
    }
  }

  #dropLate(slot: number): void {
    this.#unshare(slot, false);
    this.#requests.release(slot);
    this.#forget(slot);
  }

  #forget(slot: number): void {
    if (this.#late[slot] === 0) return;
    this.#late[slot] = 0;
    this.#lateCount -= 1;
    const returned = this.#returned[slot];
    this.#returned[slot] = undefined;
    returned?.();
  }

  readonly #abandon = (slot: number): void => {
    this.#unshare(slot, false);
    this.#forget(slot);
  };
}

function readSize(message: Uint8Array): number {
  return new DataView(message.buffer, message.byteOffset, 4).getUint32(0, true);
}
