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
import type { InterruptSource, RegisterWindow } from '@virtio/core';
import {
  CAM_SIZE,
  type ConfigAccess,
  type DeviceFunction,
  MmioCam,
  MsixCapability,
  type PciInterrupts,
  PciRoot,
  physicalFunction,
} from '@virtio/pci';
import { PortCam, PortRegion } from '@virtio/pci-x86';
import { type BareDevice, hal, mmioDevice, pciDevices, polling } from './board.ts';
import { machine, type X86Machine } from './machine.ts';
import { drainConsole, loop, setInterrupts } from './prelude.ts';

/** Offsets in the start information of PVH. */
const PVH = { COMMAND_LINE: 24, ROOT_POINTER: 32 } as const;
const LOCAL_APIC = 0xfee0_0000;
const IO_APIC = 0xfec0_0000;
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
  const info = new DataView(machine.map(machine.bootInfo, 56));
  const commandLine = textAt(info.getUint32(PVH.COMMAND_LINE, true));
  const devices = commandLineDevices(commandLine).flatMap(({ address, size, interrupt }) => [
    ...mmioDevice(address, size, () => {
      routeLine(interrupt);
      return router.mmio(FIRST_LINE + interrupt);
    }),
  ]);
  if (devices.length > 0) return devices;
  const rootPointer = info.getUint32(PVH.ROOT_POINTER, true) || findRootPointer(read);
  const [ecam] = rootPointer === undefined ? [] : ecamRanges(read, rootPointer);
  const access = configAccess(x86, ecam);
  const mapPorts = (port: number, count: number): RegisterWindow => new PortRegion(x86, port, count);
  return [
    ...pciDevices(new PciRoot(access, ecam?.segment, ecam?.firstBus), mapPorts, (at) =>
      messages(access, at, router),
    ),
  ];
}

/** The ways to configuration space that the machine has: in memory, else by ports. */
export function configAccess(x86: X86Machine, ecam: EcamRange | undefined): ConfigAccess {
  if (ecam === undefined) return new PortCam(x86);
  return new MmioCam(hal.mapRegisters(ecam.address, CAM_SIZE.ecam), 'ecam');
}

let nextMessage = FIRST_MESSAGE;

/** MSI-X: each vector of the function gets one of the processor's. A function without it is polled. */
function messages(
  access: ConfigAccess,
  at: DeviceFunction,
  router: InterruptRouter,
): PciInterrupts | InterruptSource {
  const { config, bars, mapBar } = physicalFunction(access, at, hal);
  if (bars === undefined) return polling();
  const msix = MsixCapability.find(config, bars, mapBar, at.toString());
  if (msix === undefined || nextMessage + msix.size - 1 > LAST_MESSAGE) return polling();
  const first = nextMessage;
  nextMessage += msix.size;
  for (let vector = 0; vector < msix.size; vector += 1) {
    msix.setMessage(vector, LOCAL_APIC, first + vector);
    msix.unmask(vector);
  }
  msix.enable();
  return router.msix(Array.from({ length: msix.size }, (_, vector) => first + vector));
}

/** Lets a line of the I/O APIC through, as an edge: the device releases it when its status is acknowledged. */
function routeLine(line: number): void {
  const registers = hal.mapRegisters(IO_APIC, 0x20);
  const set = (index: number, value: number): void => {
    registers.write32(0, index);
    registers.write32(0x10, value);
  };
  set(0x10 + 2 * line + 1, 0);
  set(0x10 + 2 * line, FIRST_LINE + line);
}

function textAt(address: number): string {
  if (address === 0) return '';
  const bytes = new Uint8Array(machine.map(address, 4096));
  let text = '';
  for (const byte of bytes) {
    if (byte === 0) break;
    text += String.fromCharCode(byte);
  }
  return text;
}
