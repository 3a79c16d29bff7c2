/** `virtio probe`: shows all that a device reports, and the state of its driver. */
import { PollingInterrupts, type TraceEvent, traceTransport, VirtioError } from '@virtio/core';
import type { Command } from 'commander';
import { formatAddress, parseAddress } from '../address.ts';
import { bitNames } from '../bits.ts';
import { type Facts, featureNames, findEntry, typeName } from '../catalog.ts';
import { messageOf } from '../errors.ts';
import type { Host, OpenDevice } from '../host.ts';
import { Printer } from '../output.ts';
import { formatSize } from '../quantities.ts';
import { type Remark, remarksOn, remarksOnConfig } from '../remarks.ts';
import { addDeviceOptions, type DeviceOptions, openDevice } from '../session.ts';

/** A queue of the device. */
interface QueueFacts {
  readonly index: number;
  /** The largest size that the device supports. */
  readonly max: number;
  /** The size that the driver uses; undefined if it does not use the queue. */
  readonly size: number | undefined;
}

/** The report on a device. The issue template asks for it; it has no contents of disks or files. */
export interface Probe {
  readonly address: string;
  readonly name: string;
  readonly type: string;
  readonly deviceType: number;
  readonly transport: Facts;
  readonly features: {
    readonly offered: readonly string[];
    readonly negotiated: readonly string[];
    readonly declined: readonly string[];
  };
  readonly configSize: number;
  readonly config: Facts;
  readonly queues: readonly QueueFacts[];
  readonly remarks: readonly Remark[];
}

/** The largest number of queues to show. */
const MOST_QUEUES = 1024;

/** How long a device may take to answer the first requests, in milliseconds. */
const PATIENCE_MS = 10_000;

/** Adds the command. */
export function addProbe(program: Command, host: Host): void {
  addDeviceOptions(
    program
      .command('probe')
      .description('negotiate with a device, and show its configuration, its queues and its problems')
      .argument('<device>', 'the address of the device'),
    { anyType: true },
  ).action(async (device: string, options: DeviceOptions) => {
    const printer = new Printer(host, options);
    const found = await probe(host, device, options);
    printer.result(found);
    show(printer, found);
  });
}

/** Probes a device. It is reset before and afterwards. */
export async function probe(host: Host, device: string, options: DeviceOptions): Promise<Probe> {
  const address = parseAddress(device);
  using open = await openDevice(host, address, options);
  const { transport } = open;
  const { deviceType } = transport;
  const table = await featureNames(deviceType);

  transport.reset();
  const status = transport.getStatus().bits;
  const offered = transport.readDeviceFeatures();
  const again = transport.readDeviceFeatures();
  const max: number[] = [];
  for (let index = 0; index < MOST_QUEUES; index += 1) {
    const size = transport.maxQueueSize(index);
    if (size === 0) break;
    max.push(size);
  }
  const legacy = transport.requiresLegacyLayout();
  const remarks = remarksOn(table, { offered, again, status, queues: max, legacy });
  const config = await withDriver(host, open, options, remarks);
  const { negotiated } = config;
  return {
    address: formatAddress(address),
    name: transport.name,
    type: typeName(deviceType),
    deviceType,
    transport: transportFacts(open),
    features: {
      offered: bitNames(table, offered),
      negotiated: bitNames(table, negotiated),
      declined: bitNames(table, offered & ~negotiated),
    },
    configSize: transport.configSize,
    config: config.facts,
    queues: max.map((size, index) => ({ index, max: size, size: config.sizes.get(index) })),
    remarks,
  };
}

/** Runs the driver, and adds its remarks. */
async function withDriver(
  host: Host,
  { transport, hal }: OpenDevice,
  { without = [] }: DeviceOptions,
  remarks: Remark[],
): Promise<{ facts: Facts; negotiated: bigint; sizes: ReadonlyMap<number, number> }> {
  const sizes = new Map<number, number>();
  const entry = await findEntry(transport.deviceType);
  if (entry === undefined) {
    const text = 'there is no driver for this device type, so nothing was negotiated';
    remarks.push({ level: 'info', section: '5', text });
    return { facts: {}, negotiated: 0n, sizes };
  }
  const note = (event: TraceEvent): void => {
    if (event.kind !== 'register' || event.access !== 'write' || event.queue === undefined) return;
    if (/^queue_?(?:size|num)$/i.test(event.register)) sizes.set(event.queue, Number(event.value));
  };
  const traced = traceTransport(transport, hal, note);
  const patience = AbortSignal.timeout(PATIENCE_MS);
  let negotiated = 0n;
  try {
    using driver = entry.open(traced.transport, traced.hal, without);
    driver.on('quirk', ({ queue, message }) => {
      remarks.push({ level: 'warning', section: '2.7', text: `queue ${queue}: ${message}` });
    });
    negotiated = driver.features.bits;
    remarks.push(...remarksOnConfig(transport));
    const facts = await entry.describe(driver, AbortSignal.any([host.signal, patience]));
    return { facts, negotiated, sizes };
  } catch (error) {
    if (patience.aborted && !host.signal.aborted && VirtioError.is(error, 'ABORTED')) {
      const text = `the device did not answer a first request within ${PATIENCE_MS / 1000} s`;
      remarks.push({ level: 'error', section: '2.7', text });
      return { facts: {}, negotiated, sizes };
    }
    // A device that the driver refuses is a result, too; arguments that it refuses are not.
    if (!VirtioError.is(error) || error.code === 'ABORTED' || error.code === 'INVALID_PARAM') throw error;
    remarks.push({ level: 'error', section: '3.1.1', text: `${error.code}: ${messageOf(error)}` });
    return { facts: {}, negotiated, sizes };
  }
}

/** The properties of the transport, as plain values. */
function transportFacts({ transport }: OpenDevice): Facts {
  const { interrupts } = transport;
  const facts: Facts = {
    kind: transport.name.split(' ')[0]?.toLowerCase(),
    legacy: transport.requiresLegacyLayout(),
    interrupts:
      interrupts === undefined ? 'none' : interrupts instanceof PollingInterrupts ? 'polling' : 'yes',
  };
  const { info, version } = transport as { info?: { toString(): string }; version?: number };
  if (info !== undefined) facts.pci = String(info);
  if (version !== undefined) facts.version = version;
  return facts;
}

function show(printer: Printer, found: Probe): void {
  const { colors } = printer;
  const title = (text: string): void => {
    printer.line();
    printer.line(colors.bold(text));
  };
  printer.line(`${colors.cyan(found.address)} ${found.type} device`);
  for (const [name, value] of Object.entries(found.transport)) printer.line(`  ${name}: ${String(value)}`);
  title('Features');
  const { offered, negotiated } = found.features;
  for (const name of offered) {
    printer.line(
      negotiated.includes(name)
        ? `  ${colors.green('+')} ${name}`
        : `  ${colors.dim('-')} ${colors.dim(name)}`,
    );
  }
  title(`Configuration (${formatSize(found.configSize)})`);
  printer.table([], factRows(found.config));
  title('Queues');
  printer.table(
    ['  QUEUE', 'LARGEST', 'SET UP'],
    found.queues.map(({ index, max, size }) => [
      `  ${index}`,
      String(max),
      size === undefined ? '-' : String(size),
    ]),
  );
  title('Conformance');
  if (found.remarks.length === 0) printer.line('  nothing to remark');
  for (const { level, section, text } of found.remarks) {
    const color = { error: colors.red, warning: colors.yellow, info: colors.dim }[level];
    printer.line(`  ${color(level)}: ${text} [${section}]`);
  }
}

/** Facts as rows; names of nested ones start with the names of those around them. */
function factRows(facts: Facts, prefix = '  '): string[][] {
  return Object.entries(facts).flatMap(([name, value]) => {
    if (value === undefined) return [];
    if (isPlain(value)) return factRows(value, `${prefix}${name}.`);
    const text = Array.isArray(value) ? value.map(textOf).join(', ') : textOf(value);
    return [[`${prefix}${name}`, text === '' ? '-' : text]];
  });
}

function isPlain(value: unknown): value is Facts {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOf).join(' ');
  if (!isPlain(value)) return String(value);
  return Object.entries(value)
    .filter(([, part]) => part !== undefined)
    .map(([name, part]) => `${name} ${textOf(part)}`)
    .join(' ');
}
