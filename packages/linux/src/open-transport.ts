/** Opens a virtio device of this machine, through VFIO, sysfs or /dev/mem. */
import { type Transport, VirtioError } from '@virtio/core';
import type { MmioTransport } from '@virtio/mmio';
import type { PciTransport } from '@virtio/pci';
import type { DeviceInfo } from './discovery.ts';
import { disposeAtExit } from './exit-cleanup.ts';
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

/**
 * Where a device is: a PCI address (`0000:00:03.0`, `pci:0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`, with a size
 * other than 512 bytes `mmio:0xfeb00000+0x1000`, or the {@link MmioWindow}), or what {@link listDevices} described.
 */
export type DeviceAddress = string | MmioWindow | DeviceInfo;

/** An open device on PCI. */
export interface OpenPciDevice extends Disposable {
  /** Tells it from an {@link OpenMmioDevice}. */
  readonly kind: 'pci';
  /** The way to the device's registers, for its driver. */
  readonly transport: PciTransport;
  /** The memory that the device reaches, for its driver and for buffers without a copy. */
  readonly hal: LinuxHal;
}

/** An open device on MMIO. */
export interface OpenMmioDevice extends Disposable {
  /** Tells it from an {@link OpenPciDevice}. */
  readonly kind: 'mmio';
  /** The way to the device's registers, for its driver. */
  readonly transport: MmioTransport;
  /** The memory that the device reaches, for its driver and for buffers without a copy. */
  readonly hal: LinuxHal;
}

/** An open device on any transport; `kind` tells which. */
export type SomeTransport = OpenPciDevice | OpenMmioDevice;

/**
 * Opens a virtio device.
 *
 * Disposing the result resets the device, releases its registers, interrupts and DMA memory, and gives it back to the kernel
 * driver that it had. Dispose the driver first, or let `using` do it in order. What is open when the process ends is disposed
 * then.
 *
 * @param what a PCI address (`0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`), or a device that {@link listDevices}
 * described
 * @throws {@link VirtioError} `NO_DEVICE`, `INVALID_PARAM`; `MODULE_MISSING`, `IOMMU_MISSING`, `DEVICE_BUSY`, `PERMISSION_DENIED`
 * with what to do about it
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

/** What cannot be opened in place. */
const ELSEWHERE = 'vhost-user';

/** The size of a window in which nothing but a virtio device is: QEMU's and kvmtool's. */
const MMIO_SIZE = 0x200;

/** A PCI address, or a window of MMIO registers. */
function parseAddress(what: DeviceAddress): string | MmioWindow {
  if (typeof what !== 'string') return 'kind' in what && what.kind === 'pci' ? what.address : what;
  const colon = what.indexOf(':');
  const name = what.slice(0, colon);
  const scheme = SCHEMES[name];
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

/** Opens with the Hal of the options, or with one that lives as long as the device. */
function withHal<T extends Transport, H extends LinuxHal>(
  { hal: given }: OpenOptions,
  fits: (hal: LinuxHal) => hal is H,
  create: () => H,
  open: (hal: H) => T,
): { readonly transport: T; readonly hal: H } & Disposable {
  if (given !== undefined && !fits(given)) {
    throw new VirtioError(
      'INVALID_PARAM',
      'the Hal of another device was given, but one of the two devices is behind the IOMMU and the other uses physical memory; ' +
        'open each with a Hal of its own',
    );
  }
  const hal = given ?? create();
  let transport: T;
  try {
    transport = open(hal);
  } catch (error) {
    if (given === undefined) hal[Symbol.dispose]();
    throw error;
  }
  const close = (): void => {
    forget();
    let stopped = false;
    try {
      transport[Symbol.dispose]();
      stopped = true;
    } finally {
      // A device that did not stop may still write to physical memory; VFIO keeps it from ours.
      if (given === undefined && (stopped || hal instanceof VfioHal)) hal[Symbol.dispose]();
    }
  };
  const forget = disposeAtExit({ [Symbol.dispose]: close });
  return { transport, hal, [Symbol.dispose]: close };
}
