import { DeviceType } from '@virtio/core';
import type { FakePciDeviceOptions } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { fixture } from '../fixture.ts';
import type { PciErrorReason } from './reasons.ts';

type Structures = NonNullable<FakePciDeviceOptions['structures']>;
type Structure = ReturnType<Structures>[number];

const without =
  (type: string): Structures =>
  (all) =>
    all.filter((one) => one.type !== type);
const changed =
  (type: string, change: Partial<Structure>): Structures =>
  (all) =>
    all.map((one) => (one.type === type ? { ...one, ...change } : one));

describe('the reason of an error', () => {
  it.each<[PciErrorReason, FakePciDeviceOptions]>([
    ['WRONG_VENDOR_ID', { header: { vendorId: 0x8086 } }],
    ['UNKNOWN_DEVICE_ID', { header: { deviceId: 0x107f } }],
    ['LEGACY_ONLY', { transitional: true, capabilities: () => [] }],
    ['COMMON_CFG_MISSING', { structures: without('common') }],
    ['NOTIFY_CFG_MISSING', { structures: without('notify') }],
    ['ISR_CFG_MISSING', { structures: without('isr') }],
    ['STRUCTURE_TOO_SHORT', { structures: changed('common', { length: 20 }) }],
    ['STRUCTURE_OUTSIDE_BAR', { structures: changed('common', { offset: 0x10_0000 }) }],
    ['STRUCTURE_MISALIGNED', { structures: changed('common', { offset: 2 }) }],
    ['BAR_MISSING', { structures: changed('isr', { bar: 5 }) }],
    ['BAD_NOTIFY_MULTIPLIER', { multiplier: 3 }],
  ])('is %s', (reason, pci) => {
    expect(() => fixture({ device: { type: DeviceType.Block }, pci })).toThrow(
      expect.objectContaining({ reason }),
    );
  });

  it('is that of the first of several structures of a type', () => {
    const two: Structures = (all) => [
      ...all.filter(({ type }) => type !== 'common'),
      ...all.filter(({ type }) => type === 'common').map((one) => ({ ...one, bar: 5 })),
      ...all.filter(({ type }) => type === 'common').map((one) => ({ ...one, length: 1 })),
    ];
    expect(() => fixture({ pci: { structures: two } })).toThrow(
      expect.objectContaining({ reason: 'BAR_MISSING', code: 'INVALID_DEVICE' }),
    );
  });
});
