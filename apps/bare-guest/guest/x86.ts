/**
 * Devices of x86-64 machines. `microvm` names its MMIO devices on the command line and has an I/O APIC; a PC has PCI, in memory by
 * the table MCFG, or by the I/O ports where there is none, and devices send messages (MSI-X) to the processor.
 */
import {
  commandLineDevices,
  type EcamRange,
  ecamRanges,
  findRootPointer,
  type InterruptController,
  InterruptRouter,
  type ReadMemory,
} from '@virtio/bare';
import type { RegisterWindow } from '@virtio/core';
import { CAM_FUNCTION_SIZE, type ConfigAccess, MmioCam, PciRoot } from '@virtio/pci';
import { PortCam, PortRegion } from '@virtio/pci-x86';
import {
  type BareDevice,
  hal,
  type MessageTarget,
  messages,
  mmioDevice,
  pciDevices,
  polling,
} from './devices.ts';
import { machine, type X86Machine } from './machine.ts';
import { drainConsole, loop, setInterrupts } from './prelude.ts';

/** Offsets in the start information of PVH. */
const PVH = { MAGIC: 0x336ec578, COMMAND_LINE: 24, ROOT_POINTER: 32, SIZE: 56 } as const;
const LOCAL_APIC = 0xfee0_0000;
const IO_APIC = 0xfec0_0000;
/** The register that says how many lines it has. */
const IO_APIC_VERSION = 1;
/** Vectors of the processor: those of the I/O APIC's lines, then those of messages. */
const FIRST_LINE = 0x30;
const FIRST_MESSAGE = 0x60;
const LAST_MESSAGE = 0xef;
/** The first serial port's. */
const CONSOLE_LINE = 4;
const FOREVER = 0x7fff_ffff;

const read: ReadMemory = (address, size) =>
  address + size <= 2 ** 32 ? new Uint8Array(machine.map(address, size)) : undefined;

/** The local APIC, as the native layer passes its vectors on. */
class Vectors implements InterruptController {
  readonly #machine: X86Machine;

  constructor(x86: X86Machine) {
    this.#machine = x86;
  }

  enable(): void {
    // Vectors come as soon as something sends them.
  }

  disable(): void {
    // What comes without a handler is counted and forgotten.
  }

  claim(): number {
    return this.#machine.interrupt();
  }

  complete(): void {
    // The native layer has told the APIC.
  }
}

/** All virtio devices of the machine. */
export function discoverX86(x86: X86Machine): readonly BareDevice[] {
  const router = new InterruptRouter(new Vectors(x86), loop);
  setInterrupts(() => router.poll(), FOREVER);
  routeLine(CONSOLE_LINE);
  router.mmio(FIRST_LINE + CONSOLE_LINE).onLine(drainConsole);
  const info = new DataView(machine.map(machine.bootInfo, PVH.SIZE));
  if (info.getUint32(0, true) !== PVH.MAGIC) {
    throw new Error('the machine was not started by the PVH protocol');
  }
  const commandLine = textAt(address(info, PVH.COMMAND_LINE));
  const devices = commandLineDevices(commandLine).flatMap(({ address, size, interrupt }) => [
    ...mmioDevice(address, size, () => {
      routeLine(interrupt);
      return router.mmio(FIRST_LINE + interrupt);
    }),
  ]);
  if (devices.length > 0) return devices;
  const rootPointer = address(info, PVH.ROOT_POINTER) || findRootPointer(read);
  const [ecam] = rootPointer === undefined ? [] : ecamRanges(read, rootPointer);
  const access = configAccess(x86, ecam);
  const mapPorts = (port: number, count: number): RegisterWindow => new PortRegion(x86, port, count);
  return [
    ...pciDevices(
      new PciRoot(access, ecam?.segment, ecam?.firstBus),
      mapPorts,
      (at) => messages(access, at, router, localApic) ?? polling(),
    ),
  ];
}

/** The ways to configuration space that the machine has: in memory, else by ports. */
export function configAccess(x86: X86Machine, ecam: EcamRange | undefined): ConfigAccess {
  if (ecam === undefined) return new PortCam(x86);
  const { firstBus, lastBus } = ecam;
  const bus = 256 * CAM_FUNCTION_SIZE.ecam;
  const window = hal.mapRegisters(ecam.address + firstBus * bus, (lastBus - firstBus + 1) * bus);
  return new MmioCam(window, 'ecam', firstBus);
}

/** The local APIC takes messages: their data is a vector of the processor. */
const localApic: MessageTarget & { next: number } = {
  messageAddress: LOCAL_APIC,
  next: FIRST_MESSAGE,
  take(count) {
    if (this.next + count - 1 > LAST_MESSAGE) return undefined;
    const first = this.next;
    this.next += count;
    return Array.from({ length: count }, (_, index) => first + index);
  },
};

/** Lets a line of the I/O APIC through, as an edge: the device releases it when its status is acknowledged. */
function routeLine(line: number): void {
  const registers = hal.mapRegisters(IO_APIC, 0x20);
  const set = (index: number, value: number): void => {
    registers.write32(0, index);
    registers.write32(0x10, value);
  };
  registers.write32(0, IO_APIC_VERSION);
  const last = (registers.read32(0x10) >>> 16) & 0xff;
  if (line > Math.min(last, FIRST_MESSAGE - FIRST_LINE - 1)) {
    throw new Error(`there is no line ${line}; the I/O APIC has lines 0 to ${last}`);
  }
  set(0x10 + 2 * line + 1, 0);
  set(0x10 + 2 * line, FIRST_LINE + line);
}

/** An address of 64 bits; 0 if the processor does not reach it here. */
function address(info: DataView, at: number): number {
  return info.getUint32(at + 4, true) === 0 ? info.getUint32(at, true) : 0;
}

const MAX_COMMAND_LINE = 4096;

function textAt(start: number): string {
  const bytes = start === 0 ? undefined : read(start, Math.min(MAX_COMMAND_LINE, 2 ** 32 - start));
  if (bytes === undefined) return '';
  let text = '';
  for (const byte of bytes) {
    if (byte === 0) break;
    text += String.fromCharCode(byte);
  }
  return text;
}
