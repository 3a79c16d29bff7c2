import { VirtioBlk, BlkConfigLayout, RequestType } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { expect, it } from 'vitest';
import { serialNumber } from './serial-number.ts';

function disk(id: string) {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [16], config: BlkConfigLayout.size });
  device.handle(0, (chain) => {
    expect(chain.header().getUint32(0, true)).toBe(RequestType.GET_ID);
    const bytes = new Uint8Array(chain.writable - 1);
    new TextEncoder().encodeInto(id, bytes);
    chain.write(bytes).write([0]); // the data, then the status: OK
  });
  return { device, blk: new VirtioBlk(new FakeTransport(device), device.hal) };
}

it('reads the serial number', async () => {
  const { device, blk } = disk('WD-1234');
  expect(await serialNumber(blk)).toBe('WD-1234');
  blk[Symbol.dispose]();
  device.assertClean(); // no rule of the specification was broken, no memory was lost
});

it('has a word for disks without one', async () => {
  const { blk } = disk('');
  expect(await serialNumber(blk)).toBe('unknown');
  blk[Symbol.dispose]();
});
