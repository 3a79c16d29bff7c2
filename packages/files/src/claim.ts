/**
 * Records which client uses a device. A server has one set of fids for each device, so that two clients would use each other's files.
 * The second one is refused until the first has disconnected, or a reset has ended its session.
 */
import { VirtioError } from '@virtio/core';
import type { TagDevice, Tags } from './tags.ts';

interface Claim {
  /** The tags of the client. */
  readonly owner: Tags;
  readonly epoch: number;
  /** Whether its session has ended. The device may still have requests of it. */
  ended: boolean;
}

const claims = new WeakMap<TagDevice, Claim>();

/**
 * Claims a device for a client, which may have it already.
 *
 * @param owner the tags of the client
 * @throws {@link VirtioError} `ALREADY_USED` if another client has it; `DEVICE_BUSY` if requests of an earlier session or of another user
 * are in flight
 */
export function claim(device: TagDevice, owner: Tags): void {
  const present = claims.get(device);
  const isCurrent = present?.epoch === device.epoch;
  if (!isCurrent || present.ended) {
    requireIdle(device, isCurrent ? present.owner : undefined);
  } else if (present.owner !== owner) {
    throw new VirtioError(
      'ALREADY_USED',
      `${device.transport.who()} already has a client; unmount its file system first, or use that`,
    );
  }
  claims.set(device, { owner, epoch: device.epoch, ended: false });
}

/** Releases a device, if the client has it. */
export function release(device: TagDevice, owner: Tags): void {
  const present = claims.get(device);
  if (present?.owner === owner) present.ended = true;
}

/** Takes late answers, and checks that no more are expected: the memory of messages is the same for all clients. */
function requireIdle(device: TagDevice, last: Tags | undefined): void {
  device.drain();
  last?.sweep();
  const inFlight = Math.max(device.inFlight, last?.inFlight ?? 0);
  if (inFlight === 0) return;
  throw new VirtioError(
    'DEVICE_BUSY',
    `${device.transport.who()} still has ${inFlight} requests of an earlier session or of another user in flight; mount it again when they ` +
      'have ended, or reset it',
  );
}
