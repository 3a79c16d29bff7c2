/**
 * The registers of virtio over MMIO, named as in the specification. All registers have 32 bits, except the configuration space;
 * 64-bit values are two registers, the lower half first.
 *
 * @see VIRTIO 1.4, 4.2.2 and 4.2.4
 */

/** Offsets in bytes. `R`: read, `W`: written by the driver. */
export const MmioRegister = {
  /** R: {@link MMIO_MAGIC}. */
  MagicValue: 0x000,
  /** R: 2, or 1 for a legacy device. */
  Version: 0x004,
  /** R: the device's type; 0 if there is no device. */
  DeviceID: 0x008,
  /** R: the vendor id of the device. */
  VendorID: 0x00c,
  /** R: the 32 feature bits selected by `DeviceFeaturesSel`. */
  DeviceFeatures: 0x010,
  /** W: which 32 bits `DeviceFeatures` shows. */
  DeviceFeaturesSel: 0x014,
  /** W: the 32 accepted feature bits selected by `DriverFeaturesSel`. */
  DriverFeatures: 0x020,
  /** W: which 32 bits `DriverFeatures` sets. */
  DriverFeaturesSel: 0x024,
  /** W, legacy: the unit of `QueuePFN` in bytes. */
  GuestPageSize: 0x028,
  /** W: the index of the queue to which the following registers belong. */
  QueueSel: 0x030,
  /** R: the queue's largest size in descriptors; 0 if there is no such queue. */
  QueueSizeMax: 0x034,
  /** W: the size of the queue in descriptors. */
  QueueSize: 0x038,
  /** W, legacy: the alignment of the queue's used ring in bytes. */
  QueueAlign: 0x03c,
  /** RW, legacy: the page number of the queue; 0 if it is not in use. */
  QueuePFN: 0x040,
  /** RW: 1 if the device may use the queue. */
  QueueReady: 0x044,
  /** W: notifies the device. */
  QueueNotify: 0x050,
  /** R: the causes of the interrupt. */
  InterruptStatus: 0x060,
  /** W: the causes that were handled. */
  InterruptACK: 0x064,
  /** RW: the device status. */
  Status: 0x070,
  /** W: the address of the queue's descriptor area. */
  QueueDescLow: 0x080,
  /** W: its upper half. */
  QueueDescHigh: 0x084,
  /** W: the address of the queue's driver area. */
  QueueDriverLow: 0x090,
  /** W: its upper half. */
  QueueDriverHigh: 0x094,
  /** W: the address of the queue's device area. */
  QueueDeviceLow: 0x0a0,
  /** W: its upper half. */
  QueueDeviceHigh: 0x0a4,
  /** W: the id of the shared memory region to which the following registers belong. */
  SHMSel: 0x0ac,
  /** R: the length of the region in bytes; all ones if there is no such region. */
  SHMLenLow: 0x0b0,
  /** R: its upper half. */
  SHMLenHigh: 0x0b4,
  /** R: the physical address of the region. */
  SHMBaseLow: 0x0b8,
  /** R: its upper half. */
  SHMBaseHigh: 0x0bc,
  /** RW: 1 while the queue is being reset. */
  QueueReset: 0x0c0,
  /** R: changes when the configuration space does. */
  ConfigGeneration: 0x0fc,
  /** The configuration space, accessed at the width of its fields. */
  Config: 0x100,
} as const;

/** The value of `MagicValue`: `virt`, little-endian. */
export const MMIO_MAGIC = 0x7472_6976;

/** The value of `Version` of a legacy device. */
export const MMIO_LEGACY = 1;

/** The value of `Version` of a device that follows version 1.0 of the specification or later. */
export const MMIO_MODERN = 2;
