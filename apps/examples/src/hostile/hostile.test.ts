import { BlkConfigLayout, VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { expect, it } from 'vitest';

function disk() {
  const device = new FakeDevice({ type: DeviceType.Block, queues: [16], config: BlkConfigLayout.size });
  device.changeConfig((config) => config.setBigUint64(BlkConfigLayout.offset.capacity, 64n, true));
  const blk = new VirtioBlk(new FakeTransport(device), device.hal);
  return { device, blk, sector: new Uint8Array(512) };
}

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

it('claims to have written more than there was room for', () => {
  const { device, blk, sector } = disk();
  device.handle(0, (chain) => void chain.complete(4096));
  expect(() => blk.readSync(0, sector)).toThrow(code('DEVICE_MISBEHAVED'));
});

it('never answers', () => {
  const { device, blk, sector } = disk();
  device.handle(0, (chain) => chain.defer());
  expect(() => blk.readSync(0, sector, { timeoutMs: 5 })).toThrow(code('NOT_READY'));
});

it('is pulled out in the middle of a request', () => {
  const { device, blk, sector } = disk();
  device.handle(0, (chain) => {
    chain.defer();
    device.remove();
  });
  expect(() => blk.readSync(0, sector, { timeoutMs: 1000 })).toThrow(code('DEVICE_REMOVED'));
});
