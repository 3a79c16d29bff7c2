/** A PCI device without an IOMMU: configuration space and BARs from sysfs. */
import { closeSync, openSync } from 'node:fs';
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { FileWindow } from './file-window.ts';
import { mappedWindow } from './hal.ts';
import { Mapping } from './mapping.ts';
import { pciBars, pciPath } from './pci-devices.ts';
import { systemError } from './system-error.ts';
import type { SystemFiles } from './system-files.ts';

const CONFIG_SIZE = 4096;
const CONFIG_SIZE_SMALL = 256;

/** A PCI device through sysfs. */
export class PhysicalPciDevice implements Disposable {
  /** The configuration space. */
  readonly config: RegisterWindow;
  readonly #files: SystemFiles;
  readonly #address: string;
  readonly #fd: number;
  readonly #window: FileWindow;
  readonly #mappings = new Map<number, Mapping>();
  #disposed = false;

  /** @throws {@link VirtioError} `PERMISSION_DENIED` */
  constructor(files: SystemFiles, address: string) {
    this.#files = files;
    this.#address = address;
    this.#fd = open(files, `${pciPath(address)}/config`);
    const size =
      (files.bytes(`${pciPath(address)}/config`)?.length ?? 0) > CONFIG_SIZE_SMALL
        ? CONFIG_SIZE
        : CONFIG_SIZE_SMALL;
    this.#window = new FileWindow(`the configuration space of PCI ${address}`, this.#fd, 0, size);
    this.config = this.#window;
  }

  /**
   * A part of a BAR.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` for a BAR in I/O space, `PERMISSION_DENIED`
   */
  mapBar(bar: number, offset: number, length: number): RegisterWindow {
    let mapping = this.#mappings.get(bar);
    if (mapping === undefined) {
      mapping = this.#map(bar);
      this.#mappings.set(bar, mapping);
    }
    return mappedWindow(mapping, offset, length);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#window.detach();
    for (const mapping of this.#mappings.values()) mapping[Symbol.dispose]();
    closeSync(this.#fd);
  }

  #map(bar: number): Mapping {
    const found = pciBars(this.#files, this.#address)[bar];
    if (found?.kind !== 'memory') {
      throw new VirtioError(
        'UNSUPPORTED',
        `BAR ${bar} of PCI ${this.#address} is ${found === undefined ? 'not there' : 'in I/O space'}; it cannot be mapped`,
      );
    }
    const path = `${pciPath(this.#address)}/resource${bar}`;
    const fd = open(this.#files, path);
    try {
      return Mapping.map({ fd, size: found.size });
    } catch (error) {
      throw systemError(
        `${path} could not be mapped`,
        error,
        'a kernel that is locked down (Secure Boot) refuses this',
      );
    } finally {
      closeSync(fd);
    }
  }
}

function open(files: SystemFiles, path: string): number {
  try {
    return openSync(files.path(path), 'r+');
  } catch (error) {
    throw systemError(`${path} could not be opened`, error, 'run as root');
  }
}
