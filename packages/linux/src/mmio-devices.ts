/**
 * Virtio devices on MMIO. Nothing on such a machine can be enumerated, so the windows are found where the machine announces
 * them: in ACPI, on the kernel's command line, and in the device tree.
 */
import type { DeviceType } from '@virtio/core';
import { deviceTreeWindows } from './device-tree.ts';
import type { SystemFiles } from './system-files.ts';

/** A window of registers. */
export interface MmioWindow {
  /** Its physical address. */
  readonly address: number;
  /** Bytes. */
  readonly size: number;
}

/** A window in which a virtio device may be. */
export interface MmioDeviceInfo extends MmioWindow {
  /** Distinguishes it from a `PciDeviceInfo`. */
  readonly kind: 'mmio';
  /** Where it was found. */
  readonly source: 'acpi' | 'command-line' | 'device-tree';
  /** The interrupt, if the source has it: as the command line or the device tree numbers it. */
  readonly interrupt: number | undefined;
  /** The kernel's driver for it, if it has one. */
  readonly driver: string | undefined;
  /**
   * The type of the device in it: 0 if the window is empty, `undefined` if it is not known. It is read from the registers, which
   * needs root.
   */
  readonly deviceType: DeviceType | 0 | undefined;
}

type Announced = Omit<MmioDeviceInfo, 'kind' | 'driver' | 'deviceType'> & { readonly platformName?: string };

/** The ACPI id of virtio MMIO devices. */
const ACPI_ID = 'LNRO0005';

/** All windows in the order of their addresses, each once. */
export function listMmioDevices(files: SystemFiles): MmioDeviceInfo[] {
  const announced: Announced[] = [
    ...acpiWindows(files.text('/proc/iomem') ?? ''),
    ...commandLineWindows(files.text('/proc/cmdline') ?? ''),
    ...deviceTreeWindows(files),
  ];
  const drivers = platformDrivers(files, announced);
  const seen = new Set<number>();
  return announced
    .filter(({ address }) => !seen.has(address) && seen.add(address))
    .sort((a, b) => a.address - b.address)
    .map(({ address, size, source, interrupt }) => ({
      kind: 'mmio',
      address,
      size,
      source,
      interrupt,
      driver: drivers.get(address),
      deviceType: undefined,
    }));
}

/**
 * The windows among the system's resources: lines as `feb00000-feb001ff : LNRO0005:00`, perhaps indented. A process that is
 * not privileged sees zeros.
 */
export function acpiWindows(iomem: string): Announced[] {
  return iomem.split('\n').flatMap((line) => {
    const [, first = '', last = '', name = ''] = /^\s*([0-9a-f]+)-([0-9a-f]+) : (\S+)$/i.exec(line) ?? [];
    if (!name.startsWith(`${ACPI_ID}:`)) return [];
    const address = Number.parseInt(first, 16);
    const end = Number.parseInt(last, 16);
    if (end === 0) return [];
    const size = end - address + 1;
    return [{ address, size, source: 'acpi' as const, interrupt: undefined, platformName: name }];
  });
}

/** Numbers as the kernel parses them: hexadecimal with 0x, octal with 0, else decimal. */
const NUMBER = '0x[0-9a-f]+|\\d+';
const PARAMETER = new RegExp(
  `^virtio[-_]mmio\\.device="?(${NUMBER})([kmgt]?)@(${NUMBER}):(\\d+)(?::(\\d+))?"?$`,
  'i',
);
const SUFFIXES = ['', 'k', 'm', 'g', 't'];

/**
 * The windows on the kernel's command line: `virtio_mmio.device=<size>@<address>:<interrupt>[:<id>]`, where sizes may end in K,
 * M, G or T. What follows `--` is not for the kernel. A device without an id has that of the one before plus 1.
 */
export function commandLineWindows(commandLine: string): Announced[] {
  const words = commandLine.split(/\s+/);
  const end = words.indexOf('--');
  let nextId = 0;
  return words.slice(0, end < 0 ? words.length : end).flatMap((word) => {
    const match = PARAMETER.exec(word);
    if (!match) return [];
    const [, size = '', suffix = '', address = '', interrupt = '', id = nextId] = match;
    const window = {
      address: kernelNumber(address),
      size: kernelNumber(size) * 1024 ** SUFFIXES.indexOf(suffix.toLowerCase()),
      source: 'command-line' as const,
      interrupt: Number(interrupt),
      platformName: `virtio-mmio.${id}`,
    };
    // The kernel refuses interrupt 0. A window that is empty or ends beyond 2^53 is ignored.
    if (window.interrupt === 0) return [];
    nextId = Number(id) + 1;
    return window.size > 0 && Number.isSafeInteger(window.address + window.size) ? [window] : [];
  });
}

/** `NaN` for digits that are not octal after a 0. */
function kernelNumber(text: string): number {
  return Number(/^0\d/.test(text) ? `0o${text}` : text);
}

/**
 * Which windows the kernel drives: platform devices have the names of ACPI, `virtio-mmio` and an id for those of the command line,
 * or begin with the address.
 */
function platformDrivers(files: SystemFiles, windows: readonly Announced[]): ReadonlyMap<number, string> {
  const names = files.list('/sys/bus/platform/devices');
  const drivers = new Map<number, string>();
  for (const { address, platformName } of windows) {
    const name = platformName ?? names.find((candidate) => candidate.startsWith(`${address.toString(16)}.`));
    const driver =
      name === undefined ? undefined : files.linkName(`/sys/bus/platform/devices/${name}/driver`);
    if (driver !== undefined) drivers.set(address, driver);
  }
  return drivers;
}
