/**
 * A hypervisor in software: it decodes the hypercalls and port accesses of a guest and forwards them to a PCI bus of
 * `@virtio/testing`. What the tests of this package run on, and an example of what stands behind {@link X86Cpu}. It knows
 * nothing of the code that it serves but the calling convention.
 */
import type { FakePciBus, RegisterModel } from '@virtio/testing';
import type { CpuidResult, X86Cpu, X86Ports } from '@virtio/pci-x86';

type Width = 1 | 2 | 4;

const IO_READ = 23;
const IO_WRITE = 24;
const SIGNATURE_LEAF = 0x4000_0000;
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

/** A hypercall as it was made: registers, and what was read. */
export interface HypercallRecord {
  readonly call: number;
  readonly address: number;
  readonly size: number;
  readonly value: number;
}

/** pKVM as its guests see it. */
export class SoftwareHypervisor implements X86Cpu {
  /** All hypercalls, while {@link SoftwareHypervisor.recording} is set. */
  readonly calls: HypercallRecord[] = [];
  /** Whether hypercalls are recorded. */
  recording = false;
  /** How many hypercalls there were. */
  count = 0;
  /** The name under which the hypervisor shows: four letters. */
  signature = 'PKVM';

  readonly #bus: FakePciBus;
  readonly #ecam: RegisterModel;
  readonly #ecamBase: number;

  /** @param ecamBase the physical address of the window to configuration space */
  constructor(bus: FakePciBus, ecamBase: number) {
    this.#bus = bus;
    this.#ecam = bus.configWindow('ecam');
    this.#ecam.recording = false;
    this.#ecamBase = ecamBase;
  }

  cpuid(leaf: number, subleaf: number): CpuidResult {
    const letters = [0, 1, 2, 3].map((i) => this.signature.charCodeAt(i));
    const ebx =
      leaf === SIGNATURE_LEAF && subleaf === 0
        ? letters.reduceRight((bits, letter) => bits * 256 + letter)
        : 0;
    return { eax: 0, ebx, ecx: 0, edx: 0 };
  }

  hypercall(call: number, address: number, size: number, value: number): number {
    if (size !== 1 && size !== 2 && size !== 4) throw new Error(`a hypercall for ${size} bytes`);
    this.count += 1;
    const result = this.#access(call, address, size, value);
    if (this.recording) this.calls.push({ call, address, size, value: call === IO_READ ? result : value });
    // Above what was read, RAX holds whatever it held: a guest must not look at it.
    return call === IO_READ && size < 4 ? (result | (0xa5a5_a5a5 << (8 * size))) >>> 0 : result;
  }

  hypercall64(call: number, address: number, size: number, value: bigint): bigint {
    if (size !== 8) throw new Error(`a 64-bit hypercall for ${size} bytes`);
    const low = this.hypercall(call, address, 4, Number(value & 0xffff_ffffn));
    const high = this.hypercall(call, address + 4, 4, Number(value >> 32n));
    return (BigInt(high) << 32n) | BigInt(low);
  }

  #access(call: number, address: number, size: Width, value: number): number {
    const register = address - this.#ecamBase;
    const config = register >= 0 && register < this.#ecam.size;
    switch (call) {
      case IO_READ:
        return config ? read(this.#ecam, register, size) : this.#bus.readMemory(address, size);
      case IO_WRITE:
        if (value >= 2 ** (8 * size)) {
          throw new Error(`0x${value.toString(16)} was written with ${size} bytes`);
        }
        if (config) write(this.#ecam, register, size, value);
        else this.#bus.writeMemory(address, size, value);
        return 0;
      default:
        throw new Error(`there is no hypercall ${call}`);
    }
  }
}

/** The I/O ports of an x86 machine: the configuration mechanism, and BARs in I/O space. */
export class SoftwarePorts implements X86Ports {
  /** The ports that were accessed, while {@link SoftwarePorts.recording} is set. */
  readonly ports: number[] = [];
  recording = false;
  readonly #bus: FakePciBus;
  #selected = 0;

  constructor(bus: FakePciBus) {
    this.#bus = bus;
  }

  in8(port: number): number {
    return this.#in(port, 1);
  }

  in16(port: number): number {
    return this.#in(port, 2);
  }

  in32(port: number): number {
    return this.#in(port, 4);
  }

  out8(port: number, value: number): void {
    this.#out(port, 1, value);
  }

  out16(port: number, value: number): void {
    this.#out(port, 2, value);
  }

  out32(port: number, value: number): void {
    this.#out(port, 4, value);
  }

  #in(port: number, width: Width): number {
    if (this.recording) this.ports.push(port);
    if (port === CONFIG_ADDRESS && width === 4) return this.#selected;
    const at = this.#configRegister(port);
    return at ? this.#bus.readConfig(...at, width) : this.#bus.readPort(port, width);
  }

  #out(port: number, width: Width, value: number): void {
    if (this.recording) this.ports.push(port);
    if (port === CONFIG_ADDRESS && width === 4) {
      this.#selected = value;
      return;
    }
    const at = this.#configRegister(port);
    if (at) this.#bus.writeConfig(...at, width, value);
    else this.#bus.writePort(port, width, value);
  }

  #configRegister(port: number): [bus: number, device: number, fn: number, offset: number] | undefined {
    if (port < CONFIG_DATA || port >= CONFIG_DATA + 4) return undefined;
    const selected = this.#selected;
    if (selected >>> 31 === 0) throw new Error('configuration space was accessed with nothing selected');
    return [
      (selected >>> 16) & 0xff,
      (selected >>> 11) & 0x1f,
      (selected >>> 8) & 7,
      (selected & 0xfc) + port - CONFIG_DATA,
    ];
  }
}

function read(window: RegisterModel, offset: number, width: Width): number {
  if (width === 1) return window.read8(offset);
  return width === 2 ? window.read16(offset) : window.read32(offset);
}

function write(window: RegisterModel, offset: number, width: Width, value: number): void {
  if (width === 1) window.write8(offset, value);
  else if (width === 2) window.write16(offset, value);
  else window.write32(offset, value);
}
