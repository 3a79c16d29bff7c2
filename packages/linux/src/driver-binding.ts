/** Binds a PCI function to a kernel driver that gives processes access, and back to its previous driver. */
import { VirtioError } from '@virtio/core';
import { type PciDeviceInfo, pciPath } from './pci-devices.ts';
import { Resources } from './resources.ts';
import { errorName, systemError } from './system-error.ts';
import type { SystemFiles } from './system-files.ts';

/** A kernel driver that gives processes access to devices. */
export type PassDriver = 'vfio-pci' | 'uio_pci_generic';

/** Options of {@link DriverBinding}. */
export interface BindOptions {
  /** Whether the device may be taken from another driver. */
  readonly takeOver: boolean;
}

/** A device that is bound to such a driver. Disposing binds it to its previous driver again. */
export class DriverBinding implements Disposable {
  readonly #files: SystemFiles;
  readonly #device: PciDeviceInfo;
  readonly #driver: PassDriver;
  readonly #previousOverride: string;
  #bound: boolean;

  /**
   * Binds a device.
   *
   * @throws {@link VirtioError} `MODULE_MISSING`, `DEVICE_BUSY`, `PERMISSION_DENIED`, `SYSTEM_ERROR`
   */
  constructor(files: SystemFiles, device: PciDeviceInfo, driver: PassDriver, { takeOver }: BindOptions) {
    this.#files = files;
    this.#device = device;
    this.#driver = driver;
    this.#previousOverride = files.text(`${pciPath(device.address)}/driver_override`) ?? '';
    this.#bound = false;
    if (device.driver === driver) return;
    if (!files.exists(`/sys/bus/pci/drivers/${driver}`)) {
      throw new VirtioError(
        'MODULE_MISSING',
        `PCI ${device.address} was to be bound to ${driver}, which the kernel has not loaded; load it: "modprobe ${driver}"`,
      );
    }
    if (device.driver !== undefined) releaseDevice(files, device, takeOver);
    this.#bound = true;
    try {
      this.#write(`${pciPath(device.address)}/driver_override`, driver);
      this.#write('/sys/bus/pci/drivers_probe', device.address);
      if (this.#current() !== driver) {
        throw new VirtioError(
          'SYSTEM_ERROR',
          `PCI ${device.address} was to be bound to ${driver}, which refused it; the kernel log ("dmesg") says why`,
        );
      }
    } catch (error) {
      throw this.#undoAfter(error as VirtioError);
    }
  }

  /** Gives the device back to its previous driver. It must be closed, or the kernel waits until it is. */
  [Symbol.dispose](): void {
    if (!this.#bound) return;
    this.#bound = false;
    const { address, driver } = this.#device;
    const override = this.#previousOverride === '(null)' ? '' : this.#previousOverride;
    using steps = new Resources();
    // In reverse order; each step is tried even if an earlier one failed.
    if (driver !== undefined) this.#defer(steps, '/sys/bus/pci/drivers_probe', address);
    this.#defer(steps, `${pciPath(address)}/driver_override`, `${override}\n`);
    if (this.#current() === this.#driver) {
      this.#defer(steps, `${pciPath(address)}/driver/unbind`, address);
    }
  }

  /** Gives the device back after binding has failed, and returns the error for the caller. */
  #undoAfter(error: VirtioError): VirtioError {
    try {
      this[Symbol.dispose]();
      return error;
    } catch (second) {
      const { address, driver = 'its driver' } = this.#device;
      return new VirtioError(
        error.code,
        `${error.message}. PCI ${address} could not be given back to ${driver} either: ${(second as Error).message}`,
        { cause: error },
      );
    }
  }

  /** Adds a write to the steps that give the device back. A device that is being unplugged may be gone by then; that is not an error. */
  #defer(steps: Resources, path: string, text: string): void {
    steps.defer(() => {
      try {
        this.#write(path, text);
      } catch (error) {
        const { cause } = error as VirtioError;
        if (!['ENOENT', 'ENODEV'].includes(errorName(cause) ?? '')) throw error;
      }
    });
  }

  #current(): string | undefined {
    return this.#files.linkName(`${pciPath(this.#device.address)}/driver`);
  }

  #write(path: string, text: string): void {
    writeDriverFile(this.#files, path, text, this.#device.address);
  }
}

/**
 * Takes a device from its kernel driver; what it returns gives it back.
 *
 * @throws {@link VirtioError} `DEVICE_BUSY` unless `takeOver`
 */
export function releaseDevice(
  files: SystemFiles,
  { address, driver }: PciDeviceInfo,
  takeOver: boolean,
): Disposable {
  if (!takeOver) {
    throw new VirtioError(
      'DEVICE_BUSY',
      `PCI ${address} is in use by the kernel's driver ${driver ?? ''}. If nothing on this machine needs the device, open it ` +
        'with { takeOver: true }: file systems on it, or connections through it, break',
    );
  }
  writeDriverFile(files, `${pciPath(address)}/driver/unbind`, address, address);
  return {
    [Symbol.dispose]: () => {
      if (files.number(`${pciPath(address)}/vendor`) === undefined) return;
      writeDriverFile(files, '/sys/bus/pci/drivers_probe', address, address);
    },
  };
}

const NO_RIGHTS = 'run as root; or have root bind the device and give you its file in /dev/vfio';

/** What to do if the kernel refuses to write. */
const REFUSED: Readonly<Record<string, string>> = {
  EACCES: NO_RIGHTS,
  EPERM: NO_RIGHTS,
  EROFS:
    'sysfs is read-only here, as in most containers, also for root: bind the device on the host, and pass its file in /dev/vfio in',
};

function writeDriverFile(files: SystemFiles, path: string, text: string, address: string): void {
  try {
    files.write(path, text);
  } catch (error) {
    const what = `PCI ${address} could not be bound to another driver: ${path} could not be written`;
    const advice = REFUSED[errorName(error) ?? ''];
    if (advice !== undefined) throw systemError(what, error, advice, 'PERMISSION_DENIED');
    throw systemError(what, error, 'the kernel log ("dmesg") says why');
  }
}
