/**
 * Access to registers at their exact width and exactly once: never merged, split, repeated or dropped.
 *
 * The mapped implementation reads with `Atomics.load`, which no compiler optimizes away, and writes with a plain element
 * store. `Atomics.store` would be a locked exchange on x86 and so read the register as well; a `DataView` stores byte by
 * byte until it is compiled.
 */
import { VirtioError } from '../errors.ts';

/**
 * A window of little-endian device registers. Offsets are in bytes from its start and aligned to the width; an access that is
 * outside or not aligned throws a {@link VirtioError}, `CONFIG_SPACE_TOO_SMALL` or `INVALID_PARAM`.
 */
export interface RegisterWindow {
  /** The size of the window in bytes. */
  readonly size: number;
  /** Reads 8 bits. */
  read8(offset: number): number;
  /** Reads 16 bits. */
  read16(offset: number): number;
  /** Reads 32 bits, unsigned. */
  read32(offset: number): number;
  /** Writes the lower 8 bits of `value`. */
  write8(offset: number, value: number): void;
  /** Writes the lower 16 bits of `value`. */
  write16(offset: number, value: number): void;
  /** Writes the lower 32 bits of `value`. */
  write32(offset: number, value: number): void;
  /**
   * The typed arrays of a window that is mapped memory: a hot path can store to a register at an index that it computed
   * beforehand.
   */
  readonly mapped?: MappedArrays;
}

/** The typed arrays of a mapped register window, each from its start. */
export interface MappedArrays {
  /** All bytes. */
  readonly u8: Uint8Array;
  /** As many registers of 16 bits as fit. */
  readonly u16: Uint16Array;
  /** As many registers of 32 bits as fit. */
  readonly u32: Uint32Array;
}

/**
 * Registers in mapped memory.
 *
 * A plain store to device memory is ordered behind earlier stores to normal memory on x86, and the drivers' own accesses to rings
 * are `Atomics`. Hardware whose processor does not order the two (RISC-V and ARM with real devices, unlike emulators of them)
 * needs a fence before a notification: wrap the window, without `mapped`, so that hot paths call `write16` and `write32` as well.
 *
 * @example
 * ```ts
 * import { MappedRegisters, type RegisterWindow } from '@virtio/core';
 *
 * // `fence` is the engine's: `fence w,o` on RISC-V, `dmb oshst` on ARM.
 * export function fenced(registers: MappedRegisters, fence: () => void): RegisterWindow {
 *   const before = (write: (offset: number, value: number) => void) => (offset: number, value: number) => {
 *     fence();
 *     write(offset, value);
 *   };
 *   return {
 *     size: registers.size,
 *     read8: (offset) => registers.read8(offset),
 *     read16: (offset) => registers.read16(offset),
 *     read32: (offset) => registers.read32(offset),
 *     write8: before((offset, value) => registers.write8(offset, value)),
 *     write16: before((offset, value) => registers.write16(offset, value)),
 *     write32: before((offset, value) => registers.write32(offset, value)),
 *   };
 * }
 * ```
 */
export class MappedRegisters implements RegisterWindow {
  readonly size: number;
  readonly mapped: MappedArrays;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #u32: Uint32Array;

  /**
   * @param buffer the mapping
   * @param byteOffset where the window starts: a multiple of 4
   * @param size the size of the window in bytes
   * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL` if the mapping does not hold the window
   */
  constructor(buffer: ArrayBufferLike, byteOffset = 0, size = buffer.byteLength - byteOffset) {
    // Not a number, too.
    if (!(byteOffset % 4 === 0)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `a register window must start at a multiple of 4, not at ${byteOffset}`,
      );
    }
    if (!(size >= 0 && byteOffset >= 0 && byteOffset + size <= buffer.byteLength)) {
      throw new VirtioError(
        'CONFIG_SPACE_TOO_SMALL',
        `a register window of ${size} bytes at ${byteOffset} does not fit a mapping of ${buffer.byteLength} bytes`,
      );
    }
    this.size = size;
    this.#u8 = new Uint8Array(buffer, byteOffset, size);
    this.#u16 = new Uint16Array(buffer, byteOffset, size >>> 1);
    this.#u32 = new Uint32Array(buffer, byteOffset, size >>> 2);
    this.mapped = { u8: this.#u8, u16: this.#u16, u32: this.#u32 };
  }

  read8(offset: number): number {
    this.#check(offset, 1);
    return Atomics.load(this.#u8, offset);
  }

  read16(offset: number): number {
    this.#check(offset, 2);
    return Atomics.load(this.#u16, offset >>> 1);
  }

  read32(offset: number): number {
    this.#check(offset, 4);
    return Atomics.load(this.#u32, offset >>> 2);
  }

  write8(offset: number, value: number): void {
    this.#check(offset, 1);
    this.#u8[offset] = value;
  }

  write16(offset: number, value: number): void {
    this.#check(offset, 2);
    this.#u16[offset >>> 1] = value;
  }

  write32(offset: number, value: number): void {
    this.#check(offset, 4);
    this.#u32[offset >>> 2] = value;
  }

  #check(offset: number, width: number): void {
    checkRegister(offset, width, this.size);
  }
}

/**
 * Throws if an access is not inside the window or not aligned to its width.
 *
 * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL` or `INVALID_PARAM`
 */
export function checkRegister(offset: number, width: number, size: number): void {
  if (!(offset >= 0 && offset + width <= size)) {
    throw new VirtioError(
      'CONFIG_SPACE_TOO_SMALL',
      `a register of ${width} bytes at offset ${offset} is outside its window of ${size} bytes`,
    );
  }
  if (offset % width !== 0) {
    throw new VirtioError(
      'INVALID_PARAM',
      `a register of ${width} bytes cannot be at offset ${offset}, which is not aligned`,
    );
  }
}

/**
 * A part of a window as a window of its own.
 *
 * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL` if it is not inside the window
 */
export function subWindow(window: RegisterWindow, offset: number, size: number): RegisterWindow {
  if (!(offset >= 0 && size >= 0 && offset + size <= window.size)) {
    throw new VirtioError(
      'CONFIG_SPACE_TOO_SMALL',
      `registers at ${offset} to ${offset + size} are outside their window of ${window.size} bytes`,
    );
  }
  if (window.mapped && offset % 4 === 0) {
    const { u8 } = window.mapped;
    return new MappedRegisters(u8.buffer, u8.byteOffset + offset, size);
  }
  return new SubWindow(window, offset, size);
}

/**
 * The registers of a device that is gone: reads return all ones, and writes do nothing. For transports that are closed while a driver
 * still has them.
 */
export function goneRegisters(size: number): RegisterWindow {
  return {
    size,
    read8: () => 0xff,
    read16: () => 0xffff,
    read32: () => 0xffff_ffff,
    write8: ignore,
    write16: ignore,
    write32: ignore,
  };
}

function ignore(): void {
  return;
}

class SubWindow implements RegisterWindow {
  readonly size: number;
  readonly #parent: RegisterWindow;
  readonly #offset: number;

  constructor(parent: RegisterWindow, offset: number, size: number) {
    this.#parent = parent;
    this.#offset = offset;
    this.size = size;
  }

  read8(offset: number): number {
    return this.#parent.read8(this.#at(offset, 1));
  }

  read16(offset: number): number {
    return this.#parent.read16(this.#at(offset, 2));
  }

  read32(offset: number): number {
    return this.#parent.read32(this.#at(offset, 4));
  }

  write8(offset: number, value: number): void {
    this.#parent.write8(this.#at(offset, 1), value);
  }

  write16(offset: number, value: number): void {
    this.#parent.write16(this.#at(offset, 2), value);
  }

  write32(offset: number, value: number): void {
    this.#parent.write32(this.#at(offset, 4), value);
  }

  #at(offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    return this.#offset + offset;
  }
}
