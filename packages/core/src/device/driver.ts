/**
 * What all drivers have in common: negotiation, queues, changes of the configuration, failure, reset and disposal. A driver adds
 * what its device does.
 *
 * A listener may do anything, even reset or dispose the driver while a call of the driver is under way: so state is consistent
 * before an event is reported, and is read again afterwards.
 */
import { asError, VirtioError } from '../errors.ts';
import type { BufferDirection, DmaRegion, Hal } from '../memory/hal.ts';
import type { FieldTable, Layout } from '../memory/layout.ts';
import type { BufferQueueParts } from '../queues/buffer-queue.ts';
import type { DriverQueue } from '../queues/driver-queue.ts';
import type { RequestHandler } from '../queues/request.ts';
import type { RequestQueue } from '../queues/request-queue.ts';
import type { QueueOptions, VirtQueue } from '../ring/virt-queue.ts';
import { show } from '../show.ts';
import type { ThreadQueues } from '../threads/for-threads.ts';
import type { LentQueues } from '../threads/lent-queues.ts';
import { DeviceStatus, InterruptStatus } from './device-status.ts';
import { deviceTypeName } from './device-type.ts';
import { DriverQueues } from './driver-queues.ts';
import {
  type DriverEvents,
  type DriverOptions,
  type DriverSpec,
  type Quirk,
  QUEUE_FEATURES,
} from './driver-spec.ts';
import { Events } from './events.ts';
import type { FeatureName, FeatureSet, FeatureTable } from './features.ts';
import { NonReentrant } from './non-reentrant.ts';
import type { FeatureRequest, Transport } from './transport.ts';

/** All bits that a feature can have. */
const ALL = 2n ** 128n - 1n;

/** Refuses what is not an array of names of features that a driver can do without. */
function requireNames<Name extends string>(
  transport: Transport,
  without: unknown,
  { table, required = [] }: DriverSpec<Name>,
): void {
  if (!Array.isArray(without)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()}: without is ${show(without)}; give an array of names of features`,
    );
  }
  const needed: readonly string[] = ['VERSION_1', ...required];
  const known: readonly string[] = table.names(ALL).filter((name) => !needed.includes(name));
  for (const name of without as readonly string[]) {
    if (known.includes(name)) continue;
    throw new VirtioError(
      'INVALID_PARAM',
      `${transport.who()} was to be used without ${show(name)}, which is not a feature that can be left out; these are ${known.join(', ')}`,
    );
  }
}

/**
 * The base of all drivers. A driver's constructor calls `super`, makes its queues inside {@link Driver.setUp}, and ends with
 * {@link Driver.start}.
 *
 * @example
 * ```ts
 * import { Driver, type DriverOptions, FeatureTable, type Hal, type RequestQueue, type Transport } from '@virtio/core';
 *
 * const EchoFeatures = new FeatureTable<never>('EchoFeatures', {});
 *
 * // A made-up device that changes a buffer in place.
 * export class Echo extends Driver<never> {
 *   readonly #requests: RequestQueue<number>;
 *
 *   constructor(transport: Transport, hal: Hal, options?: DriverOptions) {
 *     super(transport, hal, { deviceType: 62, table: EchoFeatures, supported: [] }, options);
 *     this.#requests = this.setUp(() =>
 *       this.createRequestQueue({ index: 0 }, { result: (_slot, usedLength) => usedLength }),
 *     );
 *     this.start();
 *   }
 *
 *   send(buffer: Uint8Array): Promise<number> {
 *     const requests = this.#requests;
 *     return requests.request({
 *       buffers: 1,
 *       fill: (slot) => requests.shareWritable(slot, buffer),
 *       result: (_slot, usedLength) => usedLength,
 *     });
 *   }
 * }
 * ```
 */
export abstract class Driver<
  Name extends string,
  EventMap extends DriverEvents = DriverEvents,
> implements Disposable {
  /** The transport of the device. */
  readonly transport: Transport;
  /** The platform. */
  readonly hal: Hal;

  readonly #request: FeatureRequest<Name>;
  readonly #table: FeatureTable<Name>;
  readonly #queues: DriverQueues<Name>;
  readonly #regions: DmaRegion[] = [];
  readonly #events = new Events<EventMap>();
  #features: FeatureSet<Name>;
  #failure: VirtioError | undefined;
  /** Looks at the configuration at interrupts. */
  readonly #changes: NonReentrant;
  #generation = 0;
  #quirks = 0;
  /** Whether events may be reported: not before the constructor has finished, nor while the device, or a queue, is being reset. */
  #listening = false;
  /** What the device has interrupted for before that: a change of its configuration, or its removal. */
  #early: (() => void) | undefined;
  /** Whether a reset is under way; its errors are thrown to its caller. */
  #resetting = false;
  #disposed = false;

  /**
   * Checks the device's type and negotiates features.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` for a device of another type or an unknown feature, `ALREADY_USED` if the
   * transport has a driver that is not disposed, `FEATURES_REFUSED`
   */
  protected constructor(
    transport: Transport,
    hal: Hal,
    spec: DriverSpec<Name>,
    options: DriverOptions<Name> = {},
  ) {
    if (transport.deviceType !== spec.deviceType) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()} is not a ${deviceTypeName(spec.deviceType)} device; use the driver of its type`,
      );
    }
    this.transport = transport;
    this.hal = hal;
    const { without = [] }: { readonly without?: readonly string[] } = options;
    requireNames(transport, without, spec);
    this.#table = spec.table;
    this.#request = {
      table: spec.table,
      supported: [...spec.supported, ...QUEUE_FEATURES].filter((name) => !without.includes(name)),
      required: spec.required ?? [],
      ...(spec.choose && { choose: spec.choose }),
    };
    this.#queues = new DriverQueues({
      transport,
      hal,
      features: () => this.#features,
      report: this.#report,
      quirk: (queue, message) => {
        this.quirk(queue, message);
      },
    });
    this.#changes = new NonReentrant(() => {
      this.#look(true);
    }, transport.interrupts);
    transport.claim(this);
    try {
      this.#features = transport.beginInit(this.#request);
    } catch (error) {
      transport.unclaim(this);
      throw error;
    }
  }

  /** The features that the device and the driver agreed on. */
  get features(): FeatureSet<Name> {
    return this.#features;
  }

  /** Whether `VIRTIO_F_ACCESS_PLATFORM` was negotiated, for calls of the {@link Hal}. */
  protected get accessPlatform(): boolean {
    return this.#features.has('ACCESS_PLATFORM');
  }

  /** Why the device no longer works, or `undefined` if it does. {@link Driver.reset} may make it work again. */
  get failure(): VirtioError | undefined {
    return this.#failure;
  }

  /** How often the device did something that the specification does not allow and that put nothing at risk; see the event `quirk`. */
  get quirks(): number {
    return this.#quirks;
  }

  /**
   * Adds a listener for an event. One that throws does not affect the driver: its error becomes an unhandled rejection.
   *
   * @returns a function that removes it
   */
  on<E extends keyof EventMap>(event: E, listener: (value: EventMap[E]) => void): () => void {
    if (event !== 'used') return this.#events.on(event, listener);
    return this.#queues.listen(listener as (queue: number) => void);
  }

  /** Reports an event. */
  protected emit<E extends keyof EventMap>(event: E, value: EventMap[E]): void {
    this.#events.emit(event, value);
  }

  /**
   * The device did something that the specification does not allow and that puts nothing at risk: counts and reports it.
   * Listeners are called when the turn ends: it is found while an answer is being taken, where a reset by a listener would
   * destroy the state of the queue.
   */
  protected quirk(queue: number, message: string): void {
    this.#quirks += 1;
    if (this.#events.count('quirk') === 0) return;
    const quirk: Quirk = { queue, message: `${this.transport.who()}: ${message}` };
    void Promise.resolve().then(() => {
      this.#events.emit('quirk', quirk);
    });
  }

  /**
   * Runs the device-specific part of initialization, then sets DRIVER_OK. If it throws, FAILED is set and everything that was set
   * up is freed.
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

  /** Lets the device send, and events be reported: the last statement of a driver's constructor, when all of its fields are set. */
  protected start(): void {
    this.#listening = true;
    try {
      this.#queues.start();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    this.#catchUp();
  }

  /** Makes a virtqueue that the driver uses directly. It lives as long as the driver and is set up again at a reset. */
  protected createQueue(options: QueueOptions): VirtQueue {
    return this.#queues.bare(options);
  }

  /**
   * Makes a queue for requests.
   *
   * @param handler handles the requests that have no handler of their own
   * @param lane where the tokens of several queues must differ: the number of this queue, and how many queues there are
   */
  protected createRequestQueue<R = unknown>(
    options: QueueOptions,
    handler?: RequestHandler<R>,
    lane?: readonly [index: number, of: number],
  ): RequestQueue<R> {
    return this.#queues.requests(options, handler, lane);
  }

  /**
   * Makes a queue of another kind: {@link BufferDriver} makes receive and transmit queues with it.
   *
   * @internal
   */
  protected createDriverQueue<Q extends DriverQueue>(
    options: QueueOptions,
    make: (parts: BufferQueueParts) => Q,
  ): Q {
    return this.#queues.create(options, make);
  }

  /**
   * Reserves queues for another thread, which drives them together as a device of its own; {@link LentQueues.plan} makes the plan
   * that this thread needs.
   *
   * @param threads the option by which the caller asked for that
   * @param without features that the other thread cannot use
   * @param config the layout of the configuration space, of which the other thread sees a copy
   * @param options what the driver of the other thread must have as options, besides the size of the queues
   */
  protected lendQueues(
    threads: ThreadQueues,
    queues: readonly QueueOptions[],
    without: readonly (Name | FeatureName)[],
    config: Layout<FieldTable>,
    options: Readonly<Record<string, unknown>> = {},
  ): LentQueues {
    const hidden = this.#table.set(...without, 'RING_RESET').bits;
    return this.#queues.lend(threads, queues, {
      config,
      options,
      features: () => this.#features.bits & ~hidden,
    });
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

  /** The device no longer works: ends the driver's own waits. Its queues have failed already. */
  protected onFailure(_error: VirtioError): void {
    return;
  }

  /** The device was reset, and its queues are empty and set up. DRIVER_OK is set afterwards. */
  protected onReset(): void {
    return;
  }

  /** One queue was reset alone and works again. */
  protected onQueueReset(_queue: VirtQueue): void {
    return;
  }

  /** The device became live again after {@link Driver.reset}. */
  protected onLive(): void {
    return;
  }

  /** The driver is disposed, and the device was reset: frees what the driver holds besides its queues and regions. */
  protected onDispose(): void {
    return;
  }

  /** Throws if the driver is disposed or the device no longer works. */
  protected checkUsable(): void {
    if (this.#failure === undefined) return;
    // The thread that has the device may have brought it back.
    this.transport.look();
    const { failure } = this;
    if (failure !== undefined) throw failure;
  }

  /**
   * Checks for everything that an interrupt would announce: used buffers, a changed configuration, a device that was removed or
   * needs a reset. For platforms without interrupts.
   */
  pollEvents(): void {
    if (this.#failure !== undefined) {
      this.transport.look();
      return;
    }
    // Acknowledged first: the device interrupts again for what it uses from now on.
    const pending = this.transport.ackInterrupt();
    this.#queues.drain();
    // A listener may have disposed the driver.
    if (this.#isFailed()) return;
    const changed = pending.has(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT);
    this.#look(changed || this.transport.readConfigGeneration() !== this.#generation);
  }

  /**
   * Reads which interrupts are pending and acknowledges them, for kernels that handle interrupts themselves; call
   * {@link Driver.pollEvents} afterwards.
   */
  ackInterrupt(): InterruptStatus {
    return this.transport.ackInterrupt();
  }

  /**
   * Asks the device to interrupt when it next uses a buffer, on every queue: for kernels that handle interrupts themselves.
   *
   * @returns whether there are used buffers already, for which no interrupt may come: poll, then enable again
   * @throws {@link VirtioError} why the device no longer works
   */
  enableInterrupts(): boolean {
    this.checkUsable();
    try {
      return this.#queues.enableInterrupts();
    } catch (error) {
      this.#report(error as VirtioError);
      throw error;
    }
  }

  /**
   * Asks the device not to interrupt for used buffers. It may interrupt all the same. Throws {@link Driver.failure} if the device
   * no longer works.
   */
  disableInterrupts(): void {
    this.checkUsable();
    this.#queues.disableInterrupts();
  }

  /**
   * Fails the driver: all requests in flight and all later ones get `error`, until {@link Driver.reset}. Drivers call it when the
   * device has lied; programs may call it to cancel everything.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if `error` is not an error
   */
  fail(error: VirtioError): void {
    // For callers without types: without an error, nothing would say that the driver has failed.
    if (!((error as unknown) instanceof Error)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()}: fail() was called with ${show(error)}; give the error with which requests are to end`,
      );
    }
    // A driver of lent queues waits after a reset until the device is live again. An error that ends it for good takes
    // precedence.
    const waits = this.#failure?.code === 'DEVICE_RESET' && error.code !== 'DEVICE_RESET' && !this.#resetting;
    if (this.#failure !== undefined && !waits) return;
    this.#end(error);
    if (!this.#resetting) this.emit('failure', error);
  }

  /**
   * Resets the device and initializes it again with the same features. Requests in flight reject with `DEVICE_RESET`; whether the
   * device carried them out is not known. All tokens are invalid afterwards.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED`, `NOT_READY`, `FEATURES_REFUSED` if the device no longer has the features;
   * `DISPOSED`
   */
  reset(): void {
    this.#checkOpen();
    this.transport.checkResettable();
    const lost = new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()} was reset; whether this request was carried out is not known: ask again`,
    );
    if (this.#failure === undefined) this.#end(lost);
    // A listener may have disposed the driver.
    this.#checkOpen();
    this.#resetting = true;
    this.#listening = false;
    this.#early = undefined;
    try {
      this.transport.reset();
      this.#queues.forget(lost);
      const { bits } = this.#features;
      const names = this.#table.names(bits);
      this.#features = this.transport.beginInit({ table: this.#table, supported: names, required: names });
      this.#queues.restart();
      this.#failure = undefined;
      this.onReset();
      this.#generation = this.transport.readConfigGeneration();
      this.transport.finishInit();
      this.#listening = true;
      this.#queues.start();
      this.#catchUp();
      // The device may have lied at once, which is not reported as an event while a reset is under way.
      const { failure } = this;
      if (failure !== undefined) throw failure;
    } catch (error) {
      // The failure of the reset replaces the earlier one.
      const thrown: unknown = asError(error);
      this.#end(thrown as VirtioError);
      throw error;
    } finally {
      this.#resetting = false;
      this.#listening = true;
    }
    this.onLive();
  }

  /**
   * Resets one queue while the others go on. Its requests in flight reject with `DEVICE_RESET`.
   *
   * @param index the index of the queue
   * @throws {@link VirtioError} `UNSUPPORTED` unless `VIRTIO_F_RING_RESET` was negotiated, `INVALID_PARAM` if the driver has no
   * such queue, `NOT_READY` if the device does not stop using it
   * @see VIRTIO 1.4, 2.6.1
   */
  resetQueue(index: number): void {
    this.checkUsable();
    const entry = this.#queues.find(index);
    if (entry === undefined) {
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
    const { queue, driverQueue } = entry;
    driverQueue?.lose(lost);
    this.#listening = false;
    this.#early = undefined;
    try {
      this.transport.queueReset(index);
      driverQueue?.forget(lost);
      queue.reset();
      driverQueue?.restart();
      this.#listening = true;
      driverQueue?.start();
    } catch (error) {
      this.#listening = true;
      this.#report(error as VirtioError);
      throw error;
    }
    this.onQueueReset(queue);
    this.#catchUp();
  }

  /** Resets the device, rejects all requests in flight, frees all memory and releases the transport. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const error = this.#disposedError();
    const failed = this.#failure !== undefined;
    this.#failure = error;
    this.#queues.fail(error);
    if (!failed) this.onFailure(error);
    this.#stop();
    this.#queues.forget(error);
    this.onDispose();
    this.#release();
    this.transport.unclaim(this);
    this.transport[Symbol.dispose]();
  }

  /** Ends all requests in flight. */
  #end(error: VirtioError): void {
    this.#failure = error;
    this.#queues.fail(error);
    this.onFailure(error);
  }

  #isFailed(): boolean {
    return this.#failure !== undefined;
  }

  #checkOpen(): void {
    if (this.#disposed) throw this.#disposedError();
  }

  #disposedError(): VirtioError {
    return new VirtioError(
      'DISPOSED',
      `the driver of ${this.transport.who()} is disposed; open the device anew`,
    );
  }

  /** Initialization failed. Nothing is in flight, as the device never became live, but it has the queues' addresses. */
  #giveUp(): void {
    try {
      this.transport.setStatus(this.transport.getStatus().with(DeviceStatus.FAILED));
      this.#stop();
      this.#release();
      this.transport.setStatus(DeviceStatus.from(DeviceStatus.FAILED));
      this.transport.unclaim(this);
    } catch {
      // The device did not stop: its memory stays allocated, and the first error is the one that counts.
      return;
    }
  }

  /** A device that was removed can no longer reach memory. One that does not stop may still write: its memory is leaked. */
  #stop(): void {
    try {
      this.transport.reset();
    } catch (cause) {
      if (!VirtioError.is(cause, 'DEVICE_REMOVED')) throw cause;
    }
  }

  #release(): void {
    const { interrupts } = this.transport;
    interrupts?.onConfig(undefined);
    interrupts?.onRemoval(undefined);
    this.#queues.release(interrupts);
    for (const region of this.#regions.splice(0)) this.hal.dmaDealloc(region, this.accessPlatform);
  }

  readonly #configInterrupt = (): void => {
    if (this.#listening) this.#changes.call();
    else this.#early ??= this.#configInterrupt;
  };

  /** Looks at what the device has interrupted for while no event could be reported. */
  #catchUp(): void {
    const early = this.#early;
    this.#early = undefined;
    early?.();
  }

  /** Checks whether the device still works; if so, and its configuration may have `changed`, reads it again. */
  #look(changed: boolean): void {
    if (this.#failure !== undefined) return;
    if (changed) this.#generation = this.transport.readConfigGeneration();
    try {
      this.transport.checkAlive();
      if (!changed) return;
      this.#queues.configChanged();
      this.onConfigChange();
    } catch (error) {
      // An error of a listener is not an error of the device.
      if (!VirtioError.is(error)) throw error;
      this.fail(error);
    }
  }

  readonly #removal = (): void => {
    if (this.#listening) this.fail(this.transport.removed());
    else this.#early = this.#removal;
  };

  readonly #report = (error: VirtioError): void => {
    const thrown: unknown = asError(error);
    this.fail(thrown as VirtioError);
  };
}
