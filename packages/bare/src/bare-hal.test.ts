import { type Access, FakeDevice, FakeHal, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import {
  BufferChains,
  DeviceType,
  Driver,
  FeatureTable,
  PAGE_SIZE,
  VirtioError,
  type VirtQueue,
} from '@virtio/core';
import { BareHal, type Machine } from './bare-hal.ts';

const BASE = 0x8000_0000;

function machine(pages: number): Machine & { readonly mapped: [number, number][] } {
  const mapped: [number, number][] = [];
  const mapDevice = (address: number, size: number): ArrayBuffer => {
    mapped.push([address, size]);
    return new ArrayBuffer(size);
  };
  return { dma: new ArrayBuffer(pages * PAGE_SIZE), dmaAddress: BASE, mapDevice, mapped };
}

/** The memory of the machine as a device on its bus sees it. */
class Bus extends FakeHal {
  readonly #bytes: Uint8Array;

  constructor({ dma }: Machine) {
    super();
    this.#bytes = new Uint8Array(dma);
  }

  override view(address: number, length: number, _access: Access): Uint8Array {
    return this.#bytes.subarray(address - BASE, address - BASE + length);
  }
}

class Echo extends Driver<never> {
  readonly queue: VirtQueue;

  constructor(device: FakeDevice, hal: BareHal) {
    super(new FakeTransport(device), hal, {
      deviceType: DeviceType.EntropySource,
      table: new FeatureTable('Echo', {}),
      supported: [],
    });
    this.queue = this.setUp(() => this.createQueue({ index: 0, size: 8 }));
  }
}

describe('a Hal without an operating system', () => {
  it('carries requests of a driver, in buffers of DMA memory and in others, and takes no more memory with time', () => {
    const host = machine(16);
    const hal = new BareHal(host);
    const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [8], hal: new Bus(host) });
    device.handle(0, (chain) => {
      chain.write(chain.read().map((byte) => byte + 1));
    });
    using driver = new Echo(device, hal);
    const own = hal.dmaAlloc(1);
    for (let n = 0; n < 100; n += 1) {
      const answer = new Uint8Array(PAGE_SIZE + 1);
      expect(BufferChains.of(driver.queue).addNotifyWaitPop([Uint8Array.of(n, n + 1)], [answer])).toBe(2);
      expect([...answer.subarray(0, 3)]).toEqual([n + 1, n + 2, 0]);
      expect(BufferChains.of(driver.queue).addNotifyWaitPop([Uint8Array.of(n)], [own.bytes])).toBe(1);
      expect(own.bytes[0]).toBe(n + 1);
    }
  });

  it('hands out zeroed pages at their physical addresses, and again those that were given back', () => {
    const hal = new BareHal(machine(4));
    const first = hal.dmaAlloc(2);
    expect({ address: first.address, pages: first.pages }).toEqual({ address: BASE, pages: 2 });
    first.bytes.fill(7);
    hal.dmaDealloc(first);
    const again = hal.dmaAlloc(2);
    expect(again.address).toBe(BASE);
    expect(again.bytes.every((byte) => byte === 0)).toBe(true);
    expect(hal.dmaAlloc(1).address).toBe(BASE + 2 * PAGE_SIZE);
  });

  it('puts neighbours that were given back together when nothing else is left', () => {
    const hal = new BareHal(machine(8));
    const [a, b, c, d] = [hal.dmaAlloc(1), hal.dmaAlloc(2), hal.dmaAlloc(1), hal.dmaAlloc(2)];
    for (const region of [c, a, b]) hal.dmaDealloc(region);
    // Two pages were never used; four in a row are free before the last region.
    expect(hal.dmaAlloc(4).address).toBe(BASE);
    hal.dmaDealloc(d);
    expect(hal.dmaAlloc(4).address).toBe(BASE + 4 * PAGE_SIZE);
    expect(() => hal.dmaAlloc(1)).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }));
  });

  it('counts the buffers that it copies', () => {
    const hal = new BareHal(machine(2));
    const own = hal.dmaAlloc(1).bytes;
    const other = new Uint8Array(8);
    for (const buffer of [own, other, other]) {
      hal.unshare(hal.share(buffer, 'both'), buffer, 'both');
    }
    expect(hal.bounced).toBe(2);
  });

  it.each([
    ['memory that does not begin at a page', () => new BareHal({ ...machine(1), dmaAddress: BASE + 8 })],
    ['memory that is not below 2^53', () => new BareHal({ ...machine(2), dmaAddress: 2 ** 53 - 4096 })],
    ['no number of pages', () => new BareHal(machine(1)).dmaAlloc(0.5)],
    ['no window of registers', () => new BareHal(machine(1)).mapRegisters(0x1000, 0)],
    ['registers beyond 2^53', () => new BareHal(machine(1)).mapRegisters(2 ** 53 - 1, 2)],
  ])('refuses %s', (_, body) => {
    expect(body).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('refuses what was given back before, and what it never gave out: no memory gets two owners', () => {
    const hal = new BareHal(machine(4));
    const invalid = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    const region = hal.dmaAlloc(1);
    hal.dmaDealloc(region);
    expect(() => hal.dmaDealloc(region)).toThrow(invalid);
    expect(hal.dmaAlloc(1).address).not.toBe(hal.dmaAlloc(1).address);
    for (const [address, pages] of [
      [BASE + 8, 1],
      [BASE, 2],
      [BASE, 0],
      [BASE - PAGE_SIZE, 1],
      [BASE + 9 * PAGE_SIZE, 1],
    ] as const) {
      expect(() => hal.dmaDealloc({ bytes: new Uint8Array(0), address, pages })).toThrow(invalid);
    }
    const buffer = new Uint8Array(100);
    const address = hal.share(buffer, 'both');
    hal.unshare(address, buffer, 'both');
    expect(() => hal.unshare(address, buffer, 'both')).toThrow(invalid);
    expect(() => hal.share(new Uint8Array(0), 'both')).toThrow(invalid);
    expect(hal.share(buffer, 'both')).not.toBe(hal.share(new Uint8Array(8), 'both'));
  });

  it('does not allocate a region again that was freed while a device has buffers in it', () => {
    const hal = new BareHal(machine(4));
    const invalid = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    const region = hal.dmaAlloc(2);
    const views = [region.bytes.subarray(0, 8), region.bytes.subarray(PAGE_SIZE + 8)];
    const addresses = views.map((view) => hal.share(view, 'device-to-driver'));
    hal.dmaDealloc(region);
    expect(() => hal.dmaDealloc(region)).toThrow(invalid);
    const other = hal.dmaAlloc(2);
    expect(other.address).toBe(BASE + 2 * PAGE_SIZE);
    hal.unshare(addresses[0] as number, views[0] as Uint8Array, 'driver-to-device');
    expect(() => hal.dmaAlloc(1)).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }));
    hal.unshare(addresses[1] as number, views[1] as Uint8Array, 'driver-to-device');
    expect(hal.dmaAlloc(2).address).toBe(BASE);
    expect(() => hal.unshare(addresses[1] as number, views[1] as Uint8Array, 'both')).toThrow(invalid);
  });

  it('takes the whole memory of a buffer back that was detached or resized meanwhile', () => {
    const hal = new BareHal(machine(2));
    for (let n = 0; n < 4; n += 1) {
      // Its array is of no bytes then, or of more.
      for (const length of [0, 1, 3 * PAGE_SIZE]) {
        const address = hal.share(new Uint8Array(2 * PAGE_SIZE), 'both');
        hal.unshare(address, new Uint8Array(length), 'both');
      }
    }
    expect(hal.dmaAlloc(2).address).toBe(BASE);
  });

  it('shows a device nothing of what another request left', () => {
    const host = machine(1);
    const hal = new BareHal(host);
    const secret = Uint8Array.of(1, 2, 3);
    hal.unshare(hal.share(secret, 'driver-to-device'), secret, 'driver-to-device');
    const buffer = new Uint8Array(3).fill(9);
    hal.unshare(hal.share(buffer, 'device-to-driver'), buffer, 'device-to-driver');
    expect([...buffer]).toEqual([0, 0, 0]);
  });

  it('says how much memory there is when it is used up', () => {
    const hal = new BareHal(machine(2));
    expect(() => hal.dmaAlloc(3)).toThrow(
      expect.objectContaining({ code: 'DMA_ERROR', message: expect.stringContaining('8192') as string }),
    );
    expect(() => hal.dmaAlloc(3)).toThrow(VirtioError);
  });

  it('maps registers as the engine does', () => {
    const host = machine(1);
    const registers = new BareHal(host).mapRegisters(0xa00_0000, 512);
    expect(host.mapped).toEqual([[0xa00_0000, 512]]);
    registers.write32(4, 0x12345678);
    expect(registers.read16(6)).toBe(0x1234);
  });
});
