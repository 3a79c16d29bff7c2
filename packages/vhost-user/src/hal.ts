/** The Hal of a device in another process: memory that both processes map. */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { LinuxHal } from '@virtio/linux';
import type { VhostMemory } from './memory.ts';

/** Memory for the driver of one vhost-user device. */
export class VhostUserHal extends LinuxHal {
  readonly #name: string;
  readonly #source: VhostMemory;

  /** @internal made by `openVhostUser` */
  constructor(source: VhostMemory) {
    super(source);
    this.#name = source.name;
    this.#source = source;
  }

  /** The size of all regions that the back end maps, in bytes. Pages that were never accessed take no memory. */
  get sharedBytes(): number {
    return this.#source.size;
  }

  /** Always throws `UNSUPPORTED`: a device in another process has no registers. */
  mapRegisters(address: number, size: number): RegisterWindow {
    throw new VirtioError(
      'UNSUPPORTED',
      `${size} bytes of registers at 0x${address.toString(16)} were asked for, but ${this.#name} has none`,
    );
  }

  protected checkAccess(): void {
    // Addresses are those of the memory table, with and without ACCESS_PLATFORM.
  }
}
