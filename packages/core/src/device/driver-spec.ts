/** What a driver declares about its device, and the options, features and events of every driver. */
import type { VirtioError } from '../errors.ts';
import type { FeatureName, FeatureSet, FeatureTable } from './features.ts';

/** The device-independent features that every driver implements. */
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
export interface DriverOptions<Name extends string = never> {
  /** Features that the driver must not accept, of its device or of all devices: `['RING_PACKED']` to use split rings. */
  readonly without?: readonly (FeatureName | Name)[];
}

/** A deviation of a device from the specification that puts nothing at risk. */
export interface Quirk {
  /** The index of the queue. */
  readonly queue: number;
  /** What the device did, and how the driver took it. */
  readonly message: string;
}

/** The events of every driver, for {@link Driver.on}. */
export interface DriverEvents {
  /**
   * The device no longer works; the error says why: `DEVICE_NEEDS_RESET`, `DEVICE_REMOVED`, `DEVICE_MISBEHAVED`. Reported once
   * until a reset.
   */
  failure: VirtioError;
  /** The device did something that the specification does not allow, and the driver went on. Reported at the end of the turn. */
  quirk: Quirk;
  /**
   * A queue has something for callers that poll; the value is the index of the queue. While there is a listener, interrupts are
   * enabled and the event loop is kept alive.
   */
  used: number;
}

/** What a driver declares about its device to {@link Driver}. */
export interface DriverSpec<Name extends string> {
  /** The type that the device must have. */
  readonly deviceType: number;
  /** The device's own features with their names. */
  readonly table: FeatureTable<Name>;
  /** The device's own features that the driver implements. The device-independent ones are added to them. */
  readonly supported: readonly Name[];
  /** The features without which the driver cannot work. */
  readonly required?: readonly (Name | FeatureName)[];
  /** Removes features that cannot be accepted without others; see {@link FeatureRequest.choose}. */
  readonly choose?: (accepted: FeatureSet<Name>) => FeatureSet<Name>;
}
