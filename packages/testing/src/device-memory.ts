/**
 * Memory as the device reaches it: by address, and only where the driver offered it. A device model that goes through
 * this interface finds out at once when a driver offers too little, in the wrong direction, or takes memory back too early.
 */

/** What the device is about to do. `any` asks only whether there is memory, for a device that does as it likes. */
export type Access = 'read' | 'write' | 'any';

/** The driver's memory from the device's side. */
export interface DeviceMemory {
  /**
   * The bytes at an address, not copied.
   *
   * @param address as the driver told it to the device
   * @param length bytes
   * @throws {@link MemoryFault} unless all of them are offered for this access
   */
  view(address: number, length: number, access: Access): Uint8Array;
}

/** The device touched memory that the driver did not offer, or not for this. */
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

/** A block of memory that starts at an address and may be read and written by the device, for rings laid out by hand. */
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
