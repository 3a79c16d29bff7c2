import fc from 'fast-check';
import { type DmaRegion, PAGE_SIZE } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { anonymousSource } from './anonymous-source.fixture.ts';
import { BLOCK_SIZE, DmaMemory } from './dma-memory.ts';

const BLOCK_PAGES = BLOCK_SIZE / PAGE_SIZE;

describe('DmaMemory', () => {
  it('hands out zeroed pages with the addresses that the source chose, one block for many', () => {
    const source = anonymousSource();
    using memory = new DmaMemory(source);
    const a = memory.allocate(1);
    const b = memory.allocate(3);
    expect(a.bytes.length).toBe(PAGE_SIZE);
    expect(b.bytes.length).toBe(3 * PAGE_SIZE);
    expect(a.address % PAGE_SIZE).toBe(0);
    expect(b.address).toBe(a.address + PAGE_SIZE);
    expect(b.bytes.every((byte) => byte === 0)).toBe(true);
    expect(source.mapped).toBe(1);
    expect(memory.find(b.bytes.buffer)?.region).toBe(b);
    expect(memory.find(new ArrayBuffer(1))).toBeUndefined();
  });

  it('empties the views of a region that is given back, and zeroes its pages for the next', () => {
    using memory = new DmaMemory(anonymousSource());
    const first = memory.allocate(2);
    const stale = first.bytes.subarray(10, 20);
    first.bytes.fill(0xaa);
    memory.free(first);
    expect(first.bytes.length).toBe(0);
    expect(stale.length).toBe(0);
    const second = memory.allocate(2);
    expect(second.address).toBe(first.address);
    expect(second.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('refuses to free twice, or what is not its own', () => {
    using memory = new DmaMemory(anonymousSource());
    const region = memory.allocate(1);
    memory.free(region);
    expect(() => memory.free(region)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    const foreign: DmaRegion = { bytes: new Uint8Array(PAGE_SIZE), address: 0x100_0000, pages: 1 };
    expect(() => memory.free(foreign)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('refuses sizes that make no sense', () => {
    using memory = new DmaMemory(anonymousSource());
    for (const pages of [0, -1, 1.5, NaN]) {
      expect(() => memory.allocate(pages)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });

  it('gives large blocks back when they are empty, and keeps one small one', () => {
    const source = anonymousSource();
    using memory = new DmaMemory(source);
    const small = memory.allocate(1);
    const large = memory.allocate(3 * BLOCK_PAGES);
    expect(memory.mappedBytes).toBe(4 * BLOCK_SIZE);
    memory.free(large);
    expect(memory.mappedBytes).toBe(BLOCK_SIZE);
    memory.free(small);
    expect(source.mapped).toBe(1);
  });

  it('aligns what asks for it', () => {
    using memory = new DmaMemory(anonymousSource());
    memory.allocate(1);
    const block = memory.allocate(BLOCK_PAGES, BLOCK_PAGES);
    expect(block.address % BLOCK_SIZE).toBe(0);
    const run = memory.allocate(4, 4);
    expect(run.address % (4 * PAGE_SIZE)).toBe(0);
  });

  it('detaches and unmaps everything at the end', () => {
    const source = anonymousSource();
    const memory = new DmaMemory(source);
    const region = memory.allocate(1);
    memory[Symbol.dispose]();
    expect(region.bytes.length).toBe(0);
    expect(source.mapped).toBe(0);
    expect(source.disposed).toBe(true);
    expect(() => memory.allocate(1)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    expect(() => memory.free(region)).not.toThrow();
  });

  it('never gives the same page to two', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 700 }), fc.boolean()), { maxLength: 40 }),
        (steps) => {
          using memory = new DmaMemory(anonymousSource());
          const held: DmaRegion[] = [];
          for (const [pages, free] of steps) {
            if (free && held.length > 0) {
              memory.free(held.splice(pages % held.length, 1)[0]!);
              continue;
            }
            const region = memory.allocate(pages);
            expect(region.bytes[0]).toBe(0);
            expect(region.bytes.at(-1)).toBe(0);
            region.bytes[0] = 1;
            region.bytes[region.bytes.length - 1] = 1;
            const end = region.address + pages * PAGE_SIZE;
            for (const other of held) {
              expect(end <= other.address || region.address >= other.address + other.pages * PAGE_SIZE).toBe(
                true,
              );
            }
            held.push(region);
          }
        },
      ),
      { numRuns: 50 },
    );
  });
});
