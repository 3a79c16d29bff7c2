/**
 * The PCI transport. The platform provides the function's configuration space, a way to map parts of its BARs, and interrupt lines
 * if there are any; so it works the same with VFIO, sysfs, hypercalls and bare metal.
 */
import {
  Deadline,
  DeviceStatus,
  type DeviceType,
  Feature,
  goneRegisters,
  type InterruptSource,
  InterruptStatus,
  Layout,
  type QueueSignals,
  type RegisterWindow,
  requireInteger,
  type SharedMemory,
  Transport,
  VirtioError,
} from '@virtio/core';
import { type Bars, readBars } from './bars.ts';
import type { ConfigAccess } from './config-access.ts';
import { BUS_MASTER, commandBits, DECODE, INTERRUPT_DISABLE, setCommandBits } from './command.ts';
import { DeviceFunctionInfo, PciRegister } from './config-space.ts';
import type { DeviceFunction } from './device-function.ts';
import { isTransitional, VIRTIO_VENDOR_ID, virtioDeviceType } from './device-id.ts';
import { InterruptDispatcher, type PciInterrupts } from './interrupts.ts';
import { type AddressSpace, physicalFunction } from './physical-function.ts';
import type { MapBar, PciTransportOptions } from './pci-transport-options.ts';
import { because, type PciErrorReason } from './reasons.ts';
import {
  type StructureFault,
  structureError,
  structureFault,
  VirtioPciCap,
  type VirtioStructure,
  virtioStructures,
} from './virtio-capabilities.ts';

/**
 * The common configuration structure. Fields that begin with `queue_` belong to the queue that `queue_select` selects.
 *
 * @see VIRTIO 1.4, 4.1.4.3
 */
export const CommonCfg = new Layout('virtio_pci_common_cfg', {
  /** Which 32 bits of the features `device_feature` shows; 0: bits 0 to 31. */
  device_feature_select: 'u32',
  /** Features that the device offers. Read-only. */
  device_feature: 'u32',
  /** Which 32 bits of the features `driver_feature` sets. */
  driver_feature_select: 'u32',
  /** Features that the driver accepts. */
  driver_feature: 'u32',
  /** The MSI-X vector for configuration changes; {@link NO_VECTOR} for none, or if the device has none for it. */
  config_msix_vector: 'u16',
  /** The number of queues, not counting administration virtqueues. Read-only. */
  num_queues: 'u16',
  /** Writing 0 resets the device. */
  device_status: 'u8',
  /** Changes whenever the device's configuration may have changed. Read-only. */
  config_generation: 'u8',
  /** The index of a queue. */
  queue_select: 'u16',
  /** The size in descriptors; after a reset the largest size that the device supports, 0 if there is no such queue. */
  queue_size: 'u16',
  /** The MSI-X vector of the queue; {@link NO_VECTOR} for none, or if the device has none for it. */
  queue_msix_vector: 'u16',
  /** Writing 1 enables the queue; 0 must not be written. */
  queue_enable: 'u16',
  /** Where to notify, in units of `notify_off_multiplier` bytes from the start of the notification structure. Read-only. */
  queue_notify_off: 'u16',
  /** The address of the descriptor area. */
  queue_desc: 'u64',
  /** The address of the driver area. */
  queue_driver: 'u64',
  /** The address of the device area. */
  queue_device: 'u64',
  /** The value to notify with instead of the queue's index. Read-only; only with `VIRTIO_F_NOTIF_CONFIG_DATA`. */
  queue_notif_config_data: 'u16',
  /** Writing 1 resets the queue; reads as 1 until the reset is complete. Only with `VIRTIO_F_RING_RESET`. */
  queue_reset: 'u16',
  /** The index of the first administration virtqueue. Read-only; only with `VIRTIO_F_ADMIN_VQ`. */
  admin_queue_index: 'u16',
  /** The number of administration virtqueues. Read-only; only with `VIRTIO_F_ADMIN_VQ`. */
  admin_queue_num: 'u16',
});

const C = CommonCfg.offset;

/** The part that every device has: up to `queue_device`. The fields after it came with later features. */
const COMMON_LEAST = C.queue_notif_config_data;

/** 4.1.4: no device uses more of its configuration structure than this, whatever length it gives. */
const CONFIG_MOST = 4096;

const RESET_TIMEOUT_MS = 10_000;
const GONE = 0xff;
const FEATURE_WORDS = 4;
/** Why a BAR cannot be mapped yet. */
const UNASSIGNED: PciErrorReason = 'BAR_NOT_ALLOCATED';
/** Ids of shared memory regions have 8 bits [2.10]. */
const MAX_REGION = 0xff;

const mask = (bit: number): bigint => 1n << BigInt(bit);

/** The administration virtqueues of a device. */
export interface AdminQueues {
  /** The index of the first. */
  readonly index: number;
  /** The number of administration virtqueues, one after the other. */
  readonly count: number;
}

/**
 * The transport of a virtio device on PCI.
 *
 * @example
 * ```ts
 * import type { Hal } from '@virtio/core';
 * import { CAM_SIZE, MmioCam, PciRoot, PciTransport } from '@virtio/pci';
 *
 * // Bare metal: configuration space in memory, BARs assigned by firmware.
 * export function* transports(hal: Hal, ecamBase: number): Generator<PciTransport> {
 *   const root = new PciRoot(new MmioCam(hal.mapRegisters(ecamBase, CAM_SIZE.ecam), 'ecam'));
 *   for (const [at] of root.virtioDevices()) yield PciTransport.open(root.access, at, hal);
 * }
 * ```
 *
 * @see VIRTIO 1.4, 4.1
 */
export class PciTransport extends Transport {
  readonly deviceType: DeviceType;
  readonly name: string;
  readonly interrupts: InterruptSource | undefined;
  readonly configSize: number;
  /** The identity of the function, from its header. */
  readonly info: DeviceFunctionInfo;

  readonly #pci: RegisterWindow;
  readonly #bars: Bars;
  #common: RegisterWindow;
  #notify: RegisterWindow;
  /** The offset of the notification structure in its BAR, which is aligned to all widths. */
  readonly #notifyStart: number;
  readonly #multiplier: number;
  #isr: RegisterWindow;
  #config: RegisterWindow | undefined;
  readonly #structures: readonly VirtioStructure[];
  readonly #dispatcher: InterruptDispatcher | undefined;
  readonly #onDispose: (() => void) | undefined;
  readonly #command: number;

  #halves: Uint16Array | undefined;
  #words: Uint32Array | undefined;
  /** By queue: the notification address, as an index into a mapped array or as a byte offset; -1 if the queue is not set up. */
  #doorbells = new Int32Array(0);
  /** By queue: the value to write there. */
  #values = new Int32Array(0);

  #notificationData = false;
  #notifConfigData = false;
  #ringReset = false;
  #ringPacked = false;
  #adminQueues = false;
  #disposed = false;

  /**
   * Finds the device's structures, and enables address decoding and bus mastering. The registers of the device are not accessed.
   *
   * @throws {@link VirtioError} `NO_DEVICE`, `INVALID_DEVICE` (not a virtio device, or one whose structures cannot be used),
   * `UNSUPPORTED` (a legacy device, or structures that the platform cannot map)
   */
  constructor(options: PciTransportOptions) {
    super();
    const { at, config, interrupts } = options;
    this.name = `PCI ${at.toString()}`;
    this.#pci = config;
    this.#onDispose = options.onDispose;
    this.info = DeviceFunctionInfo.read(config, at);
    this.deviceType = this.#checkType();
    this.#structures = this.#findStructures();
    this.#bars = options.bars ?? readBars(config, this.name);

    this.#command = commandBits(config);
    const lines = interrupts !== undefined && 'vectors' in interrupts ? interrupts : undefined;
    this.#enable(lines);
    try {
      const find = this.#finder(options.mapBar);
      const [common] = find(VirtioPciCap.COMMON_CFG, 'common configuration', COMMON_LEAST, 4, CommonCfg.size);
      const [notify, { offset, multiplier }] = find(VirtioPciCap.NOTIFY_CFG, 'notification structure', 2, 2);
      const [isr] = find(VirtioPciCap.ISR_CFG, 'ISR status', 1, 1, 1);
      this.#common = common;
      this.#notify = notify;
      this.#notifyStart = offset;
      this.#multiplier = multiplier;
      this.#isr = isr;
      const hasConfig = this.#structures.some(
        ({ type, length }) => type === VirtioPciCap.DEVICE_CFG && length > 0,
      );
      this.#config = hasConfig
        ? find(VirtioPciCap.DEVICE_CFG, 'device configuration', 1, 4, CONFIG_MOST)[0]
        : undefined;
      this.configSize = this.#config?.size ?? 0;
    } catch (error) {
      setCommandBits(config, this.#command);
      throw error;
    }
    this.#halves = this.#notify.mapped?.u16;
    this.#words = this.#notify.mapped?.u32;
    if (lines === undefined) this.interrupts = interrupts as InterruptSource | undefined;
    else this.interrupts = this.#dispatcher = new InterruptDispatcher(lines, this);
  }

  /**
   * Opens a function whose BARs are mapped at the addresses that they hold.
   *
   * @param access the access to configuration space
   * @param at the function; its BARs must have addresses
   * @param space maps the BARs: a `Hal`
   * @param interrupts its interrupt lines, if any
   * @throws {@link VirtioError} as the constructor does
   */
  static open(
    access: ConfigAccess,
    at: DeviceFunction,
    space: AddressSpace,
    interrupts?: PciInterrupts | InterruptSource,
  ): PciTransport {
    return new PciTransport(physicalFunction(access, at, space, interrupts));
  }

  readDeviceFeatures(): bigint {
    let features = 0n;
    for (let word = 0; word < FEATURE_WORDS; word += 1) {
      this.#common.write32(C.device_feature_select, word);
      features |= BigInt(this.#common.read32(C.device_feature)) << BigInt(32 * word);
    }
    if ((features === 0n || features === (1n << 128n) - 1n) && this.isGone()) throw this.removed();
    return features;
  }

  writeDriverFeatures(features: bigint): void {
    this.#notificationData = (features & mask(Feature.NOTIFICATION_DATA)) !== 0n;
    this.#notifConfigData = (features & mask(Feature.NOTIF_CONFIG_DATA)) !== 0n;
    this.#ringReset = (features & mask(Feature.RING_RESET)) !== 0n;
    this.#ringPacked = (features & mask(Feature.RING_PACKED)) !== 0n;
    this.#adminQueues = (features & mask(Feature.ADMIN_VQ)) !== 0n;
    this.#needRegister(this.#notifConfigData, 'NOTIF_CONFIG_DATA', C.queue_reset);
    this.#needRegister(this.#ringReset, 'RING_RESET', C.admin_queue_index);
    this.#needRegister(this.#adminQueues, 'ADMIN_VQ', CommonCfg.size);
    for (let word = 0; word < FEATURE_WORDS; word += 1) {
      const bits = Number((features >> BigInt(32 * word)) & 0xffff_ffffn);
      // Words 2 and 3 came with version 1.4; they need not be written for a device without them.
      if (word >= 2 && bits === 0) continue;
      this.#common.write32(C.driver_feature_select, word);
      this.#common.write32(C.driver_feature, bits);
    }
  }

  maxQueueSize(queue: number): number {
    const size = this.#hasQueue(queue) ? this.#readSize(queue) : 0;
    if ((size === 0 || size === 0xffff) && this.isGone()) throw this.removed();
    return size;
  }

  /** 4.1.5.2.1: 16 bits, or 32 with NOTIFICATION_DATA; the queue's index, or its value of NOTIF_CONFIG_DATA. */
  notify(queue: number, next: number): void {
    const at = this.#doorbells[queue];
    if (at === undefined || at < 0) throw this.#notSetUp(queue);
    const value = this.#values[queue] as number;
    if (this.#notificationData) {
      const data = (next << 16) | value;
      if (this.#words !== undefined) this.#words[at] = data;
      else this.#notify.write32(at, data >>> 0);
    } else if (this.#halves !== undefined) {
      this.#halves[at] = value;
    } else {
      this.#notify.write16(at, value);
    }
  }

  /** @throws {@link VirtioError} `UNSUPPORTED` if the notification structure is not mapped; `INVALID_PARAM` if the queue is not set up */
  override lendQueue(queue: number): QueueSignals {
    const at = this.#doorbells[queue];
    if (at === undefined || at < 0) throw this.#notSetUp(queue);
    const { mapped } = this.#notify;
    if (mapped === undefined) return super.lendQueue(queue);
    const data = this.#notificationData;
    const width = data ? 4 : 2;
    const register = mapped.u8.subarray(at * width, (at + 1) * width) as Uint8Array<ArrayBuffer>;
    const value = this.#values[queue] as number;
    const dispatcher = this.#dispatcher;
    const interrupt = dispatcher?.lendQueue(queue);
    return {
      doorbell: { kind: 'register', register, value, data },
      interrupt,
      close: () => {
        if (interrupt !== undefined) dispatcher?.closeLent(interrupt);
      },
    };
  }

  /**
   * All bits are set if the device no longer answers. Where no device answers, PCI reads as ones, but with some hosts (QEMU) memory
   * reads as zeros, which is also the status after a reset; configuration space tells the two apart.
   */
  getStatus(): DeviceStatus {
    const bits = this.#common.read8(C.device_status);
    return DeviceStatus.from(bits === 0 && this.#isAbsent() ? GONE : bits);
  }

  setStatus(status: DeviceStatus): void {
    this.#common.write8(C.device_status, status.bits);
    // A device that was reset has no queues and no vectors.
    if (status.bits !== 0) return;
    this.#doorbells.fill(-1);
    this.#dispatcher?.unmapAll();
  }

  /** Does nothing: only legacy MMIO has this register. */
  setGuestPageSize(): void {
    return;
  }

  requiresLegacyLayout(): boolean {
    return false;
  }

  /**
   * @throws {@link VirtioError} `INVALID_PARAM` for a size that the queue cannot have, `INVALID_DEVICE` if the device places its
   * notifications outside its notification structure, `UNSUPPORTED` if it has no interrupt vector for the queue
   */
  queueSet(queue: number, size: number, descriptors: number, driverArea: number, deviceArea: number): void {
    const common = this.#common;
    const max = this.maxQueueSize(queue);
    // 4.1.4.3.2: never 0, and without RING_PACKED a power of two.
    if (size < 1 || size > max || (!this.#ringPacked && (size & (size - 1)) !== 0)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.who()}: queue ${queue} cannot have ${size} descriptors; give it at most ${max}` +
          (this.#ringPacked ? '' : ', a power of two'),
      );
    }
    this.#mapConfig();
    this.#select(queue);
    common.write16(C.queue_size, size);
    this.#dispatcher?.mapQueue(queue, (vector) => this.#tryVector(C.queue_msix_vector, vector));
    this.#write64(C.queue_desc, descriptors);
    this.#write64(C.queue_driver, driverArea);
    this.#write64(C.queue_device, deviceArea);
    this.#setDoorbell(queue);
    // 4.1.4.3.2: all else is configured before the queue is enabled.
    common.write16(C.queue_enable, 1);
  }

  /** Resets the queue with `VIRTIO_F_RING_RESET`; without it does nothing, as 0 must not be written to `queue_enable`. */
  queueUnset(queue: number): void {
    if (this.#ringReset && this.queueUsed(queue)) this.queueReset(queue);
  }

  queueUsed(queue: number): boolean {
    this.#select(queue);
    return this.#common.read16(C.queue_enable) === 1;
  }

  /** @see VIRTIO 1.4, 2.6.1 and 4.1.4.3.2 */
  queueReset(queue: number): void {
    if (!this.#ringReset) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()}: queue ${queue} cannot be reset alone, as RING_RESET was not negotiated; reset the device`,
      );
    }
    if (!this.#hasQueue(queue)) {
      if (this.isGone()) throw this.removed();
      throw new VirtioError('INVALID_PARAM', `${this.who()} has no queue ${queue} to reset`);
    }
    this.#select(queue);
    this.#common.write16(C.queue_reset, 1);
    const deadline = new Deadline(RESET_TIMEOUT_MS);
    for (;;) {
      const value = this.#common.read16(C.queue_reset);
      if ((value === 0 || value === 0xffff) && this.isGone()) throw this.removed();
      if (value === 0) break;
      if (deadline.isOver) {
        throw new VirtioError(
          'NOT_READY',
          `${this.who()}: the device did not reset queue ${queue} within ${RESET_TIMEOUT_MS / 1000} s; reset the device`,
        );
      }
    }
    this.#doorbells[queue] = -1;
  }

  /** Reads the ISR status, which clears it and de-asserts INTx [4.1.4.5]. */
  ackInterrupt(): InterruptStatus {
    return InterruptStatus.from(this.#isr.read8(0));
  }

  readConfigGeneration(): number {
    return this.#common.read8(C.config_generation);
  }

  readConfig(offset: number, width: 1 | 2 | 4): number {
    const config = this.#deviceConfig(offset, width);
    // 4.1.3.1: at the width of the field.
    if (width === 1) return config.read8(offset);
    return width === 2 ? config.read16(offset) : config.read32(offset);
  }

  writeConfig(offset: number, width: 1 | 2 | 4, value: number): void {
    const config = this.#deviceConfig(offset, width);
    if (width === 1) config.write8(offset, value);
    else if (width === 2) config.write16(offset, value);
    else config.write32(offset, value);
  }

  /**
   * @throws {@link VirtioError} `INVALID_DEVICE` if the region is not inside a memory BAR [4.1.4.7], `INVALID_PARAM` for an id above
   * 255, or if the BAR has no address
   */
  sharedMemory(id: number): SharedMemory | undefined {
    requireInteger(this, 'the id of a shared memory region', id, 0, MAX_REGION);
    const region = this.#structures.find(
      (structure) => structure.type === VirtioPciCap.SHARED_MEMORY_CFG && structure.id === id,
    );
    if (region === undefined || region.length === 0) return undefined;
    const fault = structureFault(region, this.#bars, 1, 1);
    const bar = this.#bars[region.bar];
    if (fault !== undefined || bar === undefined) {
      const faults = fault === undefined ? [] : [fault];
      throw structureError(this.who(), `shared memory region ${id}`, region.type, faults);
    }
    // The address of an I/O BAR is a port, and 0 is that of a BAR without one: at either there is other memory.
    if (bar.kind === 'io') {
      const text = `it is in BAR ${bar.index}, which is in I/O space`;
      throw structureError(this.who(), `shared memory region ${id}`, region.type, [
        { reason: 'BAR_IN_IO_SPACE', text },
      ]);
    }
    if (bar.address === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.who()}: shared memory region ${id} is in BAR ${bar.index}, which has no address; assign one with BarAllocator`,
        because(UNASSIGNED),
      );
    }
    return { address: bar.address + region.offset, length: region.length };
  }

  /**
   * The administration virtqueues, or `undefined` if `VIRTIO_F_ADMIN_VQ` was not negotiated. The drivers here do not negotiate it.
   *
   * @throws {@link VirtioError} `INVALID_DEVICE` if they overlap the device's other queues or end beyond 65535
   * @see VIRTIO 1.4, 4.1.4.3
   */
  adminQueues(): AdminQueues | undefined {
    if (!this.#adminQueues) return undefined;
    const index = this.#common.read16(C.admin_queue_index);
    const count = this.#common.read16(C.admin_queue_num);
    const queues = this.#common.read16(C.num_queues);
    if (count > 0 && (index < queues || index + count > 0x1_0000)) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${this.who()} has ${count} administration virtqueues from index ${index}, which overlap its ${queues} ` +
          'other queues or end beyond 65535; do not negotiate ADMIN_VQ',
      );
    }
    return { index, count };
  }

  /** @throws {@link VirtioError} `UNSUPPORTED` if the device has no interrupt vector for configuration changes */
  override finishInit(): void {
    this.#mapConfig();
    super.finishInit();
  }

  /** Whether the device no longer answers; see {@link PciTransport.getStatus}. */
  isGone(): boolean {
    return this.getStatus().bits === GONE;
  }

  /** The error of a device that is no longer there, or whose transport is disposed. */
  override removed(): VirtioError {
    if (!this.#disposed) return super.removed();
    return new VirtioError('DEVICE_REMOVED', `${this.who()} is closed; open it again`);
  }

  /**
   * Resets the device if it is still there, restores its command register, and calls `onDispose`. For a driver that still has the
   * device, it is gone from now on.
   *
   * @throws {@link VirtioError} `NOT_READY` if the device does not complete its reset; bus mastering is then disabled
   */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    let command: number | undefined = this.#command;
    try {
      this.reset();
    } catch (error) {
      // A device that was unplugged cannot access memory. One that does not stop must no longer be able to.
      const gone = VirtioError.is(error, 'DEVICE_REMOVED');
      command = gone ? undefined : this.#command & ~BUS_MASTER;
      if (!gone) throw error;
    } finally {
      if (command !== undefined) setCommandBits(this.#pci, command);
      this.#leave();
      try {
        this.#dispatcher?.close();
      } finally {
        this.#onDispose?.();
      }
    }
  }

  /** The registers are not accessed from now on: they read as those of a device that is gone. */
  #leave(): void {
    this.#common = goneRegisters(this.#common.size);
    this.#notify = goneRegisters(this.#notify.size);
    this.#isr = goneRegisters(this.#isr.size);
    this.#config &&= goneRegisters(this.#config.size);
    this.#halves = undefined;
    this.#words = undefined;
  }

  #checkType(): DeviceType {
    const type = virtioDeviceType(this.info);
    if (type === undefined) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${this.name} is ${this.info.toString()}, which is not a virtio device of a known type`,
        because(this.info.vendorId === VIRTIO_VENDOR_ID ? 'UNKNOWN_DEVICE_ID' : 'WRONG_VENDOR_ID'),
      );
    }
    return type;
  }

  /** 4.1.5.1.1.1: a device without virtio capabilities is a legacy device. */
  #findStructures(): readonly VirtioStructure[] {
    const { structures } = virtioStructures(this.#pci, this.name);
    if (structures.length === 0 && isTransitional(this.info)) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()} has no virtio capabilities: it has only the legacy interface, which is not supported over PCI; ` +
          'enable the modern interface (QEMU: disable-modern=off)',
        because('LEGACY_ONLY'),
      );
    }
    return structures;
  }

  #enable(lines: PciInterrupts | undefined): void {
    const command = this.#command | DECODE | BUS_MASTER;
    // INTx without a handler would never be de-asserted.
    const intx = lines?.vectors === 0;
    setCommandBits(this.#pci, intx ? command & ~INTERRUPT_DISABLE : command | INTERRUPT_DISABLE);
  }

  /** Returns a function that finds and maps the first usable structure of a type [4.1.4.1]. */
  #finder(mapBar: MapBar) {
    return (
      type: number,
      what: string,
      least: number,
      alignment: number,
      most = Infinity,
    ): readonly [RegisterWindow, VirtioStructure] => {
      const faults: StructureFault[] = [];
      let unsupported: VirtioError | undefined;
      let unassigned: VirtioError | undefined;
      for (const structure of this.#structures) {
        if (structure.type !== type || (type === VirtioPciCap.DEVICE_CFG && structure.length === 0)) continue;
        const { bar, offset, length, multiplier } = structure;
        const fault = structureFault(structure, this.#bars, least, alignment);
        if (fault !== undefined) {
          faults.push(fault);
          continue;
        }
        // 4.1.4.1: only the needed part is mapped: for notifications, up to the last possible queue.
        const needed = type === VirtioPciCap.NOTIFY_CFG ? 0xffff * multiplier + 4 : most;
        try {
          return [mapBar(bar, offset, Math.min(length, needed)), structure];
        } catch (error) {
          // The device may have the structure in another BAR as well.
          if (VirtioError.is(error) && error.reason === UNASSIGNED) {
            unassigned ??= error;
            continue;
          }
          if (!VirtioError.is(error, 'UNSUPPORTED')) throw error;
          unsupported = error;
          faults.push({ reason: 'BAR_IN_IO_SPACE', text: error.message });
        }
      }
      if (unassigned !== undefined) throw unassigned;
      if (unsupported === undefined) throw structureError(this.who(), what, type, faults);
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.who()}: its ${what} cannot be mapped: ${faults.map(({ text }) => text).join('; ')}`,
        { cause: unsupported, reason: unsupported.reason },
      );
    };
  }

  #needRegister(negotiated: boolean, feature: string, end: number): void {
    if (!negotiated || this.#common.size >= end) return;
    throw this.fail(
      new VirtioError(
        'INVALID_DEVICE',
        `${this.who()} offers ${feature}, but its common configuration has ${this.#common.size} bytes and ends before the ` +
          `register for it; open it without ${feature}`,
        because('STRUCTURE_TOO_SHORT'),
      ),
    );
  }

  #hasQueue(queue: number): boolean {
    if (!Number.isInteger(queue) || queue < 0) return false;
    if (queue < this.#common.read16(C.num_queues)) return true;
    const admin = this.adminQueues();
    return admin !== undefined && queue >= admin.index && queue < admin.index + admin.count;
  }

  #isAbsent(): boolean {
    return this.#pci.read16(PciRegister.VENDOR_ID) === 0xffff;
  }

  #readSize(queue: number): number {
    this.#select(queue);
    return this.#common.read16(C.queue_size);
  }

  #select(queue: number): void {
    this.#common.write16(C.queue_select, queue);
  }

  /** 4.1.3.1: writes 64 bits as two halves. */
  #write64(offset: number, value: number): void {
    this.#common.write32(offset, value >>> 0);
    this.#common.write32(offset + 4, Math.floor(value / 2 ** 32));
  }

  #mapConfig(): void {
    this.#dispatcher?.mapConfig((vector) => this.#tryVector(C.config_msix_vector, vector));
  }

  #tryVector(register: number, vector: number): number {
    this.#common.write16(register, vector);
    return this.#common.read16(register);
  }

  /** Computes the notification address and value of the selected queue [4.1.4.4]. */
  #setDoorbell(queue: number): void {
    const unit = this.#common.read16(C.queue_notify_off);
    const offset = unit * this.#multiplier;
    const width = this.#notificationData ? 4 : 2;
    if (offset + width > this.#notify.size || (this.#notifyStart + offset) % width !== 0) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${this.who()}: notifications of queue ${queue} would go to offset ${offset} (${unit} times ${this.#multiplier}), in ` +
          `${width} bytes; the device's notification structure has ${this.#notify.size} bytes from ${this.#notifyStart} of its BAR`,
      );
    }
    if (queue >= this.#doorbells.length) {
      const doorbells = new Int32Array(queue + 1).fill(-1);
      doorbells.set(this.#doorbells);
      const values = new Int32Array(queue + 1);
      values.set(this.#values);
      this.#doorbells = doorbells;
      this.#values = values;
    }
    const index = this.#notificationData ? offset >>> 2 : offset >>> 1;
    this.#doorbells[queue] = this.#notify.mapped === undefined ? offset : index;
    this.#values[queue] = this.#notifConfigData ? this.#common.read16(C.queue_notif_config_data) : queue;
  }

  #deviceConfig(offset: number, width: number): RegisterWindow {
    if (this.#config !== undefined) return this.#config;
    throw new VirtioError(
      'CONFIG_SPACE_MISSING',
      `${width} bytes at ${offset} of the configuration space were asked for, but ${this.who()} has none`,
    );
  }

  #notSetUp(queue: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.who()}: queue ${queue} cannot be notified, as it is not set up`,
    );
  }
}
