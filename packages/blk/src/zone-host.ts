/** What {@link BlkZones} needs from the driver of the disk. */
import type { BlkData } from './blk-queue.ts';
import type { BlkConfig } from './config.ts';
import type { Dispatcher } from './dispatcher.ts';

/** The driver of a disk, as {@link BlkZones} sees it. */
export interface ZoneHost {
  /** The device, for messages. */
  readonly who: string;
  readonly dispatcher: Dispatcher;
  config(): BlkConfig;
  /** The maximum number of segments of data in one request. */
  mostSegments(): number;
  /** Checks data for a transfer and returns its segments. */
  measure(what: string, sector: number, data: BlkData): number;
}
