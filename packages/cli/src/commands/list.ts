/** `virtio list`: lists the devices of this machine. */
import type { DeviceInfo } from '@virtio/linux';
import type { Command } from 'commander';
import { formatAddress } from '../address.ts';
import { bitNames } from '../bits.ts';
import { featureNames, typeName } from '../catalog.ts';
import { reportOf } from '../errors.ts';
import { remark } from '../help.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { addDeviceOptions, type DeviceOptions } from '../session.ts';

interface ListOptions extends DeviceOptions {
  readonly features?: boolean;
  readonly all?: boolean;
}

/** A row of the list. */
interface Row {
  readonly address: string;
  readonly type: string;
  readonly deviceType: number | undefined;
  readonly transport: string;
  /** The kernel's driver that has it. */
  readonly driver: string | undefined;
  readonly iommuGroup: number | undefined;
  readonly features: readonly string[] | undefined;
  /** Whether these are the features that the device offers, or those that the kernel's driver has negotiated. */
  readonly featuresOf: 'device' | 'kernel' | undefined;
  readonly problem: string | undefined;
}

/** Adds the command. */
export function addList(program: Command, host: Host): void {
  addDeviceOptions(
    program
      .command('list')
      .alias('ls')
      .description('list the devices of this machine, and their drivers')
      .option('--features', 'also read the features of free devices, which opens and resets each')
      .option('--all', 'also list MMIO windows without a device')
      .addHelpText('after', ({ command }) =>
        remark(
          command,
          'For a device with a driver of the kernel, the features are those that this driver has negotiated.',
        ),
      ),
  ).action((options: ListOptions) => list(host, options));
}

async function list(host: Host, options: ListOptions): Promise<void> {
  const printer = new Printer(host, options);
  const devices = host.system
    .listDevices()
    .filter(({ deviceType }) => options.all === true || deviceType !== 0);
  const rows: Row[] = [];
  for (const device of devices) rows.push(await rowOf(host, device, options));
  printer.result(rows);
  if (rows.length === 0) {
    printer.note(
      'no virtio devices: none on PCI, and no MMIO window in ACPI, the kernel command line or a device tree',
    );
    return;
  }
  const { colors } = printer;
  printer.table(
    ['ADDRESS', 'TYPE', 'TRANSPORT', 'DRIVER', 'GROUP', 'FEATURES'],
    rows.map((row) => [
      colors.cyan(row.address),
      row.type,
      row.transport,
      row.driver ?? colors.dim('-'),
      row.iommuGroup === undefined ? colors.dim('-') : String(row.iommuGroup),
      row.problem === undefined ? (row.features?.join(' ') ?? colors.dim('-')) : colors.yellow(row.problem),
    ]),
  );
  if (options.features !== true && rows.some(({ features }) => features === undefined)) {
    printer.note('virtio list --features also reads the features of free devices');
  }
}

async function rowOf(host: Host, device: DeviceInfo, options: ListOptions): Promise<Row> {
  const { deviceType, driver } = device;
  const row = {
    address: formatAddress(device),
    type: typeName(deviceType),
    deviceType,
    transport: transportOf(device),
    driver,
    iommuGroup: device.kind === 'pci' ? device.iommuGroup : undefined,
  };
  const none = { features: undefined, featuresOf: undefined, problem: undefined };
  if (deviceType === undefined || deviceType === 0) return { ...row, ...none };
  const table = await featureNames(deviceType);
  const address =
    device.kind === 'pci'
      ? ({ kind: 'pci', address: device.address } as const)
      : ({ kind: 'mmio', address: device.address, size: device.size } as const);
  const kernel = host.system.kernelFeatures(address);
  if (kernel !== undefined) {
    return { ...row, features: bitNames(table, kernel), featuresOf: 'kernel', problem: undefined };
  }
  if (options.features !== true) return { ...row, ...none };
  try {
    using open = await host.system.openDevice(address, options);
    const offered = open.transport.readDeviceFeatures();
    return { ...row, features: bitNames(table, offered), featuresOf: 'device', problem: undefined };
  } catch (error) {
    const { code, advice } = reportOf(error);
    return { ...row, ...none, problem: advice === undefined ? code : `${code}: ${advice}` };
  }
}

function transportOf(device: DeviceInfo): string {
  if (device.kind === 'mmio') return `mmio (${device.source})`;
  return device.transitional ? 'pci, transitional' : 'pci';
}
