/**
 * The MSI-X capability, for platforms that program it themselves: which message (address and data) each vector sends. Where the
 * operating system does that (VFIO), only the number of vectors matters.
 */
import { type RegisterWindow, requireInteger, VirtioError } from '@virtio/core';
import type { Bars } from './bars.ts';
import { capabilities, PciCapabilityId, roomFor } from './capabilities.ts';
import type { MapBar } from './pci-transport-options.ts';

/** Registers of the capability: offsets in bytes. */
const CONTROL = 2;
const TABLE = 4;
const PENDING = 8;
const SIZE = 12;

const TABLE_SIZE = 0x07ff;
const MASK_ALL = 0x4000;
const ENABLE = 0x8000;

/** An entry of the table: 16 bytes. */
const ENTRY = 16;
const ENTRY_ADDRESS = 0;
const ENTRY_ADDRESS_HIGH = 4;
const ENTRY_DATA = 8;
const ENTRY_CONTROL = 12;
const ENTRY_MASKED = 1;

/**
 * How many MSI-X vectors a function has; 0 if it does not have the capability.
 *
 * @param name the function, for messages
 */
export function msixVectors(config: RegisterWindow, name: string): number {
  const offset = find(config, name);
  return offset === undefined ? 0 : (config.read16(offset + CONTROL) & TABLE_SIZE) + 1;
}

function find(config: RegisterWindow, name: string): number | undefined {
  return capabilities(config, name).find(
    ({ id, offset }) => id === PciCapabilityId.MSI_X && roomFor(offset) >= SIZE,
  )?.offset;
}

/**
 * The MSI-X capability of a function, with its table and its pending bits.
 *
 * @example
 * ```ts
 * import { InterruptLines, type MsixCapability } from '@virtio/pci';
 *
 * // x86: message data is the vector of the processor's interrupt, from 0x40; the message goes to processor 0.
 * export function route(msix: MsixCapability): InterruptLines {
 *   for (let vector = 0; vector < msix.size; vector += 1) {
 *     msix.setMessage(vector, 0xfee0_0000, 0x40 + vector);
 *     msix.unmask(vector);
 *   }
 *   msix.enable();
 *   return new InterruptLines(msix.size);
 * }
 * ```
 */
export class MsixCapability {
  /** The number of vectors: 1 to 2048. */
  readonly size: number;
  readonly #config: RegisterWindow;
  readonly #offset: number;
  readonly #table: RegisterWindow;
  readonly #pending: RegisterWindow;
  readonly #name: string;

  private constructor(config: RegisterWindow, offset: number, bars: Bars, mapBar: MapBar, name: string) {
    this.#config = config;
    this.#offset = offset;
    this.#name = name;
    this.size = (config.read16(offset + CONTROL) & TABLE_SIZE) + 1;
    const map = (register: number, length: number, what: string): RegisterWindow => {
      const place = config.read32(offset + register);
      const start = (place & ~0x7) >>> 0;
      const bar = bars[place & 0x7];
      if (bar?.kind !== 'memory' || start + length > bar.size) {
        throw new VirtioError(
          'INVALID_DEVICE',
          `${name}: its MSI-X ${what} is at ${start} to ${start + length} of BAR ${place & 0x7}, ` +
            `which ${bar?.kind === 'memory' ? `has ${bar.size} bytes` : 'is not a memory BAR'}`,
        );
      }
      return mapBar(bar.index, start, length);
    };
    this.#table = map(TABLE, this.size * ENTRY, 'table');
    this.#pending = map(PENDING, Math.ceil(this.size / 64) * 8, 'array of pending bits');
  }

  /**
   * Finds the capability.
   *
   * @param name the function, for messages
   * @returns `undefined` if the function does not have it
   * @throws {@link VirtioError} `INVALID_DEVICE` if its table is not inside a memory BAR
   */
  static find(config: RegisterWindow, bars: Bars, mapBar: MapBar, name: string): MsixCapability | undefined {
    const offset = find(config, name);
    return offset === undefined ? undefined : new MsixCapability(config, offset, bars, mapBar, name);
  }

  /** Whether MSI-X is enabled: messages are sent instead of INTx. */
  get enabled(): boolean {
    return (this.#config.read16(this.#offset + CONTROL) & ENABLE) !== 0;
  }

  /** Enables MSI-X: all vectors that are not masked send messages instead of INTx. */
  enable(): void {
    this.#control(ENABLE, ENABLE | MASK_ALL);
  }

  /** Disables MSI-X: the function uses INTx again. */
  disable(): void {
    this.#control(0, ENABLE);
  }

  /** Masks all vectors, or removes that mask. */
  maskAll(masked: boolean): void {
    this.#control(masked ? MASK_ALL : 0, MASK_ALL);
  }

  /**
   * Sets the message of a vector. The vector stays masked until {@link MsixCapability.unmask}.
   *
   * @param address the address to which the message is written: a multiple of 4, below 2^53
   * @param data the value that is written, 32 bits
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  setMessage(vector: number, address: number, data: number): void {
    requireInteger(this.#name, 'the address of a message', address, 0, Number.MAX_SAFE_INTEGER);
    if (address % 4 !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#name}: a message to 0x${address.toString(16)} was asked for; give a multiple of 4`,
      );
    }
    requireInteger(this.#name, 'the data of a message', data, 0, 0xffff_ffff);
    // PCI 3.0, 6.8.2: an entry may be changed only while it is masked.
    this.mask(vector);
    const entry = vector * ENTRY;
    this.#table.write32(entry + ENTRY_ADDRESS, address >>> 0);
    this.#table.write32(entry + ENTRY_ADDRESS_HIGH, Math.floor(address / 2 ** 32));
    this.#table.write32(entry + ENTRY_DATA, data >>> 0);
  }

  /** Masks a vector: its message is held back, and its pending bit is set instead. */
  mask(vector: number): void {
    const register = this.#entry(vector) + ENTRY_CONTROL;
    this.#table.write32(register, (this.#table.read32(register) | ENTRY_MASKED) >>> 0);
  }

  /** Unmasks a vector; a pending message is sent. */
  unmask(vector: number): void {
    const register = this.#entry(vector) + ENTRY_CONTROL;
    this.#table.write32(register, (this.#table.read32(register) & ~ENTRY_MASKED) >>> 0);
  }

  /** The pending bit of a vector: whether it has a message to send. */
  pending(vector: number): boolean {
    this.#entry(vector);
    return (this.#pending.read32((vector >>> 5) * 4) & (1 << (vector & 31))) !== 0;
  }

  #entry(vector: number): number {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.size) {
      throw new VirtioError(
        'INVALID_PARAM',
        `vector ${vector} was asked for; ${this.#name} has MSI-X vectors 0 to ${this.size - 1}`,
      );
    }
    return vector * ENTRY;
  }

  #control(bits: number, which: number): void {
    const register = this.#offset + CONTROL;
    this.#config.write16(register, (this.#config.read16(register) & ~which) | bits);
  }
}
