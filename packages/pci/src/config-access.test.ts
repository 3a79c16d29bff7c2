import { MappedRegisters } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { CAM_SIZE, camOffset, FunctionConfig, MmioCam } from './config-access.ts';
import { DeviceFunction } from './device-function.ts';

describe('camOffset', () => {
  it('places registers as CAM and ECAM do', () => {
    const at = new DeviceFunction(0x12, 3, 5);
    expect(camOffset('cam', at, 0x34)).toBe(0x12_1d34);
    expect(camOffset('ecam', at, 0x834)).toBe(0x121_d834);
    expect(camOffset('ecam', at, 0x834, 0x10)).toBe(0x21_d834);
  });

  it('ends with the window', () => {
    const last = new DeviceFunction(255, 31, 7);
    expect(camOffset('cam', last, 0xff)).toBe(CAM_SIZE.cam - 1);
    expect(camOffset('ecam', last, 0xfff)).toBe(CAM_SIZE.ecam - 1);
  });
});

describe.each(['cam', 'ecam'] as const)('MmioCam: %s', (cam) => {
  const busSize = CAM_SIZE[cam] / 256;
  const at = new DeviceFunction(1, 2, 3);

  it('accesses registers at each width', () => {
    const window = new MappedRegisters(new ArrayBuffer(2 * busSize));
    const access = new MmioCam(window, cam);
    access.write32(at, 0x10, 0xfedc_ba98);
    expect(window.read32(camOffset(cam, at, 0x10))).toBe(0xfedc_ba98);
    expect(access.read32(at, 0x10)).toBe(0xfedc_ba98);
    expect(access.read16(at, 0x12)).toBe(0xfedc);
    expect(access.read8(at, 0x13)).toBe(0xfe);
    access.write16(at, 0x12, 0x1234);
    access.write8(at, 0x10, 0x77);
    expect(access.read32(at, 0x10)).toBe(0x1234_ba77);
  });

  it('starts at any bus', () => {
    const window = new MappedRegisters(new ArrayBuffer(busSize));
    new MmioCam(window, cam, 1).write8(at, 0, 9);
    expect(window.read8(camOffset(cam, new DeviceFunction(0, 2, 3), 0))).toBe(9);
  });

  it.each([
    ['before', 2],
    ['after', 0],
  ])('reads all ones on a bus %s its window, and refuses to write there', (_, firstBus) => {
    const access = new MmioCam(new MappedRegisters(new ArrayBuffer(busSize)), cam, firstBus);
    expect([access.read8(at, 0), access.read16(at, 0), access.read32(at, 0)]).toEqual([
      0xff, 0xffff, 0xffff_ffff,
    ]);
    for (const write of ['write8', 'write16', 'write32'] as const) {
      expect(() => access[write](at, 4, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });

  it('never reaches from one function into the next', () => {
    const access = new MmioCam(new MappedRegisters(new ArrayBuffer(2 * busSize)), cam);
    expect(() => access.read8(at, access.size)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
    expect(() => access.read16(at, 3)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    expect(() => access.write32(at, -4, 0)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
  });

  it('shows the space of one function as a window', () => {
    const access = new MmioCam(new MappedRegisters(new ArrayBuffer(2 * busSize)), cam);
    const config = new FunctionConfig(access, at);
    expect(config.size).toBe(cam === 'cam' ? 256 : 4096);
    config.write32(0x40, 0x0403_0201);
    config.write16(0x42, 0x0605);
    config.write8(0x41, 7);
    expect(access.read32(at, 0x40)).toBe(0x0605_0701);
    expect([config.read32(0x40), config.read16(0x42), config.read8(0x41)]).toEqual([0x0605_0701, 0x0605, 7]);
    expect(() => config.read32(config.size)).toThrow(
      expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }),
    );
  });
});
