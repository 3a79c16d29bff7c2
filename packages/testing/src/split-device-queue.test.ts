/** The ring is written byte by byte as the specification lays it out; no code of the driver's side takes part. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PlainMemory } from './device-memory.ts';
import { type DeviceQueueOptions, DriverViolation } from './device-queue.ts';
import { SplitDeviceQueue } from './split-device-queue.ts';

const BASE = 0x4000_0000;
// Each part at an address that is only as aligned as it must be [2.7].
const TABLE = 0x010;
const AVAIL = 0x302;
const USED = 0x504;
const TABLES = 0x800;
const DATA = 0x1000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

/** A driver that is a few `DataView` calls. */
function ring(options: Partial<DeviceQueueOptions> = {}, size = 4) {
  const memory = new PlainMemory(BASE, 0x2000);
  const view = new DataView(memory.bytes.buffer);
  const interrupts: number[] = [];
  const queue = (): SplitDeviceQueue =>
    new SplitDeviceQueue({
      memory,
      size,
      descriptors: BASE + TABLE,
      driverArea: BASE + AVAIL,
      deviceArea: BASE + USED,
      interrupt: () => interrupts.push(view.getUint16(USED + 2, true)),
      ...options,
    });
  let availIdx = 0;
  return {
    memory,
    view,
    interrupts,
    queue,
    descriptor(index: number, address: number, length: number, flags: number, next = 0, at = TABLE) {
      view.setBigUint64(at + 16 * index, BigInt(BASE + address), true);
      view.setUint32(at + 16 * index + 8, length, true);
      view.setUint16(at + 16 * index + 12, flags, true);
      view.setUint16(at + 16 * index + 14, next, true);
    },
    offer(...heads: number[]) {
      for (const head of heads) {
        view.setUint16(AVAIL + 4 + 2 * (availIdx % size), head, true);
        availIdx = (availIdx + 1) & 0xffff;
      }
      view.setUint16(AVAIL + 2, availIdx, true);
    },
    used(place: number) {
      return [view.getUint32(USED + 4 + 8 * place, true), view.getUint32(USED + 8 + 8 * place, true)];
    },
    usedIdx: () => view.getUint16(USED + 2, true),
    setUsedEvent: (event: number) => {
      view.setUint16(AVAIL + 4 + 2 * size, event, true);
    },
    availEvent: () => view.getUint16(USED + 4 + 8 * size, true),
    setIdx(idx: number) {
      availIdx = idx;
      view.setUint16(AVAIL + 2, idx, true);
    },
  };
}

describe('a split ring laid out by hand', () => {
  it('gives the chain that its available ring names [2.7.5, 2.7.6]', () => {
    const r = ring();
    r.memory.bytes.set([1, 2, 3], DATA);
    r.memory.bytes.set([4, 5], DATA + 16);
    r.descriptor(2, DATA, 3, NEXT, 0);
    r.descriptor(0, DATA + 16, 2, NEXT, 3);
    r.descriptor(3, DATA + 32, 8, NEXT | WRITE, 1);
    r.descriptor(1, DATA + 64, 1, WRITE);
    const queue = r.queue();
    expect(queue.available()).toBe(false);
    expect(queue.pop()).toBeUndefined();
    r.offer(2);
    expect(queue.available()).toBe(true);
    const chain = queue.pop();
    expect(chain).toMatchObject({ id: 2, readable: 5, writable: 9, descriptors: 4, indirect: false });
    expect(chain?.elements).toEqual([
      { address: BASE + DATA, length: 3, writable: false },
      { address: BASE + DATA + 16, length: 2, writable: false },
      { address: BASE + DATA + 32, length: 8, writable: true },
      { address: BASE + DATA + 64, length: 1, writable: true },
    ]);
    expect([...(chain?.bytes() ?? [])]).toEqual([1, 2, 3, 4, 5]);
    chain?.write([9, 8, 7]).writeAt(8, [6]).complete();
    expect([...r.memory.bytes.subarray(DATA + 32, DATA + 40)]).toEqual([9, 8, 7, 0, 0, 0, 0, 0]);
    expect(r.memory.bytes[DATA + 64]).toBe(6);
    expect([r.usedIdx(), ...r.used(0)]).toEqual([1, 2, 9]);
  });

  it('reads indirect tables, their entries in any order of `next` [2.7.5.3]', () => {
    const r = ring();
    const queue = r.queue();
    r.descriptor(0, DATA, 4, NEXT, 2, TABLES);
    r.descriptor(1, DATA + 8, 2, WRITE, 0, TABLES);
    r.descriptor(2, DATA + 16, 6, NEXT, 1, TABLES);
    // 2.7.5.3.2: WRITE means nothing in the descriptor that refers to a table.
    r.descriptor(3, TABLES, 48, INDIRECT | WRITE);
    r.offer(3);
    const chain = queue.pop();
    expect(chain).toMatchObject({ id: 3, readable: 10, writable: 2, descriptors: 1, indirect: true });
    expect(chain?.elements.map(({ address }) => address - BASE)).toEqual([DATA, DATA + 16, DATA + 8]);
  });

  it('takes direct descriptors with a table at their end [2.7.5.3.2]', () => {
    const r = ring();
    const queue = r.queue();
    r.descriptor(0, DATA, 4, NEXT, 1);
    r.descriptor(1, TABLES, 16, INDIRECT);
    r.descriptor(0, DATA + 8, 2, WRITE, 0, TABLES);
    r.offer(0);
    expect(queue.pop()).toMatchObject({ readable: 4, writable: 2, descriptors: 2, indirect: true });
  });

  it('takes several chains and gives them back in any order, over the wrap of the 16-bit indices [2.7.8]', () => {
    const r = ring();
    for (let d = 0; d < 4; d += 1) r.descriptor(d, DATA + 16 * d, 16, WRITE);
    const queue = r.queue();
    let place = 0;
    for (let lap = 0; lap < 65536 / 4 + 10; lap += 1) {
      r.offer(0, 1, 2, 3);
      const chains = [0, 1, 2, 3].map(() => queue.pop());
      for (const n of [2, 0, 3, 1]) {
        chains[n]?.complete(n + 1);
        if (lap % 1000 === 0) expect(r.used(place % 4)).toEqual([n, n + 1]);
        place += 1;
      }
    }
    expect(r.usedIdx()).toBe(place & 0xffff);
    expect(queue.inFlight).toBe(0);
    expect(queue.violations).toEqual([]);
  });

  it('shows a batch of used elements at once', () => {
    const r = ring();
    for (let d = 0; d < 3; d += 1) r.descriptor(d, DATA + 16 * d, 16, WRITE);
    const queue = r.queue();
    r.offer(1, 2, 0);
    const chains = [queue.pop(), queue.pop(), queue.pop()].flatMap((chain) => chain ?? []);
    chains.forEach((chain, n) => chain.write(new Uint8Array(n + 1)));
    queue.completeBatch([...chains].reverse());
    expect([r.usedIdx(), r.used(0), r.used(1), r.used(2)]).toEqual([3, [0, 3], [2, 2], [1, 1]]);
    expect(r.interrupts).toEqual([3]);
  });
});

describe('in-order use of a split ring', () => {
  it('writes one element for a batch, at the place of its first chain [2.7.9]', () => {
    const r = ring({ inOrder: true });
    for (let d = 0; d < 4; d += 1) r.descriptor(d, DATA + 16 * d, 16, WRITE);
    const queue = r.queue();
    r.offer(0, 1, 2);
    const first = [queue.pop(), queue.pop(), queue.pop()].flatMap((chain) => chain ?? []);
    first[2]?.write([1, 2]);
    queue.completeBatch(first);
    expect([r.usedIdx(), r.used(0), r.used(1)]).toEqual([3, [2, 2], [0, 0]]);
    // The next batch stands where its first chain stands in the available ring.
    r.offer(3, 0);
    const second = [queue.pop(), queue.pop()].flatMap((chain) => chain ?? []);
    queue.completeBatch(second);
    expect([r.usedIdx(), r.used(3), r.used(0)]).toEqual([5, [0, 0], [2, 2]]);
  });

  it('lets no test use a younger chain first', () => {
    const r = ring({ inOrder: true });
    for (let d = 0; d < 2; d += 1) r.descriptor(d, DATA, 16, WRITE);
    const queue = r.queue();
    r.offer(0, 1);
    queue.pop();
    const younger = queue.pop();
    expect(() => younger?.complete()).toThrow('oldest');
  });

  it('expects descriptors in ring order [2.7.5.2]', () => {
    const r = ring({ inOrder: true });
    const queueR = r.queue();
    r.descriptor(0, DATA, 4, NEXT, 2);
    r.descriptor(2, DATA, 4, 0);
    r.offer(0);
    expect(() => queueR.pop()).toThrow('in order it must be 1');
    const s = ring({ inOrder: true });
    const queueS = s.queue();
    s.descriptor(1, DATA, 4, 0);
    s.offer(1);
    expect(() => queueS.pop()).toThrow('in order it must be 0');
    const t = ring({ inOrder: true });
    const queueT = t.queue();
    t.descriptor(0, TABLES, 48, INDIRECT);
    t.descriptor(0, DATA, 4, NEXT, 2, TABLES);
    t.descriptor(2, DATA, 4, 0, 0, TABLES);
    t.offer(0);
    expect(() => queueT.pop()).toThrow('out of order');
  });
});

describe('suppression in a split ring', () => {
  it('interrupts unless the flag is set [2.7.7.2]', () => {
    const r = ring();
    r.descriptor(0, DATA, 4, 0);
    const queue = r.queue();
    r.offer(0);
    expect(queue.pop()?.complete()).toBe(true);
    r.view.setUint16(AVAIL, 1, true);
    r.offer(0);
    expect(queue.pop()?.complete()).toBe(false);
    expect(r.interrupts).toEqual([1]);
    expect(queue.interrupts).toBe(1);
  });

  it('asks not to be notified by the flag [2.7.10.2]', () => {
    const r = ring();
    const queue = r.queue();
    queue.suppressNotifications();
    expect(r.view.getUint16(USED, true)).toBe(1);
    // Finding the ring empty does not ask for notifications again.
    queue.pop();
    expect(queue.usedFlags).toBe(1);
    queue.enableNotifications();
    expect(r.view.getUint16(USED, true)).toBe(0);
  });

  it('asks by the event index, and for the next chain when it finds the ring empty [2.7.10.2]', () => {
    const r = ring({ eventIdx: true });
    r.descriptor(0, DATA, 4, 0);
    const queue = r.queue();
    for (let n = 0; n < 3; n += 1) {
      r.offer(0);
      queue.pop()?.complete();
      queue.pop();
      expect(r.availEvent()).toBe(n + 1);
    }
    queue.suppressNotifications();
    expect(r.availEvent()).toBe(2);
    expect(r.view.getUint16(USED, true)).toBe(0);
  });

  it('interrupts if one of the elements used since then has the index used_event [2.7.7.2]', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0xffff }),
        fc.array(
          fc.record({ used: fc.integer({ min: 1, max: 4 }), ahead: fc.integer({ min: -6, max: 6 }) }),
          {
            minLength: 1,
            maxLength: 40,
            size: 'max',
          },
        ),
        fc.boolean(),
        (event, steps, follow) => {
          const r = ring({ eventIdx: true });
          for (let d = 0; d < 4; d += 1) r.descriptor(d, DATA, 4, 0);
          const queue = r.queue();
          let index = 0;
          r.setUsedEvent(event);
          for (const { used, ahead } of steps) {
            if (follow) r.setUsedEvent((index + ahead) & 0xffff);
            const wanted = queue.usedEvent;
            r.offer(...[0, 1, 2, 3].slice(0, used));
            const chains = [0, 1, 2, 3].slice(0, used).flatMap(() => queue.pop() ?? []);
            const told = queue.completeBatch(chains);
            // One element at a time, each with its index.
            let due = false;
            for (let n = 0; n < used; n += 1) due ||= ((index + n) & 0xffff) === wanted;
            index += used;
            expect(told).toBe(due);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('interrupts once a lap of the 16-bit index for an event that stays', () => {
    const r = ring({ eventIdx: true });
    r.descriptor(0, DATA, 4, 0);
    r.setUsedEvent(0xfffe);
    const queue = r.queue();
    const at: number[] = [];
    for (let n = 0; n < 3 * 65536; n += 1) {
      r.offer(0);
      if (queue.pop()?.complete() === true) at.push(n);
    }
    expect(at).toEqual([0xfffe, 0x1fffe, 0x2fffe]);
  });
});

describe('a driver that breaks the rules of split rings', () => {
  const broken = (set: (r: ReturnType<typeof ring>) => void, options: Partial<DeviceQueueOptions> = {}) => {
    const seen: DriverViolation[] = [];
    const r = ring({ onViolation: (violation) => seen.push(violation), ...options });
    const queue = r.queue();
    set(r);
    const pop = () => {
      for (let n = 0; n < 8; n += 1) queue.pop();
    };
    expect(pop).toThrow(DriverViolation);
    expect(seen).toHaveLength(1);
    expect(queue.violations).toEqual(seen);
    return seen[0]?.message ?? '';
  };

  it.each<[string, (r: ReturnType<typeof ring>) => void, string]>([
    [
      'a head outside the table',
      (r) => {
        r.offer(4);
      },
      'there are 4 descriptors',
    ],
    [
      'a `next` outside the table',
      (r) => {
        r.descriptor(0, DATA, 4, NEXT, 4);
        r.offer(0);
      },
      'continues at descriptor 4',
    ],
    [
      'a loop [2.7.5.2]',
      (r) => {
        r.descriptor(0, DATA, 4, NEXT, 1);
        r.descriptor(1, DATA, 4, NEXT, 0);
        r.offer(0);
      },
      'loop',
    ],
    [
      'a readable buffer behind a writable one [2.7.4.2]',
      (r) => {
        r.descriptor(0, DATA, 4, NEXT | WRITE, 1);
        r.descriptor(1, DATA, 4, 0);
        r.offer(0);
      },
      'follows a device-writable',
    ],
    [
      'an empty buffer',
      (r) => {
        r.descriptor(0, DATA, 0, 0);
        r.offer(0);
      },
      'empty',
    ],
    [
      'unknown flags',
      (r) => {
        r.descriptor(0, DATA, 4, 8);
        r.offer(0);
      },
      'unknown flags 0x8',
    ],
    [
      'memory that is not there',
      (r) => {
        r.descriptor(0, 0x1fff, 2, 0);
        r.offer(0);
      },
      'no memory',
    ],
    [
      'INDIRECT with NEXT [2.7.5.3.1]',
      (r) => {
        r.descriptor(0, TABLES, 16, INDIRECT | NEXT, 1);
        r.offer(0);
      },
      'both INDIRECT and NEXT',
    ],
    [
      'a table in a table [2.7.5.3.1]',
      (r) => {
        r.descriptor(0, TABLES, 16, INDIRECT);
        r.descriptor(0, DATA, 16, INDIRECT, 0, TABLES);
        r.offer(0);
      },
      'refers to another',
    ],
    [
      'a table of no whole number of descriptors [2.7.5.3]',
      (r) => {
        r.descriptor(0, TABLES, 24, INDIRECT);
        r.offer(0);
      },
      '24 bytes',
    ],
    [
      'an empty table',
      (r) => {
        r.descriptor(0, TABLES, 0, INDIRECT);
        r.offer(0);
      },
      '0 bytes',
    ],
    [
      'a `next` outside its table',
      (r) => {
        r.descriptor(0, TABLES, 32, INDIRECT);
        r.descriptor(0, DATA, 16, NEXT, 2, TABLES);
        r.offer(0);
      },
      'continues at 2',
    ],
    [
      'a loop in a table [2.7.5.2]',
      (r) => {
        r.descriptor(0, TABLES, 32, INDIRECT);
        r.descriptor(0, DATA, 16, NEXT, 0, TABLES);
        r.offer(0);
      },
      'loop',
    ],
    [
      'unknown flags in a table',
      (r) => {
        r.descriptor(0, TABLES, 16, INDIRECT);
        r.descriptor(0, DATA, 16, 0x80, 0, TABLES);
        r.offer(0);
      },
      'unknown flags 0x80',
    ],
    [
      'a table in memory that is not there',
      (r) => {
        r.descriptor(0, 0x1ff0, 32, INDIRECT);
        r.offer(0);
      },
      'indirect table',
    ],
    [
      'a chain longer than the queue [2.7.5.3.1]',
      (r) => {
        r.descriptor(0, TABLES, 80, INDIRECT);
        for (let i = 0; i < 5; i += 1) r.descriptor(i, DATA, 1, i < 4 ? NEXT : 0, i + 1, TABLES);
        r.offer(0);
      },
      'longer than the queue',
    ],
    [
      'an index that goes back [2.7.6.1]',
      (r) => {
        r.setIdx(0xffff);
      },
      'go back',
    ],
    [
      'more chains than there are descriptors',
      (r) => {
        r.descriptor(0, DATA, 1, 0);
        r.setIdx(5);
      },
      'do not fit',
    ],
    [
      'a descriptor that the device still has',
      (r) => {
        r.descriptor(0, DATA, 4, 0);
        r.descriptor(1, DATA, 4, NEXT, 0);
        r.offer(0, 1);
      },
      'still has',
    ],
    [
      'flags other than 0 and 1 [2.7.7.1]',
      (r) => {
        r.view.setUint16(AVAIL, 2, true);
      },
      'flags are 0x2',
    ],
  ])('is told of %s', (_, set, message) => {
    expect(broken(set)).toContain(message);
  });

  it('is told of more chains than fit beside those in flight', () => {
    const r = ring();
    const queue = r.queue();
    for (let d = 0; d < 4; d += 1) r.descriptor(d, DATA, 4, 0);
    r.offer(0, 1, 2);
    for (let n = 0; n < 3; n += 1) queue.pop();
    r.offer(3, 0);
    expect(() => queue.available()).toThrow('with 3 chains in flight, 2 more do not fit');
  });

  it('is told of a table without the feature [2.7.5.3.1]', () => {
    expect(
      broken(
        (r) => {
          r.descriptor(0, TABLES, 16, INDIRECT);
          r.offer(0);
        },
        { indirect: false },
      ),
    ).toContain('not negotiated');
  });

  it('is told of flags with the event index [2.7.7.1]', () => {
    expect(
      broken(
        (r) => {
          r.view.setUint16(AVAIL, 1, true);
        },
        { eventIdx: true },
      ),
    ).toContain('flags are 0x1');
  });

  it('is told of a chain of more than 2^32 bytes [2.7.5.2]', () => {
    const memory = { view: () => new Uint8Array(0x1000) };
    const r = ring({ memory });
    // Every address answers with the same bytes: the ring's own.
    const bytes = new Uint8Array(0x1000);
    const view = new DataView(bytes.buffer);
    memory.view = () => bytes;
    const queue = new SplitDeviceQueue({ memory, size: 4, descriptors: 0, driverArea: 0, deviceArea: 0 });
    expect(r.usedIdx()).toBe(0);
    // Descriptor 0 lies over the rings: flags 0, index 1, entry 0.
    view.setUint16(2, 1, true);
    view.setUint32(8, 0xffffffff, true);
    view.setUint16(12, NEXT, true);
    view.setUint16(14, 1, true);
    view.setUint32(16 + 8, 2, true);
    expect(() => queue.pop()).toThrow('more than 2^32');
  });

  it.each<[string, Partial<DeviceQueueOptions>, string]>([
    ['a size that is no power of two', { size: 6 }, 'power of two'],
    ['a size of 0', { size: 0 }, '1 to 32768'],
    ['a size above 32768', { size: 65536 }, '1 to 32768'],
    ['a table that is not aligned to 16', { descriptors: BASE + 8 }, 'aligned to 16'],
    ['an available ring that is not aligned to 2', { driverArea: BASE + AVAIL + 1 }, 'aligned to 2'],
    ['a used ring that is not aligned to 4', { deviceArea: BASE + USED + 2 }, 'aligned to 4'],
    ['an area outside memory', { deviceArea: BASE + 0x2000 - 16 }, 'not in memory'],
  ])('is told at set-up of %s [2.7, 2.7.1]', (_, options, message) => {
    expect(() => ring(options).queue()).toThrow(message);
  });

  it('is told at set-up of rings that were not initialized', () => {
    const r = ring();
    r.setIdx(1);
    expect(() => r.queue()).toThrow('available index is not 0');
    const s = ring();
    s.view.setUint16(USED, 1, true);
    expect(() => s.queue()).toThrow('flags are not 0');
  });
});

describe('a device that lies in a split ring', () => {
  it('uses what it was never given', () => {
    const r = ring();
    const queue = r.queue();
    queue.forceUsed(77, 0xffffffff);
    expect([r.usedIdx(), r.used(0)]).toEqual([1, [77, 0xffffffff]]);
    expect(r.interrupts).toEqual([1]);
  });

  it('overwrites index, elements, flags, event and descriptors', () => {
    const r = ring({ eventIdx: true });
    r.descriptor(1, DATA, 4, NEXT, 3);
    const queue = r.queue();
    queue.usedIdx = 0x1234;
    queue.usedFlags = 0xffff;
    queue.availEvent = 0xabcd;
    queue.writeUsed(2, 5, 6);
    queue.writeDescriptor(1, { length: 9 });
    expect([r.usedIdx(), r.view.getUint16(USED, true), r.availEvent(), r.used(2)]).toEqual([
      0x1234,
      0xffff,
      0xabcd,
      [5, 6],
    ]);
    expect(queue.readDescriptor(1)).toEqual({ address: BASE + DATA, length: 9, flags: NEXT, extra: 3 });
    expect([queue.usedIdx, queue.usedFlags, queue.availEvent]).toEqual([0x1234, 0xffff, 0xabcd]);
  });

  it('reports a length that it did not write', () => {
    const r = ring();
    r.descriptor(0, DATA, 4, WRITE);
    const queue = r.queue();
    r.offer(0);
    queue.pop()?.complete(5);
    expect(r.used(0)).toEqual([0, 5]);
  });
});

describe('draining a split ring', () => {
  it('uses all that is available', () => {
    const r = ring({ eventIdx: true });
    for (let d = 0; d < 4; d += 1) r.descriptor(d, DATA, 4, WRITE);
    const queue = r.queue();
    r.offer(3, 1);
    expect(queue.drain(4)).toBe(2);
    expect([r.usedIdx(), r.used(0), r.used(1), r.availEvent()]).toEqual([2, [3, 4], [1, 4], 2]);
    expect(queue.drain(4)).toBe(0);
    for (let lap = 0; lap < 40_000; lap += 1) {
      r.offer(0, 1, 2);
      expect(queue.drain(1)).toBe(3);
    }
    expect(r.usedIdx()).toBe((2 + 120_000) & 0xffff);
  });
});

describe('a split ring that was reset', () => {
  it('is not touched any more', () => {
    const r = ring();
    r.descriptor(0, DATA, 4, WRITE);
    const queue = r.queue();
    r.offer(0);
    const chain = queue.pop();
    expect(queue.uses(BASE + DATA, 1)).toBe(true);
    expect(queue.uses(BASE + USED + 20, 100)).toBe(true);
    expect(queue.uses(BASE + 0x1800, 100)).toBe(false);
    queue.detach();
    expect(chain?.pending).toBe(false);
    expect(chain?.complete()).toBe(false);
    expect(r.usedIdx()).toBe(0);
    expect(() => queue.pop()).toThrow('reset');
    expect(queue.uses(BASE + DATA, 1)).toBe(false);
  });
});
