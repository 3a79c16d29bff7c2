/**
 * Turns the devices of tests into QEMU's arguments and tells where the guest will find each of them. One guest carries the
 * devices of many tests, as a boot costs more than most tests do.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { escape } from '../boot/qemu-args.ts';
import type { BackendProgram, Cell, DeviceSpec, GuestTest, Properties } from './define.ts';
import { prepareDisk, type PreparedDisk } from './disk-image.ts';
import type { PlannedLocation } from './runner-protocol.ts';

/** A device of a test, ready to be given to QEMU. */
export interface PlannedDevice {
  readonly id: string;
  readonly location: PlannedLocation;
  readonly disk: PreparedDisk | undefined;
  readonly backend: PlannedBackend | undefined;
}

/** A program that is a device, ready to be started. */
export interface PlannedBackend {
  readonly program: BackendProgram;
  readonly args: readonly string[];
  /** The path of the socket on which it listens. */
  readonly socket: string;
}

/** A test with its devices. */
export interface PlannedTest {
  readonly test: GuestTest;
  readonly directory: string;
  readonly devices: ReadonlyMap<string, PlannedDevice>;
  /** QEMU's arguments for all of them. */
  readonly args: readonly string[];
  /** Variables of QEMU's environment. */
  readonly environment: Readonly<Record<string, string>>;
}

/** PCI slots 1 to 30 are free on q35; microvm has 24 windows with its second I/O APIC, the last of which stays empty for a test. */
const SLOTS = { q35: 30, microvm: 23 } as const;
/** Where QEMU's microvm puts its windows of registers when it has ACPI. */
const MMIO_BASE = 0xfeb00000;
const MMIO_SIZE = 512;

/** Cuts a list of tests into portions whose devices fit in one guest. */
export function portions<T extends { readonly test: GuestTest }>(
  tests: readonly T[],
  machine: Cell['machine'],
): T[][] {
  const result: T[][] = [];
  let free = 0;
  for (const item of tests) {
    const { test } = item;
    const needed = Object.keys(test.devices).length;
    if (needed > SLOTS[machine]) {
      throw new Error(`'${test.name}' needs ${needed} devices; a guest has room for ${SLOTS[machine]}.`);
    }
    if (needed > free || result.length === 0) {
      result.push([]);
      free = SLOTS[machine];
    }
    result.at(-1)?.push(item);
    free -= needed;
  }
  return result;
}

/** Where a device goes. */
export interface Slot {
  /** QEMU's arguments for what the device is behind. */
  readonly args: readonly string[];
  /** The device's properties for its place. */
  readonly bus: string;
  readonly location: PlannedLocation;
}

/** Hands out places for devices. */
export interface Slots {
  /** The next place: the device's bus and address for QEMU, and where the guest finds it. */
  take(id: string, hotplug: boolean): Slot;
}

/** Hands out slots of the Linux guests. */
export class SlotAllocator implements Slots {
  readonly #machine: Cell['machine'];
  #next = 0;

  constructor(machine: Cell['machine']) {
    this.#machine = machine;
  }

  take(id: string, hotplug: boolean): Slot {
    const slot = this.#next++;
    if (this.#machine === 'microvm') {
      const address = MMIO_BASE + slot * MMIO_SIZE;
      return {
        args: [],
        bus: `bus=virtio-mmio-bus.${slot}`,
        location: { kind: 'mmio', address, size: MMIO_SIZE },
      };
    }
    const number = (slot + 1).toString(16).padStart(2, '0');
    const address = `0000:00:${number}.0`;
    if (!hotplug) return { args: [], bus: `bus=pcie.0,addr=0x${number}`, location: { kind: 'pci', address } };
    const port = `${id}-port`;
    return {
      args: [
        '-device',
        `pcie-root-port,id=${port},bus=pcie.0,addr=0x${number},chassis=${slot + 1},slot=${slot + 1}`,
      ],
      bus: `bus=${port}`,
      location: { kind: 'pci-behind-port', port: address },
    };
  }
}

/** Makes the files of a test and its arguments for QEMU. */
export async function planTest(
  test: GuestTest,
  number: number,
  cell: Cell,
  slots: Slots,
  parent: string,
): Promise<PlannedTest> {
  const directory = join(parent, `t${number}`);
  mkdirSync(directory);
  await test.prepare?.(directory);
  const devices = new Map<string, PlannedDevice>();
  const args: string[] = [];
  const environment: Record<string, string> = {};
  for (const [name, spec] of Object.entries(test.devices)) {
    const id = `t${number}-${name}`;
    const { args: portArgs, bus, location } = slots.take(id, spec.hotplug === true);
    const prepared = spec.disk === undefined ? undefined : await prepareDisk(spec.disk, id, directory);
    const fill = (word: string): string =>
      word.replaceAll('{id}', id).replaceAll('{dir}', () => escape(directory));
    const properties = {
      ...cell.ring.properties,
      ...spec.properties,
      ...(prepared === undefined ? {} : { drive: prepared.nodeName }),
    };
    args.push(...portArgs, ...(prepared?.args ?? []), ...(spec.before ?? []).map(fill));
    args.push('-device', `${deviceName(spec, cell)},id=${id},${bus}${formatProperties(properties)}`);
    args.push(...(spec.after ?? []).map(fill));
    const path = (word: string): string => word.replaceAll('{dir}', directory);
    const backend = spec.backend && {
      program: spec.backend.program,
      args: spec.backend.args.map(path),
      socket: path(spec.backend.socket),
    };
    for (const [variable, value] of Object.entries(spec.environment ?? {})) {
      environment[variable] = value.replaceAll('{dir}', directory);
    }
    devices.set(name, { id, location, disk: prepared, backend });
  }
  return { test, directory, devices, args, environment };
}

function deviceName({ model }: DeviceSpec, { machine }: Cell): string {
  return `${model}${machine === 'q35' ? '-pci' : '-device'}`;
}

/** `,name=value` for each property. */
export function formatProperties(properties: Properties): string {
  return Object.entries(properties)
    .map(
      ([name, value]) =>
        `,${name}=${typeof value === 'boolean' ? (value ? 'on' : 'off') : escape(String(value))}`,
    )
    .join('');
}
