/** A virtio device on PCI [4.1] in front of a {@link FakeDevice}: capabilities, common configuration, notifications, ISR, MSI-X. */
import { type RegisterWindow, subWindow } from '@virtio/core';
import type { FakeDevice, FakeQueue } from './fake-device.ts';
import {
  allOnes,
  type FakeCapability,
  FakePciFunction,
  type FakePciFunctionOptions,
} from './fake-pci-function.ts';
import { featureWord, highHalf, lowHalf, withFeatureWord, withHigh, withLow } from './halves.ts';
import { type InterruptHandler, InterruptPin } from './interrupt-pin.ts';
import { FakeMsix, type MsixEntry } from './fake-msix.ts';
import {
  BAR_MSIX,
  barsOf,
  CAPABILITY,
  capabilitiesOf,
  type FakeStructure,
  structuresOf,
  TYPE,
} from './pci-structures.ts';
import type { Width } from './register-model.ts';

const VENDOR = 0x1af4;
const NO_VECTOR = 0xffff;
const MSIX_ENABLE = 0x8000;
const MSIX_MASK_ALL = 0x4000;
const DRIVER_OK = 4;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/** Transitional device ids [4.1.2.1]. */
const TRANSITIONAL: Readonly<Record<number, number>> = {
  1: 0x1000,
  2: 0x1001,
  5: 0x1002,
  3: 0x1003,
  8: 0x1004,
  4: 0x1005,
  9: 0x1009,
};

/** The common configuration [4.1.4.3]: field, width, whether the driver may write it. */
const COMMON = [
  ['device_feature_select', 4, true],
  ['device_feature', 4, false],
  ['driver_feature_select', 4, true],
  ['driver_feature', 4, true],
  ['config_msix_vector', 2, true],
  ['num_queues', 2, false],
  ['device_status', 1, true],
  ['config_generation', 1, false],
  ['queue_select', 2, true],
  ['queue_size', 2, true],
  ['queue_msix_vector', 2, true],
  ['queue_enable', 2, true],
  ['queue_notify_off', 2, false],
  ['queue_desc', 4, true],
  ['queue_desc_hi', 4, true],
  ['queue_driver', 4, true],
  ['queue_driver_hi', 4, true],
  ['queue_device', 4, true],
  ['queue_device_hi', 4, true],
  ['queue_notif_config_data', 2, false],
  ['queue_reset', 2, true],
  ['admin_queue_index', 2, false],
  ['admin_queue_num', 2, false],
] as const;

type CommonField = (typeof COMMON)[number][0];

interface CommonRegister {
  readonly name: CommonField;
  readonly width: number;
  readonly writable: boolean;
}

const COMMON_AT = new Map<number, CommonRegister>();
let commonSize = 0;
for (const [name, width, writable] of COMMON) {
  COMMON_AT.set(commonSize, { name, width, writable });
  commonSize += width;
}

/** Options of {@link FakePciDevice}. */
export interface FakePciDeviceOptions {
  /** Whether the device has a transitional device id and revision 0 (default false). Its legacy interface is not modelled. */
  readonly transitional?: boolean;
  /** Fields of the header that differ from the defaults. */
  readonly header?: Partial<FakePciFunctionOptions>;
  /** Entries of the MSI-X table (default one for each queue and one for the configuration); 0: no MSI-X capability. */
  readonly vectors?: number;
  /** `notify_off_multiplier` (default 4). */
  readonly multiplier?: number;
  /** `queue_notify_off` of a queue (default its index). */
  readonly notifyOffset?: (queue: number) => number;
  /** `queue_notif_config_data` of a queue (default 0x100 + its index). */
  readonly notifyData?: (queue: number) => number;
  /** The size of the common configuration in bytes (default 64, all of it). Older devices have 56. */
  readonly commonLength?: number;
  /** Vectors that the device refuses to map. */
  readonly refusedVectors?: readonly number[];
  /** How many different vectors can be mapped at a time (default any number). */
  readonly mappableVectors?: number;
  /** Changes the capabilities before they are written: for lies. */
  readonly capabilities?: (capabilities: FakeCapability[]) => readonly FakeCapability[];
  /** Changes the structures before capabilities are made from them: for lies. The registers stay at their original places. */
  readonly structures?: (structures: FakeStructure[]) => readonly FakeStructure[];
  /** Called when an MSI-X vector fires, in a microtask; several at once arrive as one. */
  readonly onVector?: (vector: number) => void;
  /** The handler of INTx, called while it is asserted. */
  readonly onIntx?: InterruptHandler;
}

/** A virtio device on PCI. */
export class FakePciDevice extends FakePciFunction {
  readonly device: FakeDevice;
  /** Where its structures are, whatever its capabilities say. */
  readonly structures: readonly FakeStructure[];
  /** How many entries its MSI-X table has. */
  readonly vectors: number;
  /** The ISR status. */
  isr = 0;

  readonly #options: FakePciDeviceOptions;
  readonly #intx: InterruptPin;
  readonly #msix: FakeMsix;
  readonly #queueVectors: number[];
  readonly #enabled: boolean[];
  readonly #resetting: boolean[];
  /** What was mapped to a vector, and not read back yet. */
  readonly #unverified = new Set<number | 'config'>();
  readonly #pciCfgAt: number;
  readonly #msixAt: number;
  #configVector = NO_VECTOR;
  #deviceSelect = 0;
  #driverSelect = 0;
  #features = 0n;
  #queueSelect = 0;

  /**
   * @example
   * ```ts
   * import { DeviceType } from '@virtio/core';
   * import { FakeDevice, FakePciBus, FakePciDevice } from '@virtio/testing';
   *
   * const bus = new FakePciBus();
   * const device = new FakeDevice({ type: DeviceType.Block, config: 60 });
   * bus.add(3, 0, new FakePciDevice(device));
   * bus.assign();
   * const ecam = bus.configWindow('ecam');
   * ecam.read32(3 << 15); // 0x10421af4
   * ```
   */
  constructor(device: FakeDevice, options: FakePciDeviceOptions = {}) {
    const { queues } = device;
    const vectors = options.vectors ?? queues.length + 1;
    const layout = structuresOf(device, options);
    const told = options.structures?.([...layout]) ?? layout;
    const capabilities = capabilitiesOf(told, options.multiplier ?? 4, vectors);
    const chosen = options.capabilities?.([...capabilities]) ?? capabilities;
    super({
      vendorId: VENDOR,
      deviceId: options.transitional === true ? (TRANSITIONAL[device.type] ?? 0x1000) : 0x1040 + device.type,
      revision: options.transitional === true ? 0 : 1,
      subsystemVendorId: VENDOR,
      subsystemId: options.transitional === true ? device.type : 0x1100,
      bars: barsOf(layout, vectors),
      ...options.header,
      capabilities: chosen,
    });
    this.device = device;
    this.vectors = vectors;
    this.structures = layout;
    this.#options = options;
    this.#msix = new FakeMsix(
      vectors,
      () => ({ enabled: this.msixEnabled, masked: (this.#msixControl() & MSIX_MASK_ALL) !== 0 }),
      (vector) => options.onVector?.(vector),
    );
    this.#intx = new InterruptPin(options.onIntx);
    this.#queueVectors = queues.map(() => NO_VECTOR);
    this.#enabled = queues.map(() => false);
    this.#resetting = queues.map(() => false);
    this.#pciCfgAt = this.#findCapability(CAPABILITY.vendor, TYPE.pciCfg);
    this.#msixAt = this.#findCapability(CAPABILITY.msix);
    if (this.#pciCfgAt > 0) {
      // 4.1.4.9: bar, offset, length and the data can be written.
      this.writable[this.#pciCfgAt + 4] = 0xff;
      this.writable.fill(0xff, this.#pciCfgAt + 8, this.#pciCfgAt + 20);
    }
    if (this.#msixAt > 0) this.writable[this.#msixAt + 3] = 0xc0;
    device.front = {
      interruptQueue: (queue) => {
        this.#interrupt(this.#queueVectors[queue] ?? NO_VECTOR, ISR_QUEUE);
      },
      interruptConfig: () => {
        this.#interrupt(this.#configVector, ISR_CONFIG);
      },
      removed: () => {
        this.#intx.set(false);
      },
      reset: () => {
        this.#reset();
      },
    };
  }

  override isPresent(): boolean {
    return !this.device.removed;
  }

  /** Whether INTx is asserted. */
  get intxAsserted(): boolean {
    return this.#intx.asserted;
  }

  /** Whether MSI-X is enabled. */
  get msixEnabled(): boolean {
    return this.#msixAt > 0 && (this.#msixControl() & MSIX_ENABLE) !== 0;
  }

  /** Enables MSI-X and unmasks all vectors, as a platform that owns the table does (VFIO). */
  enableMsix(): void {
    this.poke(this.#msixAt + 2, 2, this.#msixControl() | MSIX_ENABLE);
    this.#msix.unmask();
  }

  /** An entry of the MSI-X table. */
  msixEntry(vector: number): MsixEntry {
    return this.#msix.entry(vector);
  }

  /** The vector that the driver mapped to a queue or to configuration changes; 0xffff: none. */
  vectorOf(what: number | 'config'): number {
    return what === 'config' ? this.#configVector : (this.#queueVectors[what] ?? NO_VECTOR);
  }

  /** Maps a part of a BAR, as a platform that knows the BARs does (VFIO, sysfs). */
  mapBar(bar: number, offset: number, length: number): RegisterWindow {
    return subWindow(this.bar(bar), offset, length);
  }

  override barRegisterName(bar: number, offset: number): string {
    const found = this.#structureAt(bar, offset);
    if (!found) {
      return bar === BAR_MSIX ? `msix+0x${offset.toString(16)}` : super.barRegisterName(bar, offset);
    }
    const at = offset - found.offset;
    if (found.type === 'common') return COMMON_AT.get(at)?.name ?? `common+0x${at.toString(16)}`;
    return found.type === 'isr' ? 'isr' : `${found.type}+0x${at.toString(16)}`;
  }

  protected override loadBar(bar: number, offset: number, width: Width): number {
    const { device } = this;
    if (bar === BAR_MSIX && this.vectors > 0) return width === 4 ? this.#msix.load(offset) : allOnes(width);
    const found = this.#structureAt(bar, offset);
    if (!found) return 0;
    const at = offset - found.offset;
    switch (found.type) {
      case 'common':
        return this.#loadCommon(at, width);
      case 'isr': {
        // 4.1.4.5: reading clears it and releases INTx.
        const status = this.isr;
        this.isr = 0;
        this.#showIntx();
        return status;
      }
      case 'device':
        return device.readConfig(at, width);
      case 'notify':
        throw device.violated('the driver read a notification register [4.1.4.4]');
      default:
        return 0;
    }
  }

  protected override storeBar(bar: number, offset: number, width: Width, value: number): void {
    const { device } = this;
    if (bar === BAR_MSIX && this.vectors > 0) {
      if (this.#msix.store(offset, width, value)) return;
      throw device.violated(`the MSI-X table was written at ${offset} with ${8 * width} bits`);
    }
    const found = this.#structureAt(bar, offset);
    if (!found) {
      throw device.violated(`the driver wrote to BAR ${bar} at ${offset}, where there is no structure`);
    }
    const at = offset - found.offset;
    switch (found.type) {
      case 'common':
        this.#storeCommon(at, width, value);
        break;
      case 'notify':
        this.#notified(at, width, value);
        break;
      case 'device':
        device.writeConfig(at, width, value);
        break;
      case 'isr':
        throw device.violated('the driver wrote to the ISR status');
      default:
        break;
    }
  }

  protected override configReading(offset: number, width: Width): void {
    const data = this.#pciCfgAt + 16;
    if (this.#pciCfgAt === 0 || offset < data || offset + width > data + 4) return;
    const access = this.#pciCfgAccess();
    if (access) this.poke(data, 4, this.loadBar(access.bar, access.offset, access.width));
  }

  protected override configWritten(offset: number, width: Width): void {
    if (this.#msixAt > 0 && offset <= this.#msixAt + 3 && offset + width > this.#msixAt + 2) {
      this.#msix.flush();
    }
    this.#showIntx();
    const data = this.#pciCfgAt + 16;
    if (this.#pciCfgAt === 0 || offset < data || offset + width > data + 4) return;
    const access = this.#pciCfgAccess();
    if (access) {
      this.storeBar(access.bar, access.offset, access.width, this.peek(data, 4) % 2 ** (8 * access.width));
    }
  }

  /** 4.1.4.9: which register the PCI configuration access capability shows. */
  #pciCfgAccess(): { bar: number; offset: number; width: Width } | undefined {
    const at = this.#pciCfgAt;
    const bar = this.peek(at + 4, 1);
    const offset = this.peek(at + 8, 4);
    const length = this.peek(at + 12, 4);
    const { device } = this;
    if ((length !== 1 && length !== 2 && length !== 4) || offset % length !== 0) {
      device.violated(`pci_cfg_data was accessed with length ${length} at offset ${offset} [4.1.4.9.2]`);
      return undefined;
    }
    const found = this.#structureAt(bar, offset);
    if (!found || offset + length > found.offset + found.length) {
      device.violated(
        `pci_cfg_data was accessed for BAR ${bar} at ${offset}, where no other capability points [4.1.4.9.2]`,
      );
      return undefined;
    }
    return { bar, offset, width: length };
  }

  #structureAt(bar: number, offset: number): FakeStructure | undefined {
    return this.structures.find(
      (structure) =>
        structure.bar === bar && offset >= structure.offset && offset < structure.offset + structure.length,
    );
  }

  #findCapability(id: number, type?: number): number {
    return (
      this.capabilityOffsets.find(
        (at) => this.peek(at, 1) === id && (type === undefined || this.peek(at + 3, 1) === type),
      ) ?? 0
    );
  }

  /** Checks an access to the common configuration and returns the field, or `undefined` if it has no effect. */
  #commonField(at: number, width: Width, writes: boolean): CommonField | undefined {
    const { device } = this;
    const field = COMMON_AT.get(at);
    if (field?.width !== width) {
      throw device.violated(
        `${width} bytes at ${at} of the common configuration were accessed; ` +
          (field ? `${field.name} has ${field.width}` : 'no field starts there') +
          ' [4.1.3.1]',
      );
    }
    if (writes && !field.writable) throw device.violated(`the driver wrote to ${field.name} [4.1.4.3.2]`);
    const needs =
      field.name === 'queue_notif_config_data'
        ? 'NOTIF_CONFIG_DATA'
        : field.name === 'queue_reset'
          ? 'RING_RESET'
          : field.name.startsWith('admin')
            ? 'ADMIN_VQ'
            : undefined;
    if (needs !== undefined && !device.has(needs)) {
      throw device.violated(`${field.name} was accessed, but ${needs} was not negotiated [4.1.4.3]`);
    }
    return field.name;
  }

  #selected(): FakeQueue | undefined {
    return this.device.queueState(this.#queueSelect);
  }

  #loadCommon(at: number, width: Width): number {
    const field = this.#commonField(at, width, false);
    const { device } = this;
    const queue = this.#selected();
    switch (field) {
      case 'device_feature_select':
        return this.#deviceSelect;
      case 'device_feature':
        return featureWord(device.features, this.#deviceSelect);
      case 'driver_feature_select':
        return this.#driverSelect;
      case 'driver_feature':
        return featureWord(this.#features, this.#driverSelect);
      case 'config_msix_vector':
        this.#unverified.delete('config');
        return this.#configVector;
      case 'num_queues':
        return device.queues.length;
      case 'device_status':
        return device.readStatus();
      case 'config_generation':
        return device.generation & 0xff;
      case 'queue_select':
        return this.#queueSelect;
      case 'queue_size':
        return queue ? queue.size || queue.maxSize : 0;
      case 'queue_msix_vector':
        this.#unverified.delete(this.#queueSelect);
        return this.#queueVectors[this.#queueSelect] ?? NO_VECTOR;
      case 'queue_enable':
        return this.#enabled[this.#queueSelect] === true ? 1 : 0;
      case 'queue_notify_off':
        return this.#notifyOffset(this.#queueSelect);
      case 'queue_desc':
        return lowHalf(queue?.descriptors ?? 0);
      case 'queue_desc_hi':
        return highHalf(queue?.descriptors ?? 0);
      case 'queue_driver':
        return lowHalf(queue?.driverArea ?? 0);
      case 'queue_driver_hi':
        return highHalf(queue?.driverArea ?? 0);
      case 'queue_device':
        return lowHalf(queue?.deviceArea ?? 0);
      case 'queue_device_hi':
        return highHalf(queue?.deviceArea ?? 0);
      case 'queue_notif_config_data':
        return this.#notifyData(this.#queueSelect);
      case 'queue_reset':
        return this.#readQueueReset(queue);
      default:
        return 0;
    }
  }

  #storeCommon(at: number, width: Width, value: number): void {
    const field = this.#commonField(at, width, true);
    const { device } = this;
    const queue = this.#selected();
    if (
      this.#enabled[this.#queueSelect] === true &&
      field?.startsWith('queue_') === true &&
      field !== 'queue_select' &&
      field !== 'queue_reset'
    ) {
      throw device.violated(
        `${field} was written for queue ${this.#queueSelect}, which is enabled [4.1.4.3.2]`,
      );
    }
    switch (field) {
      case 'device_feature_select':
        this.#deviceSelect = value;
        break;
      case 'driver_feature_select':
        this.#driverSelect = value;
        break;
      case 'driver_feature':
        this.#features = withFeatureWord(this.#features, this.#driverSelect, value);
        device.writeFeatures(this.#features);
        break;
      case 'config_msix_vector':
        this.#configVector = NO_VECTOR;
        this.#configVector = this.#mapVector(value, 'config');
        break;
      case 'device_status':
        if ((value & DRIVER_OK) !== 0) this.#checkVerified('config', 'DRIVER_OK was set');
        device.writeStatus(value);
        break;
      case 'queue_select':
        this.#queueSelect = value;
        break;
      case 'queue_size':
        if (value === 0 || (!device.has('RING_PACKED') && (value & (value - 1)) !== 0)) {
          device.violated(`queue_size of queue ${this.#queueSelect} was set to ${value} [4.1.4.3.2]`);
        }
        if (queue) queue.size = value;
        break;
      case 'queue_msix_vector':
        this.#queueVectors[this.#queueSelect] = NO_VECTOR;
        this.#queueVectors[this.#queueSelect] = this.#mapVector(value, this.#queueSelect);
        break;
      case 'queue_enable':
        if (value !== 1) throw device.violated(`${value} was written to queue_enable [4.1.4.3.2]`);
        this.#checkVerified(this.#queueSelect, `queue ${this.#queueSelect} was enabled`);
        if (queue?.size === 0) queue.size = queue.maxSize;
        device.enableQueue(this.#queueSelect);
        this.#enabled[this.#queueSelect] = true;
        break;
      case 'queue_desc':
        if (queue) queue.descriptors = withLow(queue.descriptors, value);
        break;
      case 'queue_desc_hi':
        if (queue) queue.descriptors = withHigh(queue.descriptors, value);
        break;
      case 'queue_driver':
        if (queue) queue.driverArea = withLow(queue.driverArea, value);
        break;
      case 'queue_driver_hi':
        if (queue) queue.driverArea = withHigh(queue.driverArea, value);
        break;
      case 'queue_device':
        if (queue) queue.deviceArea = withLow(queue.deviceArea, value);
        break;
      case 'queue_device_hi':
        if (queue) queue.deviceArea = withHigh(queue.deviceArea, value);
        break;
      case 'queue_reset':
        if (value !== 1 || !queue) {
          throw device.violated(`${value} was written to queue_reset of queue ${this.#queueSelect}`);
        }
        this.#resetting[this.#queueSelect] = true;
        queue.resetReads = device.queueResetReads;
        queue.ring?.detach();
        break;
      default:
        break;
    }
  }

  #readQueueReset(queue: FakeQueue | undefined): number {
    if (!queue || this.#resetting[this.#queueSelect] !== true) return 0;
    if (queue.resetReads > 0) {
      queue.resetReads -= 1;
      return 1;
    }
    this.device.disableQueue(this.#queueSelect);
    this.#resetting[this.#queueSelect] = false;
    this.#enabled[this.#queueSelect] = false;
    this.#queueVectors[this.#queueSelect] = NO_VECTOR;
    return 0;
  }

  #checkVerified(what: number | 'config', act: string): void {
    if (!this.#unverified.has(what)) return;
    this.device.violated(`${act} before the vector that was written had been read back [4.1.5.1.2.2]`);
  }

  #mapVector(value: number, what: number | 'config'): number {
    this.#unverified.delete(what);
    if (value === NO_VECTOR) return NO_VECTOR;
    this.#unverified.add(what);
    if (value >= this.vectors) {
      this.device.violated(`vector ${value} was mapped; the MSI-X table has ${this.vectors} [4.1.5.1.2.2]`);
      return NO_VECTOR;
    }
    const { refusedVectors = [], mappableVectors = Infinity } = this.#options;
    const mapped = new Set([this.#configVector, ...this.#queueVectors, value]);
    mapped.delete(NO_VECTOR);
    return refusedVectors.includes(value) || mapped.size > mappableVectors ? NO_VECTOR : value;
  }

  #notifyOffset(queue: number): number {
    return this.#options.notifyOffset?.(queue) ?? queue;
  }

  #notifyData(queue: number): number {
    return this.#options.notifyData?.(queue) ?? 0x100 + queue;
  }

  /** 4.1.5.2: the address and the value of a write say which queue is notified. */
  #notified(at: number, width: Width, value: number): void {
    const { device } = this;
    const data = device.has('NOTIFICATION_DATA');
    if (width !== (data ? 4 : 2)) {
      throw device.violated(`a notification had ${8 * width} bits, not ${data ? 32 : 16} [4.1.5.2.1]`);
    }
    const id = value & 0xffff;
    const configured = device.has('NOTIF_CONFIG_DATA');
    const queue = device.queues.findIndex(
      (_, index) => id === (configured ? this.#notifyData(index) : index),
    );
    if (queue < 0) {
      throw device.violated(
        `a notification had the value 0x${id.toString(16)}, which is no ` +
          `${configured ? 'queue_notif_config_data' : 'queue index'} [4.1.5.2.1]`,
      );
    }
    const expected = this.#notifyOffset(queue) * (this.#options.multiplier ?? 4);
    if (at !== expected) {
      throw device.violated(
        `queue ${queue} was notified at offset ${at}; its place is ${expected} [4.1.4.4]`,
      );
    }
    if (!this.busMaster) {
      device.violated(
        'the driver sent a notification, but the function is not bus master and cannot access memory',
      );
    }
    device.notify(queue, value >>> 16);
  }

  #interrupt(vector: number, isr: number): void {
    if (this.msixEnabled) {
      if (vector === NO_VECTOR) return;
      this.#msix.raise(vector);
      return;
    }
    this.isr |= isr;
    this.#showIntx();
  }

  #showIntx(): void {
    const pending = this.isr !== 0 && !this.msixEnabled;
    this.showInterrupt(pending);
    this.#intx.set(pending && !this.intxDisabled);
  }

  #msixControl(): number {
    return this.peek(this.#msixAt + 2, 2);
  }

  /** 4.1.5.1.2.1, 4.1.4.3.1: no events are mapped after a reset, and no queue is enabled. */
  #reset(): void {
    this.isr = 0;
    this.#showIntx();
    this.#features = 0n;
    this.#configVector = NO_VECTOR;
    this.#queueVectors.fill(NO_VECTOR);
    this.#unverified.clear();
    this.#enabled.fill(false);
    this.#resetting.fill(false);
    this.#msix.clear();
  }
}
