import { describe, expect, it, vi } from 'vitest';
import { descriptors } from '../test/fake-backend.ts';
import { VhostUserHal } from './hal.ts';
import { VhostMemory } from './memory.ts';

const MIB = 1 << 20;

describe('VhostMemory', () => {
  it('starts low, and doubles with each region', () => {
    const memory = new VhostMemory('test', 4 * MIB, false);
    const added = vi.fn();
    const removed = vi.fn();
    memory.listener = { slots: 8, added, removed };
    const first = memory.map(2 * MIB);
    expect(first.address).toBeLessThan(2 ** 26);
    memory.map(2 * MIB);
    expect(memory.regions).toHaveLength(1);
    const second = memory.map(2 * MIB);
    expect(memory.regions.map(({ file }) => file.size)).toEqual([4 * MIB, 8 * MIB]);
    expect(added).toHaveBeenCalledTimes(2);
    const large = memory.map(64 * MIB);
    expect(memory.size).toBe((4 + 8 + 64) * MIB);
    memory.unmap(large);
    expect(removed).toHaveBeenCalledTimes(1);
    expect(removed.mock.calls[0]?.[1]).toHaveLength(2);
    memory.unmap(second);
    expect(memory.size).toBe(4 * MIB);
    memory[Symbol.dispose]();
  });

  it('gives a block zeroed again, and finds bytes by their address', () => {
    const memory = new VhostMemory('test', 4 * MIB, false);
    const block = memory.map(2 * MIB);
    new Uint8Array(block.mapping.view()).fill(9);
    expect(memory.at(block.address + 100, 4)).toEqual(Uint8Array.of(9, 9, 9, 9));
    expect(memory.at(block.address + 2 * MIB - 2, 4)).toBeUndefined();
    memory.unmap(block);
    expect(memory.at(block.address, 4)).toBeUndefined();
    const again = memory.map(2 * MIB);
    expect(again.address).toBe(block.address);
    expect(new Uint8Array(again.mapping.view()).every((byte) => byte === 0)).toBe(true);
    memory[Symbol.dispose]();
  });

  it('says when the back end can map no more', () => {
    const memory = new VhostMemory('test', 2 * MIB, false);
    memory.listener = { slots: 2, added: () => undefined, removed: () => undefined };
    memory.map(2 * MIB);
    memory.map(4 * MIB);
    expect(() => memory.map(2 * MIB)).toThrow(expect.objectContaining({ code: 'DMA_ERROR' }));
    memory[Symbol.dispose]();
  });

  it('is as it was when the back end cannot be told', () => {
    const before = descriptors();
    const memory = new VhostMemory('test', 2 * MIB, false);
    let fails = true;
    memory.listener = {
      slots: 8,
      added: () => {
        if (fails) throw new Error('no');
      },
      removed: () => undefined,
    };
    expect(() => memory.map(2 * MIB)).toThrow('no');
    expect(memory.size).toBe(0);
    expect(descriptors()).toBe(before);
    fails = false;
    expect(memory.map(2 * MIB).address).toBeGreaterThan(0);
    memory[Symbol.dispose]();
    expect(descriptors()).toBe(before);
  });

  it('is what a Hal hands out, without a copy and through bounce buffers', () => {
    using hal = new VhostUserHal(new VhostMemory('test', 4 * MIB, false));
    const buffer = hal.alloc(100);
    expect(hal.share(buffer.bytes.subarray(4), 'both', false)).toBe(buffer.address + 4);
    const own = Uint8Array.of(1, 2, 3);
    const address = hal.share(own, 'driver-to-device', false);
    expect(address).not.toBe(buffer.address);
    expect(hal.bounced).toBe(1);
    hal.unshare(address, own, 'driver-to-device', false);
    expect(hal.bounced).toBe(0);
    expect(hal.sharedBytes).toBe(4 * MIB);
    expect(() => hal.mapRegisters(0, 4)).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
  });
});
