import { DeviceType } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { isTransitional, VIRTIO_VENDOR_ID as vendorId, virtioDeviceType } from './device-id.ts';

describe('virtioDeviceType', () => {
  it.each([
    ['0x1000', DeviceType.Network],
    ['0x1001', DeviceType.Block],
    ['0x1002', DeviceType.MemoryBallooning],
    ['0x1003', DeviceType.Console],
    ['0x1004', DeviceType.ScsiHost],
    ['0x1005', DeviceType.EntropySource],
    ['0x1009', DeviceType.P9],
  ])('knows transitional id %s [4.1.2.2]', (id, type) => {
    const deviceId = Number(id);
    expect(virtioDeviceType({ vendorId, deviceId })).toBe(type);
    // The subsystem of a listed id does not matter.
    expect(virtioDeviceType({ vendorId, deviceId, subsystemId: 25 })).toBe(type);
    expect(isTransitional({ vendorId, deviceId })).toBe(true);
  });

  it('knows each type at 0x1040 plus its number [4.1.2.2]', () => {
    for (const type of Object.values(DeviceType)) {
      expect(virtioDeviceType({ vendorId, deviceId: 0x1040 + type })).toBe(type);
      expect(isTransitional({ vendorId, deviceId: 0x1040 + type })).toBe(false);
    }
  });

  it('tells other transitional ids by their subsystem [4.1.2.3]', () => {
    expect(virtioDeviceType({ vendorId, deviceId: 0x1012, subsystemId: 18 })).toBe(DeviceType.Input);
    expect(virtioDeviceType({ vendorId, deviceId: 0x1012, subsystemId: 0 })).toBeUndefined();
    expect(virtioDeviceType({ vendorId, deviceId: 0x1012 })).toBeUndefined();
  });

  it.each([0x0fff, 0x1040, 0x1040 + 14, 0x1040 + 37, 0x1040 + 0x3f, 0x1080, 0x1110])(
    'does not know id %i',
    (deviceId) => {
      expect(virtioDeviceType({ vendorId, deviceId })).toBeUndefined();
    },
  );

  it('does not know other vendors [4.1.2.2]', () => {
    expect(virtioDeviceType({ vendorId: 0x1234, deviceId: 0x1042 })).toBeUndefined();
    expect(isTransitional({ vendorId: 0x1234, deviceId: 0x1001 })).toBe(false);
  });
});
