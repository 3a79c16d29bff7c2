/** What the commands share: their options, and how they open a device. */
import type { DeviceType, Hal, Transport } from '@virtio/core';
import { type Command, Option } from 'commander';
import { type Address, formatAddress, parseAddress } from './address.ts';
import { parseType } from './catalog.ts';
import { CliError, ExitStatus, usage } from './errors.ts';
import type { Host, OpenDevice, OpenHow } from './host.ts';
import type { PrintOptions } from './output.ts';

/** Options of commands that open a device. */
export interface DeviceOptions extends PrintOptions {
  readonly unsafePhysicalMemory?: boolean;
  readonly takeOver?: boolean;
  readonly interrupts?: 'msix' | 'intx' | 'uio' | 'polling';
  readonly without?: readonly string[];
  readonly type?: string;
}

/** Adds the options of every command. */
export function addPrintOptions(command: Command): Command {
  return command
    .option('--json', 'print JSON')
    .option('--color', 'use colours even if the output is not a terminal')
    .option('--no-color', 'use no colours, as with the variable NO_COLOR');
}

/** Adds the options of commands that open a device. */
export function addDeviceOptions(command: Command, { anyType = false } = {}): Command {
  const where = new Option('--interrupts <how>', 'how the device notifies the driver').choices([
    'msix',
    'intx',
    'uio',
    'polling',
  ]);
  const list = (text: string): string[] => text.split(',').filter((name) => name !== '');
  addPrintOptions(
    command
      .option('--unsafe-physical-memory', 'open without an IOMMU: the device can access all memory')
      .option('--take-over', "take the device from the kernel's driver, and give it back at the end")
      .addOption(where)
      .option('--without <features>', 'features to decline, such as RING_PACKED,EVENT_IDX', list),
  );
  if (anyType) {
    command.option(
      '--type <name>',
      'the device type, if the transport does not report it (vhost-user): blk, net, …',
    );
  }
  return command;
}

/** A driver that owns its device. */
interface Driver extends Disposable {
  readonly transport: Transport;
  readonly hal: Hal;
}

type DriverClass<D extends Driver> = new (transport: Transport, hal: Hal, options: never) => D;

/** Opens a device. */
export async function openDevice(
  { system }: Host,
  address: Address,
  options: DeviceOptions,
  type?: DeviceType,
): Promise<OpenDevice> {
  const deviceType = options.type === undefined ? type : parseType(options.type);
  if (address.kind === 'vhost-user' && deviceType === undefined) {
    throw usage('a vhost-user back end does not report its device type', 'add --type blk, net, …');
  }
  const uses = system.kernelDisks(address).flatMap((disk) => disk.uses);
  if (uses.length > 0) {
    throw new CliError(
      ExitStatus.REFUSED,
      `the kernel uses the disk at ${formatAddress(address)}: ${uses.join(', ')}`,
      'unmount it first; --take-over does not override this',
    );
  }
  const how: OpenHow = { ...options, deviceType };
  return system.openDevice(address, how);
}

/** An open device with its driver; disposing it disposes both, the driver first. */
export interface Opened<D> extends Disposable {
  readonly driver: D;
}

/** Opens a device with its driver. */
export async function openWith<D extends Driver>(
  host: Host,
  device: string,
  options: DeviceOptions,
  type: DeviceType,
  driver: DriverClass<D>,
  more: object = {},
): Promise<Opened<D>> {
  using stack = new DisposableStack();
  const open = stack.use(await openDevice(host, parseAddress(device), options, type));
  const { without = [] } = options;
  const opened = stack.use(new driver(open.transport, open.hal, { ...more, without } as never));
  const kept = stack.move();
  return {
    driver: opened,
    [Symbol.dispose]: () => {
      kept.dispose();
    },
  };
}
