/**
 * Memory and registers by physical address, for devices that are not behind an IOMMU. Unsafe by nature: nothing prevents the
 * device, or a driver with a bug, from accessing all memory of the machine.
 */
import type { RegisterWindow } from '@virtio/core';
import { DevMem } from './dev-mem.ts';
import { LinuxHal } from './hal.ts';
import { PhysicalMemory } from './physical-memory.ts';

/** The Hal of devices that use physical addresses. */
export class PhysicalHal extends LinuxHal {
  readonly #registers = new DevMem();

  private constructor(source: PhysicalMemory) {
    super(source);
  }

  /**
   * Makes a Hal that gives drivers physical memory. A device that is driven with it can read and write all memory of the machine,
   * and goes on doing so if the process is killed (SIGKILL) before the device is reset: use it only on a machine that you can
   * afford to lose.
   *
   * @throws {@link VirtioError} `DMA_ERROR` without huge pages, `PERMISSION_DENIED` without root
   */
  static unsafe(): PhysicalHal {
    return new PhysicalHal(new PhysicalMemory());
  }

  /** Maps registers from /dev/mem. */
  mapRegisters(address: number, size: number): RegisterWindow {
    return this.#registers.map(address, size);
  }

  override [Symbol.dispose](): void {
    super[Symbol.dispose]();
    this.#registers[Symbol.dispose]();
  }

  protected checkAccess(): void {
    // Physical addresses are what a device uses without ACCESS_PLATFORM, and with it where nothing translates.
  }
}
