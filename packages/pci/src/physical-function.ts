/** A function whose BARs are mapped at the addresses that they hold: on bare metal, or through hypercalls. */
import { type Hal, type InterruptSource, type RegisterWindow, VirtioError } from '@virtio/core';
import { readBars } from './bars.ts';
import { type ConfigAccess, FunctionConfig } from './config-access.ts';
import type { DeviceFunction } from './device-function.ts';
import type { PciInterrupts } from './interrupts.ts';
import type { PciTransportOptions } from './pci-transport-options.ts';
import { because } from './reasons.ts';

/** Maps the addresses of BARs; a `Hal` does. */
export interface AddressSpace extends Pick<Hal, 'mapRegisters'> {
  /** Maps I/O ports. Without it, structures in I/O space are not used. */
  mapPorts?(port: number, count: number): RegisterWindow;
}

/**
 * Reads the BARs of a function and makes the options of `PciTransport`.
 *
 * @param access the access to configuration space
 * @param space maps addresses
 * @param interrupts its interrupt lines, if any
 * @throws {@link VirtioError} `NO_DEVICE`, `INVALID_DEVICE`
 */
export function physicalFunction(
  access: ConfigAccess,
  at: DeviceFunction,
  space: AddressSpace,
  interrupts?: PciInterrupts | InterruptSource,
): PciTransportOptions {
  const name = `PCI ${at.toString()}`;
  const config = new FunctionConfig(access, at);
  const bars = readBars(config, name);
  const mapBar = (index: number, offset: number, length: number): RegisterWindow => {
    const bar = bars[index];
    if (bar === undefined) {
      throw new VirtioError('INVALID_PARAM', `${name} has no BAR ${index}`, because('BAR_MISSING'));
    }
    if (bar.kind === 'io' && !space.mapPorts) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${name}: BAR ${index} is in I/O space, which cannot be mapped here; give the address space mapPorts`,
        because('BAR_IN_IO_SPACE'),
      );
    }
    if (bar.address === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${name}: BAR ${index} has no address; assign one with BarAllocator`,
        because('BAR_NOT_ALLOCATED'),
      );
    }
    const address = bar.address + offset;
    return bar.kind === 'io' && space.mapPorts
      ? space.mapPorts(address, length)
      : space.mapRegisters(address, length);
  };
  return { at, config, bars, mapBar, ...(interrupts && { interrupts }) };
}
