/**
 * The driver with the caller's buffers: each holds a header and a packet, and is the device's from `…Begin` to `…Complete`. For network
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

/** The pair of queues that a call is for. */
export interface PairOption {
  /** Which pair (default 0). */
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
 * The driver of a network device, on buffers of the caller's.
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

  /** Whether a buffer can be sent now. Throws why the device no longer works. */
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
   * The bytes that a receive buffer must have, the header included: for the longest packet that the device may send. Where packets
   * may have a VLAN tag, four more.
   *
   * @see VIRTIO 1.4, 5.1.9.3.1 and 5.1.4.2
   */
  get minReceiveBuffer(): number {
    return this.headerSize + this.longestReceived;
  }

  /**
   * Writes the header to the start of a buffer.
   *
   * @param buffer with the packet behind the header
   * @param header what the device shall do with the packet (default: send it as it is)
   * @returns the bytes of the header
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
   * @param length the bytes of the packet: what {@link VirtioNetRaw.receiveComplete} returned
   * @throws {@link VirtioError} `INVALID_PARAM` if the buffer is shorter; `DEVICE_MISBEHAVED` if the header says what cannot be, or was
   * not negotiated: throw the packet away
   */
  readBufferHeader(buffer: Uint8Array, length: number): ReceiveHeader {
    requireBytes(this.transport, buffer);
    requireInteger(this.transport, 'length', length, 0, buffer.length - this.headerSize);
    const fault = this.codec.fault(buffer, length);
    if (fault !== undefined) throw this.#bad(fault);
    return this.codec.read(buffer, length);
  }

  // Sending.

  /**
   * Sends a buffer without waiting for it.
   *
   * @param buffer a header, written by {@link VirtioNetRaw.fillBufferHeader}, and the packet; it is the device's until
   * {@link VirtioNetRaw.transmitComplete}
   * @param options `kick: false` leaves the device unaware of it until {@link VirtioNetRaw.kick}
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  transmitBegin(buffer: Uint8Array, options?: SubmitOptions & PairOption): number {
    const queue = this.#queue(this.#transmit, options?.pair, this.activePairs);
    this.#checkTransmit(buffer);
    return this.#submit(queue, buffer, false, options);
  }

  /** The next buffer that was sent: its token, once, or -1. Throws why the device no longer works. */
  pollTransmit(): number {
    return poll(this.#transmit);
  }

  /**
   * Ends a sending.
   *
   * @returns the bytes that were sent, the header included
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, or why the request was lost
   */
  transmitComplete(token: number): number {
    return this.#ofToken(this.#transmit, token).complete(token);
  }

  /** Gives a sending up; the device may still read the buffer if it lies in DMA memory. `WRONG_TOKEN` if there is none. */
  transmitCancel(token: number): void {
    this.#ofToken(this.#transmit, token).cancel(token);
  }

  /**
   * Sends a packet, for which this makes a header, and waits until the device has.
   *
   * @param packet may be empty
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED`, `DMA_ERROR`, `ABORTED`, or why the request was lost
   */
  async send(
    packet: Uint8Array,
    options: WaitOptions & PairOption & { readonly header?: TransmitHeader } = {},
  ): Promise<void> {
    const { requests } = this.#queue(this.#transmit, options.pair, this.activePairs);
    await requests.request(this.#packet(requests, packet, options.header), options);
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
    requests.requestSync(this.#packet(requests, packet, options.header), options);
  }

  // Receiving.

  /**
   * Gives the device a buffer to receive a packet in.
   *
   * @param buffer of {@link VirtioNetRaw.minReceiveBuffer} bytes at least; it is the device's until
   * {@link VirtioNetRaw.receiveComplete}
   * @param options `kick: false` leaves the device unaware of it until {@link VirtioNetRaw.kick}
   * @returns a token
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM`, `DMA_ERROR`, or why the device no longer works
   */
  receiveBegin(buffer: Uint8Array, options?: SubmitOptions & PairOption): number {
    const queue = this.#queue(this.#receive, options?.pair, this.queuePairs);
    this.#checkReceive(buffer);
    return this.#submit(queue, buffer, true, options);
  }

  /** The next buffer with a packet: its token, once, or -1. Throws why the device no longer works. */
  pollReceive(): number {
    return poll(this.#receive);
  }

  /**
   * Ends a receiving: the packet is in its buffer, behind {@link VirtioNetRaw.headerSize} bytes of header, which
   * {@link VirtioNetRaw.readBufferHeader} reads and judges.
   *
   * @returns the bytes of the packet
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED` if the device gave less than a header: there is no packet then; `NOT_READY`, `WRONG_TOKEN`, or why the request was lost
   */
  receiveComplete(token: number): number {
    return this.#ofToken(this.#receive, token).complete(token);
  }

  /** Gives a receiving up; the device may still write to the buffer if it lies in DMA memory. `WRONG_TOKEN` if there is none. */
  receiveCancel(token: number): void {
    this.#ofToken(this.#receive, token).cancel(token);
  }

  /**
   * Receives a packet into a buffer, and waits for it.
   *
   * @param buffer as of {@link VirtioNetRaw.receiveBegin}
   * @returns the bytes of the packet, which is behind {@link VirtioNetRaw.headerSize} bytes of header
   * @throws {@link VirtioError} as {@link VirtioNetRaw.receiveBegin} and {@link VirtioNetRaw.receiveComplete}; `ABORTED`: the packet
   * that comes next is lost then
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

  /** Shows the device all that was submitted with `kick: false`. Throws why the device no longer works. */
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
            throw this.#bad(`${usedLength} bytes, and its header alone has ${this.headerSize}`);
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
      `${this.transport.who()} gave a packet that cannot be: ${fault}. Give the buffer to the device again`,
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
    header: TransmitHeader | undefined,
  ): Request<number> {
    requireBytes(this.transport, packet);
    this.checkLength(packet.length, header?.gso !== undefined, etherType(packet, 0));
    const head = new Uint8Array(this.headerSize);
    if (header !== undefined) this.codec.write(head, header, packet.length);
    return {
      // An empty packet has no descriptor.
      buffers: packet.length === 0 ? 1 : 2,
      fill: (slot) => {
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

  #ofToken(queues: readonly RawQueue[], token: number): RequestQueue<number> {
    // What is no token is refused by the first.
    const index = Number.isInteger(token) && token >= 0 ? token % (2 * queues.length) : 0;
    return (queues[index >> 1] as RawQueue).requests;
  }
}

/** The next of several queues that is done, or -1. */
function poll(queues: readonly RawQueue[]): number {
  for (const { requests } of queues) {
    const token = requests.poll();
    if (token >= 0) return token;
  }
  return -1;
}
