import { MappedRegisters } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { GicV2, GicV2m, Plic } from './controllers.ts';

describe('Plic', () => {
  it('gives a source a priority and sets its bit in the context that it is made for', () => {
    const registers = new MappedRegisters(new ArrayBuffer(Plic.windowSize(1)));
    registers.write32(0x20_1000, 7);
    const plic = new Plic(registers, 1);
    expect(registers.read32(0x20_1000)).toBe(0);
    plic.enable(33);
    plic.enable(35);
    expect([registers.read32(4 * 33), registers.read32(0x2080 + 4)]).toEqual([1, 0b1010]);
    plic.disable(33);
    expect(registers.read32(0x2080 + 4)).toBe(0b1000);
  });

  it('claims at its register, where 0 stands for nothing, and completes there', () => {
    const registers = new MappedRegisters(new ArrayBuffer(Plic.windowSize(0)));
    const plic = new Plic(registers, 0);
    expect(plic.claim()).toBe(-1);
    plic.complete(5);
    expect(plic.claim()).toBe(5);
  });

  it('completes a source that was disabled meanwhile while it is enabled, as it would be ignored otherwise', () => {
    const written: [number, number][] = [];
    const registers = new MappedRegisters(new ArrayBuffer(Plic.windowSize(0)));
    const plic = new Plic(
      Object.assign(registers, { write32: (offset: number, value: number) => written.push([offset, value]) }),
      0,
    );
    plic.enable(4);
    plic.disable(4);
    written.length = 0;
    plic.complete(4);
    expect(written).toEqual([
      [0x2000, 0b1_0000],
      [0x20_0004, 4],
      [0x2000, 0],
    ]);
  });

  it('refuses sources that it cannot have', () => {
    const plic = new Plic(new MappedRegisters(new ArrayBuffer(Plic.windowSize(0))), 0);
    for (const source of [0, 1024, 0xffff_ffff, 1.5]) {
      expect(() => plic.enable(source)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });
});

describe('GicV2', () => {
  it('switches itself on, and a source to processor 0', () => {
    const distributor = new MappedRegisters(new ArrayBuffer(0x1000));
    const cpu = new MappedRegisters(new ArrayBuffer(0x1000));
    const gic = new GicV2(distributor, cpu);
    expect([distributor.read32(0), cpu.read32(0), cpu.read32(4)]).toEqual([1, 1, 0xff]);
    gic.enable(48);
    expect([distributor.read32(0x104), distributor.read8(0x800 + 48)]).toEqual([1 << 16, 1]);
    gic.disable(48);
    expect(distributor.read32(0x184)).toBe(1 << 16);
    gic.edgeTriggered(80);
    expect(distributor.read32(0xc00 + 20)).toBe(2);
    cpu.write32(0xc, 1023);
    expect(gic.claim()).toBe(-1);
    cpu.write32(0xc, 48);
    expect(gic.claim()).toBe(48);
    for (const source of [-1, 1020, 0xffff_ffff]) {
      expect(() => gic.enable(source)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });
});

describe('GicV2m', () => {
  const frameOf = (type: number): MappedRegisters => {
    const frame = new MappedRegisters(new ArrayBuffer(0x1000));
    frame.write32(8, type);
    return frame;
  };
  const distributor = new MappedRegisters(new ArrayBuffer(0x1000));
  const gic = new GicV2(distributor, new MappedRegisters(new ArrayBuffer(0x1000)));

  it('hands out its interrupts once, each triggered by an edge, and none that it does not have', () => {
    const frame = new GicV2m(frameOf((80 << 16) | 4), 0x802_0000, gic);
    expect(frame.messageAddress).toBe(0x802_0040);
    expect(frame.take(3)).toEqual([80, 81, 82]);
    expect(distributor.read32(0xc00 + 20)).toBe(0b10_1010);
    expect(frame.take(2)).toBeUndefined();
    expect(frame.take(1)).toEqual([83]);
  });

  it.each([(8 << 16) | 4, (1000 << 16) | 64])('refuses interrupts that a GIC does not share (%i)', (type) => {
    expect(() => new GicV2m(frameOf(type), 0, gic)).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
  });
});
