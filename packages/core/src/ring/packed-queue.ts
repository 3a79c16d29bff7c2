/**
 * The packed virtqueue [2.8]: one ring of descriptors that both sides write, and two small structures by which each tells
 * the other when to interrupt.
 *
 * Whether a descriptor is available or used depends on how two flag bits compare with a wrap counter. To make a batch available
 * at once, all flags of all chains are written as they are submitted, except those of the first chain's first descriptor;
 * `publish` stores these last, and the device, which looks at descriptors in ring order only, stops before them until then.
 */
import type { FeatureSet } from '../device/features.ts';
import type { BufferDirection, DmaRegion, Hal } from '../memory/hal.ts';
import type { Transport } from '../device/transport.ts';
import { DESCRIPTOR_SIZE, DescriptorFlag, type QueueOptions, VirtQueue } from './virt-queue.ts';
import { needEvent } from './event-index.ts';

const { NEXT, WRITE, INDIRECT, AVAIL, USED } = DescriptorFlag;

const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;
/** The bytes of an event suppression structure: u16 offset and wrap counter, u16 flags. */
const EVENT_SIZE = 4;

const NO_WORDS = new Uint32Array(0);

/** A virtqueue in the packed format. Made by {@link createQueue}. */
export class PackedQueue extends VirtQueue {
  #words = NO_WORDS;
  #flags = new Uint16Array(0);
  #driverEvent = NO_WORDS;
  #deviceEvent = NO_WORDS;
  #addresses: readonly [descriptors: number, driver: number, device: number] = [0, 0, 0];

  /** By token: the next free one. */
  readonly #following: Uint16Array;
  /** By token: 1 once it was published. */
  readonly #published: Uint8Array;
  /** The tokens in the order in which they were made available, `#orderHead` the oldest. */
  readonly #order: Uint16Array;
  #orderHead = 0;
  #orderCount = 0;

  #freeToken = 0;
  /** Where the next descriptor is written, and where the next one that the device does not have is. */
  #next = 0;
  #wrap = 1;
  #publishedNext = 0;
  #publishedWrap = 1;
  #usedNext = 0;
  #usedWrap = 1;
  #unkicked = 0;
  /** The first descriptor of the batch that is not published, its flags, or -1. */
  #batchFirst = -1;
  #batchFlags = 0;
  /** In order: the last token of a batch that the device used at once, and its length; -1 if there is none. */
  #batchEnd = -1;
  #batchLength = 0;

  readonly #ignoreEvent: boolean;

  #token = 0;
  #first = 0;
  #firstFlags = 0;
  #cursor = 0;
  #cursorWrap = 1;

  /** @internal use {@link createQueue} */
  constructor(
    transport: Transport,
    hal: Hal,
    features: FeatureSet<never>,
    size: number,
    options: QueueOptions,
  ) {
    super(transport, hal, features, size, options);
    this.#ignoreEvent = options.ignoreEvent === true;
    this.#following = new Uint16Array(size);
    this.#published = new Uint8Array(size);
    this.#order = new Uint16Array(size);
    this.start();
  }

  protected override layOut(): readonly (readonly [number, BufferDirection])[] {
    return [[this.size * DESCRIPTOR_SIZE + 2 * EVENT_SIZE, 'both']];
  }

  protected override bindRings([ring]: readonly DmaRegion[]): void {
    const { bytes, address } = ring as DmaRegion;
    const { buffer, byteOffset } = bytes;
    const ringBytes = this.size * DESCRIPTOR_SIZE;
    this.#words = new Uint32Array(buffer, byteOffset, this.size * 4);
    this.#flags = new Uint16Array(buffer, byteOffset, this.size * 8);
    this.#driverEvent = new Uint32Array(buffer, byteOffset + ringBytes, 1);
    this.#deviceEvent = new Uint32Array(buffer, byteOffset + ringBytes + EVENT_SIZE, 1);
    this.#addresses = [address, address + ringBytes, address + ringBytes + EVENT_SIZE];
  }

  protected override attach(): void {
    this.transport.queueSet(this.index, this.size, ...this.#addresses, () => this.countUnused());
  }

  protected override clear(): void {
    for (let t = 0; t < this.size; t += 1) this.#following[t] = t + 1 === this.size ? 0 : t + 1;
    this.#words.fill(0);
    this.#deviceEvent.fill(0);
    this.#published.fill(0);
    this.#orderHead = 0;
    this.#orderCount = 0;
    this.#freeToken = 0;
    this.#next = 0;
    this.#wrap = 1;
    this.#publishedNext = 0;
    this.#publishedWrap = 1;
    this.#usedNext = 0;
    this.#usedWrap = 1;
    this.#unkicked = 0;
    this.#batchFirst = -1;
    this.#batchEnd = -1;
    this.disableInterrupts();
  }

  protected override open(): void {
    // Taken now, since tokens may come back while the chain is being built.
    this.#token = this.#freeToken;
    this.#freeToken = this.#following[this.#token] as number;
    this.#first = this.#next;
    this.#cursor = this.indirect ? 0 : this.#next;
    this.#cursorWrap = this.#wrap;
  }

  protected override push(address: number, length: number, flags: number): void {
    const at = this.#cursor;
    this.left -= 1;
    if (this.indirect) {
      const word = (this.#token * this.tableLength + at) * 4;
      this.writeBuffer(this.tables, word, address, length);
      // 2.8.7: WRITE is the only flag that counts in a table; the id is reserved.
      this.tables[word + 3] = flags << 16;
      this.#cursor = at + 1;
      return;
    }
    const all = flags | (this.left > 0 ? NEXT : 0) | (this.#cursorWrap === 1 ? AVAIL : USED);
    const word = at * 4;
    this.writeBuffer(this.#words, word, address, length);
    if (at === this.#first) {
      // Held back: with its old flags the device does not take the descriptor for an available one.
      this.#firstFlags = all;
      this.#flags[at * 8 + 6] = this.#token;
    } else {
      this.#words[word + 3] = (all << 16) | this.#token;
    }
    this.#cursor = at + 1;
    if (this.#cursor === this.size) {
      this.#cursor = 0;
      this.#cursorWrap ^= 1;
    }
  }

  protected override close(): number {
    const token = this.#token;
    const first = this.#first;
    if (this.indirect) {
      this.writeBuffer(
        this.#words,
        first * 4,
        this.tablesAddress + token * this.tableLength * DESCRIPTOR_SIZE,
        this.wanted * DESCRIPTOR_SIZE,
      );
      this.#flags[first * 8 + 6] = token;
      this.#firstFlags = INDIRECT | (this.#wrap === 1 ? AVAIL : USED);
      this.#next += 1;
      if (this.#next === this.size) {
        this.#next = 0;
        this.#wrap ^= 1;
      }
    } else {
      this.#next = this.#cursor;
      this.#wrap = this.#cursorWrap;
    }
    if (this.#batchFirst < 0) {
      this.#batchFirst = first;
      this.#batchFlags = this.#firstFlags;
    } else {
      this.#flags[first * 8 + 7] = this.#firstFlags;
    }
    let place = this.#orderHead + this.#orderCount;
    if (place >= this.size) place -= this.size;
    this.#order[place] = token;
    this.#orderCount += 1;
    this.#published[token] = 0;
    return token;
  }

  protected override undo(): void {
    this.#following[this.#token] = this.#freeToken;
    this.#freeToken = this.#token;
    if (this.indirect) return;
    // The descriptors behind the first show as available; they get the look of used ones of the lap before.
    let at = this.#first;
    let wrap = this.#wrap;
    for (let pushed = this.wanted - this.left; pushed > 0; pushed -= 1) {
      if (at !== this.#first) this.#flags[at * 8 + 7] = wrap === 1 ? 0 : AVAIL | USED;
      at += 1;
      if (at === this.size) {
        at = 0;
        wrap ^= 1;
      }
    }
  }

  override publish(): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.staged === 0) return;
    let place = this.#orderHead + this.#orderCount - this.staged;
    for (let n = this.staged; n > 0; n -= 1) {
      if (place >= this.size) place -= this.size;
      const token = this.#order[place] as number;
      this.#published[token] = 1;
      this.#unkicked += this.held[token] as number;
      place += 1;
    }
    this.outstanding += this.staged;
    this.staged = 0;
    this.#publishedNext = this.#next;
    this.#publishedWrap = this.#wrap;
    // 2.8.17: the first descriptor of a list becomes available after the rest; 2.8.21.1.1: the store is sequentially consistent.
    Atomics.store(this.#flags, this.#batchFirst * 8 + 7, this.#batchFlags);
    this.#batchFirst = -1;
  }

  override shouldNotify(): boolean {
    if (this.failure !== undefined) throw this.failure;
    const added = this.#unkicked;
    if (added === 0) return false;
    this.#unkicked = 0;
    // 2.8.21.3.1: the flags were stored before; both fields are read at once.
    const event = Atomics.load(this.#deviceEvent, 0);
    const flags = (event >>> 16) & 3;
    if (flags !== EVENT_DESC || !this.eventIdx || this.#ignoreEvent) return flags !== EVENT_DISABLE;
    if (added >= this.size) return true;
    let offset = event & 0x7fff;
    if (((event >>> 15) & 1) !== this.#publishedWrap) offset -= this.size;
    const next = this.#publishedNext;
    return needEvent(offset & 0xffff, next, (next - added) & 0xffff);
  }

  protected override nextAvail(): number {
    return this.#publishedNext | (this.#publishedWrap << 15);
  }

  override pop(): number {
    if (this.failure !== undefined) throw this.failure;
    if (this.#batchEnd < 0) {
      if (!this.#hasUsed()) return -1;
      const word = this.#usedNext * 4;
      const idAndFlags = this.#words[word + 3] as number;
      const id = this.#checkId(idAndFlags & 0xffff);
      // 2.8.4: without WRITE the length is reserved. QEMU never sets WRITE and always gives the length: take what is possible.
      const reported = this.#words[word + 2] as number;
      const reserved = ((idAndFlags >>> 16) & WRITE) === 0 && reported > (this.writableBytes[id] as number);
      const length = reserved ? 0 : this.checkLength(id, reported);
      if (!this.inOrder) {
        this.usedLength = length;
        this.#release(id);
        this.#following[id] = this.#freeToken;
        this.#freeToken = id;
        return id;
      }
      this.#batchEnd = id;
      this.#batchLength = length;
    }
    // 2.8.8: one used descriptor may stand for a batch, whose other chains are taken as used completely.
    const token = this.#order[this.#orderHead] as number;
    if (token === this.#batchEnd) {
      this.usedLength = this.#batchLength;
      this.#batchEnd = -1;
    } else {
      this.usedLength = Math.min(this.writableBytes[token] as number, 0xffffffff);
    }
    this.#release(token);
    return token;
  }

  override disableInterrupts(): void {
    if (this.failure !== undefined) throw this.failure;
    Atomics.store(this.#driverEvent, 0, EVENT_DISABLE << 16);
  }

  override enableInterrupts(): boolean {
    if (this.failure !== undefined) throw this.failure;
    Atomics.store(
      this.#driverEvent,
      0,
      this.eventIdx ? (EVENT_DESC << 16) | (this.#usedWrap << 15) | this.#usedNext : EVENT_ENABLE << 16,
    );
    // 2.8.22: what was used in between may not be announced, so look again, after the store.
    return this.hasUsed();
  }

  override hasUsed(): boolean {
    if (this.failure !== undefined) throw this.failure;
    return this.#batchEnd >= 0 || this.#hasUsed();
  }

  override countUnused(): number {
    let left = this.outstanding;
    let at = this.#usedNext;
    let wrap = this.#usedWrap;
    let place = this.#orderHead;
    let last = this.#batchEnd;
    while (left > 0) {
      if (last < 0) {
        const flags = Atomics.load(this.#flags, at * 8 + 7) & (AVAIL | USED);
        if (flags !== (wrap === 1 ? AVAIL | USED : 0)) return left;
        last = (this.#words[at * 4 + 3] as number) & 0xffff;
        // What a device that lies still has is unknown.
        if (last >= this.size || this.held[last] === 0 || this.#published[last] === 0) return 0;
      }
      const token = this.inOrder ? (this.#order[place] as number) : last;
      place = place + 1 === this.size ? 0 : place + 1;
      at += this.held[token] as number;
      if (at >= this.size) {
        at -= this.size;
        wrap ^= 1;
      }
      left -= 1;
      if (token === last) last = -1;
    }
    return 0;
  }

  #hasUsed(): boolean {
    if (this.outstanding === 0) return false;
    const flags = Atomics.load(this.#flags, this.#usedNext * 8 + 7) & (AVAIL | USED);
    return flags === (this.#usedWrap === 1 ? AVAIL | USED : 0);
  }

  #checkId(id: number): number {
    if (id >= this.size || this.held[id] === 0 || this.#published[id] === 0) {
      throw this.misbehaved(`used chain ${id}, which is not in flight`);
    }
    return id;
  }

  #release(token: number): void {
    const held = this.held[token] as number;
    this.free += held;
    this.held[token] = 0;
    this.outstanding -= 1;
    this.#orderHead += 1;
    if (this.#orderHead === this.size) this.#orderHead = 0;
    this.#orderCount -= 1;
    this.#usedNext += held;
    if (this.#usedNext >= this.size) {
      this.#usedNext -= this.size;
      this.#usedWrap ^= 1;
    }
  }
}
