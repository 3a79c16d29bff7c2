/** What is known of blobs: how large they are, and where those of the host are mapped, or may be. */

/** A blob in the host visible memory region. */
export interface BlobMapping {
  readonly resourceId: number;
  /** Where it is, in bytes. */
  readonly offset: number;
  readonly size: number;
}

/** The blobs of a device. */
export class Blobs {
  readonly #sizes = new Map<number, number>();
  readonly #mappings = new Map<number, BlobMapping>();

  /** The bytes of a blob, 0 if they are not known. */
  sizeOf(id: number): number {
    return this.#sizes.get(id) ?? 0;
  }

  /** Where a blob is mapped, or may be. */
  mappingOf(id: number): BlobMapping | undefined {
    return this.#mappings.get(id);
  }

  /** A mapping that has bytes in common with this part of the region. */
  mappedAt(offset: number, size: number): BlobMapping | undefined {
    for (const mapping of this.#mappings.values()) {
      if (offset < mapping.offset + mapping.size && mapping.offset < offset + size) return mapping;
    }
    return undefined;
  }

  /** A blob is being made. The size of one that has the id already counts until the device says that the new one is there. */
  creating(id: number, size: number): void {
    if (!this.#sizes.has(id)) this.#sizes.set(id, size);
  }

  /** A blob was made. */
  created(id: number, size: number): void {
    this.#sizes.set(id, size);
  }

  /** A resource is gone. */
  destroyed(id: number): void {
    this.#sizes.delete(id);
    this.#mappings.delete(id);
  }

  /** A blob is being mapped. */
  mapped(mapping: BlobMapping): void {
    this.#mappings.set(mapping.resourceId, mapping);
  }

  /** A blob is no longer mapped. */
  unmapped(id: number): void {
    this.#mappings.delete(id);
  }

  /** The device was reset. */
  clear(): void {
    this.#sizes.clear();
    this.#mappings.clear();
  }
}
