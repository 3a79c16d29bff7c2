/**
 * The VirtIO block device driver.
 *
 * @packageDocumentation
 */
export { type BlkData } from './blk-queue.ts';
export type {
  BlkConfig,
  BlkGeometry,
  BlkTopology,
  RangeLimits,
  WriteZeroesLimits,
  ZonedCharacteristics,
} from './config.ts';
export type { BlkLifetime } from './commands.ts';
export type { NonBlockingOptions, RequestOptions, SyncOptions } from './dispatcher.ts';
export * from './protocol.ts';
export type { SectorRange } from './ranges.ts';
export * from './virtio-blk.ts';
export { BlkZones, type Zone } from './zones.ts';
