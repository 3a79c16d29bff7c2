import { describe, expect, it } from 'vitest';
import { DeviceType, deviceTypeFromId, deviceTypeName, isDeviceType } from './device-type.ts';
import { VirtioError } from '../errors.ts';

describe('DeviceType', () => {
  it('has the 46 ids that the specification assigns [5]', () => {
    const ids = Object.values(DeviceType);
    expect(new Set(ids).size).toBe(ids.length);
    const unassigned = [0, 14, 15, 37];
    expect([...ids].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 50 }, (_, id) => id).filter((id) => !unassigned.includes(id)),
    );
  });

  it('converts ids and refuses those that are not assigned', () => {
    expect(deviceTypeFromId(2)).toBe(DeviceType.Block);
    expect(isDeviceType(37)).toBe(false);
    for (const id of [0, 14, 15, 37, 50, 2 ** 32 - 1, 1.5]) {
      expect(() => deviceTypeFromId(id)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE_TYPE' }));
    }
  });

  it('names types for messages', () => {
    expect(deviceTypeName(19)).toBe('Socket');
    expect(deviceTypeName(99)).toBe('device type 99');
  });
});

describe('VirtioError', () => {
  it('is recognized by code', () => {
    const error = new VirtioError('IO_ERROR', 'no', { cause: 1 });
    expect(VirtioError.is(error)).toBe(true);
    expect(VirtioError.is(error, 'IO_ERROR')).toBe(true);
    expect(VirtioError.is(error, 'QUEUE_FULL')).toBe(false);
    expect(VirtioError.is(new Error('no'))).toBe(false);
    expect(error).toMatchObject({
      name: 'VirtioError',
      message: 'no (see @virtio/core/errors.md#io_error)',
      cause: 1,
    });
  });
});
