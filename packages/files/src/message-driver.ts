/**
 * The base of the drivers of file devices. They carry messages of a protocol to a server and its replies back, and read only the headers.
 */
import {
  Driver,
  type DriverEvents,
  type QueueOptions,
  requireBytes,
  requireInteger,
  type RequestQueue,
  type SpinOptions,
  type SubmitOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { TagDevice } from './tags.ts';

/** The most buffers in a chain: message and reply, each in two parts. */
const MAX_PARTS = 4;

/** The events of a {@link MessageDriver}. */
export interface MessageEvents extends DriverEvents {
  /** All requests in flight were lost, with the reason: a failure, a reset, or that the driver was disposed. */
  lost: VirtioError;
}

/**
 * The driver of a device that carries messages to a server.
 *
 * A message is given in one or two parts, and so is the room for its reply. The second parts, `requestData` and `replyData`, hold the data of
 * a write or a read, which so need not be copied next to its header; they are not empty.
 *
 * All buffers belong to the device until the request has ended. Those in DMA memory are used as they are, others are copied.
 *
 * A request returns the size of the reply in bytes, which its header also has; 0 if the device used the request's buffers without a reply.
 */
export abstract class MessageDriver<Name extends string>
  extends Driver<Name, MessageEvents>
  implements TagDevice
{
  /** The least room for a reply, in bytes: an error must fit. */
  protected abstract readonly minReplySize: number;

  #requests: RequestQueue<number> | undefined;
  // By slot: the room for the reply, the token, and whether nobody wants the reply any more.
  readonly #replies: Uint8Array[] = [];
  readonly #tokens: number[] = [];
  readonly #unwanted: boolean[] = [];
  #epoch = 0;
  #memory: Uint8Array<ArrayBuffer> | undefined;

  /** The size of the queue of messages in descriptors. */
  get queueSize(): number {
    return this.#queue.slots;
  }

  /** How many requests can be in flight, even if each has the largest number of parts. */
  get capacity(): number {
    const { slots } = this.#queue;
    return this.features.has('INDIRECT_DESC') ? slots : Math.floor(slots / MAX_PARTS);
  }

  /** How many requests the device has. */
  get inFlight(): number {
    return this.#queue.inFlight;
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
   * Sends a message and waits for the reply.
   *
   * @param options a signal that cancels the wait; the server still carries the request out
   * @returns the bytes of the reply, or 0; see {@link MessageDriver}
   * @throws {@link VirtioError} `INVALID_PARAM`, `DMA_ERROR`, `ABORTED`, `UNSUPPORTED` without interrupts, `DEVICE_MISBEHAVED` if the
   * header of the reply does not belong to the request, or has another size than the device reported, or why the request was lost
   */
  async request(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: WaitOptions,
  ): Promise<number> {
    const requests = this.#queue;
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
   * @returns the bytes of the reply, or 0; see {@link MessageDriver}
   * @throws {@link VirtioError} as {@link MessageDriver.request}; `QUEUE_FULL`; `NOT_READY` after `options.timeoutMs` (60,000)
   */
  requestSync(
    request: Uint8Array,
    reply: Uint8Array,
    requestData?: Uint8Array,
    replyData?: Uint8Array,
    options?: SpinOptions,
  ): number {
    const requests = this.#queue;
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
    const requests = this.#queue;
    const slot = requests.begin(this.#check(request, reply, requestData, replyData));
    const token = this.#fill(slot, request, reply, requestData, replyData);
    if (options?.kick !== false) requests.kick();
    return token;
  }

  /** Notifies the device of messages that were submitted with `kick: false`. */
  kick(): void {
    this.#queue.kick();
  }

  /** Calls {@link MessageDriver.kick} when this turn of the event loop ends, once for all that was submitted in it. */
  kickSoon(): void {
    this.#queue.kickSoon();
  }

  /**
   * Takes what the device has answered, so that {@link MessageDriver.inFlight} is up to date.
   *
   * @internal
   */
  drain(): void {
    this.#queue.drain();
  }

  /**
   * The next request that was answered.
   *
   * @returns its token, for {@link MessageDriver.complete}, or -1
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(): number {
    return this.#queue.poll();
  }

  /**
   * Whether {@link MessageDriver.complete} can complete a request: with its result, or with the reason why it was lost.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  isDone(token: number): boolean {
    return this.#queue.isDone(token);
  }

  /**
   * Completes a request: the reply is in its buffers.
   *
   * @returns the bytes of the reply, or 0; see {@link MessageDriver}
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, `DEVICE_MISBEHAVED`, or why the request was lost
   */
  complete(token: number): number {
    return this.#queue.complete(token);
  }

  /**
   * Cancels a request. The server still carries it out, and those of its buffers that lie in DMA memory may be written until the
   * device has answered.
   *
   * @throws {@link VirtioError} `WRONG_TOKEN`
   */
  cancel(token: number): void {
    this.#queue.cancel(token);
  }

  /**
   * Gives up the reply of a request: nothing is copied to its caller's buffers any more, and {@link MessageDriver.complete} throws `ABORTED`
   * when the device has answered. Buffers in DMA memory may be written until then.
   *
   * @internal
   */
  disown(token: number): void {
    const slot = this.#tokens.indexOf(token);
    if (slot >= 0) this.#unwanted[slot] = true;
  }

  /** Makes the queue of messages: a part of a driver's `setUp`. */
  protected createMessageQueue(options: QueueOptions): void {
    this.#requests = this.createRequestQueue(options, { judge: this.#judge, result: this.#result });
  }

  /**
   * Checks the header of a message of `size` bytes.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  protected abstract checkRequest(request: Uint8Array, size: number): void;

  /** Called before a message is sent, of which the driver may keep what it needs to recognize the reply: the caller may change its array meanwhile. */
  protected noteRequest(_slot: number, _request: Uint8Array): void {
    // Most protocols need nothing.
  }

  /** Whether the header of a reply, which may be too short, belongs to the request of a slot and says that it has `size` bytes. */
  protected abstract isReply(slot: number, reply: Uint8Array, size: number): boolean;

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
      new VirtioError(
        'DEVICE_RESET',
        `${this.transport.who()}: a queue was reset; mount the file system again`,
      ),
    );
  }

  get #queue(): RequestQueue<number> {
    return this.#requests as RequestQueue<number>;
  }

  /** Checks what a caller gives, and counts the parts. */
  #check(request: Uint8Array, reply: Uint8Array, requestData?: Uint8Array, replyData?: Uint8Array): number {
    const { transport } = this;
    requireBytes(transport, request);
    requireBytes(transport, reply);
    if (requestData !== undefined) requireBytes(transport, requestData);
    if (replyData !== undefined) requireBytes(transport, replyData);
    this.checkRequest(request, request.length + (requestData?.length ?? 0));
    if (reply.length < this.minReplySize || requestData?.length === 0 || replyData?.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: a reply needs room for ${this.minReplySize} bytes at least, this one has ${reply.length}; ` +
          'requestData and replyData must not be empty',
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
    const requests = this.#queue;
    try {
      this.noteRequest(slot, request);
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
    if (usedLength === 0 || this.isReply(slot, this.#replies[slot] as Uint8Array, usedLength)) {
      return usedLength;
    }
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()}: the header of the server's reply does not belong to the request, or has another size than the ` +
        `${usedLength} bytes that the device reported. The reply was dropped; whether the request was carried out is not known`,
    );
  };
}
