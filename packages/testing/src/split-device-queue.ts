/** The device's side of a split virtqueue [2.7]. */
import type { Chain, ChainElement } from './chain.ts';
import { DeviceQueue, type DeviceQueueOptions, type RawDescriptor } from './device-queue.ts';

const DESC_SIZE = 16;
const F_NEXT = 1;
const F_WRITE = 2;
const F_INDIRECT = 4;
const AVAIL_F_NO_INTERRUPT = 1;
const USED_F_NO_NOTIFY = 1;
const TWO_32 = 4294967296;
const WRAP = 65536;

// Both rings: u16 flags, u16 idx, the ring, and after it used_event or avail_event.
const FLAGS = 0;
const IDX = 2;
const RING = 4;

/** Reads a descriptor of 16 bytes. */
function descriptorAt(view: DataView, at: number): RawDescriptor {
  return {
    address: view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32,
    length: view.getUint32(at + 8, true),
    flags: view.getUint16(at + 12, true),
    extra: view.getUint16(at + 14, true),
  };
}

/** The device's side of a split virtqueue. */
export class SplitDeviceQueue extends DeviceQueue {
  readonly areas: readonly { readonly address: number; readonly length: number }[];
  readonly #table: DataView;
  readonly #avail: DataView;
  readonly #used: DataView;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  /** By descriptor: whether it belongs to a chain that the device has. */
  readonly #busy: Uint8Array;
  /** The descriptors of the chains that the device has, by head. */
  readonly #members = new Map<number, ReadonlySet<number>>();
  /** Chains taken and chains used since the queue was enabled, not wrapped; their lower 16 bits are the indices. */
  #takenCount = 0;
  #usedCount = 0;
  /** The number of used chains at the last check whether the driver asks for an interrupt. */
  #toldCount = 0;
  /** In order: the descriptor that the next chain must start with. */
  #nextHead = 0;

  /**
   * @throws {@link DriverViolation} if the driver set the queue up wrongly
   */
  constructor(options: DeviceQueueOptions) {
    super(options);
    const { size, descriptors, driverArea, deviceArea } = options;
    if ((size & (size - 1)) !== 0) {
      throw this.violated(`a split queue has ${size} descriptors, which is not a power of two [2.7]`);
    }
    const event = this.eventIdx ? 2 : 0;
    const lengths = [DESC_SIZE * size, RING + 2 * size + event, RING + 8 * size + event] as const;
    this.#table = this.area(descriptors, lengths[0], 16, 'read', 'descriptor table');
    this.#avail = this.area(driverArea, lengths[1], 2, 'read', 'available ring');
    this.#used = this.area(deviceArea, lengths[2], 4, 'write', 'used ring');
    this.areas = [descriptors, driverArea, deviceArea].map((address, i) => ({
      address,
      length: lengths[i] ?? 0,
    }));
    this.#usedEvent = RING + 2 * size;
    this.#availEvent = RING + 8 * size;
    this.#busy = new Uint8Array(size);
    if (this.#avail.getUint16(IDX, true) !== 0) {
      throw this.violated('the available index is not 0 when the queue is enabled [2.7.6]');
    }
    if (this.#used.getUint16(FLAGS, true) !== 0) {
      throw this.violated("the used ring's flags are not 0 when the queue is enabled [2.7.10.1]");
    }
  }

  override available(): boolean {
    this.checkAlive();
    return this.#waiting() > 0;
  }

  override pop(): Chain | undefined {
    this.checkAlive();
    if (this.#waiting() === 0) {
      if (this.wantsNotifications) this.writeSuppression(true);
      return undefined;
    }
    const place = this.#takenCount % this.size;
    const head = this.#avail.getUint16(RING + 2 * place, true);
    if (head >= this.size) {
      throw this.violated(
        `entry ${place} of the available ring is ${head}; there are ${this.size} descriptors`,
      );
    }
    const elements: ChainElement[] = [];
    const members = new Set<number>();
    let indirect = false;
    for (let index = head; ;) {
      if (index >= this.size) {
        throw this.violated(`a chain continues at descriptor ${index}; there are ${this.size} descriptors`);
      }
      if (members.has(index)) {
        throw this.violated(`the chain of descriptor ${head} has a loop at ${index} [2.7.5.2]`);
      }
      if (this.#busy[index] === 1) {
        throw this.violated(
          `the chain of descriptor ${head} takes descriptor ${index}, which the device still has`,
        );
      }
      if (this.inOrder && index !== (this.#nextHead + members.size) % this.size) {
        throw this.violated(
          `descriptor ${index} was made available; in order it must be ` +
            `${(this.#nextHead + members.size) % this.size} [2.7.5.2]`,
        );
      }
      members.add(index);
      const { address, length, flags, extra: next } = this.readDescriptor(index);
      if ((flags & ~(F_NEXT | F_WRITE | F_INDIRECT)) !== 0) {
        throw this.violated(`descriptor ${index} has unknown flags 0x${flags.toString(16)}`);
      }
      if ((flags & F_INDIRECT) !== 0) {
        if ((flags & F_NEXT) !== 0) {
          throw this.violated(`descriptor ${index} has both INDIRECT and NEXT [2.7.5.3.1]`);
        }
        indirect = true;
        this.#readTable(elements, address, length);
        break;
      }
      this.addElement(elements, address, length, (flags & F_WRITE) !== 0);
      if ((flags & F_NEXT) === 0) break;
      index = next;
    }
    const chain = this.take(head, elements, members.size, indirect);
    for (const index of members) this.#busy[index] = 1;
    this.#members.set(head, members);
    this.#nextHead = (this.#nextHead + members.size) % this.size;
    this.#takenCount += 1;
    return chain;
  }

  protected override putUsed(chain: Chain, length: number, count: number): void {
    for (const index of this.#members.get(chain.id) ?? []) this.#busy[index] = 0;
    this.#members.delete(chain.id);
    // 2.7.9: the element is at the place of the first chain of the batch.
    this.writeUsed(this.#usedCount % this.size, chain.id, length);
    this.#usedCount += count;
    if (this.inOrder) this.#forget();
  }

  protected override flushUsed(): void {
    this.#used.setUint16(IDX, this.#usedCount % WRAP, true);
  }

  override drain(length: number): number {
    const avail = this.#avail;
    const used = this.#used;
    const mask = this.size - 1;
    const count = (avail.getUint16(IDX, true) - this.#takenCount) & 0xffff;
    for (let n = 0; n < count; n += 1) {
      const place = (this.#takenCount + n) & mask;
      used.setUint32(RING + 8 * place, avail.getUint16(RING + 2 * place, true), true);
      used.setUint32(RING + 8 * place + 4, length, true);
    }
    this.#takenCount += count;
    this.#usedCount += count;
    this.flushUsed();
    if (this.wantsNotifications && this.eventIdx) {
      used.setUint16(this.#availEvent, this.#takenCount % WRAP, true);
    }
    return count;
  }

  override forceUsed(id: number, length: number): void {
    this.checkAlive();
    this.writeUsed(this.#usedCount % this.size, id, length);
    this.#usedCount += 1;
    this.flushUsed();
    this.interruptIfWanted();
  }

  override wantsInterrupt(): boolean {
    const from = this.#toldCount;
    this.#toldCount = this.#usedCount;
    const flags = this.#avail.getUint16(FLAGS, true);
    if (!this.eventIdx) {
      if (flags > AVAIL_F_NO_INTERRUPT) {
        throw this.violated(`the available ring's flags are 0x${flags.toString(16)}, not 0 or 1 [2.7.7.1]`);
      }
      return flags === 0 && this.#usedCount > from;
    }
    // 2.7.7.2: an interrupt is due if one of the elements used since then has the index used_event.
    let due = from - (from % WRAP) + this.usedEvent;
    if (due < from) due += WRAP;
    return due < this.#usedCount;
  }

  override expectedNext(): number {
    return this.#avail.getUint16(IDX, true);
  }

  override readDescriptor(index: number): RawDescriptor {
    return descriptorAt(this.#table, index * DESC_SIZE);
  }

  override writeDescriptor(index: number, descriptor: Partial<RawDescriptor>): void {
    const { address, length, flags, extra } = { ...this.readDescriptor(index), ...descriptor };
    const at = index * DESC_SIZE;
    this.#table.setUint32(at, address % TWO_32, true);
    this.#table.setUint32(at + 4, Math.floor(address / TWO_32), true);
    this.#table.setUint32(at + 8, length, true);
    this.#table.setUint16(at + 12, flags, true);
    this.#table.setUint16(at + 14, extra, true);
  }

  /** The index of the available ring, as the driver wrote it. */
  get availIdx(): number {
    return this.#avail.getUint16(IDX, true);
  }

  /** The flags of the available ring, as the driver wrote them. */
  get availFlags(): number {
    return this.#avail.getUint16(FLAGS, true);
  }

  /** `used_event`: the used index for which the driver asks for the next interrupt. */
  get usedEvent(): number {
    return this.#avail.getUint16(this.#usedEvent, true);
  }

  /** The index of the used ring. Setting it makes entries visible as they are: for lies. */
  get usedIdx(): number {
    return this.#used.getUint16(IDX, true);
  }

  set usedIdx(value: number) {
    this.#used.setUint16(IDX, value, true);
  }

  /** The flags of the used ring. */
  get usedFlags(): number {
    return this.#used.getUint16(FLAGS, true);
  }

  set usedFlags(value: number) {
    this.#used.setUint16(FLAGS, value, true);
  }

  /** `avail_event`: the available index for which the device asks for the next notification. Only with `VIRTIO_F_EVENT_IDX`. */
  get availEvent(): number {
    return this.#used.getUint16(this.#availEvent, true);
  }

  set availEvent(value: number) {
    this.#used.setUint16(this.#availEvent, value, true);
  }

  /** Writes an entry of the used ring without changing the index: for lies. */
  writeUsed(place: number, id: number, length: number): void {
    this.#used.setUint32(RING + 8 * place, id, true);
    this.#used.setUint32(RING + 8 * place + 4, length, true);
  }

  protected override writeSuppression(enable: boolean): void {
    if (this.eventIdx) {
      // 2.7.10.2: flags stays 0. The index just passed is a whole lap away.
      this.availEvent = (enable ? this.#takenCount : this.#takenCount + WRAP - 1) % WRAP;
    } else {
      this.usedFlags = enable ? 0 : USED_F_NO_NOTIFY;
    }
  }

  /** How many chains are available. */
  #waiting(): number {
    const flags = this.#avail.getUint16(FLAGS, true);
    if (flags > (this.eventIdx ? 0 : AVAIL_F_NO_INTERRUPT)) {
      throw this.violated(`the available ring's flags are 0x${flags.toString(16)} [2.7.7.1]`);
    }
    const waiting = (this.#avail.getUint16(IDX, true) - this.#takenCount) & 0xffff;
    if (waiting + this.inFlight > this.size) {
      throw this.violated(
        `the available index went from ${this.#takenCount % WRAP} to ${this.availIdx}: with ${this.inFlight} chains in ` +
          `flight, ${waiting} more do not fit ${this.size} descriptors; did it go back? [2.7.6.1]`,
      );
    }
    return waiting;
  }

  #readTable(elements: ChainElement[], address: number, length: number): void {
    if (!this.indirect) {
      throw this.violated('an indirect table was used, but INDIRECT_DESC was not negotiated [2.7.5.3.1]');
    }
    if (length === 0 || length % DESC_SIZE !== 0) {
      throw this.violated(`an indirect table has ${length} bytes, not a multiple of ${DESC_SIZE} [2.7.5.3]`);
    }
    const table = this.area(address, length, 1, 'read', 'indirect table');
    const count = length / DESC_SIZE;
    for (let index = 0, steps = 1; ; steps += 1) {
      if (steps > count) throw this.violated(`an indirect table has a loop at ${index} [2.7.5.2]`);
      const descriptor = descriptorAt(table, index * DESC_SIZE);
      const { flags, extra: next } = descriptor;
      if ((flags & F_INDIRECT) !== 0) {
        throw this.violated('an indirect table refers to another one [2.7.5.3.1]');
      }
      if ((flags & ~(F_NEXT | F_WRITE)) !== 0) {
        throw this.violated(`descriptor ${index} of a table has unknown flags 0x${flags.toString(16)}`);
      }
      this.addElement(elements, descriptor.address, descriptor.length, (flags & F_WRITE) !== 0);
      if ((flags & F_NEXT) === 0) return;
      if (next >= count) {
        throw this.violated(`an indirect table of ${count} descriptors continues at ${next} [2.7.5.3]`);
      }
      if (this.inOrder && next !== index + 1) {
        throw this.violated(
          `descriptor ${index} of a table is followed by ${next}, out of order [2.7.5.3.1]`,
        );
      }
      index = next;
    }
  }

  /** In order: frees the descriptors of the chains that a batch skipped. */
  #forget(): void {
    for (const [head, members] of this.#members) {
      if (this.taken.has(head)) continue;
      for (const index of members) this.#busy[index] = 0;
      this.#members.delete(head);
    }
  }
}
