/**
 * Bounce buffers: DMA memory in place of a buffer that the device cannot reach. Their sizes are powers of two, they are kept for
 * reuse, and they are found by their device address with arithmetic and one table, so that sharing a buffer in the steady state
 * allocates nothing.
 */
import { type BufferDirection, type DmaRegion, PAGE_SIZE, VirtioError } from '@virtio/core';
import { BLOCK_SIZE, type DmaMemory } from './dma-memory.ts';

/** The smallest slot is 512 bytes: the unit in which positions in a block are counted. */
const UNIT_SHIFT = 9;
const BLOCK_SHIFT = 21;
const BLOCK_PAGES = BLOCK_SIZE / PAGE_SIZE;
const UNITS = 1 << (BLOCK_SHIFT - UNIT_SHIFT);
/** Classes 0 to 12: 512 bytes to 2 MiB. */
const CLASSES = BLOCK_SHIFT - UNIT_SHIFT + 1;
/** Slots are cut at least 64 KiB at a time. */
const RUN_UNITS = 128;

/** The state of a slot, by its first unit: free, or the number of bytes shared. */
const FREE = -1;

class Block {
  readonly index: number;
  readonly region: DmaRegion;
  /** Bytes shared by the slot that starts at a unit, or {@link FREE}. */
  readonly lengths = new Int32Array(UNITS).fill(FREE);
  /** The class of the slot that starts at a unit. */
  readonly classes = new Uint8Array(UNITS);
  /** The view that was last copied from a slot, kept because the next copy usually has the same length. */
  readonly views: (Uint8Array | undefined)[] = [];
  /** Units that are not cut into slots yet start here. */
  next = 0;

  constructor(index: number, region: DmaRegion) {
    this.index = index;
    this.region = region;
  }
}

/** A pool of bounce buffers. */
export class BouncePool {
  readonly #memory: DmaMemory;
  readonly #blocks: Block[] = [];
  /** Blocks by their device address in units of 2 MiB. */
  readonly #byAddress = new Map<number, Block>();
  /** Free slots of each class as stacks of `block * UNITS + unit`. */
  readonly #free: Int32Array[] = [];
  readonly #freeCount = new Int32Array(CLASSES);
  /** How many slots of each class there are. */
  readonly #slots = new Int32Array(CLASSES);
  /** Buffers larger than a block: each has a region of its own, kept for the next one. */
  readonly #large: { region: DmaRegion; length: number }[] = [];
  #last: Block | undefined;

  constructor(memory: DmaMemory) {
    this.#memory = memory;
    for (let i = 0; i < CLASSES; i += 1) this.#free.push(new Int32Array(16));
  }

  /** How many buffers are shared now. */
  get shared(): number {
    let count = 0;
    for (let i = 0; i < CLASSES; i += 1) count += (this.#slots[i] as number) - (this.#freeCount[i] as number);
    for (const { length } of this.#large) if (length !== FREE) count += 1;
    return count;
  }

  /**
   * Lends a slot for a buffer.
   *
   * @returns its device address
   * @throws {@link VirtioError} `DMA_ERROR`, `INVALID_PARAM` for an empty buffer
   */
  share(buffer: Uint8Array, direction: BufferDirection): number {
    const { length } = buffer;
    if (length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        'an empty buffer cannot be shared with a device; check its length',
      );
    }
    if (length > BLOCK_SIZE) return this.#shareLarge(buffer, direction);
    const cls = length <= 1 << UNIT_SHIFT ? 0 : 32 - Math.clz32(length - 1) - UNIT_SHIFT;
    if (this.#freeCount[cls] === 0) this.#grow(cls);
    const top = (this.#freeCount[cls] as number) - 1;
    this.#freeCount[cls] = top;
    const slot = (this.#free[cls] as Int32Array)[top] as number;
    const block = this.#blocks[slot >>> (BLOCK_SHIFT - UNIT_SHIFT)] as Block;
    const unit = slot & (UNITS - 1);
    block.lengths[unit] = length;
    const offset = unit << UNIT_SHIFT;
    const { bytes, address } = block.region;
    // Bytes that the device does not write must not be those of another buffer.
    if (direction === 'device-to-driver') bytes.fill(0, offset, offset + length);
    else bytes.set(buffer, offset);
    this.#last = block;
    return address + offset;
  }

  /**
   * Takes a slot back, after copying to `buffer` what the device wrote.
   *
   * @returns whether there is a slot at the address
   */
  unshare(address: number, buffer: Uint8Array, direction: BufferDirection): boolean {
    let block = this.#last;
    if (
      block === undefined ||
      address < block.region.address ||
      address >= block.region.address + BLOCK_SIZE
    ) {
      block = this.#byAddress.get(Math.floor(address / BLOCK_SIZE));
      if (block === undefined) return this.#unshareLarge(address, buffer, direction);
      this.#last = block;
    }
    const offset = address - block.region.address;
    const unit = offset >>> UNIT_SHIFT;
    const length = block.lengths[unit] as number;
    if (length === FREE || (offset & ((1 << UNIT_SHIFT) - 1)) !== 0) return false;
    if (direction !== 'driver-to-device') {
      let view = block.views[unit];
      if (view?.length !== length) {
        view = block.region.bytes.subarray(offset, offset + length);
        block.views[unit] = view;
      }
      copyBack(view, buffer);
    }
    block.lengths[unit] = FREE;
    const cls = block.classes[unit] as number;
    const top = this.#freeCount[cls] as number;
    (this.#free[cls] as Int32Array)[top] = block.index * UNITS + unit;
    this.#freeCount[cls] = top + 1;
    return true;
  }

  /** Cuts more slots of a class. */
  #grow(cls: number): void {
    const unitsPerSlot = 1 << cls;
    const run = Math.max(RUN_UNITS, unitsPerSlot);
    let block = this.#blocks.find(({ next }) => alignUp(next, run) + run <= UNITS);
    if (block === undefined) {
      block = new Block(this.#blocks.length, this.#memory.allocate(BLOCK_PAGES, BLOCK_PAGES));
      this.#blocks.push(block);
      this.#byAddress.set(block.region.address / BLOCK_SIZE, block);
    }
    const start = alignUp(block.next, run);
    block.next = start + run;
    const count = run / unitsPerSlot;
    const total = (this.#slots[cls] as number) + count;
    let free = this.#free[cls] as Int32Array;
    if (total > free.length) {
      const larger = new Int32Array(Math.max(total, 2 * free.length));
      larger.set(free);
      this.#free[cls] = free = larger;
    }
    for (let i = 0; i < count; i += 1) {
      const unit = start + i * unitsPerSlot;
      block.classes[unit] = cls;
      const top = this.#freeCount[cls] as number;
      free[top] = block.index * UNITS + unit;
      this.#freeCount[cls] = top + 1;
    }
    this.#slots[cls] = total;
  }

  #shareLarge(buffer: Uint8Array, direction: BufferDirection): number {
    const { length } = buffer;
    let found = this.#large.find((slot) => slot.length === FREE && slot.region.bytes.length >= length);
    if (found === undefined) {
      found = { region: this.#memory.allocate(Math.ceil(length / BLOCK_SIZE) * BLOCK_PAGES), length: FREE };
      this.#large.push(found);
    }
    found.length = length;
    if (direction === 'device-to-driver') found.region.bytes.fill(0, 0, length);
    else found.region.bytes.set(buffer);
    return found.region.address;
  }

  #unshareLarge(address: number, buffer: Uint8Array, direction: BufferDirection): boolean {
    const found = this.#large.find((slot) => slot.region.address === address && slot.length !== FREE);
    if (found === undefined) return false;
    if (direction !== 'driver-to-device') copyBack(found.region.bytes.subarray(0, found.length), buffer);
    found.length = FREE;
    return true;
  }
}

/** A buffer that was detached or shortened meanwhile gets what fits. */
function copyBack(from: Uint8Array, to: Uint8Array): void {
  if (to.length >= from.length) to.set(from);
  else if (to.length > 0) to.set(from.subarray(0, to.length));
}

function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
