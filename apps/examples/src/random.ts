/** Random bytes of the host: `npm run guest -- --qemu '-device virtio-rng-pci' apps/examples/src/random.ts`. */
import { DeviceType } from '@virtio/core';
import { listDevices, openDriver } from '@virtio/linux';
import { VirtioRng } from '@virtio/rng';

const device = listDevices().find(({ deviceType }) => deviceType === DeviceType.EntropySource);
if (device === undefined) throw new Error('there is no entropy device');
using rng = openDriver(VirtioRng, device);
console.log(Buffer.from(await rng.fill(new Uint8Array(16))).toString('hex'));
