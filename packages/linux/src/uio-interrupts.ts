/** INTx of a PCI device through `uio_pci_generic`, for devices that are not behind an IOMMU. */
import { closeSync, openSync } from 'node:fs';
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { Command, type PciInterrupts, readCommand, writeCommand } from '@virtio/pci';
import { EventPoller } from './event-poller.ts';
import { pciPath } from './pci-devices.ts';
import type { SystemFiles } from './system-files.ts';
import { systemError } from './system-error.ts';

/** The INTx line of a device that is bound to `uio_pci_generic`. */
export class UioInterrupts implements PciInterrupts, Disposable {
  readonly vectors = 0;
  readonly #poller: EventPoller;
  readonly #fd: number;
  readonly #config: RegisterWindow;
  #handler: (() => boolean) | undefined;
  #disposed = false;

  /** @throws {@link VirtioError} `UNSUPPORTED`, `PERMISSION_DENIED` */
  constructor(files: SystemFiles, address: string, config: RegisterWindow) {
    const [name] = files.list(`${pciPath(address)}/uio`);
    if (name === undefined) {
      throw new VirtioError(
        'UNSUPPORTED',
        `PCI ${address} has no UIO device; open it with { interrupts: 'polling' }`,
      );
    }
    this.#config = config;
    try {
      this.#fd = openSync(files.path(`/dev/${name}`), 'r');
    } catch (error) {
      throw systemError(`/dev/${name} could not be opened`, error, 'run as root');
    }
    this.#poller = new EventPoller();
    this.#poller.watch(this.#fd, this.#interrupt);
  }

  onLine(line: number, handler: (() => boolean) | undefined): void {
    if (line === 0) this.#handler = handler;
  }

  /** Does nothing: UIO does not tell of removals; the driver sees that registers read as all ones. */
  onRemoval(): void {
    return;
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

  readonly #interrupt = (): void => {
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
