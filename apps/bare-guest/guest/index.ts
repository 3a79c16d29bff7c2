/** What a script in a bare guest imports: the devices of the board, and how to open a driver of one. */
import './polyfill.ts';
import './prelude.ts';
import type { DeviceType, DriverOptions, Hal, Transport } from '@virtio/core';
import { type BareDevice, hal, listDevices } from './board.ts';

export { type BareDevice, hal, listDevices } from './board.ts';
export { machine, type Machine, x86Cpu, x86Machine } from './machine.ts';
export { loop } from './prelude.ts';

/** A driver's class. */
export type DriverClass<D, O extends DriverOptions> = new (transport: Transport, hal: Hal, options?: O) => D;

/** The first device of this type. */
export function findDevice(type: DeviceType): BareDevice {
  const device = listDevices().find(({ deviceType }) => deviceType === type);
  if (device !== undefined) return device;
  throw new Error(
    `there is no device of type ${type}; there are ${
      listDevices()
        .map(({ name }) => name)
        .join(', ') || 'none'
    }`,
  );
}

/** Opens a device with its driver. Disposing the driver closes the device. */
export function openDriver<D extends Disposable, O extends DriverOptions>(
  driver: DriverClass<D, O>,
  device: BareDevice,
  options?: O,
): D {
  const transport = device.open();
  try {
    const opened = new driver(transport, hal, options);
    const dispose = opened[Symbol.dispose].bind(opened);
    opened[Symbol.dispose] = () => {
      dispose();
      transport[Symbol.dispose]();
    };
    return opened;
  } catch (error) {
    transport[Symbol.dispose]();
    throw error;
  }
}
