/**
 * The transport of a device in another process.
 *
 * What the driver sets up is kept here and sent to the back end when the driver sets DRIVER_OK, and again to the next back end
 * after a loss. The device status is also kept here, as many back ends have none. What core's `Transport` does synchronously
 * (negotiation, DRIVER_OK, reset, reading the configuration space after a write) waits synchronously for the back end, at most for
 * the time-out; nothing else waits.
 */
import {
  DeviceStatus,
  DeviceType,
  Feature,
  InterruptStatus,
  type QueueSignals,
  type SharedMemory,
  Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { closeDescriptor } from '@virtio/linux';
import type { EventPoller } from '@virtio/linux';
import { Backends } from './backends.ts';
import { DeviceConfig } from './device-config.ts';
import type { Dialer } from './dial.ts';
import type { BackendDisplay } from './display.ts';
import { visibleFeatures } from './features.ts';
import { VhostUserInterrupts } from './interrupts.ts';
import type { VhostMemory } from './memory.ts';
import { encode, MAX_VRINGS, PROTOCOL_FEATURES_BIT, U64 } from './protocol.ts';
import type { Session } from './session.ts';
import { VringSet } from './vring-set.ts';

const { DRIVER_OK, FEATURES_OK, DEVICE_NEEDS_RESET } = DeviceStatus;
const NOTHING = new Uint8Array(0);
const STATUS_GONE = 0xff;
const PACKED = 1n << BigInt(Feature.RING_PACKED);

/** Options of {@link VhostUserTransport}. */
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
  readonly display: BackendDisplay | undefined;
}

/** The transport of a device in another process. */
export class VhostUserTransport extends Transport {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly interrupts: VhostUserInterrupts;

  readonly #options: VhostUserTransportOptions;
  readonly #memory: VhostMemory;
  readonly #vrings: VringSet;
  readonly #config: DeviceConfig;
  readonly #backends: Backends;
  #status = 0;
  #needsReset: string | undefined;
  /** The features that the driver accepted. */
  #accepted = 0n;
  /** The features that the back end last offered; kept while it is not connected. */
  #offered = 0n;
  #slots = 1;
  #queues: number | undefined;
  /** Whether the device status is being read, and whether it may have changed since. */
  #askingStatus = false;
  #statusChanged = false;
  /** Changes with everything that a back end is set up with. */
  #epoch = 0;
  /** Whether a back end has had the vrings since the last reset. */
  #served = false;
  #disposed = false;

  private constructor(options: VhostUserTransportOptions) {
    super();
    this.#options = options;
    this.deviceType = options.deviceType;
    this.name = options.name;
    this.#memory = options.memory;
    this.interrupts = new VhostUserInterrupts(options.poller, options.polling, options.spinUs);
    const { deviceType, poller, memory, timeoutMs } = options;
    this.#vrings = new VringSet({ who: this.who(), deviceType, poller, memory, timeoutMs });
    this.#config = new DeviceConfig(this.who(), () => queueMicrotask(() => this.interrupts.configChanged()));
    const { reconnect, configSizes, display, dialer } = options;
    this.#backends = new Backends({
      who: this.who(),
      timeoutMs,
      reconnect,
      configSizes,
      display,
      poller,
      dialer,
      onConfigChange: (session) => this.#configChange(session),
      onLost: () => this.#lose(),
      resume: (session) => this.#resume(session),
    });
  }

  /**
   * Connects to a back end. The event loop is kept alive meanwhile.
   *
   * @internal use `openVhostUser`
   */
  static async open(options: VhostUserTransportOptions, signal: AbortSignal): Promise<VhostUserTransport> {
    const transport = new VhostUserTransport(options);
    transport.#take(await transport.#backends.first(signal));
    transport.#listenToMemory();
    return transport;
  }

  /** Whether a back end is connected now. */
  get connected(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Why no back end is connected: why the last one was lost, or while the transport reconnects, why the last attempt failed; `undefined`
   * while one is connected.
   */
  get disconnectReason(): VirtioError | undefined {
    return this.connected ? undefined : this.#backends.reason;
  }

  /**
   * Waits until a back end is connected and has all that the driver set up. Keeps the event loop alive.
   *
   * @param options a signal that cancels the wait: `AbortSignal.timeout(10_000)`
   * @throws {@link VirtioError} `DEVICE_REMOVED` if it is gone and the device was opened without `reconnect`; `ABORTED`, whose message ends
   * with {@link VhostUserTransport.disconnectReason}; `DISPOSED`
   */
  async whenConnected(options?: WaitOptions): Promise<void> {
    if (this.#gone && !this.#disposed) throw this.removed();
    await this.#backends.whenConnected(options);
  }

  readDeviceFeatures(): bigint {
    return visibleFeatures(this.deviceType, this.#offered, this.#config.size > 0);
  }

  writeDriverFeatures(features: bigint): void {
    this.#accepted = features;
  }

  maxQueueSize(queue: number): number {
    return queue < this.#vringCount ? this.#options.maxQueueSize : 0;
  }

  notify(queue: number): void {
    this.#vrings.kick(queue);
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
    // The back end may be lost meanwhile; the next one is set up according to the status.
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

  queueSet(
    queue: number,
    size: number,
    descriptors: number,
    driverArea: number,
    deviceArea: number,
    unused: () => number = () => 0,
  ): void {
    this.#epoch += 1;
    const { interrupts } = this;
    this.#vrings.add(
      { index: queue, size, descriptors, driverArea, deviceArea, unused },
      {
        onCall: interrupts.polling ? undefined : () => interrupts.fire(queue),
        onError: () => this.#needReset(`reported an error of queue ${queue}`),
      },
    );
  }

  queueUnset(queue: number): void {
    // The back end releases a vring only at a reset.
    if (this.#session?.live !== true) this.#vrings.delete(queue);
  }

  queueUsed(queue: number): boolean {
    return this.#vrings.has(queue);
  }

  override lendQueue(queue: number): QueueSignals {
    return this.#vrings.lend(queue) ?? super.lendQueue(queue);
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
    this.#config.finishRefresh();
    const told = this.#config.takeChange() || this.#gone || this.#needsReset !== undefined;
    const queues = interrupts.polling ? InterruptStatus.QUEUE_INTERRUPT : 0;
    return InterruptStatus.from(queues | (told ? InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT : 0));
  }

  readConfigGeneration(): number {
    return this.#config.generation;
  }

  get configSize(): number {
    return this.#config.size;
  }

  readConfig(offset: number, width: 1 | 2 | 4): number {
    return this.#config.read(this.#session, offset, width);
  }

  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#config.write(this.#session, offset, width, value);
  }

  sharedMemory(): SharedMemory | undefined {
    // Back ends in use do not have the protocol feature for it (SHMEM) yet.
    return undefined;
  }

  override removed(): VirtioError {
    const { lost } = this.#backends;
    const reason = lost?.message ?? `${this.who()} is no longer there`;
    return new VirtioError(
      'DEVICE_REMOVED',
      lost?.code === 'DISPOSED' ? reason : `${reason}. Dispose the driver, then open the device again`,
      { cause: lost },
    );
  }

  override checkAlive(): void {
    const reason = this.#needsReset;
    if (reason === undefined || this.#gone) {
      super.checkAlive();
      return;
    }
    throw new VirtioError(
      'DEVICE_NEEDS_RESET',
      `${this.who()} ${reason}; it is not known whether requests in flight were carried out. Call the driver's reset()`,
    );
  }

  /** Ends the connection. A back end that serves vrings is stopped first, if it answers. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#backends.end();
    if (!this.#gone) this.#reset();
    this.#backends[Symbol.dispose]();
    // A driver that was not disposed before ends now, as its memory is about to go.
    this.interrupts.removed();
    this.#vrings[Symbol.dispose]();
    this.#memory.listener = undefined;
  }

  get #session(): Session | undefined {
    return this.#backends.current;
  }

  get #gone(): boolean {
    return this.#backends.gone;
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
        // The next back end may have been sent the region, or be about to get a descriptor that is closed now.
        this.#backends.startAgain();
      },
    };
  }

  get #vringCount(): number {
    const { queues } = this.#options;
    if (queues !== undefined) return queues;
    if (this.#queues === undefined) return MAX_VRINGS;
    // For a network device the back end counts pairs of a receive and a transmit queue.
    return Math.min(MAX_VRINGS, this.deviceType === DeviceType.Network ? 2 * this.#queues : this.#queues);
  }

  /** Takes over what a back end has. Returns whether its configuration differs from that of the one before. */
  #take(session: Session): boolean {
    this.#offered = session.features;
    this.#slots = session.slots;
    this.#queues = session.queues;
    const given = Uint8Array.from(this.#options.config ?? []);
    return this.#config.take(session.config.length > 0 ? session.config : given);
  }

  /** Sends the features to the back end. Returns whether it accepts them. */
  #negotiate(session: Session, bits: number): boolean {
    try {
      this.#tellFeatures(session);
      session.finish();
      if (!session.has('STATUS')) return true;
      session.mention('SET_STATUS', encode(U64, { value: BigInt(bits) }));
      return (session.wait(session.askStatus()) & BigInt(FEATURES_OK)) !== 0n;
    } catch (error) {
      // The next back end is asked when it is set up; if there is none, the status shows it.
      if (session.lost !== undefined) return true;
      if (VirtioError.is(error, 'IO_ERROR')) return false;
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

  /** The driver has set DRIVER_OK: sends all that it set up to the back end. */
  #start(session: Session): void {
    try {
      if (session.has('INFLIGHT_SHMFD')) {
        this.#vrings.keepRecord(session.wait(this.#vrings.askRecord(session)));
      }
      this.#tellAll(session, false);
      session.finish();
      this.#served = true;
    } catch (error) {
      if (session.lost === undefined) throw error;
      // If another back end will follow, nothing is lost yet.
      if (this.#gone) throw this.removed();
    }
  }

  get #packed(): boolean {
    return (this.#accepted & PACKED) !== 0n;
  }

  /** @param resumed whether another back end has served the vrings before */
  #tellAll(session: Session, resumed: boolean): void {
    this.#vrings.tell(session, this.#packed, resumed);
    this.#mentionStatus(session);
  }

  #reset(): void {
    this.#epoch += 1;
    const session = this.#session ?? this.#backends.coming;
    if (session?.live === true) {
      try {
        this.#stop(session);
      } catch (error) {
        // What matters is whether the back end still has the memory: a lost one does not, any other is disconnected.
        if (session.lost === undefined) session.lose(error as VirtioError);
      }
    } else if (session !== undefined && this.#status !== 0 && session.has('STATUS')) {
      session.mention('SET_STATUS', encode(U64, { value: 0n }));
    }
    if (this.#gone) return;
    this.#vrings.clear();
    this.#status = 0;
    this.#served = false;
    this.#accepted = 0n;
    this.#needsReset = undefined;
  }

  /** Takes the vrings from the back end, and resets it. */
  #stop(session: Session): void {
    this.#vrings.stop(session, { packed: this.#packed, finish: this.#needsReset === undefined });
    if (session.has('RESET_DEVICE')) session.tell('RESET_DEVICE', NOTHING);
    if (session.has('STATUS')) session.mention('SET_STATUS', encode(U64, { value: 0n }));
    session.finish();
  }

  /** The device has lost its state; the driver is notified after its current call. */
  #needReset(reason: string): void {
    if (this.#needsReset !== undefined || (this.#status & DRIVER_OK) === 0) return;
    this.#needsReset = reason;
    queueMicrotask(() => this.interrupts.configChanged());
  }

  #lose(): void {
    this.#config.forgetRefresh();
    if (this.#gone) {
      queueMicrotask(() => this.interrupts.removed());
      return;
    }
    // With a record of requests in flight the next back end continues with them; without one, their state is not known.
    if (this.#served && !this.#vrings.hasRecord) {
      this.#needReset('has lost its back end and waits for the next one (see disconnectReason)');
    }
  }

  /**
   * Sends all that the driver set up to a back end that is back, then takes it into use.
   *
   * @returns whether that is still up to date
   */
  async #resume(session: Session): Promise<boolean> {
    const epoch = this.#epoch;
    const hasConfig = session.config.length > 0 || this.#options.config !== undefined;
    const lacking = this.#accepted & ~visibleFeatures(this.deviceType, session.features, hasConfig);
    if (lacking !== 0n) {
      this.#needReset(`came back without features (0x${lacking.toString(16)}) that were negotiated`);
    } else if ((this.#status & FEATURES_OK) !== 0 && this.#needsReset === undefined) {
      this.#tellFeatures(session);
      if ((this.#status & DRIVER_OK) !== 0) {
        const resumed = this.#vrings.hasRecord;
        if (!resumed && session.has('INFLIGHT_SHMFD')) {
          const record = await this.#vrings.askRecord(session).answer();
          if (epoch !== this.#epoch) {
            if (record !== undefined) closeDescriptor(record.fd);
            return false;
          }
          this.#vrings.keepRecord(record);
        }
        this.#tellAll(session, resumed);
        this.#served = true;
      }
    }
    await session.finished();
    if (this.#disposed || epoch !== this.#epoch) return false;
    if (session.lost !== undefined) throw session.lost;
    this.#backends.use(session);
    const changed = this.#take(session);
    this.#vrings.kickAll();
    this.interrupts.fireAll();
    if (changed) this.#config.changed();
    return true;
  }

  /** The back end reports that its configuration or its status has changed. */
  #configChange(session: Session): void {
    if (session.has('STATUS')) this.#askStatus(session);
    this.#config.changeBy(session);
  }

  /** Finds out whether the device needs a reset: one request at a time, however often a back end reports a change. */
  #askStatus(session: Session): void {
    this.#statusChanged = true;
    if (this.#askingStatus) return;
    this.#askingStatus = true;
    const ask = async (): Promise<void> => {
      while (this.#statusChanged) {
        this.#statusChanged = false;
        const epoch = this.#epoch;
        const status = await session.askStatus().answer();
        // It may have been reset since it answered.
        if (epoch !== this.#epoch) this.#statusChanged = true;
        else if ((status & BigInt(DEVICE_NEEDS_RESET)) !== 0n) this.#needReset('asked for a reset');
      }
    };
    // A lost connection is reported elsewhere.
    ask()
      .catch(() => undefined)
      .finally(() => (this.#askingStatus = false));
  }
}
