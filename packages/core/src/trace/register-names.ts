/** The names of a transport's registers in the specification. */

/** @see VIRTIO 1.4, 4.1.4.3 */
const PCI_NAMES = {
  deviceFeatures: 'device_feature',
  driverFeatures: 'driver_feature',
  status: 'device_status',
  generation: 'config_generation',
  isr: 'ISR status',
  config: 'device-specific configuration',
  maxSize: 'queue_size',
  size: 'queue_size',
  descriptors: 'queue_desc',
  driverArea: 'queue_driver',
  deviceArea: 'queue_device',
  enable: 'queue_enable',
  reset: 'queue_reset',
  pageSize: 'GuestPageSize',
  align: 'QueueAlign',
} as const;

/** Register names by what the register is for. */
export type Names = Readonly<Record<keyof typeof PCI_NAMES, string>>;

/** @see VIRTIO 1.4, 4.2.2 */
const MMIO_NAMES: Names = {
  deviceFeatures: 'DeviceFeatures',
  driverFeatures: 'DriverFeatures',
  status: 'Status',
  generation: 'ConfigGeneration',
  isr: 'InterruptStatus',
  config: 'Config',
  maxSize: 'QueueSizeMax',
  size: 'QueueSize',
  descriptors: 'QueueDesc',
  driverArea: 'QueueDriver',
  deviceArea: 'QueueDevice',
  enable: 'QueueReady',
  reset: 'QueueReset',
  pageSize: 'GuestPageSize',
  align: 'QueueAlign',
};

/** Those that differ in the legacy interface. @see VIRTIO 1.4, 4.2.4 */
const LEGACY_MMIO_NAMES: Partial<Names> = {
  deviceFeatures: 'HostFeatures',
  driverFeatures: 'GuestFeatures',
  maxSize: 'QueueNumMax',
  size: 'QueueNum',
  descriptors: 'QueuePFN',
  enable: 'QueuePFN',
};

/** The names for a kind of transport. */
export function namesOf(kind: 'pci' | 'mmio', legacy: boolean): Names {
  if (kind === 'pci') return PCI_NAMES;
  return legacy ? { ...MMIO_NAMES, ...LEGACY_MMIO_NAMES } : MMIO_NAMES;
}
