/** Your own code: it needs a disk, and says nothing about which. */
import type { VirtioBlk } from '@virtio/blk';

export async function serialNumber(blk: VirtioBlk): Promise<string> {
  const id = await blk.deviceId();
  return id === '' ? 'unknown' : id;
}
