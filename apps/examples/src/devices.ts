/** Lists the VirtIO devices and opens none: `node --conditions=@virtio/source apps/examples/src/devices.ts`, or in a guest. */
import { listDevices } from '@virtio/linux';

for (const device of listDevices()) console.log(device);
