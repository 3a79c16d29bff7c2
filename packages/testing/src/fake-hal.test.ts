import { MappedRegisters, PAGE_SIZE, VirtioError } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryFault } from './device-memory.ts';
import { FakeHal } from './fake-hal.ts';

describe('DMA memory', () => {
  it('is zeroed, aligned, below 2^31, and not at the start of its buffer', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(3, 'both', false);
    expect(region.bytes).toHaveLength(3 * PAGE_SIZE);
    expect(region.bytes.every((byte) => byte === 0)).toBe(true);
    expect(region.address % PAGE_SIZE).toBe(0);
    expect(region.address).toBeLessThan(2 ** 31);
    expect(region.bytes.byteOffset % 8).toBe(0);
    expect(region.bytes.byteOffset).toBeGreaterThan(0);
  });

  it('has free pages around it', () => {
    const hal = new FakeHal();
    const [a, b] = [hal.dmaAlloc(1, 'both', false), hal.dmaAlloc(1, 'both', false)];
    expect(b.address - a.address).toBeGreaterThanOrEqual(2 * PAGE_SIZE);
    expect(() => hal.view(a.address + PAGE_SIZE - 1, 2, 'read')).toThrow(MemoryFault);
    expect(() => hal.view(a.address - 1, 1, 'read')).toThrow(MemoryFault);
  });

  it('detaches when it is given back, for both sides', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(1, 'both', false);
    const seen = hal.view(region.address, 16, 'any');
    hal.dmaDealloc(region, false);
    expect(region.bytes).toHaveLength(0);
    expect(seen).toHaveLength(0);
    expect(() => hal.view(region.address, 1, 'any')).toThrow('nothing is allocated');
    expect(hal.leaks()).toEqual([]);
  });

  it('cannot be given back twice, nor by another', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(1, 'both', false);
    expect(() => {
      hal.dmaDealloc({ ...region }, false);
    }).toThrow('not allocated');
    hal.dmaDealloc(region, false);
    expect(() => {
      hal.dmaDealloc(region, false);
    }).toThrow('given back twice');
    expect(hal.misuse).toHaveLength(1);
    expect(() => {
      hal.assertClean();
    }).toThrow('memory is not in order');
  });

  it('shows writes of the driver outside its region', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(1, 'both', false);
    new Uint8Array(region.bytes.buffer)[0] = 1;
    expect(() => {
      hal.assertClean();
    }).toThrow('outside its region');
    hal.dmaDealloc(region, false);
    expect(hal.misuse).toEqual([expect.stringContaining('at offset -64')]);
  });

  it('is refused for no pages, or on demand', () => {
    const hal = new FakeHal();
    expect(() => hal.dmaAlloc(0, 'both', false)).toThrow('0 pages');
    hal.failAlloc({ after: 1, count: 2 });
    hal.dmaAlloc(1, 'both', false);
    for (let n = 0; n < 2; n += 1) {
      expect(() => hal.dmaAlloc(1, 'both', false)).toThrow(VirtioError);
    }
    hal.dmaAlloc(1, 'both', false);
    expect(hal.counts.allocations).toBe(2);
    expect(hal.regions).toHaveLength(2);
  });

  it('has addresses above 2^32 if the test likes', () => {
    const hal = new FakeHal({ base: 0x12_0000_0000 });
    const region = hal.dmaAlloc(1, 'both', false);
    expect(region.address).toBe(0x12_0000_0000);
    hal.write(region.address + 5, Uint8Array.of(7));
    expect(region.bytes[5]).toBe(7);
  });

  it('uses addresses again when all were used, never one that is live', () => {
    const hal = new FakeHal({ addressSpace: 16 * PAGE_SIZE });
    const kept = hal.dmaAlloc(2, 'both', false);
    kept.bytes.fill(1);
    const seen = new Set<number>();
    for (let n = 0; n < 100; n += 1) {
      const region = hal.dmaAlloc(1 + (n % 3), 'both', false);
      expect(Math.abs(region.address - kept.address)).toBeGreaterThanOrEqual(2 * PAGE_SIZE);
      seen.add(region.address);
      hal.dmaDealloc(region, false);
    }
    expect(seen.size).toBeGreaterThan(3);
    expect(() => {
      for (let n = 0; n < 10; n += 1) hal.dmaAlloc(2, 'both', false);
    }).toThrow('used up');
  });
});

describe('sharing', () => {
  it('copies a buffer to where the device reads it', () => {
    const hal = new FakeHal();
    const buffer = Uint8Array.of(0, 1, 2, 3, 4).subarray(1, 4);
    const address = hal.share(buffer, 'driver-to-device', false);
    expect([...hal.read(address, 3)]).toEqual([1, 2, 3]);
    expect(() => hal.read(address, 4)).toThrow('what is offered ends');
    expect(() => {
      hal.write(address, Uint8Array.of(9));
    }).toThrow('offered driver-to-device');
    expect(hal.counts).toMatchObject({ shares: 1, bounces: 1, faults: 2, deviceAccesses: 3 });
    hal.unshare(address, buffer, 'driver-to-device', false);
    hal.assertClean();
  });

  it('copies back what the device wrote, and shows what it did not write', () => {
    const hal = new FakeHal();
    const buffer = Uint8Array.of(1, 2, 3);
    const address = hal.share(buffer, 'device-to-driver', false);
    expect(() => hal.read(address, 1)).toThrow('offered device-to-driver');
    hal.write(address, Uint8Array.of(7, 8));
    expect([...buffer]).toEqual([1, 2, 3]);
    hal.unshare(address, buffer, 'device-to-driver', false);
    expect([...buffer]).toEqual([7, 8, 0xa5]);
  });

  it('copies nothing back for a request that failed', () => {
    const hal = new FakeHal();
    const buffer = Uint8Array.of(1, 2, 3);
    const address = hal.share(buffer, 'device-to-driver', false);
    hal.write(address, Uint8Array.of(7, 8));
    hal.unshare(address, buffer, 'driver-to-device', false);
    expect([...buffer]).toEqual([1, 2, 3]);
    hal.assertClean();
  });

  it('copies both ways', () => {
    const hal = new FakeHal();
    const buffer = Uint8Array.of(1, 2);
    const address = hal.share(buffer, 'both', true);
    expect([...hal.read(address, 2)]).toEqual([1, 2]);
    hal.write(address + 1, Uint8Array.of(9));
    hal.unshare(address, buffer, 'both', true);
    expect([...buffer]).toEqual([1, 9]);
  });

  it('uses DMA memory as it is, several times at once', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(1, 'both', false);
    const part = region.bytes.subarray(100, 200);
    const address = hal.share(part, 'driver-to-device', false);
    expect(address).toBe(region.address + 100);
    const again = hal.share(region.bytes.subarray(100, 150), 'device-to-driver', false);
    expect(again).toBe(address);
    expect(hal.shares.map(({ zeroCopy }) => zeroCopy)).toEqual([true, true]);
    hal.unshare(again, region.bytes.subarray(100, 150), 'device-to-driver', false);
    hal.unshare(address, part, 'driver-to-device', false);
    expect(hal.counts.bounces).toBe(0);
    hal.dmaDealloc(region, false);
    hal.assertClean();
  });

  it.each<[string, (hal: FakeHal) => void, string]>([
    ['an empty buffer', (hal) => hal.share(new Uint8Array(0), 'both', false), 'empty buffer'],
    [
      'a buffer of a region that was given back',
      (hal) => {
        const region = hal.dmaAlloc(1, 'both', false);
        const part = region.bytes.subarray(0, 8);
        hal.dmaDealloc(region, false);
        hal.share(part, 'both', false);
      },
      'given back',
    ],
    [
      'a buffer that reaches out of its region',
      (hal) => {
        const { bytes } = hal.dmaAlloc(1, 'both', false);
        hal.share(new Uint8Array(bytes.buffer, bytes.byteOffset - 8, 16), 'both', false);
      },
      'reaches out',
    ],
    [
      'a region in a direction that it does not have',
      (hal) => hal.share(hal.dmaAlloc(1, 'driver-to-device', false).bytes, 'device-to-driver', false),
      'were shared device-to-driver',
    ],
    [
      'a buffer that is not shared',
      (hal) => {
        hal.unshare(0x1000, new Uint8Array(8), 'both', false);
      },
      'unshared twice',
    ],
    [
      'a buffer twice',
      (hal) => {
        const buffer = new Uint8Array(8);
        const address = hal.share(buffer, 'both', false);
        hal.unshare(address, buffer, 'both', false);
        hal.unshare(address, buffer, 'both', false);
      },
      'unshared twice',
    ],
    [
      'another buffer than was shared',
      (hal) => {
        hal.unshare(hal.share(new Uint8Array(8), 'both', false), new Uint8Array(8), 'both', false);
      },
      'not shared there',
    ],
    [
      'the other direction',
      (hal) => {
        const buffer = new Uint8Array(8);
        hal.unshare(hal.share(buffer, 'driver-to-device', false), buffer, 'device-to-driver', false);
      },
      'unshared device-to-driver',
    ],
    [
      'another accessPlatform',
      (hal) => {
        const buffer = new Uint8Array(8);
        hal.unshare(hal.share(buffer, 'both', true), buffer, 'both', false);
      },
      'accessPlatform',
    ],
    [
      'a region given back with another accessPlatform',
      (hal) => {
        hal.dmaDealloc(hal.dmaAlloc(1, 'both', true), false);
      },
      'accessPlatform',
    ],
  ])('refuses and reports %s', (_, act, message) => {
    const hal = new FakeHal();
    expect(() => {
      act(hal);
    }).toThrow(message);
    expect(hal.misuse).toEqual([expect.stringContaining(message)]);
  });

  it('reports a region that is given back while a part of it is shared', () => {
    const hal = new FakeHal();
    const region = hal.dmaAlloc(1, 'both', false);
    hal.share(region.bytes.subarray(0, 8), 'both', false);
    hal.dmaDealloc(region, false);
    expect(hal.misuse).toEqual([expect.stringContaining('8 bytes')]);
  });

  it('fails on demand', () => {
    const hal = new FakeHal();
    hal.failShare();
    expect(() => hal.share(new Uint8Array(8), 'both', false)).toThrow(VirtioError);
    hal.share(new Uint8Array(8), 'both', false);
  });
});

describe('accounts', () => {
  it('list what was not given back', () => {
    const hal = new FakeHal();
    hal.dmaAlloc(2, 'both', false);
    hal.share(new Uint8Array(8), 'both', false);
    expect(hal.leaks()).toEqual([expect.stringContaining('2 pages'), expect.stringContaining('8 bytes')]);
    expect(() => {
      hal.assertClean();
    }).toThrow('still shared');
  });

  it('tell listeners of memory before it goes', () => {
    const hal = new FakeHal();
    const told: string[] = [];
    const stop = hal.onRelease((address, length, what) =>
      told.push(`${what}: ${length} at ${hal.allows(address, length, 'any')}`),
    );
    const region = hal.dmaAlloc(1, 'both', false);
    const buffer = new Uint8Array(8);
    hal.unshare(hal.share(buffer, 'both', false), buffer, 'both', false);
    hal.dmaDealloc(region, false);
    expect(told).toEqual(['shared buffer of 8 bytes: 8 at true', 'DMA region of 1 pages: 4096 at true']);
    stop();
    hal.dmaDealloc(hal.dmaAlloc(1, 'both', false), false);
    expect(told).toHaveLength(2);
  });

  it('are right whatever happens in whatever order', { timeout: 60_000 }, () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('alloc' as const), size: fc.integer({ min: 1, max: 4 }) }),
      fc.record({ kind: fc.constant('share' as const), size: fc.integer({ min: 1, max: 9000 }) }),
      fc.record({ kind: fc.constant('free' as const), size: fc.nat() }),
      fc.record({ kind: fc.constant('unshare' as const), size: fc.nat() }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 150, size: 'max' }), (steps) => {
        const hal = new FakeHal({ addressSpace: 64 * PAGE_SIZE });
        const regions: ReturnType<FakeHal['dmaAlloc']>[] = [];
        const shared: { address: number; buffer: Uint8Array }[] = [];
        for (const { kind, size } of steps) {
          try {
            if (kind === 'alloc') regions.push(hal.dmaAlloc(size, 'both', false));
            else if (kind === 'share') {
              const buffer = new Uint8Array(size).fill(size);
              shared.push({ address: hal.share(buffer, 'both', false), buffer });
            } else if (kind === 'free') {
              const [region] = regions.splice(size % Math.max(1, regions.length), 1);
              if (region) hal.dmaDealloc(region, false);
            } else {
              const [share] = shared.splice(size % Math.max(1, shared.length), 1);
              if (share) hal.unshare(share.address, share.buffer, 'both', false);
            }
          } catch (error) {
            if (!VirtioError.is(error, 'DMA_ERROR')) throw error;
          }
          const spans = [
            ...regions.map(({ address, bytes }) => [address, address + bytes.length] as const),
            ...shared.map(({ address, buffer }) => [address, address + buffer.length] as const),
          ].sort(([a], [b]) => a - b);
          spans.forEach(([start], i) => {
            const before = spans[i - 1];
            if (before) expect(start).toBeGreaterThanOrEqual(before[1] + PAGE_SIZE);
          });
          for (const { address, buffer } of shared) {
            expect(hal.read(address, buffer.length)).toEqual(buffer);
          }
        }
        expect(hal.leaks()).toHaveLength(regions.length + shared.length);
        expect(hal.misuse).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });
});

it('refuses to share what is no bytes', () => {
  const hal = new FakeHal();
  for (const wrong of [undefined, 4, {}, { length: 8 }, new Uint32Array(4)] as unknown as Uint8Array[]) {
    expect(() => hal.share(wrong, 'driver-to-device', false)).toThrow('not a Uint8Array');
  }
});

describe('registers', () => {
  it('are mapped where the test put them', () => {
    const hal = new FakeHal();
    const window = new MappedRegisters(new ArrayBuffer(64));
    hal.addRegisters(0xa000, window);
    expect(hal.mapRegisters(0xa000, 64)).toBe(window);
    expect(() => hal.mapRegisters(0xa000, 65)).toThrow(VirtioError);
    expect(() => hal.mapRegisters(0xb000, 4)).toThrow(VirtioError);
  });
});
