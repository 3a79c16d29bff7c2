/**
 * The driver with buffers of its own: received packets lie in memory that goes back to the device after use, sent packets are copied to
 * memory that is taken back when the device has used it. It works without interrupts, and needs no memory to wait for a slow device.
 */
import {
  type Hal,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import { etherType, NetDriver, type NetDriverOptions } from './net-driver.ts';
import {
  DEFAULT_MTU,
  ETHERNET_HEADER_SIZE,
  MAX_OFFLOAD_FRAME,
  MAX_QUEUE_SIZE,
  VLAN_TAG_SIZE,
} from './protocol.ts';
import type { ReceivedPacket } from './received-packet.ts';
import { Receiver } from './receiver.ts';
import { Sender, type SendOptions, type TransmitBuffer } from './sender.ts';
import {
  Cancellation,
  type ReadableStreamClass,
  readableOf,
  type WritableStreamClass,
  writableOf,
} from './streams.ts';

/** Options of {@link VirtioNet}. */
export interface NetOptions extends NetDriverOptions {
  /** The number of receive buffers of each pair (default and maximum: as many as its queue has descriptors; fewer if they are large). */
  readonly buffers?: number;
  /**
   * The size of each receive buffer in bytes, the header included (default: 2048 with mergeable buffers, else what the longest packet needs).
   * With mergeable buffers, longer packets are spread over several.
   */
  readonly bufferSize?: number;
  /** The number of transmit buffers of each pair (default and maximum: as many as its queue has descriptors; fewer if they are large). */
  readonly transmitBuffers?: number;
  /** The size of each transmit buffer in bytes, the header included (default: what a packet of the MTU needs, with a VLAN tag). */
  readonly transmitBufferSize?: number;
}

/** Options of calls that receive packets and return a promise. */
export interface ReceiveOptions extends WaitOptions {
  /** The pair of queues (default: any). */
  readonly pair?: number;
}

/** What buffers of one direction may take of memory by default, in bytes. */
const MEMORY = 1 << 23;
/** A receive buffer that a packet of an MTU of 1500 fits. */
const MERGEABLE_SIZE = 2048;
const DEFAULT_QUEUE_SIZE = 256;

const defaultBuffers = (queueSize: number, bufferSize: number): number =>
  Math.max(1, Math.min(queueSize, Math.floor(MEMORY / bufferSize)));

/**
 * Driver of a network device.
 *
 * @see VIRTIO 1.4, 5.1
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioNet } from '@virtio/net';
 *
 * // Sends back whatever comes.
 * export async function mirror(transport: Transport, hal: Hal): Promise<void> {
 *   using net = new VirtioNet(transport, hal);
 *   for await (using packet of net) {
 *     const frame = packet.copy();
 *     frame.copyWithin(0, 6, 12);
 *     frame.set(net.macAddress, 6);
 *     await net.send(frame);
 *   }
 * }
 * ```
 */
export class VirtioNet extends NetDriver {
  readonly #receivers: readonly Receiver[];
  readonly #senders: readonly Sender[];
  /** The pair that is looked at first, so that none is left out. */
  #turn = 0;

  /**
   * Takes the device over.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not a network device, or for options that make no sense; `ALREADY_USED`,
   * `FEATURES_REFUSED`, `DMA_ERROR`, `UNSUPPORTED` if it lacks a queue
   */
  constructor(transport: Transport, hal: Hal, options: NetOptions = {}) {
    super(transport, hal, options, ['MRG_RXBUF']);
    const pairs = this.setUp(() => {
      const made = Array.from({ length: this.queuePairs }, (_, pair) => this.#createPair(pair, options));
      this.setUpThreads(options);
      this.setUpControl();
      return made;
    });
    this.#receivers = pairs.map(({ receiver }) => receiver);
    this.#senders = pairs.map(({ sender }) => sender);
    this.start();
  }

  // Receiving.

  /** Whether the device has used a receive buffer that was not taken yet. Throws why the device no longer works. */
  get canReceive(): boolean {
    this.checkUsable();
    return this.#receivers.some((receiver) => receiver.isReady);
  }

  /** How many received packets were dropped because the device described them wrongly; see the event `quirk`. */
  get dropped(): number {
    return this.#receivers.reduce((sum, { dropped }) => sum + dropped, 0);
  }

  /**
   * The next received packet, if there is one.
   *
   * @param pair the pair of queues (default: any)
   * @returns the packet, to be given back by `using` or `release()`
   * @throws {@link VirtioError} why the device no longer works
   */
  tryReceive(pair?: number): ReceivedPacket | undefined {
    if (pair !== undefined) return this.#receiver(pair).tryReceive();
    const receivers = this.#receivers;
    for (let i = 0; i < receivers.length; i += 1) {
      this.#turn = this.#turn + 1 < receivers.length ? this.#turn + 1 : 0;
      const packet = (receivers[this.#turn] as Receiver).tryReceive();
      if (packet !== undefined) return packet;
    }
    return undefined;
  }

  /**
   * Waits for the next received packet.
   *
   * @returns the packet, to be given back by `using` or `release()`
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works
   */
  async receive(options: ReceiveOptions = {}): Promise<ReceivedPacket> {
    const turn = this.#receiver(options.pair ?? 0).queue.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no packet.
      requireWaitable(this.transport, options);
      const packet = this.tryReceive(options.pair);
      if (packet !== undefined) return packet;
      await this.#arrival(options);
    }
  }

  /**
   * The same, spinning.
   *
   * @throws {@link VirtioError} `NOT_READY` after `options.timeoutMs` (60,000), or why the device no longer works
   */
  receiveSync(options: SpinOptions & { readonly pair?: number } = {}): ReceivedPacket {
    let packet: ReceivedPacket | undefined;
    const { queue } = this.#receiver(options.pair ?? 0);
    queue.spin(
      () => {
        packet = this.tryReceive(options.pair);
        return packet !== undefined;
      },
      options,
      'a packet',
    );
    return packet as unknown as ReceivedPacket;
  }

  /**
   * Calls `handler` with each packet that was received. For a packet in one buffer this allocates nothing if the handler uses its
   * `bytes`, `offset` and `length`.
   *
   * @param handler receives a packet that is valid only during the call, and is given back after it. An error that it throws ends `poll`
   * @param pair the pair of queues (default: all)
   * @returns how many packets there were: for each pair at most as many as it has buffers
   * @throws {@link VirtioError} why the device no longer works
   */
  poll(handler: (packet: ReceivedPacket) => void, pair?: number): number {
    if (pair !== undefined) return this.#receiver(pair).poll(handler);
    let count = 0;
    for (const receiver of this.#receivers) {
      // A handler may have ended the driver.
      if (count > 0 && receiver.queue.failure !== undefined) break;
      count += receiver.poll(handler);
    }
    return count;
  }

  /**
   * The received packets, for as long as the device works. Each is given back when the next is asked for, if not before.
   *
   * @throws {@link VirtioError} as {@link VirtioNet.receive}
   */
  async *packets(options: ReceiveOptions = {}): AsyncGenerator<ReceivedPacket, never, undefined> {
    for (;;) {
      using packet = await this.receive(options);
      yield packet;
    }
  }

  /** The received packets of all pairs, so that `for await (using packet of net)` works. */
  [Symbol.asyncIterator](): AsyncGenerator<ReceivedPacket, never, undefined> {
    return this.packets();
  }

  // Sending.

  /** Whether a packet could be sent on the first pair now. */
  get canSend(): boolean {
    return this.#sender(0).isReady;
  }

  /** The length of the longest packet that a transmit buffer holds, packets that the device segments included. */
  get maxSendLength(): number {
    return this.#sender(0).room;
  }

  /**
   * Sends a packet when there is room for it; it is copied at that moment. Packets are sent in the order of the calls.
   *
   * @param frame from its Ethernet header on. It must not change before the promise settles
   * @returns a promise that resolves when the packet is available to the device; {@link VirtioNet.flush} waits until it is sent
   * @throws {@link VirtioError} `INVALID_PARAM` if it is too long, or its pair is not in use any more; `UNSUPPORTED` for a header that needs a feature that was not negotiated, or
   * without interrupts; `ABORTED`, or why the device no longer works
   */
  async send(frame: Uint8Array, options: SendOptions & WaitOptions = {}): Promise<void> {
    await this.#sender(options.pair).send(frame, options.header, options);
  }

  /**
   * The same, spinning until there is room.
   *
   * @throws {@link VirtioError} as {@link VirtioNet.send}; `NOT_READY` after `options.timeoutMs` (60,000): it was not sent
   */
  sendSync(frame: Uint8Array, options: SendOptions & SpinOptions = {}): void {
    this.#sender(options.pair).sendSync(frame, options.header, options);
  }

  /**
   * Sends a packet if there is room for it. This allocates nothing.
   *
   * @param options `kick: false` does not notify the device; {@link VirtioNet.kick} does
   * @returns false if there is no room, or other callers wait for room
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED`, or why the device no longer works
   */
  trySend(frame: Uint8Array, options?: SendOptions & { readonly kick?: boolean }): boolean {
    const sender = this.#sender(options?.pair);
    if (!sender.trySend(frame, options?.header)) return false;
    if (options?.kick !== false) sender.queue.kick();
    return true;
  }

  /**
   * Sends as many packets as there is room for, and notifies the device once.
   *
   * @returns how many were sent, counted from the first
   * @throws {@link VirtioError} as {@link VirtioNet.trySend}; the packets before the refused one were sent
   */
  trySendAll(frames: readonly Uint8Array[], options?: SendOptions): number {
    const sender = this.#sender(options?.pair);
    let count = 0;
    try {
      while (count < frames.length && sender.trySend(frames[count] as Uint8Array, options?.header)) {
        count += 1;
      }
    } finally {
      if (count > 0) sender.queue.kick();
    }
    return count;
  }

  /** Notifies the device of packets that were sent with `kick: false`. Throws why the device no longer works. */
  kick(pair = 0): void {
    this.checkUsable();
    // Also of a pair that is no longer in use: they were sent before.
    this.#senders[requireInteger(this.transport, 'pair', pair, 0, this.queuePairs - 1)]?.queue.kick();
  }

  /**
   * A buffer to build a packet in, without a copy.
   *
   * @returns `undefined` if there is none now
   * @throws {@link VirtioError} why the device no longer works
   *
   * @example
   * ```ts
   * import type { VirtioNet } from '@virtio/net';
   *
   * export function fill(net: VirtioNet, build: (room: Uint8Array) => number): boolean {
   *   using buffer = net.takeBuffer();
   *   buffer?.send(build(buffer.data));
   *   return buffer !== undefined;
   * }
   * ```
   */
  takeBuffer(pair?: number): TransmitBuffer | undefined {
    return this.#sender(pair).take();
  }

  /**
   * Waits until the device has used all packets that were sent before, those that wait for room included.
   *
   * @throws {@link VirtioError} `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works
   */
  async flush(options?: WaitOptions): Promise<void> {
    for (const sender of this.#senders) await sender.flush(options);
  }

  /** The same, spinning. `NOT_READY` after `options.timeoutMs` (60,000). */
  flushSync(options?: SpinOptions): void {
    for (const sender of this.#senders) sender.flushSync(options);
  }

  // Streams.

  /**
   * A stream of received packets, each chunk a copy of one packet.
   *
   * @param ReadableStream the class of the platform, or of a library
   */
  readable<S>(ReadableStream: ReadableStreamClass<S>): S {
    return readableOf(this, ReadableStream);
  }

  /**
   * A stream that sends packets on the first pair. A write ends when there was room for the packet; closing ends when all were sent.
   *
   * @param WritableStream the class of the platform, or of a library
   */
  writable<S>(WritableStream: WritableStreamClass<S>): S {
    return writableOf(this, WritableStream);
  }

  protected override transmitQueues(): readonly VirtQueue[] {
    return this.#senders.map(({ queue }) => queue.queue);
  }

  protected override onReset(): void {
    super.onReset();
    for (const sender of this.#senders) sender.generation += 1;
  }

  protected override onQueueReset(queue: VirtQueue): void {
    for (const sender of this.#senders) if (sender.queue.queue === queue) sender.generation += 1;
  }

  /** Waits until a packet may be there. */
  async #arrival({ pair, signal }: ReceiveOptions): Promise<void> {
    const receivers = this.#receivers;
    if (pair !== undefined || receivers.length === 1) {
      await this.#receiver(pair ?? 0).queue.wait({ signal });
      return;
    }
    const others = new Cancellation();
    const stop = (): void => {
      others.abort(signal?.reason);
    };
    signal?.addEventListener('abort', stop);
    if (signal?.aborted === true) stop();
    try {
      await Promise.race(receivers.map(({ queue }) => queue.wait({ signal: others })));
    } finally {
      others.abort();
      signal?.removeEventListener('abort', stop);
    }
  }

  #receiver(pair: number): Receiver {
    return this.#receivers[requireInteger(this.transport, 'pair', pair, 0, this.queuePairs - 1)] as Receiver;
  }

  #sender(pair = 0): Sender {
    this.#checkPair(pair);
    return this.#senders[pair] as Sender;
  }

  /** 5.1.9.5.6.1: nothing is queued beyond the pairs in use. */
  #checkPair(pair: number): void {
    if (pair !== 0) requireInteger(this.transport, 'pair', pair, 0, this.activePairs - 1);
  }

  #createPair(pair: number, options: NetOptions): { receiver: Receiver; sender: Sender } {
    const { codec, features, transport } = this;
    const { queueSize = DEFAULT_QUEUE_SIZE } = options;
    for (const name of ['buffers', 'transmitBuffers'] as const) {
      if (options[name] !== undefined) requireInteger(transport, name, options[name], 1, MAX_QUEUE_SIZE);
    }
    const head = this.framed ? codec.size : 0;
    const most = (index: number): number => {
      const size = Math.min(queueSize, transport.maxQueueSize(index));
      // Without indirect descriptors a buffer in two parts takes two of them.
      return head > 0 && !features.has('INDIRECT_DESC') ? size >> 1 : size;
    };
    const bufferSize = this.#receiveSize(options, Math.min(options.buffers ?? Infinity, most(2 * pair)));
    const buffers = Math.min(options.buffers ?? defaultBuffers(most(2 * pair), bufferSize), most(2 * pair));
    this.#requireRoom(buffers, bufferSize);
    const receiver = new Receiver(
      {
        pair,
        codec,
        report: (error) => {
          this.fail(error);
        },
        quirk: (message) => {
          this.quirk(2 * pair, message);
        },
      },
      (functions) =>
        this.createReceiveQueue({
          index: 2 * pair,
          size: queueSize,
          bufferSize,
          buffers,
          head,
          ...functions,
        }),
    );
    const transmitSize = requireInteger(
      transport,
      'transmitBufferSize',
      options.transmitBufferSize ??
        codec.size + Math.max(this.mtu, DEFAULT_MTU) + ETHERNET_HEADER_SIZE + VLAN_TAG_SIZE,
      codec.size + ETHERNET_HEADER_SIZE,
      codec.size + MAX_OFFLOAD_FRAME + VLAN_TAG_SIZE,
    );
    const queue = this.createTransmitQueue({
      index: 2 * pair + 1,
      size: queueSize,
      // After its back end was blocked, QEMU asks for an event of a packed ring that has gone by.
      ignoreEvent: true,
      bufferSize: transmitSize,
      buffers: options.transmitBuffers ?? defaultBuffers(most(2 * pair + 1), transmitSize),
      head,
    });
    const checkMtu = (frame: Uint8Array, isCut: boolean): void => {
      this.checkLength(frame.length, isCut, etherType(frame, 0));
    };
    const checkPair = (): void => {
      this.#checkPair(pair);
    };
    return { receiver, sender: new Sender({ transport, queue, codec, checkMtu, checkPair }) };
  }

  /** The size of receive buffers [5.1.9.3.1]. */
  #receiveSize({ bufferSize }: NetOptions, buffers: number): number {
    const { codec, features, transport } = this;
    const merges = features.has('MRG_RXBUF');
    const needed = codec.size + this.#longest;
    return requireInteger(
      transport,
      'bufferSize',
      bufferSize ?? (merges ? Math.max(MERGEABLE_SIZE, Math.ceil(needed / Math.max(1, buffers))) : needed),
      merges ? codec.size : codec.size + this.longestReceived,
      1 << 20,
    );
  }

  /** The longest packet that the device may send. */
  get #longest(): number {
    return this.longestReceived + (this.takesLarge ? 0 : VLAN_TAG_SIZE);
  }

  /** 5.1.4.2: there must be room for one packet of the MTU at least. */
  #requireRoom(buffers: number, bufferSize: number): void {
    const needed = this.codec.size + this.#longest;
    if (buffers * bufferSize >= needed) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: ${buffers} receive buffers of ${bufferSize} bytes do not hold the longest packet, which has ` +
        `${needed} bytes with its header; ask for more buffers or larger ones`,
    );
  }
}
