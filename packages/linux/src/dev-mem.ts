/** Registers from /dev/mem. */
import { closeSync } from 'node:fs';
import type { RegisterWindow } from '@virtio/core';
import { mappedWindow } from './hal.ts';
import { accessAdvice } from './lockdown.ts';
import { Mapping } from './mapping.ts';
import { systemPageSize } from './syscalls.ts';
import { errorName, systemError } from './system-error.ts';
import { SystemFiles } from './system-files.ts';

/** All physical addresses as a file. */
export const DEV_MEM = '/dev/mem';

/** Maps registers by their physical addresses, whole pages at a time. */
export class DevMem implements Disposable {
  readonly #files: SystemFiles;
  readonly #mappings: { readonly start: number; readonly mapping: Mapping }[] = [];

  constructor(files = new SystemFiles()) {
    this.#files = files;
  }

  /**
   * Maps registers.
   *
   * @throws {@link VirtioError} `PERMISSION_DENIED`, `SYSTEM_ERROR`
   */
  map(address: number, size: number): RegisterWindow {
    const page = systemPageSize();
    const start = Math.floor(address / page) * page;
    const length = Math.ceil((address + size - start) / page) * page;
    let found = this.#mappings.find((m) => m.start === start && m.mapping.size >= length);
    if (found === undefined) {
      found = { start, mapping: mapPages(this.#files, start, length) };
      this.#mappings.push(found);
    }
    return mappedWindow(found.mapping, address - start, size);
  }

  /** Unmaps all registers. */
  [Symbol.dispose](): void {
    for (const { mapping } of this.#mappings.splice(0)) mapping[Symbol.dispose]();
  }
}

function mapPages(files: SystemFiles, start: number, size: number): Mapping {
  let fd: number;
  try {
    // O_SYNC makes the mapping uncached, as registers must be.
    fd = files.open(DEV_MEM, 'rs+');
  } catch (error) {
    const advice =
      errorName(error) === 'ENOENT'
        ? 'the kernel was built without it (CONFIG_DEVMEM), or it was not passed into this container'
        : accessAdvice(files, error, 'run as root');
    throw systemError(`${DEV_MEM} could not be opened`, error, advice);
  }
  try {
    return Mapping.map({ fd, offset: start, size });
  } catch (error) {
    throw systemError(
      `${size} bytes of registers at 0x${start.toString(16)} could not be mapped from ${DEV_MEM}`,
      error,
      'a kernel driver may own them (CONFIG_IO_STRICT_DEVMEM): unbind it, or boot with iomem=relaxed',
    );
  } finally {
    closeSync(fd);
  }
}
