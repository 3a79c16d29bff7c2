/**
 * DMA memory by slot of a request queue: it belongs to the request that holds the slot, so a late answer is written to the memory of
 * its own request only. It is allocated when a slot first needs it, and again only when it needs more.
 */
import { type DmaRegion, PAGE_SIZE } from '@virtio/core';

/** Memory for the requests of a queue. */
export class SlotMemory {
  readonly #allocate: (bytes: number) => DmaRegion;
  readonly #regions: (DmaRegion | undefined)[] = [];

  /** @param allocate allocates memory that is freed with the driver */
  constructor(allocate: (bytes: number) => DmaRegion) {
    this.#allocate = allocate;
  }

  /**
   * The memory of a slot, with at least the given size. Sizes are powers of two, so that the memory that a growing slot leaves unused
   * is limited.
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
