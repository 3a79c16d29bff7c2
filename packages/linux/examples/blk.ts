/* eslint-disable no-console -- an example prints what it does */
/**
 * Opens a disk, writes and reads it in all three ways, and closes it: `blk.ts [address|0x<window>] [options as JSON]`.
 *
 * Run it in a guest: everything on the disk is overwritten.
 */
import { strict as assert } from 'node:assert';
import { randomFillSync } from 'node:crypto';
import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { listDevices, openTransport, type OpenOptions } from '@virtio/linux';

const [where, json = '{}'] = process.argv.slice(2);
const options = JSON.parse(json) as OpenOptions;
const devices = listDevices();
for (const device of devices) if (device.deviceType !== 0) console.log(device);
const found = devices.find((device) => device.deviceType === DeviceType.Block);
const what =
  where?.startsWith('0x') === true
    ? { address: Number(where), size: 0x200 }
    : where === ''
      ? found
      : (where ?? found);
assert(what, 'there is no disk');

using device = openTransport(what, options);
using blk = new VirtioBlk(device.transport, device.hal);
console.log(device.kind, device.transport.who(), String(blk.features), blk.capacity);

const ordinary = randomFillSync(new Uint8Array(8192));
const back = new Uint8Array(8192);
blk.writeSync(0, ordinary);
blk.readSync(0, back);
assert.deepEqual(back, ordinary);
console.log('sync, ordinary memory: ok');

using buffer = device.hal.alloc(65536);
randomFillSync(buffer.bytes);
const copy = buffer.bytes.slice();
const start = performance.now();
await blk.write(64, buffer.bytes);
buffer.bytes.fill(0);
await blk.read(64, buffer.bytes);
assert.deepEqual(buffer.bytes, copy);
console.log('promises, zero-copy: ok', (performance.now() - start).toFixed(1), 'ms');

const many = Array.from({ length: 200 }, async (_, i) => {
  const data = new Uint8Array(4096).fill(i);
  await blk.write(1024 + 8 * i, data);
  const read = new Uint8Array(4096);
  await blk.read(1024 + 8 * i, read);
  assert.deepEqual(read, data);
});
await Promise.all(many);
console.log(
  '200 in flight: ok, bounce buffers in use:',
  device.hal.bounced,
  'mapped:',
  device.hal.mappedBytes,
);
assert.equal(device.hal.bounced, 0);
