/**
 * Access to PCI configuration space. {@link ConfigAccess} is the access of a host bridge to all functions; code for one function
 * takes its configuration space as a `RegisterWindow`, so that it works the same with VFIO, sysfs, memory-mapped windows, port I/O
 * and hypercalls.
 */
import { checkRegister, type RegisterWindow, VirtioError } from '@virtio/core';
import type { DeviceFunction } from './device-function.ts';

/** A configuration access mechanism: reads and writes registers of any function, little-endian, aligned to their width. */
export interface ConfigAccess {
  /** Bytes of configuration space per function: 256, or 4096 with PCI Express. */
  readonly size: number;
  /** Reads a byte; all ones if there is no such function. */
  read8(at: DeviceFunction, offset: number): number;
  /** Reads two bytes; all ones if there is no such function. */
  read16(at: DeviceFunction, offset: number): number;
  /** Reads four bytes; all ones if there is no such function. */
  read32(at: DeviceFunction, offset: number): number;
  /** Writes a byte. */
  write8(at: DeviceFunction, offset: number, value: number): void;
  /** Writes two bytes. */
  write16(at: DeviceFunction, offset: number, value: number): void;
  /** Writes four bytes. */
  write32(at: DeviceFunction, offset: number, value: number): void;
}

/** The configuration space of one function as a register window. */
export class FunctionConfig implements RegisterWindow {
  /** Bytes. */
  readonly size: number;
  /** The function. */
  readonly at: DeviceFunction;
  readonly #access: ConfigAccess;

  constructor(access: ConfigAccess, at: DeviceFunction) {
    this.#access = access;
    this.at = at;
    this.size = access.size;
  }

  read8(offset: number): number {
    checkRegister(offset, 1, this.size);
    return this.#access.read8(this.at, offset);
  }

  read16(offset: number): number {
    checkRegister(offset, 2, this.size);
    return this.#access.read16(this.at, offset);
  }

  read32(offset: number): number {
    checkRegister(offset, 4, this.size);
    return this.#access.read32(this.at, offset);
  }

  write8(offset: number, value: number): void {
    checkRegister(offset, 1, this.size);
    this.#access.write8(this.at, offset, value);
  }

  write16(offset: number, value: number): void {
    checkRegister(offset, 2, this.size);
    this.#access.write16(this.at, offset, value);
  }

  write32(offset: number, value: number): void {
    checkRegister(offset, 4, this.size);
    this.#access.write32(this.at, offset, value);
  }
}

/** The two memory-mapped mechanisms: `cam` has 256 bytes per function, `ecam` (PCI Express) 4096. */
export type Cam = 'cam' | 'ecam';

/** Bytes of configuration space per function, by mechanism. */
export const CAM_FUNCTION_SIZE: Readonly<Record<Cam, number>> = { cam: 256, ecam: 4096 };

/** Bytes of a whole window of 256 buses, by mechanism: 16 MiB and 256 MiB. */
export const CAM_SIZE: Readonly<Record<Cam, number>> = { cam: 0x100_0000, ecam: 0x1000_0000 };

/**
 * The offset of a register in a memory-mapped window.
 *
 * @param firstBus the bus that the window starts with
 * @returns bytes from the start of the window; negative for a bus before `firstBus`
 */
export function camOffset(cam: Cam, at: DeviceFunction, offset: number, firstBus = 0): number {
  return (at.id - (firstBus << 8)) * CAM_FUNCTION_SIZE[cam] + offset;
}

/**
 * Access to memory-mapped configuration space. A function on a bus outside the window reads as all ones, like one that does not
 * exist.
 *
 * @example
 * ```ts
 * import type { Hal } from '@virtio/core';
 * import { CAM_SIZE, MmioCam, PciRoot } from '@virtio/pci';
 *
 * export function list(hal: Hal, ecamBase: number): void {
 *   const root = new PciRoot(new MmioCam(hal.mapRegisters(ecamBase, CAM_SIZE.ecam), 'ecam'));
 *   for (const [at, info] of root.functions()) console.log(String(at), String(info));
 * }
 * ```
 */
export class MmioCam implements ConfigAccess {
  readonly size: number;
  readonly #window: RegisterWindow;
  readonly #cam: Cam;
  readonly #firstBus: number;

  /**
   * @param window the registers; may be smaller than {@link CAM_SIZE} if there are fewer buses
   * @param firstBus the bus that the window starts with
   */
  constructor(window: RegisterWindow, cam: Cam, firstBus = 0) {
    this.size = CAM_FUNCTION_SIZE[cam];
    this.#window = window;
    this.#cam = cam;
    this.#firstBus = firstBus;
  }

  read8(at: DeviceFunction, offset: number): number {
    const register = this.#find(at, offset, 1);
    return register < 0 ? 0xff : this.#window.read8(register);
  }

  read16(at: DeviceFunction, offset: number): number {
    const register = this.#find(at, offset, 2);
    return register < 0 ? 0xffff : this.#window.read16(register);
  }

  read32(at: DeviceFunction, offset: number): number {
    const register = this.#find(at, offset, 4);
    return register < 0 ? 0xffff_ffff : this.#window.read32(register);
  }

  write8(at: DeviceFunction, offset: number, value: number): void {
    this.#window.write8(this.#reach(at, offset, 1), value);
  }

  write16(at: DeviceFunction, offset: number, value: number): void {
    this.#window.write16(this.#reach(at, offset, 2), value);
  }

  write32(at: DeviceFunction, offset: number, value: number): void {
    this.#window.write32(this.#reach(at, offset, 4), value);
  }

  #find(at: DeviceFunction, offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    const register = camOffset(this.#cam, at, offset, this.#firstBus);
    return register + width > this.#window.size ? -1 : register;
  }

  #reach(at: DeviceFunction, offset: number, width: number): number {
    const register = this.#find(at, offset, width);
    if (register < 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `PCI ${at.toString()} cannot be configured: the window to configuration space starts at bus ` +
          `${this.#firstBus} and has ${this.#window.size} bytes; map more buses`,
      );
    }
    return register;
  }
}
