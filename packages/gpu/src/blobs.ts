/**
 * The blobs of a device: their sizes, and where blobs of the host are mapped, or may be. Commands may follow each other without waiting
 * for answers, so each entry is numbered in the order in which its command was sent: what one command ends is what those before it began.
 */

/** A blob in the host visible memory region. */
export interface BlobMapping {
  readonly resourceId: number;
  /** Its offset in the region, in bytes. */
  readonly offset: number;
  readonly size: number;
}

/** A blob that there is, or that is being created. */
interface Blob {
  readonly size: number;
  readonly order: number;
}

/** The blobs of a device. */
export class Blobs {
  /** By resource id: what has the id, or is to have it. */
  readonly #blobs = new Map<number, Blob[]>();
  readonly #mappings = new Map<number, BlobMapping & { readonly order: number }>();
  #order = 0;

  /** The size of a blob in bytes, 0 if it is not known; while another one with its id is being created, that of the larger one. */
  sizeOf(id: number): number {
    return (this.#blobs.get(id) ?? []).reduce((most, { size }) => Math.max(most, size), 0);
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

  /** The number of a command that is being sent. */
  next(): number {
    this.#order += 1;
    return this.#order;
  }

  /** A blob is being created by the command with a number. */
  creating(id: number, size: number): number {
    const order = this.next();
    this.#blobs.set(id, [...(this.#blobs.get(id) ?? []), { size, order }]);
    return order;
  }

  /** It was created: what had its id before does not exist any more. */
  created(id: number, order: number): void {
    this.#keep(id, (blob) => blob.order >= order);
  }

  /** It was not created. */
  notCreated(id: number, order: number): void {
    this.#keep(id, (blob) => blob.order !== order);
  }

  /** A resource was destroyed by the command with a number. */
  destroyed(id: number, order: number): void {
    this.#keep(id, (blob) => blob.order > order);
    this.unmapped(id, order);
  }

  /** A blob is being mapped by the command with the number that this returns. */
  mapped(mapping: BlobMapping): number {
    const order = this.next();
    this.#mappings.set(mapping.resourceId, { ...mapping, order });
    return order;
  }

  /** A blob is not mapped any more: the command with a number has unmapped it, or was refused to map it. */
  unmapped(id: number, order: number): void {
    if ((this.#mappings.get(id)?.order ?? Infinity) <= order) this.#mappings.delete(id);
  }

  /** The device was reset. */
  clear(): void {
    this.#blobs.clear();
    this.#mappings.clear();
  }

  #keep(id: number, wanted: (blob: Blob) => boolean): void {
    const kept = (this.#blobs.get(id) ?? []).filter(wanted);
    if (kept.length > 0) this.#blobs.set(id, kept);
    else this.#blobs.delete(id);
  }
}
