/** Opens a device and its driver, with one form of address for devices of all kinds. */
import { type DeviceType, VirtioError } from '@virtio/core';
import {
  type DeviceAddress,
  type DriverClass,
  type LinuxHal,
  openDriver as openLinuxDriver,
  type OpenDevice,
  type OpenDriver,
  type OpenOptions,
} from '@virtio/linux';
import { openVhostUser, type VhostUserDevice, type VhostUserOptions } from './open.ts';

/** The prefix of addresses of vhost-user devices; the path of the socket follows. */
const SCHEME = 'vhost-user:';

/** A driver class with the type of its devices, as the device packages export them. */
export type TypedDriverClass<D extends OpenDevice, O extends object> = DriverClass<D, O> & {
  /** The type of the devices. */
  readonly deviceType: DeviceType;
};

/** Options of {@link openDriver} for a vhost-user device; the device type comes from the driver. */
export type VhostUserDriverOptions = Omit<VhostUserOptions, 'deviceType'>;

/**
 * Opens a device, wherever it is, and makes its driver. Disposing the driver closes everything.
 *
 * Like `openDriver` of `@virtio/linux`, with one more form of address, and asynchronous, as connecting takes time.
 *
 * @param driver the class of the driver: `VirtioBlk`
 * @param what `vhost-user:/path/of/the/socket`, `pci:0000:00:03.0`, `mmio:0xfeb00000`, an entry of `listDevices`, or a device that
 * is open already, which the driver then owns
 * @param options the options of the device's transport and those of the driver
 * @throws {@link VirtioError} as {@link openVhostUser}, `openTransport` and the driver's constructor; then nothing stays open
 *
 * @example
 * ```ts
 * import { VirtioBlk } from '@virtio/blk';
 * import { openDriver } from '@virtio/vhost-user';
 *
 * using disk = await openDriver(VirtioBlk, 'vhost-user:/tmp/vhost.sock');
 * await disk.read(0, new Uint8Array(512));
 * ```
 */
export function openDriver<D extends OpenDevice, O extends object>(
  driver: TypedDriverClass<D, O>,
  what: `vhost-user:${string}`,
  options?: VhostUserDriverOptions & NoInfer<O>,
): Promise<OpenDriver<D, VhostUserDevice['hal']>>;
export function openDriver<D extends OpenDevice, O extends object>(
  driver: TypedDriverClass<D, O>,
  what: DeviceAddress,
  options?: OpenOptions & NoInfer<O>,
): Promise<OpenDriver<D, LinuxHal>>;
export function openDriver<D extends OpenDevice, O extends object, T extends OpenDevice>(
  driver: TypedDriverClass<D, O>,
  what: T,
  options?: NoInfer<O>,
): Promise<OpenDriver<D, T['hal']>>;
export async function openDriver<D extends OpenDevice, O extends object>(
  driver: TypedDriverClass<D, O>,
  what: DeviceAddress | OpenDevice,
  options?: O,
): Promise<D> {
  if (typeof what === 'string' && what.startsWith('/')) {
    throw new VirtioError(
      'INVALID_PARAM',
      `"${what}" is a path, not the address of a device; that of a vhost-user socket begins with "${SCHEME}": ${SCHEME}${what}`,
    );
  }
  if (typeof what !== 'string' || !what.startsWith(SCHEME)) {
    return openLinuxDriver(driver, what as OpenDevice, options);
  }
  // Options of one kind of transport are ignored by the other, except the one for interrupts.
  const given = (options ?? {}) as VhostUserDriverOptions;
  const device = await openVhostUser(what, { ...given, deviceType: driver.deviceType });
  return openLinuxDriver<D, O, OpenDevice>(driver, device, options);
}
