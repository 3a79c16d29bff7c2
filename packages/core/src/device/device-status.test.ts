import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { DeviceStatus, InterruptStatus } from './device-status.ts';

describe('DeviceStatus', () => {
  it('prints by name and keeps unknown bits visible [2.1]', () => {
    expect(String(DeviceStatus.from(0x23))).toBe('DeviceStatus(ACKNOWLEDGE | DRIVER | 0x20)');
    expect(String(DeviceStatus.from(0))).toBe('DeviceStatus(0)');
    expect(inspect(DeviceStatus.from(0xff))).toBe(
      'DeviceStatus(ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | SUSPEND | DEVICE_NEEDS_RESET | FAILED | 0x20)',
    );
  });

  it('shares one value for the same bits', () => {
    expect(DeviceStatus.from(5)).toBe(DeviceStatus.from(1).with(DeviceStatus.DRIVER_OK));
  });

  it('tells whether all bits of a mask are set', () => {
    const status = DeviceStatus.from(DeviceStatus.ACKNOWLEDGE | DeviceStatus.FAILED);
    expect(status.has(DeviceStatus.FAILED)).toBe(true);
    expect(status.has(DeviceStatus.FAILED | DeviceStatus.DRIVER)).toBe(false);
  });
});

describe('InterruptStatus', () => {
  it('prints by name and keeps unknown bits visible [4.1.4.5]', () => {
    expect(String(InterruptStatus.from(3))).toBe(
      'InterruptStatus(QUEUE_INTERRUPT | DEVICE_CONFIGURATION_INTERRUPT)',
    );
    expect(String(InterruptStatus.from(0x80000001))).toBe('InterruptStatus(QUEUE_INTERRUPT | 0x80000000)');
  });

  it('tells a set top bit', () => {
    expect(InterruptStatus.from(0x80000000).has(0x80000000)).toBe(true);
  });
});
