/**
 * The split virtqueue [2.7]: a descriptor table, an available ring that only the driver writes and a used ring that only
 * the device writes.
 *
 * Free descriptors are kept in a list in shadow memory (`following`), never read back from the table. With
 * `VIRTIO_F_IN_ORDER` descriptors are taken in ring order and come back in ring order [2.7.9], so the list is a constant
 * circle and freeing is a subtraction.
 */
import { VirtioError } from '../errors.ts';
import type { FeatureSet } from '../device/features.ts';
import { type BufferDirection, type DmaRegion, type Hal, PAGE_SIZE } from '../memory/hal.ts';
import type { Transport } from '../device/transport.ts';
import { needEvent } from './event-index.ts';
import { DESCRIPTOR_SIZE, DescriptorFlag, type QueueOptions, VirtQueue } from './virt-queue.ts';

const AVAIL_FLAG_NO_INTERRUPT = 1;
const USED_FLAG_NO_NOTIFY = 1;
const TWO_32 = 4294967296;

// Both rings are u16 flags, u16 idx, then the entries.
const FLAGS = 0;
const IDX = 1;
const RING = 2;

const NO_WORDS = new Uint32Array(0);

/** A virtqueue in the split format. Made by {@link createQueue}. */
export class SplitQueue extends VirtQueue {
  readonly #mask: number;
  #descriptors = NO_WORDS;
  #avail = new Uint16Array(0);
  #used16 = new Uint16Array(0);
  #used32 = NO_WORDS;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  #addresses: readonly [descriptors: number, driver: number, device: number] = [0, 0, 0];

  // By descriptor: the next free one, or the next one of its chain. By token: the last of its chain, and its place in
  // the available ring.
  readonly #following: Uint16Array;
  readonly #tail: Uint16Array;
  readonly #place: Uint16Array;
  /** By token: 1 once it was published. A chain may stay with the device for any number of laps, so its place does not show this. */
  readonly #published: Uint8Array;
  /** The tokens in the order in which they were made available, by place. */
  readonly #order: Uint16Array;

  #freeHead = 0;
  #availIdx = 0;
  #publishedIdx = 0;
  #usedIdx = 0;
  /** The used index as it was read last. */
  #seenIdx = 0;
  /** Chains published since the last kick. */
  #unkicked = 0;
  /** In order: the last token of a batch that the device used at once, and its length; -1 if there is none. */
  #batchEnd = -1;
  #batchLength = 0;

  #head = 0;
  #cursor = 0;
  #last = 0;
  #words = NO_WORDS;
  #base = 0;

  /** @internal use {@link createQueue} */
  constructor(
    transport: Transport,
    hal: Hal,
    features: FeatureSet<never>,
    size: number,
    options: QueueOptions,
  ) {
    super(transport, hal, features, size, options);
    this.#usedEvent = RING + size;
    this.#availEvent = RING + 4 * size;
    this.#mask = size - 1;
    this.#following = new Uint16Array(size);
    this.#tail = new Uint16Array(size);
    this.#place = new Uint16Array(size);
    this.#published = new Uint8Array(size);
    this.#order = new Uint16Array(size);
    this.start();
  }

  // 2.7.2: the legacy layout is one region; otherwise the device needs to write only the used ring.
  protected override layOut(): readonly (readonly [number, BufferDirection])[] {
    const { driverBytes, usedOffset, usedBytes } = splitSizes(this.size);
    return this.legacy
      ? [[usedOffset + usedBytes, 'both']]
      : [
          [driverBytes, 'driver-to-device'],
          [usedBytes, 'device-to-driver'],
        ];
  }

  protected override bindRings([table, used]: readonly DmaRegion[]): void {
    const { size } = this;
    const { tableBytes, usedOffset } = splitSizes(size);
    const { buffer, byteOffset } = (table as DmaRegion).bytes;
    const device = (used ?? table) as DmaRegion;
    const usedAt = used === undefined ? usedOffset : 0;
    this.#descriptors = new Uint32Array(buffer, byteOffset, size * 4);
    this.#avail = new Uint16Array(buffer, byteOffset + tableBytes, 3 + size);
    const usedStart = device.bytes.byteOffset + usedAt;
    this.#used16 = new Uint16Array(device.bytes.buffer, usedStart, RING + 4 * size + 1);
    this.#used32 = new Uint32Array(device.bytes.buffer, usedStart, 1 + 2 * size);
    const { address } = table as DmaRegion;
    this.#addresses = [address, address + tableBytes, device.address + usedAt];
    this.#words = this.#descriptors;
  }

  protected override attach(): void {
    this.transport.queueSet(this.index, this.size, ...this.#addresses, () => this.countUnused());
  }

  protected override clear(): void {
    for (let d = 0; d < this.size; d += 1) this.#following[d] = (d + 1) & this.#mask;
    this.#descriptors.fill(0);
    this.#avail.fill(0);
    // 2.7.10.1: the driver initializes the used ring's flags to 0.
    this.#used16.fill(0);
    this.#published.fill(0);
    this.#freeHead = 0;
    this.#availIdx = 0;
    this.#publishedIdx = 0;
    this.#usedIdx = 0;
    this.#seenIdx = 0;
    this.#unkicked = 0;
    this.#batchEnd = -1;
    this.disableInterrupts();
  }

  protected override open(): void {
    this.#head = this.#freeHead;
    if (this.indirect) {
      this.#words = this.tables;
      this.#base = this.#head * this.tableLength;
      this.#cursor = 0;
    } else {
      this.#words = this.#descriptors;
      this.#base = 0;
      this.#cursor = this.#head;
    }
  }

  protected override push(address: number, length: number, flags: number): void {
    const at = this.#cursor;
    const word = (this.#base + at) * 4;
    this.left -= 1;
    let word3 = flags;
    if (this.left > 0) {
      // 2.7.5.3.1: in a table, descriptors are sequential.
      const next = this.indirect ? at + 1 : (this.#following[at] as number);
      word3 |= DescriptorFlag.NEXT | (next << 16);
      this.#cursor = next;
    }
    const words = this.#words;
    this.writeBuffer(words, word, address, length);
    words[word + 3] = word3;
    this.#last = at;
  }

  protected override close(): number {
    const head = this.#head;
    let last = this.#last;
    if (this.indirect) {
      last = head;
      const word = head * 4;
      this.writeBuffer(
        this.#descriptors,
        word,
        this.tablesAddress + this.#base * DESCRIPTOR_SIZE,
        this.wanted * DESCRIPTOR_SIZE,
      );
      this.#descriptors[word + 3] = DescriptorFlag.INDIRECT;
    }
    this.#freeHead = this.#following[last] as number;
    this.#tail[head] = last;
    const place = this.#availIdx & this.#mask;
    this.#avail[RING + place] = head;
    this.#order[place] = head;
    this.#place[head] = this.#availIdx;
    this.#published[head] = 0;
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
    return head;
  }

  protected override undo(): void {
    // Nothing of the chain is reachable for the device, and the free list was not changed.
  }

  override publish(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.staged === 0) return;
    for (let n = this.staged; n > 0; n -= 1) {
      this.#published[this.#order[(this.#availIdx - n) & this.#mask] as number] = 1;
    }
    this.outstanding += this.staged;
    this.#unkicked += this.staged;
    this.staged = 0;
    this.#publishedIdx = this.#availIdx;
    // 2.7.13.3.1: the store is sequentially consistent, so the device sees all that was written before the index.
    Atomics.store(this.#avail, IDX, this.#availIdx);
  }

  override shouldNotify(): boolean {
    if (this.failure !== undefined) throw this.failure;
    const added = this.#unkicked;
    if (added === 0) return false;
    this.#unkicked = 0;
    // 2.7.13.4.1: the index was stored, and this load comes after it, as both are sequentially consistent.
    if (!this.eventIdx) return (Atomics.load(this.#used16, FLAGS) & USED_FLAG_NO_NOTIFY) === 0;
    const event = Atomics.load(this.#used16, this.#availEvent);
    // After a whole lap of the 16-bit index the event may lie anywhere in it.
    if (added > 0xffff) return true;
    return needEvent(event, this.#publishedIdx, (this.#publishedIdx - added) & 0xffff);
  }

  protected override nextAvail(): number {
    return this.#publishedIdx;
  }

  override pop(): number {
    if (this.failure !== undefined) throw this.failure;
    if (this.inOrder) return this.#popInOrder();
    if (!this.#hasUsed()) return -1;
    const element = 1 + 2 * (this.#usedIdx & this.#mask);
    const token = this.#checkId(this.#used32[element] as number);
    this.usedLength = this.checkLength(token, this.#used32[element + 1] as number);
    const tail = this.#tail[token] as number;
    if (this.wanted === 0) {
      this.#following[tail] = this.#freeHead;
      this.#freeHead = token;
    } else {
      // The chain that is being built has the head of the list: what comes back goes behind it.
      let last = this.#head;
      for (let n = this.indirect ? 1 : this.wanted; n > 1; n -= 1) last = this.#following[last] as number;
      this.#following[tail] = this.#following[last] as number;
      this.#following[last] = token;
    }
    this.#release(token);
    return token;
  }

  override hasUsed(): boolean {
    if (this.failure !== undefined) throw this.failure;
    return this.#hasUsed();
  }

  override countUnused(): number {
    const used = (Atomics.load(this.#used16, IDX) - this.#usedIdx) & 0xffff;
    return Math.max(0, this.outstanding - used);
  }

  override disableInterrupts(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.eventIdx) {
      // 2.7.7.1: flags stays 0; an event that has just passed is a whole lap away.
      Atomics.store(this.#avail, this.#usedEvent, (this.#usedIdx - 1) & 0xffff);
    } else {
      Atomics.store(this.#avail, FLAGS, AVAIL_FLAG_NO_INTERRUPT);
    }
  }

  override enableInterrupts(): boolean {
    if (this.failure !== undefined) throw this.failure;
    if (this.eventIdx) Atomics.store(this.#avail, this.#usedEvent, this.#usedIdx);
    else Atomics.store(this.#avail, FLAGS, 0);
    // 2.7.14: what was used in between may not be announced, so look again, after the store.
    return this.#hasUsed();
  }

  /** Whether the device has used chains that have not been popped. */
  #hasUsed(): boolean {
    if (this.#usedIdx !== this.#seenIdx) return true;
    const idx = Atomics.load(this.#used16, IDX);
    const used = (idx - this.#usedIdx) & 0xffff;
    if (used === 0) return false;
    if (used > this.outstanding) {
      throw this.misbehaved(
        `moved its used index to ${idx}, ${used} past the last, with ${this.outstanding} chains in flight`,
      );
    }
    this.#seenIdx = idx;
    return true;
  }

  /** Checks that a used id names a chain that was published and is not popped. */
  #checkId(id: number): number {
    if (id >= this.size || this.held[id] === 0 || this.#published[id] === 0) {
      throw this.misbehaved(`used chain ${id}, which is not in flight`);
    }
    return id;
  }

  #release(token: number): void {
    this.free += this.held[token] as number;
    this.held[token] = 0;
    this.outstanding -= 1;
    this.#usedIdx = (this.#usedIdx + 1) & 0xffff;
  }

  /** 2.7.9: one used element may stand for a batch, whose other chains are taken as used completely. */
  #popInOrder(): number {
    if (this.#batchEnd < 0) {
      if (!this.#hasUsed()) return -1;
      const element = 1 + 2 * (this.#usedIdx & this.#mask);
      const id = this.#checkId(this.#used32[element] as number);
      const ahead = ((this.#place[id] as number) - this.#usedIdx) & 0xffff;
      if (ahead >= ((this.#seenIdx - this.#usedIdx) & 0xffff)) {
        throw this.misbehaved(`used chain ${id} out of order, though it is to use chains in order`);
      }
      this.#batchLength = this.checkLength(id, this.#used32[element + 1] as number);
      this.#batchEnd = id;
    }
    const token = this.#order[this.#usedIdx & this.#mask] as number;
    if (token === this.#batchEnd) {
      this.usedLength = this.#batchLength;
      this.#batchEnd = -1;
    } else {
      this.usedLength = Math.min(this.writableBytes[token] as number, TWO_32 - 1);
    }
    this.#release(token);
    return token;
  }
}

/** The bytes of the parts of a split ring: the table, the table with the available ring, the used ring and where it starts in one region. */
function splitSizes(size: number): {
  tableBytes: number;
  driverBytes: number;
  usedOffset: number;
  usedBytes: number;
} {
  const tableBytes = size * DESCRIPTOR_SIZE;
  const driverBytes = tableBytes + 2 * (3 + size);
  const usedOffset = Math.ceil(driverBytes / PAGE_SIZE) * PAGE_SIZE;
  return { tableBytes, driverBytes, usedOffset, usedBytes: 6 + 8 * size };
}

/** The split ring's size: a power of two, at most the size wanted and what the device supports [2.7]. */
export function splitQueueSize(wanted: number, max: number, legacy: boolean): number {
  if (legacy && max > 0 && (max & (max - 1)) !== 0) {
    throw new VirtioError(
      'INVALID_DEVICE',
      `a legacy queue of ${max} descriptors: the size is not a power of two [2.7]`,
    );
  }
  return 2 ** Math.floor(Math.log2(Math.min(wanted, max)));
}
