/**
 * The transport: how a driver reaches the registers of its device. PCI, MMIO and the fakes implement the abstract members; what
 * the specification says for all transports (initialization, reset, consistent reads) is implemented here once.
 */
import { DeviceStatus, type InterruptStatus } from './device-status.ts';
import { type DeviceType, deviceTypeName } from './device-type.ts';
import { Deadline } from '../deadline.ts';
import { VirtioError } from '../errors.ts';
import { Feature, type FeatureName, type FeatureSet, type FeatureTable } from './features.ts';
import { type DmaRegion, PAGE_SIZE } from '../memory/hal.ts';
import type { QueueSignals } from '../threads/queue-plan.ts';
import type { InterruptSource } from './interrupts.ts';
import {
  type Field,
  type FieldAccess,
  type FieldTable,
  type FieldType,
  type FieldValue,
  type Layout,
  type ReadableField,
  type ReadableValues,
  requireFieldValue,
  type WritableField,
} from '../memory/layout.ts';
import type { QueueCalls } from '../ring/queue-calls.ts';

/** How long a device may take to reset, in milliseconds. */
const RESET_TIMEOUT_MS = 10_000;

/** How often a read is repeated when the configuration keeps changing under it. */
const CONSISTENT_ATTEMPTS = 1000;

/** A status register that reads as all ones is that of a device that is no longer there. */
const STATUS_GONE = 0xff;

const bit = (name: FeatureName): bigint => 1n << BigInt(Feature[name]);

/** The features that a driver implements and needs, for {@link Transport.beginInit}. */
export interface FeatureRequest<Name extends string> {
  /** The device's own features with their names. */
  readonly table: FeatureTable<Name>;
  /** All features that the driver implements. Those of them that the device offers are accepted. */
  readonly supported: readonly (Name | FeatureName)[];
  /** The features without which the driver cannot work. */
  readonly required?: readonly (Name | FeatureName)[];
  /**
   * Removes features that cannot be accepted without others [2.2.1]; called with those that the device offers and the driver
   * implements, before any are written. Features that it adds are ignored.
   */
  readonly choose?: (accepted: FeatureSet<Name>) => FeatureSet<Name>;
}

/**
 * A shared memory region: memory of the device that the driver can access.
 *
 * @see VIRTIO 1.4, 2.10
 */
export interface SharedMemory {
  /** Where it starts: a physical address as the processor sees it; on PCI, within a BAR. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

/** The transport of one device: access to its registers, interrupts and configuration space. */
export abstract class Transport implements Disposable {
  /** The device's type. */
  abstract readonly deviceType: DeviceType;
  /** What the transport is and where its device is, for messages: `PCI 0000:00:03.0`. */
  abstract readonly name: string;
  /** How the device interrupts, if it can. */
  abstract readonly interrupts: InterruptSource | undefined;

  /** Reads the features that the device offers. */
  abstract readDeviceFeatures(): bigint;

  /** Writes the features that the driver accepts. */
  abstract writeDriverFeatures(features: bigint): void;

  /** The largest size of a queue that the device supports, in descriptors; 0 if it has no such queue. */
  abstract maxQueueSize(queue: number): number;

  /**
   * Notifies the device of new available buffers.
   *
   * @param queue the index of the queue
   * @param next the upper 16 bits of the notification data: where in the ring the next buffer will be, with the wrap
   * counter or the top bit of the index in bit 15. Sent only if `VIRTIO_F_NOTIFICATION_DATA` was negotiated.
   * @see VIRTIO 1.4, 2.9
   */
  abstract notify(queue: number, next: number): void;

  /** Reads the device status. */
  abstract getStatus(): DeviceStatus;

  /** Writes the device status. Writing 0 starts a reset; see {@link Transport.reset}. */
  abstract setStatus(status: DeviceStatus): void;

  /** Legacy MMIO: tells the device the size of a page. Other transports ignore it. */
  abstract setGuestPageSize(size: number): void;

  /**
   * Whether queues must have the legacy layout.
   *
   * @see VIRTIO 1.4, 2.7.2
   */
  abstract requiresLegacyLayout(): boolean;

  /**
   * Gives a queue to the device.
   *
   * @param queue its index
   * @param size its size in descriptors
   * @param descriptors the address of the descriptor area
   * @param driverArea the address of the driver area (available ring, or driver event suppression)
   * @param deviceArea the address of the device area (used ring, or device event suppression)
   * @param unused returns how many chains the device has not used yet: for transports that must wait for them before a reset
   */
  abstract queueSet(
    queue: number,
    size: number,
    descriptors: number,
    driverArea: number,
    deviceArea: number,
    unused?: () => number,
  ): void;

  /** Takes a queue back from the device, as far as the transport can. */
  abstract queueUnset(queue: number): void;

  /** Whether the device has the queue: it is enabled, or has an address. */
  abstract queueUsed(queue: number): boolean;

  /**
   * Resets one queue while the others go on, and waits until the device no longer uses it.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` unless `VIRTIO_F_RING_RESET` was negotiated and the transport has the
   * registers, `NOT_READY` if the device does not finish
   * @see VIRTIO 1.4, 2.6.1
   */
  abstract queueReset(queue: number): void;

  /** Reads which interrupts are pending and acknowledges them. */
  abstract ackInterrupt(): InterruptStatus;

  /** The generation of the configuration space: it changes whenever the space may have changed. */
  abstract readConfigGeneration(): number;

  /** The size of the configuration space in bytes, as far as it is known; 0 if the device has none. */
  abstract readonly configSize: number;

  /** Reads `width` bytes (1, 2 or 4) of the configuration space. */
  abstract readConfig(offset: number, width: 1 | 2 | 4): number;

  /** Writes `width` bytes (1, 2 or 4) of the configuration space. */
  abstract writeConfig(offset: number, width: 1 | 2 | 4, value: number): void;

  /** Shared memory of the device, or `undefined` if there is no region with this id. */
  abstract sharedMemory(id: number): SharedMemory | undefined;

  /** Resets the device if it is still there, and releases what the transport holds. */
  abstract [Symbol.dispose](): void;

  /**
   * Lends a queue that is set up to another thread of this process: returns what that thread needs to notify the device and to
   * receive the queue's interrupts. This thread no longer receives them.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if the transport cannot do that
   */
  lendQueue(queue: number): QueueSignals {
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.who()}: this transport cannot lend queue ${queue} to another thread`,
    );
  }

  /**
   * The memory of a queue's rings where the driver does not allocate it, in the order in which the driver would; read again
   * whenever the queue is reset.
   */
  ringMemory(_queue: number): readonly DmaRegion[] | undefined {
    return undefined;
  }

  /**
   * Called when a queue was polled and had nothing, and when the driver has failed: another thread that has the device may have
   * reset it.
   */
  look(): void {
    return;
  }

  /**
   * Throws if the device cannot be reset, before a reset has lost anything.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if another thread has the device
   */
  checkResettable(): void {
    return;
  }

  /** The driver that has the device. */
  #driver: object | undefined;

  /**
   * Claims the device for a driver; each driver does this in its constructor.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if another driver has it
   */
  claim(driver: object): void {
    if (this.#driver !== undefined && this.#driver !== driver) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.who()} has a driver already; dispose that one, then open the device again`,
      );
    }
    this.#driver = driver;
  }

  /** Ends {@link Transport.claim}. */
  unclaim(driver: object): void {
    if (this.#driver === driver) this.#driver = undefined;
  }

  /** Called for each queue that was made for the device; the transport of {@link traceTransport} watches them. */
  watchQueue(_queue: QueueCalls): void {
    // By default nothing watches.
  }

  /**
   * Resets the device and waits until the reset is complete.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED` if the device is no longer there, `NOT_READY` if the reset does not complete
   * @see VIRTIO 1.4, 2.4.2
   */
  reset(): void {
    this.setStatus(DeviceStatus.from(0));
    const deadline = new Deadline(RESET_TIMEOUT_MS);
    for (;;) {
      const { bits } = this.getStatus();
      if (bits === 0) return;
      if (bits === STATUS_GONE) throw this.removed();
      if (deadline.isOver) {
        throw new VirtioError(
          'NOT_READY',
          `${this.name}: the device was told to reset, and its status is still ${DeviceStatus.from(bits).toString()} after ` +
            `${RESET_TIMEOUT_MS / 1000} s; it may hang`,
        );
      }
    }
  }

  /**
   * The first part of initialization: resets the device, acknowledges it, negotiates features and reads the status back to see
   * that the device accepted them. The driver then sets its queues up and calls {@link Transport.finishInit}.
   *
   * A modern device must offer `VIRTIO_F_VERSION_1`; through the legacy interface FEATURES_OK is skipped [3.1.2].
   *
   * @returns the features that both sides agreed on
   * @throws {@link VirtioError} `FEATURES_REFUSED`, with the status set to FAILED
   * @see VIRTIO 1.4, 3.1.1
   */
  beginInit<Name extends string>(request: FeatureRequest<Name>): FeatureSet<Name> {
    this.reset();
    this.#addStatus(DeviceStatus.ACKNOWLEDGE);
    this.#addStatus(DeviceStatus.DRIVER);

    const { table } = request;
    const offered = this.readDeviceFeatures();
    const legacy = this.requiresLegacyLayout();
    const required = table.set(...(request.required ?? [])).bits | (legacy ? 0n : bit('VERSION_1'));
    let accepted = offered & table.set(...request.supported, 'VERSION_1').bits;
    // The legacy interface has 32 feature bits [4.2.4].
    if (legacy) accepted &= 0xffffffffn;
    if (request.choose !== undefined) accepted &= request.choose(table.fromBits(accepted)).bits;
    const lacking = required & ~accepted;
    if (lacking !== 0n) {
      throw this.fail(
        new VirtioError(
          'FEATURES_REFUSED',
          `${this.who()} lacks ${table.names(lacking).join(', ')}, which the driver needs; it offers ` +
            table.format(offered),
        ),
      );
    }
    this.writeDriverFeatures(accepted);
    if (legacy) {
      // 3.1.2: no FEATURES_OK.
      this.setGuestPageSize(PAGE_SIZE);
      return table.fromBits(accepted);
    }
    this.#addStatus(DeviceStatus.FEATURES_OK);
    if (!this.getStatus().has(DeviceStatus.FEATURES_OK)) {
      throw this.fail(
        new VirtioError(
          'FEATURES_REFUSED',
          `${this.who()} does not accept ${table.format(accepted)} of the ${table.format(offered)} that it offers; ` +
            'ask for fewer features',
        ),
      );
    }
    return table.fromBits(accepted);
  }

  /** The last part of initialization: sets DRIVER_OK, after which the device is live. */
  finishInit(): void {
    this.#addStatus(DeviceStatus.DRIVER_OK);
  }

  /** Sets FAILED, which tells the device that the driver has given up, and returns the error for the caller to throw. */
  fail(error: VirtioError): VirtioError {
    const status = this.getStatus();
    if (status.bits !== STATUS_GONE) this.setStatus(status.with(DeviceStatus.FAILED));
    return error;
  }

  /** The error of a device that is no longer there. */
  removed(): VirtioError {
    return new VirtioError(
      'DEVICE_REMOVED',
      `${this.who()} is no longer there; it was unplugged. Dispose its driver, and open the device again when it is back`,
    );
  }

  /**
   * Checks whether the device still works.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED`, `DEVICE_NEEDS_RESET`
   */
  checkAlive(): void {
    const status = this.getStatus();
    if (status.bits === STATUS_GONE) throw this.removed();
    if (status.has(DeviceStatus.DEVICE_NEEDS_RESET)) {
      throw new VirtioError(
        'DEVICE_NEEDS_RESET',
        `${this.who()} has met an error and needs a reset; whether requests in flight were carried out is not known. ` +
          "Call the driver's reset()",
      );
    }
  }

  /**
   * Reads one field of the configuration space. A field wider than 32 bits is read consistently [2.5.1].
   *
   * @throws {@link VirtioError} `CONFIG_SPACE_MISSING`, `CONFIG_SPACE_TOO_SMALL`; `INVALID_PARAM` for a write-only field
   */
  readConfigSpace<T extends FieldType>(field: ReadableField<T>): FieldValue<T> {
    this.#checkConfig(field);
    this.#checkAccess(field, 'write-only');
    return field.size <= 4 && !field.type.startsWith('bytes')
      ? this.#readField(field)
      : this.readConsistent(() => this.#readField(field));
  }

  /** Reads all fields of a part of the configuration space consistently, except those that are write-only. */
  readConfigLayout<T extends FieldTable>(layout: Layout<T>): ReadableValues<T> {
    const fields = (Object.entries(layout.fields) as [string, Field][]).filter(
      ([, { access }]) => access !== 'write-only',
    );
    for (const [, field] of fields) this.#checkConfig(field);
    return this.readConsistent(() =>
      Object.fromEntries(fields.map(([name, field]) => [name, this.#readField(field)])),
    ) as ReadableValues<T>;
  }

  /**
   * Writes one field of the configuration space.
   *
   * @throws {@link VirtioError} `CONFIG_SPACE_MISSING`, `CONFIG_SPACE_TOO_SMALL`; `INVALID_PARAM` for a read-only field, and for
   * a value that the field cannot hold
   */
  writeConfigSpace<T extends FieldType>(field: WritableField<T>, value: FieldValue<T>): void {
    this.#checkConfig(field);
    this.#checkAccess(field, 'read-only');
    requireFieldValue(field, value);
    const { offset, size, type } = field as Field;
    if (value instanceof Uint8Array) {
      value.forEach((byte, i) => {
        this.writeConfig(offset + i, 1, byte);
      });
    } else if (type === 'u64') {
      const wide = BigInt(value);
      this.writeConfig(offset, 4, Number(wide & 0xffffffffn));
      this.writeConfig(offset + 4, 4, Number((wide >> 32n) & 0xffffffffn));
    } else {
      this.writeConfig(offset, size as 1 | 2 | 4, Number(value));
    }
  }

  /**
   * Calls `read` again until the configuration did not change during the call.
   *
   * @throws {@link VirtioError} `NOT_READY` if the configuration never settles
   * @see VIRTIO 1.4, 2.5.1
   */
  readConsistent<T>(read: () => T): T {
    for (let attempt = 0; attempt < CONSISTENT_ATTEMPTS; attempt += 1) {
      const before = this.readConfigGeneration();
      const value = read();
      if (this.readConfigGeneration() === before) return value;
    }
    throw new VirtioError(
      'NOT_READY',
      `${this.who()} changed its configuration during each of ${CONSISTENT_ATTEMPTS} attempts to read it; try again later`,
    );
  }

  #readField<T extends FieldType>(field: Field<T>): FieldValue<T> {
    const { offset, size, type } = field as Field;
    const read = (): number | bigint | Uint8Array => {
      if (type === 'u64') {
        return BigInt(this.readConfig(offset, 4)) | (BigInt(this.readConfig(offset + 4, 4)) << 32n);
      }
      if (type.startsWith('bytes')) {
        return Uint8Array.from({ length: size }, (_, i) => this.readConfig(offset + i, 1));
      }
      const value = this.readConfig(offset, size as 1 | 2 | 4);
      return type === 'i32' ? value | 0 : value;
    };
    return read() as FieldValue<T>;
  }

  /** For callers without types. */
  #checkAccess({ name, access }: Field, refused: FieldAccess): void {
    if (access !== refused) return;
    const act = refused === 'read-only' ? 'written' : 'read';
    throw new VirtioError('INVALID_PARAM', `${this.who()}: ${name} is ${access} and cannot be ${act}`);
  }

  #checkConfig(field: Field): void {
    if (this.configSize === 0) {
      throw new VirtioError(
        'CONFIG_SPACE_MISSING',
        `${field.name} was to be accessed, but ${this.who()} has no configuration space`,
      );
    }
    if (field.offset + field.size > this.configSize) {
      throw new VirtioError(
        'CONFIG_SPACE_TOO_SMALL',
        `${this.who()} has ${this.configSize} bytes of configuration space; ${field.name} is at ` +
          `${field.offset} to ${field.offset + field.size}`,
      );
    }
  }

  /** 2.1.1: bits are added, never cleared. */
  #addStatus(bits: number): void {
    this.setStatus(this.getStatus().with(bits));
  }

  /** The device for messages: `Block device (PCI 0000:00:03.0)`. */
  who(): string {
    return `${deviceTypeName(this.deviceType)} device (${this.name})`;
  }
}
