/**
 * Memory as the device accesses it: by address, and only where the driver offers it. A device model that uses this interface
 * detects at once if a driver offers too little memory or the wrong direction, or takes memory back too early.
 */

/** The kind of access. `any` only checks that there is memory, for a device that ignores directions. */
export type Access = 'read' | 'write' | 'any';

/** The driver's memory from the device's side. */
export interface DeviceMemory {
  /**
   * The bytes at an address, not copied.
   *
   * @param address the device address
   * @param length bytes
   * @throws {@link MemoryFault} unless all of them are offered for this access
   */
  view(address: number, length: number, access: Access): Uint8Array;
}

/** The device accessed memory that the driver did not offer, or did not offer for this access. */
export class MemoryFault extends Error {
  override readonly name = 'MemoryFault';
  readonly address: number;
  readonly length: number;
  readonly access: Access;

  constructor(address: number, length: number, access: Access, reason: string) {
    const verb = access === 'any' ? 'access' : access;
    super(`the device may not ${verb} ${length} bytes at 0x${address.toString(16)}: ${reason}`);
    this.address = address;
    this.length = length;
    this.access = access;
  }
}

/** A block of memory at an address that the device may read and write, for rings laid out by hand. */
export class PlainMemory implements DeviceMemory {
  /** The memory. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The address of its first byte. */
  readonly address: number;

  constructor(address: number, length: number) {
    this.address = address;
    this.bytes = new Uint8Array(length);
  }

  view(address: number, length: number, access: Access): Uint8Array {
    const start = address - this.address;
    if (start < 0 || start + length > this.bytes.length) {
      throw new MemoryFault(address, length, access, 'there is no memory');
    }
    return this.bytes.subarray(start, start + length);
  }
}
