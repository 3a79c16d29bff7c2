/**
 * DMA memory by slot of a request queue: it belongs to whatever request holds the slot, so an answer that comes late finds the memory
 * it was asked to be written to, and no other request's. Allocated when a slot first needs it, and again only when it needs more.
 */
import { type DmaRegion, PAGE_SIZE } from '@virtio/core';

/** Memory for the requests of a queue. */
export class SlotMemory {
  readonly #allocate: (bytes: number) => DmaRegion;
  readonly #regions: (DmaRegion | undefined)[] = [];

  /** @param allocate gives memory that lives as long as the driver */
  constructor(allocate: (bytes: number) => DmaRegion) {
    this.#allocate = allocate;
  }

  /**
   * The memory of a slot: at least so many bytes. Sizes are powers of two, so that a slot that needs more and more outgrows no more
   * than twice what it needs in the end.
   */
  region(slot: number, bytes: number): DmaRegion {
    const present = this.#regions[slot];
    if (present !== undefined && present.bytes.length >= bytes) return present;
    let size = PAGE_SIZE;
    while (size < bytes) size *= 2;
    const region = this.#allocate(size);
    this.#regions[slot] = region;
    return region;
  }
}
