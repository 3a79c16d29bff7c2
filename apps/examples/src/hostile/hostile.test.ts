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

it('answers with a status that does not exist', () => {
  const { device, blk, sector } = disk();
  device.handle(0, (chain) => void chain.write(sector).write([77]));
  expect(() => blk.readSync(0, sector)).toThrow(code('DEVICE_MISBEHAVED'));
});

it('claims to have written more than there was room for: cut, counted, and nothing else', () => {
  const { device, blk, sector } = disk();
  device.handle(0, (chain) => void chain.write(new Uint8Array(512).fill(7)).write([0]).complete(4096));
  blk.readSync(0, sector);
  expect([sector[0], sector[511], blk.quirks]).toEqual([7, 7, 1]);
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
