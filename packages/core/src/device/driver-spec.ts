/** What a driver says of its device, and what every driver can be told and tells: options, features, events. */
import type { VirtioError } from '../errors.ts';
import type { FeatureName, FeatureSet, FeatureTable } from './features.ts';

/** The device-independent features that every driver here implements, whatever its device. */
export const QUEUE_FEATURES = [
  'ANY_LAYOUT',
  'INDIRECT_DESC',
  'EVENT_IDX',
  'VERSION_1',
  'ACCESS_PLATFORM',
  'RING_PACKED',
  'IN_ORDER',
  'ORDER_PLATFORM',
  'NOTIFICATION_DATA',
  'NOTIF_CONFIG_DATA',
  'RING_RESET',
] as const satisfies readonly FeatureName[];

/** Options of every driver. */
export interface DriverOptions {
  /** Device-independent features that the driver is not to accept, e.g. `['RING_PACKED']` to stay with split rings. */
  readonly without?: readonly FeatureName[];
}

/** Something in which a device departs from the specification, and which puts nothing at risk. */
export interface Quirk {
  /** The index of the queue. */
  readonly queue: number;
  /** What the device did, and what the driver made of it. */
  readonly message: string;
}

/** The events of every driver, for {@link Driver.on}. */
export interface DriverEvents {
  /** The device no longer works, with the reason: `DEVICE_NEEDS_RESET`, `DEVICE_REMOVED`, `DEVICE_MISBEHAVED`. Once until a reset. */
  failure: VirtioError;
  /** The device did something that the specification does not allow, and the driver went on. Told at the end of the turn. */
  quirk: Quirk;
  /**
   * A queue has something for those who poll: the index of the queue. Interrupts are asked for, and the event loop is kept
   * alive, while there is a listener.
   */
  used: number;
}

/** What a driver says of its device to {@link Driver}. */
export interface DriverSpec<Name extends string> {
  /** The type that the device must have. */
  readonly deviceType: number;
  /** The device's own features with their names. */
  readonly table: FeatureTable<Name>;
  /** The device's own features that the driver implements. The device-independent ones are added. */
  readonly supported: readonly Name[];
  /** The features without which the driver cannot work. */
  readonly required?: readonly (Name | FeatureName)[];
  /** Drops features that cannot be accepted without others; see {@link FeatureRequest.choose}. */
  readonly choose?: (accepted: FeatureSet<Name>) => FeatureSet<Name>;
}
