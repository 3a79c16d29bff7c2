/** How a device is opened. */
import type { LinuxHal } from './hal.ts';

/** Options of `openTransport`. */
export interface OpenOptions {
  /**
   * Opens the device without the protection of an IOMMU. It then uses physical addresses: the device, or a driver with a bug, can
   * read and write all memory of this machine, and if the process is killed (SIGKILL) before the device is reset, the device goes
   * on writing to memory that now belongs to others. Needs root and huge pages. MMIO devices can only be opened in this way.
   */
  readonly unsafePhysicalMemory?: boolean;
  /** Whether the device may be taken from a kernel driver that uses it. It is given back at the end. */
  readonly takeOver?: boolean;
  /** The Hal of another open device, to share its DMA memory; that device disposes it. Default: a new one. */
  readonly hal?: LinuxHal;
  /**
   * How the driver learns of used buffers. Default: the best that is available. `msix` and `intx` through VFIO, `uio` (INTx
   * through uio_pci_generic) with physical memory on PCI, `polling` with every device; it keeps a processor busy while a caller
   * waits.
   */
  readonly interrupts?: 'msix' | 'intx' | 'uio' | 'polling';
}
