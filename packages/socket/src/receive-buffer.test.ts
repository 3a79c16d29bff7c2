import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReceiveBuffer } from './receive-buffer.ts';

describe('ReceiveBuffer', () => {
  it('gives back what was put in, in order, whatever the pieces', () => {
    const step = fc.oneof(
      fc.record({ push: fc.uint8Array({ maxLength: 9000 }), from: fc.nat(10) }),
      fc.record({ read: fc.nat(9000) }),
      fc.record({ skip: fc.nat(50) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const capacity = 20_000;
        const buffer = new ReceiveBuffer(capacity);
        let model: number[] = [];
        for (const one of steps) {
          if ('push' in one) {
            const from = Math.min(one.from, one.push.length);
            const length = Math.min(one.push.length - from, capacity - model.length);
            buffer.push(one.push.subarray(from, from + length));
            model = model.concat([...one.push.subarray(from, from + length)]);
          } else if ('read' in one) {
            const into = new Uint8Array(one.read);
            const count = buffer.read(into);
            expect([...into.subarray(0, count)]).toEqual(model.splice(0, one.read));
          } else {
            expect(buffer.skip(one.skip)).toBe(model.splice(0, one.skip).length);
          }
          expect(buffer.length).toBe(model.length);
        }
      }),
    );
  });

  it('knows where messages and records end, also those of no bytes', () => {
    const buffer = new ReceiveBuffer(100);
    buffer.push(Uint8Array.of(1, 2));
    expect(buffer.messages).toBe(0);
    buffer.push(Uint8Array.of(3));
    expect(buffer.endMessage(false)).toBe(true);
    expect(buffer.endMessage(true)).toBe(true);
    expect(buffer.messages).toBe(2);
    expect(buffer.takeMessage()).toEqual({ length: 3, eor: false });
    expect(buffer.skip(3)).toBe(3);
    expect(buffer.takeMessage()).toEqual({ length: 0, eor: true });
    expect(buffer.takeMessage()).toBeUndefined();
  });

  it('refuses messages without end, which cost the peer no credit', () => {
    const buffer = new ReceiveBuffer(3);
    expect([1, 2, 3, 4].map(() => buffer.endMessage(false))).toEqual([true, true, true, false]);
    buffer.clear();
    expect(buffer.messages).toBe(0);
    expect(buffer.endMessage(false)).toBe(true);
  });

  it('takes any number of messages in their order, while others come in', () => {
    const buffer = new ReceiveBuffer(1_000_000);
    let ended = 0;
    let taken = 0;
    for (let n = 0; n < 2000; n += 1) {
      for (let more = 0; more < 5; more += 1) {
        buffer.push(new Uint8Array(ended % 7));
        expect(buffer.endMessage(ended % 3 === 0)).toBe(true);
        ended += 1;
      }
      for (let less = 0; less < (n < 1000 ? 2 : 8); less += 1) {
        expect(buffer.takeMessage()).toEqual({ length: taken % 7, eor: taken % 3 === 0 });
        expect(buffer.skip(taken % 7)).toBe(taken % 7);
        taken += 1;
      }
    }
    expect(buffer.messages).toBe(ended - taken);
    expect(ended - taken).toBe(0);
    expect(buffer.takeMessage()).toBeUndefined();
  });
});
