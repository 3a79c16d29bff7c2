import { MappedRegisters } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { GicV2, Plic } from './controllers.ts';

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
  });
});
