/**
 * One connection to a back end, from its first message to its last: what was negotiated, and how the back end was set up. A new
 * connection begins with nothing.
 */
import { VirtioError } from '@virtio/core';
import type { EventPoller, UnixSocket } from '@virtio/linux';
import {
  type InflightRecord,
  parseConfig,
  parseCount,
  parseInflight,
  parseU64,
  parseVringState,
} from './answers.ts';
import { backendChannel } from './backend-channel.ts';
import { Channel, type Pending } from './channel.ts';
import type { BackendDisplay } from './display.ts';
import { displayChannel } from './display-channel.ts';
import { INFLIGHT_FEATURE, SUPPORTED_PROTOCOL_FEATURES } from './features.ts';
import type { Region } from './memory.ts';
import {
  ConfigAccess,
  encode,
  type FrontendRequestName,
  Inflight,
  MAX_CONFIG,
  MAX_TABLE_REGIONS,
  MAX_VRINGS,
  MemoryRegion,
  MemoryTable,
  PROTOCOL_FEATURES_BIT,
  protocolMask,
  type ProtocolFeatureName,
  SingleRegion,
  U64,
  VringState,
} from './protocol.ts';
import type { SideChannel } from './side-channel.ts';

const NOTHING = new Uint8Array(0);
/** The offset of the number of scanouts in the configuration space of a GPU device. @see VIRTIO 1.4, 5.7.4 */
const NUM_SCANOUTS = 8;

/** Options of {@link Session}. */
export interface SessionOptions {
  readonly who: string;
  readonly timeoutMs: number;
  /** Whether the transport is to reconnect. */
  readonly reconnect: boolean;
  /** Closes the session. */
  readonly signal: AbortSignal;
  /** Sizes of the configuration space to try, the largest first. */
  readonly configSizes: readonly number[];
  /** The display of a GPU device. */
  readonly display: BackendDisplay | undefined;
  readonly onConfigChange: (session: Session) => void;
  /** Called when the connection is lost, unless it was disposed. */
  readonly onLost: (session: Session, error: VirtioError) => void;
}

/** A connection to a back end. */
export class Session implements Disposable {
  /** All feature bits that the back end offers for its device. */
  features = 0n;
  /** The negotiated features of the protocol. */
  protocol = 0n;
  /** The number of vrings, if the back end reports it. */
  queues: number | undefined;
  /** How many regions of memory the back end can have. */
  slots: number = MAX_TABLE_REGIONS;
  /** The configuration space, empty if the back end has none. */
  config: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  /** Whether the back end has the vrings. */
  live = false;

  readonly #options: SessionOptions;
  readonly #channel: Channel;
  /** Sockets on which the back end sends requests. */
  readonly #sides: SideChannel[] = [];
  /** The regions that the back end has. */
  readonly #regions = new Set<Region>();
  /** Requests that were sent and whose answers were not checked yet. */
  #batch: { readonly pending: Pending<bigint>; readonly what: string }[] = [];

  private constructor(socket: UnixSocket, poller: EventPoller, options: SessionOptions) {
    this.#options = options;
    this.#channel = new Channel(socket, poller, {
      who: options.who,
      timeoutMs: options.timeoutMs,
      onLost: (error) => {
        this.#end();
        options.onLost(this, error);
      },
    });
    options.signal.addEventListener('abort', this.#close);
  }

  /**
   * Opens a session: negotiates with a back end and reads what it has.
   *
   * @throws {@link VirtioError} the reason why the connection was lost
   */
  static async open(socket: UnixSocket, poller: EventPoller, options: SessionOptions): Promise<Session> {
    let session: Session | undefined;
    try {
      // It may have been closed after the connection was made.
      if (options.signal.aborted) {
        throw new VirtioError('DISPOSED', `the connection to ${options.who} is closed`);
      }
      session = new Session(socket, poller, options);
      await session.#greet(poller);
      return session;
    } catch (error) {
      session?.[Symbol.dispose]();
      socket[Symbol.dispose]();
      throw error;
    }
  }

  /** Why the connection is gone, if it is. */
  get lost(): VirtioError | undefined {
    return this.#channel.lost;
  }

  /** Whether the back end has said anything. */
  get heard(): boolean {
    return this.#channel.heard;
  }

  /** Whether a feature of the protocol was negotiated. */
  has(feature: ProtocolFeatureName): boolean {
    return (this.protocol & protocolMask(feature)) !== 0n;
  }

  /** Receives what has arrived, for callers that run no event loop. */
  pump(): void {
    for (const side of this.#sides) side.pump();
    this.#channel.pump();
  }

  /**
   * Sends a request. {@link Session.finish} throws if the back end refused it, provided that it can acknowledge requests.
   *
   * @param what for the message of an error: `SET_VRING_NUM of queue 1`
   */
  tell(
    name: FrontendRequestName,
    payload: Uint8Array,
    descriptors: readonly number[] = [],
    what: string = name,
  ): void {
    if (!this.has('REPLY_ACK')) this.#channel.send(name, payload, descriptors);
    else this.#batch.push({ pending: this.#channel.confirm(name, payload, descriptors), what });
  }

  /** Sends a request that needs no acknowledgement. */
  mention(name: FrontendRequestName, payload: Uint8Array): void {
    this.#channel.send(name, payload);
  }

  /**
   * Waits synchronously until all requests that were sent are done. A back end that cannot acknowledge requests is sent one that it
   * answers, which it does after those before.
   *
   * @throws {@link VirtioError} `IO_ERROR` for a request that it refused, or the reason why the connection was lost
   */
  finish(): void {
    const batch = this.#takeBatch();
    this.#channel.settle(batch.map(({ pending }) => pending));
    this.#check(batch);
  }

  /** The same as {@link Session.finish}, with a promise. */
  async finished(): Promise<void> {
    const batch = this.#takeBatch();
    for (const { pending } of batch) await pending.answer();
    this.#check(batch);
  }

  /** Sends the back end all memory regions that it does not have yet. */
  tellMemory(regions: readonly Region[]): void {
    if (regions.length > this.slots) {
      throw new VirtioError(
        'DMA_ERROR',
        `${this.#options.who} can map at most ${this.slots} regions of memory, and there are ${regions.length}; ` +
          'open the device with a larger memorySize',
      );
    }
    if (this.has('CONFIGURE_MEM_SLOTS')) {
      for (const region of regions) {
        if (this.#regions.has(region)) continue;
        this.#regions.add(region);
        this.tell('ADD_MEM_REG', encode(SingleRegion, fields(region)), [region.file.fd]);
      }
      return;
    }
    if (regions.length === this.#regions.size && regions.every((region) => this.#regions.has(region))) return;
    this.#regions.clear();
    const payload = new Uint8Array(MemoryTable.size + regions.length * MemoryRegion.size);
    const view = new DataView(payload.buffer);
    MemoryTable.write(view, 0, { regions: regions.length });
    regions.forEach((region, i) => {
      this.#regions.add(region);
      MemoryRegion.write(view, MemoryTable.size + i * MemoryRegion.size, fields(region));
    });
    this.tell(
      'SET_MEM_TABLE',
      payload,
      regions.map(({ file }) => file.fd),
    );
  }

  /** Removes a region from the back end, synchronously. `rest` are those that remain. */
  removeMemory(region: Region, rest: readonly Region[]): void {
    if (!this.#regions.has(region)) return;
    if (this.has('CONFIGURE_MEM_SLOTS')) {
      this.#regions.delete(region);
      this.tell('REM_MEM_REG', encode(SingleRegion, fields(region)));
    } else {
      this.tellMemory(rest);
    }
    this.finish();
  }

  /** Stops vrings, synchronously. Returns the base of each: where the back end would go on. */
  stopVrings(indices: readonly number[]): number[] {
    const pending = indices.map((index) =>
      this.#channel.ask('GET_VRING_BASE', encode(VringState, { index }), parseVringState(index)),
    );
    this.#channel.settle(pending);
    return pending.map((one) => one.take());
  }

  /** Asks for the configuration space. */
  askConfig(size: number = this.config.length): Pending<Uint8Array<ArrayBuffer>> {
    const payload = new Uint8Array(ConfigAccess.size + size);
    ConfigAccess.write(new DataView(payload.buffer), 0, { size });
    const parse = parseConfig(size);
    return this.#channel.ask('GET_CONFIG', payload, (message) => {
      const config = parse(message);
      // The front end knows the number of displays.
      const { display } = this.#options;
      if (display !== undefined && config.length >= NUM_SCANOUTS + 4) {
        new DataView(config.buffer).setUint32(NUM_SCANOUTS, display.displays.length, true);
      }
      return config;
    });
  }

  /** Asks for the device status. */
  askStatus(): Pending<bigint> {
    return this.#channel.ask('GET_STATUS', NOTHING, parseU64);
  }

  /** Asks for memory in which the back end records requests in flight. */
  askInflight(queues: number, queueSize: number): Pending<InflightRecord | undefined> {
    return this.#channel.ask('GET_INFLIGHT_FD', encode(Inflight, { queues, queueSize }), parseInflight);
  }

  /** Waits synchronously for the answer to one request. */
  wait<T>(pending: Pending<T>): T {
    this.#channel.settle([pending]);
    return pending.take();
  }

  /** Ends the connection for a reason. */
  lose(error: VirtioError): void {
    this.#channel.lose(error);
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#channel[Symbol.dispose]();
  }

  readonly #close = (): void => {
    this[Symbol.dispose]();
  };

  #end(): void {
    this.live = false;
    this.#options.signal.removeEventListener('abort', this.#close);
    for (const side of this.#sides) side[Symbol.dispose]();
  }

  async #greet(poller: EventPoller): Promise<void> {
    const { reconnect, configSizes, display } = this.#options;
    const channel = this.#channel;
    this.features = await channel.ask('GET_FEATURES', NOTHING, parseU64).answer();
    if ((this.features & PROTOCOL_FEATURES_BIT) !== 0n) {
      const offered = await channel.ask('GET_PROTOCOL_FEATURES', NOTHING, parseU64).answer();
      const wanted = SUPPORTED_PROTOCOL_FEATURES | (reconnect ? INFLIGHT_FEATURE : 0n);
      const protocol = offered & wanted;
      channel.send('SET_PROTOCOL_FEATURES', encode(U64, { value: protocol }));
      this.protocol = protocol;
    }
    channel.send('SET_OWNER', NOTHING);
    if (this.has('MQ')) {
      this.queues = await channel.ask('GET_QUEUE_NUM', NOTHING, parseCount(MAX_VRINGS)).answer();
    }
    if (this.has('CONFIGURE_MEM_SLOTS')) {
      const slots = await channel.ask('GET_MAX_MEM_SLOTS', NOTHING, parseCount(0xffff)).answer();
      this.slots = Math.max(1, slots);
    }
    if (this.has('BACKEND_REQ')) {
      const asking = backendChannel(poller, this.has('REPLY_ACK'), () => this.#options.onConfigChange(this));
      await this.#handOver('SET_BACKEND_REQ_FD', asking);
    }
    if (display !== undefined) await this.#handOver('GPU_SET_SOCKET', displayChannel(poller, display));
    if (!this.has('CONFIG')) return;
    for (const size of configSizes) {
      this.config = await this.askConfig(Math.min(size, MAX_CONFIG)).answer();
      if (this.config.length > 0) return;
    }
  }

  /** Gives the back end its end of a socket on which it sends requests. */
  async #handOver(request: FrontendRequestName, side: SideChannel): Promise<void> {
    this.#sides.push(side);
    this.#channel.lookAfter(side);
    this.tell(request, NOTHING, [side.theirs]);
    await this.finished();
    side.handedOver();
  }

  #takeBatch(): { readonly pending: Pending<bigint>; readonly what: string }[] {
    const batch = this.#batch;
    this.#batch = [];
    if (!this.has('REPLY_ACK')) {
      // Only the arrival of the answer matters, not its value.
      const ask = this.#channel.ask('GET_FEATURES', NOTHING, () => 0n);
      batch.push({ pending: ask, what: 'GET_FEATURES' });
    }
    return batch;
  }

  #check(batch: readonly { readonly pending: Pending<bigint>; readonly what: string }[]): void {
    for (const { pending, what } of batch) {
      const answer = pending.take();
      if (answer === 0n) continue;
      throw new VirtioError(
        'IO_ERROR',
        `${this.#options.who} refused ${what} (it answered ${answer}); see the back end's messages`,
      );
    }
  }
}

function fields({
  address,
  file,
}: Region): Record<'guestAddress' | 'userAddress' | 'size' | 'mmapOffset', bigint> {
  return {
    guestAddress: BigInt(address),
    userAddress: BigInt(address),
    size: BigInt(file.size),
    mmapOffset: 0n,
  };
}
