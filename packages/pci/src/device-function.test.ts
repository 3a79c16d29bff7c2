import { inspect } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DeviceFunction } from './device-function.ts';

describe('DeviceFunction', () => {
  it('prints as Linux prints it', () => {
    expect(String(new DeviceFunction(0, 3, 0))).toBe('0000:00:03.0');
    expect(String(new DeviceFunction(0xa1, 0x1f, 7, 0x10002))).toBe('10002:a1:1f.7');
    expect(inspect(new DeviceFunction(0, 3, 0))).toBe('0000:00:03.0');
  });

  it('reads what it prints', () => {
    fc.assert(
      fc.property(fc.nat(255), fc.nat(31), fc.nat(7), fc.nat(0xffffffff), (bus, device, fn, segment) => {
        const at = new DeviceFunction(bus, device, fn, segment);
        expect(DeviceFunction.parse(String(at))).toEqual(at);
      }),
    );
  });

  it('takes segment 0 where none is written', () => {
    expect(DeviceFunction.parse('02:1F.3')).toEqual(new DeviceFunction(2, 31, 3));
  });

  it.each(['', '00:03', '0000:00:03.8', '0000:00:20.0', '00:0g.0', ' 00:03.0', '0:00:03.0', '0000:00:03.0 '])(
    'refuses %j',
    (text) => {
      expect(() => DeviceFunction.parse(text)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    },
  );

  it.each([
    [256, 0, 0, 0],
    [0, 32, 0, 0],
    [0, 0, 8, 0],
    [0, 0, 0, -1],
    [0.5, 0, 0, 0],
  ])('refuses bus %d, device %d, function %d, segment %d', (...numbers) => {
    expect(() => new DeviceFunction(...numbers)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('has its requester id in 16 bits', () => {
    expect(new DeviceFunction(0x12, 0x1f, 7).id).toBe(0x12ff);
  });
});
