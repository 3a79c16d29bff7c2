import { PAGE_SIZE, type RegisterWindow } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { anonymousSource } from './anonymous-source.fixture.ts';
import { LinuxHal } from './hal.ts';
import { Mapping } from './mapping.ts';
import { VirtioError } from '@virtio/core';
import { attachMemory } from './worker-memory.ts';

class TestHal extends LinuxHal {
  constructor() {
    super(anonymousSource());
  }

  mapRegisters(): RegisterWindow {
    throw new VirtioError('UNSUPPORTED', 'a test has no registers');
  }

  protected checkAccess(accessPlatform: boolean): void {
    if (!accessPlatform) throw new VirtioError('DMA_ERROR', 'behind the IOMMU');
  }
}

describe('LinuxHal', () => {
  it('allocates zeroed, page-aligned regions below 2^31', () => {
    using hal = new TestHal();
    const region = hal.dmaAlloc(3, 'both', true);
    expect(region.pages).toBe(3);
    expect(region.bytes.byteOffset).toBe(0);
    expect(region.bytes.length).toBe(3 * PAGE_SIZE);
    expect(region.address % PAGE_SIZE).toBe(0);
    expect(region.address).toBeLessThan(2 ** 31);
    hal.dmaDealloc(region, true);
    expect(region.bytes.length).toBe(0);
  });

  it('shares DMA memory as it is, at the right address for each part of it', () => {
    using hal = new TestHal();
    using a = hal.alloc(5000);
    using b = hal.alloc(100);
    expect(hal.share(a.bytes, 'both', true)).toBe(a.address);
    expect(hal.share(b.bytes.subarray(40), 'both', true)).toBe(b.address + 40);
    expect(hal.share(a.bytes.subarray(4999), 'driver-to-device', true)).toBe(a.address + 4999);
    expect(hal.bounced).toBe(0);
    hal.unshare(a.address, a.bytes, 'both', true);
    hal.unshare(b.address + 40, b.bytes.subarray(40), 'both', true);
  });

  it('does not take freed memory for shared memory because its buffer was seen last', () => {
    using hal = new TestHal();
    const buffer = hal.alloc(100);
    const view = buffer.bytes;
    hal.share(view, 'both', true);
    buffer[Symbol.dispose]();
    buffer[Symbol.dispose]();
    expect(view.length).toBe(0);
    expect(() => hal.share(view, 'both', true)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => hal.unshare(buffer.address, view, 'both', true)).not.toThrow();
  });

  it('does not take freed memory for shared memory because its view was shared often', () => {
    using hal = new TestHal();
    const buffer = hal.alloc(100);
    const part = buffer.bytes.subarray(64);
    for (let i = 0; i < 5; i += 1) {
      expect(hal.share(part, 'both', true)).toBe(buffer.address + 64);
      hal.unshare(buffer.address + 64, part, 'both', true);
    }
    buffer[Symbol.dispose]();
    using next = hal.alloc(100);
    expect(next.address, 'the same memory').toBe(buffer.address);
    expect(() => hal.share(part, 'both', true)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => hal.unshare(buffer.address + 64, part, 'both', true)).not.toThrow();
  });

  it('does not allocate memory again that a device still has, however it was shared and freed', () => {
    using hal = new TestHal();
    const shared = (view: Uint8Array): number => hal.share(view, 'device-to-driver', true);
    const unshare = (address: number, view: Uint8Array): void =>
      hal.unshare(address, view, 'driver-to-device', true);
    for (const rounds of [0, 1, 5]) {
      const buffer = hal.alloc(PAGE_SIZE);
      const views = [buffer.bytes.subarray(0, 512), buffer.bytes.subarray(1024)];
      for (let n = 0; n < rounds; n += 1) for (const view of views) unshare(shared(view), view);
      const addresses = views.map(shared);
      // The device has answered neither of two requests that were aborted.
      buffer[Symbol.dispose]();
      buffer[Symbol.dispose]();
      const others: { address: number }[] = [];
      for (let n = 0; n < 600; n += 1) others.push(hal.alloc(PAGE_SIZE));
      expect(others.map(({ address }) => address)).not.toContain(buffer.address);
      unshare(addresses[0] as number, views[0] as Uint8Array);
      expect(hal.alloc(PAGE_SIZE).address, 'the device has the other').not.toBe(buffer.address);
      unshare(addresses[1] as number, views[1] as Uint8Array);
      expect(hal.alloc(PAGE_SIZE).address, 'the first free page').toBe(buffer.address);
    }
  });

  it('keeps views apart, whichever were shared before', () => {
    using hal = new TestHal();
    const regions = Array.from({ length: 600 }, () => hal.alloc(8192));
    const views = regions.flatMap(({ bytes, address }) => [
      { view: bytes.subarray(0, 512), address },
      { view: bytes.subarray(0, 512), address },
      { view: bytes.subarray(4096 + 7), address: address + 4096 + 7 },
    ]);
    for (let round = 0; round < 4; round += 1) {
      for (const { view, address } of views) expect(hal.share(view, 'both', true)).toBe(address);
    }
    expect(hal.bounced).toBe(0);
  });

  it('bounces other memory, and takes each buffer back once', () => {
    using hal = new TestHal();
    const buffer = new Uint8Array(1000).fill(3);
    const address = hal.share(buffer, 'both', true);
    expect(hal.bounced).toBe(1);
    hal.unshare(address, buffer, 'both', true);
    expect(hal.bounced).toBe(0);
    expect(buffer).toEqual(new Uint8Array(1000).fill(3));
    expect(() => hal.unshare(address, buffer, 'both', true)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('takes a buffer of DMA memory back once', () => {
    using hal = new TestHal();
    using buffer = hal.alloc(1000);
    for (let n = 0; n < 4; n += 1) {
      const address = hal.share(buffer.bytes, 'both', true);
      hal.unshare(address, buffer.bytes, 'both', true);
      expect(() => hal.unshare(address, buffer.bytes, 'both', true)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
  });

  it('asks whether the device uses its addresses before it gives one out', () => {
    using hal = new TestHal();
    expect(() => hal.dmaAlloc(1, 'both', false)).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }));
    expect(() => hal.share(new Uint8Array(8), 'both', false)).toThrow(
      expect.objectContaining({ code: 'DMA_ERROR' }),
    );
  });

  it('gives buffers of just the length that was asked for, and refuses none', () => {
    using hal = new TestHal();
    using buffer = hal.alloc(10);
    expect(buffer.bytes.length).toBe(10);
    expect(() => hal.alloc(0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => hal.alloc(1.5)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('posts memory as plain data, of which another thread makes a view of the same memory', () => {
    using hal = new TestHal();
    using buffer = hal.alloc(4096);
    const posted = structuredClone(hal.post(buffer.bytes.subarray(100, 200)));
    const view = attachMemory(posted);
    view[0] = 9;
    expect(buffer.bytes[100]).toBe(9);
    expect(posted.address).toBe(buffer.address + 100);
    expect(() => hal.post(new Uint8Array(8))).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('empties everything when it is disposed', () => {
    const hal = new TestHal();
    const region = hal.dmaAlloc(1, 'both', true);
    const buffer = hal.alloc(1);
    hal[Symbol.dispose]();
    expect([region.bytes.length, buffer.bytes.length]).toEqual([0, 0]);
    expect(() => hal.alloc(1)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    expect(() => {
      buffer[Symbol.dispose]();
    }).not.toThrow();
  });
});

describe('mapped memory', () => {
  it('gives register windows at any offset', async () => {
    const { mappedWindow } = await import('./hal.ts');
    using mapping = Mapping.map({ size: 4096 });
    const window = mappedWindow(mapping, 8, 16);
    window.write32(4, 0x01020304);
    expect(new Uint8Array(mapping.view(12, 4))).toEqual(new Uint8Array([4, 3, 2, 1]));
    expect(window.mapped).toBeDefined();
    expect(mappedWindow(mapping, 13, 1).read8(0)).toBe(3);
  });
});
