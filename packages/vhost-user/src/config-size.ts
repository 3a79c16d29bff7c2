/**
 * The size of a device's configuration space. The protocol has no request for it, and back ends refuse to give more bytes than they
 * have: so the sizes that the structure has had in the specification's versions are tried, the largest first.
 */
import { DeviceType } from '@virtio/core';

const SIZES: Readonly<Partial<Record<DeviceType, readonly number[]>>> = {
  [DeviceType.Network]: [28, 24, 20, 17, 12, 10, 8, 6],
  [DeviceType.Block]: [96, 72, 60, 48, 36, 32, 24, 8],
  [DeviceType.Console]: [12, 8, 4],
  [DeviceType.ScsiHost]: [36],
  [DeviceType.Gpu]: [20, 16],
  [DeviceType.Input]: [136],
  [DeviceType.Socket]: [8],
  [DeviceType.Crypto]: [56, 48, 44],
  [DeviceType.Sound]: [16, 12],
  [DeviceType.FileSystem]: [44, 40],
};

/** The sizes to try, in bytes; empty if such devices have no configuration space, or its size is not known. */
export function configSizes(deviceType: DeviceType): readonly number[] {
  return SIZES[deviceType] ?? [];
}
