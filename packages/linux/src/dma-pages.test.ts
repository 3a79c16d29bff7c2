import { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE } from './dma-memory.ts';
import { mapDmaMemory } from './dma-pages.ts';
import { Mapping, type MappingOptions } from './mapping.ts';
import { MapFlags } from './syscalls.ts';

/** Maps as the kernel does where a control group lets a process fill no huge page: pages that are never there. */
function withoutHugePages(log: Mapping[]): (options: MappingOptions) => Mapping {
  return ({ size, flags = MapFlags.SHARED }) => {
    const huge = (flags & MapFlags.HUGETLB) !== 0;
    const mapping = Mapping.map(huge ? { size, flags: MapFlags.SHARED | MapFlags.NORESERVE } : { size });
    log.push(mapping);
    return mapping;
  };
}

describe('mapDmaMemory', () => {
  it('takes ordinary pages where huge ones are mapped but not filled, and leaves no mapping behind', () => {
    const log: Mapping[] = [];
    using mapping = mapDmaMemory(BLOCK_SIZE, withoutHugePages(log));
    expect(log).toHaveLength(2);
    expect(mapping).toBe(log[1]);
    expect(log[0]?.isPresent(), 'the first mapping is gone').toBe(false);
    expect(log[0]?.view().byteLength).toBe(0);
    const bytes = new Uint8Array(mapping.view());
    bytes.fill(1);
    expect(bytes.at(-1)).toBe(1);
  });

  it('takes ordinary pages where there are no huge ones', () => {
    const sizes: number[] = [];
    using mapping = mapDmaMemory(BLOCK_SIZE, ({ size, flags = 0 }) => {
      sizes.push(size);
      if ((flags & MapFlags.HUGETLB) !== 0) throw new Error('ENOMEM');
      return Mapping.map({ size });
    });
    expect(sizes).toEqual([BLOCK_SIZE, BLOCK_SIZE]);
    expect(mapping.size).toBe(BLOCK_SIZE);
  });

  it('says what to do when there is no memory at all', () => {
    const none = (): never => {
      throw Object.assign(new Error('no'), { code: 'ENOMEM' });
    };
    expect(() => mapDmaMemory(BLOCK_SIZE, none)).toThrow(VirtioError);
    expect(() => mapDmaMemory(BLOCK_SIZE, none)).toThrow('memory.max');
  });

  it('takes memory of the right size from the kernel of this machine', () => {
    using mapping = mapDmaMemory(2 * BLOCK_SIZE);
    const bytes = new Uint8Array(mapping.view());
    expect(bytes.length).toBe(2 * BLOCK_SIZE);
    bytes.fill(7);
    expect(mapping.isPresent()).toBe(true);
  });
});
