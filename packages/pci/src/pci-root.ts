/** Enumeration of PCI functions. */
import { type ConfigAccess, FunctionConfig } from './config-access.ts';
import { DeviceFunctionInfo, PciRegister } from './config-space.ts';
import { DeviceFunction } from './device-function.ts';
import { virtioDeviceType } from './device-id.ts';

/** A PCI host bridge and the buses behind it. */
export class PciRoot {
  /** The access to configuration space. */
  readonly access: ConfigAccess;
  readonly #segment: number;
  readonly #firstBus: number;

  /**
   * @param segment the segment that `access` reaches
   * @param firstBus the number of the root bus
   */
  constructor(access: ConfigAccess, segment = 0, firstBus = 0) {
    this.access = access;
    this.#segment = segment;
    this.#firstBus = firstBus;
  }

  /** The functions on one bus. */
  *bus(bus: number): Generator<readonly [DeviceFunction, DeviceFunctionInfo]> {
    for (let device = 0; device < 32; device += 1) {
      for (let fn = 0; fn < 8; fn += 1) {
        const at = new DeviceFunction(bus, device, fn, this.#segment);
        const info = DeviceFunctionInfo.find(new FunctionConfig(this.access, at));
        if (info !== undefined) yield [at, info];
        // Function 0 must exist and says whether there are others: a single-function device may answer at every function number.
        if (fn === 0 && info?.multiFunction !== true) break;
      }
    }
  }

  /**
   * All functions; those behind a bridge follow their bridge. Each bus is visited once, so that bridges that point at each other
   * cause no endless loop; a bridge without a secondary bus is not followed.
   */
  *functions(): Generator<readonly [DeviceFunction, DeviceFunctionInfo]> {
    const visited = new Set<number>([this.#firstBus]);
    yield* this.#walk(this.#firstBus, visited);
  }

  /** All functions that are virtio devices. */
  *virtioDevices(): Generator<readonly [DeviceFunction, DeviceFunctionInfo]> {
    for (const found of this.functions()) {
      if (virtioDeviceType(found[1]) !== undefined) yield found;
    }
  }

  *#walk(bus: number, visited: Set<number>): Generator<readonly [DeviceFunction, DeviceFunctionInfo]> {
    for (const found of this.bus(bus)) {
      yield found;
      const [at, info] = found;
      if (info.headerType !== 'pci-bridge') continue;
      const secondary = this.access.read8(at, PciRegister.SECONDARY_BUS);
      if (secondary === 0 || visited.has(secondary)) continue;
      visited.add(secondary);
      yield* this.#walk(secondary, visited);
    }
  }
}
