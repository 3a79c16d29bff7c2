/**
 * The Hal of a Linux process. Drivers use it through core's interface; programs use {@link LinuxHal.alloc} for buffers that the
 * device accesses without a copy.
 *
 * The direction of a region is not enforced: the IOMMU maps whole blocks, which hold regions of all directions.
 */
import {
  type BufferDirection,
  type DmaRegion,
  MappedRegisters,
  PAGE_SIZE,
  type PostedMemory,
  type PostingHal,
  type RegisterWindow,
  subWindow,
  VirtioError,
} from '@virtio/core';
import { BouncePool } from './bounce-pool.ts';
import { type Allocation, BLOCK_SIZE, DmaMemory, type DmaSource } from './dma-memory.ts';
import { Mapping } from './mapping.ts';

/**
 * DMA memory of a caller; `using buffer = hal.alloc(65536)` frees it at the end of the block. While the device has a part of it, also
 * after a request was aborted or timed out, its memory is not allocated again.
 */
export interface DmaBuffer extends Disposable {
  /** The memory: zeroed, page-aligned, and of the requested length. Empty after disposal. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The address for the device. */
  readonly address: number;
}

/** A view of DMA memory. */
interface KnownView {
  readonly allocation: Allocation;
  readonly address: number;
}

const BLOCK_PAGES = BLOCK_SIZE / PAGE_SIZE;

/** 512 views that were shared once are remembered, in places that their addresses in units of 512 bytes are spread over. */
const SEEN_SHIFT = 32 - 9;
const SEEN_UNIT = 512;
const GOLDEN = 0x9e3779b1;

/** Memory and registers for the drivers of a Linux process. */
export abstract class LinuxHal implements PostingHal, Disposable {
  readonly #memory: DmaMemory;
  readonly #bounce: BouncePool;
  /**
   * The views of DMA memory that were shared more than once. Finding a view here costs less than reading its
   * `buffer`, but adding one costs many times more, so that it would not pay for views that are made for one request.
   */
  readonly #known = new WeakMap<Uint8Array, KnownView>();
  /** Views that were shared once, by their start address. */
  readonly #seen: (Uint8Array | undefined)[] = new Array<undefined>(1 << (32 - SEEN_SHIFT)).fill(undefined);
  /** The buffer that was last recognised as DMA memory, and its region. */
  #lastBuffer: ArrayBufferLike | undefined;
  #last: Allocation | undefined;

  protected constructor(source: DmaSource) {
    this.#memory = new DmaMemory(source);
    this.#bounce = new BouncePool(this.#memory);
  }

  /** How many buffers are shared through bounce buffers now. */
  get bounced(): number {
    return this.#bounce.shared;
  }

  /** Bytes of DMA memory that are mapped and locked, in use or not. */
  get mappedBytes(): number {
    return this.#memory.mappedBytes;
  }

  /**
   * Allocates a buffer that devices access directly: a driver's reads and writes of it, or of a part of it, are zero-copy.
   *
   * @param size bytes
   * @throws {@link VirtioError} `DMA_ERROR`, `INVALID_PARAM`
   */
  alloc(size: number): DmaBuffer {
    if (!Number.isSafeInteger(size) || size < 1) {
      throw new VirtioError(
        'INVALID_PARAM',
        `a DMA buffer of ${size} bytes was to be allocated; give one byte or more`,
      );
    }
    const region = this.#memory.allocate(Math.ceil(size / PAGE_SIZE));
    let freed = false;
    return {
      bytes: region.bytes.subarray(0, size),
      address: region.address,
      [Symbol.dispose]: () => {
        if (freed) return;
        freed = true;
        this.#free(region);
      },
    };
  }

  dmaAlloc(pages: number, _direction: BufferDirection, accessPlatform: boolean): DmaRegion {
    this.checkAccess(accessPlatform);
    // A region as large as a block is aligned like one, so that a thread that it is given to can divide it.
    return this.#memory.allocate(pages, pages >= BLOCK_PAGES ? BLOCK_PAGES : 1);
  }

  dmaDealloc(region: DmaRegion, _accessPlatform: boolean): void {
    this.#free(region);
  }

  abstract mapRegisters(address: number, size: number): RegisterWindow;

  share(buffer: Uint8Array, direction: BufferDirection, accessPlatform: boolean): number {
    const known = this.#known.get(buffer);
    // A view of memory that was freed is empty.
    if (known !== undefined && buffer.length > 0) {
      known.allocation.shares += 1;
      return known.address;
    }
    const memory = buffer.buffer;
    let allocation = this.#last;
    if (memory !== this.#lastBuffer || allocation === undefined) {
      allocation = this.#memory.find(memory);
      if (allocation === undefined || allocation.freed) {
        this.checkAccess(accessPlatform);
        return this.#bounce.share(buffer, direction);
      }
      this.#lastBuffer = memory;
      this.#last = allocation;
    }
    allocation.shares += 1;
    const address = allocation.region.address + buffer.byteOffset;
    const slot = Math.imul(address / SEEN_UNIT, GOLDEN) >>> SEEN_SHIFT;
    if (this.#seen[slot] === buffer) this.#known.set(buffer, { allocation, address });
    else this.#seen[slot] = buffer;
    return address;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection, _accessPlatform: boolean): void {
    let allocation = this.#known.get(buffer)?.allocation;
    if (allocation === undefined) {
      const memory = buffer.buffer;
      if (memory === this.#lastBuffer) allocation = this.#last;
      else if (this.#bounce.unshare(address, buffer, direction)) return;
      else allocation = this.#memory.find(memory);
    }
    if (allocation !== undefined && allocation.shares > 0) {
      allocation.shares -= 1;
      if (allocation.freed && allocation.shares === 0) this.#memory.release(allocation);
      return;
    }
    // Memory that was freed is empty: there is nothing to take back.
    if (buffer.byteLength === 0) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `a buffer of ${buffer.length} bytes at 0x${address.toString(16)} was to be unshared, where none is ` +
        'shared; unshare each buffer once',
    );
  }

  /**
   * Describes DMA memory, or mapped registers, so that a worker thread can use it: post the result, and make a view of it there
   * with `attachMemory`. Do not free DMA memory (`dmaDealloc`, `using`) while a worker uses it: it may then be
   * allocated again. When the Hal is disposed, the memory stays mapped, but its contents are lost.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if `bytes` is not in DMA memory of this Hal, or registers
   */
  post(bytes: Uint8Array): PostedMemory {
    const start = this.#memory.find(bytes.buffer)?.region.address ?? -1;
    const pointer = start < 0 ? Mapping.post(bytes) : this.#memory.post(bytes);
    if (pointer < 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        'only memory of dmaAlloc and alloc, and registers, can be posted; copy the buffer there first',
      );
    }
    return { pointer, address: Math.max(0, start) + bytes.byteOffset, length: bytes.byteLength };
  }

  /** Detaches and unmaps all DMA memory. Dispose all drivers before. */
  [Symbol.dispose](): void {
    this.#forgetLast();
    this.#seen.fill(undefined);
    this.#memory[Symbol.dispose]();
  }

  #free(region: DmaRegion): void {
    if (region.bytes.buffer === this.#lastBuffer) this.#forgetLast();
    this.#memory.free(region);
  }

  #forgetLast(): void {
    this.#lastBuffer = undefined;
    this.#last = undefined;
  }

  /** Throws if the device would not use the addresses of this Hal. */
  protected abstract checkAccess(accessPlatform: boolean): void;
}

/**
 * Plain stores were seen not to arrive on riscv64. V8 may store an element of a typed array in pieces, as the processor need not allow
 * unaligned addresses; a register takes a whole word only. An atomic store is one instruction, with fences, which hardware wants before a notification. (On x86 it would read as well.)
 */
const STORES_IN_PIECES = process.arch === 'riscv64';

/** Checks nothing: {@link subWindow} does. */
function wholeStores(registers: MappedRegisters): RegisterWindow {
  const { u8, u16, u32 } = registers.mapped;
  return {
    size: registers.size,
    read8: (offset) => registers.read8(offset),
    read16: (offset) => registers.read16(offset),
    read32: (offset) => registers.read32(offset),
    write8: (offset, value) => void Atomics.store(u8, offset, value),
    write16: (offset, value) => void Atomics.store(u16, offset >>> 1, value),
    write32: (offset, value) => void Atomics.store(u32, offset >>> 2, value),
  };
}

/** A part of a mapping as registers; `offset` need not be aligned. */
export function mappedWindow(mapping: Mapping, offset: number, size: number): RegisterWindow {
  mapping.markRegisters(offset, size);
  const registers = new MappedRegisters(mapping.view());
  return subWindow(STORES_IN_PIECES ? wholeStores(registers) : registers, offset, size);
}
