/** The configuration space and the events of an input device, as they lie in memory. */
import { FeatureTable, Layout } from '@virtio/core';

/** An input device has no features of its own [5.8.3]. */
export const InputFeatures: FeatureTable<never> = new FeatureTable<never>('InputFeatures', {});

/** What `select` asks for. */
export const InputConfigSelect = {
  /** Nothing. */
  UNSET: 0x00,
  /** The name, as text. */
  ID_NAME: 0x01,
  /** The serial number, as text. */
  ID_SERIAL: 0x02,
  /** The identifiers. */
  ID_DEVIDS: 0x03,
  /** The properties, as a bitmap. */
  PROP_BITS: 0x10,
  /** The codes of the event type in `subsel`, as a bitmap. */
  EV_BITS: 0x11,
  /** The range of the absolute axis in `subsel`. */
  ABS_INFO: 0x12,
} as const;

/** The configuration space. @see VIRTIO 1.4, 5.8.4 */
export const InputConfig = new Layout('virtio_input_config', {
  select: 'u8',
  subsel: 'u8',
  size: 'u8 read-only',
  reserved: 'bytes5 read-only',
  u: 'bytes128 read-only',
});

/** The range of an axis. Linux has signed values here, and so has a device that mirrors it. @see VIRTIO 1.4, 5.8.4 */
export const InputAbsInfo = new Layout('virtio_input_absinfo', {
  min: 'i32',
  max: 'i32',
  fuzz: 'i32',
  flat: 'i32',
  res: 'i32',
});

/** The identifiers. @see VIRTIO 1.4, 5.8.4 */
export const InputDevIds = new Layout('virtio_input_devids', {
  bustype: 'u16',
  vendor: 'u16',
  product: 'u16',
  version: 'u16',
});

/** An event in either direction; the value is signed as it is in Linux. @see VIRTIO 1.4, 5.8.6 */
export const InputEventLayout = new Layout('virtio_input_event', { type: 'u16', code: 'u16', value: 'i32' });

/** The queue of events. */
export const EVENT_QUEUE = 0;
/** The queue of status feedback, such as LEDs. */
export const STATUS_QUEUE = 1;
