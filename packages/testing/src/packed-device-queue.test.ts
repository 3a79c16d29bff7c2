/** The ring is written byte by byte as the specification lays it out; no code of the driver's side takes part. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PlainMemory } from './device-memory.ts';
import { type DeviceQueueOptions, DriverViolation } from './device-queue.ts';
import { PackedDeviceQueue } from './packed-device-queue.ts';

const BASE = 0x4000_0000;
const RING = 0x010;
const DRIVER = 0x304;
const DEVICE = 0x308;
const TABLES = 0x800;
const DATA = 0x1000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;

/** The flags of an available descriptor in a lap with wrap counter 1, and in one with 0 [2.8.1]. */
const LAP1 = AVAIL;
const LAP0 = USED;

/** A driver that is a few `DataView` calls. */
function ring(options: Partial<DeviceQueueOptions> = {}, size = 5) {
  const memory = new PlainMemory(BASE, 0x2000);
  const view = new DataView(memory.bytes.buffer);
  const interrupts: number[] = [];
  const queue = new PackedDeviceQueue({
    memory,
    size,
    descriptors: BASE + RING,
    driverArea: BASE + DRIVER,
    deviceArea: BASE + DEVICE,
    interrupt: () => interrupts.push(1),
    ...options,
  });
  const descriptor = (
    index: number,
    address: number,
    length: number,
    id: number,
    flags: number,
    at = RING,
  ) => {
    view.setBigUint64(at + 16 * index, BigInt(BASE + address), true);
    view.setUint32(at + 16 * index + 8, length, true);
    view.setUint16(at + 16 * index + 12, id, true);
    view.setUint16(at + 16 * index + 14, flags, true);
  };
  return {
    memory,
    view,
    interrupts,
    queue,
    descriptor,
    /** Id, length and flags of a descriptor. */
    at: (index: number) => [
      view.getUint16(RING + 16 * index + 12, true),
      view.getUint32(RING + 16 * index + 8, true),
      view.getUint16(RING + 16 * index + 14, true),
    ],
    driverEvent(flags: number, offset = 0, wrap = 0) {
      view.setUint16(DRIVER, offset | (wrap << 15), true);
      view.setUint16(DRIVER + 2, flags, true);
    },
    deviceEvent: () => ({
      descriptor: view.getUint16(DEVICE, true),
      flags: view.getUint16(DEVICE + 2, true),
    }),
  };
}

describe('a packed ring laid out by hand', () => {
  it('gives a list of descriptors, with the id of its last [2.8.6]', () => {
    const { queue, memory, descriptor, at } = ring();
    memory.bytes.set([1, 2, 3], DATA);
    expect(queue.pop()).toBeUndefined();
    descriptor(1, DATA + 16, 8, 3, LAP1 | NEXT | WRITE);
    descriptor(2, DATA + 32, 1, 3, LAP1 | WRITE);
    expect(queue.available()).toBe(false);
    descriptor(0, DATA, 3, 3, LAP1 | NEXT);
    expect(queue.available()).toBe(true);
    const chain = queue.pop();
    expect(chain).toMatchObject({ id: 3, readable: 3, writable: 9, descriptors: 3, indirect: false });
    expect([...(chain?.bytes() ?? [])]).toEqual([1, 2, 3]);
    chain?.write([7, 7]).complete();
    // 2.8.4, 2.8.1: one used descriptor, where the first available one was; both bits equal the wrap counter.
    expect(at(0)).toEqual([3, 2, AVAIL | USED | WRITE]);
    expect(at(1)).toEqual([3, 8, LAP1 | NEXT | WRITE]);
    expect(queue.usedPosition).toEqual({ offset: 3, wrap: 1 });
  });

  it('takes the id from the last descriptor only [2.8.6]', () => {
    const { queue, descriptor } = ring();
    descriptor(1, DATA, 1, 4, LAP1);
    descriptor(0, DATA, 1, 0x5555, LAP1 | NEXT);
    expect(queue.pop()?.id).toBe(4);
  });

  it('says with WRITE whether it wrote anything [2.8.3]', () => {
    const { queue, descriptor, at } = ring();
    descriptor(0, DATA, 4, 1, LAP1 | WRITE);
    queue.pop()?.complete();
    expect(at(0)).toEqual([1, 0, AVAIL | USED]);
  });

  it('does not take zeroed, used or stale descriptors for available ones [2.8.1]', () => {
    const { queue, descriptor } = ring();
    for (const flags of [0, AVAIL | USED, USED]) {
      descriptor(0, DATA, 4, 1, flags);
      expect(queue.available()).toBe(false);
      expect(queue.pop()).toBeUndefined();
    }
  });

  it('changes its wrap counters with each lap, lists across the end included [2.8.1]', () => {
    const { queue, descriptor, at } = ring();
    const shape = [3, 4, 2, 5, 1, 5, 4, 1];
    let position = 0;
    for (let n = 0; n < 400; n += 1) {
      const count = shape[n % shape.length] ?? 1;
      for (let i = count - 1; i >= 0; i -= 1) {
        const place = position + i;
        const lap = Math.floor(place / 5) % 2 === 0 ? LAP1 : LAP0;
        descriptor(place % 5, DATA, 2, n % 5, lap | WRITE | (i < count - 1 ? NEXT : 0));
      }
      const chain = queue.pop();
      expect(chain).toMatchObject({ id: n % 5, descriptors: count });
      chain?.write([1]).complete();
      const wrap = Math.floor(position / 5) % 2 === 0;
      expect(at(position % 5)).toEqual([n % 5, 1, (wrap ? AVAIL | USED : 0) | WRITE]);
      position += count;
    }
    expect(queue.availPosition).toEqual(queue.usedPosition);
  });

  it('reads indirect tables in their order, without regard to ids [2.8.7]', () => {
    const { queue, descriptor } = ring();
    descriptor(0, DATA, 4, 0x7777, 0, TABLES);
    descriptor(1, DATA + 8, 6, 0, WRITE, TABLES);
    descriptor(2, DATA + 16, 1, 0, WRITE, TABLES);
    descriptor(0, TABLES, 48, 2, LAP1 | INDIRECT | WRITE);
    expect(queue.pop()).toMatchObject({ id: 2, readable: 4, writable: 7, descriptors: 1, indirect: true });
  });

  it('gives chains back in any order, each where the next used descriptor goes', () => {
    const { queue, descriptor, at } = ring();
    [2, 1, 0].forEach((id, place) => {
      descriptor(place, DATA, 4, id, LAP1 | WRITE);
    });
    const chains = [queue.pop(), queue.pop(), queue.pop()];
    chains[2]?.write([1]).complete();
    expect(at(0)).toEqual([0, 1, AVAIL | USED | WRITE]);
    chains[0]?.write([1, 2]).complete();
    expect(at(1)).toEqual([2, 2, AVAIL | USED | WRITE]);
    chains[1]?.complete();
    expect(at(2)).toEqual([1, 0, AVAIL | USED]);
    expect(queue.violations).toEqual([]);
  });

  it('uses a batch in order with one descriptor, and skips its others [2.8.8]', () => {
    const { queue, descriptor, at, interrupts } = ring({ inOrder: true });
    descriptor(0, DATA, 4, 4, LAP1 | WRITE | NEXT);
    descriptor(1, DATA, 4, 4, LAP1 | WRITE);
    descriptor(2, DATA, 4, 0, LAP1 | WRITE);
    descriptor(3, DATA, 4, 2, LAP1 | WRITE);
    const chains = [queue.pop(), queue.pop(), queue.pop()].flatMap((chain) => chain ?? []);
    chains[2]?.write([1, 2, 3]);
    queue.completeBatch(chains);
    expect(at(0)).toEqual([2, 3, AVAIL | USED | WRITE]);
    expect(at(2)).toEqual([0, 4, LAP1 | WRITE]);
    expect(queue.usedPosition).toEqual({ offset: 4, wrap: 1 });
    expect(interrupts).toHaveLength(1);
  });

  it('holds the first descriptor of a batch back until the others are written', () => {
    const writes: number[] = [];
    const memory = new PlainMemory(BASE, 0x2000);
    const r = ring({ memory });
    const view = new DataView(memory.bytes.buffer);
    for (const place of [0, 1]) {
      view.setBigUint64(RING + 16 * place, BigInt(BASE + DATA), true);
      view.setUint32(RING + 16 * place + 8, 4, true);
      view.setUint16(RING + 16 * place + 12, place, true);
      view.setUint16(RING + 16 * place + 14, LAP1 | WRITE, true);
    }
    const chains = [r.queue.pop(), r.queue.pop()].flatMap((chain) => chain ?? []);
    const set = DataView.prototype.setUint16;
    DataView.prototype.setUint16 = function (this: DataView, at: number, value: number, little?: boolean) {
      writes.push(at);
      set.call(this, at, value, little);
    };
    try {
      r.queue.completeBatch(chains);
    } finally {
      DataView.prototype.setUint16 = set;
    }
    const flags = writes.filter((at) => at % 16 === 14);
    expect(flags).toEqual([16 + 14, 14]);
  });
});

describe('suppression in a packed ring', () => {
  it('interrupts unless it is disabled [2.8.10]', () => {
    const { queue, descriptor, driverEvent } = ring();
    descriptor(0, DATA, 4, 0, LAP1);
    descriptor(1, DATA, 4, 1, LAP1);
    expect(queue.pop()?.complete()).toBe(true);
    driverEvent(1);
    expect(queue.pop()?.complete()).toBe(false);
  });

  it('interrupts for the descriptor that the driver names, by offset and wrap counter [2.8.10]', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.array(fc.record({ used: fc.integer({ min: 1, max: 9 }), offset: fc.nat(8), wrap: fc.nat(1) }), {
          minLength: 1,
          maxLength: 40,
          size: 'max',
        }),
        (size, steps) => {
          const { queue, descriptor, driverEvent } = ring({ eventIdx: true }, size);
          let position = 0;
          for (const step of steps) {
            const used = Math.min(step.used, size);
            const offset = step.offset % size;
            driverEvent(2, offset, step.wrap);
            let due = false;
            for (let n = 0; n < used; n += 1) {
              const place = position + n;
              const wrap = Math.floor(place / size) % 2 === 0 ? 1 : 0;
              due ||= place % size === offset && wrap === step.wrap;
              descriptor(place % size, DATA, 4, n, wrap === 1 ? LAP1 : LAP0);
            }
            const chains = Array.from({ length: used }, () => queue.pop()).flatMap((chain) => chain ?? []);
            expect(chains).toHaveLength(used);
            expect(queue.completeBatch(chains)).toBe(due);
            position += used;
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('asks for notifications by flags, or at the next descriptor with the event index [2.8.10]', () => {
    const plain = ring();
    plain.queue.suppressNotifications();
    expect(plain.deviceEvent().flags).toBe(1);
    plain.queue.pop();
    expect(plain.deviceEvent().flags).toBe(1);
    plain.queue.enableNotifications();
    expect(plain.deviceEvent().flags).toBe(0);

    const { queue, descriptor, deviceEvent } = ring({ eventIdx: true }, 2);
    for (const [place, lap] of [
      [0, LAP1],
      [1, LAP1],
      [0, LAP0],
    ] as const) {
      descriptor(place, DATA, 4, 0, lap);
      queue.pop()?.complete();
    }
    queue.pop();
    expect(deviceEvent()).toEqual({ descriptor: 1, flags: 2 });
    descriptor(1, DATA, 4, 0, LAP0);
    queue.pop()?.complete();
    queue.pop();
    expect(deviceEvent()).toEqual({ descriptor: 0x8000, flags: 2 });
  });

  it('knows where the driver will go on, for notification data [2.9]', () => {
    const { queue, descriptor } = ring({}, 3);
    expect(queue.expectedNext()).toBe(0x8000);
    descriptor(0, DATA, 4, 0, LAP1);
    descriptor(1, DATA, 4, 1, LAP1);
    expect(queue.expectedNext()).toBe(0x8002);
    queue.pop();
    descriptor(2, DATA, 4, 2, LAP1);
    expect(queue.expectedNext()).toBe(0);
    queue.pop();
    queue.pop();
    expect(queue.expectedNext()).toBe(0);
  });
});

describe('a driver that breaks the rules of packed rings', () => {
  const broken = (set: (r: ReturnType<typeof ring>) => void, options: Partial<DeviceQueueOptions> = {}) => {
    const r = ring(options);
    set(r);
    expect(() => {
      for (let n = 0; n < 8; n += 1) r.queue.pop();
    }).toThrow(DriverViolation);
    expect(r.queue.violations).toHaveLength(1);
    return r.queue.violations[0]?.message ?? '';
  };

  it.each<[string, (r: ReturnType<typeof ring>) => void, string]>([
    [
      'a list whose first descriptor is available before the rest [2.8.17]',
      (r) => {
        r.descriptor(0, DATA, 4, 0, LAP1 | NEXT);
      },
      'after the first',
    ],
    [
      'a list longer than the ring [2.8.17]',
      (r) => {
        for (let i = 0; i < 5; i += 1) r.descriptor(i, DATA, 4, 0, LAP1 | NEXT);
      },
      'more than 5',
    ],
    [
      'more descriptors than are free [2.8.17]',
      (r) => {
        for (let i = 0; i < 5; i += 1) r.descriptor(i, DATA, 4, i, LAP1);
        for (let i = 0; i < 5; i += 1) r.queue.pop();
        r.descriptor(0, DATA, 4, 6, LAP0);
      },
      '5 of 5 in flight',
    ],
    [
      'an id that the device still has',
      (r) => {
        r.descriptor(0, DATA, 4, 1, LAP1);
        r.descriptor(1, DATA, 4, 1, LAP1);
      },
      'still has it',
    ],
    [
      'INDIRECT with NEXT [2.8.19]',
      (r) => {
        r.descriptor(1, DATA, 4, 1, LAP1);
        r.descriptor(0, TABLES, 16, 1, LAP1 | INDIRECT | NEXT);
      },
      'chained by NEXT',
    ],
    [
      'a table at the end of a list [2.8.19]',
      (r) => {
        r.descriptor(1, TABLES, 16, 1, LAP1 | INDIRECT);
        r.descriptor(0, DATA, 4, 1, LAP1 | NEXT);
      },
      'chained by NEXT',
    ],
    [
      'flags other than WRITE in a table [2.8.19]',
      (r) => {
        r.descriptor(0, DATA, 4, 0, NEXT, TABLES);
        r.descriptor(0, TABLES, 16, 1, LAP1 | INDIRECT);
      },
      'only WRITE',
    ],
    [
      'a table of no whole number of descriptors [2.8.7]',
      (r) => {
        r.descriptor(0, TABLES, 8, 1, LAP1 | INDIRECT);
      },
      '8 bytes',
    ],
    [
      'a table longer than the ring [2.8.17]',
      (r) => {
        for (let i = 0; i < 6; i += 1) r.descriptor(i, DATA, 4, 0, 0, TABLES);
        r.descriptor(0, TABLES, 96, 1, LAP1 | INDIRECT);
      },
      'longer than the queue',
    ],
    [
      'unknown flags',
      (r) => {
        r.descriptor(0, DATA, 4, 1, LAP1 | 0x100);
      },
      'unknown flags',
    ],
    [
      'a readable buffer behind a writable one [2.8.17]',
      (r) => {
        r.descriptor(1, DATA, 4, 1, LAP1);
        r.descriptor(0, DATA, 4, 1, LAP1 | WRITE | NEXT);
      },
      'follows a device-writable',
    ],
    [
      'an empty buffer',
      (r) => {
        r.descriptor(0, DATA, 0, 1, LAP1);
      },
      'empty',
    ],
    [
      'memory that is not there',
      (r) => {
        r.descriptor(0, 0x1ffe, 4, 1, LAP1);
      },
      'no memory',
    ],
    [
      'reserved event flags [2.8.10]',
      (r) => {
        r.driverEvent(3);
      },
      'flags 3',
    ],
    [
      'a descriptor event without the feature [2.8.10]',
      (r) => {
        r.driverEvent(2);
      },
      'flags 2',
    ],
  ])('is told of %s', (_, set, message) => {
    expect(broken(set)).toContain(message);
  });

  it('is told of an event outside the ring, and of a table without the feature', () => {
    expect(
      broken(
        (r) => {
          r.driverEvent(2, 5, 1);
        },
        { eventIdx: true },
      ),
    ).toContain('descriptor 5 of 5');
    expect(
      broken(
        (r) => {
          r.descriptor(0, TABLES, 16, 1, LAP1 | INDIRECT);
        },
        { indirect: false },
      ),
    ).toContain('not negotiated');
  });

  it('is told of a descriptor that it changed while the device had it [2.8.16]', () => {
    const { queue, descriptor } = ring();
    descriptor(1, DATA, 4, 1, LAP1);
    descriptor(0, DATA, 4, 1, LAP1 | NEXT);
    const chain = queue.pop();
    descriptor(1, DATA + 8, 4, 1, LAP1);
    expect(() => chain?.complete()).toThrow('descriptor 1 was changed');
  });

  it('may write over descriptors that the device has given back', () => {
    const { queue, descriptor } = ring({}, 3);
    for (let i = 0; i < 3; i += 1) descriptor(i, DATA, 4, i, LAP1);
    const chains = [queue.pop(), queue.pop(), queue.pop()];
    // The last is used first, into the place of the first; the driver fills that place again.
    chains[2]?.complete();
    descriptor(0, DATA + 4, 4, 2, LAP0);
    chains[0]?.complete();
    chains[1]?.complete();
    expect(queue.pop()).toMatchObject({ id: 2 });
    expect(queue.violations).toEqual([]);
  });

  it.each<[string, Partial<DeviceQueueOptions>, string]>([
    ['a size of 0', { size: 0 }, '1 to 32768'],
    ['a size above 32768', { size: 32769 }, '1 to 32768'],
    ['a ring that is not aligned to 16', { descriptors: BASE + 4 }, 'aligned to 16'],
    ['a driver area that is not aligned to 4', { driverArea: BASE + DRIVER + 2 }, 'aligned to 4'],
    ['a device area that is not aligned to 4', { deviceArea: BASE + DEVICE + 1 }, 'aligned to 4'],
    ['an area outside memory', { driverArea: BASE + 0x2000 }, 'not in memory'],
  ])('is told at set-up of %s [2.8.11]', (_, options, message) => {
    expect(() => ring(options)).toThrow(message);
  });

  it('is told at set-up of a ring that is not zero [2.8.13]', () => {
    const memory = new PlainMemory(BASE, 0x2000);
    memory.bytes[RING + 4 * 16 + 15] = 1;
    expect(() => ring({ memory })).toThrow('not zero');
  });
});

describe('a device that lies in a packed ring', () => {
  it('uses what it was never given', () => {
    const { queue, at, interrupts } = ring();
    queue.forceUsed(77, 0xffffffff);
    expect(at(0)).toEqual([77, 0xffffffff, AVAIL | USED | WRITE]);
    expect(queue.usedPosition).toEqual({ offset: 1, wrap: 1 });
    queue.forceUsed(1, 0, 4);
    expect(queue.usedPosition).toEqual({ offset: 0, wrap: 0 });
    queue.forceUsed(2, 1);
    expect(at(0)).toEqual([2, 1, WRITE]);
    expect(interrupts).toHaveLength(3);
  });

  it('overwrites descriptors and its event structure', () => {
    const { queue, descriptor, at, deviceEvent } = ring();
    descriptor(3, DATA, 4, 1, LAP1);
    queue.writeDescriptor(3, { flags: 0xffff, extra: 9 });
    expect(at(3)).toEqual([9, 4, 0xffff]);
    expect(queue.readDescriptor(3)).toEqual({ address: BASE + DATA, length: 4, extra: 9, flags: 0xffff });
    queue.deviceEvent = { flags: 3, offset: 0x7fff, wrap: 1 };
    expect(deviceEvent()).toEqual({ descriptor: 0xffff, flags: 3 });
    expect(queue.deviceEvent).toEqual({ flags: 3, offset: 0x7fff, wrap: 1 });
  });
});

describe('draining a packed ring', () => {
  it('uses all that is available over many laps', () => {
    const { queue, descriptor, at, deviceEvent } = ring({ eventIdx: true });
    let position = 0;
    for (let n = 0; n < 100; n += 1) {
      for (const [i, flags] of [
        [1, WRITE],
        [0, NEXT],
      ] as const) {
        const place = position + i;
        descriptor(place % 5, DATA, 4, 7, (Math.floor(place / 5) % 2 === 0 ? LAP1 : LAP0) | flags);
      }
      expect(queue.drain(3)).toBe(1);
      const wrap = Math.floor(position / 5) % 2 === 0;
      expect(at(position % 5)).toEqual([7, 3, (wrap ? AVAIL | USED : 0) | WRITE]);
      position += 2;
    }
    expect(queue.drain(3)).toBe(0);
    expect(deviceEvent()).toEqual({ descriptor: (position % 5) | 0x8000, flags: 2 });
  });
});
