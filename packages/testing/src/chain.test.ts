import { describe, expect, it } from 'vitest';
import { Chain } from './chain.ts';
import { PlainMemory } from './device-memory.ts';
import type { DeviceQueue } from './device-queue.ts';

function chainOf(readable: readonly number[], writable: readonly number[]) {
  const memory = new PlainMemory(0, 256);
  memory.bytes.forEach((_, i) => (memory.bytes[i] = i));
  let address = 0;
  const element = (isWritable: boolean) => (length: number) => {
    const made = { address, length, writable: isWritable };
    address += length + 3;
    return made;
  };
  const queue = { memory, live: true, holds: () => true } as unknown as DeviceQueue;
  const elements = [...readable.map(element(false)), ...writable.map(element(true))];
  return { memory, chain: new Chain(queue, 0, elements, elements.length, false) };
}

describe('a chain', () => {
  it('is read as one run of bytes, however it is cut', () => {
    const { chain } = chainOf([2, 1, 4], [8]);
    expect([...chain.bytes()]).toEqual([0, 1, 5, 9, 10, 11, 12]);
    expect([...chain.read(3)]).toEqual([0, 1, 5]);
    expect([...chain.readAt(1, 3)]).toEqual([1, 5, 9]);
    expect([...chain.read()]).toEqual([9, 10, 11, 12]);
    expect(chain.read()).toHaveLength(0);
    expect(chain.header().getUint16(0, true)).toBe(0x0100);
    expect(() => chain.read(1)).toThrow(RangeError);
    expect(() => chain.readAt(-1, 1)).toThrow(RangeError);
  });

  it('is written as one run of bytes', () => {
    const { memory, chain } = chainOf([2], [2, 3]);
    chain.write([101, 102, 103]).write(Uint8Array.of(104));
    expect(chain).toMatchObject({ written: 4, room: 1 });
    expect([...memory.bytes.subarray(5, 14)]).toEqual([101, 102, 7, 8, 9, 103, 104, 12, 13]);
    expect(() => chain.write([1, 2])).toThrow(RangeError);
    expect(() => chain.writeAt(-1, [1])).toThrow(RangeError);
    expect(chain.written).toBe(4);
  });

  it('has zeros where a write skips, since a length counts from the first byte', () => {
    const { memory, chain } = chainOf([], [4, 4]);
    chain.writeAt(6, [9]);
    expect(chain.written).toBe(7);
    expect([...memory.bytes.subarray(0, 11)]).toEqual([0, 0, 0, 0, 4, 5, 6, 0, 0, 9, 10]);
    chain.writeAt(0, [1]);
    expect(chain.written).toBe(7);
  });
});
