import { VirtioBlk } from '@virtio/blk';
import { DeviceType } from '@virtio/core';
import { MMIO_MAGIC, MMIO_MODERN, MmioRegister } from '@virtio/mmio';
import { FakeHal } from '@virtio/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openMmio } from './open-mmio.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';
import { expectTypedEnd } from '../test/typed-end.ts';

const ADDRESS = 0x1200;
const SIZE = 0x200;

let machine: FakeMachine;

beforeEach(() => {
  machine = new FakeMachine();
  // A disk of 8 sectors, in memory that keeps what was written to it: features are the same in each word.
  const memory = new DataView(new ArrayBuffer(0x3000));
  for (const [name, value] of [
    ['MagicValue', MMIO_MAGIC],
    ['Version', MMIO_MODERN],
    ['DeviceID', DeviceType.Block],
    ['DeviceFeatures', 1],
    ['QueueSizeMax', 8],
    ['Config', 8],
  ] as const) {
    memory.setUint32(ADDRESS + MmioRegister[name], value, true);
  }
  machine.tree({ 'dev/mem': new Uint8Array(memory.buffer) });
});

afterEach(() => {
  machine[Symbol.dispose]();
});

describe('a device on MMIO', () => {
  it('ends a driver that was not disposed before', async () => {
    const transport = openMmio(
      new SystemFiles(machine.root),
      { address: ADDRESS, size: SIZE },
      'MMIO 0x1200',
    );
    const blk = new VirtioBlk(transport, new FakeHal());
    await expectTypedEnd(blk, () => transport[Symbol.dispose]());
  });

  it('is opened once at a time, by whatever process; its neighbours are not affected', () => {
    const files = new SystemFiles(machine.root);
    const open = (address = ADDRESS): Disposable => openMmio(files, { address, size: SIZE }, 'MMIO 0x1200');
    {
      using transport = open();
      expect(transport).toBeDefined();
      expect(() => open()).toThrow(expect.objectContaining({ code: 'DEVICE_BUSY' }));
      // There is no device, which is found out after the lock was taken.
      for (const beside of [ADDRESS - SIZE, ADDRESS + SIZE]) {
        expect(() => open(beside)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
      }
    }
    using again = open();
    expect(again).toBeDefined();
  });

  it('must be where registers can be', () => {
    for (const window of [
      { address: 1, size: SIZE },
      { address: -4, size: SIZE },
      { address: ADDRESS, size: 0 },
      { address: NaN, size: SIZE },
    ]) {
      expect(() => openMmio(new SystemFiles(machine.root), window, 'MMIO')).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
  });
});
