/** For tests: DMA memory that no device sees, with addresses as an IOMMU would have them. */
import { BLOCK_SIZE, type DmaBlock, type DmaSource } from './dma-memory.ts';
import { IovaSpace } from './iova-space.ts';
import { Mapping } from './mapping.ts';

/** A source of anonymous memory that counts its blocks. */
export interface AnonymousSource extends DmaSource {
  readonly mapped: number;
  readonly disposed: boolean;
}

/** Makes an {@link AnonymousSource}. */
export function anonymousSource(): AnonymousSource {
  const space = new IovaSpace([{ start: 0, end: 2 ** 39 }]);
  let mapped = 0;
  let disposed = false;
  return {
    name: 'anonymous memory',
    get mapped() {
      return mapped;
    },
    get disposed() {
      return disposed;
    },
    map(size: number): DmaBlock {
      mapped += 1;
      return { mapping: Mapping.map({ size }), address: space.take(size, BLOCK_SIZE) };
    },
    unmap({ mapping, address }: DmaBlock): void {
      mapped -= 1;
      space.give(address, mapping.size);
      mapping[Symbol.dispose]();
    },
    [Symbol.dispose]() {
      disposed = true;
    },
  };
}
