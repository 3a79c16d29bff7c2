/**
 * The driver of socket devices: it sends and receives packets, and handles events. It has no notion of connections;
 * {@link VsockConnectionManager} has, and takes all packets once it is attached.
 */
import {
  BufferDriver,
  DeviceType,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type ReceiveQueue,
  requireBytes,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type TransmitQueue,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import {
  EVENT_QUEUE,
  HEADER_SIZE,
  RX_QUEUE,
  TX_QUEUE,
  VsockConfig,
  VsockEventId,
  VsockEventLayout,
  type VsockFeatureName,
  VsockFeatures,
  VsockHdr,
  VsockHeader,
  VsockType,
} from './protocol.ts';

/** Options of {@link VirtioSocket}. */
export interface SocketOptions extends DriverOptions<VsockFeatureName> {
  /** The size of the rx and tx queues, in descriptors (default: as many as the device has). */
  readonly queueSize?: number;
  /** The number of buffers in each direction (default 64, or fewer if the queue is smaller). */
  readonly buffers?: number;
  /** The size of each buffer in bytes, with 44 for the header (default 16384; from 64 to 65580: packets have at most 64 KiB of data). */
  readonly bufferSize?: number;
}

/** Events of {@link VirtioSocket}. */
export interface SocketEvents extends DriverEvents {
  /** The device lost all connections, e.g. in a migration. The value is the guest's CID, which may have changed. */
  transportReset: number;
}

/** The receiver of all packets of a {@link VirtioSocket}. */
export interface PacketHandler {
  /**
   * A packet came.
   *
   * @param header valid during the call
   * @param data its data, valid during the call
   * @param complete false if the device claims more data than it wrote
   * @returns false to get the packet again later
   */
  packet(header: VsockHeader, data: Uint8Array, complete: boolean): boolean;
  /** The device lost all connections. */
  transportReset(): void;
  /** The device no longer works, or was reset. */
  failed(error: VirtioError): void;
  /** A queue was reset alone: packets are lost, and the peers still have their connections. */
  queueReset(error: VirtioError): void;
}

const DEFAULT_BUFFERS = 64;
const DEFAULT_BUFFER_SIZE = 16_384;
const MIN_BUFFER_SIZE = 64;
/** The most data in one packet of the devices in use, in bytes. */
const MAX_DATA = 65_536;
const MAX_BUFFERS = 32_768;
const EVENT_BUFFERS = 8;
const NO_DATA = new Uint8Array(0);
const RESERVED_CIDS: readonly number[] = [0, 1, 2, 0xffffffff];

/**
 * A socket device.
 *
 * @example
 * ```ts
 * import { openDriver } from '@virtio/linux';
 * import { VirtioSocket, VsockConnectionManager } from '@virtio/socket';
 *
 * using device = openDriver(VirtioSocket, '0000:00:03.0');
 * using sockets = new VsockConnectionManager(device);
 * const connection = await sockets.connect({ cid: 2, port: 1234 });
 * await connection.write('hello\n');
 * await connection.close();
 * ```
 *
 * @see VIRTIO 1.4, 5.10
 */
export class VirtioSocket extends BufferDriver<VsockFeatureName, SocketEvents> {
  /** The device type: socket. */
  static readonly deviceType = DeviceType.Socket;

  /** The most data that one packet can carry to the device, in bytes. */
  readonly maxData: number;

  readonly #rx: ReceiveQueue;
  readonly #tx: TransmitQueue;
  readonly #event: ReceiveQueue;
  readonly #rxViews: DataView[] = [];
  readonly #txViews: DataView[] = [];
  /** By receive buffer: the data of its last packet. Most packets of a stream have one length, so that few views are made. */
  readonly #rxData: Uint8Array[] = [];
  /** Packets that were received and not handled yet: buffer and length of each, in turn. */
  readonly #arrived: Uint32Array;
  #arrivedHead = 0;
  #arrivedCount = 0;
  /** How many times the packets that have arrived were discarded. */
  #resets = 0;
  /** The header that is lent to handlers, unless one of them is at it. */
  #header: VsockHeader | undefined = new VsockHeader();
  /** Cached, so that features are not looked up for each packet. */
  readonly #streams: boolean;
  readonly #messages: boolean;
  #handler: PacketHandler | undefined;
  #dispatching = false;
  #guestCid = 0;

  /**
   * Initializes the device, which can send packets from then on.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `UNSUPPORTED` if a queue is missing, `INVALID_DEVICE` if
   * the guest's CID is reserved, `DMA_ERROR`
   */
  constructor(transport: Transport, hal: Hal, options: SocketOptions = {}) {
    const { queueSize, buffers, bufferSize = DEFAULT_BUFFER_SIZE } = options;
    requireInteger(transport, 'bufferSize', bufferSize, MIN_BUFFER_SIZE, HEADER_SIZE + MAX_DATA);
    if (queueSize !== undefined) requireInteger(transport, 'queueSize', queueSize, 1, MAX_BUFFERS);
    if (buffers !== undefined) requireInteger(transport, 'buffers', buffers, 2, MAX_BUFFERS);
    super(
      transport,
      hal,
      {
        deviceType: DeviceType.Socket,
        table: VsockFeatures,
        supported: ['STREAM', 'SEQPACKET', 'NO_IMPLIED_STREAM'],
      },
      options,
    );
    this.maxData = bufferSize - HEADER_SIZE;
    this.#messages = this.features.has('SEQPACKET');
    this.#streams = this.features.has('STREAM') || !this.features.has('NO_IMPLIED_STREAM');
    const { rx, tx, event } = this.setUp(() => {
      this.#readCid();
      const common = (index: number): { index: number; bufferSize: number; tableLength: number } => ({
        index,
        bufferSize,
        tableLength: 0,
        ...(queueSize === undefined ? {} : { size: queueSize }),
      });
      const count = (index: number): number => {
        const most = Math.min(queueSize ?? MAX_BUFFERS, transport.maxQueueSize(index));
        return Math.max(1, Math.min(buffers ?? DEFAULT_BUFFERS, most));
      };
      return {
        rx: this.createReceiveQueue({
          ...common(RX_QUEUE),
          buffers: count(RX_QUEUE),
          receive: () => this.#receive(),
          restarted: () => this.#forgetArrived(),
          always: true,
        }),
        tx: this.createTransmitQueue({ ...common(TX_QUEUE), buffers: count(TX_QUEUE) }),
        event: this.createReceiveQueue({
          index: EVENT_QUEUE,
          tableLength: 0,
          bufferSize: VsockEventLayout.size,
          buffers: Math.max(1, Math.min(EVENT_BUFFERS, transport.maxQueueSize(EVENT_QUEUE))),
          receive: () => this.#receiveEvents(),
          always: true,
        }),
      };
    });
    this.#rx = rx;
    this.#tx = tx;
    this.#event = event;
    this.#arrived = new Uint32Array(rx.buffers * 2);
    for (let n = 0; n < rx.buffers; n += 1) {
      this.#rxViews.push(viewOf(rx.buffer(n)));
      this.#rxData.push(NO_DATA);
    }
    for (let n = 0; n < tx.buffers; n += 1) this.#txViews.push(viewOf(tx.buffer(n)));
    this.start();
  }

  /** The context ID of this guest. It can change with a `transportReset`. */
  get guestCid(): number {
    return this.#guestCid;
  }

  /** Whether sockets of a {@link VsockType} can be used with this device. @see VIRTIO 1.4, 5.10.3.1 */
  supports(type: number): boolean {
    return type === VsockType.STREAM ? this.#streams : type === VsockType.SEQPACKET && this.#messages;
  }

  /** The number of packets that can be sent now. */
  get room(): number {
    this.#tx.drain();
    return this.#tx.available;
  }

  /** @internal The number of packets that can be sent if the device has none. */
  get mostRoom(): number {
    return this.#tx.buffers;
  }

  /**
   * Sends a packet if there is room now. `srcCid` is always the guest's, and `len` that of `data`.
   *
   * @returns false if there is no room
   * @throws {@link VirtioError} `INVALID_PARAM` if the data is longer than {@link VirtioSocket.maxData}, or why the device no longer
   * works
   */
  trySend(header: VsockHeader, data?: Uint8Array): boolean {
    this.#checkData(data);
    const number = this.#tx.take();
    if (number < 0) return false;
    this.sendBuffer(number, header, data, 0, data?.length ?? 0);
    this.kick();
    return true;
  }

  /** The same as {@link VirtioSocket.trySend}, waiting for room. Throws also `ABORTED`, `UNSUPPORTED` without interrupts. */
  async send(header: VsockHeader, data?: Uint8Array, options?: WaitOptions): Promise<void> {
    this.checkUsable();
    this.#checkData(data);
    requireWaitable(this.transport, options);
    while (!this.trySend(header, data)) await this.waitForRoom(options);
  }

  /** The same as {@link VirtioSocket.trySend}, spinning until there is room. Throws also `NOT_READY`. */
  sendSync(header: VsockHeader, data?: Uint8Array, options?: SpinOptions): void {
    this.#tx.spin(() => this.trySend(header, data), options, 'room for a packet');
  }

  /**
   * Calls `handler` with each received packet that was not handled yet. A {@link VsockConnectionManager} leaves none.
   *
   * @param handler receives the header and the data, both valid only during the call. An error that it throws ends `poll`; its packet was
   * handled
   * @param most the largest number of packets (default: all that were received)
   * @returns the number of packets handled
   * @throws {@link VirtioError} `INVALID_PARAM`, or why the device no longer works
   */
  poll(handler: (header: Readonly<VsockHeader>, data: Uint8Array) => void, most = Infinity): number {
    if (most !== Infinity) requireInteger(this.transport, 'most', most, 0, Number.MAX_SAFE_INTEGER);
    this.drain();
    this.checkUsable();
    const wanted = this.#handler === undefined ? Math.min(most, this.#arrivedCount) : 0;
    let count = 0;
    const take: Pick<PacketHandler, 'packet'> = {
      packet: (header, data, complete) => {
        if (complete) handler(header, data);
        return true;
      },
    };
    try {
      // The handler may attach a connection manager.
      while (count < wanted && this.#arrivedCount > 0 && this.#handler === undefined) {
        count += 1;
        this.#handleNext(take);
      }
    } finally {
      if (wanted > 0 && this.failure === undefined) this.#rx.kick();
    }
    return count;
  }

  /** Waits until there is a packet that was not handled yet. Throws `ABORTED`, `UNSUPPORTED`, or why the device no longer works. */
  async waitForPacket(options?: WaitOptions): Promise<void> {
    const turn = this.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it is told so, even if a packet came.
      requireWaitable(this.transport, options);
      this.drain();
      if (this.#arrivedCount > 0) return;
      await this.#rx.wait(options);
    }
  }

  /** The same as {@link VirtioSocket.waitForPacket}, spinning. Throws also `NOT_READY`. */
  waitForPacketSync(options?: SpinOptions): void {
    this.spin(() => this.#arrivedCount > 0, options, 'a packet');
  }

  override pollEvents(): void {
    super.pollEvents();
    this.drain();
  }

  /**
   * Hands all packets to a handler from now on.
   *
   * @internal
   * @throws {@link VirtioError} `ALREADY_USED` if there is one
   */
  attach(handler: PacketHandler): void {
    this.checkUsable();
    if (this.#handler !== undefined) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.transport.who()} already has a connection manager; use that one, or dispose it first`,
      );
    }
    this.#handler = handler;
  }

  /** @internal Undoes {@link VirtioSocket.attach}. */
  detach(handler: PacketHandler): void {
    if (this.#handler === handler) this.#handler = undefined;
  }

  /** @internal Takes received packets, and passes them to the handler. */
  drain(): void {
    if (this.failure !== undefined) return;
    if (this.#arrivedCount === 0 && this.#isQuiet()) {
      this.transport.look();
      return;
    }
    this.#event.drain();
    this.#rx.drain();
  }

  /** @internal A turn for other work, which a device that never stops sending would keep waiting; `undefined` if none is due. */
  fairTurn(): Promise<void> | undefined {
    return this.#rx.fairTurn();
  }

  /** Whether the device has sent nothing: a cheap check before looking for packets. */
  #isQuiet(): boolean {
    try {
      return !this.#rx.queue.hasUsed() && !this.#event.queue.hasUsed();
    } catch (error) {
      this.fail(error as VirtioError);
      return true;
    }
  }

  /**
   * @internal Takes a free transmit buffer: its number, or -1 if there is none or the device no longer works. It does not throw, as
   * packets are also sent by timers, of which nobody would catch an error; the connections have ended by then.
   */
  takeBuffer(): number {
    const resets = this.#resets;
    let number: number;
    try {
      number = this.#tx.take();
    } catch (error) {
      if (VirtioError.is(error)) return -1;
      throw error;
    }
    if (resets === this.#resets || number < 0) return number;
    // A listener has reset the driver: the buffer is one of the new life, in which there is nothing to send yet.
    this.#tx.putBack(number);
    return -1;
  }

  /** @internal Sends a buffer that was taken; the device sees it after {@link VirtioSocket.kick}. */
  sendBuffer(
    number: number,
    header: VsockHeader,
    data: Uint8Array | undefined,
    from: number,
    length: number,
  ): void {
    const view = this.#txViews[number] as DataView;
    header.srcCid = this.#guestCid;
    header.len = length;
    header.encode(view);
    if (data !== undefined && length > 0) {
      const isWhole = from === 0 && length === data.length;
      this.#tx.buffer(number).set(isWhole ? data : data.subarray(from, from + length), HEADER_SIZE);
    }
    this.#tx.send(number, HEADER_SIZE + length);
  }

  /** @internal Notifies the device of the buffers that were sent. */
  kick(): void {
    if (this.failure === undefined) this.#tx.kick();
  }

  /** @internal Waits until a buffer may be free. */
  waitForRoom(options?: WaitOptions): Promise<void> {
    return this.#tx.wait(options);
  }

  /** @internal Spins, handling received packets, until `done`. */
  spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void {
    const look = (): boolean => {
      this.drain();
      this.checkUsable();
      return done();
    };
    this.#rx.spin(look, options, awaited);
  }

  /** @internal The device broke the specification, and nothing was at risk. */
  sloppy(message: string): void {
    this.quirk(RX_QUEUE, message);
  }

  protected override onFailure(error: VirtioError): void {
    this.#forgetArrived();
    this.#handler?.failed(error);
  }

  protected override onReset(): void {
    this.#readCid();
  }

  /** The packets of the queue are lost, and their data: no connection can continue. */
  protected override onQueueReset(queue: VirtQueue): void {
    if (queue.index === EVENT_QUEUE) return;
    this.#handler?.queueReset(
      new VirtioError(
        'DEVICE_RESET',
        `${this.transport.who()}: queue ${queue.index} was reset, so packets of this connection may be lost; connect again`,
      ),
    );
  }

  #receive(): boolean {
    for (let number = this.#rx.pop(); number >= 0; number = this.#rx.pop()) {
      const { buffers } = this.#rx;
      const at = ((this.#arrivedHead + this.#arrivedCount) % buffers) * 2;
      this.#arrived[at] = number;
      this.#arrived[at + 1] = this.#rx.usedLength;
      this.#arrivedCount += 1;
    }
    this.resume();
    return this.#arrivedCount > 0;
  }

  /** @internal Passes on the packets that the handler deferred. */
  resume(): void {
    const handler = this.#handler;
    if (handler === undefined || this.#dispatching || this.#arrivedCount === 0) return;
    this.#dispatching = true;
    try {
      while (this.#arrivedCount > 0 && this.#handler === handler && this.#handleNext(handler));
    } finally {
      this.#dispatching = false;
      if (this.failure === undefined) this.#rx.kick();
    }
  }

  /**
   * Handles the oldest received packet and gives its buffer back, unless the handler defers it. The packet is taken before that, as the
   * handler may poll for the next one.
   */
  #handleNext(handler: Pick<PacketHandler, 'packet'>): boolean {
    const { buffers } = this.#rx;
    const at = this.#arrivedHead * 2;
    const number = this.#arrived[at] as number;
    const used = this.#arrived[at + 1] as number;
    this.#arrivedHead = (this.#arrivedHead + 1) % buffers;
    this.#arrivedCount -= 1;
    const resets = this.#resets;
    let isHandled = true;
    try {
      isHandled = this.#handle(handler, number, used);
    } finally {
      // Whoever handled it may have reset or disposed the driver.
      if (resets === this.#resets && this.failure === undefined) {
        if (isHandled) this.#giveBack(number);
        else this.#putBack(number, used);
      } else {
        isHandled = false;
      }
    }
    return isHandled;
  }

  /** Hands a packet to a handler. Returns false if it must wait. */
  #handle(handler: Pick<PacketHandler, 'packet'>, number: number, used: number): boolean {
    const header = this.#header ?? new VsockHeader();
    this.#header = undefined;
    try {
      if (used < HEADER_SIZE) {
        this.sloppy(`a packet has ${used} bytes, fewer than the ${HEADER_SIZE} of its header`);
        return true;
      }
      if (!header.decode(this.#rxViews[number] as DataView)) {
        this.sloppy('the upper half of a CID is not zero');
        return true;
      }
      const there = used - HEADER_SIZE;
      if (header.len !== there) {
        this.sloppy(`a packet of ${used} bytes claims to have ${HEADER_SIZE} + ${header.len}`);
      }
      const data = this.#dataOf(number, Math.min(header.len, there));
      return handler.packet(header, data, header.len <= there);
    } finally {
      this.#header = header;
    }
  }

  #giveBack(number: number): void {
    // There are devices that give a buffer back without writing to it: they must not repeat an old packet. Nobody has the CID 0.
    (this.#rxViews[number] as DataView).setUint32(VsockHdr.offset.dst_cid, 0, true);
    this.#rx.repost(number);
  }

  /** Makes a packet the oldest one again. */
  #putBack(number: number, used: number): void {
    const { buffers } = this.#rx;
    this.#arrivedHead = (this.#arrivedHead + buffers - 1) % buffers;
    this.#arrivedCount += 1;
    this.#arrived[this.#arrivedHead * 2] = number;
    this.#arrived[this.#arrivedHead * 2 + 1] = used;
  }

  #dataOf(number: number, length: number): Uint8Array {
    const last = this.#rxData[number] as Uint8Array;
    if (last.length === length) return last;
    const data = this.#rx.buffer(number).subarray(HEADER_SIZE, HEADER_SIZE + length);
    this.#rxData[number] = data;
    return data;
  }

  #forgetArrived(): void {
    this.#resets += 1;
    this.#arrivedHead = 0;
    this.#arrivedCount = 0;
  }

  #receiveEvents(): boolean {
    let resets = 0;
    this.#event.poll((bytes) => {
      if (bytes.length < VsockEventLayout.size) {
        this.quirk(EVENT_QUEUE, `an event has ${bytes.length} bytes, fewer than ${VsockEventLayout.size}`);
        return;
      }
      const id = viewOf(bytes).getUint32(VsockEventLayout.offset.id, true);
      if (id === VsockEventId.TRANSPORT_RESET) resets += 1;
      else this.quirk(EVENT_QUEUE, `the device reports event ${id}, which is unknown`);
    });
    if (resets > 0) {
      this.#readCid();
      this.#handler?.transportReset();
      this.emit('transportReset', this.#guestCid);
    }
    return resets > 0;
  }

  /** 5.10.4: the upper half is reserved and zero, and some values of the lower half are reserved. */
  #readCid(): void {
    const { transport } = this;
    const { guest_cid: low, guest_cid_high: high } = VsockConfig.fields;
    const [cid, upper] = transport.readConsistent(() => [
      transport.readConfigSpace(low),
      transport.readConfigSpace(high),
    ]);
    if (upper !== 0 || RESERVED_CIDS.includes(cid)) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} has the guest CID 0x${(upper * 2 ** 32 + cid).toString(16)}, which is reserved; ` +
          'give the device a CID of 3 or more',
      );
    }
    this.#guestCid = cid;
  }

  #checkData(data: Uint8Array | undefined): void {
    if (data === undefined) return;
    requireBytes(this.transport, data);
    requireInteger(this.transport, 'the length of the data', data.length, 0, this.maxData);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
