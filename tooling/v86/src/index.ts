/**
 * The VirtIO devices of v86, a PC emulator in JavaScript (npm's `v86`, BSD-2-Clause), for unit tests: devices and servers that
 * were not written in this project. Its processor never runs and no guest is booted: a test drives the devices by I/O ports and the
 * machine's memory, as a guest would, and a run takes milliseconds.
 *
 * What its devices do beyond the specification:
 * - They use memory from within a notification, and answer there and then, but for what its file system does with promises: 9P's
 *   open, read, write, rename and clunk. A driver that spins never sees an answer to those.
 * - The console's control queue (MULTIPORT) uses chains twice.
 * - The 9P server writes the file type of the mode into the type of a qid: directories are 0x40, files 0x80, links 0xa0. It
 *   ignores O_TRUNC, answers a walk that finds nothing with no qids instead of ENOENT, and never answers messages it does not know.
 */
import { type DeviceType, type Hal, PollingInterrupts, type RegisterWindow } from '@virtio/core';
import { PciRoot, PciTransport } from '@virtio/pci';
import { PortCam, PortRegion, type X86Ports } from '@virtio/pci-x86';
import { V86 } from 'v86';
import { readWasm, schedule } from '#platform';
import { instantiate } from './instantiate.ts';
import { MachineHal } from './hal.ts';

const MEMORY_SIZE = 64 << 20;

/** The part of the emulator's processor that its types leave out; the names are those of its release build. */
interface Cpu {
  readonly mem8: Uint8Array<ArrayBuffer>;
  readonly devices: { readonly virtio_balloon: { Inflate(pages: number): void } };
  readonly io: {
    port_read8(port: number): number;
    port_read16(port: number): number;
    port_read32(port: number): number;
    port_write8(port: number, value: number): void;
    port_write16(port: number, value: number): void;
    port_write32(port: number, value: number): void;
  };
}

/** A machine with the VirtIO devices of v86. */
export class V86Machine implements AsyncDisposable {
  /** The emulator: the host's side of the devices (`create_file`, `read_file`, `add_listener`). */
  readonly emulator: V86;
  /** The machine's memory. */
  readonly hal: MachineHal;

  readonly #cpu: Cpu;
  readonly #ports: X86Ports;

  private constructor(emulator: V86) {
    this.emulator = emulator;
    const { cpu } = (emulator as unknown as { readonly v86: { readonly cpu: Cpu } }).v86;
    const { io } = cpu;
    this.#cpu = cpu;
    this.hal = new MachineHal(cpu.mem8);
    this.#ports = {
      in8: (port) => io.port_read8(port),
      in16: (port) => io.port_read16(port),
      in32: (port) => io.port_read32(port) >>> 0,
      out8: (port, value) => io.port_write8(port, value),
      out16: (port, value) => io.port_write16(port, value),
      out32: (port, value) => io.port_write32(port, value | 0),
    };
  }

  /** Makes a machine with a 9P server, a console, a network card and a balloon, and 64 MiB of memory. */
  static async create(): Promise<V86Machine> {
    const emulator = new V86({
      // Its types name WebAssembly's, which ECMAScript's do not have.
      wasm_fn: async (imports: unknown) => instantiate(await readWasm(), imports as object),
      memory_size: MEMORY_SIZE,
      autostart: false,
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
      filesystem: {},
      virtio_console: { type: 'none' },
      net_device: { type: 'virtio' },
      virtio_balloon: true,
    });
    await new Promise<void>((resolve) => {
      emulator.add_listener('emulator-ready', () => resolve());
    });
    return new V86Machine(emulator);
  }

  /** Opens a device. Its interrupts are polled for, as no processor runs that could take one. */
  open(deviceType: DeviceType): PciTransport {
    const root = new PciRoot(new PortCam(this.#ports));
    const space: Pick<Hal, 'mapRegisters'> & { mapPorts(port: number, count: number): RegisterWindow } = {
      mapRegisters: (address) => this.hal.mapRegisters(address),
      mapPorts: (port, count) => new PortRegion(this.#ports, port, count),
    };
    for (const [at] of root.virtioDevices()) {
      const interrupts = new PollingInterrupts({ schedule });
      const transport = PciTransport.open(root.access, at, space, interrupts);
      if (transport.deviceType === deviceType) return transport;
      transport[Symbol.dispose]();
    }
    throw new Error(`v86 has no device of type ${deviceType}`);
  }

  /** Sends on the emulator's bus, as its user interface does: `virtio-console0-input-bytes`, `net0-receive`, … */
  send(event: string, value: unknown): void {
    const { bus } = this.emulator as unknown as { bus: { send(event: string, value: unknown): void } };
    bus.send(event, value);
  }

  /** Has the balloon ask for so many pages more, as the emulator's embedder does; fewer, if it is negative. */
  askForPages(pages: number): void {
    this.#cpu.devices.virtio_balloon.Inflate(pages);
  }

  /** Ends the emulator. Dispose transports first. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.emulator.destroy();
  }
}
