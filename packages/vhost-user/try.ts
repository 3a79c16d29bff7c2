import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { openVhostUser } from './src/index.ts';
const t0 = performance.now();
using device = await openVhostUser(process.argv[2] ?? '/tmp/vu/a.sock', { deviceType: DeviceType.Block, interrupts: (process.argv[3] ?? 'eventfd') as never });
console.log('open', performance.now() - t0, device.transport.configSize, device.transport.readDeviceFeatures().toString(16));
using blk = new VirtioBlk(device.transport, device.hal);
console.log('driver', performance.now() - t0, String(blk.features), blk.capacity);
const sector = new Uint8Array(4096).fill(7);
await blk.write(8, sector);
const back = new Uint8Array(4096);
await blk.read(8, back);
console.log(back.every((x) => x === 7));
for (const depth of [1, 8, 32, 128]) {
  const buf = Array.from({ length: depth }, () => device.hal.alloc(4096).bytes);
  const end = performance.now() + 2000; let n = 0;
  await Promise.all(buf.map(async (b) => { while (performance.now() < end) { await blk.read(8 * ((n * 7919) % 8192), b); n++; } }));
  console.log('depth', depth, Math.round(n / 2), 'IOPS');
}
