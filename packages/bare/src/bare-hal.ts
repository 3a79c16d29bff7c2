/**
 * A {@link Hal} for an engine with no operating system below it: one piece of memory for DMA, contiguous and mapped as
 * ordinary memory, and a way to map registers. There is no IOMMU, so that devices use physical addresses.
 *
 * Regions and bounce buffers are whole pages. What is given back is kept by its size for the next of that size, so that
 * requests in the steady state take no new memory.
 */
import {
  type BufferDirection,
  type DmaRegion,
  type Hal,
  MappedRegisters,
  PAGE_SIZE,
  type RegisterWindow,
  VirtioError,
} from '@virtio/core';

/** What the engine has to give; both need native code. */
export interface Machine {
  /** Memory that is reserved for DMA and coherent with what devices see. */
  readonly dma: ArrayBuffer;
  /** The physical address of its first byte: a multiple of 4096. */
  readonly dmaAddress: number;
  /** Maps registers, uncached. */
  mapDevice(address: number, size: number): ArrayBuffer;
}

export class BareHal implements Hal {
  readonly #machine: Machine;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** Offsets of runs of pages that were given back, by their number of pages. */
  readonly #free = new Map<number, number[]>();
  /** The first byte that was never handed out. */
  #next = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#bytes = new Uint8Array(machine.dma);
  }

  dmaAlloc(pages: number): DmaRegion {
    const offset = this.#take(pages);
    const bytes = this.#bytes.subarray(offset, offset + pages * PAGE_SIZE).fill(0);
    return { bytes, address: this.#machine.dmaAddress + offset, pages };
  }

  dmaDealloc({ address, pages }: DmaRegion): void {
    this.#give(address - this.#machine.dmaAddress, pages);
  }

  mapRegisters(address: number, size: number): RegisterWindow {
    return new MappedRegisters(this.#machine.mapDevice(address, size), 0, size);
  }

  share(buffer: Uint8Array, direction: BufferDirection): number {
    const { dma, dmaAddress } = this.#machine;
    if (buffer.buffer === dma) return dmaAddress + buffer.byteOffset;
    const offset = this.#take(pagesOf(buffer));
    // What the device does not write must not be what another request left here.
    if (direction === 'device-to-driver') this.#bytes.fill(0, offset, offset + buffer.length);
    else this.#bytes.set(buffer, offset);
    return dmaAddress + offset;
  }

  unshare(address: number, buffer: Uint8Array, direction: BufferDirection): void {
    if (buffer.buffer === this.#machine.dma) return;
    const offset = address - this.#machine.dmaAddress;
    if (direction !== 'driver-to-device') buffer.set(this.#bytes.subarray(offset, offset + buffer.length));
    this.#give(offset, pagesOf(buffer));
  }

  #take(pages: number): number {
    const kept = this.#free.get(pages)?.pop();
    if (kept !== undefined) return kept;
    const offset = this.#next;
    const left = this.#bytes.length - offset;
    if (pages * PAGE_SIZE > left) {
      throw new VirtioError(
        'DMA_ERROR',
        `${pages} pages of DMA memory were asked for, of ${this.#bytes.length} bytes ${left} were never used; reserve more`,
      );
    }
    this.#next += pages * PAGE_SIZE;
    return offset;
  }

  #give(offset: number, pages: number): void {
    const kept = this.#free.get(pages);
    if (kept === undefined) this.#free.set(pages, [offset]);
    else kept.push(offset);
  }
}

function pagesOf(buffer: Uint8Array): number {
  return Math.ceil(buffer.length / PAGE_SIZE);
}
