import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IovaSpace } from './iova-space.ts';

const MIB = 2 ** 20;
const wide = [{ start: 0, end: 2 ** 39 }];

describe('IovaSpace', () => {
  it('gives low addresses first, never zero', () => {
    const space = new IovaSpace(wide);
    const first = space.take(2 * MIB, 2 * MIB);
    const second = space.take(2 * MIB, 2 * MIB);
    expect(first).toBe(16 * MIB);
    expect(second).toBe(18 * MIB);
  });

  it('keeps away from the window of interrupt messages, whatever the kernel reports', () => {
    const space = new IovaSpace([{ start: 0xfe00_0000, end: 0x1_0000_0000 }]);
    const taken: number[] = [];
    for (;;) {
      try {
        taken.push(space.take(2 * MIB, 2 * MIB));
      } catch {
        break;
      }
    }
    expect(taken.every((start) => start + 2 * MIB <= 0xfee0_0000 || start >= 0xfef0_0000)).toBe(true);
    expect(taken).toContain(0xfe00_0000);
    expect(taken).toContain(0xff00_0000);
    expect(taken).not.toContain(0xfee0_0000);
  });

  it('joins what is given back with its neighbours', () => {
    const space = new IovaSpace([{ start: 16 * MIB, end: 24 * MIB }]);
    const parts = [0, 1, 2, 3].map(() => space.take(2 * MIB, 2 * MIB));
    expect(() => space.take(2 * MIB, 2 * MIB)).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }));
    for (const i of [1, 3, 0, 2]) space.give(parts[i]!, 2 * MIB);
    expect(space.take(8 * MIB, 2 * MIB)).toBe(16 * MIB);
  });

  it('never hands out the same address twice, and gets everything back', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 4 }), fc.boolean()), { maxLength: 60 }),
        (steps) => {
          const space = new IovaSpace([{ start: 16 * MIB, end: 48 * MIB }]);
          const held: { start: number; size: number }[] = [];
          for (const [blocks, free] of steps) {
            const size = blocks * 2 * MIB;
            if (free && held.length > 0) {
              const { start, size: freed } = held.splice(blocks % held.length, 1)[0]!;
              space.give(start, freed);
              continue;
            }
            let start: number;
            try {
              start = space.take(size, 2 * MIB);
            } catch {
              continue;
            }
            expect(start % (2 * MIB)).toBe(0);
            for (const other of held) {
              expect(start + size <= other.start || start >= other.start + other.size).toBe(true);
            }
            held.push({ start, size });
          }
          for (const { start, size } of held) space.give(start, size);
          expect(space.take(32 * MIB, 2 * MIB)).toBe(16 * MIB);
        },
      ),
    );
  });
});
