/** The devices of this machine, under Linux. */
import { VirtioError } from '@virtio/core';
import { listDevices, openTransport } from '@virtio/linux';
import { openVhostUser } from '@virtio/vhost-user';
import { closeSync, constants, openSync, readdirSync, readFileSync, readlinkSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Address, formatAddress } from './address.ts';
import type { KernelDisk, OpenDevice, OpenHow, System } from './host.ts';

/** Options of {@link LinuxSystem}. */
export interface SystemOptions {
  /** The directory that has `sys` and `proc` (default `/`). */
  readonly root?: string;
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
};

const list = (path: string): string[] => {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
};

/** What to do if sysfs cannot be written. */
const WRITE_ADVICE: Readonly<Record<string, string>> = {
  EACCES: 'run it as root',
  EPERM: 'run it as root',
  EROFS: 'sysfs is read-only here, as in most containers: run it on the host',
};

/** The devices of this machine. */
export class LinuxSystem implements System {
  readonly #root: string;

  constructor({ root = '/' }: SystemOptions = {}) {
    this.#root = root;
  }

  listDevices(): ReturnType<typeof listDevices> {
    return listDevices({ root: this.#root });
  }

  async openDevice(address: Address, how: OpenHow): Promise<OpenDevice> {
    const { unsafePhysicalMemory = false, takeOver = false, interrupts, deviceType } = how;
    if (address.kind === 'vhost-user') {
      if (deviceType === undefined) throw new TypeError('the type of the device is missing; give deviceType');
      if (interrupts !== undefined && interrupts !== 'polling') {
        throw new VirtioError(
          'UNSUPPORTED',
          'a vhost-user device interrupts by eventfds; leave --interrupts out, or give polling',
        );
      }
      return openVhostUser(address.path, { deviceType, ...(interrupts && { interrupts }) });
    }
    return openTransport(formatAddress(address), {
      unsafePhysicalMemory,
      takeOver,
      ...(interrupts && { interrupts }),
    });
  }

  kernelFeatures(address: Address): bigint | undefined {
    for (const device of this.#kernelDevices(address)) {
      const bits = read(join(device, 'features'));
      // One digit for each bit, the lowest first.
      if (bits !== undefined && /^[01]+$/.test(bits)) {
        return BigInt(`0b${Array.from(bits).reverse().join('')}`);
      }
    }
    return undefined;
  }

  kernelDisks(address: Address): readonly KernelDisk[] {
    return this.#kernelDevices(address).flatMap((device) =>
      list(join(device, 'block')).map((name) => ({
        name,
        uses: this.#usesOf(join(device, 'block', name), name),
      })),
    );
  }

  bind(address: string, driver: string | undefined, takeOver: boolean): void {
    const path = this.#pciPath(address);
    const current = this.#driver(path);
    if (current !== undefined && current === driver) return;
    // Checked first, so that the device does not end up without any driver.
    if (driver !== undefined && !list(join(this.#root, 'sys/bus/pci/drivers')).includes(driver)) {
      throw new VirtioError(
        'MODULE_MISSING',
        `the kernel has no driver ${driver}; load its module: modprobe ${driver}`,
      );
    }
    if (current !== undefined && !takeOver) {
      throw new VirtioError('DEVICE_BUSY', `PCI ${address} is in use by the kernel's driver ${current}`);
    }
    const write = this.#writer(`PCI ${address} could not be bound to ${driver ?? 'its default driver'}`);
    const override = join(path, 'driver_override');
    const probe = join(this.#root, 'sys/bus/pci/drivers_probe');
    const before = read(override)?.replace('(null)', '') ?? '';
    if (current !== undefined) write(join(path, 'driver/unbind'), address);
    try {
      write(override, `${driver ?? ''}\n`);
      write(probe, address);
      const now = this.#driver(path);
      if (driver !== undefined && now !== driver) {
        throw new VirtioError(
          'SYSTEM_ERROR',
          `PCI ${address} was offered to ${driver}, which did not take it. See the kernel's log for the reason`,
        );
      }
    } catch (error) {
      const attempt = (file: string, text: string): void => {
        try {
          write(file, text);
        } catch {
          // The first error is the one to tell.
        }
      };
      attempt(override, `${before}\n`);
      if (current !== undefined) attempt(probe, address);
      throw error;
    }
  }

  unbind(address: string): void {
    const path = this.#pciPath(address);
    if (this.#driver(path) === undefined) return;
    const write = this.#writer(`PCI ${address} could not be unbound from its driver`);
    write(join(path, 'driver/unbind'), address);
    write(join(path, 'driver_override'), '\n');
  }

  #driver(path: string): string | undefined {
    try {
      return basename(readlinkSync(join(path, 'driver')));
    } catch {
      return undefined;
    }
  }

  #pciPath(address: string): string {
    const path = join(this.#root, 'sys/bus/pci/devices', address);
    if (read(join(path, 'vendor')) === undefined) {
      throw new VirtioError('NO_DEVICE', `there is no PCI device at ${address}`);
    }
    return path;
  }

  /** Writes files of sysfs. @param what what was asked, for messages */
  #writer(what: string): (path: string, text: string) => void {
    return (path, text) => {
      try {
        // Not made where it is missing: in sysfs the system would report missing rights then.
        const file = openSync(path, constants.O_WRONLY | constants.O_TRUNC);
        try {
          writeSync(file, text);
        } finally {
          closeSync(file);
        }
      } catch (error) {
        const { code = '' } = error as NodeJS.ErrnoException;
        const advice = WRITE_ADVICE[code];
        throw new VirtioError(
          advice === undefined ? 'SYSTEM_ERROR' : 'PERMISSION_DENIED',
          `${what}: ${path} could not be written (${code}); ${advice ?? "the kernel's log says why"}`,
          { cause: error },
        );
      }
    };
  }

  /** The directories of the kernel's virtio devices at an address. */
  #kernelDevices(address: Address): string[] {
    if (address.kind === 'vhost-user') return [];
    const folders =
      address.kind === 'pci'
        ? [join(this.#root, 'sys/bus/pci/devices', address.address)]
        : this.#platformFolders(address.address);
    return folders.flatMap((folder) =>
      list(folder)
        .filter((name) => /^virtio\d+$/.test(name))
        .map((name) => join(folder, name)),
    );
  }

  #platformFolders(address: number): string[] {
    const folder = join(this.#root, 'sys/bus/platform/devices');
    const info = this.listDevices().find((device) => device.kind === 'mmio' && device.address === address);
    if (info?.driver === undefined) return [];
    // Find the one with this window: ACPI and the command line put its name into iomem; in a device tree, the name begins with the address.
    const iomem = read(join(this.#root, 'proc/iomem')) ?? '';
    const start = address.toString(16).padStart(8, '0');
    const owner = iomem
      .split('\n')
      .find((line) => line.trim().startsWith(`${start}-`))
      ?.split(' : ')[1];
    return list(folder)
      .filter((name) => name === owner || name.startsWith(`${address.toString(16)}.`))
      .map((name) => join(folder, name));
  }

  /** How a disk of the kernel, or a part of it, is used. */
  #usesOf(folder: string, name: string): string[] {
    const parts = [name, ...list(folder).filter((part) => part.startsWith(name))];
    const numbers = new Map(
      parts.flatMap((part) => {
        const dev = read(join(part === name ? folder : join(folder, part), 'dev'));
        return dev === undefined ? [] : [[dev, part] as const];
      }),
    );
    const uses: string[] = [];
    for (const line of (read(join(this.#root, 'proc/self/mountinfo')) ?? '').split('\n')) {
      const fields = line.split(' ');
      const part = numbers.get(fields[2] ?? '');
      if (part !== undefined) uses.push(`${part} is mounted at ${fields[4] ?? '?'}`);
    }
    for (const line of (read(join(this.#root, 'proc/swaps')) ?? '').split('\n').slice(1)) {
      const device = basename(line.split(/\s+/)[0] ?? '');
      if (parts.includes(device)) uses.push(`${device} is swap space`);
    }
    for (const part of parts) {
      const holders = list(join(part === name ? folder : join(folder, part), 'holders'));
      for (const holder of holders) uses.push(`${part} is part of ${this.#nameOf(holder)}`);
    }
    return uses;
  }

  #nameOf(holder: string): string {
    return read(join(this.#root, 'sys/class/block', holder, 'dm/name')) ?? holder;
  }
}
