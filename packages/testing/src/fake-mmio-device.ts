/** The MMIO registers of a device [4.2], modern and legacy, in front of a {@link FakeDevice}. */
import { InterruptStatus } from '@virtio/core';
import type { FakeDevice, FakeQueue } from './fake-device.ts';
import { featureWord, highHalf, lowHalf, withFeatureWord, withHigh, withLow } from './halves.ts';
import { type InterruptHandler, InterruptPin } from './interrupt-pin.ts';
import { RegisterModel, type Width } from './register-model.ts';

/** The registers by name, with the driver's access (R, W or RW) in version 2 and in version 1 (legacy). */
const REGISTERS = {
  MagicValue: { at: 0x000, modern: 'R', legacy: 'R' },
  Version: { at: 0x004, modern: 'R', legacy: 'R' },
  DeviceID: { at: 0x008, modern: 'R', legacy: 'R' },
  VendorID: { at: 0x00c, modern: 'R', legacy: 'R' },
  DeviceFeatures: { at: 0x010, modern: 'R', legacy: 'R' },
  DeviceFeaturesSel: { at: 0x014, modern: 'W', legacy: 'W' },
  DriverFeatures: { at: 0x020, modern: 'W', legacy: 'W' },
  DriverFeaturesSel: { at: 0x024, modern: 'W', legacy: 'W' },
  GuestPageSize: { at: 0x028, modern: '', legacy: 'W' },
  QueueSel: { at: 0x030, modern: 'W', legacy: 'W' },
  QueueSizeMax: { at: 0x034, modern: 'R', legacy: 'R' },
  QueueSize: { at: 0x038, modern: 'W', legacy: 'W' },
  QueueAlign: { at: 0x03c, modern: '', legacy: 'W' },
  QueuePFN: { at: 0x040, modern: '', legacy: 'RW' },
  QueueReady: { at: 0x044, modern: 'RW', legacy: '' },
  QueueNotify: { at: 0x050, modern: 'W', legacy: 'W' },
  InterruptStatus: { at: 0x060, modern: 'R', legacy: 'R' },
  InterruptACK: { at: 0x064, modern: 'W', legacy: 'W' },
  Status: { at: 0x070, modern: 'RW', legacy: 'RW' },
  QueueDescLow: { at: 0x080, modern: 'W', legacy: '' },
  QueueDescHigh: { at: 0x084, modern: 'W', legacy: '' },
  QueueDriverLow: { at: 0x090, modern: 'W', legacy: '' },
  QueueDriverHigh: { at: 0x094, modern: 'W', legacy: '' },
  QueueDeviceLow: { at: 0x0a0, modern: 'W', legacy: '' },
  QueueDeviceHigh: { at: 0x0a4, modern: 'W', legacy: '' },
  SHMSel: { at: 0x0ac, modern: 'W', legacy: '' },
  SHMLenLow: { at: 0x0b0, modern: 'R', legacy: '' },
  SHMLenHigh: { at: 0x0b4, modern: 'R', legacy: '' },
  SHMBaseLow: { at: 0x0b8, modern: 'R', legacy: '' },
  SHMBaseHigh: { at: 0x0bc, modern: 'R', legacy: '' },
  QueueReset: { at: 0x0c0, modern: 'RW', legacy: '' },
  ConfigGeneration: { at: 0x0fc, modern: 'R', legacy: '' },
} as const;

type RegisterName = keyof typeof REGISTERS;

const NAMES: ReadonlyMap<number, RegisterName> = new Map(
  (Object.keys(REGISTERS) as RegisterName[]).map((name) => [REGISTERS[name].at, name]),
);

const MAGIC = 0x74726976;
const CONFIG = 0x100;
const ALL_ONES = 0xffffffff;
const KNOWN_INTERRUPTS = InterruptStatus.QUEUE_INTERRUPT | InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT;

/** Options of {@link FakeMmioDevice}. */
export interface FakeMmioDeviceOptions {
  /** The value of MagicValue (default the correct one). */
  readonly magic?: number;
  /** The value of Version (default 1 for a legacy device, else 2). */
  readonly version?: number;
  /** The value of DeviceID (default the device's type). 0: there is no device. */
  readonly deviceId?: number;
  /** The value of VendorID. */
  readonly vendorId?: number;
  /** The size of the window in bytes (default: registers and configuration space, a multiple of 4). */
  readonly size?: number;
  /** The handler of the interrupt line, called while it is asserted. */
  readonly onInterrupt?: InterruptHandler;
  /**
   * Known deviations of real devices. `aliasFeatureWords`: every feature word above 0 is word 1. `ignoreQueueReset`: RING_RESET is
   * offered, but there is no QueueReset register.
   */
  readonly quirks?: { readonly aliasFeatureWords?: boolean; readonly ignoreQueueReset?: boolean };
  /** What registers read as after the device was removed (default ones; with QEMU zeros). */
  readonly silence?: 'ones' | 'zeros';
}

/** The registers of a legacy queue. */
interface LegacyQueue {
  align: number;
  pfn: number;
}

/** A device with MMIO registers. The object is itself the register window. */
export class FakeMmioDevice extends RegisterModel {
  readonly device: FakeDevice;
  readonly size: number;
  /** Pending interrupts. */
  interruptStatus = 0;

  readonly #options: FakeMmioDeviceOptions;
  readonly #legacy: boolean;
  readonly #legacyQueues: LegacyQueue[];
  readonly #ready: boolean[];
  readonly #resetting: boolean[];
  /** Queues that the driver has stopped, and that the device may use until the driver has read that back. */
  readonly #stopping: boolean[];
  #deviceSel: number | undefined;
  #driverSel: number | undefined;
  #driverFeatures = 0n;
  #queueSel = 0;
  #shmSel = 0;
  #guestPageSize = 0;
  readonly #pin: InterruptPin;

  /**
   * @example
   * ```ts
   * import { DeviceType } from '@virtio/core';
   * import { FakeDevice, FakeMmioDevice } from '@virtio/testing';
   *
   * const device = new FakeDevice({ type: DeviceType.Block, config: 60 });
   * const registers = new FakeMmioDevice(device);
   * registers.read32(0); // 0x74726976
   * registers.trace(); // ['read32 MagicValue = 0x74726976']
   * ```
   */
  constructor(device: FakeDevice, options: FakeMmioDeviceOptions = {}) {
    super();
    this.device = device;
    this.#options = options;
    this.#legacy = device.legacy;
    this.#pin = new InterruptPin(options.onInterrupt);
    this.size = options.size ?? CONFIG + Math.ceil(device.config.length / 4) * 4;
    this.#legacyQueues = device.queues.map(() => ({ align: 0, pfn: 0 }));
    this.#ready = device.queues.map(() => false);
    this.#resetting = device.queues.map(() => false);
    this.#stopping = device.queues.map(() => false);
    device.front = {
      interruptQueue: () => {
        this.raise(InterruptStatus.QUEUE_INTERRUPT);
      },
      interruptConfig: () => {
        this.raise(InterruptStatus.DEVICE_CONFIGURATION_INTERRUPT);
      },
      removed: () => {
        this.#pin.set(false);
      },
      reset: () => {
        this.interruptStatus = 0;
        this.#pin.set(false);
        this.#driverFeatures = 0n;
        this.#ready.fill(false);
        this.#resetting.fill(false);
        this.#stopping.fill(false);
        for (const queue of this.#legacyQueues) queue.pfn = 0;
      },
    };
  }

  /** Whether the interrupt line is asserted. */
  get asserted(): boolean {
    return this.#pin.asserted;
  }

  /** Sets bits of the interrupt status; unknown ones are allowed. */
  raise(bits: number): void {
    this.interruptStatus |= bits;
    this.#pin.set(this.interruptStatus !== 0);
  }

  /** The page size that the driver of a legacy device wrote. */
  get guestPageSize(): number {
    return this.#guestPageSize;
  }

  override registerName(offset: number): string {
    return (
      NAMES.get(offset) ??
      (offset >= CONFIG ? `Config+0x${(offset - CONFIG).toString(16)}` : super.registerName(offset))
    );
  }

  protected override load(offset: number, width: Width): number {
    if (this.device.removed) return this.#options.silence === 'zeros' ? 0 : 2 ** (8 * width) - 1;
    if (offset >= CONFIG) {
      this.#checkPresent('the configuration space');
      return this.#configRead(offset - CONFIG, width);
    }
    const name = this.#register(offset, width, 'R');
    if (name === undefined) return 0;
    const { device } = this;
    const queue = this.#selected();
    switch (name) {
      case 'MagicValue':
        return this.#options.magic ?? MAGIC;
      case 'Version':
        return this.#options.version ?? (this.#legacy ? 1 : 2);
      case 'DeviceID':
        return this.#options.deviceId ?? device.type;
      case 'VendorID':
        return this.#options.vendorId ?? 0x554d4551;
      case 'DeviceFeatures':
        if (this.#deviceSel === undefined) {
          device.violated('DeviceFeatures was read before DeviceFeaturesSel was written [4.2.2.2]');
        }
        return featureWord(device.features, this.#featureWord(this.#deviceSel ?? 0));
      case 'QueueSizeMax':
        if (this.#legacy && (this.#legacyQueue()?.pfn ?? 0) !== 0) {
          device.violated('QueueSizeMax was read of a queue that is in use [4.2.4]');
        }
        return queue?.maxSize ?? 0;
      case 'QueuePFN':
        return this.#legacyQueue()?.pfn ?? 0;
      case 'QueueReady':
        return this.#readReady();
      case 'InterruptStatus':
        return this.interruptStatus;
      case 'Status':
        return device.readStatus();
      case 'SHMLenLow':
        return low(device.sharedMemory[this.#shmSel]?.length);
      case 'SHMLenHigh':
        return high(device.sharedMemory[this.#shmSel]?.length);
      case 'SHMBaseLow':
        return low(device.sharedMemory[this.#shmSel]?.address);
      case 'SHMBaseHigh':
        return high(device.sharedMemory[this.#shmSel]?.address);
      case 'QueueReset':
        return this.#readQueueReset(queue);
      case 'ConfigGeneration':
        return device.generation;
      default:
        return 0;
    }
  }

  protected override store(offset: number, width: Width, value: number): void {
    if (this.device.removed) return;
    if (offset >= CONFIG) {
      this.#checkPresent('the configuration space');
      this.device.writeConfig(offset - CONFIG, width, value);
      return;
    }
    const name = this.#register(offset, width, 'W');
    if (name === undefined) return;
    const { device } = this;
    const queue = this.#selected();
    if (this.#ready[this.#queueSel] === true && /^Queue(Size|Desc|Driver|Device)/.test(name)) {
      throw device.violated(`${name} was written with QueueReady set [4.2.2.2]`);
    }
    switch (name) {
      case 'DeviceFeaturesSel':
        this.#deviceSel = value;
        break;
      case 'DriverFeaturesSel':
        this.#driverSel = value;
        break;
      case 'DriverFeatures':
        this.#writeFeatures(value);
        break;
      case 'GuestPageSize':
        if (value === 0 || (value & (value - 1)) !== 0) {
          device.violated(`GuestPageSize is ${value}, not a power of two [4.2.4]`);
        }
        if (this.#legacyQueues.some(({ pfn }) => pfn !== 0)) {
          device.violated('GuestPageSize was written while a queue was in use [4.2.4]');
        }
        this.#guestPageSize = value;
        break;
      case 'QueueSel':
        this.#queueSel = value;
        break;
      case 'QueueSize':
        if (queue) queue.size = value;
        break;
      case 'QueueAlign': {
        const legacy = this.#legacyQueue();
        if (legacy) legacy.align = value;
        break;
      }
      case 'QueuePFN':
        this.#writePfn(queue, value);
        break;
      case 'QueueReady':
        this.#writeReady(queue, value);
        break;
      case 'QueueNotify':
        device.notify(value & 0xffff, value >>> 16);
        break;
      case 'InterruptACK':
        if ((value & ~KNOWN_INTERRUPTS) !== 0) {
          device.violated(`InterruptACK was written with undefined bits: 0x${value.toString(16)} [4.2.2.2]`);
        }
        this.interruptStatus &= ~value;
        this.#pin.set(this.interruptStatus !== 0);
        break;
      case 'Status':
        device.writeStatus(value);
        break;
      case 'QueueDescLow':
        if (queue) queue.descriptors = withLow(queue.descriptors, value);
        break;
      case 'QueueDescHigh':
        if (queue) queue.descriptors = withHigh(queue.descriptors, value);
        break;
      case 'QueueDriverLow':
        if (queue) queue.driverArea = withLow(queue.driverArea, value);
        break;
      case 'QueueDriverHigh':
        if (queue) queue.driverArea = withHigh(queue.driverArea, value);
        break;
      case 'QueueDeviceLow':
        if (queue) queue.deviceArea = withLow(queue.deviceArea, value);
        break;
      case 'QueueDeviceHigh':
        if (queue) queue.deviceArea = withHigh(queue.deviceArea, value);
        break;
      case 'SHMSel':
        this.#shmSel = value;
        break;
      case 'QueueReset':
        this.#writeQueueReset(queue, value);
        break;
      default:
        break;
    }
  }

  #selected(): FakeQueue | undefined {
    return this.device.queueState(this.#queueSel);
  }

  #legacyQueue(): LegacyQueue | undefined {
    return this.#legacyQueues[this.#queueSel];
  }

  /** Checks an access to a control register and returns its name, or `undefined` if it has no effect. */
  #register(offset: number, width: Width, kind: 'R' | 'W'): RegisterName | undefined {
    const { device } = this;
    const name = NAMES.get(offset - (offset % 4));
    const what = `${name ?? super.registerName(offset)} (${kind === 'R' ? 'read' : 'written'} with ${8 * width} bits)`;
    if (width !== 4) {
      throw device.violated(`${what}: control registers are accessed with 32 bits, aligned [4.2.2.2]`);
    }
    const allowed = name === undefined ? '' : REGISTERS[name][this.#legacy ? 'legacy' : 'modern'];
    if (!allowed.includes(kind)) {
      throw device.violated(
        `${what}: version ${this.#legacy ? 1 : 2} has no such register for this access [4.2.2.2]`,
      );
    }
    if (name !== 'MagicValue' && name !== 'Version' && name !== 'DeviceID') this.#checkPresent(what);
    return name;
  }

  /** 4.2.3.1.1: if the device id is 0, nothing else may be accessed. */
  #checkPresent(what: string): void {
    if (this.#options.deviceId === 0) {
      throw this.device.violated(`${what} was accessed although DeviceID is 0 [4.2.3.1.1]`);
    }
  }

  #configRead(offset: number, width: Width): number {
    // The window is padded; bytes after the configuration space read as zero.
    const { config } = this.device;
    if (offset >= config.length) return 0;
    return this.device.readConfig(offset, width);
  }

  #featureWord(sel: number): number {
    if (this.#legacy) return sel === 0 ? 0 : 4;
    return this.#options.quirks?.aliasFeatureWords === true && sel > 0 ? 1 : sel;
  }

  #writeFeatures(value: number): void {
    if (this.#driverSel === undefined) {
      this.device.violated('DriverFeatures was written before DriverFeaturesSel [4.2.2.2]');
    }
    const word = this.#featureWord(this.#driverSel ?? 0);
    this.#driverFeatures = withFeatureWord(this.#driverFeatures, word, value);
    this.device.writeFeatures(this.#driverFeatures);
  }

  #writePfn(queue: FakeQueue | undefined, value: number): void {
    const { device } = this;
    const legacy = this.#legacyQueue();
    if (!queue || !legacy) {
      throw device.violated(`QueuePFN was written for queue ${this.#queueSel}, which does not exist`);
    }
    if (value === 0) {
      legacy.pfn = 0;
      device.disableQueue(this.#queueSel);
      return;
    }
    if (legacy.pfn !== 0) {
      throw device.violated(`QueuePFN was written for queue ${this.#queueSel}, which is in use [4.2.4]`);
    }
    if (this.#guestPageSize === 0) throw device.violated('QueuePFN was written before GuestPageSize [4.2.4]');
    if (legacy.align === 0 || (legacy.align & (legacy.align - 1)) !== 0) {
      throw device.violated(`QueueAlign is ${legacy.align}, not a power of two [4.2.4]`);
    }
    // 2.7.2: the used ring is at the next multiple of the alignment after the available ring.
    const rings = 16 * queue.size + 2 * (3 + queue.size);
    queue.descriptors = value * this.#guestPageSize;
    queue.driverArea = queue.descriptors + 16 * queue.size;
    queue.deviceArea = queue.descriptors + Math.ceil(rings / legacy.align) * legacy.align;
    device.enableQueue(this.#queueSel);
    legacy.pfn = value;
  }

  #writeReady(queue: FakeQueue | undefined, value: number): void {
    if (!queue) {
      throw this.device.violated(`QueueReady was written for queue ${this.#queueSel}, which does not exist`);
    }
    if (value === 1) {
      this.device.enableQueue(this.#queueSel);
      this.#ready[this.#queueSel] = true;
    } else if (value === 0) {
      this.#ready[this.#queueSel] = false;
      this.#stopping[this.#queueSel] = true;
    } else {
      throw this.device.violated(`${value} was written to QueueReady of queue ${this.#queueSel} [4.2.2]`);
    }
  }

  /** 4.2.2.2: a queue is stopped only when the driver has read that back. */
  #readReady(): number {
    if (this.#stopping[this.#queueSel] === true) {
      this.#stopping[this.#queueSel] = false;
      this.device.disableQueue(this.#queueSel);
    }
    return this.#ready[this.#queueSel] === true ? 1 : 0;
  }

  #writeQueueReset(queue: FakeQueue | undefined, value: number): void {
    const { device } = this;
    if (!device.has('RING_RESET')) throw device.violated('QueueReset was written without RING_RESET [4.2.2]');
    if (!queue || value !== 1) {
      throw device.violated(`${value} was written to QueueReset of queue ${this.#queueSel}`);
    }
    if (this.#options.quirks?.ignoreQueueReset === true) return;
    this.#resetting[this.#queueSel] = true;
    queue.resetReads = device.queueResetReads;
    queue.ring?.detach();
  }

  #readQueueReset(queue: FakeQueue | undefined): number {
    if (!queue || this.#resetting[this.#queueSel] !== true) return 0;
    if (queue.resetReads > 0) {
      queue.resetReads -= 1;
      return 1;
    }
    this.device.disableQueue(this.#queueSel);
    this.#resetting[this.#queueSel] = false;
    this.#ready[this.#queueSel] = false;
    return 0;
  }
}

/** The lower half of a value; all ones if there is none. */
function low(value: number | undefined): number {
  return value === undefined ? ALL_ONES : lowHalf(value);
}

function high(value: number | undefined): number {
  return value === undefined ? ALL_ONES : highHalf(value);
}
