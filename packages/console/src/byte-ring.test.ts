import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteRing } from './byte-ring.ts';

describe('ByteRing', () => {
  it('keeps bytes in order across its end, and no more than it has room for', () => {
    const ring = new ByteRing(4);
    expect(ring.write(Uint8Array.of(1, 2, 3))).toBe(3);
    const two = new Uint8Array(2);
    expect(ring.read(two)).toBe(2);
    expect(ring.write(Uint8Array.of(4, 5, 6, 7))).toBe(3);
    expect([ring.length, ring.room, ring.capacity, ring.peek()]).toEqual([4, 0, 4, 3]);
    const all = new Uint8Array(8);
    expect(ring.read(all)).toBe(4);
    expect([...all.subarray(0, 4)]).toEqual([3, 4, 5, 6]);
    expect(ring.peek()).toBe(-1);
  });

  it('does what an array of bytes does', () => {
    const step = fc.oneof(
      fc.record({ write: fc.uint8Array({ maxLength: 12, max: 3 }) }),
      fc.record({ read: fc.nat(12) }),
      fc.record({ skip: fc.nat(3) }),
      fc.record({ find: fc.tuple(fc.nat(3), fc.nat(10)) }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(step, { maxLength: 60 }), (capacity, steps) => {
        const ring = new ByteRing(capacity);
        let model: number[] = [];
        for (const one of steps) {
          if ('write' in one) {
            const count = Math.min(one.write.length, capacity - model.length);
            expect(ring.write(one.write)).toBe(count);
            model.push(...one.write.subarray(0, count));
          } else if ('read' in one) {
            const into = new Uint8Array(one.read);
            const count = ring.read(into);
            expect([...into.subarray(0, count)]).toEqual(model.slice(0, one.read));
            model = model.slice(count);
          } else if ('skip' in one) {
            const count = Math.min(one.skip, model.length);
            ring.skip(count);
            model = model.slice(count);
          } else {
            expect(ring.indexOf(...one.find)).toBe(model.indexOf(...one.find));
          }
          expect(ring.length).toBe(model.length);
          expect(ring.room).toBe(capacity - model.length);
          expect(ring.peek()).toBe(model[0] ?? -1);
        }
      }),
    );
  });
});
