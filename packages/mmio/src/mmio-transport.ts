/**
 * The MMIO transport, modern (version 2) and legacy (version 1). The platform provides a window to the registers, and the interrupt
 * line if there is one.
 */
import {
  Deadline,
  DeviceStatus,
  type DeviceType,
  deviceTypeFromId,
  Feature,
  goneRegisters,
  type InterruptSource,
  InterruptStatus,
  PAGE_SIZE,
  type QueueSignals,
  type RegisterWindow,
  requireInteger,
  type SharedMemory,
  Transport,
  VirtioError,
} from '@virtio/core';
import { InterruptDispatcher, type MmioInterrupt } from './interrupts.ts';
import { MMIO_LEGACY, MMIO_MAGIC, MMIO_MODERN, MmioRegister as R } from './registers.ts';

const TWO_32 = 4294967296;
const ALL_ONES = 0xffff_ffff;
const GONE = 0xff;
const QUEUE_TIMEOUT_MS = 10_000;
const CONSISTENT_ATTEMPTS = 1000;
const MAX_QUEUE = 0xffff;
/** Ids of shared memory regions have 8 bits [2.10]. */
const MAX_REGION = 0xff;
const KNOWN_INTERRUPTS = InterruptStatus.QUEUE_INTERRUPT | InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT;

const mask = (bit: number): bigint => 1n << BigInt(bit);

/**
 * Features that MMIO does not have: `ADMIN_VQ` (4.2.5), `SR_IOV` (PCI only) and `NOTIF_CONFIG_DATA`, for which there is no
 * register. 2.2.1: they are not accepted even if a device offers them.
 */
const NOT_ON_MMIO = mask(Feature.ADMIN_VQ) | mask(Feature.SR_IOV) | mask(Feature.NOTIF_CONFIG_DATA);

/** The identity of an MMIO device, from its first registers. */
export interface MmioIdentity {
  /** 1 (legacy) or 2. */
  readonly version: 1 | 2;
  /** The device's type. */
  readonly deviceType: DeviceType;
  /** The vendor id. */
  readonly vendor: number;
}

/** Options of {@link MmioTransport}. */
export interface MmioTransportOptions {
  /** Where the device is, for messages: `MMIO 0xa000000`. */
  readonly name: string;
  /** Its interrupt line, or any other source of interrupts, e.g. `PollingInterrupts`. None: the driver is polled. */
  readonly interrupts?: MmioInterrupt | InterruptSource;
  /** Called at the end of disposal: releases what the platform holds for the window. */
  readonly onDispose?: () => void;
}

/**
 * The transport of a virtio device on MMIO.
 *
 * @example
 * ```ts
 * import type { Hal } from '@virtio/core';
 * import { MmioTransport } from '@virtio/mmio';
 *
 * // Devices of 512 bytes each, as QEMU's `virt` machines have them.
 * export function* transports(hal: Hal, base: number, count: number): Generator<MmioTransport> {
 *   for (let address = base; address < base + count * 0x200; address += 0x200) {
 *     const window = hal.mapRegisters(address, 0x200);
 *     if (MmioTransport.probe(window)) yield new MmioTransport(window, { name: `MMIO 0x${address.toString(16)}` });
 *   }
 * }
 * ```
 *
 * @see VIRTIO 1.4, 4.2
 */
export class MmioTransport extends Transport {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly interrupts: InterruptSource | undefined;
  /** The size of the configuration space in bytes: the rest of the window, as no register gives it [4.2.2]. */
  readonly configSize: number;
  /** The version of the register layout: 1 (legacy) or 2. */
  readonly version: 1 | 2;
  /** The vendor id of the device. */
  readonly vendor: number;

  #window: RegisterWindow;
  #words: Uint32Array | undefined;
  readonly #dispatcher: InterruptDispatcher | undefined;
  readonly #onDispose: (() => void) | undefined;
  #notificationData = false;
  #ringReset = false;
  #disposed = false;
  /** Why a device that is disposed did not stop: it may still write to memory. */
  #stuck: VirtioError | undefined;

  /**
   * Checks that there is a virtio device behind the window.
   *
   * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL` for a window without all registers, `INVALID_DEVICE` for a wrong magic
   * value or version, `NO_DEVICE` for a placeholder (device id 0), `INVALID_DEVICE_TYPE`
   */
  constructor(window: RegisterWindow, { name, interrupts, onDispose }: MmioTransportOptions) {
    super();
    const { version, deviceType, vendor } = identify(window, name);
    this.#window = window;
    this.#words = window.mapped?.u32;
    this.name = name;
    this.version = version;
    this.deviceType = deviceType;
    this.vendor = vendor;
    this.configSize = window.size - R.Config;
    this.#onDispose = onDispose;
    if (interrupts !== undefined && 'onLine' in interrupts) {
      this.interrupts = this.#dispatcher = new InterruptDispatcher(interrupts, this);
    } else {
      this.interrupts = interrupts;
    }
  }

  /**
   * Identifies the device in a window without changing its state, for discovery.
   *
   * @returns `undefined` if there is no virtio device, or one of an unknown version or type [4.2.2.2]
   * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL`
   */
  static probe(window: RegisterWindow): MmioIdentity | undefined {
    try {
      return identify(window, 'this window');
    } catch (error) {
      if (VirtioError.is(error) && error.code !== 'CONFIG_SPACE_TOO_SMALL') return undefined;
      throw error;
    }
  }

  readDeviceFeatures(): bigint {
    const low = this.#readFeatures(0);
    if ((low === 0 || low === ALL_ONES) && this.isGone()) throw this.removed();
    let features = BigInt(low);
    if (this.version === MMIO_LEGACY) return features;
    const word1 = this.#readFeatures(1);
    features |= BigInt(word1) << 32n;
    // Some devices, QEMU's among them, treat any selector above 0 as 1. Word 1 is never zero (VERSION_1), and word 3 has no
    // assigned bits; so if the two are equal, the device has only two words, and writing another would overwrite the second.
    if (this.#readFeatures(3) !== word1) features |= BigInt(this.#readFeatures(2)) << 64n;
    return features & ~NOT_ON_MMIO;
  }

  writeDriverFeatures(features: bigint): void {
    this.#notificationData = (features & mask(Feature.NOTIFICATION_DATA)) !== 0n;
    this.#ringReset = (features & mask(Feature.RING_RESET)) !== 0n;
    const words = this.version === MMIO_LEGACY ? 1 : features >> 64n === 0n ? 2 : 3;
    for (let word = 0; word < words; word += 1) {
      // 4.2.2.2: the selector first.
      this.#window.write32(R.DriverFeaturesSel, word);
      this.#window.write32(R.DriverFeatures, Number((features >> BigInt(32 * word)) & 0xffff_ffffn));
    }
  }

  maxQueueSize(queue: number): number {
    // A notification has 16 bits for the index; a register would truncate others to that of another queue.
    if (!Number.isInteger(queue) || queue < 0 || queue > MAX_QUEUE) return 0;
    this.#select(queue);
    const size = this.#window.read32(R.QueueSizeMax);
    if ((size === 0 || size === ALL_ONES) && this.isGone()) throw this.removed();
    return size;
  }

  /** 4.2.3.3: the queue's index, and with NOTIFICATION_DATA where its next entry will be. */
  notify(queue: number, next: number): void {
    const value = this.#notificationData ? (next << 16) | queue : queue;
    if (this.#words !== undefined) this.#words[R.QueueNotify >>> 2] = value;
    else this.#window.write32(R.QueueNotify, value >>> 0);
  }

  /**
   * The interrupt does not say which queue it is for, so the other thread polls. Throws `UNSUPPORTED` if the window is not mapped.
   */
  override lendQueue(queue: number): QueueSignals {
    const { mapped } = this.#window;
    if (mapped === undefined) return super.lendQueue(queue);
    const register = mapped.u8.subarray(R.QueueNotify, R.QueueNotify + 4) as Uint8Array<ArrayBuffer>;
    return {
      doorbell: { kind: 'register', register, value: queue, data: this.#notificationData },
      interrupt: undefined,
    };
  }

  /**
   * All bits are set if the device no longer answers. Where no device answers, registers read as ones on some hosts and as zeros on
   * others (QEMU); zero is also the status after a reset, so the magic value is checked then.
   */
  getStatus(): DeviceStatus {
    const status = this.#window.read32(R.Status);
    const absent = status === 0 && this.#window.read32(R.MagicValue) !== MMIO_MAGIC;
    return DeviceStatus.from(absent ? GONE : status);
  }

  setStatus(status: DeviceStatus): void {
    this.#window.write32(R.Status, status.bits);
  }

  /** Sets the page size of a legacy device [4.2.4], before any queue is used. A modern device has no such register. */
  setGuestPageSize(size: number): void {
    if (this.version === MMIO_LEGACY) this.#window.write32(R.GuestPageSize, size);
  }

  requiresLegacyLayout(): boolean {
    return this.version === MMIO_LEGACY;
  }

  /**
   * @throws {@link VirtioError} `INVALID_PARAM` for a size that the queue cannot have, `ALREADY_USED`; on a legacy device also
   * `INVALID_PARAM` for areas without the legacy layout, and `DMA_ERROR` for an address that its register of 2^32 pages cannot hold
   */
  queueSet(queue: number, size: number, descriptors: number, driverArea: number, deviceArea: number): void {
    // 4.2.2.2: while the queue is in use, its other registers must not be touched.
    if (this.queueUsed(queue)) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.who()}: queue ${queue} is in use already; reset the device first`,
      );
    }
    const max = this.maxQueueSize(queue);
    if (!(size >= 1 && size <= max)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.who()}: queue ${queue} cannot have ${size} descriptors; give it at most ${max}`,
      );
    }
    if (this.version === MMIO_LEGACY) {
      this.#setLegacy(queue, size, descriptors, driverArea, deviceArea);
      return;
    }
    const window = this.#window;
    window.write32(R.QueueSize, size);
    this.#write64(R.QueueDescLow, R.QueueDescHigh, descriptors);
    this.#write64(R.QueueDriverLow, R.QueueDriverHigh, driverArea);
    this.#write64(R.QueueDeviceLow, R.QueueDeviceHigh, deviceArea);
    window.write32(R.QueueReady, 1);
  }

  /**
   * Takes the queue back from the device. Legacy devices may treat that as a reset of the whole device; QEMU's do.
   *
   * @throws {@link VirtioError} `NOT_READY` if the device does not release it
   */
  queueUnset(queue: number): void {
    this.#select(queue);
    if (this.version === MMIO_LEGACY) {
      this.#window.write32(R.QueuePFN, 0);
      return;
    }
    // 4.2.2.2: reading back ensures that the device has seen it.
    this.#window.write32(R.QueueReady, 0);
    this.#awaitZero(R.QueueReady, `did not stop queue ${queue}`);
  }

  queueUsed(queue: number): boolean {
    this.#select(queue);
    return this.#isReady();
  }

  /**
   * @throws {@link VirtioError} `UNSUPPORTED` if `VIRTIO_F_RING_RESET` was not negotiated, or if the device offered it but has no
   * register for it
   * @see VIRTIO 1.4, 2.6.1 and 4.2.2.2
   */
  queueReset(queue: number): void {
    if (!this.#ringReset) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()}: queue ${queue} cannot be reset alone, as RING_RESET was not negotiated; reset the device`,
      );
    }
    this.#select(queue);
    this.#window.write32(R.QueueReset, 1);
    this.#awaitZero(R.QueueReset, `did not reset queue ${queue}`);
    // 2.6.1.1.2: verify it. QEMU's devices offer RING_RESET without the register, which then reads as 0 at once; but after a reset
    // QueueReady is 0 as well.
    if (this.#isReady()) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()} offers RING_RESET, but queue ${queue} is still enabled after its reset; reset the device, and open it with ` +
          "without: ['RING_RESET']",
      );
    }
  }

  ackInterrupt(): InterruptStatus {
    // 4.2.2.2: undefined bits are ignored, and never acknowledged.
    const pending = this.#window.read32(R.InterruptStatus) & KNOWN_INTERRUPTS;
    if (pending !== 0) this.#window.write32(R.InterruptACK, pending);
    return InterruptStatus.from(pending);
  }

  /** The configuration generation; 0 on legacy devices, which have none. */
  readConfigGeneration(): number {
    return this.version === MMIO_LEGACY ? 0 : this.#window.read32(R.ConfigGeneration);
  }

  /** 2.5.4: a legacy device has no generation and is read until two reads agree. */
  override readConsistent<T>(read: () => T): T {
    if (this.version !== MMIO_LEGACY) return super.readConsistent(read);
    let last = read();
    for (let attempt = 1; attempt < CONSISTENT_ATTEMPTS; attempt += 1) {
      const value = read();
      if (same(last, value)) return value;
      last = value;
    }
    throw new VirtioError(
      'NOT_READY',
      `${this.who()} changed its configuration during each of ${CONSISTENT_ATTEMPTS} attempts to read it`,
    );
  }

  readConfig(offset: number, width: 1 | 2 | 4): number {
    const at = this.#configAt(offset, width);
    // 4.2.2.2: accessed at the width of the field.
    if (width === 1) return this.#window.read8(at);
    return width === 2 ? this.#window.read16(at) : this.#window.read32(at);
  }

  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    const at = this.#configAt(offset, width);
    if (width === 1) this.#window.write8(at, value);
    else if (width === 2) this.#window.write16(at, value);
    else this.#window.write32(at, value);
  }

  /**
   * @throws {@link VirtioError} `INVALID_DEVICE` for a region that ends beyond 2^53, `INVALID_PARAM` for an id above 255
   */
  sharedMemory(id: number): SharedMemory | undefined {
    requireInteger(this, 'the id of a shared memory region', id, 0, MAX_REGION);
    if (this.version === MMIO_LEGACY) return undefined;
    const window = this.#window;
    window.write32(R.SHMSel, id);
    const lengthLow = window.read32(R.SHMLenLow);
    const lengthHigh = window.read32(R.SHMLenHigh);
    // All ones: no such region. Zero: a device that predates these registers.
    if ((lengthLow === ALL_ONES && lengthHigh === ALL_ONES) || (lengthLow | lengthHigh) === 0) {
      return undefined;
    }
    const length = lengthHigh * TWO_32 + lengthLow;
    const addressLow = window.read32(R.SHMBaseLow);
    const address = window.read32(R.SHMBaseHigh) * TWO_32 + addressLow;
    if (!Number.isSafeInteger(address + length)) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${this.who()} reports ${length} bytes at 0x${address.toString(16)} for shared memory region ${id}; ` +
          'no platform has such addresses',
      );
    }
    return { address, length };
  }

  /** Whether the device no longer answers; see {@link MmioTransport.getStatus}. */
  isGone(): boolean {
    return this.getStatus().bits === GONE;
  }

  /** @throws {@link VirtioError} `NOT_READY` also for a device that did not stop when the transport was disposed */
  override reset(): void {
    if (this.#stuck !== undefined) throw this.#stuck;
    super.reset();
  }

  /** The error of a device that is no longer there, or whose transport is disposed. */
  override removed(): VirtioError {
    if (!this.#disposed) return super.removed();
    return new VirtioError('DEVICE_REMOVED', `${this.who()} is closed; open it again`);
  }

  /**
   * Resets the device if it is still there, removes the handler of its line, and calls `onDispose`. For a driver that still has the
   * device, it is gone from now on.
   *
   * @throws {@link VirtioError} `NOT_READY` if the device does not complete its reset
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    try {
      this.reset();
    } catch (error) {
      if (!VirtioError.is(error, 'DEVICE_REMOVED')) {
        this.#stuck = error as VirtioError;
        throw error;
      }
    } finally {
      this.#window = goneRegisters(this.#window.size);
      this.#words = undefined;
      try {
        this.#dispatcher?.close();
      } finally {
        this.#onDispose?.();
      }
    }
  }

  /** 4.2.2.2: the selector is written before the features are read. */
  #readFeatures(word: number): number {
    this.#window.write32(R.DeviceFeaturesSel, word);
    return this.#window.read32(R.DeviceFeatures);
  }

  #select(queue: number): void {
    this.#window.write32(R.QueueSel, queue);
  }

  #write64(low: number, high: number, value: number): void {
    this.#window.write32(low, value % TWO_32);
    this.#window.write32(high, Math.floor(value / TWO_32));
  }

  /** 4.2.4: one page number gives the place of the whole queue; its parts follow from its size and alignment. */
  #setLegacy(queue: number, size: number, descriptors: number, driverArea: number, deviceArea: number): void {
    const availBytes = 2 * (3 + size);
    const usedAt = Math.ceil((driverArea + availBytes) / PAGE_SIZE) * PAGE_SIZE;
    if (descriptors % PAGE_SIZE !== 0 || driverArea !== descriptors + 16 * size || deviceArea !== usedAt) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.who()}: queue ${queue} does not have the legacy layout [2.7.2], which this device needs`,
      );
    }
    const page = descriptors / PAGE_SIZE;
    if (page === 0 || page > ALL_ONES) {
      throw new VirtioError(
        'DMA_ERROR',
        `${this.who()}: queue ${queue} is at 0x${descriptors.toString(16)}; a legacy device takes addresses from page 1 to ` +
          'page 2^32 - 1: allocate lower memory',
      );
    }
    this.#window.write32(R.QueueSize, size);
    this.#window.write32(R.QueueAlign, PAGE_SIZE);
    this.#window.write32(R.QueuePFN, page);
  }

  /** Whether the selected queue is enabled. */
  #isReady(): boolean {
    const value = this.#window.read32(this.version === MMIO_LEGACY ? R.QueuePFN : R.QueueReady);
    if (value === ALL_ONES && this.isGone()) throw this.removed();
    return value !== 0;
  }

  #awaitZero(register: number, what: string): void {
    const deadline = new Deadline(QUEUE_TIMEOUT_MS);
    for (;;) {
      const value = this.#window.read32(register);
      if (value === 0) return;
      if (value === ALL_ONES && this.isGone()) throw this.removed();
      if (deadline.isOver) {
        throw new VirtioError(
          'NOT_READY',
          `${this.who()} ${what} within ${QUEUE_TIMEOUT_MS / 1000} s; reset the device`,
        );
      }
    }
  }

  #configAt(offset: number, width: number): number {
    if (offset < 0 || offset + width > this.configSize) {
      throw new VirtioError(
        'CONFIG_SPACE_TOO_SMALL',
        `${this.who()}: ${width} bytes at ${offset} of the configuration space were asked for; the window has ${this.configSize} bytes ` +
          'of it',
      );
    }
    return R.Config + offset;
  }
}

/** The values of `reason` in a `VirtioError` of {@link MmioTransport}'s constructor. */
export type MmioErrorReason =
  /** The window is too small for the registers. */
  | 'WINDOW_TOO_SMALL'
  /** `MagicValue` is not 0x74726976. */
  | 'BAD_MAGIC'
  /** `Version` is neither 1 nor 2. */
  | 'UNKNOWN_VERSION';

/** 4.2.3.1.1: magic value and version first, then the device id, and nothing else if that is 0. */
function identify(window: RegisterWindow, name: string): MmioIdentity {
  if (window.size < R.Config) {
    throw new VirtioError(
      'CONFIG_SPACE_TOO_SMALL',
      `${name}: the window of ${window.size} bytes is too small for the ${R.Config} bytes of registers; map more`,
      { reason: 'WINDOW_TOO_SMALL' satisfies MmioErrorReason },
    );
  }
  const magic = window.read32(R.MagicValue);
  if (magic !== MMIO_MAGIC) {
    throw new VirtioError(
      'INVALID_DEVICE',
      `${name}: the magic value is 0x${magic.toString(16)}, not 0x${MMIO_MAGIC.toString(16)}; there is no virtio device at this address`,
      { reason: 'BAD_MAGIC' satisfies MmioErrorReason },
    );
  }
  const version = window.read32(R.Version);
  if (version !== MMIO_MODERN && version !== MMIO_LEGACY) {
    throw new VirtioError(
      'INVALID_DEVICE',
      `${name}: the version is ${version}; only versions 1 (legacy) and 2 are supported`,
      { reason: 'UNKNOWN_VERSION' satisfies MmioErrorReason },
    );
  }
  const id = window.read32(R.DeviceID);
  if (id === 0) {
    throw new VirtioError('NO_DEVICE', `${name}: the device id is 0; this is a placeholder without a device`);
  }
  return { version, deviceType: deviceTypeFromId(id), vendor: window.read32(R.VendorID) };
}

/** Whether two reads of the configuration are equal: numbers, bytes, or structures of them. */
function same(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  const left = Object.entries(a);
  const right = b as Record<string, unknown>;
  return left.length === Object.keys(right).length && left.every(([key, value]) => same(value, right[key]));
}
