/**
 * Keeps a second driver away from a device that uses physical addresses: any process may open its files any number of times, and
 * the second driver would reset the device under the first. VFIO does this by itself.
 *
 * The lock is advisory. It is of the kind that belongs to an open file, so that it also holds within a process, and it ends with the
 * process.
 */
import { closeSync } from 'node:fs';
import { VirtioError } from '@virtio/core';
import { accessAdvice } from './lockdown.ts';
import { lockRange } from './syscalls.ts';
import { errorName, systemError } from './system-error.ts';
import type { SystemFiles } from './system-files.ts';

/** A lock on the part of a file in which the registers of a device are. */
export class DeviceLock implements Disposable {
  readonly #fd: number;
  #open = true;

  /**
   * Takes the lock.
   *
   * @param name the device, for messages
   * @param start where the registers start in the file
   * @param size how many bytes; 0 for all that follow
   * @throws {@link VirtioError} `DEVICE_BUSY`, `PERMISSION_DENIED`, `SYSTEM_ERROR`
   */
  constructor(files: SystemFiles, name: string, path: string, start = 0, size = 0) {
    try {
      this.#fd = files.open(path, 'r+');
    } catch (error) {
      const absent = errorName(error) === 'ENOENT';
      const advice = absent
        ? 'the kernel does not have it, or it was not passed into this container'
        : accessAdvice(files, error, 'run as root');
      throw systemError(`${path} could not be opened`, error, advice);
    }
    try {
      lockRange(this.#fd, start, size);
    } catch (error) {
      closeSync(this.#fd);
      if (!['EAGAIN', 'EACCES'].includes(errorName(error) ?? '')) {
        throw systemError(`${name} could not be locked in ${path}`, error, 'see the cause');
      }
      throw new VirtioError(
        'DEVICE_BUSY',
        `${name} is open already, in this process or another one, and a device has one driver: dispose that one first`,
        { cause: error },
      );
    }
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }
}
