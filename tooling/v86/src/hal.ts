/** The memory of a v86 machine as a `Hal`: a device address is an offset in it. */
import {
  type BufferDirection,
  type DmaRegion,
  type Hal,
  PAGE_SIZE,
  type RegisterWindow,
  VirtioError,
} from '@virtio/core';

/** What lies below belongs to the BIOS and to video memory. */
const FIRST_PAGE = 0x10_0000 / PAGE_SIZE;

/** A {@link Hal} over a machine's memory. Buffers elsewhere are copied to it while they are shared. */
export class MachineHal implements Hal {
  readonly #memory: Uint8Array<ArrayBuffer>;
  /** By page: whether it is in use. */
  readonly #used: Uint8Array;
  /** By address: how many pages a bounce buffer there has. */
  readonly #bounces = new Map<number, number>();

  constructor(memory: Uint8Array<ArrayBuffer>) {
    this.#memory = memory;
    this.#used = new Uint8Array(memory.length / PAGE_SIZE).fill(1, 0, FIRST_PAGE);
  }

  /** How many pages are in use: 0 when all that was allocated and shared was given back. */
  get pagesInUse(): number {
    return this.#used.reduce((sum, page) => sum + page, -FIRST_PAGE);
  }

  dmaAlloc(pages: number): DmaRegion {
    const address = this.#take(pages);
    const bytes = this.#memory.subarray(address, address + pages * PAGE_SIZE).fill(0);
    return { bytes, address, pages };
  }

  dmaDealloc({ address, pages }: DmaRegion): void {
    this.#give(address, pages);
  }

  share(buffer: Uint8Array, direction: BufferDirection): number {
    if (buffer.buffer === this.#memory.buffer) return buffer.byteOffset - this.#memory.byteOffset;
    const pages = Math.ceil(buffer.length / PAGE_SIZE);
    const address = this.#take(pages);
    this.#bounces.set(address, pages);
    if (direction !== 'device-to-driver') this.#memory.set(buffer, address);
    return address;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection): void {
    const pages = this.#bounces.get(address);
    if (pages === undefined) return;
    this.#bounces.delete(address);
    if (direction !== 'driver-to-device') {
      buffer.set(this.#memory.subarray(address, address + buffer.length));
    }
    this.#give(address, pages);
  }

  mapRegisters(address: number): RegisterWindow {
    throw new VirtioError(
      'UNSUPPORTED',
      `v86 has its registers in I/O space; there are none at 0x${address.toString(16)}`,
    );
  }

  #take(pages: number): number {
    for (let first = FIRST_PAGE, page = first; page < this.#used.length; page += 1) {
      if (this.#used[page] !== 0) first = page + 1;
      else if (page - first + 1 === pages) {
        this.#used.fill(1, first, page + 1);
        return first * PAGE_SIZE;
      }
    }
    throw new VirtioError(
      'DMA_ERROR',
      `the machine has no ${pages} pages in a row left; give it more memory`,
    );
  }

  #give(address: number, pages: number): void {
    const first = address / PAGE_SIZE;
    this.#used.fill(0, first, first + pages);
  }
}
