/** The blobs of a device: their sizes, and where blobs of the host are mapped, or may be. */

/** A blob in the host visible memory region. */
export interface BlobMapping {
  readonly resourceId: number;
  /** Its offset in the region, in bytes. */
  readonly offset: number;
  readonly size: number;
}

/** The blobs of a device. */
export class Blobs {
  readonly #sizes = new Map<number, number>();
  readonly #mappings = new Map<number, BlobMapping>();

  /** The size of a blob in bytes, 0 if it is not known. */
  sizeOf(id: number): number {
    return this.#sizes.get(id) ?? 0;
  }

  /** Where a blob is mapped, or may be. */
  mappingOf(id: number): BlobMapping | undefined {
    return this.#mappings.get(id);
  }

  /** A mapping that overlaps this part of the region. */
  mappedAt(offset: number, size: number): BlobMapping | undefined {
    for (const mapping of this.#mappings.values()) {
      if (offset < mapping.offset + mapping.size && mapping.offset < offset + size) return mapping;
    }
    return undefined;
  }

  /** A blob is being created. If there is one with this id, its size counts until the device has created the new one. */
  creating(id: number, size: number): void {
    if (!this.#sizes.has(id)) this.#sizes.set(id, size);
  }

  /** A blob was created. */
  created(id: number, size: number): void {
    this.#sizes.set(id, size);
  }

  /** A resource was destroyed. */
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
