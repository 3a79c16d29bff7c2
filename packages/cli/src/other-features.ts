/** The names of features of device types that have no driver here, for `list` and `probe`. */
import { DeviceType, FeatureTable } from '@virtio/core';

const NAMES: Readonly<Partial<Record<DeviceType, Readonly<Record<string, number>>>>> = {
  /** @see VIRTIO 1.4, 5.5.3 */
  [DeviceType.MemoryBallooning]: {
    MUST_TELL_HOST: 0,
    STATS_VQ: 1,
    DEFLATE_ON_OOM: 2,
    FREE_PAGE_HINT: 3,
    PAGE_POISON: 4,
    PAGE_REPORTING: 5,
  },
  /** @see VIRTIO 1.4, 5.6.3 */
  [DeviceType.ScsiHost]: { INOUT: 0, HOTPLUG: 1, CHANGE: 2, T10_PI: 3 },
  /** @see VIRTIO 1.4, 5.9.3 */
  [DeviceType.Crypto]: {
    REVISION_1: 0,
    CIPHER_STATELESS_MODE: 1,
    HASH_STATELESS_MODE: 2,
    MAC_STATELESS_MODE: 3,
    AEAD_STATELESS_MODE: 4,
    AKCIPHER_STATELESS_MODE: 5,
  },
  /** @see VIRTIO 1.4, 5.13.3 */
  [DeviceType.Iommu]: {
    INPUT_RANGE: 0,
    DOMAIN_RANGE: 1,
    MAP_UNMAP: 2,
    BYPASS: 3,
    PROBE: 4,
    MMIO: 5,
    BYPASS_CONFIG: 6,
  },
  /** @see VIRTIO 1.4, 5.15.3 */
  [DeviceType.Memory]: { ACPI_PXM: 0, UNPLUGGED_INACCESSIBLE: 1, PERSISTENT_SUSPEND: 2 },
  /** @see VIRTIO 1.4, 5.19.3 */
  [DeviceType.Pmem]: { SHMEM_REGION: 0 },
};

/** The features of a device type without a driver, as far as they have names here. */
export function otherFeatures(type: number): FeatureTable<string> | undefined {
  const bits = NAMES[type as DeviceType];
  return bits === undefined ? undefined : new FeatureTable<string>('Features', bits);
}
