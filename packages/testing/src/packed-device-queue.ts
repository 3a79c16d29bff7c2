/** The device's side of a packed virtqueue [2.8]. */
import type { Chain, ChainElement } from './chain.ts';
import { DeviceQueue, type DeviceQueueOptions, type RawDescriptor } from './device-queue.ts';

const DESC_SIZE = 16;
const F_NEXT = 1;
const F_WRITE = 2;
const F_INDIRECT = 4;
const F_AVAIL = 1 << 7;
const F_USED = 1 << 15;
const KNOWN_FLAGS = F_NEXT | F_WRITE | F_INDIRECT | F_AVAIL | F_USED;

const EVENT_SIZE = 4;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;

const TWO_32 = 4294967296;

/** An event suppression structure [2.8.14]. */
export interface EventSuppression {
  /** 0: enable, 1: disable, 2: at one descriptor, 3: reserved. */
  readonly flags: number;
  /** The descriptor, with `flags` 2. */
  readonly offset: number;
  /** The wrap counter of the descriptor, with `flags` 2. */
  readonly wrap: number;
}

/** The device's side of a packed virtqueue. */
export class PackedDeviceQueue extends DeviceQueue {
  readonly areas: readonly { readonly address: number; readonly length: number }[];
  readonly #ring: DataView;
  readonly #driverEvent: DataView;
  readonly #deviceEvent: DataView;
  /**
   * Descriptors taken and used since the queue was enabled. The offset in the ring is the remainder by the size; in even laps the
   * wrap counter is 1, in odd laps 0.
   */
  #takenAt = 0;
  #usedAt = 0;
  /** The used position at the last check whether the driver asks for an interrupt. */
  #toldAt = 0;
  /** A used descriptor whose flags are held back until the others of its batch are written. */
  #held: { at: number; flags: number } | undefined;
  /** The ring's descriptors of the chains that the device has, at the time they were taken. */
  readonly #snapshots = new Map<number, { readonly at: number; readonly bytes: Uint8Array }>();

  /**
   * @throws {@link DriverViolation} if the driver set the queue up wrongly
   */
  constructor(options: DeviceQueueOptions) {
    super(options);
    const { size, descriptors, driverArea, deviceArea } = options;
    this.area(descriptors, DESC_SIZE * size, 16, 'read', 'descriptor ring');
    this.#ring = this.area(descriptors, DESC_SIZE * size, 16, 'write', 'descriptor ring');
    this.#driverEvent = this.area(driverArea, EVENT_SIZE, 4, 'read', 'driver event suppression');
    this.#deviceEvent = this.area(deviceArea, EVENT_SIZE, 4, 'write', 'device event suppression');
    this.areas = [
      { address: descriptors, length: DESC_SIZE * size },
      { address: driverArea, length: EVENT_SIZE },
      { address: deviceArea, length: EVENT_SIZE },
    ];
    for (let word = 0; word < size * 4; word += 1) {
      if (this.#ring.getUint32(word * 4, true) !== 0) {
        throw this.violated('the descriptor ring is not zero when the queue is enabled [2.8.13]');
      }
    }
  }

  override available(): boolean {
    this.checkAlive();
    return this.#isAvailable(this.#takenAt);
  }

  override pop(): Chain | undefined {
    this.checkAlive();
    this.#checkDriverEvent();
    const first = this.#takenAt;
    if (!this.#isAvailable(first)) {
      if (this.wantsNotifications) this.writeSuppression(true);
      return undefined;
    }
    const elements: ChainElement[] = [];
    let count = 0;
    let indirect = false;
    let id: number;
    for (;;) {
      const at = first + count;
      const index = at % this.size;
      if (count === this.size) {
        throw this.violated(`a list of more than ${this.size} descriptors was made available [2.8.17]`);
      }
      if (count > 0 && !this.#isAvailable(at)) {
        throw this.violated(
          `descriptor ${index} was made available after the first of its list [2.8.17]; its flags are ` +
            `0x${this.readDescriptor(index).flags.toString(16)}`,
        );
      }
      count += 1;
      const { address, length, flags, extra } = this.readDescriptor(index);
      id = extra;
      if ((flags & ~KNOWN_FLAGS) !== 0) {
        throw this.violated(`descriptor ${index} has unknown flags 0x${flags.toString(16)}`);
      }
      if ((flags & F_INDIRECT) !== 0) {
        if (count > 1 || (flags & F_NEXT) !== 0) {
          throw this.violated(`descriptor ${index} is INDIRECT in a list chained by NEXT [2.8.19]`);
        }
        indirect = true;
        this.#readTable(elements, address, length);
        break;
      }
      this.addElement(elements, address, length, (flags & F_WRITE) !== 0);
      if ((flags & F_NEXT) === 0) break;
    }
    if (this.takenDescriptors + count > this.size) {
      throw this.violated(
        `${count} more descriptors were made available with ${this.takenDescriptors} of ${this.size} in flight [2.8.17]`,
      );
    }
    const chain = this.take(id, elements, count, indirect);
    this.#snapshots.set(id, { at: first, bytes: this.#copy(first, count) });
    this.#takenAt += count;
    return chain;
  }

  protected override putUsed(chain: Chain, length: number, _count: number, descriptors: number): void {
    this.#checkUnchanged(chain);
    const at = this.#usedAt;
    const index = at % this.size;
    const wrap = this.#wrapAt(at);
    // 2.8.4: the length counts only with WRITE.
    const flags = (wrap === 1 ? F_AVAIL | F_USED : 0) | (length > 0 ? F_WRITE : 0);
    this.#ring.setUint32(index * DESC_SIZE + 8, length, true);
    this.#ring.setUint16(index * DESC_SIZE + 12, chain.id, true);
    if (this.#held) this.#ring.setUint16(index * DESC_SIZE + 14, flags, true);
    else this.#held = { at: index, flags };
    this.#usedAt += descriptors;
  }

  protected override flushUsed(): void {
    if (!this.#held) return;
    this.#ring.setUint16(this.#held.at * DESC_SIZE + 14, this.#held.flags, true);
    this.#held = undefined;
  }

  override drain(length: number): number {
    const ring = this.#ring;
    const size = this.size;
    const write = length > 0 ? F_WRITE : 0;
    let take = this.#takenAt % size;
    let available = this.#wrapAt(this.#takenAt) === 1 ? F_AVAIL : F_USED;
    let use = this.#usedAt % size;
    let used = this.#wrapAt(this.#usedAt) === 1 ? F_AVAIL | F_USED : 0;
    let taken = 0;
    let count = 0;
    for (;;) {
      let last = take;
      let flags = ring.getUint16(last * DESC_SIZE + 14, true);
      if ((flags & (F_AVAIL | F_USED)) !== available) break;
      let descriptors = 1;
      while ((flags & F_NEXT) !== 0) {
        last = last + 1 === size ? 0 : last + 1;
        flags = ring.getUint16(last * DESC_SIZE + 14, true);
        descriptors += 1;
      }
      const id = ring.getUint16(last * DESC_SIZE + 12, true);
      const at = use * DESC_SIZE;
      ring.setUint32(at + 8, length, true);
      ring.setUint16(at + 12, id, true);
      ring.setUint16(at + 14, used | write, true);
      take += descriptors;
      if (take >= size) {
        take -= size;
        available ^= F_AVAIL | F_USED;
      }
      use += descriptors;
      if (use >= size) {
        use -= size;
        used ^= F_AVAIL | F_USED;
      }
      taken += descriptors;
      count += 1;
    }
    this.#takenAt += taken;
    this.#usedAt += taken;
    if (this.wantsNotifications && this.eventIdx) this.writeSuppression(true);
    return count;
  }

  override forceUsed(id: number, length: number, descriptors = 1): void {
    this.checkAlive();
    const at = this.#usedAt;
    this.writeDescriptor(at % this.size, {
      length,
      extra: id,
      flags: (this.#wrapAt(at) === 1 ? F_AVAIL | F_USED : 0) | (length > 0 ? F_WRITE : 0),
    });
    this.#usedAt += descriptors;
    this.interruptIfWanted();
  }

  override wantsInterrupt(): boolean {
    const from = this.#toldAt;
    this.#toldAt = this.#usedAt;
    const { flags, offset, wrap } = this.#checkDriverEvent();
    if (flags === EVENT_DESC) {
      // 2.8.10: an interrupt is due if the descriptor of that offset and wrap counter was used since then.
      const twoLaps = 2 * this.size;
      let due = from - (from % twoLaps) + (wrap === 1 ? 0 : this.size) + offset;
      if (due < from) due += twoLaps;
      return due < this.#usedAt;
    }
    return flags === EVENT_ENABLE && this.#usedAt > from;
  }

  override expectedNext(): number {
    let at = this.#takenAt;
    while (at - this.#takenAt < this.size - this.takenDescriptors && this.#isAvailable(at)) at += 1;
    return (at % this.size) | (this.#wrapAt(at) << 15);
  }

  override readDescriptor(index: number): RawDescriptor {
    const at = index * DESC_SIZE;
    return {
      address: this.#ring.getUint32(at, true) + this.#ring.getUint32(at + 4, true) * TWO_32,
      length: this.#ring.getUint32(at + 8, true),
      extra: this.#ring.getUint16(at + 12, true),
      flags: this.#ring.getUint16(at + 14, true),
    };
  }

  override writeDescriptor(index: number, descriptor: Partial<RawDescriptor>): void {
    const { address, length, flags, extra } = { ...this.readDescriptor(index), ...descriptor };
    const at = index * DESC_SIZE;
    this.#ring.setUint32(at, address % TWO_32, true);
    this.#ring.setUint32(at + 4, Math.floor(address / TWO_32), true);
    this.#ring.setUint32(at + 8, length, true);
    this.#ring.setUint16(at + 12, extra, true);
    this.#ring.setUint16(at + 14, flags, true);
  }

  /** Driver event suppression: when the driver asks for interrupts. */
  get driverEvent(): EventSuppression {
    return readEvent(this.#driverEvent);
  }

  /** Device event suppression: when the device asks for notifications. A test can set any value: for lies. */
  get deviceEvent(): EventSuppression {
    return readEvent(this.#deviceEvent);
  }

  set deviceEvent({ flags, offset, wrap }: EventSuppression) {
    this.#deviceEvent.setUint16(0, (offset & 0x7fff) | (wrap << 15), true);
    this.#deviceEvent.setUint16(2, flags, true);
  }

  /** The position of the next used descriptor: offset and wrap counter. */
  get usedPosition(): { readonly offset: number; readonly wrap: number } {
    return { offset: this.#usedAt % this.size, wrap: this.#wrapAt(this.#usedAt) };
  }

  /** The position of the next available descriptor: offset and wrap counter. */
  get availPosition(): { readonly offset: number; readonly wrap: number } {
    return { offset: this.#takenAt % this.size, wrap: this.#wrapAt(this.#takenAt) };
  }

  override detach(): void {
    super.detach();
    this.#snapshots.clear();
  }

  protected override writeSuppression(enable: boolean): void {
    if (!enable) this.#writeDeviceEvent(EVENT_DISABLE, 0);
    else if (!this.eventIdx) this.#writeDeviceEvent(EVENT_ENABLE, 0);
    else {
      this.#writeDeviceEvent(EVENT_DESC, (this.#takenAt % this.size) | (this.#wrapAt(this.#takenAt) << 15));
    }
  }

  #writeDeviceEvent(flags: number, descriptor: number): void {
    this.#deviceEvent.setUint16(0, descriptor, true);
    this.#deviceEvent.setUint16(2, flags, true);
  }

  /** 2.8.1: the counter starts at 1 and changes with each lap. */
  #wrapAt(position: number): number {
    return Math.floor(position / this.size) % 2 === 0 ? 1 : 0;
  }

  /** 2.8.1: available is AVAIL equal to the wrap counter and USED not. */
  #isAvailable(position: number): boolean {
    const flags = this.#ring.getUint16((position % this.size) * DESC_SIZE + 14, true);
    const want = this.#wrapAt(position) === 1 ? F_AVAIL : F_USED;
    return (flags & (F_AVAIL | F_USED)) === want;
  }

  #readTable(elements: ChainElement[], address: number, length: number): void {
    if (!this.indirect) {
      throw this.violated('an indirect table was used, but INDIRECT_DESC was not negotiated [2.8.19]');
    }
    if (length === 0 || length % DESC_SIZE !== 0) {
      throw this.violated(`an indirect table has ${length} bytes, not a multiple of ${DESC_SIZE} [2.8.7]`);
    }
    const table = this.area(address, length, 1, 'read', 'indirect table');
    for (let at = 0; at < length; at += DESC_SIZE) {
      const flags = table.getUint16(at + 14, true);
      if ((flags & ~F_WRITE) !== 0) {
        throw this.violated(
          `descriptor ${at / DESC_SIZE} of a table has flags 0x${flags.toString(16)}; only WRITE may be set [2.8.19]`,
        );
      }
      this.addElement(
        elements,
        table.getUint32(at, true) + table.getUint32(at + 4, true) * TWO_32,
        table.getUint32(at + 8, true),
        (flags & F_WRITE) !== 0,
      );
    }
  }

  #checkDriverEvent(): EventSuppression {
    const event = this.driverEvent;
    const { flags, offset } = event;
    if (flags > EVENT_DESC || (flags === EVENT_DESC && !this.eventIdx)) {
      throw this.violated(`driver event suppression has flags ${flags} [2.8.10]`);
    }
    if (flags === EVENT_DESC && offset >= this.size) {
      throw this.violated(`driver event suppression names descriptor ${offset} of ${this.size} [2.8.10]`);
    }
    return event;
  }

  #copy(first: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count * DESC_SIZE);
    const ring = new Uint8Array(this.#ring.buffer, this.#ring.byteOffset, this.#ring.byteLength);
    for (let n = 0; n < count; n += 1) {
      const at = ((first + n) % this.size) * DESC_SIZE;
      bytes.set(ring.subarray(at, at + DESC_SIZE), n * DESC_SIZE);
    }
    return bytes;
  }

  /** 2.8.16: the driver must not change descriptors while the device has them. */
  #checkUnchanged(chain: Chain): void {
    const snapshot = this.#snapshots.get(chain.id);
    this.#snapshots.delete(chain.id);
    if (!snapshot) return;
    const now = this.#copy(snapshot.at, chain.descriptors);
    for (let n = 0; n < chain.descriptors; n += 1) {
      // The device itself has overwritten those that it has passed with used descriptors.
      if (snapshot.at + n < this.#usedAt) continue;
      const from = n * DESC_SIZE;
      for (let i = from; i < from + DESC_SIZE; i += 1) {
        if (now[i] !== snapshot.bytes[i]) {
          throw this.violated(
            `descriptor ${(snapshot.at + n) % this.size} was changed while the device had it [2.8.16]`,
          );
        }
      }
    }
  }
}

function readEvent(view: DataView): EventSuppression {
  const descriptor = view.getUint16(0, true);
  return { flags: view.getUint16(2, true), offset: descriptor & 0x7fff, wrap: descriptor >>> 15 };
}
