import { describe, expect, it } from 'vitest';
import { findRun, physicalAddress } from './physical-memory.ts';

const MIB = 2 ** 20;

describe('physicalAddress', () => {
  it('takes the frame from an entry of the page map', () => {
    const present = 1n << 63n;
    expect(physicalAddress(present | 0x12345n, 4096)).toBe(0x12345000);
    // Bits 55 to 62 are flags.
    expect(physicalAddress(present | (0x7fn << 55n) | 0x1n, 4096)).toBe(4096);
    expect(physicalAddress(0x12345n, 4096)).toBeUndefined();
    expect(physicalAddress(present, 4096)).toBe(0);
  });
});

describe('findRun', () => {
  it('finds neighbours in ascending addresses', () => {
    const addresses = [2, 4, 8, 10, 12, 20].map((n) => n * MIB);
    expect(findRun(addresses, 1, 2 * MIB)).toBe(0);
    expect(findRun(addresses, 2, 2 * MIB)).toBe(0);
    expect(findRun(addresses, 3, 2 * MIB)).toBe(2);
    expect(findRun(addresses, 4, 2 * MIB)).toBe(-1);
    expect(findRun([], 1, 2 * MIB)).toBe(-1);
  });
});
