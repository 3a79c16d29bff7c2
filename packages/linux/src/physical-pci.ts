/**
 * A PCI device without an IOMMU: configuration space and BARs from sysfs. Open files do not keep the kernel from removing the
 * device: its files then give ENODEV, while BARs stay mapped at addresses that may be given to another device. So removal is
 * watched for, and the mappings are abandoned then.
 */
import { closeSync } from 'node:fs';
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { type PciErrorReason, PciRegister } from '@virtio/pci';
import { FileWindow } from './file-window.ts';
import { mappedWindow } from './hal.ts';
import { accessAdvice } from './lockdown.ts';
import { Mapping } from './mapping.ts';
import { pciBars, pciPath } from './pci-devices.ts';
import { systemPageSize } from './syscalls.ts';
import { systemError } from './system-error.ts';
import type { SystemFiles } from './system-files.ts';

const CONFIG_SIZE = 4096;
const CONFIG_SIZE_SMALL = 256;

/** The pages of a BAR, and where it starts in them. */
interface BarMapping {
  readonly pages: Mapping;
  readonly start: number;
}

/** A PCI device through sysfs. */
export class PhysicalPciDevice implements Disposable {
  /** The configuration space. */
  readonly config: RegisterWindow;
  readonly #files: SystemFiles;
  readonly #address: string;
  readonly #fd: number;
  readonly #window: FileWindow;
  readonly #mappings = new Map<number, BarMapping>();
  #open = true;

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
    return mappedWindow(mapping.pages, mapping.start + offset, length);
  }

  /** Whether the kernel still has the device, and the device answers. */
  isThere(): boolean {
    return this.config.read16(PciRegister.VENDOR_ID) !== 0xffff;
  }

  /** Abandons a device that is gone: its registers read as all ones from now on, and its addresses are no longer accessed. */
  abandon(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#window.detach();
    for (const { pages } of this.#mappings.values()) pages.replace();
    closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    for (const { pages } of this.#mappings.values()) pages[Symbol.dispose]();
    this.#mappings.clear();
    if (!this.#open) return;
    this.#open = false;
    this.#window.detach();
    closeSync(this.#fd);
  }

  #map(bar: number): BarMapping {
    const found = pciBars(this.#files, this.#address)[bar];
    if (found?.kind !== 'memory') {
      throw new VirtioError(
        'UNSUPPORTED',
        `BAR ${bar} of PCI ${this.#address} is ${found === undefined ? 'not there' : 'in I/O space'}; it cannot be mapped`,
        { reason: (found === undefined ? 'BAR_MISSING' : 'BAR_IN_IO_SPACE') satisfies PciErrorReason },
      );
    }
    if (found.address === 0) {
      throw new VirtioError(
        'NOT_READY',
        `BAR ${bar} of PCI ${this.#address} has no address, as the kernel assigned none; the kernel log ("dmesg") says why`,
        { reason: 'BAR_NOT_ALLOCATED' satisfies PciErrorReason },
      );
    }
    const path = `${pciPath(this.#address)}/resource${bar}`;
    // A BAR that is smaller than a page may start within one.
    const start = found.address % systemPageSize();
    const fd = open(this.#files, path);
    try {
      return { pages: Mapping.map({ fd, size: start + found.size }), start };
    } catch (error) {
      throw systemError(
        `${path} could not be mapped`,
        error,
        accessAdvice(this.#files, error, 'the kernel log ("dmesg") may say why'),
      );
    } finally {
      closeSync(fd);
    }
  }
}

function open(files: SystemFiles, path: string): number {
  try {
    return files.open(path, 'r+');
  } catch (error) {
    throw systemError(`${path} could not be opened`, error, accessAdvice(files, error, 'run as root'));
  }
}
