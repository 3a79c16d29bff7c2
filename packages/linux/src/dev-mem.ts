/** Registers from /dev/mem. */
import { closeSync, openSync } from 'node:fs';
import type { RegisterWindow } from '@virtio/core';
import { mappedWindow } from './hal.ts';
import { Mapping } from './mapping.ts';
import { systemPageSize } from './syscalls.ts';
import { systemError } from './system-error.ts';

const DEV_MEM = '/dev/mem';

/** Maps registers by their physical addresses, whole pages at a time. */
export class DevMem implements Disposable {
  readonly #mappings: { readonly start: number; readonly mapping: Mapping }[] = [];

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
      found = { start, mapping: mapPages(start, length) };
      this.#mappings.push(found);
    }
    return mappedWindow(found.mapping, address - start, size);
  }

  /** Unmaps all registers. */
  [Symbol.dispose](): void {
    for (const { mapping } of this.#mappings.splice(0)) mapping[Symbol.dispose]();
  }
}

function mapPages(start: number, size: number): Mapping {
  let fd: number;
  try {
    // O_SYNC makes the mapping uncached, as registers must be.
    fd = openSync(DEV_MEM, 'rs+');
  } catch (error) {
    throw systemError(`${DEV_MEM} could not be opened`, error, 'run as root, with CAP_SYS_RAWIO');
  }
  try {
    return Mapping.map({ fd, offset: start, size });
  } catch (error) {
    throw systemError(
      `${size} bytes of registers at 0x${start.toString(16)} could not be mapped from ${DEV_MEM}`,
      error,
      'a kernel driver may own them (CONFIG_IO_STRICT_DEVMEM: unbind it), or the kernel is locked down',
    );
  } finally {
    closeSync(fd);
  }
}
