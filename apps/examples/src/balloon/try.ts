/** The balloon on a device: `npm run guest -- --transport pci-physical --qemu '-device virtio-balloon-pci' apps/examples/src/balloon/try.ts`. */
import { DeviceType } from '@virtio/core';
import { listDevices, openDriver } from '@virtio/linux';
import { VirtioBalloon } from './virtio-balloon.ts';

const device = listDevices().find(({ deviceType }) => deviceType === DeviceType.MemoryBallooning);
if (device === undefined) throw new Error('there is no balloon');
using balloon = openDriver(VirtioBalloon, device, { unsafePhysicalMemory: true });

console.log(`the host would like ${balloon.target} pages`);
balloon.resizeSync(300);
console.log(`it has ${balloon.actual} now`);
balloon.resizeSync(balloon.target);
console.log(`and now ${balloon.actual}`);
