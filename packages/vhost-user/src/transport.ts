/**
 * The transport of a device in another process.
 *
 * What the driver sets up is kept here and told to the back end when the driver is ready, and once more to a back end that comes
 * back after a loss. The device status is kept here, too, as many back ends have none. What core's `Transport` does in place
 * (negotiation, going live, reset, configuration after a write) waits for the back end in place, as long as its time-out
 * allows and no longer; nothing else waits.
 */
import { closeSync, readSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import {
  DeviceStatus,
  DeviceType,
  Feature,
  InterruptStatus,
  type QueueSignals,
  type SharedMemory,
  Transport,
  VirtioError,
} from '@virtio/core';
import type { EventPoller } from '@virtio/linux';
import type { InflightRecord } from './answers.ts';
import type { Pending } from './channel.ts';
import type { Dialer } from './dial.ts';
import { visibleFeatures } from './features.ts';
import { VhostUserInterrupts } from './interrupts.ts';
import type { VhostMemory } from './memory.ts';
import {
  ConfigAccess,
  encode,
  Inflight,
  InflightPacked,
  MAX_VRINGS,
  PROTOCOL_FEATURES_BIT,
  U64,
} from './protocol.ts';
import { Session, type SessionOptions } from './session.ts';
import { Vring, VringLines } from './vring.ts';

const { DRIVER_OK, FEATURES_OK, DEVICE_NEEDS_RESET } = DeviceStatus;
const NOTHING = new Uint8Array(0);
const STATUS_GONE = 0xff;
const PACKED = 1n << BigInt(Feature.RING_PACKED);
/** A packed vring begins at 0 with both wrap counters set: the driver's in the lower half, the device's in the upper one. */
const PACKED_START = 0x80008000;
/** Pauses between attempts to greet a back end that is back and does not answer as it should. */
const RETRY_MS = 20;
const LONGEST_RETRY_MS = 1000;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/**
 * The first queue of which all buffers are requests that the device answers by itself. Before a reset these are waited for, as
 * libvhost-user, once told to stop, breaks at the next completion and goes on writing to buffers. Buffers to receive into cannot be
 * waited for.
 */
const REQUEST_QUEUES: Readonly<Partial<Record<DeviceType, number>>> = {
  [DeviceType.Block]: 0,
  [DeviceType.FileSystem]: 0,
  [DeviceType.P9]: 0,
  [DeviceType.Crypto]: 0,
  [DeviceType.Gpu]: 0,
  [DeviceType.I2cAdapter]: 0,
  [DeviceType.ScsiHost]: 2,
};

function firstRequestQueue(deviceType: DeviceType): number {
  return REQUEST_QUEUES[deviceType] ?? Infinity;
}

/** What a {@link VhostUserTransport} is made with. */
export interface VhostUserTransportOptions {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly poller: EventPoller;
  readonly dialer: Dialer;
  readonly memory: VhostMemory;
  readonly timeoutMs: number;
  readonly reconnect: boolean;
  readonly polling: boolean;
  readonly spinUs: number;
  readonly maxQueueSize: number;
  readonly queues: number | undefined;
  readonly config: Uint8Array | undefined;
  readonly configSizes: readonly number[];
}

/** The way to a device in another process. */
export class VhostUserTransport extends Transport {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly interrupts: VhostUserInterrupts;

  readonly #options: VhostUserTransportOptions;
  readonly #poller: EventPoller;
  readonly #memory: VhostMemory;
  readonly #vrings = new Map<number, Vring>();
  /** By queue. */
  readonly #lines = new Map<number, VringLines>();
  readonly #closing = new AbortController();
  #session: Session | undefined;
  /** The next session, which may have the vrings already, and whose answers are still waited for. */
  #coming: Session | undefined;
  /** Why there is no session, and whether none will come. */
  #lost: VirtioError | undefined;
  #gone = false;
  #connected: PromiseWithResolvers<void> | undefined;
  #status = 0;
  #needsReset: string | undefined;
  /** What the driver accepted. */
  #accepted = 0n;
  /** What the back end offered last; also while it is away. */
  #offered = 0n;
  #slots = 1;
  #queues: number | undefined;
  #config: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  #generation = 0;
  /** The configuration was written: what it is now is known only after it was read. */
  #configUnknown = false;
  /** The configuration is being asked for after a change. */
  #refresh: Pending<Uint8Array<ArrayBuffer>> | undefined;
  #changedAgain = false;
  /** There was a change that {@link VhostUserTransport.ackInterrupt} has not told. */
  #untold = false;
  #inflight: InflightRecord | undefined;
  /** Changes with all that a back end is told of. */
  #epoch = 0;
  #reconnecting = false;
  /** Whether a back end has had the vrings since the last reset. */
  #served = false;
  #disposed = false;

  private constructor(options: VhostUserTransportOptions) {
    super();
    this.#options = options;
    this.deviceType = options.deviceType;
    this.name = options.name;
    this.#poller = options.poller;
    this.#memory = options.memory;
    this.interrupts = new VhostUserInterrupts(options.poller, options.polling, options.spinUs);
  }

  /**
   * Connects to a back end. The event loop is kept alive meanwhile.
   *
   * @internal use `openVhostUser`
   */
  static async open(options: VhostUserTransportOptions, signal: AbortSignal): Promise<VhostUserTransport> {
    const transport = new VhostUserTransport(options);
    options.poller.hold();
    try {
      const socket = await options.dialer.dial(false, signal);
      const session = await Session.open(socket, options.poller, transport.#sessionOptions);
      transport.#take(session);
      transport.#listenToMemory();
      return transport;
    } finally {
      options.poller.release();
    }
  }

  /** Whether the back end is there now. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Waits until the back end is there and knows all that the driver set up. Keeps the event loop alive.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED` if it is gone and no new one is waited for, `DISPOSED`
   */
  async whenConnected(): Promise<void> {
    if (this.#disposed) throw this.#disposedError();
    if (this.#session !== undefined) return;
    if (this.#gone) throw this.removed();
    this.#connected ??= Promise.withResolvers();
    this.#poller.hold();
    try {
      await this.#connected.promise;
    } finally {
      this.#poller.release();
    }
  }

  readDeviceFeatures(): bigint {
    return visibleFeatures(this.deviceType, this.#offered, this.#config.length > 0);
  }

  writeDriverFeatures(features: bigint): void {
    this.#accepted = features;
  }

  maxQueueSize(queue: number): number {
    return queue < this.#vringCount ? this.#options.maxQueueSize : 0;
  }

  notify(queue: number): void {
    this.#vrings.get(queue)?.kick();
  }

  getStatus(): DeviceStatus {
    this.#session?.pump();
    if (this.#gone) return DeviceStatus.from(STATUS_GONE);
    return DeviceStatus.from(this.#status | (this.#needsReset === undefined ? 0 : DEVICE_NEEDS_RESET));
  }

  setStatus({ bits }: DeviceStatus): void {
    if (bits === 0) {
      this.#reset();
      return;
    }
    if (this.#gone) return;
    this.#epoch += 1;
    const added = bits & ~this.#status;
    const session = this.#session;
    if (session === undefined) {
      this.#status = bits;
      return;
    }
    if ((added & FEATURES_OK) !== 0 && !this.#negotiate(session, bits)) return;
    // The back end may be lost on the way, and its successor is told all that is in the status.
    this.#status = bits;
    if ((added & DRIVER_OK) !== 0) this.#start(session);
    else if ((added & FEATURES_OK) === 0) this.#mentionStatus(session);
  }

  setGuestPageSize(): void {
    // For legacy MMIO.
  }

  requiresLegacyLayout(): boolean {
    return false;
  }

  queueSet(queue: number, size: number, descriptors: number, driverArea: number, deviceArea: number): void {
    this.#epoch += 1;
    this.#vrings.get(queue)?.[Symbol.dispose]();
    const { interrupts } = this;
    const place = { index: queue, size, descriptors, driverArea, deviceArea };
    const lines = this.#lines.get(queue) ?? new VringLines();
    this.#lines.set(queue, lines);
    const vring = new Vring(place, this.#poller, lines, {
      onCall: interrupts.polling ? undefined : () => interrupts.fire(queue),
      onError: () => this.#needReset(`reported an error of queue ${queue}`),
    });
    this.#vrings.set(queue, vring);
  }

  queueUnset(queue: number): void {
    // The back end lets go of a vring at a reset only.
    if (this.#session?.live === true) return;
    this.#vrings.get(queue)?.[Symbol.dispose]();
    this.#vrings.delete(queue);
  }

  queueUsed(queue: number): boolean {
    return this.#vrings.has(queue);
  }

  override lendQueue(queue: number): QueueSignals {
    const vring = this.#vrings.get(queue);
    if (vring === undefined) return super.lendQueue(queue);
    const { kick, call } = vring.lend();
    return { doorbell: { kind: 'descriptor', descriptor: kick }, interrupt: call };
  }

  queueReset(queue: number): void {
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.who()} cannot reset queue ${queue} alone: vhost-user has no request for it; reset the device`,
    );
  }

  ackInterrupt(): InterruptStatus {
    this.#session?.pump();
    const { interrupts } = this;
    if (this.#refresh !== undefined) this.#finishRefresh(this.#refresh);
    const told = this.#untold || this.#gone || this.#needsReset !== undefined;
    this.#untold = false;
    const queues = interrupts.polling ? InterruptStatus.QUEUE_INTERRUPT : 0;
    return InterruptStatus.from(queues | (told ? InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT : 0));
  }

  readConfigGeneration(): number {
    return this.#generation;
  }

  get configSize(): number {
    return this.#config.length;
  }

  readConfig(offset: number, width: 1 | 2 | 4): number {
    const session = this.#session;
    if (this.#configUnknown && session !== undefined) {
      this.#configUnknown = false;
      const config = session.wait(session.askConfig());
      if (config.length === this.#config.length) this.#config = config;
    }
    this.#checkConfig(offset, width);
    let value = 0;
    for (let i = 0; i < width; i += 1) value += (this.#config[offset + i] as number) * 2 ** (8 * i);
    return value;
  }

  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#checkConfig(offset, width);
    const session = this.#session;
    if (session === undefined) {
      throw new VirtioError(
        'NOT_READY',
        `${this.who()}: its configuration cannot be written while the back end is away; wait for whenConnected()`,
      );
    }
    if (!session.has('CONFIG')) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()}: the back end has no configuration that could be written`,
      );
    }
    const payload = new Uint8Array(ConfigAccess.size + width);
    ConfigAccess.write(new DataView(payload.buffer), 0, { offset, size: width });
    for (let i = 0; i < width; i += 1) payload[ConfigAccess.size + i] = Math.floor(value / 2 ** (8 * i));
    session.tell('SET_CONFIG', payload, [], `SET_CONFIG of ${width} bytes at ${offset}`);
    session.finish();
    this.#configUnknown = true;
  }

  sharedMemory(): SharedMemory | undefined {
    // SHMEM, which would have it, is no feature of the protocol yet that back ends in use have.
    return undefined;
  }

  override removed(): VirtioError {
    return new VirtioError('DEVICE_REMOVED', this.#lost?.message ?? `${this.who()} is no longer there`, {
      cause: this.#lost,
    });
  }

  override checkAlive(): void {
    const reason = this.#needsReset;
    if (reason === undefined || this.#gone) {
      super.checkAlive();
      return;
    }
    throw new VirtioError(
      'DEVICE_NEEDS_RESET',
      `${this.who()} ${reason}; whether requests in flight were carried out is not known. Call the driver's reset()`,
    );
  }

  /** Ends the connection. A back end that serves vrings is stopped first, if it answers. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (!this.#gone) this.#reset();
    this.#closing.abort();
    this.#connected?.reject(this.#disposedError());
    this.#connected?.promise.catch(() => undefined);
    this.#gone = true;
    this.#lost ??= this.#disposedError();
    this.#session?.[Symbol.dispose]();
    this.#session = undefined;
    this.#dropVrings();
    for (const lines of this.#lines.values()) lines[Symbol.dispose]();
    this.#lines.clear();
    this.#memory.listener = undefined;
    this.#options.dialer[Symbol.dispose]();
  }

  #listenToMemory(): void {
    const slots = (): number => this.#session?.slots ?? this.#slots;
    this.#memory.listener = {
      get slots() {
        return slots();
      },
      added: (region) => {
        this.#epoch += 1;
        const session = this.#session;
        if (session?.live !== true) return;
        session.tellMemory([...this.#memory.regions, region]);
        session.finish();
      },
      removed: (region, rest) => {
        this.#epoch += 1;
        this.#session?.removeMemory(region, rest);
      },
    };
  }

  get #sessionOptions(): SessionOptions {
    return {
      who: this.who(),
      timeoutMs: this.#options.timeoutMs,
      reconnect: this.#options.reconnect,
      signal: this.#closing.signal,
      configSizes: this.#options.configSizes,
      onConfigChange: (session) => {
        if (session === this.#session) this.#configChange(session);
      },
      onLost: (session, error) => {
        if (session === this.#session) this.#lose(error);
      },
    };
  }

  get #vringCount(): number {
    const { queues } = this.#options;
    if (queues !== undefined) return queues;
    if (this.#queues === undefined) return MAX_VRINGS;
    // Of a network device the back end counts pairs, each of a queue to receive and one to transmit.
    return Math.min(MAX_VRINGS, this.deviceType === DeviceType.Network ? 2 * this.#queues : this.#queues);
  }

  #take(session: Session): void {
    this.#session = session;
    this.#coming = undefined;
    this.#lost = undefined;
    this.#configUnknown = false;
    this.#offered = session.features;
    this.#slots = session.slots;
    this.#queues = session.queues;
    this.#config = session.config.length > 0 ? session.config : Uint8Array.from(this.#options.config ?? []);
  }

  /** Tells the back end the features. Returns whether it accepts them. */
  #negotiate(session: Session, bits: number): boolean {
    try {
      this.#tellFeatures(session);
      session.finish();
      if (!session.has('STATUS')) return true;
      session.mention('SET_STATUS', encode(U64, { value: BigInt(bits) }));
      return (session.wait(session.askStatus()) & BigInt(FEATURES_OK)) !== 0n;
    } catch (error) {
      // That the connection is lost is seen in the status.
      if (VirtioError.is(error) && (error.code === 'IO_ERROR' || session.lost !== undefined)) return false;
      throw error;
    }
  }

  #tellFeatures(session: Session): void {
    const value = this.#accepted | (session.features & PROTOCOL_FEATURES_BIT);
    session.tell('SET_FEATURES', encode(U64, { value }));
  }

  #mentionStatus(session: Session): void {
    if (session.has('STATUS')) session.mention('SET_STATUS', encode(U64, { value: BigInt(this.#status) }));
  }

  /** The driver is ready: the back end gets all that it set up. */
  #start(session: Session): void {
    try {
      if (session.has('INFLIGHT_SHMFD')) this.#inflight = session.wait(this.#askInflight(session));
      this.#tellAll(session, false);
      session.finish();
      this.#served = true;
    } catch (error) {
      if (session.lost === undefined) throw error;
      // With a successor to come nothing has happened yet.
      if (this.#gone) throw this.removed();
    }
  }

  #askInflight(session: Session): Pending<InflightRecord> {
    const places = [...this.#vrings.values()].map(({ place }) => place);
    const queues = Math.max(0, ...places.map(({ index }) => index + 1));
    const size = Math.max(0, ...places.map(({ size: one }) => one));
    return session.askInflight(queues, size);
  }

  /** @param resumed whether another back end has served the vrings before */
  #tellAll(session: Session, resumed: boolean): void {
    const vrings = [...this.#vrings.values()];
    if (this.#inflight !== undefined) {
      const { mmapSize, mmapOffset, fd } = this.#inflight;
      const places = vrings.map(({ place }) => place);
      const record = {
        mmapSize,
        mmapOffset,
        queues: Math.max(0, ...places.map(({ index }) => index + 1)),
        queueSize: Math.max(0, ...places.map(({ size }) => size)),
      };
      session.tell('SET_INFLIGHT_FD', encode(Inflight, record), [fd]);
    }
    session.tellMemory(this.#memory.regions);
    session.live = true;
    for (const vring of vrings) vring.tell(session, this.#base(vring, resumed));
    if ((session.features & PROTOCOL_FEATURES_BIT) !== 0n) {
      for (const vring of vrings) vring.enable(session);
    }
    this.#mentionStatus(session);
  }

  /** Where a back end begins with a vring. */
  #base(vring: Vring, resumed: boolean): number {
    const packed = (this.#accepted & PACKED) !== 0n;
    if (!resumed) return packed ? PACKED_START : 0;
    if (packed) return this.#packedBase(vring);
    // It takes from its record what was in flight, and goes on behind it.
    return this.#ringIndex(vring.place.deviceArea) ?? 0;
  }

  /** The index of a split ring, available or used. */
  #ringIndex(area: number): number | undefined {
    const ring = this.#memory.at(area, 4);
    return ring && Atomics.load(new Uint16Array(ring.buffer, ring.byteOffset, 2), 1);
  }

  /** A packed ring does not show how far it was used; the record of requests in flight does. */
  #packedBase({ place: { index } }: Vring): number {
    const record = this.#inflight;
    if (record === undefined) return PACKED_START;
    const queues = Math.max(...[...this.#vrings.keys()].map((one) => one + 1));
    const at = Number(record.mmapOffset) + index * Math.floor(Number(record.mmapSize) / queues);
    const bytes = new Uint8Array(InflightPacked.size);
    // Read, not mapped: the file is the back end's, and may be cut short at any time.
    readSync(record.fd, bytes, 0, bytes.length, at);
    const { oldUsedIndex, oldUsedWrapCounter } = InflightPacked.read(new DataView(bytes.buffer));
    const half = (oldUsedIndex & 0x7fff) | (oldUsedWrapCounter === 0 ? 0 : 0x8000);
    return half * 65536 + half;
  }

  #reset(): void {
    this.#epoch += 1;
    const session = this.#session ?? this.#coming;
    if (session?.live === true) {
      try {
        this.#stop(session);
      } catch (error) {
        // What matters is whether the back end still has the memory: a lost one has not, any other is let go.
        if (session.lost === undefined) session.lose(error as VirtioError);
      }
    } else if (session !== undefined && this.#status !== 0 && session.has('STATUS')) {
      session.mention('SET_STATUS', encode(U64, { value: 0n }));
    }
    if (this.#gone) return;
    this.#dropVrings();
    this.#status = 0;
    this.#served = false;
    this.#accepted = 0n;
    this.#needsReset = undefined;
  }

  /** Takes the vrings from the back end, in place, when it has finished what it had taken from them. */
  #stop(session: Session): void {
    const vrings = [...this.#vrings.values()];
    const split = (this.#accepted & PACKED) === 0n;
    // After an error it may never finish.
    if (split && this.#needsReset === undefined) {
      const requests = vrings.filter(({ place }) => place.index >= firstRequestQueue(this.deviceType));
      for (const vring of requests) vring.kick();
      for (const vring of requests) {
        this.#drain(session, vring, () => this.#ringIndex(vring.place.driverArea));
      }
    }
    const bases = session.stopVrings(vrings.map(({ place }) => place.index));
    session.live = false;
    // The base is where it would go on: what lies before was taken, and may still be written to.
    if (split) vrings.forEach((vring, i) => this.#drain(session, vring, () => bases[i]));
    if (session.has('RESET_DEVICE')) session.tell('RESET_DEVICE', NOTHING);
    if (session.has('STATUS')) session.mention('SET_STATUS', encode(U64, { value: 0n }));
    session.finish();
  }

  /** Waits in place until the used index of a split vring is `taken()`: nothing of it is in flight. */
  #drain(session: Session, vring: Vring, taken: () => number | undefined): void {
    const deadline = Date.now() + this.#options.timeoutMs;
    for (;;) {
      const to = taken();
      const used = this.#ringIndex(vring.place.deviceArea);
      const left = used === undefined || to === undefined ? 0 : (to - used) & 0xffff;
      // A base that cannot be is nothing to wait for.
      if (left === 0 || left > vring.place.size) return;
      session.pump();
      if (session.lost !== undefined) throw session.lost;
      if (Date.now() >= deadline) {
        throw new VirtioError(
          'NOT_READY',
          `${this.who()} was to be reset and did not finish ${left} requests of queue ${vring.place.index} within ` +
            `${this.#options.timeoutMs} ms; it hangs, and its connection is closed`,
        );
      }
      Atomics.wait(sleeper, 0, 0, 1);
    }
  }

  #dropVrings(): void {
    for (const vring of this.#vrings.values()) vring[Symbol.dispose]();
    this.#vrings.clear();
    if (this.#inflight !== undefined) closeSync(this.#inflight.fd);
    this.#inflight = undefined;
  }

  /** The device has lost what it knew; told to the driver after whatever it does now. */
  #needReset(reason: string): void {
    if (this.#needsReset !== undefined || (this.#status & DRIVER_OK) === 0) return;
    this.#needsReset = reason;
    queueMicrotask(() => this.interrupts.configChanged());
  }

  #lose(error: VirtioError): void {
    this.#session = undefined;
    this.#lost = error;
    this.#refresh = undefined;
    if (!this.#options.reconnect || this.#disposed) {
      this.#gone = true;
      queueMicrotask(() => this.interrupts.removed());
      return;
    }
    // With a record of what is in flight the next back end goes on with it; without, nobody knows.
    if (this.#served && this.#inflight === undefined) {
      this.#needReset('was lost, and the next back end is waited for');
    }
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    if (this.#reconnecting) return;
    this.#reconnecting = true;
    const { signal } = this.#closing;
    let pause = RETRY_MS;
    while (!this.#disposed && this.#session === undefined) {
      let session: Session | undefined;
      try {
        const socket = await this.#options.dialer.dial(true, signal);
        session = await Session.open(socket, this.#poller, this.#sessionOptions);
        if (await this.#resume(session)) continue;
        // The driver went on meanwhile; what it set up is told to a new connection.
        pause = RETRY_MS;
      } catch (error) {
        if (VirtioError.is(error)) this.#lost = error;
      }
      this.#coming = undefined;
      session?.[Symbol.dispose]();
      await delay(pause, undefined, { ref: false, signal }).catch(() => undefined);
      pause = Math.min(2 * pause, LONGEST_RETRY_MS);
    }
    this.#reconnecting = false;
  }

  /**
   * The back end is back: it is told all that the driver set up, and then used.
   *
   * @returns whether what it was told is still so
   */
  async #resume(session: Session): Promise<boolean> {
    const epoch = this.#epoch;
    this.#coming = session;
    const hasConfig = session.config.length > 0 || this.#options.config !== undefined;
    const lacking = this.#accepted & ~visibleFeatures(this.deviceType, session.features, hasConfig);
    if (lacking !== 0n) {
      this.#needReset(`came back without features (0x${lacking.toString(16)}) that were agreed on`);
    } else if ((this.#status & FEATURES_OK) !== 0 && this.#needsReset === undefined) {
      this.#tellFeatures(session);
      if ((this.#status & DRIVER_OK) !== 0) {
        const resumed = this.#inflight !== undefined;
        if (!resumed && session.has('INFLIGHT_SHMFD')) {
          const record = await this.#askInflight(session).answer();
          if (epoch !== this.#epoch) {
            closeSync(record.fd);
            return false;
          }
          this.#inflight = record;
        }
        this.#tellAll(session, resumed);
        this.#served = true;
      }
    }
    await session.finished();
    if (this.#disposed || epoch !== this.#epoch) return false;
    if (session.lost !== undefined) throw session.lost;
    const before = this.#config;
    this.#take(session);
    for (const vring of this.#vrings.values()) vring.kick();
    this.interrupts.fireAll();
    if (before.length !== this.#config.length || before.some((byte, i) => byte !== this.#config[i])) {
      this.#changed();
    }
    this.#connected?.resolve();
    this.#connected = undefined;
    return true;
  }

  /** The back end says that its configuration is another now. */
  #configChange(session: Session): void {
    if (this.#refresh !== undefined) {
      this.#changedAgain = true;
      return;
    }
    if (session.has('STATUS')) {
      session
        .askStatus()
        .answer()
        .then(
          (status) => {
            if ((status & BigInt(DEVICE_NEEDS_RESET)) !== 0n) this.#needReset('asked for a reset');
          },
          () => undefined,
        );
    }
    if (!session.has('CONFIG') || this.#config.length === 0) {
      this.#changed();
      return;
    }
    const refresh = session.askConfig(this.#config.length);
    this.#refresh = refresh;
    refresh.answer().then(
      () => this.#finishRefresh(refresh),
      () => undefined,
    );
  }

  /** Waits in place for the new configuration, if it is not there. */
  #finishRefresh(refresh: Pending<Uint8Array<ArrayBuffer>>): void {
    const session = this.#session;
    if (refresh !== this.#refresh || session === undefined) return;
    try {
      const config = session.wait(refresh);
      this.#refresh = undefined;
      if (config.length === this.#config.length) this.#config = config;
      this.#changed();
      if (!this.#changedAgain) return;
      this.#changedAgain = false;
      this.#configChange(session);
    } catch (error) {
      if (session.lost === undefined) throw error;
    }
  }

  #changed(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    this.#untold = true;
    queueMicrotask(() => this.interrupts.configChanged());
  }

  #checkConfig(offset: number, width: number): void {
    if (offset >= 0 && offset + width <= this.#config.length) return;
    throw new VirtioError(
      this.#config.length === 0 ? 'CONFIG_SPACE_MISSING' : 'CONFIG_SPACE_TOO_SMALL',
      `${this.who()} has ${this.#config.length} bytes of configuration space; ${width} at ${offset} were asked for`,
    );
  }

  #disposedError(): VirtioError {
    return new VirtioError('DISPOSED', `${this.who()} is closed; open it anew`);
  }
}
