/**
 * A {@link Hal} for an engine with no operating system below it: one block of memory for DMA, contiguous and mapped as ordinary
 * memory, and a way to map registers. There is no IOMMU, so devices use physical addresses.
 *
 * Regions and bounce buffers are whole pages. A region that is freed while a device has a buffer in it, which it also has after an
 * abort or a time-out, is not allocated again before the device has given that back. Freed memory is kept by its size for the next allocation of that size, so that
 * requests in the steady state take no new memory; when memory runs out, adjacent free runs are merged.
 */
import {
  type BufferDirection,
  type DmaRegion,
  type Hal,
  MappedRegisters,
  PAGE_SIZE,
  type RegisterWindow,
  requireInteger,
  VirtioError,
} from '@virtio/core';

/** What the engine provides; both need native code. */
export interface Machine {
  /** Memory that is reserved for DMA; the processor and the devices must see the same contents (coherent). */
  readonly dma: ArrayBuffer;
  /** The physical address of its first byte: a multiple of 4096. */
  readonly dmaAddress: number;
  /** Maps registers, uncached. */
  mapDevice(address: number, size: number): ArrayBuffer;
}

const WHO = 'BareHal';
const MAX_PAGES = Number.MAX_SAFE_INTEGER / PAGE_SIZE;

/** The {@link Hal} of a {@link Machine}. */
export class BareHal implements Hal {
  readonly #machine: Machine;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** Offsets of free runs of pages, by their number of pages. */
  readonly #free = new Map<number, number[]>();
  /** By page: how many pages the allocation that begins there has; 0 where none begins. */
  readonly #taken: Uint32Array;
  /** By page: the first page of the region that it was last allocated for. */
  readonly #regionOf: Uint32Array;
  /** By first page of a region: how many buffers in it are shared, and 1 if it was freed meanwhile. */
  readonly #shares: Uint32Array;
  readonly #freed: Uint8Array;
  /** The first byte after all that was ever allocated. */
  #next = 0;
  #bounced = 0;

  /** @throws VirtioError `INVALID_PARAM` if the DMA memory does not begin at a page, or is not below 2^53 */
  constructor(machine: Machine) {
    const { dma, dmaAddress } = machine;
    const pages = requireInteger(WHO, 'dmaAddress / 4096', dmaAddress / PAGE_SIZE, 0, MAX_PAGES);
    requireInteger(
      WHO,
      'the end of dma, in pages',
      pages + Math.ceil(dma.byteLength / PAGE_SIZE),
      0,
      MAX_PAGES,
    );
    this.#machine = machine;
    this.#bytes = new Uint8Array(dma);
    const count = Math.floor(dma.byteLength / PAGE_SIZE);
    this.#taken = new Uint32Array(count);
    this.#regionOf = new Uint32Array(count);
    this.#shares = new Uint32Array(count);
    this.#freed = new Uint8Array(count);
  }

  /** How many buffers were copied because they were not in DMA memory. */
  get bounced(): number {
    return this.#bounced;
  }

  /**
   * @throws VirtioError `DMA_ERROR` if there is no free run of so many pages, `INVALID_PARAM` for an invalid number of pages
   */
  dmaAlloc(pages: number): DmaRegion {
    requireInteger(WHO, 'pages', pages, 1, MAX_PAGES);
    const offset = this.#take(pages);
    const first = offset / PAGE_SIZE;
    this.#regionOf.fill(first, first, first + pages);
    const bytes = this.#bytes.subarray(offset, offset + pages * PAGE_SIZE).fill(0);
    return { bytes, address: this.#machine.dmaAddress + offset, pages };
  }

  /** @throws VirtioError `INVALID_PARAM` if the region is not of this memory, or was freed before */
  dmaDealloc({ address, pages }: DmaRegion): void {
    const offset = address - this.#machine.dmaAddress;
    const first = offset / PAGE_SIZE;
    if (pages < 1 || this.#pagesAt(offset) !== pages || this.#freed[first] === 1) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${WHO}: a DMA region of ${pages} pages at 0x${address.toString(16)} was to be freed, but none was allocated there, or it was ` +
          'freed before',
      );
    }
    if (this.#shares[first] === 0) this.#release(offset, pages);
    else this.#freed[first] = 1;
  }

  /** @throws VirtioError `INVALID_PARAM` for a window that is empty or not below 2^53 */
  mapRegisters(address: number, size: number): RegisterWindow {
    requireInteger(WHO, 'the address of registers', address, 0, Number.MAX_SAFE_INTEGER);
    requireInteger(WHO, 'the size of registers', size, 1, Number.MAX_SAFE_INTEGER - address);
    return new MappedRegisters(this.#machine.mapDevice(address, size), 0, size);
  }

  /** @throws VirtioError `DMA_ERROR` if there is no memory for a copy, `INVALID_PARAM` for an empty buffer */
  share(buffer: Uint8Array, direction: BufferDirection): number {
    const { dma, dmaAddress } = this.#machine;
    if (buffer.buffer === dma) {
      const first = this.#regionOf[Math.floor(buffer.byteOffset / PAGE_SIZE)] ?? 0;
      this.#shares[first] = (this.#shares[first] ?? 0) + 1;
      return dmaAddress + buffer.byteOffset;
    }
    if (buffer.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${WHO}: an empty buffer cannot be shared with a device; check its length`,
      );
    }
    const offset = this.#take(Math.ceil(buffer.length / PAGE_SIZE));
    this.#bounced += 1;
    // Bytes that the device does not write must not show data of another request.
    if (direction === 'device-to-driver') this.#bytes.fill(0, offset, offset + buffer.length);
    else this.#bytes.set(buffer, offset);
    return dmaAddress + offset;
  }

  /** @throws VirtioError `INVALID_PARAM` if no buffer is shared at the address */
  unshare(address: number, buffer: Uint8Array, direction: BufferDirection): void {
    const offset = address - this.#machine.dmaAddress;
    if (buffer.buffer === this.#machine.dma) {
      this.#unshareRegion(offset, buffer);
      return;
    }
    // Not from the buffer's length: it may have been detached or resized meanwhile.
    const pages = this.#pagesAt(offset);
    if (pages === 0) throw this.#notShared(offset, buffer);
    if (direction !== 'driver-to-device') {
      buffer.set(this.#bytes.subarray(offset, offset + Math.min(buffer.length, pages * PAGE_SIZE)));
    }
    this.#release(offset, pages);
  }

  /** A buffer in DMA memory is no longer shared: it may be the last of a region that was freed. */
  #unshareRegion(offset: number, buffer: Uint8Array): void {
    const first = this.#regionOf[Math.floor(offset / PAGE_SIZE)] ?? 0;
    const shares = this.#shares[first] ?? 0;
    if (shares === 0) throw this.#notShared(offset, buffer);
    this.#shares[first] = shares - 1;
    if (shares > 1 || this.#freed[first] === 0) return;
    this.#freed[first] = 0;
    this.#release(first * PAGE_SIZE, this.#taken[first] ?? 0);
  }

  #notShared(offset: number, { length }: Uint8Array): VirtioError {
    const address = this.#machine.dmaAddress + offset;
    return new VirtioError(
      'INVALID_PARAM',
      `${WHO}: a buffer of ${length} bytes at 0x${address.toString(16)} was to be unshared, where none is shared; unshare each buffer once`,
    );
  }

  /** How many pages the allocation that begins at an offset has; 0 if none does. */
  #pagesAt(offset: number): number {
    return this.#taken[offset / PAGE_SIZE] ?? 0;
  }

  #take(pages: number): number {
    const offset = this.#find(pages);
    this.#taken[offset / PAGE_SIZE] = pages;
    return offset;
  }

  #release(offset: number, pages: number): void {
    this.#taken[offset / PAGE_SIZE] = 0;
    this.#give(offset, pages);
  }

  #find(pages: number): number {
    const kept = this.#free.get(pages)?.pop();
    if (kept !== undefined) return kept;
    if (this.#next + pages * PAGE_SIZE <= this.#bytes.length) return this.#advance(pages);
    const found = this.#join(pages);
    if (found !== undefined) return found;
    const left = Math.floor((this.#bytes.length - this.#next) / PAGE_SIZE);
    throw new VirtioError(
      'DMA_ERROR',
      `${pages} pages of DMA memory were asked for; of its ${this.#bytes.length} bytes, the longest free run has ` +
        `${Math.max(left, ...this.#free.keys())} pages; reserve more memory`,
    );
  }

  #advance(pages: number): number {
    const offset = this.#next;
    this.#next += pages * PAGE_SIZE;
    return offset;
  }

  /** Merges adjacent free runs, and takes pages from the first run that is long enough. */
  #join(pages: number): number | undefined {
    const runs = [...this.#free]
      .flatMap(([count, offsets]) => offsets.map((offset) => ({ offset, end: offset + count * PAGE_SIZE })))
      .sort((a, b) => a.offset - b.offset);
    const joined: { offset: number; end: number }[] = [];
    for (const run of runs) {
      const before = joined.at(-1);
      if (before?.end === run.offset) before.end = run.end;
      else joined.push(run);
    }
    const last = joined.at(-1);
    if (last?.end === this.#next) {
      joined.pop();
      this.#next = last.offset;
    }
    this.#free.clear();
    const found = joined.find(({ offset, end }) => end - offset >= pages * PAGE_SIZE);
    for (const run of joined) {
      const from = run === found ? run.offset + pages * PAGE_SIZE : run.offset;
      if (run.end > from) this.#give(from, (run.end - from) / PAGE_SIZE);
    }
    if (found !== undefined) return found.offset;
    return this.#next + pages * PAGE_SIZE <= this.#bytes.length ? this.#advance(pages) : undefined;
  }

  #give(offset: number, pages: number): void {
    const kept = this.#free.get(pages);
    if (kept === undefined) this.#free.set(pages, [offset]);
    else kept.push(offset);
  }
}
