/**
 * DMA memory in large blocks, allocated in pages. Mapping a block for the device costs a system call and pins its pages, so
 * blocks are large (2 MiB: one huge page) and kept; an allocation is a search in a byte map and one view.
 *
 * Each allocation has an ArrayBuffer of its own. It is detached when the allocation is freed, so that a stale view is empty and
 * never reads data of a later allocation; and `share` recognises DMA memory by it.
 */
import { type DmaRegion, PAGE_SIZE, VirtioError } from '@virtio/core';
import { Mapping } from './mapping.ts';

/** The size and the alignment of blocks: that of a huge page. */
export const BLOCK_SIZE = 2 * 1024 * 1024;

/** Memory that the device can reach, contiguous for both sides. */
export interface DmaBlock {
  /** The memory in this process. */
  readonly mapping: Mapping;
  /** The address for the device: a multiple of 2 MiB. */
  readonly address: number;
}

/** Where blocks come from: an IOMMU, or physical memory. */
export interface DmaSource extends Disposable {
  /** A short name for messages. */
  readonly name: string;
  /**
   * Maps zeroed memory for the device.
   *
   * @param size a multiple of 2 MiB
   * @throws {@link VirtioError} `DMA_ERROR`, `PERMISSION_DENIED`
   */
  map(size: number): DmaBlock;
  /** Unmaps a block for the device, then in this process. */
  unmap(block: DmaBlock): void;
}

const FRESH = 0;
const USED = 1;
const FREED = 2;

/** A block and which of its pages are in use. */
class Arena {
  readonly block: DmaBlock;
  readonly pages: number;
  readonly #state: Uint8Array;
  #free: number;

  constructor(block: DmaBlock) {
    this.block = block;
    this.pages = block.mapping.size / PAGE_SIZE;
    this.#state = new Uint8Array(this.pages);
    this.#free = this.pages;
  }

  get empty(): boolean {
    return this.#free === this.pages;
  }

  /** The first run of free pages that starts at a multiple of `alignment` pages, or -1. */
  find(count: number, alignment: number): number {
    if (count > this.#free) return -1;
    let first = 0;
    for (let page = 0; page < this.pages; page += 1) {
      if (this.#state[page] === USED) first = Math.ceil((page + 1) / alignment) * alignment;
      else if (page - first + 1 >= count) return first;
    }
    return -1;
  }

  /** Marks pages as used. Returns whether all of them were never used before, and so are zero. */
  take(first: number, count: number): boolean {
    let fresh = true;
    for (let page = first; page < first + count; page += 1) {
      if (this.#state[page] !== FRESH) fresh = false;
      this.#state[page] = USED;
    }
    this.#free -= count;
    return fresh;
  }

  give(first: number, count: number): void {
    this.#state.fill(FREED, first, first + count);
    this.#free += count;
  }
}

/** A region that is allocated, or that was freed while a device has a part of it. */
export interface Allocation {
  readonly arena: Arena;
  readonly region: DmaRegion;
  /** How many buffers in it are shared with a device. */
  shares: number;
  /** Its memory cannot be allocated again before no buffer in it is shared. */
  freed: boolean;
}

/** DMA memory of a process: allocates regions in blocks. */
export class DmaMemory implements Disposable {
  readonly #source: DmaSource;
  readonly #arenas: Arena[] = [];
  readonly #regions = new Map<ArrayBufferLike, Allocation>();
  /** Regions that were posted to other threads: their memory stays mapped until they are freed. */
  readonly #posted = new Set<ArrayBufferLike>();
  #disposed = false;

  constructor(source: DmaSource) {
    this.#source = source;
  }

  /** Bytes that are mapped for the device, in use or not. */
  get mappedBytes(): number {
    return this.#arenas.reduce((sum, arena) => sum + arena.pages * PAGE_SIZE, 0);
  }

  /** The region that an ArrayBuffer is, also if it was freed while a part of it is shared. */
  find(buffer: ArrayBufferLike): Allocation | undefined {
    return this.#regions.get(buffer);
  }

  /**
   * The address in this process of bytes of a region, for another thread.
   *
   * @returns -1 if they are in no region
   */
  post(bytes: Uint8Array): number {
    const { buffer, byteOffset } = bytes;
    const found = this.#regions.get(buffer);
    if (!found) return -1;
    const { mapping, address } = found.arena.block;
    if (!this.#posted.has(buffer)) {
      this.#posted.add(buffer);
      Mapping.post(bytes);
    }
    return mapping.address + (found.region.address - address) + byteOffset;
  }

  /**
   * Allocates zeroed pages that are contiguous for the device.
   *
   * @param alignment of the device address, in pages: a power of two up to that of a block
   * @throws {@link VirtioError} `DMA_ERROR`, `DISPOSED`, `INVALID_PARAM`
   */
  allocate(pages: number, alignment = 1): DmaRegion {
    if (this.#disposed) {
      throw new VirtioError(
        'DISPOSED',
        `the DMA memory of ${this.#source.name} is disposed; open the device again`,
      );
    }
    if (!Number.isSafeInteger(pages) || pages < 1) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${pages} pages of DMA memory were to be allocated; give one or more`,
      );
    }
    for (const arena of this.#arenas) {
      const region = this.#take(arena, pages, alignment);
      if (region) return region;
    }
    const size = Math.ceil((pages * PAGE_SIZE) / BLOCK_SIZE) * BLOCK_SIZE;
    const arena = new Arena(this.#source.map(size));
    this.#arenas.push(arena);
    return this.#take(arena, pages, alignment) as DmaRegion;
  }

  /**
   * Frees a region; its views become empty. As long as a device has buffers in it, its memory is not allocated again.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not of this memory, or was freed before
   */
  free(region: DmaRegion): void {
    if (this.#disposed) return;
    const buffer = region.bytes.buffer;
    const found = this.#regions.get(buffer);
    if (found === undefined || found.freed) {
      throw new VirtioError(
        'INVALID_PARAM',
        `a DMA region at 0x${region.address.toString(16)} was to be freed, but it is not one of ${this.#source.name}, or ` +
          'was freed before',
      );
    }
    const { mapping } = found.arena.block;
    found.freed = true;
    if (this.#posted.delete(buffer)) mapping.unpost();
    mapping.detach(buffer);
    if (found.shares === 0) this.release(found);
  }

  /** Makes the pages of a region available again that was freed and in which nothing is shared any more. */
  release({ arena, region }: Allocation): void {
    if (this.#disposed) return;
    this.#regions.delete(region.bytes.buffer);
    arena.give((region.address - arena.block.address) / PAGE_SIZE, region.pages);
    // One empty block is kept for the next allocation; other empty blocks are unmapped.
    if (
      arena.empty &&
      (arena.block.mapping.size > BLOCK_SIZE || this.#arenas.some((a) => a !== arena && a.empty))
    ) {
      this.#arenas.splice(this.#arenas.indexOf(arena), 1);
      this.#source.unmap(arena.block);
    }
  }

  /** Detaches and unmaps everything. The device must no longer use any of it. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#regions.clear();
    for (const arena of this.#arenas.splice(0)) this.#source.unmap(arena.block);
    this.#source[Symbol.dispose]();
  }

  #take(arena: Arena, pages: number, alignment: number): DmaRegion | undefined {
    const first = arena.find(pages, alignment);
    if (first < 0) return undefined;
    const { mapping, address } = arena.block;
    const bytes = new Uint8Array(mapping.view(first * PAGE_SIZE, pages * PAGE_SIZE));
    if (!arena.take(first, pages)) bytes.fill(0);
    const region: DmaRegion = { bytes, address: address + first * PAGE_SIZE, pages };
    this.#regions.set(bytes.buffer, { arena, region, shares: 0, freed: false });
    return region;
  }
}
