import { DeviceFunction } from '@virtio/pci';
import { describe, expect, it } from 'vitest';
import type { X86Cpu } from './cpu.ts';
import { HypCam } from './hyp-cam.ts';
import { HypIoRegion, isPkvm } from './hypercalls.ts';

/** A processor that notes its hypercalls and answers each with `answer`. */
function cpu(answer = 0n, signature = 'PKVM') {
  const calls: unknown[][] = [];
  const text = new DataView(new TextEncoder().encode(signature.padEnd(4, '\0')).buffer).getUint32(0, true);
  const fake: X86Cpu = {
    cpuid: (leaf, subleaf) => {
      calls.push(['cpuid', leaf, subleaf]);
      return { eax: 0, ebx: text, ecx: 0, edx: 0 };
    },
    hypercall: (...args) => {
      calls.push(args);
      return Number(answer & 0xffff_ffffn);
    },
    hypercall64: (...args) => {
      calls.push(args);
      return answer;
    },
  };
  return { fake, calls };
}

describe.each([NaN, -1, 0.5, 2 ** 53, '4096', 4096n, undefined])('an address that is %s', (address) => {
  it('is refused', () => {
    const invalid = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    expect(() => new HypIoRegion(cpu().fake, address as number, 4)).toThrow(invalid);
    expect(() => new HypCam(cpu().fake, address as number, 'ecam')).toThrow(invalid);
  });
});

describe('isPkvm', () => {
  it('asks for the signature of the hypervisor', () => {
    const { fake, calls } = cpu();
    expect(isPkvm(fake)).toBe(true);
    expect(calls).toEqual([['cpuid', 0x4000_0000, 0]]);
  });

  it.each(['KVMK', 'PKVN', 'pkvm', ''])('is not fooled by %j', (signature) => {
    expect(isPkvm(cpu(0n, signature).fake)).toBe(false);
  });

  it('takes EBX as a signed number as well', () => {
    const { fake } = cpu();
    const signed: X86Cpu = { ...fake, cpuid: () => ({ eax: 0, ebx: 0x4d56_4b50 | 0, ecx: 0, edx: 0 }) };
    expect(isPkvm(signed)).toBe(true);
  });
});

describe('HypIoRegion', () => {
  const address = 0x12_3456_7000;

  it('reads by hypercall 23, at each width', () => {
    const { fake, calls } = cpu(0xfedc_ba98_7654_3210n);
    const region = new HypIoRegion(fake, address, 64);
    expect([region.read8(1), region.read16(2), region.read32(4), region.read64(8)]).toEqual([
      0x10,
      0x3210,
      0x7654_3210,
      0xfedc_ba98_7654_3210n,
    ]);
    expect(calls).toEqual([
      [23, address + 1, 1, 0],
      [23, address + 2, 2, 0],
      [23, address + 4, 4, 0],
      [23, address + 8, 8, 0n],
    ]);
  });

  it('writes by hypercall 24, at each width, with nothing above it', () => {
    const { fake, calls } = cpu();
    const region = new HypIoRegion(fake, address, 64);
    region.write8(3, 0x1ff);
    region.write16(2, -1);
    region.write32(4, -2);
    region.write64(8, -1n);
    expect(calls).toEqual([
      [24, address + 3, 1, 0xff],
      [24, address + 2, 2, 0xffff],
      [24, address + 4, 4, 0xffff_fffe],
      [24, address + 8, 8, 0xffff_ffff_ffff_ffffn],
    ]);
  });

  it('takes what it reads as unsigned', () => {
    const region = new HypIoRegion(cpu(-1n).fake, address, 8);
    expect([region.read8(0), region.read16(0), region.read32(0), region.read64(0)]).toEqual([
      0xff,
      0xffff,
      0xffff_ffff,
      2n ** 64n - 1n,
    ]);
  });

  it('makes no call outside itself', () => {
    const { fake, calls } = cpu();
    const region = new HypIoRegion(fake, address, 10);
    const outside: (() => unknown)[] = [
      () => region.read8(10),
      () => region.read16(10),
      () => region.read32(8),
      () => region.read64(8),
      () => region.write8(-1, 0),
      () => region.write16(10, 0),
      () => region.write32(8, 0),
      () => region.write64(8, 0n),
    ];
    for (const access of outside) {
      expect(access).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    }
    expect(calls).toEqual([]);
  });
});

describe('HypCam', () => {
  const at = new DeviceFunction(1, 2, 3);

  it.each([
    ['cam', 0xe000_0000 + 0x1_1300, 256],
    ['ecam', 0xe000_0000 + 0x11_3000, 4096],
  ] as const)('places registers as %s does', (cam, base, size) => {
    const { fake, calls } = cpu(0x1234_5678n);
    const access = new HypCam(fake, 0xe000_0000, cam);
    expect([access.read8(at, 0x35), access.read16(at, 0x36), access.read32(at, 0x38)]).toEqual([
      0x78, 0x5678, 0x1234_5678,
    ]);
    access.write8(at, 0x35, 1);
    access.write16(at, 0x36, 2);
    access.write32(at, 0x38, 3);
    expect(calls).toEqual([
      [23, base + 0x35, 1, 0],
      [23, base + 0x36, 2, 0],
      [23, base + 0x38, 4, 0],
      [24, base + 0x35, 1, 1],
      [24, base + 0x36, 2, 2],
      [24, base + 0x38, 4, 3],
    ]);
    expect(access.size).toBe(size);
    expect(() => access.read32(at, size)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
  });
});
