/** A transport on top of another that reports each register access by name, and watches the queues. */
import type { DeviceStatus, InterruptStatus } from '../device/device-status.ts';
import type { DeviceType } from '../device/device-type.ts';
import { CommonFeatures, type FeatureTable } from '../device/features.ts';
import { type InterruptSource, PollingInterrupts } from '../device/interrupts.ts';
import { type SharedMemory, Transport } from '../device/transport.ts';
import type { VirtioError } from '../errors.ts';
import { type DmaRegion, PAGE_SIZE } from '../memory/hal.ts';
import type { QueueCalls } from '../ring/queue-calls.ts';
import type { QueueSignals } from '../threads/queue-plan.ts';
import { type Names, namesOf } from './register-names.ts';

import type { TraceEvent, TraceOptions } from './trace-event.ts';
import type { TracedHal } from './traced-hal.ts';
import { TracedInterrupts } from './traced-interrupts.ts';
import { traceQueue } from './traced-queue.ts';

/** What stands in the parentheses of `DeviceStatus(…)`. */
const inner = (text: string): string => text.slice(text.indexOf('(') + 1, -1);

export class TracedTransport extends Transport {
  override readonly deviceType: DeviceType;
  override readonly name: string;
  override readonly interrupts: InterruptSource | undefined;
  readonly #transport: Transport;
  readonly #memory: TracedHal;
  readonly #tell: (event: TraceEvent) => void;
  readonly #features: FeatureTable<string>;
  readonly #names: Names;

  constructor(
    transport: Transport,
    memory: TracedHal,
    tell: (event: TraceEvent) => void,
    { features = CommonFeatures, names }: TraceOptions,
  ) {
    super();
    this.#transport = transport;
    this.#memory = memory;
    this.#tell = tell;
    this.#features = features;
    this.deviceType = transport.deviceType;
    this.name = transport.name;
    const kind = names ?? (transport.name.startsWith('MMIO') ? 'mmio' : 'pci');
    this.#names = namesOf(kind, transport.requiresLegacyLayout());
    const { interrupts } = transport;
    // Polling calls its handlers at each turn of the event loop; that is not an interrupt.
    this.interrupts =
      interrupts === undefined || interrupts instanceof PollingInterrupts
        ? interrupts
        : new TracedInterrupts(interrupts, tell);
  }

  override claim(driver: object): void {
    this.#transport.claim(driver);
  }

  override unclaim(driver: object): void {
    this.#transport.unclaim(driver);
  }

  override readDeviceFeatures(): bigint {
    const value = this.#transport.readDeviceFeatures();
    this.#register('read', this.#names.deviceFeatures, value, { text: inner(this.#features.format(value)) });
    return value;
  }

  override writeDriverFeatures(value: bigint): void {
    this.#register('write', this.#names.driverFeatures, value, { text: inner(this.#features.format(value)) });
    this.#transport.writeDriverFeatures(value);
  }

  override maxQueueSize(queue: number): number {
    const value = this.#transport.maxQueueSize(queue);
    this.#register('read', this.#names.maxSize, value, { queue });
    return value;
  }

  override notify(queue: number, next: number): void {
    this.#tell({ kind: 'notify', queue, next });
    this.#transport.notify(queue, next);
  }

  override getStatus(): DeviceStatus {
    const status = this.#transport.getStatus();
    this.#register('read', this.#names.status, status.bits, { text: inner(status.toString()) });
    return status;
  }

  override setStatus(status: DeviceStatus): void {
    const text = status.bits === 0 ? 'reset' : inner(status.toString());
    this.#register('write', this.#names.status, status.bits, { text });
    this.#transport.setStatus(status);
  }

  override setGuestPageSize(size: number): void {
    this.#register('write', this.#names.pageSize, size);
    this.#transport.setGuestPageSize(size);
  }

  override requiresLegacyLayout(): boolean {
    return this.#transport.requiresLegacyLayout();
  }

  override queueSet(
    queue: number,
    size: number,
    descriptors: number,
    driverArea: number,
    deviceArea: number,
    unused?: () => number,
  ): void {
    const names = this.#names;
    this.#register('write', names.size, size, { queue });
    if (this.requiresLegacyLayout()) {
      // One region for all areas, reported by its page.
      this.#register('write', names.align, PAGE_SIZE, { queue });
      this.#register('write', names.descriptors, Math.floor(descriptors / PAGE_SIZE), { queue });
    } else {
      this.#register('write', names.descriptors, descriptors, { queue });
      this.#register('write', names.driverArea, driverArea, { queue });
      this.#register('write', names.deviceArea, deviceArea, { queue });
      this.#register('write', names.enable, 1, { queue });
    }
    this.#transport.queueSet(queue, size, descriptors, driverArea, deviceArea, unused);
  }

  override queueUnset(queue: number): void {
    this.#register('write', this.#names.enable, 0, { queue });
    this.#transport.queueUnset(queue);
  }

  override queueUsed(queue: number): boolean {
    const used = this.#transport.queueUsed(queue);
    this.#register('read', this.#names.enable, used ? 1 : 0, { queue });
    return used;
  }

  override queueReset(queue: number): void {
    this.#register('write', this.#names.reset, 1, { queue });
    this.#transport.queueReset(queue);
  }

  override ackInterrupt(): InterruptStatus {
    const status = this.#transport.ackInterrupt();
    this.#register('read', this.#names.isr, status.bits, { text: inner(status.toString()) });
    return status;
  }

  override readConfigGeneration(): number {
    const value = this.#transport.readConfigGeneration();
    this.#register('read', this.#names.generation, value);
    return value;
  }

  override get configSize(): number {
    return this.#transport.configSize;
  }

  override readConfig(offset: number, width: 1 | 2 | 4): number {
    const value = this.#transport.readConfig(offset, width);
    this.#register('read', this.#names.config, value, { offset, width });
    return value;
  }

  override writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    this.#register('write', this.#names.config, value, { offset, width });
    this.#transport.writeConfig(offset, width, value);
  }

  override sharedMemory(id: number): SharedMemory | undefined {
    return this.#transport.sharedMemory(id);
  }

  // Methods that a transport may override are forwarded to the transport below.

  override reset(): void {
    this.#register('write', this.#names.status, 0, { text: 'reset' });
    this.#transport.reset();
    this.#register('read', this.#names.status, 0, { text: '0' });
  }

  override finishInit(): void {
    this.getStatus();
    this.#change(() => {
      this.#transport.finishInit();
    });
  }

  override readConsistent<T>(read: () => T): T {
    // Legacy transports have no generation, whose reads are reported elsewhere, and do it in their own way [2.5.4].
    return this.requiresLegacyLayout() ? this.#transport.readConsistent(read) : super.readConsistent(read);
  }

  override checkAlive(): void {
    this.#transport.checkAlive();
  }

  override checkResettable(): void {
    this.#transport.checkResettable();
  }

  override look(): void {
    this.#transport.look();
  }

  override removed(): VirtioError {
    return this.#transport.removed();
  }

  override fail(error: VirtioError): VirtioError {
    this.#change(() => {
      this.#transport.fail(error);
    });
    return error;
  }

  override lendQueue(queue: number): QueueSignals {
    return this.#transport.lendQueue(queue);
  }

  override ringMemory(queue: number): readonly DmaRegion[] | undefined {
    return this.#transport.ringMemory(queue);
  }

  override [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }

  override watchQueue(queue: QueueCalls): void {
    this.#transport.watchQueue(queue);
    traceQueue(queue, this.#tell, this.#memory);
  }

  /** Runs what changes the status, and reports the change. */
  #change(body: () => void): void {
    const { bits } = this.#transport.getStatus();
    body();
    const after = this.#transport.getStatus();
    if (after.bits !== bits) {
      this.#register('write', this.#names.status, after.bits, { text: inner(after.toString()) });
    }
  }

  #register(
    access: 'read' | 'write',
    register: string,
    value: number | bigint,
    more: { queue?: number; text?: string; offset?: number; width?: 1 | 2 | 4 } = {},
  ): void {
    this.#tell({ kind: 'register', access, register, value, ...more });
  }
}
