import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { BufferDirection } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { anonymousSource } from './anonymous-source.fixture.ts';
import { BouncePool } from './bounce-pool.ts';
import { BLOCK_SIZE, type DmaBlock, DmaMemory } from './dma-memory.ts';

function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
}

/** A pool, and the device's view of its memory. */
function setUp() {
  const source = anonymousSource();
  const blocks: DmaBlock[] = [];
  const memory = new DmaMemory({
    ...source,
    map: (size) => {
      const block = source.map(size);
      blocks.push(block);
      return block;
    },
  });
  const pool = new BouncePool(memory);
  const device = (address: number, length: number): Uint8Array => {
    const block = blocks.find((b) => address >= b.address && address + length <= b.address + b.mapping.size);
    return new Uint8Array(block!.mapping.view(address - block!.address, length));
  };
  return { memory, pool, device, [Symbol.dispose]: () => memory[Symbol.dispose]() };
}

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

describe('BouncePool', () => {
  it('copies to the device what it reads, and back what it writes', () => {
    using set = setUp();
    const out = filled(1000, 7);
    const address = set.pool.share(out, 'driver-to-device');
    expect(set.device(address, 1000)).toEqual(out);
    set.device(address, 1000).fill(9);
    expect(set.pool.unshare(address, out, 'driver-to-device')).toBe(true);
    expect(out).toEqual(filled(1000, 7));

    const both = filled(1000, 7);
    const again = set.pool.share(both, 'both');
    expect(set.device(again, 1000)).toEqual(both);
    set.device(again, 500).fill(9);
    set.pool.unshare(again, both, 'both');
    expect(both).toEqual(new Uint8Array([...filled(500, 9), ...filled(500, 7)]));
  });

  it('does not show a buffer that the device only writes what another one held', () => {
    using set = setUp();
    const secret = filled(600, 0x55);
    const first = set.pool.share(secret, 'driver-to-device');
    set.pool.unshare(first, secret, 'driver-to-device');
    const into = filled(600, 1);
    const second = set.pool.share(into, 'device-to-driver');
    expect(second).toBe(first);
    expect(set.device(second, 600)).toEqual(filled(600, 0));
    set.device(second, 1)[0] = 3;
    set.pool.unshare(second, into, 'device-to-driver');
    expect(into[0]).toBe(3);
    expect(into[1]).toBe(0);
  });

  it('copies nothing back for a request whose contents are of no interest', () => {
    using set = setUp();
    const into = filled(64, 1);
    const address = set.pool.share(into, 'device-to-driver');
    set.device(address, 64).fill(9);
    set.pool.unshare(address, into, 'driver-to-device');
    expect(into).toEqual(filled(64, 1));
  });

  it('refuses what is not shared, or is taken back twice, and empty buffers', () => {
    using set = setUp();
    const buffer = filled(100, 1);
    const address = set.pool.share(buffer, 'both');
    expect(set.pool.unshare(address + 512, buffer, 'both')).toBe(false);
    expect(set.pool.unshare(address + 1, buffer, 'both')).toBe(false);
    expect(set.pool.unshare(12345, buffer, 'both')).toBe(false);
    expect(set.pool.unshare(address, buffer, 'both')).toBe(true);
    expect(set.pool.unshare(address, buffer, 'both')).toBe(false);
    expect(() => set.pool.share(new Uint8Array(0), 'both')).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('shares buffers larger than a block, and uses their memory again', () => {
    using set = setUp();
    const large = filled(BLOCK_SIZE + 1, 3);
    const address = set.pool.share(large, 'both');
    expect(set.device(address, large.length)[BLOCK_SIZE]).toBe(3);
    set.device(address, large.length)[BLOCK_SIZE] = 4;
    expect(set.pool.shared).toBe(1);
    expect(set.pool.unshare(address, large, 'both')).toBe(true);
    expect(large[BLOCK_SIZE]).toBe(4);
    expect(set.pool.share(filled(BLOCK_SIZE + 2, 0), 'device-to-driver')).toBe(address);
  });

  it('survives a buffer that was transferred away while it was shared', () => {
    using set = setUp();
    const buffer = filled(4096, 1);
    const address = set.pool.share(buffer, 'device-to-driver');
    (buffer.buffer as ArrayBuffer).transfer();
    expect(buffer.length).toBe(0);
    expect(set.pool.unshare(address, buffer, 'device-to-driver')).toBe(true);
    expect(set.pool.shared).toBe(0);
  });

  it('never lends the same memory to two, and keeps each apart from its neighbours', () => {
    const sizes = fc.oneof(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: BLOCK_SIZE }));
    fc.assert(
      fc.property(fc.array(fc.tuple(sizes, fc.boolean()), { maxLength: 60 }), (steps) => {
        using set = setUp();
        const held: { buffer: Uint8Array; address: number; mark: number }[] = [];
        const giveBack = (i: number): void => {
          const { buffer, address, mark } = held.splice(i, 1)[0]!;
          expect(set.pool.unshare(address, buffer, 'both')).toBe(true);
          expect([buffer[0], buffer.at(-1)]).toEqual([mark, mark]);
        };
        for (const [i, [size, free]] of steps.entries()) {
          if (free && held.length > 0) {
            giveBack(size % held.length);
            continue;
          }
          const mark = i + 1;
          const buffer = filled(size, 0);
          buffer[0] = mark;
          buffer[size - 1] = mark;
          const address = set.pool.share(buffer, 'both');
          for (const other of held) {
            expect(address + size <= other.address || address >= other.address + other.buffer.length).toBe(
              true,
            );
          }
          held.push({ buffer, address, mark });
        }
        expect(set.pool.shared).toBe(held.length);
        while (held.length > 0) giveBack(0);
        expect(set.pool.shared).toBe(0);
      }),
      { numRuns: 40 },
    );
  });

  it('allocates nothing on the heap in the steady state', () => {
    using set = setUp();
    const buffers = Array.from({ length: 32 }, () => filled(4096, 1));
    const addresses = new Float64Array(32);
    const directions: BufferDirection[] = ['device-to-driver', 'driver-to-device'];
    const round = (): void => {
      for (let i = 0; i < 32; i += 1) addresses[i] = set.pool.share(buffers[i]!, directions[i & 1]!);
      for (let i = 0; i < 32; i += 1) set.pool.unshare(addresses[i]!, buffers[i]!, directions[i & 1]!);
    };
    for (let i = 0; i < 20_000; i += 1) round();
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 10_000; i += 1) round();
    const perShare = (process.memoryUsage().heapUsed - before) / (10_000 * 32);
    expect(perShare).toBeLessThan(0.5);
  });
});
