import { DeviceFunction } from '@virtio/pci';
import { describe, expect, it } from 'vitest';
import type { X86Ports } from './cpu.ts';
import { PortCam, PortRegion } from './port-cam.ts';

function ports(answer = 0) {
  const accesses: unknown[][] = [];
  const read =
    (name: string) =>
    (port: number): number => {
      accesses.push([name, port]);
      return answer;
    };
  const write =
    (name: string) =>
    (port: number, value: number): void => {
      accesses.push([name, port, value]);
    };
  const fake: X86Ports = {
    in8: read('in8'),
    in16: read('in16'),
    in32: read('in32'),
    out8: write('out8'),
    out16: write('out16'),
    out32: write('out32'),
  };
  return { fake, accesses };
}

const at = new DeviceFunction(0x12, 0x1f, 5);
const SELECT = 0x8012_fd00;

describe('PortCam', () => {
  it('selects the register, then accesses its bytes among the four that show', () => {
    const { fake, accesses } = ports(7);
    const cam = new PortCam(fake);
    expect([cam.read8(at, 0x13), cam.read16(at, 0x3e), cam.read32(at, 0xfc)]).toEqual([7, 7, 7]);
    cam.write8(at, 0x41, 1);
    cam.write16(at, 0x42, 2);
    cam.write32(at, 0x44, 0xffff_ffff);
    expect(accesses).toEqual([
      ['out32', 0xcf8, SELECT + 0x10],
      ['in8', 0xcff],
      ['out32', 0xcf8, SELECT + 0x3c],
      ['in16', 0xcfe],
      ['out32', 0xcf8, SELECT + 0xfc],
      ['in32', 0xcfc],
      ['out32', 0xcf8, SELECT + 0x40],
      ['out8', 0xcfd, 1],
      ['out32', 0xcf8, SELECT + 0x40],
      ['out16', 0xcfe, 2],
      ['out32', 0xcf8, SELECT + 0x44],
      ['out32', 0xcfc, 0xffff_ffff],
    ]);
  });

  it('touches no port for a register that it cannot reach', () => {
    const { fake, accesses } = ports();
    const cam = new PortCam(fake);
    expect(() => cam.read32(at, 0x100)).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    expect(() => cam.read16(at, 0x11)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => cam.read8(new DeviceFunction(0, 0, 0, 1), 0)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(accesses).toEqual([]);
  });
});

describe('PortRegion', () => {
  it('accesses ports at each width', () => {
    const { fake, accesses } = ports(9);
    const region = new PortRegion(fake, 0xc040, 32);
    expect([region.read8(3), region.read16(4), region.read32(8)]).toEqual([9, 9, 9]);
    region.write8(3, 1);
    region.write16(4, 2);
    region.write32(8, 3);
    expect(accesses).toEqual([
      ['in8', 0xc043],
      ['in16', 0xc044],
      ['in32', 0xc048],
      ['out8', 0xc043, 1],
      ['out16', 0xc044, 2],
      ['out32', 0xc048, 3],
    ]);
  });

  it.each([
    [NaN, 4],
    [-4, 4],
    [0x1_0000, 4],
    [0xfffc, 8],
    [0xc000, undefined],
    ['0xc000', 4],
  ])('has no ports at %s, %s of them', (port, size) => {
    expect(() => new PortRegion(ports().fake, port as number, size as number)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('touches no port outside itself', () => {
    const { fake, accesses } = ports();
    const region = new PortRegion(fake, 0xc040, 32);
    for (const access of [() => region.read8(32), () => region.write32(32, 0), () => region.read16(-2)]) {
      expect(access).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    }
    expect(accesses).toEqual([]);
  });
});
