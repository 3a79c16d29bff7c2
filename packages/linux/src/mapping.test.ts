import { describe, expect, it } from 'vitest';
import { Mapping } from './mapping.ts';
import { MapFlags, mincore, viewMemory } from './syscalls.ts';

describe('Mapping', () => {
  it('maps zeroed memory, of which all views are the same memory', () => {
    using mapping = Mapping.map({ size: 8192 });
    const whole = new Uint8Array(mapping.view());
    const tail = new Uint8Array(mapping.view(4096, 4096));
    expect(whole.length).toBe(8192);
    expect(whole.every((byte) => byte === 0)).toBe(true);
    whole[4096] = 7;
    expect(tail[0]).toBe(7);
  });

  it('detaches all views when it is disposed, so that stale ones are empty', () => {
    const mapping = Mapping.map({ size: 4096 });
    const buffer = mapping.view();
    const bytes = new Uint8Array(buffer);
    const words = new Uint32Array(buffer, 16, 4);
    mapping[Symbol.dispose]();
    expect(buffer.detached).toBe(true);
    expect(bytes.length).toBe(0);
    expect(bytes[0]).toBeUndefined();
    words[0] = 1;
    expect(words.length).toBe(0);
    expect(mapping.view().byteLength).toBe(0);
    mapping[Symbol.dispose]();
  });

  it('detaches one view and leaves the others', () => {
    using mapping = Mapping.map({ size: 4096 });
    const first = mapping.view(0, 16);
    const second = mapping.view(0, 16);
    mapping.detach(first);
    expect(first.detached).toBe(true);
    expect(second.detached).toBe(false);
  });

  it('refuses a view that does not fit', () => {
    using mapping = Mapping.map({ size: 4096 });
    expect(() => mapping.view(4000, 200)).toThrow(RangeError);
    expect(() => mapping.view(-1)).toThrow(RangeError);
  });

  it('puts all ones in the place of registers that went away, under the views that are there', () => {
    using mapping = Mapping.map({ size: 8192 });
    mapping.markRegisters(0, 64);
    mapping.markRegisters(8128, 64);
    const words = new Uint32Array(mapping.view());
    words[0] = 5;
    words[1000] = 7;
    mapping.replace();
    expect(Atomics.load(words, 0)).toBe(0xffff_ffff);
    expect(words[15]).toBe(0xffff_ffff);
    expect(words[1000], 'no register').toBe(0);
    expect(words[2047]).toBe(0xffff_ffff);
    words[1] = 3;
    expect(words.length).toBe(2048);
  });

  it('takes no memory in the place of what are no registers, of which there may be gigabytes', () => {
    const size = 2 ** 33;
    using mapping = Mapping.map({ size, flags: MapFlags.SHARED | MapFlags.NORESERVE });
    mapping.markRegisters(2 ** 32, 4096);
    mapping.markRegisters(0, size);
    mapping.replace();
    const present = mincore(mapping.address, size).reduce((count, page) => count + (page & 1), 0);
    // A fault may bring in a huge page.
    expect(present).toBeLessThan(2000);
    const view = new Uint32Array(mapping.view(2 ** 32, 4096));
    expect(view.every((word) => word === 0xffff_ffff)).toBe(true);
  });

  it('says which call failed and why', () => {
    expect(() => Mapping.map({ size: 4096, fd: 9999 })).toThrow(
      expect.objectContaining({ name: 'SystemCallError', code: 'EBADF', message: 'mmap failed with EBADF' }),
    );
  });

  it('is visible at its address to whoever knows it', () => {
    using mapping = Mapping.map({ size: 4096 });
    const ours = new Uint8Array(mapping.view());
    const theirs = new Uint8Array(viewMemory(mapping.address, 4096));
    theirs[10] = 42;
    expect(ours[10]).toBe(42);
  });
});
