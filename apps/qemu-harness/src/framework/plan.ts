/**
 * Turns the devices of tests into QEMU's arguments and tells where the guest will find each of them. One guest carries the
 * devices of many tests, as a boot costs more than most tests do.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { escape } from '../boot/qemu-args.ts';
import type { CpioEntry } from '../image/cpio.ts';
import {
  type BackendProgram,
  type Cell,
  type DeviceSpec,
  type GuestTest,
  onPci,
  type Properties,
} from './define.ts';
import { prepareDisk, type PreparedDisk } from './disk-image.ts';
import { mmioWindows } from './mmio-windows.ts';
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
  /** What it wants to find in the guest. */
  readonly files: readonly CpioEntry[];
  /** QEMU's arguments for all of them. */
  readonly args: readonly string[];
  /** Variables of QEMU's environment. */
  readonly environment: Readonly<Record<string, string>>;
}

/** PCI slots 1 to 30 are free on all boards. */
const PCI_SLOTS = 30;

/** The kind of guest as far as it decides where devices are. */
type Board = Pick<Cell, 'arch' | 'transport'>;

/** How many devices a kind of guest has room for. Of its MMIO windows the last one stays empty for a test. */
export function slotsOf(board: Board): number {
  return onPci(board) ? PCI_SLOTS : mmioWindows(board).count - 1;
}

/** Why a kind of guest cannot run a test, or `undefined` if it can. */
export function reasonAgainst(test: GuestTest, cell: Cell): string | undefined {
  const needed = Object.keys(test.devices).length;
  const slots = slotsOf(cell);
  return (
    test.skip?.(cell) ??
    (needed > slots ? `it needs ${needed} devices; the machine has room for ${slots}` : undefined)
  );
}

/** Whether a guest can have a test once only: QEMU has something of its devices, or a variable of its environment, once a machine. */
function isOnceAMachine({ devices }: GuestTest): boolean {
  return Object.values(devices).some(
    ({ onceAMachine, environment }) => onceAMachine === true || environment !== undefined,
  );
}

/**
 * Cuts a list of tests into portions whose devices fit in one guest, which has room for `slots` of them. A portion may have a test twice, with
 * two kinds of rings.
 */
export function portions<T extends { readonly test: GuestTest }>(tests: readonly T[], slots: number): T[][] {
  const result: { free: number; readonly items: T[] }[] = [];
  for (const item of tests) {
    const { test } = item;
    const needed = Object.keys(test.devices).length;
    const once = isOnceAMachine(test);
    if (needed > slots) {
      throw new Error(`'${test.name}' needs ${needed} devices; a guest has room for ${slots}.`);
    }
    // The first guest with room: each one less is a boot less.
    let portion = result.find(
      ({ free, items }) => free >= needed && !(once && items.some((other) => other.test === test)),
    );
    if (portion === undefined) {
      portion = { free: slots, items: [] };
      result.push(portion);
    }
    portion.items.push(item);
    portion.free -= needed;
  }
  return result.map(({ items }) => items);
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
  readonly #board: Board;
  #next = 0;

  constructor(board: Board) {
    this.#board = board;
  }

  take(id: string, hotplug: boolean): Slot {
    const slot = this.#next++;
    if (!onPci(this.#board)) {
      const { base, size } = mmioWindows(this.#board);
      const location = { kind: 'mmio', address: base + slot * size, size } as const;
      return { args: [], bus: `bus=virtio-mmio-bus.${slot}`, location };
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
  return { test, directory, devices, files: guestFiles(directory), args, environment };
}

/** What {@link GuestTest.prepare} has left for the guest. */
function guestFiles(directory: string): CpioEntry[] {
  const folder = join(directory, 'guest');
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((name) => {
    return { type: 'file', path: `guest/${name}`, data: readFileSync(join(folder, name)) };
  });
}

function deviceName({ model }: DeviceSpec, cell: Cell): string {
  return `${model}${onPci(cell) ? '-pci' : '-device'}`;
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
