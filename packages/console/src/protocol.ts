/** The configuration space and the control messages of a console device, as they lie in memory. */
import { FeatureTable, Layout } from '@virtio/core';

/** The names of the features of a console device. */
export type ConsoleFeature = 'SIZE' | 'MULTIPORT' | 'EMERG_WRITE';

/** The features of a console device. @see VIRTIO 1.4, 5.3.3 */
export const ConsoleFeatures: FeatureTable<ConsoleFeature> = new FeatureTable<ConsoleFeature>(
  'ConsoleFeatures',
  {
    /** `cols` and `rows` are valid. */
    SIZE: 0,
    /** There are several ports, and queues for control messages. */
    MULTIPORT: 1,
    /** `emergWr` can be written. */
    EMERG_WRITE: 2,
  },
);

/** The configuration space. @see VIRTIO 1.4, 5.3.4 */
export const ConsoleConfig = new Layout('virtio_console_config', {
  cols: 'u16 read-only',
  rows: 'u16 read-only',
  maxNrPorts: 'u32 read-only',
  emergWr: 'u32 write-only',
});

/** A control message, in either direction. @see VIRTIO 1.4, 5.3.6.2 */
export const ConsoleControl = new Layout('virtio_console_control', { id: 'u32', event: 'u16', value: 'u16' });

/** What follows a control message of the kind `RESIZE`. @see VIRTIO 1.4, 5.3.6.2 */
export const ConsoleResize = new Layout('virtio_console_resize', { cols: 'u16', rows: 'u16' });

/** The kinds of control messages. @see VIRTIO 1.4, 5.3.6.2 */
export const ControlEvent = {
  /** The driver is ready for messages. */
  DEVICE_READY: 0,
  /** The device has a new port. */
  DEVICE_ADD: 1,
  /** The device removed a port. */
  DEVICE_REMOVE: 2,
  /** The driver is ready for a port. */
  PORT_READY: 3,
  /** A port is a console. */
  CONSOLE_PORT: 4,
  /** The size of a console changed. */
  RESIZE: 5,
  /** One side opened or closed a port. */
  PORT_OPEN: 6,
  /** The name of a port. */
  PORT_NAME: 7,
} as const;

/** The queue of control messages from the device. */
export const CONTROL_RECEIVE = 2;
/** The queue of control messages to the device. */
export const CONTROL_TRANSMIT = 3;

/** The queue from which a port receives; the one to which it sends is the next [5.3.2]. */
export const receiveQueueOf = (port: number): number => (port === 0 ? 0 : 2 + 2 * port);
