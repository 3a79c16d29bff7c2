/**
 * The driver with the caller's buffers: each holds a header and a packet, and belongs to the device from `…Begin` to `…Complete`. For network
 * stacks that have memory of their own. Buffers in DMA memory are used as they are, others are copied.
 *
 * Mergeable buffers are not accepted here: a buffer holds a whole packet.
 */
import {
  type Hal,
  type Request,
  type RequestHandler,
  requireBytes,
  requireInteger,
  type RequestQueue,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import type { ReceiveHeader, TransmitHeader } from './header.ts';
import { etherType, NetDriver, type NetDriverOptions } from './net-driver.ts';
import { GsoType, NetHeaderLayout } from './protocol.ts';

/** Options of {@link VirtioNetRaw}. */
export type RawNetOptions = NetDriverOptions;

/** Options of calls for one pair of queues. */
export interface PairOption {
  /** The pair of queues (default 0). */
  readonly pair?: number;
}

/** A queue and what belongs to it. */
interface RawQueue {
  readonly requests: RequestQueue<number>;
  /** By slot: the buffer that the device has. */
  readonly buffers: (Uint8Array | undefined)[];
  readonly handler: RequestHandler<number>;
}

/** The longest buffer: that of a descriptor. */
const MAX_BUFFER = 0xffff_ffff;
const DEFAULT_QUEUE_SIZE = 256;

/**
 * Driver of a network device that uses the caller's buffers.
 *
 * @see VIRTIO 1.4, 5.1
 *
 * @example
 * ```ts
 * import type { VirtioNetRaw } from '@virtio/net';
 *
 * // Sends a packet and receives one, without waiting for either.
 * export function exchange(net: VirtioNetRaw, packet: Uint8Array, received: (packet: Uint8Array) => void): () => void {
 *   const outgoing = new Uint8Array(net.headerSize + packet.length);
 *   net.fillBufferHeader(outgoing);
 *   outgoing.set(packet, net.headerSize);
 *   const sending = net.transmitBegin(outgoing);
 *
 *   const incoming = new Uint8Array(net.minReceiveBuffer);
 *   const receiving = net.receiveBegin(incoming);
 *   return function poll() {
 *     if (net.pollTransmit() === sending) net.transmitComplete(sending);
 *     if (net.pollReceive() !== receiving) return;
 *     const length = net.receiveComplete(receiving);
 *     received(incoming.subarray(net.headerSize, net.headerSize + length));
 *   };
 * }
 * ```
 */
export class VirtioNetRaw extends NetDriver {
  readonly #receive: readonly RawQueue[];
  readonly #transmit: readonly RawQueue[];
  /** The pairs that are polled first, so that none is left out. */
  readonly #turns = { receive: 0, transmit: 0 };

  /**
   * Takes the device over.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a network device, or for options that make no sense; `ALREADY_USED`,
   * `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED` if it lacks a queue
   */
  constructor(transport: Transport, hal: Hal, options: RawNetOptions = {}) {
    super(transport, hal, options, []);
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    const pairs = this.setUp(() => {
      const made = Array.from({ length: this.queuePairs }, (_, pair) => {
        const create = (index: number, writable: boolean): RawQueue => {
          const buffers: (Uint8Array | undefined)[] = [];
          const handler = this.#handler(buffers, writable);
          // No two requests have the same token, whichever their queue.
          const lane = [index, 2 * this.queuePairs] as const;
          const requests = this.createRequestQueue(
            // As of VirtioNet: QEMU's event of a packed ring may have gone by.
            { index, size: queueSize, ignoreEvent: !writable },
            handler,
            lane,
          );
          return { requests, buffers, handler };
        };
        return { receive: create(2 * pair, true), transmit: create(2 * pair + 1, false) };
      });
      this.setUpThreads(options);
      this.setUpControl();
      return made;
    });
    this.#receive = pairs.map(({ receive }) => receive);
    this.#transmit = pairs.map(({ transmit }) => transmit);
    this.start();
  }

  /** Whether a buffer can be sent on the first pair now. Throws why the device no longer works. */
  get canSend(): boolean {
    return this.canSendOn(0);
  }

  /** Whether a buffer can be sent on a pair of queues now. Throws why the device no longer works. */
  canSendOn(pair: number): boolean {
    this.checkUsable();
    const { requests } = this.#queue(this.#transmit, pair, this.activePairs);
    // `send` makes chains of two.
    const needed = requests.queue.descriptorsFor(2);
    const hasRoom = (): boolean => requests.queue.availableDescriptors >= needed;
    if (!hasRoom()) requests.drain();
    return hasRoom();
  }

  /**
   * The smallest size of a receive buffer in bytes, the header included: enough for the longest packet that the device may deliver. If
   * packets may have a VLAN tag, add four.
   *
   * @see VIRTIO 1.4, 5.1.9.3.1 and 5.1.4.2
   */
  get minReceiveBuffer(): number {
    return this.headerSize + this.longestReceived;
  }

  /**
   * Writes the header to the start of a buffer.
   *
   * @param buffer room for the header, and the packet after it
   * @param header what the device must do with the packet (default: send it as it is)
   * @returns the size of the header in bytes
   * @throws {@link VirtioError} `INVALID_PARAM` if the buffer is shorter, or the header makes no sense; `UNSUPPORTED` if it needs a
   * feature that was not negotiated
   */
  fillBufferHeader(buffer: Uint8Array, header?: TransmitHeader): number {
    requireBytes(this.transport, buffer);
    const { codec } = this;
    requireInteger(this.transport, "the buffer's length", buffer.length, codec.size, MAX_BUFFER);
    if (header === undefined) codec.clear(buffer);
    else codec.write(buffer, header, buffer.length - codec.size);
    return codec.size;
  }

  /**
   * Reads the header of a received packet.
   *
   * @param buffer with the header and the packet
   * @param length the length of the packet: what {@link VirtioNetRaw.receiveComplete} returned
   * @throws {@link VirtioError} `INVALID_PARAM` if the buffer is shorter; `DEVICE_MISBEHAVED` if the header is impossible, or uses what
   * was not negotiated: drop the packet
   */
  readBufferHeader(buffer: Uint8Array, length: number): ReceiveHeader {
    requireBytes(this.transport, buffer);
    requireInteger(this.transport, "the buffer's length", buffer.length, this.headerSize, MAX_BUFFER);
    requireInteger(this.transport, 'length', length, 0, buffer.length - this.headerSize);
    const fault = this.codec.fault(buffer, length);
    if (fault !== undefined) throw this.#bad(fault);
    return this.codec.read(buffer, length);
  }

  // Sending.

  /**
   * Sends a buffer without waiting for it.
   *
   * @param buffer a header, written by {@link VirtioNetRaw.fillBufferHeader}, and the packet; it belongs to the device until
   * {@link VirtioNetRaw.transmitComplete}
   * @param options `kick: false` does not notify the device; {@link VirtioNetRaw.kick} does
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  transmitBegin(buffer: Uint8Array, options?: SubmitOptions & PairOption): number {
    const queue = this.#queue(this.#transmit, options?.pair, this.activePairs);
    this.#checkTransmit(buffer);
    return this.#submit(queue, buffer, false, options);
  }

  /** The token of the next buffer that was sent, each once, or -1. Throws why the device no longer works. */
  pollTransmit(): number {
    return this.#poll(this.#transmit, 'transmit');
  }

  /**
   * Completes a transmission.
   *
   * @returns the number of bytes sent, the header included
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, or why the request was lost
   */
  transmitComplete(token: number): number {
    return this.#ofToken(this.#transmit, token).complete(token);
  }

  /** Cancels a transmission; the device may still read the buffer if it lies in DMA memory. Throws `WRONG_TOKEN` if there is none. */
  transmitCancel(token: number): void {
    this.#ofToken(this.#transmit, token).cancel(token);
  }

  /**
   * Sends a packet, with a header that this makes, and waits until the device has used it.
   *
   * @param packet may be empty
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED`, `DMA_ERROR`, `ABORTED`, or why the request was lost
   */
  async send(
    packet: Uint8Array,
    options: WaitOptions & PairOption & { readonly header?: TransmitHeader } = {},
  ): Promise<void> {
    const { requests } = this.#queue(this.#transmit, options.pair, this.activePairs);
    await requests.request(this.#packet(requests, packet, options), options);
  }

  /**
   * The same, spinning.
   *
   * @throws {@link VirtioError} as {@link VirtioNetRaw.send}; `QUEUE_FULL`, `NOT_READY` after `options.timeoutMs` (60,000)
   */
  sendSync(
    packet: Uint8Array,
    options: SpinOptions & PairOption & { readonly header?: TransmitHeader } = {},
  ): void {
    const { requests } = this.#queue(this.#transmit, options.pair, this.activePairs);
    requests.requestSync(this.#packet(requests, packet, options), options);
  }

  // Receiving.

  /**
   * Makes a buffer available for a packet.
   *
   * @param buffer of {@link VirtioNetRaw.minReceiveBuffer} bytes at least; it belongs to the device until
   * {@link VirtioNetRaw.receiveComplete}
   * @param options `kick: false` does not notify the device; {@link VirtioNetRaw.kick} does
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  receiveBegin(buffer: Uint8Array, options?: SubmitOptions & PairOption): number {
    const queue = this.#queue(this.#receive, options?.pair, this.queuePairs);
    this.#checkReceive(buffer);
    return this.#submit(queue, buffer, true, options);
  }

  /** The token of the next buffer with a packet, each once, or -1. Throws why the device no longer works. */
  pollReceive(): number {
    return this.#poll(this.#receive, 'receive');
  }

  /**
   * Completes a reception: the packet is in its buffer, after {@link VirtioNetRaw.headerSize} bytes of header, which
   * {@link VirtioNetRaw.readBufferHeader} reads and checks.
   *
   * @returns the length of the packet in bytes
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED` if the device wrote less than a header: there is no packet then; `NOT_READY`, `WRONG_TOKEN`, or why the request was lost
   */
  receiveComplete(token: number): number {
    return this.#ofToken(this.#receive, token).complete(token);
  }

  /** Cancels a reception; the device may still write to the buffer if it lies in DMA memory. Throws `WRONG_TOKEN` if there is none. */
  receiveCancel(token: number): void {
    this.#ofToken(this.#receive, token).cancel(token);
  }

  /**
   * Waits for the next packet and receives it into a buffer.
   *
   * @param buffer as of {@link VirtioNetRaw.receiveBegin}
   * @returns the length of the packet, which starts after {@link VirtioNetRaw.headerSize} bytes of header
   * @throws {@link VirtioError} as {@link VirtioNetRaw.receiveBegin} and {@link VirtioNetRaw.receiveComplete}; `ABORTED`: the next
   * packet is lost then
   */
  async receive(buffer: Uint8Array, options: WaitOptions & PairOption = {}): Promise<number> {
    const queue = this.#queue(this.#receive, options.pair, this.queuePairs);
    this.#checkReceive(buffer);
    return queue.requests.request(this.#request(queue, buffer, true), options);
  }

  /**
   * The same, spinning.
   *
   * @throws {@link VirtioError} as {@link VirtioNetRaw.receive}; `NOT_READY` after `options.timeoutMs` (60,000)
   */
  receiveSync(buffer: Uint8Array, options: SpinOptions & PairOption = {}): number {
    const queue = this.#queue(this.#receive, options.pair, this.queuePairs);
    this.#checkReceive(buffer);
    return queue.requests.requestSync(this.#request(queue, buffer, true), options);
  }

  /** Notifies the device of all buffers that were submitted with `kick: false`. Throws why the device no longer works. */
  kick(): void {
    this.checkUsable();
    for (const { requests } of this.#receive) requests.kick();
    for (const { requests } of this.#transmit) requests.kick();
  }

  protected override transmitQueues(): readonly VirtQueue[] {
    return this.#transmit.map(({ requests }) => requests.queue);
  }

  /** How answers are judged; by slot, the buffer that the device has. */
  #handler(buffers: (Uint8Array | undefined)[], writable: boolean): RequestHandler<number> {
    return {
      // The used length of what was sent says nothing; legacy devices give all kinds of it [5.1.9.1].
      ...(writable && {
        judge: (_slot: number, usedLength: number): void => {
          if (usedLength < this.headerSize) {
            throw this.#bad(`it has ${usedLength} bytes, fewer than the ${this.headerSize} of its header`);
          }
        },
      }),
      result: (slot, usedLength) => {
        const buffer = buffers[slot] as Uint8Array;
        buffers[slot] = undefined;
        if (!writable) return buffer.length;
        return usedLength - this.headerSize;
      },
    };
  }

  #bad(fault: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()} delivered a bad packet: ${fault}. Give the buffer to the device again`,
    );
  }

  #submit(
    { requests, buffers }: RawQueue,
    buffer: Uint8Array,
    writable: boolean,
    options?: SubmitOptions,
  ): number {
    const slot = requests.begin(this.#descriptors(buffer));
    try {
      this.#push(requests, slot, buffer, writable);
    } catch (error) {
      requests.rewind(slot);
      throw error;
    }
    buffers[slot] = buffer;
    const token = requests.submit(slot);
    if (options?.kick !== false) requests.kick();
    return token;
  }

  /** The same as a request to wait for. */
  #request({ requests, buffers, handler }: RawQueue, buffer: Uint8Array, writable: boolean): Request<number> {
    return {
      ...handler,
      buffers: this.#descriptors(buffer),
      fill: (slot) => {
        this.#push(requests, slot, buffer, writable);
        buffers[slot] = buffer;
      },
    };
  }

  /** A legacy device may want a descriptor for the header. */
  #descriptors(buffer: Uint8Array): 1 | 2 {
    return this.framed && buffer.length > this.codec.size ? 2 : 1;
  }

  #push(requests: RequestQueue<number>, slot: number, buffer: Uint8Array, writable: boolean): void {
    const { queue } = requests;
    const { length } = buffer;
    const head = this.#descriptors(buffer) === 2 ? this.codec.size : 0;
    const address = requests.share(slot, buffer, writable);
    if (writable) {
      if (head > 0) queue.pushWritable(address, head);
      queue.pushWritable(address + head, length - head);
    } else {
      if (head > 0) queue.pushReadable(address, head);
      queue.pushReadable(address + head, length - head);
    }
  }

  /** A request to send a packet with a header of its own. */
  #packet(
    requests: RequestQueue<number>,
    packet: Uint8Array,
    { header, pair }: PairOption & { readonly header?: TransmitHeader },
  ): Request<number> {
    requireBytes(this.transport, packet);
    this.checkLength(packet.length, header?.gso !== undefined, etherType(packet, 0));
    const head = new Uint8Array(this.headerSize);
    if (header !== undefined) this.codec.write(head, header, packet.length);
    return {
      // An empty packet has no descriptor.
      buffers: packet.length === 0 ? 1 : 2,
      fill: (slot) => {
        // It may have waited for room, and fewer pairs be in use.
        this.#queue(this.#transmit, pair, this.activePairs);
        requests.shareReadable(slot, head);
        if (packet.length > 0) requests.shareReadable(slot, packet);
      },
      result: () => head.length + packet.length,
    };
  }

  #checkTransmit(buffer: Uint8Array): void {
    requireBytes(this.transport, buffer);
    const { size } = this.codec;
    requireInteger(this.transport, "the buffer's length", buffer.length, size, MAX_BUFFER);
    const isCut = buffer[NetHeaderLayout.offset.gsoType] !== GsoType.NONE;
    this.checkLength(buffer.length - size, isCut, etherType(buffer, size));
  }

  #checkReceive(buffer: Uint8Array): void {
    requireBytes(this.transport, buffer);
    requireInteger(this.transport, "the buffer's length", buffer.length, this.minReceiveBuffer, MAX_BUFFER);
  }

  #queue(queues: readonly RawQueue[], pair: number | undefined, pairs: number): RawQueue {
    const index = pair === undefined ? 0 : requireInteger(this.transport, 'pair', pair, 0, pairs - 1);
    return queues[index] as RawQueue;
  }

  /** The next token of several queues that is done, or -1. */
  #poll(queues: readonly RawQueue[], direction: 'receive' | 'transmit'): number {
    const turns = this.#turns;
    for (let i = 0; i < queues.length; i += 1) {
      const turn = turns[direction] < queues.length ? turns[direction] : 0;
      turns[direction] = turn + 1;
      const token = (queues[turn] as RawQueue).requests.poll();
      if (token >= 0) return token;
    }
    return -1;
  }

  #ofToken(queues: readonly RawQueue[], token: number): RequestQueue<number> {
    // What is no token is refused by the first.
    const index = Number.isInteger(token) && token >= 0 ? token % (2 * queues.length) : 0;
    return (queues[index >> 1] as RawQueue).requests;
  }
}
