/**
 * The transport for queues of a device that another thread has: to a driver they look like a device of their own. The device's
 * registers cannot be accessed: features are those that were negotiated, the configuration space is a copy, and only the other
 * thread resets the device. The driver here then fails with `DEVICE_RESET`, and works again as soon as the device does.
 */
import { DeviceStatus, InterruptStatus } from '../device/device-status.ts';
import type { DeviceType } from '../device/device-type.ts';
import type { InterruptSource, Lookout } from '../device/interrupts.ts';
import { type SharedMemory, Transport } from '../device/transport.ts';
import { VirtioError } from '../errors.ts';
import type { DmaRegion } from '../memory/hal.ts';
import { ControlBlock } from './control-block.ts';
import type { PlannedQueue, QueuePlan, QueuePlatform } from './queue-plan.ts';

/** What a {@link QueueTransport} needs of its driver. */
export interface ThreadDriver extends Disposable {
  fail(error: VirtioError): void;
  reset(): void;
}

/** The interrupts of a thread: those of its queues come from the platform, the others from the thread that has the device. */
class ThreadInterrupts implements InterruptSource {
  readonly #queues: InterruptSource;
  config: (() => void) | undefined;

  constructor(queues: InterruptSource) {
    this.#queues = queues;
  }

  get lookout(): Lookout | undefined {
    return this.#queues.lookout;
  }

  onQueue(queue: number, handler: (() => void) | undefined): void {
    this.#queues.onQueue(queue, handler);
  }

  onConfig(handler: (() => void) | undefined): void {
    this.config = handler;
  }

  onRemoval(): void {
    // A removal is reported like any other failure.
  }

  hold(): void {
    this.#queues.hold();
  }

  release(): void {
    this.#queues.release();
  }

  defer(callback: () => void): void {
    this.#queues.defer(callback);
  }
}

/** The transport for queues of another thread's device; made by {@link openQueuePlan}. */
export class QueueTransport extends Transport {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly interrupts: InterruptSource | undefined;

  readonly #plan: QueuePlan;
  readonly #platform: QueuePlatform;
  readonly #control: ControlBlock;
  readonly #interrupts: ThreadInterrupts | undefined;
  readonly #set = new Set<number>();
  #driver: ThreadDriver | undefined;
  #status = 0;
  #accepted = 0n;
  #rings: 0 | 1 = 0;
  #resets = -1;
  #events = -1;
  #generation = 0;
  /** Whether the driver's entries in the rings are invalid: the device was reset, or the rings were claimed before it was live. */
  #stale = false;
  /** Whether the driver may reset itself: at its start and end, and after the device was reset. */
  #mayReset = true;
  #looking = false;
  #disposed = false;

  /**
   * @internal
   * @throws {@link VirtioError} `ALREADY_USED` if the plan was opened before
   */
  constructor(plan: QueuePlan, platform: QueuePlatform) {
    super();
    this.#plan = plan;
    this.#platform = platform;
    this.deviceType = plan.deviceType as DeviceType;
    this.name = `${plan.name}, queue ${plan.queues.map(({ index }) => index).join(' and ')}`;
    this.#interrupts = platform.interrupts && new ThreadInterrupts(platform.interrupts);
    this.interrupts = this.#interrupts;
    this.#control = new ControlBlock(plan.control);
    if (!this.#control.open()) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.name}: this plan was opened before, or the device is closed; make a new plan with the driver that has the device`,
      );
    }
    this.#claim();
  }

  /** @internal Starts to report changes of the device to the driver. */
  serve(driver: ThreadDriver): void {
    this.#driver = driver;
    this.#mayReset = false;
    this.#control.watchEvents(() => {
      this.look();
      return !this.#disposed;
    });
    this.look();
  }

  readDeviceFeatures(): bigint {
    return this.#plan.features;
  }

  writeDriverFeatures(features: bigint): void {
    this.#accepted = features;
  }

  maxQueueSize(queue: number): number {
    return this.#plan.queues[queue]?.size ?? 0;
  }

  notify(queue: number, next: number): void {
    this.look();
    // 3.1.1: not before the device is live; then the driver submits its buffers again.
    if (!this.#stale) this.#platform.notify(queue, next);
  }

  /** The driver here cannot accept fewer features than the other thread's: the rings are as that one negotiated. */
  getStatus(): DeviceStatus {
    const refused = this.#accepted !== this.#plan.features;
    return DeviceStatus.from(refused ? this.#status & ~DeviceStatus.FEATURES_OK : this.#status);
  }

  setStatus({ bits }: DeviceStatus): void {
    this.#status = bits;
    if (bits === 0) this.#set.clear();
  }

  setGuestPageSize(): void {
    return;
  }

  requiresLegacyLayout(): boolean {
    return this.#plan.legacy;
  }

  queueSet(queue: number, size: number): void {
    const planned = this.#planned(queue);
    if (size !== planned.size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.who()}: the queue has ${planned.size} descriptors, not ${size}; leave the option queueSize out`,
      );
    }
    this.#set.add(queue);
  }

  queueUnset(queue: number): void {
    this.#set.delete(queue);
  }

  queueUsed(queue: number): boolean {
    return this.#set.has(queue);
  }

  queueReset(queue: number): void {
    this.#planned(queue);
    this.checkResettable();
  }

  override ringMemory(queue: number): readonly DmaRegion[] {
    return this.#planned(queue).rings[this.#rings].map((memory) => this.#platform.attach(memory));
  }

  ackInterrupt(): InterruptStatus {
    this.look();
    return InterruptStatus.from(InterruptStatus.QUEUE_INTERRUPT);
  }

  readConfigGeneration(): number {
    return this.#control.configGeneration;
  }

  get configSize(): number {
    return this.#control.configSize;
  }

  readConfig(offset: number, width: 1 | 2 | 4): number {
    return this.#control.readConfig(offset, width);
  }

  writeConfig(offset: number, width: 1 | 2 | 4): void {
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.who()}: ${width} bytes of the configuration space at ${offset} cannot be written here; ` +
        'write them in the thread that has the device',
    );
  }

  sharedMemory(): SharedMemory | undefined {
    return undefined;
  }

  override fail(error: VirtioError): VirtioError {
    // A set-up that fails here is not the device's fault.
    if (this.#driver !== undefined) this.#control.lied(this.#resets);
    return super.fail(error);
  }

  override checkAlive(): void {
    this.look();
  }

  override checkResettable(): void {
    if (this.#mayReset || this.#disposed) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.who()}: only the thread that has the device can reset it; this driver then works again by itself`,
    );
  }

  /** Checks whether the state of the device has changed. */
  override look(): void {
    const driver = this.#driver;
    if (driver === undefined || this.#looking) return;
    this.#looking = true;
    try {
      // Again, as there may have been another change meanwhile.
      while (!this.#disposed && this.#control.events !== this.#events) {
        this.#events = this.#control.events;
        this.#hear(driver);
      }
    } finally {
      this.#looking = false;
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#control.close();
    this.#control.stopListening();
    this.#platform.close(true);
  }

  #hear(driver: ThreadDriver): void {
    // In this order: the state is set before a reset is counted, so the state is no older than the count.
    const { resets } = this.#control;
    const { state } = this.#control;
    if (resets !== this.#resets || state === 'down') {
      this.#stale = true;
      driver.fail(
        new VirtioError(
          'DEVICE_RESET',
          `${this.who()} was reset by the thread that has it; whether this request was carried out is not known: ask again`,
        ),
      );
    }
    // A listener may have disposed the driver.
    if (this.#control.isClosed || state === 'down') return;
    if (state !== 'live') driver.fail(this.#error(state));
    else if (this.#stale) this.#restart(driver, resets);
    else this.#hearConfig();
  }

  /** The device is live again. */
  #restart(driver: ThreadDriver, resets: number): void {
    if (resets === this.#resets) this.#stale = false;
    else this.#claim();
    // Claimed during another reset, whose end will be reported.
    if (this.#isStale()) return;
    this.#mayReset = true;
    try {
      driver.reset();
    } catch (error) {
      // The driver has recorded why as its failure, and no caller waits here.
      if (!VirtioError.is(error)) throw error;
    } finally {
      this.#mayReset = false;
    }
  }

  #isStale(): boolean {
    return this.#stale;
  }

  #hearConfig(): void {
    const generation = this.#control.configGeneration;
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.#interrupts?.config?.();
  }

  /** Takes the current rings. They may be used if the device is live, as the other thread clears them before that. */
  #claim(): void {
    ({ rings: this.#rings, resets: this.#resets } = this.#control.claim());
    this.#generation = this.#control.configGeneration;
    this.#stale = this.#control.state !== 'live';
  }

  #error(code: VirtioError['code']): VirtioError {
    if (code === 'DEVICE_REMOVED') return this.removed();
    return new VirtioError(
      code,
      `${this.who()}: the thread that has the device reports that it has failed; reset it there, and this driver works again`,
    );
  }

  #planned(queue: number): PlannedQueue {
    const planned = this.#plan.queues[queue];
    if (planned !== undefined) return planned;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.who()} has no queue ${queue}; this thread has ${this.#plan.queues.length} of its queues`,
    );
  }
}
