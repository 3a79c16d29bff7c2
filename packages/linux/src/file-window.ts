/** Registers behind a file: configuration space in sysfs or VFIO, and parts of BARs that cannot be mapped. */
import { readSync, writeSync } from 'node:fs';
import { checkRegister, type RegisterWindow, VirtioError } from '@virtio/core';
import { errorName, systemError } from './system-error.ts';

/** A register window in which each access is one `pread` or `pwrite` of the register's width. */
export class FileWindow implements RegisterWindow {
  readonly size: number;
  readonly #name: string;
  readonly #fd: number;
  readonly #position: number;
  readonly #bytes = new Uint8Array(4);
  readonly #view = new DataView(this.#bytes.buffer);
  #gone = false;

  /**
   * @param name what it is, for messages: `the configuration space of PCI 0000:00:03.0`
   * @param fd the file, which the caller closes
   * @param position where the window starts in the file
   */
  constructor(name: string, fd: number, position: number, size: number) {
    this.#name = name;
    this.#fd = fd;
    this.#position = position;
    this.size = size;
  }

  /** The file is not accessed from now on: reads return all ones, as from a device that is gone, and writes do nothing. */
  detach(): void {
    this.#gone = true;
  }

  read8(offset: number): number {
    this.#read(offset, 1);
    return this.#view.getUint8(0);
  }

  read16(offset: number): number {
    this.#read(offset, 2);
    return this.#view.getUint16(0, true);
  }

  read32(offset: number): number {
    this.#read(offset, 4);
    return this.#view.getUint32(0, true);
  }

  write8(offset: number, value: number): void {
    this.#view.setUint8(0, value);
    this.#write(offset, 1);
  }

  write16(offset: number, value: number): void {
    this.#view.setUint16(0, value, true);
    this.#write(offset, 2);
  }

  write32(offset: number, value: number): void {
    this.#view.setUint32(0, value, true);
    this.#write(offset, 4);
  }

  #read(offset: number, width: number): void {
    checkRegister(offset, width, this.size);
    this.#bytes.fill(0xff);
    if (this.#gone) return;
    this.#transfer('read', offset, width, () =>
      readSync(this.#fd, this.#bytes, 0, width, this.#position + offset),
    );
  }

  #write(offset: number, width: number): void {
    checkRegister(offset, width, this.size);
    if (this.#gone) return;
    this.#transfer('written', offset, width, () =>
      writeSync(this.#fd, this.#bytes, 0, width, this.#position + offset),
    );
  }

  #transfer(what: string, offset: number, width: number, transfer: () => number): void {
    let done: number;
    try {
      done = transfer();
    } catch (error) {
      // The kernel's answer for a device that was unplugged.
      if (errorName(error) === 'ENODEV') return;
      throw systemError(
        `${width} bytes at ${offset} of ${this.#name} could not be ${what}`,
        error,
        'check the rights of the process; a kernel that is locked down (Secure Boot) refuses this',
      );
    }
    if (done !== width) {
      throw new VirtioError(
        'PERMISSION_DENIED',
        `${width} bytes at ${offset} of ${this.#name} could not be ${what}; the process needs CAP_SYS_ADMIN (root)`,
      );
    }
  }
}
