/** The device types of the specification. */
import { VirtioError } from '../errors.ts';

/**
 * Device types by name. Ids 14, 15 and 37 are not assigned; 0 means that there is no device.
 *
 * @see VIRTIO 1.4, 5
 */
export const DeviceType = {
  Network: 1,
  Block: 2,
  Console: 3,
  EntropySource: 4,
  MemoryBallooning: 5,
  IoMemory: 6,
  Rpmsg: 7,
  ScsiHost: 8,
  P9: 9,
  Mac80211: 10,
  RprocSerial: 11,
  VirtioCaif: 12,
  MemoryBalloon: 13,
  Gpu: 16,
  Rtc: 17,
  Input: 18,
  Socket: 19,
  Crypto: 20,
  SignalDistributionModule: 21,
  Pstore: 22,
  Iommu: 23,
  Memory: 24,
  Sound: 25,
  FileSystem: 26,
  Pmem: 27,
  Rpmb: 28,
  Mac80211Hwsim: 29,
  VideoEncoder: 30,
  VideoDecoder: 31,
  Scmi: 32,
  NitroSecureModule: 33,
  I2cAdapter: 34,
  Watchdog: 35,
  Can: 36,
  ParameterServer: 38,
  AudioPolicy: 39,
  Bluetooth: 40,
  Gpio: 41,
  Rdma: 42,
  Camera: 43,
  Ism: 44,
  SpiController: 45,
  Tee: 46,
  CpuBalloon: 47,
  Media: 48,
  UsbController: 49,
} as const;

/** The name of a device type. */
export type DeviceTypeName = keyof typeof DeviceType;

/** The id of a device type. */
export type DeviceType = (typeof DeviceType)[DeviceTypeName];

const NAMES: ReadonlyMap<number, DeviceTypeName> = new Map(
  (Object.keys(DeviceType) as DeviceTypeName[]).map((name) => [DeviceType[name], name]),
);

/**
 * Checks that `id` is a device type of the specification.
 *
 * @throws {@link VirtioError} `INVALID_DEVICE_TYPE`
 */
export function deviceTypeFromId(id: number): DeviceType {
  if (!isDeviceType(id)) {
    throw new VirtioError(
      'INVALID_DEVICE_TYPE',
      `${id} is not a device type of the VIRTIO specification 1.4; check that the device is a virtio device`,
    );
  }
  return id;
}

/** Whether `id` is a device type of the specification. */
export function isDeviceType(id: number): id is DeviceType {
  return NAMES.has(id);
}

/** The name of a device type, for messages: `Block`, or `device type 99` for one that is not known. */
export function deviceTypeName(id: number): string {
  return NAMES.get(id) ?? `device type ${id}`;
}
