/**
 * Who uses a device. A server knows one set of fids a device: two clients would take each other's files for their own, so the
 * second is refused until the first has taken leave or a reset has ended its session.
 */
import { VirtioError } from '@virtio/core';

/** A device that one client uses. */
export interface ClaimableDevice {
  readonly transport: { who(): string };
  /** How often it was reset. */
  readonly epoch: number;
  /** How many requests it has. */
  readonly inFlight: number;
}

const claims = new WeakMap<object, { readonly owner: object; readonly epoch: number }>();

/**
 * Takes a device for a client, which may have it already.
 *
 * @throws {@link VirtioError} `ALREADY_USED`, `DEVICE_BUSY` if requests of someone else are in flight
 */
export function claim(device: ClaimableDevice, owner: object): void {
  const present = claims.get(device);
  const current = present?.epoch === device.epoch;
  if (current && present.owner !== owner) {
    throw new VirtioError(
      'ALREADY_USED',
      `${device.transport.who()} has a client already; unmount its file system first, or use that`,
    );
  }
  if (!current && device.inFlight > 0) {
    throw new VirtioError(
      'DEVICE_BUSY',
      `${device.transport.who()} still has ${device.inFlight} requests of someone else in flight; let them end, or reset it`,
    );
  }
  claims.set(device, { owner, epoch: device.epoch });
}

/** Gives a device back, if it is the client's. */
export function release(device: ClaimableDevice, owner: object): void {
  if (claims.get(device)?.owner === owner) claims.delete(device);
}
