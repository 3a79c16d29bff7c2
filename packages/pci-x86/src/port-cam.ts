/** PCI through I/O ports, for x86 machines without a memory-mapped window to configuration space, and for BARs in I/O space. */
import { checkRegister, type RegisterWindow, requireInteger, VirtioError } from '@virtio/core';
import { CAM_FUNCTION_SIZE, type ConfigAccess, type DeviceFunction } from '@virtio/pci';
import type { X86Ports } from './cpu.ts';

/** Selects a register: `enable | bus << 16 | device << 11 | function << 8 | offset`. */
const CONFIG_ADDRESS = 0xcf8;
/** Four ports that access the selected register. */
const CONFIG_DATA = 0xcfc;
const ENABLE = 0x8000_0000;
const MAX_PORT = 0xffff;

/**
 * Access to configuration space through the ports 0xCF8 and 0xCFC: 256 bytes per function, in segment 0. Each access uses both
 * ports, so nothing else may use them in between.
 */
export class PortCam implements ConfigAccess {
  readonly size = CAM_FUNCTION_SIZE.cam;
  readonly #ports: X86Ports;

  constructor(ports: X86Ports) {
    this.#ports = ports;
  }

  read8(at: DeviceFunction, offset: number): number {
    return this.#ports.in8(this.#select(at, offset, 1));
  }

  read16(at: DeviceFunction, offset: number): number {
    return this.#ports.in16(this.#select(at, offset, 2));
  }

  read32(at: DeviceFunction, offset: number): number {
    return this.#ports.in32(this.#select(at, offset, 4)) >>> 0;
  }

  write8(at: DeviceFunction, offset: number, value: number): void {
    this.#ports.out8(this.#select(at, offset, 1), value);
  }

  write16(at: DeviceFunction, offset: number, value: number): void {
    this.#ports.out16(this.#select(at, offset, 2), value);
  }

  write32(at: DeviceFunction, offset: number, value: number): void {
    this.#ports.out32(this.#select(at, offset, 4), value);
  }

  /** Selects a register, and returns the port that accesses it. */
  #select(at: DeviceFunction, offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    if (at.segment !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `PCI ${at.toString()} cannot be accessed through I/O ports, which reach only segment 0; use a memory-mapped window`,
      );
    }
    this.#ports.out32(CONFIG_ADDRESS, (ENABLE | (at.id << 8) | (offset & 0xfc)) >>> 0);
    return CONFIG_DATA + (offset & 3);
  }
}

/**
 * A window of registers in I/O space, for example a part of an I/O BAR. Use it in `mapBar` of `PciTransport`, which then also uses
 * structures in I/O space.
 */
export class PortRegion implements RegisterWindow {
  /** The first port. */
  readonly port: number;
  /** The number of ports. */
  readonly size: number;
  readonly #ports: X86Ports;

  /** @throws {@link VirtioError} `INVALID_PARAM` for ports that do not exist */
  constructor(ports: X86Ports, port: number, size: number) {
    requireInteger('PortRegion', 'port', port, 0, MAX_PORT);
    requireInteger('PortRegion', 'size', size, 0, MAX_PORT + 1 - port);
    this.#ports = ports;
    this.port = port;
    this.size = size;
  }

  read8(offset: number): number {
    return this.#ports.in8(this.#at(offset, 1));
  }

  read16(offset: number): number {
    return this.#ports.in16(this.#at(offset, 2));
  }

  read32(offset: number): number {
    return this.#ports.in32(this.#at(offset, 4));
  }

  write8(offset: number, value: number): void {
    this.#ports.out8(this.#at(offset, 1), value);
  }

  write16(offset: number, value: number): void {
    this.#ports.out16(this.#at(offset, 2), value);
  }

  write32(offset: number, value: number): void {
    this.#ports.out32(this.#at(offset, 4), value);
  }

  #at(offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    return this.port + offset;
  }
}
