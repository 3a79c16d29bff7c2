/**
 * Mapped memory that JavaScript can hold safely: every ArrayBuffer over a mapping is detached before the memory is unmapped, so
 * that a view that is kept too long is empty instead of crashing the process.
 */
import { MapFlags, mincore, mmap, munmap, Prot, viewMemory } from './syscalls.ts';

/** What to map, and how. */
export interface MappingOptions {
  /** Bytes: a multiple of the page size. */
  readonly size: number;
  /** The file; without one, the memory is anonymous and zero. */
  readonly fd?: number;
  /** The offset in the file: a multiple of the page size. */
  readonly offset?: number;
  /** `MapFlags`; shared by default, so that a fork never moves the pages under the device. */
  readonly flags?: number;
}

/** Windows up to this size are registers; larger ones are memory of the device, or doorbells, which are not read. */
const MOST_REGISTERS = 64 * 1024;

/** The mapping of each view. */
const mappings = new WeakMap<ArrayBufferLike, { readonly mapping: Mapping; readonly offset: number }>();

/** A mapping and the views of it. */
export class Mapping implements Disposable {
  /** The address in this process. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
  readonly #views = new Set<ArrayBuffer>();
  /** Where registers are: offset and size. */
  readonly #registers: (readonly [offset: number, size: number])[] = [];
  #mapped = true;
  /** How many addresses were posted to other threads. */
  #posts = 0;

  /** Takes over an existing mapping. */
  constructor(address: number, size: number) {
    this.address = address;
    this.size = size;
  }

  /**
   * Maps memory.
   *
   * @throws {@link SystemCallError}
   */
  static map({ size, fd = -1, offset = 0, flags = MapFlags.SHARED }: MappingOptions): Mapping {
    const all = fd < 0 ? flags | MapFlags.ANONYMOUS : flags;
    return new Mapping(mmap(0, size, Prot.READ | Prot.WRITE, all, fd, offset), size);
  }

  /** A new ArrayBuffer over a part of the memory. Views may overlap: they are the same memory. */
  view(offset = 0, size = this.size - offset): ArrayBuffer {
    if (!this.#mapped) return new ArrayBuffer(0);
    if (offset < 0 || size < 0 || offset + size > this.size) {
      throw new RangeError(
        `a view of ${size} bytes at ${offset} does not fit a mapping of ${this.size} bytes`,
      );
    }
    const buffer = viewMemory(this.address + offset, size);
    this.#views.add(buffer);
    mappings.set(buffer, { mapping: this, offset });
    return buffer;
  }

  /** Notes that there are registers, which must read as ones when the device is gone. */
  markRegisters(offset: number, size: number): void {
    if (size <= MOST_REGISTERS) this.#registers.push([offset, size]);
  }

  /**
   * The address in this process of bytes of some mapping, for another thread. The memory then stays mapped when the mapping is disposed,
   * until {@link Mapping.unpost}; registers are replaced by ordinary memory.
   *
   * @returns -1 if they are in no mapping
   */
  static post({ buffer, byteOffset }: Uint8Array): number {
    const found = mappings.get(buffer);
    if (found === undefined || !found.mapping.#mapped) return -1;
    found.mapping.#posts += 1;
    return found.mapping.address + found.offset + byteOffset;
  }

  /** No other thread uses this place any more. */
  unpost(): void {
    this.#posts -= 1;
  }

  /** Detaches one view: it and all typed arrays over it become empty. */
  detach(buffer: ArrayBuffer): void {
    if (this.#views.delete(buffer)) buffer.transfer(0);
  }

  /** Whether all pages are in memory, so that no access to them can fail. */
  isPresent(): boolean {
    return this.#mapped && mincore(this.address, this.size).every((page) => (page & 1) === 1);
  }

  /**
   * Replaces the mapping by ordinary memory; views stay valid. Registers read as ones, like those of a device that is gone. The rest
   * is zero and takes no memory, as a mapping may have gigabytes that are memory of the device.
   */
  replace(): void {
    if (!this.#mapped) return;
    const flags = MapFlags.PRIVATE | MapFlags.ANONYMOUS | MapFlags.FIXED | MapFlags.NORESERVE;
    mmap(this.address, this.size, Prot.READ | Prot.WRITE, flags, -1, 0);
    for (const [offset, size] of this.#registers) {
      new Uint8Array(viewMemory(this.address + offset, size)).fill(0xff);
    }
  }

  /** Detaches all views and leaves the memory mapped for its other users. */
  abandon(): void {
    this.#mapped = false;
    for (const view of this.#views) view.transfer(0);
    this.#views.clear();
  }

  /** Detaches all views, then unmaps the memory, unless another thread may access it: then ordinary memory replaces it. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    if (this.#posts > 0) {
      this.replace();
      this.abandon();
      return;
    }
    this.#mapped = false;
    for (const view of this.#views) view.transfer(0);
    this.#views.clear();
    munmap(this.address, this.size);
  }
}
