/** INTx of a PCI device through `uio_pci_generic`, for devices that are not behind an IOMMU. */
import { closeSync, constants, readSync } from 'node:fs';
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { Command, readCommand, writeCommand } from '@virtio/pci';
import { EventLines } from './event-lines.ts';
import { pciPath } from './pci-devices.ts';
import type { SystemFiles } from './system-files.ts';
import { errorName, systemError } from './system-error.ts';

/** A read returns the number of interrupts so far, and must be of this many bytes. */
const COUNT_SIZE = 4;

/** The INTx line of a device that is bound to `uio_pci_generic`. */
export class UioInterrupts extends EventLines {
  readonly #fd: number;
  readonly #config: RegisterWindow;
  readonly #count = new Uint8Array(COUNT_SIZE);
  readonly #onGone: () => void;
  #gone = false;

  private constructor(fd: number, config: RegisterWindow, onGone: () => void) {
    super(0);
    this.#fd = fd;
    this.#config = config;
    this.#onGone = onGone;
    this.watch(fd, this.#interrupt, closeSync);
  }

  /**
   * Opens the UIO device of a PCI device.
   *
   * @param config the device's configuration space
   * @param onGone called when the kernel has unbound the device from `uio_pci_generic`, which it does first when the device is
   * unplugged
   * @returns `undefined` if the device has no interrupt line
   * @throws {@link VirtioError} `UNSUPPORTED`, `PERMISSION_DENIED`
   */
  static open(
    files: SystemFiles,
    address: string,
    config: RegisterWindow,
    onGone: () => void,
  ): UioInterrupts | undefined {
    const fd = openUio(files, address);
    if (hasLine(fd)) return new UioInterrupts(fd, config, onGone);
    closeSync(fd);
    return undefined;
  }

  override remove(): void {
    this.#gone = true;
    super.remove();
  }

  /** Whether the kernel has unbound the device from the driver, so that there will be no more interrupts. */
  #isUnbound(): boolean {
    try {
      return readSync(this.#fd, this.#count, 0, COUNT_SIZE, null) === 0;
    } catch (error) {
      return errorName(error) !== 'EAGAIN';
    }
  }

  readonly #interrupt = (): void => {
    if (this.#gone) return;
    if (this.#isUnbound()) {
      this.#onGone();
      return;
    }
    try {
      this.fire(0);
    } finally {
      // The kernel disabled the line when it fired; the handler has read the ISR status, so that it is low now.
      if (!this.disposed) {
        writeCommand(this.#config, readCommand(this.#config).without(Command.INTERRUPT_DISABLE));
      }
    }
  };
}

/**
 * Whether interrupts can come. Reading gives EIO where the device has no line (its firmware or its slot gives it none), and later
 * once the driver was unbound: so this is checked at the start.
 */
function hasLine(fd: number): boolean {
  try {
    readSync(fd, new Uint8Array(COUNT_SIZE), 0, COUNT_SIZE, null);
    return true;
  } catch (error) {
    return errorName(error) !== 'EIO';
  }
}

function openUio(files: SystemFiles, address: string): number {
  const [name] = files.list(`${pciPath(address)}/uio`);
  if (name === undefined) {
    throw new VirtioError(
      'UNSUPPORTED',
      `PCI ${address} has no UIO device; open it with { interrupts: 'polling' }`,
    );
  }
  try {
    return files.open(`/dev/${name}`, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw systemError(`/dev/${name} could not be opened`, error, 'run as root');
  }
}
