/**
 * A device without a transport: features, status, configuration space, queues and the handling of requests. A
 * {@link FakeTransport}, {@link FakeMmioDevice} or {@link FakePciDevice} in front of it gives a driver access.
 *
 * It is as strict about initialization as {@link DeviceQueue} is about rings. For the test, each thing that a device may do, should
 * do or must not do is one call or one property.
 */
import { DeviceStatus, Feature, type SharedMemory } from '@virtio/core';
import type { Chain } from './chain.ts';
import { type DeviceQueue, DriverViolation } from './device-queue.ts';
import { FakeHal } from './fake-hal.ts';
import { PackedDeviceQueue } from './packed-device-queue.ts';
import { SplitDeviceQueue } from './split-device-queue.ts';

const ALL_ONES = 0xff;
const { ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, DEVICE_NEEDS_RESET, FAILED } = DeviceStatus;

const mask = (feature: keyof typeof Feature): bigint => 1n << BigInt(Feature[feature]);

/** Options of {@link FakeDevice}. */
export interface FakeDeviceOptions {
  /** The device's type. */
  readonly type: number;
  /** The features that it offers. `VERSION_1` is added unless `legacy` is set. */
  readonly features?: bigint;
  /** The configuration space: its bytes, or its size in bytes. */
  readonly config?: Uint8Array | number;
  /** The largest size of each queue (default one queue of 256). */
  readonly queues?: readonly number[];
  /** The driver's platform (default a new one). */
  readonly hal?: FakeHal;
  /** Whether the device has the legacy interface only (default false). */
  readonly legacy?: boolean;
  /** Shared memory regions by id. */
  readonly sharedMemory?: Readonly<Record<number, SharedMemory>>;
}

/**
 * Handles a request for the device. When it returns, or when its promise resolves, the chain is completed with the bytes that were
 * written to it, unless the handler completed it itself or called {@link Chain.defer}.
 */
export type ChainHandler = ((chain: Chain) => void) | ((chain: Chain) => Promise<void>);

/** A queue of a {@link FakeDevice}. */
export interface FakeQueue {
  /** The largest size that the device supports; 0 if there is no such queue. */
  maxSize: number;
  /** The size that the driver chose. */
  size: number;
  descriptors: number;
  driverArea: number;
  deviceArea: number;
  /** The ring, once the driver enabled the queue. */
  ring: DeviceQueue | undefined;
  /** How often the driver notified of this queue. */
  notifications: number;
  /** How many more times a reset of this queue reads as incomplete. */
  resetReads: number;
}

/** A notification that the driver sent. */
export interface Notification {
  readonly queue: number;
  /** The upper half of the notification data, 0 without `VIRTIO_F_NOTIFICATION_DATA`. */
  readonly next: number;
}

/** What a device needs of the transport in front of it. */
export interface DeviceFront {
  interruptQueue(queue: number): void;
  interruptConfig(): void;
  /** Called when the device was unplugged. */
  removed(): void;
  /** Called when the driver has reset the device. */
  reset(): void;
}

/** A device for tests. */
export class FakeDevice {
  readonly type: number;
  readonly hal: FakeHal;
  readonly legacy: boolean;
  /** The features that it offers; a test may change them before a reset. */
  features: bigint;
  /** The configuration space. */
  readonly config: Uint8Array<ArrayBuffer>;
  /** The generation of the configuration space. */
  generation = 0;
  /** The queues. */
  readonly queues: readonly FakeQueue[];
  readonly sharedMemory: Readonly<Record<number, SharedMemory>>;

  /** Each value that the driver wrote to the status register. */
  readonly statusWrites: number[] = [];
  /** Each notification, while {@link FakeDevice.recordNotifications} is set. */
  readonly notifications: Notification[] = [];
  /** Whether notifications are recorded (default true); {@link FakeQueue.notifications} counts them in any case. */
  recordNotifications = true;
  /** The driver's violations of the specification. */
  readonly violations: DriverViolation[] = [];

  /** Whether requests are handled as soon as the driver notifies (default true); otherwise when {@link FakeDevice.run} is called. */
  automatic = true;
  /** Decides whether FEATURES_OK stays set. */
  acceptsFeatures: (features: bigint) => boolean = () => true;
  /** Whether a reset never completes. */
  resetHangs = false;
  /** How many reads of the status still return the old value after a reset was requested. */
  resetReads = 0;
  /** How many reads of the queue reset register still return 1 after a queue reset was requested. */
  queueResetReads = 0;
  /** Called for each notification, before requests are handled. */
  onNotify: ((queue: number, next: number) => void) | undefined;
  /** Called after the driver wrote to the configuration space. */
  onConfigWrite: ((offset: number, width: 1 | 2 | 4, value: number) => void) | undefined;
  /** Called before the driver reads the configuration space. */
  onConfigRead: ((offset: number, width: 1 | 2 | 4) => void) | undefined;
  /** Called when the driver has reset the device. */
  onReset: (() => void) | undefined;
  /** Called when the driver has set DRIVER_OK. */
  onDriverOk: (() => void) | undefined;
  /** Returns the order in which the requests of one run are completed, all at once (default: each one as soon as it is handled). */
  reorder: ((chains: Chain[]) => readonly Chain[]) | undefined;

  /** The transport in front of the device. */
  front: DeviceFront | undefined;

  readonly #handlers = new Map<number, ChainHandler>();
  #accepted = 0n;
  #notificationData = false;
  #status = 0;
  #pendingReset = 0;
  /** Whether the driver has read the status since it set FEATURES_OK. */
  #featuresChecked = false;
  #removed = false;
  #running = false;
  readonly #toRun = new Set<number>();

  /**
   * @example
   * ```ts
   * import { DeviceType } from '@virtio/core';
   * import { FakeDevice, FakeTransport } from '@virtio/testing';
   *
   * const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [8] });
   * device.handle(0, (chain) => {
   *   chain.write(new Uint8Array(chain.writable).fill(7));
   * });
   * const transport = new FakeTransport(device);
   * // new VirtioRng(transport, device.hal)
   * console.log(transport.name);
   * ```
   */
  constructor(options: FakeDeviceOptions) {
    const { type, features = 0n, config = 0, queues = [256], legacy = false } = options;
    this.type = type;
    this.legacy = legacy;
    this.features = legacy ? features & 0xffffffffn : features | mask('VERSION_1');
    this.config = typeof config === 'number' ? new Uint8Array(config) : Uint8Array.from(config);
    this.hal = options.hal ?? new FakeHal();
    this.sharedMemory = options.sharedMemory ?? {};
    this.queues = queues.map((maxSize) => ({
      maxSize,
      size: 0,
      descriptors: 0,
      driverArea: 0,
      deviceArea: 0,
      ring: undefined,
      notifications: 0,
      resetReads: 0,
    }));
    this.hal.onRelease((address, length, what) => {
      this.#released(address, length, what);
    });
  }

  // Called by tests.

  /** Sets the handler for requests of a queue. Requests of queues without a handler wait until a test takes them. */
  handle(queue: number, handler: ChainHandler): this {
    this.#handlers.set(queue, handler);
    return this;
  }

  /**
   * The ring of a queue, to take chains by hand or to lie.
   *
   * @throws Error if the driver has not enabled it
   */
  queue(index: number): DeviceQueue {
    const ring = this.queues[index]?.ring;
    if (!ring) throw new Error(`the driver has not enabled queue ${index}`);
    return ring;
  }

  /** The ring of a queue, which must be split. */
  splitQueue(index: number): SplitDeviceQueue {
    const ring = this.queue(index);
    if (ring instanceof SplitDeviceQueue) return ring;
    throw new Error(`queue ${index} is packed`);
  }

  /** The ring of a queue, which must be packed. */
  packedQueue(index: number): PackedDeviceQueue {
    const ring = this.queue(index);
    if (ring instanceof PackedDeviceQueue) return ring;
    throw new Error(`queue ${index} is split`);
  }

  /**
   * Handles all requests that are available, of one queue or of all that have a handler.
   *
   * @returns how many there were
   */
  run(queue?: number): number {
    if (!this.#mayWork()) return 0;
    for (const index of queue === undefined ? this.#handlers.keys() : [queue]) this.#toRun.add(index);
    // A handler may cause the driver to notify of another queue, which is handled afterwards.
    if (this.#running) return 0;
    this.#running = true;
    try {
      let count = 0;
      for (const index of this.#toRun) {
        this.#toRun.delete(index);
        count += this.#runQueue(index);
      }
      return count;
    } finally {
      this.#running = false;
      this.#toRun.clear();
    }
  }

  /**
   * Sends data without a request: writes it to the next available buffer and completes that.
   *
   * @returns false if the queue has no available buffer
   */
  send(queue: number, bytes: ArrayLike<number>): boolean {
    if (!this.#mayWork()) return false;
    const chain = this.queue(queue).pop();
    if (!chain) return false;
    chain.write(bytes).complete();
    return true;
  }

  /** Changes the configuration space and its generation, and interrupts the driver. */
  changeConfig(change: (config: DataView<ArrayBuffer>) => void): void {
    change(new DataView(this.config.buffer));
    this.generation = (this.generation + 1) >>> 0;
    if (this.#isLive()) this.front?.interruptConfig();
  }

  /** Sets DEVICE_NEEDS_RESET, and interrupts a driver that has set DRIVER_OK [2.1.2]. */
  needsReset(): void {
    const live = this.#isLive();
    this.#status |= DEVICE_NEEDS_RESET;
    if (live) this.front?.interruptConfig();
  }

  /** Unplugs the device: its registers read as all ones from now on. */
  remove(): void {
    this.#removed = true;
    for (const queue of this.queues) queue.ring?.detach();
    this.front?.removed();
  }

  /** Whether {@link FakeDevice.remove} was called. */
  get removed(): boolean {
    return this.#removed;
  }

  /** The status as the device sees it. */
  get status(): DeviceStatus {
    return DeviceStatus.from(this.#status);
  }

  /** The features that the driver wrote. */
  get accepted(): bigint {
    return this.#accepted;
  }

  /** Whether `VIRTIO_F_NOTIFICATION_DATA` was negotiated. */
  get notificationData(): boolean {
    return this.#notificationData;
  }

  /** Whether a feature was negotiated. */
  has(feature: keyof typeof Feature): boolean {
    return (this.accepted & mask(feature)) !== 0n;
  }

  /**
   * Checks that there were no violations, and that all memory was given back.
   *
   * @throws Error that lists what is wrong
   */
  assertClean(): void {
    this.assertObeyed();
    this.hal.assertClean();
  }

  /**
   * Checks that there were no violations.
   *
   * @throws Error that lists what is wrong
   */
  assertObeyed(): void {
    if (this.violations.length === 0) return;
    throw new Error(
      `the driver violated the specification:\n- ${this.violations.map(({ message }) => message).join('\n- ')}`,
    );
  }

  // Called by the transport in front of the device.

  /** Records a violation; the caller throws it if it can. */
  violated(what: string): DriverViolation {
    const violation = new DriverViolation(what);
    this.violations.push(violation);
    return violation;
  }

  /** Reads the status register. */
  readStatus(): number {
    if (this.#removed) return ALL_ONES;
    this.#featuresChecked = true;
    if (this.#pendingReset > 0) {
      this.#pendingReset -= 1;
      if (this.#pendingReset === 0) this.#finishReset();
      else return this.#status;
    }
    return this.#status;
  }

  /** Writes the status register. */
  writeStatus(value: number): void {
    this.statusWrites.push(value);
    if (this.#removed) return;
    if (value === 0) {
      this.#startReset();
      return;
    }
    const before = this.#status;
    const added = value & ~before;
    if (this.#pendingReset > 0) {
      this.violated(
        `the status was set to ${String(DeviceStatus.from(value))} before it read as 0 after a reset [4.1.4.3.2]`,
      );
    }
    if ((before & ~value & ~DEVICE_NEEDS_RESET) !== 0) {
      this.violated(
        `the status went from ${String(this.status)} to ${String(DeviceStatus.from(value))}: a bit was cleared [2.1.1]`,
      );
    }
    if ((before & FAILED) !== 0 && (added & ~FAILED) !== 0) {
      this.violated('initialization went on after FAILED without a reset [2.1.1]');
    }
    if ((added & DRIVER) !== 0 && (value & ACKNOWLEDGE) === 0) {
      this.violated('DRIVER was set before ACKNOWLEDGE [3.1.1]');
    }
    this.#status = value | (before & DEVICE_NEEDS_RESET);
    if ((added & FEATURES_OK) !== 0) {
      this.#featuresChecked = false;
      this.#negotiate(value);
    }
    if ((added & DRIVER_OK) !== 0) {
      this.#checkFeaturesRead('DRIVER_OK was set');
      if ((value & DRIVER) === 0) this.violated('DRIVER_OK was set before DRIVER [3.1.1]');
      if (!this.legacy && (this.#status & FEATURES_OK) === 0) {
        this.violated('DRIVER_OK was set without FEATURES_OK [3.1.1]');
      }
      this.onDriverOk?.();
    }
  }

  /** Writes the features that the driver accepts. */
  writeFeatures(features: bigint): void {
    if ((this.#status & FEATURES_OK) !== 0) this.violated('features were written after FEATURES_OK [3.1.1]');
    this.#accept(features);
    if (this.legacy && (features & ~this.features) !== 0n) {
      this.violated(
        `features 0x${(features & ~this.features).toString(16)} were accepted, but not offered [2.2.1]`,
      );
    }
  }

  /** A queue by its index; `undefined`, or a queue of maximum size 0, if there is no such queue. */
  queueState(index: number): FakeQueue | undefined {
    return this.queues[index];
  }

  /**
   * Handles that the driver enables a queue, whose size and addresses are set.
   *
   * @throws {@link DriverViolation} if it set it up wrongly
   */
  enableQueue(index: number): void {
    const queue = this.queues[index];
    if (!queue || queue.maxSize === 0) throw this.violated(`queue ${index} was enabled, but does not exist`);
    if (queue.ring) throw this.violated(`queue ${index} was enabled twice`);
    if (!this.legacy && (this.#status & FEATURES_OK) === 0) {
      this.violated(`queue ${index} was enabled before FEATURES_OK [3.1.1]`);
    }
    this.#checkFeaturesRead(`queue ${index} was enabled`);
    if (queue.size > queue.maxSize) {
      throw this.violated(
        `queue ${index} was given ${queue.size} descriptors; ${queue.maxSize} is the limit [4.2.2.2]`,
      );
    }
    const options = {
      memory: this.hal,
      size: queue.size,
      descriptors: queue.descriptors,
      driverArea: queue.driverArea,
      deviceArea: queue.deviceArea,
      indirect: this.has('INDIRECT_DESC'),
      eventIdx: this.has('EVENT_IDX'),
      inOrder: this.has('IN_ORDER'),
      interrupt: () => this.front?.interruptQueue(index),
      onViolation: (violation: DriverViolation) => this.violations.push(violation),
    };
    queue.ring = this.has('RING_PACKED') ? new PackedDeviceQueue(options) : new SplitDeviceQueue(options);
  }

  /** Handles that the driver resets one queue or takes it back. */
  disableQueue(index: number): void {
    const queue = this.queues[index];
    if (!queue) return;
    queue.ring?.detach();
    queue.ring = undefined;
    queue.size = 0;
    queue.descriptors = 0;
    queue.driverArea = 0;
    queue.deviceArea = 0;
  }

  /** Handles a notification of a queue. */
  notify(index: number, next: number): void {
    if (this.#removed) return;
    const queue = this.queues[index];
    if (!queue?.ring) throw this.violated(`the driver notified of queue ${index}, which is not enabled`);
    queue.notifications += 1;
    if (this.recordNotifications) this.notifications.push({ queue: index, next });
    if (!this.#isLive() && !this.legacy) {
      throw this.violated(`the driver notified of queue ${index} before DRIVER_OK [3.1.1]`);
    }
    if (this.#notificationData && next !== queue.ring.expectedNext()) {
      throw this.violated(
        `the notification of queue ${index} says that 0x${next.toString(16)} is next; it is ` +
          `0x${queue.ring.expectedNext().toString(16)} [2.9, 2.8.16]`,
      );
    }
    this.onNotify?.(index, next);
    if (this.automatic) this.run(index);
  }

  /** Reads the configuration space. */
  readConfig(offset: number, width: 1 | 2 | 4): number {
    if (this.#removed) return width === 4 ? 0xffffffff : 2 ** (8 * width) - 1;
    this.#checkConfig(offset, width);
    this.onConfigRead?.(offset, width);
    let value = 0;
    for (let i = width - 1; i >= 0; i -= 1) value = value * 256 + (this.config[offset + i] ?? 0);
    return value;
  }

  /** Writes the configuration space. */
  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    if (this.#removed) return;
    this.#checkConfig(offset, width);
    if (!this.legacy && (this.#status & FEATURES_OK) === 0) {
      this.violated('the configuration was written before FEATURES_OK [3.1.1]');
    }
    for (let i = 0; i < width; i += 1) this.config[offset + i] = value >>> (8 * i);
    this.onConfigWrite?.(offset, width, value);
  }

  #accept(features: bigint): void {
    this.#accepted = features;
    this.#notificationData = this.has('NOTIFICATION_DATA');
  }

  #checkConfig(offset: number, width: number): void {
    if (offset % width !== 0) {
      this.violated(
        `${width} bytes of the configuration were accessed at ${offset}, not aligned [4.1.3.1, 4.2.2.2]`,
      );
    }
    if (offset + width > this.config.length) {
      throw this.violated(
        `the configuration was accessed at ${offset} to ${offset + width}; it has ${this.config.length} bytes`,
      );
    }
  }

  #checkFeaturesRead(what: string): void {
    if (this.#featuresChecked || (this.#status & FEATURES_OK) === 0) return;
    this.violated(`${what}, and the status was not read after FEATURES_OK [3.1.1]`);
  }

  #isLive(): boolean {
    return (this.#status & DRIVER_OK) !== 0;
  }

  /** 2.1.2: a device uses no buffers before DRIVER_OK; a legacy device may. */
  #mayWork(): boolean {
    return !this.#removed && this.#pendingReset === 0 && (this.#isLive() || this.legacy);
  }

  #negotiate(value: number): void {
    if (this.legacy) this.violated('FEATURES_OK was set through the legacy interface [3.1.2]');
    const extra = this.accepted & ~this.features;
    if (extra !== 0n) {
      this.violated(`features 0x${extra.toString(16)} were accepted, but not offered [2.2.1]`);
    }
    if (!this.legacy && !this.has('VERSION_1')) {
      this.violated('VERSION_1 was offered, but not accepted [6.1]');
    }
    if (extra !== 0n || !this.acceptsFeatures(this.accepted)) this.#status = value & ~FEATURES_OK;
  }

  #startReset(): void {
    if (this.resetHangs) {
      this.#pendingReset = Infinity;
    } else if (this.resetReads > 0) {
      this.#pendingReset = this.resetReads + 1;
    } else {
      this.#finishReset();
    }
  }

  #finishReset(): void {
    this.#pendingReset = 0;
    this.#status = 0;
    this.#accept(0n);
    this.queues.forEach((queue, index) => {
      this.disableQueue(index);
      queue.resetReads = 0;
    });
    this.front?.reset();
    this.onReset?.();
  }

  #runQueue(index: number): number {
    const ring = this.queues[index]?.ring;
    const handler = this.#handlers.get(index);
    if (!ring || !handler) return 0;
    let count = 0;
    const done: Chain[] = [];
    while (ring.live) {
      const chain = ring.pop();
      if (!chain) break;
      count += 1;
      const result: unknown = handler(chain);
      if (result instanceof Promise) {
        void result.then(() => {
          if (!chain.deferred && chain.pending) chain.complete();
        });
      } else if (!chain.deferred && chain.pending) {
        if (this.reorder) done.push(chain);
        else ring.complete(chain);
      }
    }
    if (this.reorder && done.length > 0 && ring.live) ring.completeBatch(this.reorder(done));
    return count;
  }

  #released(address: number, length: number, what: string): void {
    if (this.#removed) return;
    this.queues.forEach((queue, index) => {
      if (queue.ring?.uses(address, length) === true) {
        this.violated(`a ${what} was taken back while queue ${index} of the device still uses it [2.6.1.1]`);
      }
    });
  }
}
