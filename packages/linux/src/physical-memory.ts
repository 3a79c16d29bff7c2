/**
 * DMA memory without an IOMMU: huge pages, which the kernel does not move, and their physical addresses from the page map.
 *
 * The pages are those of one memory file. A file's pages can be mapped anywhere and in any order, so pages that are adjacent in
 * physical memory become adjacent in the process's, and an allocation may span several. A shared mapping stays where it is when
 * the process forks.
 */
import { closeSync, ftruncateSync, openSync, readSync } from 'node:fs';
import { VirtioError } from '@virtio/core';
import { BLOCK_SIZE, type DmaBlock, type DmaSource } from './dma-memory.ts';
import { Mapping } from './mapping.ts';
import { MapFlags, MemfdFlags, memfdCreate, mmap, munmap, Prot, systemPageSize } from './syscalls.ts';
import { systemError } from './system-error.ts';

const PAGE_MAP = '/proc/self/pagemap';

/** How many more huge pages than needed are allocated to find adjacent ones. */
const SPARE_PAGES = 16;

/** One huge page of the file. */
interface HugePage {
  /** Where it is in the file. */
  readonly offset: number;
  /** Its physical address. */
  readonly physical: number;
}

/** Huge pages with known physical addresses. */
export class PhysicalMemory implements DmaSource {
  readonly name = 'physical memory';
  readonly #fd: number;
  readonly #pageMap: number;
  readonly #free: HugePage[] = [];
  readonly #used = new Map<DmaBlock, HugePage[]>();
  #fileSize = 0;
  #disposed = false;

  /** @throws {@link VirtioError} `DMA_ERROR`, `PERMISSION_DENIED` */
  constructor() {
    try {
      this.#fd = memfdCreate('virtio-dma', MemfdFlags.CLOEXEC | MemfdFlags.HUGETLB | MemfdFlags.HUGE_2MB);
    } catch (error) {
      throw systemError(
        'huge pages of 2 MiB could not be used',
        error,
        'use a kernel with CONFIG_HUGETLBFS',
        'DMA_ERROR',
      );
    }
    try {
      this.#pageMap = openSync(PAGE_MAP, 'r');
    } catch (error) {
      closeSync(this.#fd);
      throw systemError(
        `${PAGE_MAP} could not be opened`,
        error,
        'physical addresses need CAP_SYS_ADMIN (root)',
      );
    }
  }

  map(size: number): DmaBlock {
    const count = size / BLOCK_SIZE;
    const pages = this.#takeRun(count);
    const mapping = this.#mapPages(pages);
    const block = { mapping, address: (pages[0] as HugePage).physical };
    const all = mapping.view();
    new Uint8Array(all).fill(0);
    mapping.detach(all);
    this.#used.set(block, pages);
    return block;
  }

  unmap(block: DmaBlock): void {
    block.mapping[Symbol.dispose]();
    this.#give(this.#used.get(block) ?? []);
    this.#used.delete(block);
  }

  /** Gives all pages back to the kernel. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    closeSync(this.#fd);
    closeSync(this.#pageMap);
  }

  /** Takes pages that are adjacent in physical memory. */
  #takeRun(count: number): HugePage[] {
    for (let spare = 0; spare <= SPARE_PAGES; spare += 1) {
      const start = findRun(
        this.#free.map(({ physical }) => physical),
        count,
        BLOCK_SIZE,
      );
      if (start >= 0) return this.#free.splice(start, count);
      const missing = spare === 0 ? Math.max(1, count - this.#free.length) : 1;
      this.#grow(missing, count);
    }
    throw new VirtioError(
      'DMA_ERROR',
      `${count} huge pages that are adjacent in physical memory are needed and were not found; allocate smaller buffers ` +
        '(up to 2 MiB always works), or reserve huge pages at boot ("hugepages=64" on the kernel command line)',
    );
  }

  #give(pages: readonly HugePage[]): void {
    this.#free.push(...pages);
    this.#free.sort((a, b) => a.physical - b.physical);
  }

  /** Adds pages to the file and finds out their physical addresses. */
  #grow(count: number, wanted: number): void {
    const size = count * BLOCK_SIZE;
    const offset = this.#fileSize;
    let address: number;
    try {
      ftruncateSync(this.#fd, offset + size);
      address = mmap(0, size, Prot.READ | Prot.WRITE, MapFlags.SHARED | MapFlags.POPULATE, this.#fd, offset);
    } catch (error) {
      ftruncateSync(this.#fd, offset);
      throw systemError(
        `${wanted} huge pages of 2 MiB could not be allocated`,
        error,
        'reserve huge pages: "echo 64 > /proc/sys/vm/nr_hugepages"',
        'DMA_ERROR',
      );
    }
    try {
      const pages = Array.from({ length: count }, (_, i) => ({
        offset: offset + i * BLOCK_SIZE,
        physical: this.#physical(address + i * BLOCK_SIZE),
      }));
      this.#fileSize = offset + size;
      this.#give(pages);
    } catch (error) {
      ftruncateSync(this.#fd, offset);
      throw error;
    } finally {
      munmap(address, size);
    }
  }

  #physical(address: number): number {
    const page = systemPageSize();
    const entry = new Uint8Array(8);
    readSync(this.#pageMap, entry, 0, 8, (address / page) * 8);
    const physical = physicalAddress(new DataView(entry.buffer).getBigUint64(0, true), page);
    if (physical === undefined) {
      throw new VirtioError(
        'DMA_ERROR',
        'a huge page of 2 MiB was reserved for this process, but could not be used: a limit of its control group applies ' +
          '(cgroup v2: hugetlb.2MB.max, v1: hugetlb.2MB.limit_in_bytes), or the pages are on memory nodes that it may not use. ' +
          'Raise the limit; ordinary pages cannot be used for physical memory, as the kernel moves them',
      );
    }
    if (physical === 0) {
      throw new VirtioError(
        'PERMISSION_DENIED',
        `${PAGE_MAP} hides physical addresses from this process; it needs CAP_SYS_ADMIN (root)`,
      );
    }
    return physical;
  }

  /** Maps pages side by side. */
  #mapPages(pages: readonly HugePage[]): Mapping {
    const size = pages.length * BLOCK_SIZE;
    // Mapping one page more than needed leaves room to align to huge pages.
    const reserved = mmap(
      0,
      size + BLOCK_SIZE,
      Prot.NONE,
      MapFlags.PRIVATE | MapFlags.ANONYMOUS | MapFlags.NORESERVE,
      -1,
      0,
    );
    const start = Math.ceil(reserved / BLOCK_SIZE) * BLOCK_SIZE;
    if (start > reserved) munmap(reserved, start - reserved);
    if (reserved + BLOCK_SIZE > start) munmap(start + size, reserved + BLOCK_SIZE - start);
    pages.forEach(({ offset }, i) => {
      const flags = MapFlags.SHARED | MapFlags.FIXED | MapFlags.POPULATE;
      mmap(start + i * BLOCK_SIZE, BLOCK_SIZE, Prot.READ | Prot.WRITE, flags, this.#fd, offset);
    });
    return new Mapping(start, size);
  }
}

/**
 * The physical address in an entry of the page map.
 *
 * @param pageSize the page size that the entry counts in
 * @returns `undefined` if the page is not in memory; 0 if the kernel hides the address
 */
export function physicalAddress(entry: bigint, pageSize: number): number | undefined {
  const present = (entry >> 63n) & 1n;
  if (present === 0n) return undefined;
  return Number(entry & ((1n << 55n) - 1n)) * pageSize;
}

/** The index of the first of `count` ascending addresses with steps of `size` between them, or -1. */
export function findRun(addresses: readonly number[], count: number, size: number): number {
  let start = 0;
  for (let i = 0; i < addresses.length; i += 1) {
    if (i > 0 && addresses[i] !== (addresses[i - 1] as number) + size) start = i;
    if (i - start + 1 === count) return start;
  }
  return -1;
}
