/** A disk in ten lines: `npm run guest -- apps/examples/src/disk.ts` (an empty disk is attached by itself). */
import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { listDevices, openDriver } from '@virtio/linux';

const disk = listDevices().find(({ deviceType }) => deviceType === DeviceType.Block);
if (disk === undefined) throw new Error('there is no disk');
using blk = openDriver(VirtioBlk, disk);

const sector = new TextEncoder().encode('Hello from the guest'.padEnd(512));
await blk.write(0, sector);
await blk.flush();
await blk.read(0, sector);
console.log(new TextDecoder().decode(sector).trimEnd(), `(one of ${blk.capacity} sectors)`);
