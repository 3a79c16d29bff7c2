/**
 * The memory that the back end maps: a few large regions, each a sealed file, from which blocks for DMA memory are cut. The back
 * end counts its regions in slots, 8 at the least, so each region is twice as large as the one before; a page takes memory only
 * when it is first accessed.
 *
 * The front end chooses the device addresses. They start low, as JavaScript engines keep numbers below 2^31 unboxed, and are also
 * the "user addresses" of the protocol: both only name places in the regions.
 */
import { VirtioError } from '@virtio/core';
import {
  BLOCK_SIZE,
  type DmaBlock,
  type DmaSource,
  IovaSpace,
  type Mapping,
  SharedFile,
} from '@virtio/linux';

/** The largest region, unless one allocation is larger. */
const LARGEST_REGION = 1 << 30;

/** A region as the back end knows it. */
export interface Region {
  /** The address of its first byte for the device. */
  readonly address: number;
  readonly file: SharedFile;
}

/** Adds and removes regions at the back end. Both methods may throw; then nothing has changed. */
export interface RegionListener {
  /** How many regions the back end can have. */
  readonly slots: number;
  /** Adds a region to those of {@link VhostMemory.regions}. When this returns, the back end can use it. */
  added(region: Region): void;
  /** Removes a region; `rest` are those that remain. The back end must no longer use it when this returns. */
  removed(region: Region, rest: readonly Region[]): void;
}

class Area implements Region {
  readonly address: number;
  readonly file: SharedFile;
  /** Blocks of the region that are in use. */
  readonly #used: Uint8Array;

  constructor(address: number, file: SharedFile) {
    this.address = address;
    this.file = file;
    this.#used = new Uint8Array(file.size / BLOCK_SIZE);
  }

  get empty(): boolean {
    return !this.#used.includes(1);
  }

  /** Takes `count` free blocks in a row; returns the first, or -1 if there are none. */
  take(count: number): number {
    let first = 0;
    for (let block = 0; block < this.#used.length; block += 1) {
      if (this.#used[block] === 1) first = block + 1;
      else if (block - first + 1 === count) {
        this.#used.fill(1, first, block + 1);
        return first;
      }
    }
    return -1;
  }

  give(first: number, count: number): void {
    this.#used.fill(0, first, first + count);
  }
}

/** Memory that is shared with a back end. */
export class VhostMemory implements DmaSource {
  readonly name: string;
  /** Adds and removes regions at the back end. */
  listener: RegionListener | undefined;
  readonly #areas: Area[] = [];
  readonly #blocks = new Map<
    DmaBlock,
    { readonly area: Area; readonly first: number; readonly bytes: Uint8Array }
  >();
  readonly #space = new IovaSpace([{ start: 0, end: 2 ** 46 }]);
  readonly #huge: boolean;
  #nextSize: number;
  #disposed = false;

  /**
   * @param name for messages
   * @param size bytes of the first region
   * @param huge whether to use huge pages if there are any
   */
  constructor(name: string, size: number, huge: boolean) {
    this.name = name;
    this.#huge = huge;
    this.#nextSize = Math.ceil(size / BLOCK_SIZE) * BLOCK_SIZE;
  }

  /** The regions, in the order in which they came. There is always one. */
  get regions(): readonly Region[] {
    if (this.#areas.length === 0 && !this.#disposed) this.#grow(BLOCK_SIZE);
    return this.#areas;
  }

  /** The size of all regions in bytes. */
  get size(): number {
    return this.#areas.reduce((sum, { file }) => sum + file.size, 0);
  }

  map(size: number): DmaBlock {
    const count = size / BLOCK_SIZE;
    for (const area of this.#areas) {
      const block = this.#cut(area, count);
      if (block !== undefined) return block;
    }
    const block = this.#cut(this.#grow(size), count);
    if (block === undefined) throw new Error('a new region has room for what it was made for');
    return block;
  }

  unmap(block: DmaBlock): void {
    const found = this.#blocks.get(block);
    if (found === undefined) return;
    this.#blocks.delete(block);
    const { area, first } = found;
    const { size } = block.mapping;
    block.mapping[Symbol.dispose]();
    if (this.#disposed) return;
    // Its next user finds it zeroed, and until then it takes no memory.
    area.file.clear(first * BLOCK_SIZE, size);
    area.give(first, size / BLOCK_SIZE);
    if (area.empty && this.#areas.length > 1) this.#remove(area);
  }

  /**
   * The memory at a device address, or `undefined` if none is mapped there. Valid until the block is given back, and empty then.
   */
  at(address: number, length: number): Uint8Array | undefined {
    for (const [{ address: start, mapping }, { bytes }] of this.#blocks) {
      if (address >= start && address + length <= start + mapping.size) {
        return bytes.subarray(address - start, address - start + length);
      }
    }
    return undefined;
  }

  /** Closes the files. The back end must no longer use them, or be gone. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const { mapping } of this.#blocks.keys()) mapping[Symbol.dispose]();
    this.#blocks.clear();
    for (const { file } of this.#areas.splice(0)) file[Symbol.dispose]();
  }

  #cut(area: Area, count: number): DmaBlock | undefined {
    const first = area.take(count);
    if (first < 0) return undefined;
    let mapping: Mapping;
    try {
      mapping = area.file.map(first * BLOCK_SIZE, count * BLOCK_SIZE);
    } catch (error) {
      area.give(first, count);
      throw error;
    }
    const block: DmaBlock = { mapping, address: area.address + first * BLOCK_SIZE };
    this.#blocks.set(block, { area, first, bytes: new Uint8Array(mapping.view()) });
    return block;
  }

  #grow(atLeast: number): Area {
    const slots = this.listener?.slots ?? Infinity;
    if (this.#areas.length >= slots) {
      throw new VirtioError(
        'DMA_ERROR',
        `${this.name} can map at most ${slots} regions of memory, and has ${this.#areas.length} with ${this.size} bytes; ` +
          'free DMA memory that is no longer used, or open the device with a larger memorySize',
      );
    }
    const size = Math.max(atLeast, this.#nextSize);
    const address = this.#space.take(size, BLOCK_SIZE);
    let file: SharedFile | undefined;
    try {
      file = SharedFile.create('vhost-user', size, this.#huge);
      const area = new Area(address, file);
      this.listener?.added(area);
      this.#areas.push(area);
      this.#nextSize = Math.max(this.#nextSize, Math.min(2 * size, LARGEST_REGION));
      return area;
    } catch (error) {
      file?.[Symbol.dispose]();
      this.#space.give(address, size);
      throw error;
    }
  }

  #remove(area: Area): void {
    try {
      this.listener?.removed(
        area,
        this.#areas.filter((one) => one !== area),
      );
    } catch {
      // The connection is lost, which is reported elsewhere; the next back end gets the regions of that time.
    }
    this.#areas.splice(this.#areas.indexOf(area), 1);
    area.file[Symbol.dispose]();
    this.#space.give(area.address, area.file.size);
  }
}
