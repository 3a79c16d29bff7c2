/**
 * Records which client uses a device. A server has one set of fids for each device, so that two clients would use each other's files.
 * The second one is refused until the first has disconnected, or a reset has ended its session.
 */
import { VirtioError } from '@virtio/core';

/** A device that one client at a time can use. */
export interface ClaimableDevice {
  readonly transport: { who(): string };
  /** How often the device was reset. */
  readonly epoch: number;
  /** How many requests the device has. */
  readonly inFlight: number;
}

const claims = new WeakMap<object, { readonly owner: object; readonly epoch: number }>();

/**
 * Claims a device for a client, which may have it already.
 *
 * @throws {@link VirtioError} `ALREADY_USED` if another client has it; `DEVICE_BUSY` if requests of another user are in flight
 */
export function claim(device: ClaimableDevice, owner: object): void {
  const present = claims.get(device);
  const current = present?.epoch === device.epoch;
  if (current && present.owner !== owner) {
    throw new VirtioError(
      'ALREADY_USED',
      `${device.transport.who()} already has a client; unmount its file system first, or use that`,
    );
  }
  if (!current && device.inFlight > 0) {
    throw new VirtioError(
      'DEVICE_BUSY',
      `${device.transport.who()} still has ${device.inFlight} requests of another user in flight; wait until they end, or reset it`,
    );
  }
  claims.set(device, { owner, epoch: device.epoch });
}

/** Releases a device, if the client has it. */
export function release(device: ClaimableDevice, owner: object): void {
  if (claims.get(device)?.owner === owner) claims.delete(device);
}
