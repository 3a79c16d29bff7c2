/**
 * A transport that tells what happens: every register that the driver reads or writes, by the specification's name, and every chain
 * when it is published and when it is used. It stands between any driver and any device, changes nothing, and costs nothing where
 * it is not used: queues are watched by functions that are put over their own, one queue at a time.
 */
import type { BufferDirection, DmaRegion, Hal } from '../memory/hal.ts';
import type { RegisterWindow } from '../memory/registers.ts';
import type { VirtQueue } from '../ring/virt-queue.ts';
import type { DeviceStatus, InterruptStatus } from './device-status.ts';
import type { DeviceType } from './device-type.ts';
import { CommonFeatures, type FeatureTable } from './features.ts';
import { type InterruptSource, PollingInterrupts } from './interrupts.ts';
import { type SharedMemory, Transport } from './transport.ts';

/** A buffer of a chain. */
export interface TracedBuffer {
  /** Where the device finds it. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Whether the device writes it; otherwise it reads it. */
  readonly writable: boolean;
  /**
   * Its first bytes, if `bytes` was asked for: of one that the device reads when the chain is published, of the others when it is used, if
   * they lie in DMA memory of the driver. What is copied comes later, as an event `data`.
   */
  readonly bytes: Uint8Array | undefined;
}

/** What happened. */
export type TraceEvent =
  /** A register was read or written. */
  | {
      readonly kind: 'register';
      readonly access: 'read' | 'write';
      /** The specification's name: `device_status`; of the configuration space `device-specific configuration`. */
      readonly register: string;
      /** What was read or written: a number, or a `bigint` for features. */
      readonly value: number | bigint;
      /** The value in words, where it has some: `ACKNOWLEDGE | DRIVER`. */
      readonly text?: string;
      /** The queue that the register belongs to. */
      readonly queue?: number;
      /** Of the configuration space: where in it, in bytes. */
      readonly offset?: number;
      /** Of the configuration space: how many bytes. */
      readonly width?: 1 | 2 | 4;
    }
  /** The device was notified of new buffers. */
  | { readonly kind: 'notify'; readonly queue: number; readonly next: number }
  /** The device has interrupted: for a queue, or for its configuration (`undefined`). */
  | { readonly kind: 'interrupt'; readonly queue: number | undefined }
  /** A chain became visible to the device. */
  | {
      readonly kind: 'published';
      readonly queue: number;
      readonly token: number;
      readonly buffers: readonly TracedBuffer[];
    }
  /** The driver took a chain that the device has used. */
  | {
      readonly kind: 'used';
      readonly queue: number;
      readonly token: number;
      /** How many bytes the device says that it wrote. */
      readonly length: number;
      readonly buffers: readonly TracedBuffer[];
    }
  /** What the device wrote to a buffer of the driver's caller, when that had it back. Only if `bytes` was asked for. */
  | { readonly kind: 'data'; readonly address: number; readonly length: number; readonly bytes: Uint8Array }
  /** A queue was emptied, and given to the device anew. */
  | { readonly kind: 'queueReset'; readonly queue: number };

/** Options of {@link traceTransport}. */
export interface TraceOptions {
  /** Names the features in events (default: the device-independent ones only). */
  readonly features?: FeatureTable<string>;
  /** How many bytes of each buffer events carry (default 0). */
  readonly bytes?: number;
  /**
   * The names of registers: `pci` has those of `virtio_pci_common_cfg` [4.1.4.3], `mmio` those of MMIO [4.2.2]. Default: those of MMIO for
   * transports whose name begins with `MMIO`, of PCI for all others.
   */
  readonly names?: 'pci' | 'mmio';
}

/** A device that is traced, to be given to a driver. Disposing it disposes the transport below. */
export interface TracedDevice extends Disposable {
  /** The way to the device. */
  readonly transport: Transport;
  /** The platform; knows which bytes are at an address of the device's. */
  readonly hal: Hal;
}

/**
 * Puts a tracer between a driver and its device.
 *
 * @param listener called within the call that it reports, in the order of what happens; it must not use the driver
 *
 * @example
 * ```ts
 * import { formatTraceEvent, type Hal, traceTransport, type Transport } from '@virtio/core';
 * import { VirtioRng } from '@virtio/rng';
 *
 * export function traced(transport: Transport, hal: Hal): VirtioRng {
 *   const device = traceTransport(transport, hal, (event) => console.log(formatTraceEvent(event)));
 *   return new VirtioRng(device.transport, device.hal);
 * }
 * ```
 */
export function traceTransport(
  transport: Transport,
  hal: Hal,
  listener: (event: TraceEvent) => void,
  options: TraceOptions = {},
): TracedDevice {
  const memory = new TracedHal(hal, listener, options.bytes ?? 0);
  const traced = new TracedTransport(transport, memory, listener, options);
  return {
    transport: traced,
    hal: memory,
    [Symbol.dispose]: () => {
      traced[Symbol.dispose]();
    },
  };
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/**
 * An event as a line for people: `write device_status = 0x3 (ACKNOWLEDGE | DRIVER)`, `queue 0: published 5: 16 bytes >, 513 bytes <`. `>` marks
 * what the device reads, `<` what it writes.
 */
export function formatTraceEvent(event: TraceEvent): string {
  switch (event.kind) {
    case 'register': {
      const { access, register, queue, offset, width, value, text } = event;
      const at = offset === undefined ? '' : `+${offset}:${width ?? 1}`;
      const of = queue === undefined ? '' : `[${queue}]`;
      return `${access.padEnd(5)} ${register}${of}${at} = ${hex(value)}${text === undefined ? '' : ` (${text})`}`;
    }
    case 'notify':
      return `notify queue ${event.queue}`;
    case 'interrupt':
      return event.queue === undefined
        ? 'interrupt: configuration changed'
        : `interrupt of queue ${event.queue}`;
    case 'published':
      return `queue ${event.queue}: published ${event.token}: ${event.buffers.map(formatBuffer).join(', ')}`;
    case 'used':
      return (
        `queue ${event.queue}: used ${event.token}, ${event.length} bytes written` +
        event.buffers
          .filter(({ bytes }) => bytes !== undefined)
          .map((buffer) => `, ${formatBuffer(buffer)}`)
          .join('')
      );
    case 'data':
      return `data at ${hex(event.address)}: ${formatBuffer({ ...event, writable: true })}`;
    case 'queueReset':
      return `queue ${event.queue}: empty, and with the device anew`;
  }
}

function formatBuffer({ length, writable, bytes }: TracedBuffer): string {
  const dump =
    bytes === undefined
      ? ''
      : ` ${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
  return `${length} bytes ${writable ? '<' : '>'}${dump}${bytes !== undefined && bytes.length < length ? ' …' : ''}`;
}

const PCI_NAMES = {
  deviceFeatures: 'device_feature',
  driverFeatures: 'driver_feature',
  status: 'device_status',
  generation: 'config_generation',
  isr: 'ISR status',
  config: 'device-specific configuration',
  maxSize: 'queue_size',
  size: 'queue_size',
  descriptors: 'queue_desc',
  driverArea: 'queue_driver',
  deviceArea: 'queue_device',
  enable: 'queue_enable',
  reset: 'queue_reset',
  pageSize: 'GuestPageSize',
} as const;

type Names = Readonly<Record<keyof typeof PCI_NAMES, string>>;

const MMIO_NAMES: Names = {
  deviceFeatures: 'DeviceFeatures',
  driverFeatures: 'DriverFeatures',
  status: 'Status',
  generation: 'ConfigGeneration',
  isr: 'InterruptStatus',
  config: 'Config',
  maxSize: 'QueueSizeMax',
  size: 'QueueSize',
  descriptors: 'QueueDesc',
  driverArea: 'QueueDriver',
  deviceArea: 'QueueDevice',
  enable: 'QueueReady',
  reset: 'QueueReset',
  pageSize: 'GuestPageSize',
};

/** What stands in the parentheses of `DeviceStatus(…)`. */
const inner = (text: string): string => text.slice(text.indexOf('(') + 1, -1);

class TracedTransport extends Transport {
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
    this.#names =
      (names ?? (transport.name.startsWith('MMIO') ? 'mmio' : 'pci')) === 'mmio' ? MMIO_NAMES : PCI_NAMES;
    const { interrupts } = transport;
    // Polling calls its handlers at each turn of the event loop, which is no interrupt.
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
    this.#register('write', names.descriptors, descriptors, { queue });
    this.#register('write', names.driverArea, driverArea, { queue });
    this.#register('write', names.deviceArea, deviceArea, { queue });
    this.#register('write', names.enable, 1, { queue });
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

  override checkAlive(): void {
    this.#transport.checkAlive();
  }

  override [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }

  override watchQueue(queue: VirtQueue): void {
    this.#transport.watchQueue(queue);
    watch(queue, this.#tell, this.#memory);
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

/** A buffer that was pushed. */
interface Pushed {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

/** Puts functions over those of one queue that report its chains. */
function watch(queue: VirtQueue, tell: (event: TraceEvent) => void, memory: TracedHal): void {
  const { index } = queue;
  let building: Pushed[] = [];
  let staged: number[] = [];
  const chains = new Map<number, readonly Pushed[]>();
  const own = {
    tryBegin: queue.tryBegin.bind(queue),
    pushReadable: queue.pushReadable.bind(queue),
    pushWritable: queue.pushWritable.bind(queue),
    submit: queue.submit.bind(queue),
    publish: queue.publish.bind(queue),
    pop: queue.pop.bind(queue),
    reset: queue.reset.bind(queue),
  };
  Object.assign(queue, {
    tryBegin: (count: number): boolean => {
      const begun = own.tryBegin(count);
      if (begun) building = [];
      return begun;
    },
    pushReadable: (address: number, length: number): void => {
      own.pushReadable(address, length);
      building.push({ address, length, writable: false });
    },
    pushWritable: (address: number, length: number): void => {
      own.pushWritable(address, length);
      building.push({ address, length, writable: true });
    },
    submit: (): number => {
      const token = own.submit();
      chains.set(token, building);
      staged.push(token);
      building = [];
      return token;
    },
    publish: (): void => {
      const tokens = staged;
      staged = [];
      // Told before it is done: a device may answer at once.
      for (const token of tokens) {
        const buffers = (chains.get(token) ?? []).map((buffer) => ({
          ...buffer,
          bytes: buffer.writable ? undefined : memory.readable(buffer.address, buffer.length),
        }));
        tell({ kind: 'published', queue: index, token, buffers });
      }
      own.publish();
    },
    pop: (): number => {
      const token = own.pop();
      if (token < 0) return token;
      const { usedLength } = queue;
      let left = usedLength;
      const buffers = (chains.get(token) ?? []).map((buffer) => {
        const length = buffer.writable ? Math.min(left, buffer.length) : 0;
        left -= length;
        return { ...buffer, bytes: length === 0 ? undefined : memory.written(buffer.address, length) };
      });
      chains.delete(token);
      tell({ kind: 'used', queue: index, token, length: usedLength, buffers });
      return token;
    },
    reset: (): void => {
      building = [];
      staged = [];
      chains.clear();
      own.reset();
      tell({ kind: 'queueReset', queue: index });
    },
  } satisfies Partial<VirtQueue>);
}

/** Interrupts that are reported before their handlers run. */
class TracedInterrupts implements InterruptSource {
  readonly #source: InterruptSource;
  readonly #tell: (event: TraceEvent) => void;

  constructor(source: InterruptSource, tell: (event: TraceEvent) => void) {
    this.#source = source;
    this.#tell = tell;
  }

  onQueue(queue: number, handler: (() => void) | undefined): void {
    this.#source.onQueue(queue, this.#told(queue, handler));
  }

  onConfig(handler: (() => void) | undefined): void {
    this.#source.onConfig(this.#told(undefined, handler));
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.#source.onRemoval(handler);
  }

  hold(): void {
    this.#source.hold();
  }

  release(): void {
    this.#source.release();
  }

  defer(callback: () => void): void {
    this.#source.defer(callback);
  }

  #told(queue: number | undefined, handler: (() => void) | undefined): (() => void) | undefined {
    if (handler === undefined) return undefined;
    return () => {
      this.#tell({ kind: 'interrupt', queue });
      handler();
    };
  }
}

/** A Hal that remembers which memory is at which address. */
class TracedHal implements Hal {
  readonly #hal: Hal;
  /** By the address of the first byte. */
  readonly #regions = new Map<number, Uint8Array>();
  readonly #shared = new Map<number, Uint8Array>();
  readonly #tell: (event: TraceEvent) => void;
  readonly #most: number;

  constructor(hal: Hal, tell: (event: TraceEvent) => void, most: number) {
    this.#hal = hal;
    this.#tell = tell;
    this.#most = most;
  }

  dmaAlloc(pages: number, direction: BufferDirection, accessPlatform: boolean): DmaRegion {
    const region = this.#hal.dmaAlloc(pages, direction, accessPlatform);
    this.#regions.set(region.address, region.bytes);
    return region;
  }

  dmaDealloc(region: DmaRegion, accessPlatform: boolean): void {
    this.#regions.delete(region.address);
    this.#hal.dmaDealloc(region, accessPlatform);
  }

  mapRegisters(address: number, size: number): RegisterWindow {
    return this.#hal.mapRegisters(address, size);
  }

  share(buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): number {
    const address = this.#hal.share(buffer, direction, accessPlatform);
    this.#shared.set(address, buffer);
    return address;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): void {
    this.#shared.delete(address);
    this.#hal.unshare(address, buffer, direction, accessPlatform);
    if (direction !== 'driver-to-device' && this.#most > 0) {
      const { length } = buffer;
      this.#tell({ kind: 'data', address, length, bytes: buffer.slice(0, this.#most) });
    }
  }

  /** A copy of bytes that the device reads. */
  readable(address: number, length: number): Uint8Array | undefined {
    return this.#copy(this.#shared, address, length) ?? this.#copy(this.#regions, address, length);
  }

  /** A copy of bytes that the device wrote, unless they are in a buffer that is not copied back yet. */
  written(address: number, length: number): Uint8Array | undefined {
    return this.#copy(this.#regions, address, length);
  }

  #copy(memory: ReadonlyMap<number, Uint8Array>, address: number, length: number): Uint8Array | undefined {
    if (length === 0 || this.#most === 0) return undefined;
    for (const [start, bytes] of memory) {
      const at = address - start;
      if (at >= 0 && at < bytes.length) return bytes.slice(at, at + Math.min(length, this.#most));
    }
    return undefined;
  }
}
