/** Opens a virtio device of this machine, through VFIO, sysfs or /dev/mem. */
import { VirtioError } from '@virtio/core';
import type { MmioTransport } from '@virtio/mmio';
import type { PciTransport } from '@virtio/pci';
import type { DeviceInfo } from './discovery.ts';
import type { LinuxHal } from './hal.ts';
import type { MmioWindow } from './mmio-devices.ts';
import { checkIommu } from './iommu-group.ts';
import { openMmio } from './open-mmio.ts';
import type { OpenOptions } from './open-options.ts';
import { openPhysicalPci } from './open-physical-pci.ts';
import { openVfioPci } from './open-vfio-pci.ts';
import { describePciDevice } from './pci-devices.ts';
import { PhysicalHal } from './physical-hal.ts';
import { SystemFiles } from './system-files.ts';
import { VfioHal } from './vfio-hal.ts';
import { withHal } from './with-hal.ts';

/**
 * The address of a device: a PCI address (`0000:00:03.0`, `pci:0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`,
 * with a size other than 512 bytes `mmio:0xfeb00000+0x1000`, or an {@link MmioWindow}), or an entry of {@link listDevices}.
 */
export type DeviceAddress = string | MmioWindow | DeviceInfo;

/** An open device on PCI. */
export interface OpenPciDevice extends Disposable {
  /** Distinguishes it from an {@link OpenMmioDevice}. */
  readonly kind: 'pci';
  /** The transport of the device, for its driver. */
  readonly transport: PciTransport;
  /** The platform, with the memory that the device can reach: for its driver, and for buffers that are not copied. */
  readonly hal: LinuxHal;
}

/** An open device on MMIO. */
export interface OpenMmioDevice extends Disposable {
  /** Distinguishes it from an {@link OpenPciDevice}. */
  readonly kind: 'mmio';
  /** The transport of the device, for its driver. */
  readonly transport: MmioTransport;
  /** The platform, with the memory that the device can reach: for its driver, and for buffers that are not copied. */
  readonly hal: LinuxHal;
}

/** An open device on any transport; `kind` tells which. */
export type SomeTransport = OpenPciDevice | OpenMmioDevice;

/**
 * Opens a virtio device.
 *
 * Disposing the result resets the device, releases its registers, interrupts and DMA memory, and gives it back to its previous
 * kernel driver. Dispose the driver first, or let `using` do it in order: one that is left behind fails with `DEVICE_REMOVED`. What is
 * open when the process ends is disposed then.
 *
 * @param what a PCI address (`0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`), or a device that {@link listDevices}
 * described
 * @throws {@link VirtioError} `NO_DEVICE`, `INVALID_PARAM`; `MODULE_MISSING`, `IOMMU_MISSING`, `DEVICE_BUSY`,
 * `PERMISSION_DENIED`; the message says what to do about it
 *
 * @example
 * ```ts
 * import { openTransport } from '@virtio/linux';
 *
 * using device = openTransport('0000:00:03.0');
 * console.log(device.kind, device.transport.who(), device.transport.readDeviceFeatures());
 * ```
 */
export function openTransport(what: DeviceAddress, options: OpenOptions = {}): SomeTransport {
  const files = new SystemFiles();
  checkOptions(options);
  const place = parseAddress(what);
  return typeof place === 'string'
    ? openPciDevice(files, place, options)
    : openMmioDevice(files, place, options);
}

/** The addresses that begin with a word and a colon. */
const SCHEMES: Readonly<Record<string, (rest: string) => string | MmioWindow | undefined>> = {
  pci: (rest) => rest,
  mmio: (rest) => {
    const [, address, size = MMIO_SIZE] = /^(0x[0-9a-f]+)(?:\+(0x[0-9a-f]+|\d+))?$/i.exec(rest) ?? [];
    return address === undefined ? undefined : { address: Number(address), size: Number(size) };
  },
};

/** Addresses of devices that another package opens. */
const ELSEWHERE = 'vhost-user';

/** The size of a window with only a virtio device in it, as QEMU and kvmtool have. */
const MMIO_SIZE = 0x200;

const INTERRUPTS: readonly unknown[] = ['msix', 'intx', 'uio', 'polling', undefined];

/** For callers without types: with a kind that does not exist, no interrupt would ever come. */
function checkOptions({ interrupts }: OpenOptions): void {
  if (INTERRUPTS.includes(interrupts)) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `the option \`interrupts\` is ${String(interrupts)}; give 'msix', 'intx', 'uio' or 'polling', or leave it out for the best there is`,
  );
}

/** A PCI address, or a window of MMIO registers. */
function parseAddress(what: DeviceAddress): string | MmioWindow {
  if (typeof what !== 'string') return placeOf(what);
  const colon = what.indexOf(':');
  const name = colon < 0 ? '' : what.slice(0, colon);
  const scheme = Object.hasOwn(SCHEMES, name) ? SCHEMES[name] : undefined;
  if (name === ELSEWHERE) {
    throw new VirtioError(
      'INVALID_PARAM',
      `"${what}" is a device in another process; open it with openDriver or openVhostUser of @virtio/vhost-user`,
    );
  }
  if (scheme === undefined) return what;
  const place = scheme(what.slice(colon + 1));
  if (place !== undefined) return place;
  throw new VirtioError(
    'INVALID_PARAM',
    `"${what}" is not the address of a device; write 0000:00:03.0, or mmio:0xfeb00000 with the address of the first register`,
  );
}

/** The place of a device that was described, or of a window; checked for callers without types. */
function placeOf(what: unknown): string | MmioWindow {
  if (typeof what === 'object' && what !== null && 'address' in what) {
    const { address } = what;
    if (typeof address === 'string' && 'kind' in what && what.kind === 'pci') return address;
    if (typeof address === 'number' && 'size' in what && typeof what.size === 'number') {
      return { address, size: what.size };
    }
  }
  throw new VirtioError(
    'INVALID_PARAM',
    `a device's address was expected, not ${typeof what === 'object' ? 'this object' : `a value of type ${typeof what}`}; give a text ` +
      '(0000:00:03.0, mmio:0xfeb00000), an entry of listDevices(), or a window of MMIO registers: { address, size }, numbers of bytes',
  );
}

function openPciDevice(files: SystemFiles, address: string, options: OpenOptions): OpenPciDevice {
  const device = describePciDevice(files, address);
  if (options.unsafePhysicalMemory === true) {
    const open = (): PciTransport => openPhysicalPci(files, device, options);
    return { kind: 'pci', ...withHal(options, isPhysical, () => PhysicalHal.unsafe(), open) };
  }
  checkIommu(files, device);
  const open = (hal: VfioHal): PciTransport => openVfioPci(files, device, hal, options);
  return { kind: 'pci', ...withHal(options, isVfio, () => VfioHal.create(), open) };
}

function openMmioDevice(files: SystemFiles, window: MmioWindow, options: OpenOptions): OpenMmioDevice {
  const name = `MMIO 0x${window.address.toString(16)}`;
  if (options.unsafePhysicalMemory !== true) {
    throw new VirtioError(
      'IOMMU_MISSING',
      `${name} is not behind an IOMMU: its device uses physical addresses and can reach all memory of this machine. If that is ` +
        'acceptable, open it with { unsafePhysicalMemory: true }',
    );
  }
  if (options.interrupts !== undefined && options.interrupts !== 'polling') {
    throw new VirtioError(
      'UNSUPPORTED',
      `${name} cannot interrupt a process; open it with { interrupts: 'polling' }`,
    );
  }
  return {
    kind: 'mmio',
    ...withHal(
      options,
      isPhysical,
      () => PhysicalHal.unsafe(),
      () => openMmio(files, window, name),
    ),
  };
}

const isVfio = (hal: LinuxHal): hal is VfioHal => hal instanceof VfioHal;
const isPhysical = (hal: LinuxHal): hal is PhysicalHal => hal instanceof PhysicalHal;
