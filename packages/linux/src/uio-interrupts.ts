/** INTx of a PCI device through `uio_pci_generic`, for devices that are not behind an IOMMU. */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { Command, type PciInterrupts, readCommand, writeCommand } from '@virtio/pci';
import { EventPoller } from './event-poller.ts';
import { pciPath } from './pci-devices.ts';
import type { SystemFiles } from './system-files.ts';
import { errorName, systemError } from './system-error.ts';

/** A read gives the number of interrupts so far, and must ask for so many bytes. */
const COUNT_SIZE = 4;

/** The INTx line of a device that is bound to `uio_pci_generic`. */
export class UioInterrupts implements PciInterrupts, Disposable {
  readonly vectors = 0;
  readonly #poller: EventPoller;
  readonly #fd: number;
  readonly #config: RegisterWindow;
  readonly #count = new Uint8Array(COUNT_SIZE);
  readonly #onGone: () => void;
  #handler: (() => boolean) | undefined;
  #removal: (() => void) | undefined;
  #gone = false;
  #disposed = false;

  /**
   * @param config the device's configuration space
   * @param onGone called when the kernel took the device from `uio_pci_generic`, as it does first when it is unplugged
   * @throws {@link VirtioError} `UNSUPPORTED`, `PERMISSION_DENIED`
   */
  constructor(files: SystemFiles, address: string, config: RegisterWindow, onGone: () => void) {
    const [name] = files.list(`${pciPath(address)}/uio`);
    if (name === undefined) {
      throw new VirtioError(
        'UNSUPPORTED',
        `PCI ${address} has no UIO device; open it with { interrupts: 'polling' }`,
      );
    }
    this.#config = config;
    this.#onGone = onGone;
    try {
      this.#fd = openSync(files.path(`/dev/${name}`), constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw systemError(`/dev/${name} could not be opened`, error, 'run as root');
    }
    this.#poller = new EventPoller();
    this.#poller.watch(this.#fd, this.#interrupt);
  }

  onLine(line: number, handler: (() => boolean) | undefined): void {
    if (line === 0) this.#handler = handler;
  }

  onRemoval(handler: (() => void) | undefined): void {
    this.#removal = handler;
  }

  /** The device was unplugged. */
  remove(): void {
    this.#gone = true;
    this.#removal?.();
  }

  hold(): void {
    this.#poller.hold();
  }

  release(): void {
    this.#poller.release();
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#poller[Symbol.dispose]();
    closeSync(this.#fd);
  }

  /** Whether the kernel has taken the device from the driver, so that no interrupt will ever come. */
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
      this.#handler?.();
    } finally {
      // The kernel disabled the line when it fired; the handler has read the ISR status, so that it is low now.
      if (!this.#disposed) {
        writeCommand(this.#config, readCommand(this.#config).without(Command.INTERRUPT_DISABLE));
      }
    }
  };
}
