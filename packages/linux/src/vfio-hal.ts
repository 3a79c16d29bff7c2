/** DMA memory behind an IOMMU: the device can reach what is mapped for it and nothing else. */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { LinuxHal } from './hal.ts';
import { VfioContainer } from './vfio-container.ts';

/** Maps registers at a physical address if they belong to its device; otherwise returns `undefined`. */
export type RegisterResolver = (address: number, size: number) => RegisterWindow | undefined;

/** The Hal of devices that are opened through VFIO. Several devices may share one, and with it their DMA memory. */
export class VfioHal extends LinuxHal {
  /** The address space of the devices. */
  readonly container: VfioContainer;
  readonly #resolvers = new Set<RegisterResolver>();

  private constructor(container: VfioContainer) {
    super(container);
    this.container = container;
  }

  /**
   * Makes a Hal with an address space that has no devices yet.
   *
   * @throws {@link VirtioError} `MODULE_MISSING`, `PERMISSION_DENIED`
   */
  static create(): VfioHal {
    return new VfioHal(new VfioContainer());
  }

  /** Adds a device whose BARs {@link VfioHal.mapRegisters} can map. Returns a function that removes it. */
  addRegisters(resolver: RegisterResolver): () => void {
    this.#resolvers.add(resolver);
    return () => this.#resolvers.delete(resolver);
  }

  /** Maps registers in BARs of devices of this Hal, by their physical addresses. */
  mapRegisters(address: number, size: number): RegisterWindow {
    for (const resolver of this.#resolvers) {
      const window = resolver(address, size);
      if (window) return window;
    }
    throw new VirtioError(
      'INVALID_PARAM',
      `${size} bytes of registers at 0x${address.toString(16)} were to be mapped, which are in no BAR of a device of this Hal`,
    );
  }

  protected checkAccess(accessPlatform: boolean): void {
    if (accessPlatform) return;
    throw new VirtioError(
      'DMA_ERROR',
      'the device did not negotiate ACCESS_PLATFORM, so it bypasses the IOMMU and uses physical addresses, which VFIO does not ' +
        'give out. Have the device offer it (QEMU: iommu_platform=on, disable-legacy=on), or open the device with ' +
        '{ unsafePhysicalMemory: true }',
    );
  }
}
