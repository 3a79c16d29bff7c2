/** A transport without registers: each call of the driver goes straight to a {@link FakeDevice}. */
import {
  type DeviceStatus,
  DeviceStatus as Status,
  type DeviceType,
  InterruptStatus,
  type QueueSignals,
  type SharedMemory,
  Transport,
  VirtioError,
} from '@virtio/core';
import type { FakeDevice } from './fake-device.ts';
import { FakeInterrupts } from './fake-interrupts.ts';

const MAX_QUEUE = 0xffff;

/** Options of {@link FakeTransport}. */
export interface FakeTransportOptions {
  /** How the device interrupts (default a new {@link FakeInterrupts}); `false` for a transport without interrupts. */
  readonly interrupts?: FakeInterrupts | false;
  /** The name in messages (default `fake`). */
  readonly name?: string;
}

/** A {@link Transport} for tests. */
export class FakeTransport extends Transport {
  readonly device: FakeDevice;
  readonly name: string;
  override readonly interrupts: FakeInterrupts | undefined;
  /** How often the transport was disposed. */
  disposed = 0;
  /** The page size that the driver set on a legacy device. */
  guestPageSize = 0;

  #pending = 0;
  /** The driver that has the transport. */
  #holder: object | undefined;

  constructor(device: FakeDevice, { interrupts, name = 'fake' }: FakeTransportOptions = {}) {
    super();
    this.device = device;
    this.name = name;
    this.interrupts = interrupts === false ? undefined : (interrupts ?? new FakeInterrupts());
    device.front = {
      interruptQueue: (queue) => {
        this.#pending |= InterruptStatus.QUEUE_INTERRUPT;
        this.interrupts?.fireQueue(queue);
      },
      interruptConfig: () => {
        this.#pending |= InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT;
        this.interrupts?.fireConfig();
      },
      removed: () => this.interrupts?.fireRemoval(),
      reset: () => {
        this.#pending = 0;
      },
    };
  }

  override get deviceType(): DeviceType {
    return this.device.type as DeviceType;
  }

  override get configSize(): number {
    return this.device.config.length;
  }

  override readDeviceFeatures(): bigint {
    return this.device.features;
  }

  override writeDriverFeatures(features: bigint): void {
    this.device.writeFeatures(features);
  }

  override maxQueueSize(queue: number): number {
    // Notifications have 16 bits for the index.
    return queue > MAX_QUEUE ? 0 : (this.device.queueState(queue)?.maxSize ?? 0);
  }

  override notify(queue: number, next: number): void {
    this.device.notify(queue, this.device.notificationData ? next : 0);
  }

  override getStatus(): DeviceStatus {
    return Status.from(this.device.readStatus());
  }

  override setStatus(status: DeviceStatus): void {
    this.device.writeStatus(status.bits);
  }

  override setGuestPageSize(size: number): void {
    this.guestPageSize = size;
  }

  override requiresLegacyLayout(): boolean {
    return this.device.legacy;
  }

  override queueSet(
    queue: number,
    size: number,
    descriptors: number,
    driverArea: number,
    deviceArea: number,
  ): void {
    const state = this.device.queueState(queue);
    if (!state) throw this.device.violated(`queue ${queue} was set up, but does not exist`);
    state.size = size;
    state.descriptors = descriptors;
    state.driverArea = driverArea;
    state.deviceArea = deviceArea;
    this.device.enableQueue(queue);
  }

  override queueUnset(queue: number): void {
    this.device.disableQueue(queue);
  }

  override queueUsed(queue: number): boolean {
    return this.device.queueState(queue)?.ring !== undefined;
  }

  override queueReset(queue: number): void {
    if (!this.device.has('RING_RESET')) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()}: RING_RESET was not negotiated; reset the whole device`,
      );
    }
    this.device.disableQueue(queue);
  }

  /** Uses the queue's index in place of a descriptor, for {@link FakeThread}. */
  override lendQueue(queue: number): QueueSignals {
    return { doorbell: { kind: 'descriptor', descriptor: queue }, interrupt: queue };
  }

  override ackInterrupt(): InterruptStatus {
    const pending = this.#pending;
    this.#pending = 0;
    return InterruptStatus.from(pending);
  }

  override readConfigGeneration(): number {
    return this.device.generation;
  }

  override readConfig(offset: number, width: 1 | 2 | 4): number {
    return this.device.readConfig(offset, width);
  }

  override writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    this.device.writeConfig(offset, width, value);
  }

  override sharedMemory(id: number): SharedMemory | undefined {
    return this.device.sharedMemory[id];
  }

  override claim(driver: object): void {
    super.claim(driver);
    this.#holder = driver;
  }

  override unclaim(driver: object): void {
    super.unclaim(driver);
    if (this.#holder === driver) this.#holder = undefined;
  }

  /** Resets the device. A driver that still has the transport is told that the device is gone, and reaches it no more. */
  override [Symbol.dispose](): void {
    this.disposed += 1;
    if (this.device.removed) return;
    if (this.device.status.bits !== 0) this.device.writeStatus(0);
    if (this.#holder !== undefined) this.device.remove();
  }
}
