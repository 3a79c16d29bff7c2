/** Opens a device and its driver in one: what belongs together is disposed together. */
import type { Hal, Transport } from '@virtio/core';
import type { LinuxHal } from './hal.ts';
import type { OpenOptions } from './open-options.ts';
import { type DeviceAddress, openTransport } from './open-transport.ts';

/** A device that is open: the way to its registers, and the memory that it reaches. Disposing closes both. */
export interface OpenDevice extends Disposable {
  /** The way to the device. */
  readonly transport: Transport;
  /** The platform below the driver. */
  readonly hal: Hal;
}

/** A class of drivers, as the packages of devices export them. */
export type DriverClass<D extends OpenDevice, O extends object> = new (
  transport: Transport,
  hal: Hal,
  options?: O,
) => D;

/** A driver that owns the device below it. */
export type OpenDriver<D extends OpenDevice, H extends Hal> = D & {
  /** The memory that the device reaches. */
  readonly hal: H;
};

/**
 * Opens a virtio device and makes its driver. Disposing the driver closes everything: it resets the device, gives back registers,
 * interrupts and DMA memory, and gives the device back to the kernel driver that it had.
 *
 * @param driver the class of the driver: `VirtioBlk`
 * @param what a PCI address (`0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`), or a device that {@link listDevices}
 * described, as {@link openTransport} takes them; or a device that is open already, which the driver owns from now on
 * @param options those of {@link OpenOptions}, and those of the driver
 * @throws {@link VirtioError} as {@link openTransport} and the driver's constructor; then nothing stays open
 *
 * @example
 * ```ts
 * import { VirtioBlk } from '@virtio/blk';
 * import { openDriver } from '@virtio/linux';
 *
 * using blk = openDriver(VirtioBlk, '0000:00:03.0');
 * using buffer = blk.hal.alloc(65536);
 * await blk.read(0, buffer.bytes);
 * ```
 */
export function openDriver<D extends OpenDevice, O extends object>(
  driver: DriverClass<D, O>,
  what: DeviceAddress,
  options?: OpenOptions & NoInfer<O>,
): OpenDriver<D, LinuxHal>;
export function openDriver<D extends OpenDevice, O extends object, T extends OpenDevice>(
  driver: DriverClass<D, O>,
  what: T,
  options?: NoInfer<O>,
): OpenDriver<D, T['hal']>;
export function openDriver<D extends OpenDevice, O extends object>(
  driver: DriverClass<D, O>,
  what: DeviceAddress | OpenDevice,
  options?: OpenOptions & O,
): D {
  const device = isOpen(what) ? what : openTransport(what, options);
  try {
    return ownDevice(new driver(device.transport, device.hal, options), device);
  } catch (error) {
    device[Symbol.dispose]();
    throw error;
  }
}

function isOpen(what: DeviceAddress | OpenDevice): what is OpenDevice {
  return typeof what === 'object' && 'transport' in what;
}

/** Makes the disposal of a driver close the device as well, even if the driver's own part throws. */
function ownDevice<D extends OpenDevice>(driver: D, device: OpenDevice): D {
  let open = true;
  const close = driver[Symbol.dispose].bind(driver);
  Object.defineProperty(driver, Symbol.dispose, {
    value: (): void => {
      try {
        close();
      } finally {
        if (open) {
          open = false;
          device[Symbol.dispose]();
        }
      }
    },
  });
  return driver;
}
