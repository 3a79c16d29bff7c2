/** Opens a disk of a fake back end. */
import { DeviceType } from '@virtio/core';
import { openVhostUser, type VhostUserDevice, type VhostUserOptions } from '../src/index.ts';

/** A disk. The time-out is for a back end that hangs; on a busy machine each takes its time. */
export function openDisk(path: string, options: Partial<VhostUserOptions> = {}): Promise<VhostUserDevice> {
  return openVhostUser(path, {
    deviceType: DeviceType.Block,
    timeoutMs: 20_000,
    hugePages: false,
    memorySize: 4 << 20,
    ...options,
  });
}

/** Waits until `holds`, or fails. */
export async function until(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`${what} did not come about`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
