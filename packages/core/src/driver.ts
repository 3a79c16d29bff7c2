/**
 * What all drivers have in common: negotiation, queues that come and go with the device, configuration events, failure,
 * reset and disposal. A driver adds what its device does.
 */
import { DeviceStatus, InterruptStatus } from './device-status.ts';
import { deviceTypeName } from './device-type.ts';
import { VirtioError } from './errors.ts';
import { createQueue } from './create-queue.ts';
import { Events } from './events.ts';
import { Feature, type FeatureName, type FeatureSet, type FeatureTable } from './features.ts';
import type { BufferDirection, DmaRegion, Hal } from './hal.ts';
import { RequestQueue } from './request-queue.ts';
import type { FeatureRequest, Transport } from './transport.ts';
import type { QueueOptions, VirtQueue } from './virt-queue.ts';

/** The device-independent features that every driver here implements, whatever its device. */
export const QUEUE_FEATURES = [
  'ANY_LAYOUT',
  'INDIRECT_DESC',
  'EVENT_IDX',
  'VERSION_1',
  'ACCESS_PLATFORM',
  'RING_PACKED',
  'IN_ORDER',
  'ORDER_PLATFORM',
  'NOTIFICATION_DATA',
  'NOTIF_CONFIG_DATA',
  'RING_RESET',
] as const satisfies readonly FeatureName[];

/** What every driver may be told. */
export interface DriverOptions {
  /** Device-independent features that the driver is not to accept, e.g. `['RING_PACKED']` to stay with split rings. */
  readonly without?: readonly FeatureName[];
}

/** What every driver may report, by {@link Driver.on}. */
export interface DriverEvents {
  /** The device no longer works, with the reason: `DEVICE_NEEDS_RESET`, `DEVICE_REMOVED`, `DEVICE_MISBEHAVED`. */
  failure: VirtioError;
}

/** What a driver says of its device to {@link Driver}. */
export interface DriverSpec<Name extends string> {
  /** The type that the device must have. */
  readonly deviceType: number;
  /** The device's own features with their names. */
  readonly table: FeatureTable<Name>;
  /** The device's own features that the driver implements. The device-independent ones are added. */
  readonly supported: readonly Name[];
  /** The features without which the driver cannot work. */
  readonly required?: readonly (Name | FeatureName)[];
}

/**
 * The base of all drivers. A driver's constructor calls `super`, sets its queues up inside {@link Driver.setUp}, and is live
 * afterwards.
 */
export abstract class Driver<
  Name extends string,
  EventMap extends DriverEvents = DriverEvents,
> implements Disposable {
  /** The way to the device. */
  readonly transport: Transport;
  /** The platform. */
  readonly hal: Hal;

  readonly #request: FeatureRequest<Name>;
  readonly #table: FeatureTable<Name>;
  readonly #queues: VirtQueue[] = [];
  readonly #requests: RequestQueue[] = [];
  readonly #regions: DmaRegion[] = [];
  readonly #events = new Events<EventMap>();
  #features: FeatureSet<Name>;
  #failure: VirtioError | undefined;
  #generation = 0;
  #disposed = false;

  /**
   * Checks the device's type and negotiates features.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for a device of another type or an unknown feature, `FEATURES_REFUSED`
   */
  protected constructor(transport: Transport, hal: Hal, spec: DriverSpec<Name>, options: DriverOptions = {}) {
    if (transport.deviceType !== spec.deviceType) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()} is no ${deviceTypeName(spec.deviceType)} device; use the driver of its type`,
      );
    }
    this.transport = transport;
    this.hal = hal;
    const without: readonly string[] = options.without ?? [];
    const unknown = without.find((name) => !(name in Feature));
    if (unknown !== undefined) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()} was to be used without ${unknown}, which is no device-independent feature; there are ` +
          Object.keys(Feature).join(', '),
      );
    }
    this.#table = spec.table;
    this.#request = {
      table: spec.table,
      supported: [...spec.supported, ...QUEUE_FEATURES].filter((name) => !without.includes(name)),
      required: spec.required ?? [],
    };
    this.#features = transport.beginInit(this.#request);
  }

  /** The features that the device and the driver agreed on. */
  get features(): FeatureSet<Name> {
    return this.#features;
  }

  /** Whether `VIRTIO_F_ACCESS_PLATFORM` was negotiated, for calls of the {@link Hal}. */
  protected get accessPlatform(): boolean {
    return this.#features.has('ACCESS_PLATFORM');
  }

  /** Why the device no longer works, if so. {@link Driver.reset} may bring it back. */
  get failure(): VirtioError | undefined {
    return this.#failure;
  }

  /**
   * Adds a listener for an event.
   *
   * @returns a function that removes it
   */
  on<E extends keyof EventMap>(event: E, listener: (value: EventMap[E]) => void): () => void {
    return this.#events.on(event, listener);
  }

  /** Reports an event. */
  protected emit<E extends keyof EventMap>(event: E, value: EventMap[E]): void {
    this.#events.emit(event, value);
  }

  /**
   * Runs the device-specific part of initialization, then makes the device live. If it throws, the device is marked as failed
   * and all that was set up is given back.
   *
   * @returns what `body` returns
   */
  protected setUp<T>(body: () => T): T {
    try {
      const result = body();
      this.transport.interrupts?.onConfig(this.#configInterrupt);
      this.transport.interrupts?.onRemoval(this.#removal);
      this.#generation = this.transport.readConfigGeneration();
      this.transport.finishInit();
      return result;
    } catch (error) {
      this.#giveUp();
      throw error;
    }
  }

  /** Makes a queue that lives as long as the driver and is set up anew at a reset. */
  protected createQueue(options: QueueOptions): VirtQueue {
    const queue = createQueue(this.transport, this.hal, this.#features, options);
    this.#queues.push(queue);
    return queue;
  }

  /** Makes a queue for requests; see {@link RequestQueue} for `abandon`. */
  protected createRequestQueue(options: QueueOptions, abandon: (slot: number) => void): RequestQueue {
    const requests = new RequestQueue(this.createQueue(options), this.transport, abandon, this.#lied);
    this.#requests.push(requests);
    return requests;
  }

  /** Allocates DMA memory that lives as long as the driver. */
  protected allocate(bytes: number, direction: BufferDirection): DmaRegion {
    const region = this.hal.dmaAlloc(Math.max(1, Math.ceil(bytes / 4096)), direction, this.accessPlatform);
    this.#regions.push(region);
    return region;
  }

  /** The device changed its configuration. */
  protected onConfigChange(): void {
    return;
  }

  /** The device no longer works: ends what the driver waits for apart from request queues, which are failed already. */
  protected onFailure(_error: VirtioError): void {
    return;
  }

  /** The device was reset and its queues are empty and set up; it becomes live afterwards. Posts receive buffers, etc. */
  protected onReset(): void {
    return;
  }

  /** One queue was reset alone and is empty. Posts receive buffers, etc. */
  protected onQueueReset(_queue: VirtQueue): void {
    return;
  }

  /** The device became live again after {@link Driver.reset}. */
  protected onLive(): void {
    return;
  }

  /** The device was reset for good: gives back what the driver holds apart from its queues and regions. */
  protected onDispose(): void {
    return;
  }

  /** Throws if the driver is disposed or the device no longer works. */
  protected checkUsable(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /**
   * Looks for what interrupts would tell: used buffers, changes of the configuration, and that the device is gone or needs a
   * reset. For platforms without interrupts.
   */
  pollEvents(): void {
    if (this.#failure !== undefined) return;
    // Acknowledged first: for what is used from now on the device interrupts again.
    const pending = this.transport.ackInterrupt();
    for (const requests of this.#requests) requests.drain();
    const generation = this.transport.readConfigGeneration();
    const changed = pending.has(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT);
    this.#look(changed || generation !== this.#generation);
  }

  /**
   * Fails the driver: all requests in flight and all later ones get `error`, until {@link Driver.reset}. Drivers call it when
   * the device lied; people may call it to cancel everything.
   */
  fail(error: VirtioError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    for (const requests of this.#requests) requests.fail(error);
    for (const queue of this.#queues) queue.fail(error);
    this.onFailure(error);
    this.emit('failure', error);
  }

  /**
   * Resets the device and brings it back with the same features. Requests in flight reject with `DEVICE_RESET`; whether the
   * device carried them out is not known.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED`, `NOT_READY`, `FEATURES_REFUSED` if the device no longer has the features;
   * `DISPOSED`
   */
  reset(): void {
    if (this.#disposed) throw this.#disposedError();
    const lost = new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()} was reset; whether this request was carried out is not known: ask again`,
    );
    if (this.#failure === undefined) {
      for (const requests of this.#requests) requests.fail(lost);
      this.onFailure(lost);
    }
    try {
      this.transport.reset();
      for (const requests of this.#requests) requests.forget(lost);
      const { bits } = this.#features;
      const names = this.#table.names(bits);
      this.#features = this.transport.beginInit({ table: this.#table, supported: names, required: names });
      for (const queue of this.#queues) (this.#requestsOf(queue) ?? queue).reset();
      this.#failure = undefined;
      this.onReset();
      this.#generation = this.transport.readConfigGeneration();
      this.transport.finishInit();
    } catch (error) {
      this.fail(error as VirtioError);
      throw error;
    }
    this.onLive();
  }

  /**
   * Resets one queue while the others go on. Its requests in flight reject with `DEVICE_RESET`.
   *
   * @param index the index of the queue
   * @throws {@link VirtioError} `UNSUPPORTED` unless `VIRTIO_F_RING_RESET` was negotiated, `INVALID_PARAM` if the driver has no
   * such queue, `NOT_READY` if the device does not let go of it
   * @see VIRTIO 1.4, 2.6.1
   */
  resetQueue(index: number): void {
    this.checkUsable();
    const queue = this.#queues.find((candidate) => candidate.index === index);
    if (queue === undefined) {
      throw new VirtioError('INVALID_PARAM', `the driver of ${this.transport.who()} has no queue ${index}`);
    }
    if (!this.#features.has('RING_RESET')) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.transport.who()} cannot reset queue ${index} alone, as RING_RESET was not negotiated; use reset()`,
      );
    }
    const lost = new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()}: queue ${index} was reset; whether this request was carried out is not known: ask again`,
    );
    const requests = this.#requestsOf(queue);
    requests?.fail(lost);
    try {
      this.transport.queueReset(index);
      requests?.forget(lost);
      (requests ?? queue).reset();
    } catch (error) {
      this.fail(error as VirtioError);
      throw error;
    }
    this.onQueueReset(queue);
  }

  /** Resets the device, rejects what is in flight, and gives all memory and the transport back. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const error = this.#disposedError();
    for (const requests of this.#requests) requests.fail(error);
    if (this.#failure === undefined) this.onFailure(error);
    this.#failure = error;
    try {
      this.transport.reset();
    } catch (cause) {
      // A device that was removed can reach nothing any more. One that will not stop may still write: leak its memory.
      if (!VirtioError.is(cause, 'DEVICE_REMOVED')) throw cause;
    }
    for (const requests of this.#requests) requests.forget(error);
    this.onDispose();
    this.#release();
    this.transport[Symbol.dispose]();
  }

  #disposedError(): VirtioError {
    return new VirtioError(
      'DISPOSED',
      `the driver of ${this.transport.who()} is disposed; open the device anew`,
    );
  }

  #requestsOf(queue: VirtQueue): RequestQueue | undefined {
    return this.#requests.find((requests) => requests.queue === queue);
  }

  /** Initialization failed. Nothing is in flight, as the device never became live, but it has the queues' addresses. */
  #giveUp(): void {
    try {
      this.transport.setStatus(this.transport.getStatus().with(DeviceStatus.FAILED));
      this.transport.reset();
      this.#release();
      this.transport.setStatus(DeviceStatus.from(DeviceStatus.FAILED));
    } catch {
      // The device did not stop: its memory stays allocated, and the first error is the one that counts.
      return;
    }
  }

  #release(): void {
    const { interrupts } = this.transport;
    interrupts?.onConfig(undefined);
    interrupts?.onRemoval(undefined);
    for (const queue of this.#queues) {
      interrupts?.onQueue(queue.index, undefined);
      queue[Symbol.dispose]();
    }
    for (const region of this.#regions.splice(0)) this.hal.dmaDealloc(region);
  }

  readonly #configInterrupt = (): void => {
    this.#look(true);
  };

  /** Whether the device still works; if it does and its configuration may have `changed`, what it is now. */
  #look(changed: boolean): void {
    if (this.#failure !== undefined) return;
    if (changed) this.#generation = this.transport.readConfigGeneration();
    try {
      this.transport.checkAlive();
      if (changed) this.onConfigChange();
    } catch (error) {
      // An error of a listener's is not the device's.
      if (!VirtioError.is(error)) throw error;
      this.fail(error);
    }
  }

  readonly #removal = (): void => {
    this.fail(this.transport.removed());
  };

  readonly #lied = (error: VirtioError): void => {
    this.fail(error);
  };
}
