import { VirtioBlk } from '@virtio/blk';
import { DeviceType, type Hal, type Transport } from '@virtio/core';
import { FakeDevice, type FakeHal, FakeTransport } from '@virtio/testing';
import { describe, expect, expectTypeOf, it, vi } from 'vitest';
import type { LinuxHal } from './hal.ts';
import { openDriver } from './open-driver.ts';

function disk() {
  const device = new FakeDevice({ type: DeviceType.Block, config: 64, queues: [8] });
  const close = vi.fn<() => void>();
  const transport = new FakeTransport(device);
  return { device, transport, hal: device.hal, close, [Symbol.dispose]: close };
}

describe('openDriver', () => {
  it('has the driver close the device, after itself and once', () => {
    const opened = disk();
    const blk = openDriver(VirtioBlk, opened);
    expect(blk).toBeInstanceOf(VirtioBlk);
    expect(opened.device.status.bits).not.toBe(0);
    expect(opened.close).not.toHaveBeenCalled();
    opened.close.mockImplementation(() => {
      expect(opened.device.status.bits, 'the driver has reset the device').toBe(0);
    });
    blk[Symbol.dispose]();
    blk[Symbol.dispose]();
    expect(opened.close).toHaveBeenCalledOnce();
  });

  it('closes the device at the end of a block', () => {
    const opened = disk();
    {
      using blk = openDriver(VirtioBlk, opened);
      expect(blk.capacity).toBe(0);
    }
    expect(opened.close).toHaveBeenCalledOnce();
  });

  it('closes the device if the driver cannot be made, or fails to close', () => {
    const opened = disk();
    class Broken extends VirtioBlk {
      constructor(transport: Transport, hal: Hal) {
        super(transport, hal);
        throw new Error('no driver');
      }
    }
    expect(() => openDriver(Broken, opened)).toThrow('no driver');
    expect(opened.close).toHaveBeenCalledOnce();

    const other = disk();
    class Stuck extends VirtioBlk {
      override [Symbol.dispose](): void {
        super[Symbol.dispose]();
        throw new Error('stuck');
      }
    }
    const stuck = openDriver(Stuck, other);
    expect(() => stuck[Symbol.dispose]()).toThrow('stuck');
    expect(other.close).toHaveBeenCalledOnce();
  });

  it('gives the driver its options', () => {
    const opened = disk();
    using blk = openDriver(VirtioBlk, opened, { without: ['EVENT_IDX'] });
    expect(blk.features.has('EVENT_IDX')).toBe(false);
    // @ts-expect-error -- no option of the driver
    openDriver(VirtioBlk, disk(), { nonsense: 1 });
  });

  it('knows the types of the driver, its options and its memory', () => {
    using blk = openDriver(VirtioBlk, disk());
    expectTypeOf(blk.hal).toExtend<FakeHal>();
    const open = () => openDriver(VirtioBlk, '0000:00:03.0', { takeOver: true, without: ['EVENT_IDX'] });
    expectTypeOf(open).returns.toExtend<VirtioBlk>();
    expectTypeOf(open).returns.toExtend<{ hal: LinuxHal }>();
  });

  it('refuses what is not an address', () => {
    expect(() => openDriver(VirtioBlk, 'eth0')).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });
});
