/**
 * How a guest test is written: one definition with a part that runs in the guest and a part that runs on the host, side by
 * side. This module and everything a definition imports ends up in the guest too, so it holds types and data only; what
 * the host can do reaches its functions as an argument.
 */
import type { Architecture } from '../architecture.ts';
import type { Machine, TransportKind } from '../boot/qemu-args.ts';

/** A property of a QEMU device: `true` and `false` become `on` and `off`. */
export type Property = string | number | boolean;

/** Properties of a QEMU device by name. */
export type Properties = Readonly<Record<string, Property>>;

/** The format of the rings, and what is switched off for all devices of a run. */
export interface Ring {
  readonly name: string;
  /** Properties that each virtio device gets. */
  readonly properties: Properties;
}

/** One kind of guest in which tests run. */
export interface Cell {
  readonly arch: Architecture;
  readonly machine: Machine;
  readonly transport: TransportKind;
  readonly ring: Ring;
  /** The guest's engine interprets, on an emulated processor: what draws or moves much does so {@link small}. */
  readonly slow?: boolean;
}

/** Whether the devices of a kind of guest are on PCI. */
export function onPci({ transport }: Pick<Cell, 'transport'>): boolean {
  return transport === 'pci-vfio' || transport === 'pci-physical';
}

/** How much a test draws or moves: all of it, or little in a slow guest. What is judged, and how, stays the same. */
export function small<T>({ slow }: Cell, all: T, little: T): T {
  return slow === true ? little : all;
}

/** A device under test and what stands behind it on the host. */
export interface DeviceSpec {
  /** QEMU's name without the transport: `virtio-blk` becomes `virtio-blk-pci` or `virtio-blk-device`. */
  readonly model: string;
  readonly properties?: Properties;
  /** A disk image behind a block device. */
  readonly disk?: DiskSpec;
  /**
   * QEMU arguments before and after the device. `{id}` is the device's id, `{dir}` the test's folder on the host.
   */
  readonly before?: readonly string[];
  readonly after?: readonly string[];
  /** Variables of QEMU's environment, `{dir}` filled in. All devices of a guest share it: what is set twice must mean the same. */
  readonly environment?: Readonly<Record<string, string>>;
  /** QEMU has something of it once a machine, such as the names of console ports: no guest has it twice, with two kinds of rings. */
  readonly onceAMachine?: boolean;
  /** Put the device behind a port of its own, so that it can be unplugged (PCI only). */
  readonly hotplug?: boolean;
  /** A program of the host that is the device (vhost-user), and shares the guest's memory. */
  readonly backend?: BackendSpec;
}

/** The programs that can be devices. */
export type BackendProgram = 'vhost-device-vsock' | 'virtiofsd';

/** The programs of the host that judge what came of a test. */
export type JudgeProgram = 'tcpdump';

/** A program that is a device. */
export interface BackendSpec {
  readonly program: BackendProgram;
  /** Its arguments; `{dir}` is the test's folder on the host. */
  readonly args: readonly string[];
  /** The socket on which it listens for QEMU, with `{dir}`. */
  readonly socket: string;
}

/** A disk image, made for the test. */
export interface DiskSpec {
  /** Bytes. */
  readonly size: number;
  readonly format?: 'raw' | 'qcow2';
  readonly readOnly?: boolean;
  /** Fill the image with {@link pattern} of this seed; left empty (sparse) otherwise. */
  readonly seed?: number;
  /** Errors to inject: requests of this kind fail, or those of them that touch this sector (of 512 bytes). */
  readonly errors?: readonly {
    readonly request: 'read' | 'write' | 'flush';
    readonly sector?: number;
    readonly errno: number;
  }[];
  /** Let this many requests a second pass, so that others stay in flight. */
  readonly iops?: number;
  /** Further members of QEMU's description of the block device, such as `discard`. */
  readonly options?: Readonly<Record<string, unknown>>;
}

/** A block device for {@link GuestTest.devices}. */
export function disk(spec: DiskSpec, properties: Properties = {}): DeviceSpec {
  return { model: 'virtio-blk', disk: spec, properties };
}

/** Where the guest finds a device: an address on the PCI bus, or a window of registers. */
export type DeviceLocation =
  | { readonly kind: 'pci'; readonly address: string }
  | { readonly kind: 'mmio'; readonly address: number; readonly size: number };

/** What host functions can do. */
export interface HostEnv {
  readonly cell: Cell;
  /** The test's folder on the host. */
  readonly directory: string;
  /** Runs a command of QEMU's machine protocol. */
  qmp(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  /** Waits for an event of that protocol. */
  qmpEvent(name: string, timeoutMs?: number): Promise<Readonly<Record<string, unknown>>>;
  /** The id of a device in QEMU. */
  deviceId(device: string): string;
  /** The name of the block device behind a disk. */
  nodeName(device: string): string;
  /** What the guest would read of a disk, as another program sees the image: bytes, of any format. */
  readImage(device: string, offset: number, length: number): Promise<Uint8Array>;
  /** The SHA-256 of the same. */
  hashImage(device: string, offset: number, length: number): Promise<string>;
  /** What `qemu-img map` says of a disk: extents in bytes. */
  mapImage(device: string): Promise<readonly ImageExtent[]>;
  /** Kills the program behind a device. */
  killBackend(device: string): Promise<void>;
  /** Starts the program behind a device again. */
  startBackend(device: string): Promise<void>;
  /** The command that runs a program of {@link GuestTest.programs}. */
  command(program: JudgeProgram): readonly string[];
  /** What QEMU has said on its standard error: complaints, and what is traced. */
  complaints(): string;
  /** Leaves a picture in the report, under this title. */
  picture(title: string, type: 'image/png' | 'image/svg+xml', bytes: Uint8Array): void;
}

/** An extent of an image. */
export interface ImageExtent {
  readonly start: number;
  readonly length: number;
  /** Whether the file holds bytes for it. */
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
}

/** The host's half of a test: functions that the guest's half calls by name. Arguments and results travel as JSON. */
export type HostFunctions = Readonly<Record<string, (args: never, env: HostEnv) => unknown>>;

/** What the guest's half of a test gets. */
export interface GuestContext<H extends HostFunctions = HostFunctions> {
  readonly cell: Cell;
  /** Where a device of the test is. */
  device(name: string): DeviceLocation;
  /** Calls a function of the host's half. */
  host<K extends keyof H & string>(name: K, ...args: HostArguments<H[K]>): Promise<HostResult<H[K]>>;
  /** Adds a line to the test's detail in the report. */
  note(line: string): void;
  /**
   * The arguments with which Node.js, or a worker thread whose file is the first of them, runs a function of
   * {@link GuestTest.apart}.
   */
  apart(name: string, args?: unknown): readonly [file: string, ...rest: string[]];
}

type HostArguments<F> = F extends (args: infer A, env: HostEnv) => unknown
  ? unknown extends A
    ? []
    : [args: A]
  : [];
type HostResult<F> = F extends (...args: never) => infer R ? Awaited<R> : never;

/** A test in a guest. */
export interface GuestTest<H extends HostFunctions = HostFunctions> {
  /** The device's package: `blk`. */
  readonly device: string;
  /** The behaviour that is shown. Unique within the device. */
  readonly name: string;
  /** The devices it needs, by a name of its own. No other test uses them. */
  readonly devices: Readonly<Record<string, DeviceSpec>>;
  /** Why the test does not run in a cell, or `undefined` if it does. */
  readonly skip?: (cell: Cell) => string | undefined;
  /**
   * Shows that the device works, one or two tests a device: `npm test` runs it in every kind of guest. `true`: so does `npm start`, in which
   * `'checks'` runs in the first kind alone.
   */
  readonly essential?: boolean | 'checks';
  /** Takes more than a few seconds. `npm start`, which shows that every device works, leaves it out; `npm test` runs it. */
  readonly long?: boolean;
  /** Only `--full`, or a filter that is a part of its name, runs it, not even `npm test`: another test shows the like in short. */
  readonly onlyFull?: boolean;
  /** Seconds after which it has failed. */
  readonly timeoutS?: number;
  /**
   * Prepares files in the test's folder on the host, before the guest boots. Those in its folder `guest` will be in the folder `/guest` of a
   * guest with Linux.
   */
  readonly prepare?: (directory: string) => void | Promise<void>;
  /** Programs that the host's half runs; they are fetched before. */
  readonly programs?: readonly JudgeProgram[];
  readonly host?: H;
  /** Functions that run in another process or thread of the guest; see {@link GuestContext.apart}. */
  readonly apart?: Readonly<Record<string, (args: never) => unknown>>;
  /** Runs in a process of its own in the guest. It passes if it returns. */
  readonly guest: (context: GuestContext<H>) => void | Promise<void>;
}

/** Defines a test. Write `host` before `guest`: so the guest's calls are checked against the host's functions. */
export function guestTest<const H extends HostFunctions>(test: GuestTest<H>): GuestTest {
  return test;
}

/**
 * Fills bytes with a pattern that differs in each 32-bit word and for each seed: both sides can make it, so that it need not
 * travel.
 *
 * @param position where in the whole the bytes are, in bytes; a multiple of 4
 */
export function pattern(bytes: Uint8Array, seed: number, position = 0): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let offset = 0; offset + 4 <= bytes.length; offset += 4) {
    let word = (Math.imul((position + offset) >>> 2, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b)) >>> 0;
    word = Math.imul(word ^ (word >>> 15), 0x2c1b3c6d);
    view.setUint32(offset, (word ^ (word >>> 13)) >>> 0, true);
  }
  return bytes;
}
