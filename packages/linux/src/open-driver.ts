/** Opens a device and its driver in one call, and disposes both together. */
import type { Hal, Transport } from '@virtio/core';
import type { LinuxHal } from './hal.ts';
import type { OpenOptions } from './open-options.ts';
import { type DeviceAddress, openTransport } from './open-transport.ts';

/** An open device: its transport, and the memory that it can reach. Disposing closes both. */
export interface OpenDevice extends Disposable {
  /** The transport of the device. */
  readonly transport: Transport;
  /** The platform below the driver. */
  readonly hal: Hal;
}

/** A driver class, as the device packages export them. */
export type DriverClass<D extends OpenDevice, O extends object> = new (
  transport: Transport,
  hal: Hal,
  options?: O,
) => D;

/** A driver that owns the device below it. */
export type OpenDriver<D extends OpenDevice, H extends Hal> = D & {
  /** The platform, with the memory that the device can reach. */
  readonly hal: H;
};

/**
 * Opens a virtio device and makes its driver. Disposing the driver closes everything: it resets the device, releases registers,
 * interrupts and DMA memory, and gives the device back to its previous kernel driver.
 *
 * @param driver the class of the driver: `VirtioBlk`
 * @param what a PCI address (`0000:00:03.0`), a window of MMIO registers (`mmio:0xfeb00000`), or a device that {@link listDevices}
 * described, as {@link openTransport} takes them; or a device that is open already, which the driver owns from now on
 * @param options those of {@link OpenOptions}, and those of the driver
 * @throws {@link VirtioError} as {@link openTransport} and the driver's constructor; nothing stays open then
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
  return typeof what === 'object' && (what as unknown) !== null && 'transport' in what;
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
