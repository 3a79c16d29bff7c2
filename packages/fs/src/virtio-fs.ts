/**
 * The file system device: FUSE requests are sent on a request queue, and those that must not wait behind others (`FORGET`, `INTERRUPT`)
 * on the hiprio queue. The driver transfers messages and parses only their headers.
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
  setUpSpareQueues,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  FsConfig,
  type FsFeatureName,
  FsFeatures,
  HIPRIO_OPCODES,
  HIPRIO_QUEUE,
  IN_HEADER_SIZE,
  InHeader,
  OUT_HEADER_SIZE,
  OutHeader,
  REQUEST_QUEUE,
} from './protocol.ts';

/** As many as QEMU's device has by default. */
const DEFAULT_QUEUE_SIZE = 128;

/** The most buffers in a chain: request and reply, each in two parts. */
const MAX_PARTS = 4;

/** Options of {@link VirtioFs}. */
export interface FsOptions extends DriverOptions<FsFeatureName> {
  /** The size of the queues in descriptors (default 128, as in QEMU's device, or what the device allows). */
  readonly queueSize?: number;
}

/** The events of {@link VirtioFs}. */
export interface FsEvents extends DriverEvents {
  /** All requests in flight were lost, with the reason: a failure, a reset, or that the driver was disposed. */
  lost: VirtioError;
}

/** The state of a request in flight. */
interface Sent {
  readonly reply: Uint8Array;
  /** The two halves of the request's `unique`: the caller may change its array meanwhile. */
  readonly low: number;
  readonly high: number;
  token: number;
  /** Whether nobody wants the reply any more. */
  unwanted: boolean;
}

/**
 * The driver of a file system device. It transfers messages; `FuseFileSystem` implements FUSE.
 *
 * A message is given in one or two parts, and so is the room for its reply:
 *
 * - `request`: a `fuse_in_header` of 40 bytes, whose `len` is that of both parts, and the arguments.
 * - `reply`: room for a `fuse_out_header` of 16 bytes, and the result.
 * - `requestData`, `replyData`: the second parts, not empty: the data of a write, room for the data of a read.
 *
 * All buffers belong to the device until the request has ended. Those in DMA memory are used as they are, others are copied.
 *
 * A request returns the size of the reply in bytes, which its header also has; 0 if the device used the request's buffers without a
 * reply, as virtiofsd does with `DESTROY`. The caller checks the `error` in the header.
 *
 * @see VIRTIO 1.4, 5.11
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { FuseFileSystem, VirtioFs } from '@virtio/fs';
 *
 * export async function hostname(transport: Transport, hal: Hal): Promise<string> {
 *   using device = new VirtioFs(transport, hal);
 *   await using fs = await FuseFileSystem.mount(device);
 *   return await fs.readFile('/etc/hostname', 'utf8');
 * }
 * ```
 */
export class VirtioFs extends Driver<FsFeatureName, FsEvents> {
  /** The device type: file system. */
  static readonly deviceType = DeviceType.FileSystem;

  /** The tag: the name of the share. */
  readonly tag: string;
  /** How many request queues the device has. The driver uses one; the others get no requests. */
  readonly requestQueueCount: number;

  readonly #requests: RequestQueue<number>;
  readonly #hiprio: RequestQueue<number>;
  /** By slot of the request queue. */
  readonly #sent: Sent[] = [];
  #epoch = 0;
  #memory: Uint8Array<ArrayBuffer> | undefined;

  /**
   * Initializes the device.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a file system device, `INVALID_DEVICE` if it has no request queue,
   * `FEATURES_REFUSED`, `CONFIG_SPACE_TOO_SMALL`, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: FsOptions = {}) {
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    // NOTIFICATION is not accepted, so the request queues begin at 1 [5.11.2].
    super(transport, hal, { deviceType: DeviceType.FileSystem, table: FsFeatures, supported: [] }, options);
    const { config, requests, hiprio } = this.setUp(() => {
      const queues = {
        config: this.#readConfig(),
        hiprio: this.createRequestQueue({ index: HIPRIO_QUEUE, size: queueSize }, { result: () => 0 }),
        requests: this.createRequestQueue(
          { index: REQUEST_QUEUE, size: queueSize },
          { judge: this.#judge, result: this.#result },
        ),
      };
      const end = REQUEST_QUEUE + queues.config.requestQueues;
      setUpSpareQueues(transport, REQUEST_QUEUE + 1, end, (more) => this.createRequestQueue(more));
      return queues;
    });
    this.tag = config.tag;
    this.requestQueueCount = config.requestQueues;
    this.#requests = requests;
    this.#hiprio = hiprio;
    this.start();
  }

  /** How many requests can be in flight, even if each has the largest number of parts. */
  get capacity(): number {
    const { slots } = this.#requests;
    return this.features.has('INDIRECT_DESC') ? slots : Math.floor(slots / MAX_PARTS);
  }

  /** How many requests the device has in its request queue. */
  get inFlight(): number {
    return this.#requests.inFlight;
  }

  /** How often the device was reset. A reset ends all requests and voids their tokens, and the server's session is over. */
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
    requireInteger(this.transport, 'bytes', bytes, 1, this.#memory?.length ?? Number.MAX_SAFE_INTEGER);
    this.#memory ??= this.allocate(bytes, 'both').bytes;
    return this.#memory.subarray(0, bytes);
  }

  /**
   * Sends a request and waits for the reply.
   *
   * @param options a signal that cancels the wait; the server still carries the request out
   * @returns the bytes of the reply; see {@link VirtioFs}
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR`, `ABORTED`, `UNSUPPORTED` without interrupts, `DEVICE_MISBEHAVED` if the
   * reply is not that of this request or its header has another size than the device reported, or why the request was lost
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
   * Sends a request and spins until the reply is there.
   *
   * @returns the bytes of the reply; see {@link VirtioFs}
   * @throws {@link VirtioError} as {@link VirtioFs.request}; `QUEUE_FULL`; `NOT_READY` after `options.timeoutMs` (60,000)
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
   * Sends a request without waiting for the reply.
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

  /**
   * Sends a `FORGET`, `BATCH_FORGET` or `INTERRUPT` on the hiprio queue. They have no reply.
   *
   * @returns whether there was room; if not, send it again later
   * @throws {@link VirtioError} `INVALID_PARAM` for another request, `DMA_ERROR`, or why the device no longer works
   * @see VIRTIO 1.4, 5.11.6.2
   */
  sendPriority(request: Uint8Array): boolean {
    this.#checkHeader(request, request.length, true);
    const hiprio = this.#hiprio;
    hiprio.drain();
    const slot = hiprio.tryBegin(1);
    if (slot < 0) return false;
    try {
      hiprio.shareReadable(slot, request);
    } catch (error) {
      hiprio.rewind(slot);
      throw error;
    }
    hiprio.cancel(hiprio.submit(slot));
    hiprio.kick();
    return true;
  }

  /** Notifies the device of all requests that were submitted with `kick: false`. */
  kick(): void {
    this.#requests.kick();
  }

  /** Calls {@link VirtioFs.kick} once at the end of this turn of the event loop, for all requests that were submitted in it. */
  kickSoon(): void {
    this.#requests.kickSoon();
  }

  /**
   * Takes what the device has answered, so that {@link VirtioFs.inFlight} is up to date.
   *
   * @internal
   */
  drain(): void {
    this.#requests.drain();
  }

  /**
   * The next request that was answered.
   *
   * @returns its token, for {@link VirtioFs.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    return this.#requests.poll();
  }

  /**
   * Whether {@link VirtioFs.complete} can end a request: with its result, or with the reason why it was lost.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    return this.#requests.isDone(token);
  }

  /**
   * Ends a request: the reply is in its buffers.
   *
   * @returns the bytes of the reply; see {@link VirtioFs}
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED`, or why the request was lost
   */
  complete(token: number): number {
    return this.#requests.complete(token);
  }

  /**
   * Cancels a request. The server still carries it out, and the device may write to buffers in DMA memory until it has answered.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.#requests.cancel(token);
  }

  /**
   * Gives up the reply of a request: nothing is copied to its caller's buffers any more, and {@link VirtioFs.complete} throws `ABORTED` when the
   * device has answered. Buffers in DMA memory may be written until then.
   *
   * @internal
   */
  disown(token: number): void {
    this.#sent.forEach((sent) => {
      if (sent.token === token) sent.unwanted = true;
    });
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
      new VirtioError('DEVICE_RESET', `${this.transport.who()}: one of its queues was reset: mount it again`),
    );
  }

  #readConfig(): { tag: string; requestQueues: number } {
    const { transport } = this;
    const { tag, requestQueues } = transport.readConsistent(() => ({
      tag: transport.readConfigSpace(FsConfig.fields.tag),
      requestQueues: transport.readConfigSpace(FsConfig.fields.numRequestQueues),
    }));
    if (requestQueues === 0) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} reports that it has no request queue; the device is broken`,
      );
    }
    const end = tag.indexOf(0);
    return { tag: decodeUtf8Lossless(end < 0 ? tag : tag.subarray(0, end)), requestQueues };
  }

  /** Checks the caller's buffers, and counts the parts. */
  #check(request: Uint8Array, reply: Uint8Array, requestData?: Uint8Array, replyData?: Uint8Array): number {
    const { transport } = this;
    requireBytes(transport, reply);
    if (requestData !== undefined) requireBytes(transport, requestData);
    if (replyData !== undefined) requireBytes(transport, replyData);
    this.#checkHeader(request, request.length + (requestData?.length ?? 0), false);
    if (reply.length < OUT_HEADER_SIZE || requestData?.length === 0 || replyData?.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a reply needs room for ${OUT_HEADER_SIZE} bytes at least, this one has ${reply.length}; ` +
          'requestData and replyData must not be empty',
      );
    }
    return 2 + (requestData === undefined ? 0 : 1) + (replyData === undefined ? 0 : 1);
  }

  #checkHeader(request: Uint8Array, size: number, priority: boolean): void {
    const { transport } = this;
    requireBytes(transport, request);
    const view = new DataView(request.buffer, request.byteOffset, request.length);
    if (request.length < IN_HEADER_SIZE || view.getUint32(InHeader.offset.len, true) !== size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a request begins with a header of ${IN_HEADER_SIZE} bytes, whose len is the size of the whole ` +
          `request; this one has ${size} bytes, and is too short or has another len`,
      );
    }
    const opcode = view.getUint32(InHeader.offset.opcode, true);
    if (HIPRIO_OPCODES.includes(opcode) === priority) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: send FORGET, BATCH_FORGET and INTERRUPT, and only these, with sendPriority; this request has ` +
        `opcode ${opcode} [5.11.6.2]`,
    );
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
    const header = new DataView(request.buffer, request.byteOffset, IN_HEADER_SIZE);
    const sent: Sent = {
      reply,
      low: header.getUint32(InHeader.offset.unique, true),
      high: header.getUint32(InHeader.offset.unique + 4, true),
      token: -1,
      unwanted: false,
    };
    this.#sent[slot] = sent;
    return (sent.token = requests.submit(slot));
  }

  readonly #judge = (slot: number): void => {
    if ((this.#sent[slot] as Sent).unwanted) {
      throw new VirtioError('ABORTED', `${this.transport.who()}: nobody waits for this reply any more`);
    }
  };

  readonly #result = (slot: number, usedLength: number): number => {
    const { reply, low, high } = this.#sent[slot] as Sent;
    if (usedLength === 0) return 0;
    if (usedLength >= OUT_HEADER_SIZE) {
      const answer = new DataView(reply.buffer, reply.byteOffset, OUT_HEADER_SIZE);
      const same =
        answer.getUint32(OutHeader.offset.unique, true) === low &&
        answer.getUint32(OutHeader.offset.unique + 4, true) === high;
      if (same && answer.getUint32(OutHeader.offset.len, true) === usedLength) return usedLength;
    }
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()}: the server's reply of ${usedLength} bytes does not belong to the request, or its header has another ` +
        'size. The reply was dropped; whether the request was carried out is not known',
    );
  };
}
