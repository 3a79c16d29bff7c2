/** A disk with no virtual machine: `node hello.ts`, with qemu-storage-daemon at the other end of the socket. */
import { VirtioBlk } from '@virtio/blk';
import { openDriver } from '@virtio/vhost-user';

using blk = await openDriver(VirtioBlk, 'vhost-user:/tmp/vhost.sock');

const sector = new TextEncoder().encode('Hello from Node.js'.padEnd(512));
await blk.write(0, sector);
await blk.flush();
console.log(`wrote one of ${blk.capacity} sectors`);
