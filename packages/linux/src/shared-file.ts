/**
 * Memory that another process maps: a file without a name (memfd) whose size is sealed, so that it cannot be shrunk below a
 * mapping, which would end the process that mapped it with SIGBUS.
 */
import { ftruncateSync } from 'node:fs';
import { VirtioError } from '@virtio/core';
import { Mapping } from './mapping.ts';
import {
  addSeals,
  closeDescriptor,
  MapFlags,
  MemfdFlags,
  memfdCreate,
  mmap,
  munmap,
  Prot,
  punchHole,
  Seals,
} from './syscalls.ts';
import { systemError } from './system-error.ts';

/** A sealed memfd. Its pages are zero, and are allocated when they are first accessed. */
export class SharedFile implements Disposable {
  /** The descriptor, to send to the other process. */
  readonly fd: number;
  /** Bytes. */
  readonly size: number;
  /** Whether it consists of huge pages of 2 MiB. */
  readonly huge: boolean;
  #closed = false;

  private constructor(fd: number, size: number, huge: boolean) {
    this.fd = fd;
    this.size = size;
    this.huge = huge;
  }

  /**
   * Makes a file: in huge pages if enough of them are free, else in ordinary ones.
   *
   * @param name for `/proc/<pid>/maps`
   * @param size bytes, a multiple of 2 MiB
   * @param huge whether huge pages are wanted
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  static create(name: string, size: number, huge = true): SharedFile {
    const found = huge ? tryHuge(name, size) : undefined;
    if (found !== undefined) return new SharedFile(found, size, true);
    let fd = -1;
    try {
      fd = memfdCreate(name, MemfdFlags.CLOEXEC | MemfdFlags.ALLOW_SEALING);
      seal(fd, size);
      return new SharedFile(fd, size, false);
    } catch (error) {
      if (fd >= 0) closeDescriptor(fd);
      throw systemError(
        `${size} bytes of shared memory could not be allocated`,
        error,
        'close descriptors, or raise the limit of open files (ulimit -n)',
        'DMA_ERROR',
      );
    }
  }

  /**
   * Maps a part.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  map(offset: number, size: number): Mapping {
    const mapping = this.#map(offset, size);
    // A control group's limit counts huge pages that are filled: others are reserved, stay absent, and touching one ends the process.
    if (!this.huge || mapping.isPresent()) return mapping;
    mapping[Symbol.dispose]();
    throw new VirtioError(
      'DMA_ERROR',
      `${size} bytes of shared memory were to be mapped, but their huge pages cannot be filled; raise the limit of the control ` +
        'group (hugetlb.2MB.max), or do without huge pages (hugePages: false)',
    );
  }

  #map(offset: number, size: number): Mapping {
    const flags = MapFlags.SHARED | (this.huge ? MapFlags.POPULATE : 0);
    try {
      return Mapping.map({ fd: this.fd, offset, size, flags });
    } catch (error) {
      throw systemError(
        `${size} bytes of shared memory could not be mapped`,
        error,
        'free memory, or raise the limit of address space (ulimit -v)',
        'DMA_ERROR',
      );
    }
  }

  /** Zeroes a part and gives its pages back to the system. */
  clear(offset: number, size: number): void {
    punchHole(this.fd, offset, size);
  }

  /** Closes the descriptor. The memory exists for as long as a process maps it. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.fd);
  }
}

/** Mapping a file of huge pages reserves them for the file, even after it is unmapped. */
function tryHuge(name: string, size: number): number | undefined {
  let fd = -1;
  try {
    const { CLOEXEC, ALLOW_SEALING, HUGETLB, HUGE_2MB } = MemfdFlags;
    fd = memfdCreate(name, CLOEXEC | ALLOW_SEALING | HUGETLB | HUGE_2MB);
    seal(fd, size);
    munmap(mmap(0, size, Prot.READ | Prot.WRITE, MapFlags.SHARED, fd, 0), size);
    return fd;
  } catch {
    // No huge pages, or too few of them.
    if (fd >= 0) closeDescriptor(fd);
    return undefined;
  }
}

function seal(fd: number, size: number): void {
  ftruncateSync(fd, size);
  addSeals(fd, Seals.SEAL | Seals.SHRINK | Seals.GROW);
}
