/**
 * A virtqueue as drivers see it, whichever format its ring has.
 *
 * The hot path builds a chain without allocating: `begin`, `pushReadable`, `pushWritable`, `submit`; one `publish` then makes any
 * number of chains available to the device, and one `kick` notifies it. `pop` returns a token and leaves the length in
 * `usedLength`. {@link BufferChains}, which takes arrays of buffers, is built on that.
 *
 * The device is not trusted. All state that the driver relies on is kept in shadow arrays of its own; what the device writes is
 * read once, checked, and only then used. After the first lie the queue stays failed until it is reset.
 *
 * Indices into typed arrays are in range by construction here, hence `as number` where TypeScript cannot know it.
 */
import { VirtioError } from '../errors.ts';
import type { FeatureSet } from '../device/features.ts';
import { type BufferDirection, type DmaRegion, type Hal, PAGE_SIZE } from '../memory/hal.ts';
import type { Transport } from '../device/transport.ts';
import { show } from '../show.ts';
import type { QueueCalls } from './queue-calls.ts';

/** The largest queue of the specification, in descriptors. */
export const MAX_QUEUE_SIZE = 32768;

/** The default size of a queue, in descriptors, where the device allows it. */
export const DEFAULT_QUEUE_SIZE = 256;

/** How many descriptors an indirect table holds by default; longer chains use the ring's own descriptors. */
export const DEFAULT_TABLE_LENGTH = 16;

/** The bytes of a descriptor in either format. */
export const DESCRIPTOR_SIZE = 16;

/** Flags of a descriptor in either format. */
export const DescriptorFlag = {
  /** The chain continues at the next descriptor. */
  NEXT: 1,
  /** The device writes the buffer; otherwise it reads it. */
  WRITE: 2,
  /** The buffer is a table of descriptors. */
  INDIRECT: 4,
  /** Packed ring: equals the driver's wrap counter if the descriptor is available. */
  AVAIL: 1 << 7,
  /** Packed ring: equals the device's wrap counter if the descriptor is used. */
  USED: 1 << 15,
} as const;

/** Options of a queue. */
export interface QueueOptions {
  /** The index of the queue. */
  readonly index: number;
  /**
   * The size wanted, in descriptors (default 256). It is limited to the device's maximum, and in a split ring rounded down to a
   * power of two.
   */
  readonly size?: number;
  /**
   * Packed rings: notify the device whenever it has not disabled notifications, whatever event index it wrote (default false).
   * For devices that do not keep their event index up to date.
   */
  readonly ignoreEvent?: boolean;
  /** The number of descriptors in each indirect table (default 16); 0 for no tables. */
  readonly tableLength?: number;
}

const LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
const TWO_32 = 4294967296;

/** A virtqueue. Made by {@link createQueue}. */
export abstract class VirtQueue implements QueueCalls, Disposable {
  /** The index of the queue. */
  readonly index: number;
  /** The size of the queue in descriptors, which is also the longest chain. */
  readonly size: number;
  /** How many bytes the device wrote for the token that {@link VirtQueue.pop} returned last. */
  usedLength = 0;

  /** The transport of the device. */
  readonly transport: Transport;
  /** The platform. */
  readonly hal: Hal;
  /** Whether `VIRTIO_F_ACCESS_PLATFORM` was negotiated, for calls of the {@link Hal}. */
  readonly accessPlatform: boolean;
  /**
   * Called with a description when the device deviates from the specification in a way that puts nothing at risk. It is called
   * inside {@link VirtQueue.pop} and must not use the queue.
   */
  onQuirk: ((message: string) => void) | undefined;

  protected readonly eventIdx: boolean;
  protected readonly inOrder: boolean;
  protected readonly legacy: boolean;

  /** Descriptors of the ring that are free. */
  protected free: number;
  /** Chains that are published and not yet popped. */
  protected outstanding = 0;
  /** Chains that are submitted and not yet published. */
  protected staged = 0;

  // By token: ring descriptors held (0: not in use), and bytes offered for writing.
  protected readonly held: Uint16Array;
  protected readonly writableBytes: Float64Array;

  // The chain that is being built. `wanted` is 0 when there is none.
  protected wanted = 0;
  protected left = 0;
  protected chainWritable = 0;
  protected chainBytes = 0;
  protected indirect = false;

  // Indirect tables, one a token: `tableLength` descriptors each.
  protected readonly tableLength: number;
  protected tables = new Uint32Array(0);
  protected tablesAddress = 0;

  /** The memory of the rings, in the order of allocation, and whether it belongs to the transport. */
  #regions: DmaRegion[] = [];
  readonly #given: boolean;
  #failure: VirtioError | undefined;
  #disposed = false;

  protected constructor(
    transport: Transport,
    hal: Hal,
    features: FeatureSet<never>,
    size: number,
    options: QueueOptions,
  ) {
    if (!LITTLE_ENDIAN) {
      throw new VirtioError('UNSUPPORTED', 'virtqueues are little-endian, and this engine is not');
    }
    this.transport = transport;
    this.hal = hal;
    this.index = options.index;
    this.size = size;
    this.free = size;
    this.eventIdx = features.has('EVENT_IDX');
    this.inOrder = features.has('IN_ORDER');
    this.accessPlatform = features.has('ACCESS_PLATFORM');
    this.legacy = transport.requiresLegacyLayout();
    this.held = new Uint16Array(size);
    this.writableBytes = new Float64Array(size);
    const length = Math.min(options.tableLength ?? DEFAULT_TABLE_LENGTH, size);
    this.tableLength = features.has('INDIRECT_DESC') && length > 1 ? length : 0;
    const given = transport.ringMemory(options.index);
    this.#given = given !== undefined;
    this.#regions = [...(given ?? [])];
  }

  /** The memory of the rings. */
  get regions(): readonly DmaRegion[] {
    return this.#regions;
  }

  /**
   * Moves the rings to other memory of the same sizes. The old memory then belongs to the caller. The queue must be reset before
   * it is used again.
   */
  move(regions: readonly DmaRegion[]): void {
    this.#regions = [...regions];
    this.bind();
  }

  /** Keeps the memory of the rings allocated when the queue is disposed, as the device or another thread may still use it. */
  leaveMemory(): void {
    this.#regions = [];
  }

  /** How many descriptors are free. A chain takes one if it fits an indirect table, otherwise one for each of its buffers. */
  get availableDescriptors(): number {
    return this.free;
  }

  /** How many descriptors of the ring a chain of `count` buffers takes: one if it fits an indirect table. */
  descriptorsFor(count: number): number {
    return count > 1 && count <= this.tableLength ? 1 : count;
  }

  /** Whether a chain is begun and neither submitted nor rewound. */
  get isBuilding(): boolean {
    return this.wanted !== 0;
  }

  /** How many chains the device has: published and not yet popped. */
  get inFlight(): number {
    return this.outstanding;
  }

  /** Why the queue no longer works, or `undefined` if it does. */
  get failure(): VirtioError | undefined {
    return this.#failure;
  }

  /**
   * Begins a chain of exactly `count` buffers.
   *
   * @throws {@link VirtioError} `QUEUE_FULL` (nothing has changed; pop and try again), `INVALID_PARAM`
   */
  begin(count: number): void {
    if (!this.tryBegin(count)) {
      throw new VirtioError(
        'QUEUE_FULL',
        `queue ${this.index} of ${this.transport.name}: asked for a chain of ${count}, ${this.free} of ${this.size} ` +
          'descriptors are free; complete a request first',
      );
    }
  }

  /** The same as {@link VirtQueue.begin}, but returns false where that throws `QUEUE_FULL`. */
  tryBegin(count: number): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.wanted !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: a chain is begun already; submit or rewind it first`,
      );
    }
    // A fraction would never be pushed completely, and go on into the descriptors of other chains.
    if (!(Number.isInteger(count) && count >= 1 && count <= this.size)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: asked for a chain of ${show(count)} buffers; a chain has 1 to ${this.size} (the queue's size)`,
      );
    }
    const indirect = count > 1 && count <= this.tableLength;
    if (this.free < (indirect ? 1 : count)) return false;
    this.indirect = indirect;
    this.wanted = count;
    this.left = count;
    this.chainWritable = 0;
    this.chainBytes = 0;
    this.open();
    return true;
  }

  /**
   * Adds a buffer that the device reads.
   *
   * @param address its address for the device
   * @param length bytes
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  pushReadable(address: number, length: number): void {
    // 2.7.4.2: all readable elements come before the writable ones.
    if (this.chainWritable !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: a readable buffer cannot follow a writable one [2.7.4.2]`,
      );
    }
    this.#check(address, length);
    this.push(address, length, 0);
  }

  /**
   * Adds a buffer that the device writes.
   *
   * @param address its address for the device
   * @param length bytes
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  pushWritable(address: number, length: number): void {
    this.#check(address, length);
    this.chainWritable += length;
    this.push(address, length, DescriptorFlag.WRITE);
  }

  /**
   * Ends the chain. It is available to the device after {@link VirtQueue.publish}.
   *
   * @returns the token that {@link VirtQueue.pop} will return when the device has used the chain: a number below
   * {@link VirtQueue.size}
   * @throws {@link VirtioError} `INVALID_PARAM` if buffers are missing; the chain can then be filled or rewound
   */
  submit(): number {
    // A caller's array, or the platform, may have run code that failed the driver.
    if (this.#failure !== undefined) throw this.#failure;
    if (this.wanted === 0 || this.left !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: ${this.wanted - this.left} of the chain's ${this.wanted} buffers were pushed`,
      );
    }
    const token = this.close();
    this.held[token] = this.indirect ? 1 : this.wanted;
    this.writableBytes[token] = this.chainWritable;
    this.free -= this.indirect ? 1 : this.wanted;
    this.staged += 1;
    this.wanted = 0;
    return token;
  }

  /** Abandons the chain that was begun, if there is one; the queue is as it was before. */
  rewind(): void {
    if (this.wanted === 0) return;
    this.undo();
    this.wanted = 0;
    this.left = 0;
  }

  /** Makes all submitted chains available to the device. */
  abstract publish(): void;

  /**
   * Notifies the device of what was published since the last kick, unless it asked not to be.
   *
   * @returns whether it was notified
   */
  kick(): boolean {
    if (!this.shouldNotify()) return false;
    this.notify();
    return true;
  }

  /** Notifies the device, whether it wants that or not: for devices that suppress notifications by mistake. */
  notify(): void {
    this.transport.notify(this.index, this.nextAvail());
  }

  /**
   * Whether the device wants to be notified of what was published since the last call. For callers that notify in another way;
   * others use {@link VirtQueue.kick}.
   */
  abstract shouldNotify(): boolean;

  /** Where the next chain will be in the ring, in the form of notification data [2.9]. */
  protected abstract nextAvail(): number;

  /**
   * Takes the next chain that the device has used.
   *
   * @returns its token, with the bytes written in {@link VirtQueue.usedLength}, or -1 if there is none
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`; the device is then marked as failed
   */
  abstract pop(): number;

  /**
   * Whether {@link VirtQueue.pop} would return a chain. Takes nothing.
   *
   * @throws {@link VirtioError} `DEVICE_MISBEHAVED`; the device is then marked as failed
   */
  abstract hasUsed(): boolean;

  /**
   * How many published chains the device has not used yet. Takes nothing, and also works after the queue has failed: for
   * transports that wait for the device to finish. 0 if what the device wrote is not valid.
   */
  abstract countUnused(): number;

  /** Asks the device not to interrupt for this queue. It may interrupt all the same. */
  abstract disableInterrupts(): void;

  /**
   * Asks the device to interrupt when it uses the next chain.
   *
   * @returns true if there are used chains already, for which no interrupt may come: pop them, then call this again
   */
  abstract enableInterrupts(): boolean;

  /** Prepares the format's state for the chain that was begun. */
  protected abstract open(): void;
  /** Writes one descriptor of the chain. */
  protected abstract push(address: number, length: number, flags: number): void;
  /** Puts the finished chain into the ring and returns its token. */
  protected abstract close(): number;
  /** Takes back what {@link VirtQueue.push} wrote. */
  protected abstract undo(): void;
  /** Empties the ring and its shadows. */
  protected abstract clear(): void;
  /** Gives the ring's areas to the device. */
  protected abstract attach(): void;

  /**
   * Fails the queue: every later call throws `error` until {@link VirtQueue.reset}. A later failure replaces an earlier one.
   *
   * @returns the error, for the caller to throw
   */
  fail(error: VirtioError): VirtioError {
    this.#failure = error;
    return error;
  }

  /**
   * Empties the queue and gives it to the device again. The device must have been reset, or this queue alone
   * ({@link Transport.queueReset}); chains that were in flight are lost.
   */
  reset(): void {
    if (this.#disposed) {
      throw new VirtioError('DISPOSED', `queue ${this.index} of ${this.transport.name} is disposed`);
    }
    const given = this.transport.ringMemory(this.index);
    if (given !== undefined) this.move(given);
    this.#failure = undefined;
    this.wanted = 0;
    this.left = 0;
    this.staged = 0;
    this.outstanding = 0;
    this.free = this.size;
    this.held.fill(0);
    this.clear();
    this.attach();
  }

  /** Frees the memory. The device must have been reset, or must no longer have the queue. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.fail(new VirtioError('DISPOSED', `queue ${this.index} of ${this.transport.name} is disposed`));
    if (!this.#given) for (const region of this.#regions) this.hal.dmaDealloc(region, this.accessPlatform);
    this.#regions = [];
  }

  /** The memory that the rings of the format take: bytes, and who writes them. */
  protected abstract layOut(): readonly (readonly [bytes: number, direction: BufferDirection])[];
  /** Makes views of the memory of the rings, in the order of {@link VirtQueue.layOut}. */
  protected abstract bindRings(regions: readonly DmaRegion[]): void;

  /** Makes views of {@link VirtQueue.regions}. */
  protected bind(): void {
    const tables = this.tableLength > 0 ? this.#regions[0] : undefined;
    if (tables !== undefined) {
      const { buffer, byteOffset } = tables.bytes;
      this.tables = new Uint32Array(buffer, byteOffset, this.size * this.tableLength * 4);
      this.tablesAddress = tables.address;
    }
    this.bindRings(tables === undefined ? this.#regions : this.#regions.slice(1));
  }

  /** The last step of construction: allocates the rings and gives them to the device empty. */
  protected start(): void {
    try {
      if (!this.#given) {
        const tables = this.size * this.tableLength * DESCRIPTOR_SIZE;
        if (tables > 0) this.#allocate(tables, 'driver-to-device');
        for (const [bytes, direction] of this.layOut()) this.#allocate(bytes, direction);
      }
      this.bind();
      this.clear();
      this.attach();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Writes a descriptor's address and length; the word behind them differs between the formats. */
  protected writeBuffer(words: Uint32Array, word: number, address: number, length: number): void {
    words[word] = address;
    words[word + 1] = address < TWO_32 ? 0 : address / TWO_32;
    words[word + 2] = length;
  }

  /** The device has lied: fails the queue and marks the device as failed. */
  protected misbehaved(what: string): VirtioError {
    const error = new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.transport.who()}: queue ${this.index}: the device ${what}. It is not trusted any more: reset or dispose its driver`,
    );
    this.fail(error);
    return this.transport.fail(error);
  }

  /**
   * Limits a length that the device reported to what was offered. Several devices in use report wrong lengths, and also count
   * what they read; nothing beyond what was offered is read, so nothing is at risk.
   */
  protected checkLength(token: number, length: number): number {
    const offered = this.writableBytes[token] as number;
    if (length <= offered) return length;
    // 2.7.8.1: legacy devices may be wrong.
    if (!this.legacy) {
      this.onQuirk?.(
        `queue ${this.index}: ${length} bytes were reported as written to a chain that offered ${offered}; taken as ${offered}`,
      );
    }
    return offered;
  }

  #allocate(bytes: number, direction: BufferDirection): void {
    this.#regions.push(this.hal.dmaAlloc(Math.ceil(bytes / PAGE_SIZE), direction, this.accessPlatform));
  }

  #check(address: number, length: number): void {
    if (this.left === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        this.wanted === 0
          ? `queue ${this.index}: no chain is begun`
          : `queue ${this.index}: the chain was begun for ${this.wanted} buffers, and all of them are pushed already`,
      );
    }
    // Another type could not be written, and the descriptor would offer what it offered before.
    if (!(
      typeof address === 'number' &&
      typeof length === 'number' &&
      address >= 0 &&
      address <= Number.MAX_SAFE_INTEGER &&
      length >= 1 &&
      length < TWO_32
    )) {
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: a buffer of ${show(length)} bytes at ${show(address)} is out of range; give 1 to 2^32 - 1 bytes at an address below 2^53, as numbers`,
      );
    }
    this.chainBytes += length;
    // 2.7.5.2: a chain has at most 2^32 bytes.
    if (this.chainBytes > TWO_32) {
      this.chainBytes -= length;
      throw new VirtioError(
        'INVALID_PARAM',
        `queue ${this.index}: a chain of more than 4 GiB is not allowed [2.7.5.2]`,
      );
    }
  }
}
