/** Configuration space through hypercalls: a memory-mapped window that only the hypervisor can access. */
import { checkRegister, requireInteger } from '@virtio/core';
import {
  type Cam,
  CAM_FUNCTION_SIZE,
  CAM_SIZE,
  camOffset,
  type ConfigAccess,
  type DeviceFunction,
} from '@virtio/pci';
import type { X86Cpu } from './cpu.ts';
import { hypRead, hypWrite } from './hypercalls.ts';

/** Access to configuration space through pKVM's hypercalls. */
export class HypCam implements ConfigAccess {
  readonly size: number;
  readonly #cpu: X86Cpu;
  readonly #address: number;
  readonly #cam: Cam;

  /**
   * @param address the physical address of the window, at its bus 0
   * @param cam the kind of window
   * @throws {@link VirtioError} `INVALID_PARAM` for a window that does not end below 2^53
   */
  constructor(cpu: X86Cpu, address: number, cam: Cam) {
    requireInteger('HypCam', 'address', address, 0, Number.MAX_SAFE_INTEGER - CAM_SIZE.ecam);
    this.size = CAM_FUNCTION_SIZE[cam];
    this.#cpu = cpu;
    this.#address = address;
    this.#cam = cam;
  }

  read8(at: DeviceFunction, offset: number): number {
    return hypRead(this.#cpu, this.#find(at, offset, 1), 1);
  }

  read16(at: DeviceFunction, offset: number): number {
    return hypRead(this.#cpu, this.#find(at, offset, 2), 2);
  }

  read32(at: DeviceFunction, offset: number): number {
    return hypRead(this.#cpu, this.#find(at, offset, 4), 4);
  }

  write8(at: DeviceFunction, offset: number, value: number): void {
    hypWrite(this.#cpu, this.#find(at, offset, 1), 1, value);
  }

  write16(at: DeviceFunction, offset: number, value: number): void {
    hypWrite(this.#cpu, this.#find(at, offset, 2), 2, value);
  }

  write32(at: DeviceFunction, offset: number, value: number): void {
    hypWrite(this.#cpu, this.#find(at, offset, 4), 4, value);
  }

  #find(at: DeviceFunction, offset: number, width: number): number {
    checkRegister(offset, width, this.size);
    return this.#address + camOffset(this.#cam, at, offset);
  }
}
