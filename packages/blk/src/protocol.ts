/**
 * The protocol of block devices: feature bits, configuration space, requests and their answers. Numbers and layouts only.
 */
import { type FeatureSet, FeatureTable, Layout } from '@virtio/core';

/** The unit of all sector numbers and counts in the protocol, in bytes, whatever the block size of the disk is. */
export const SECTOR_SIZE = 512;

/**
 * The feature bits of block devices, by number.
 *
 * @see VIRTIO 1.4, 5.2.3
 */
export const BlkFeature = {
  /** Legacy: requests can be barriers. Not accepted. */
  BARRIER: 0,
  /** `size_max` limits the bytes of a segment. */
  SIZE_MAX: 1,
  /** `seg_max` limits the segments of a request. */
  SEG_MAX: 2,
  /** `geometry` has cylinders, heads and sectors. */
  GEOMETRY: 4,
  /** The device is read-only. */
  RO: 5,
  /** `blk_size` is the block size of the disk. */
  BLK_SIZE: 6,
  /** Legacy: SCSI commands. Not accepted. */
  SCSI: 7,
  /** The device has a cache that can be flushed. */
  FLUSH: 9,
  /** `topology` has the sizes and offsets at which the disk works best. */
  TOPOLOGY: 10,
  /** `writeback` is the mode of the cache, which can be changed. */
  CONFIG_WCE: 11,
  /** There are `num_queues` request queues. */
  MQ: 12,
  /** Sectors can be discarded. */
  DISCARD: 13,
  /** Sectors can be zeroed without sending zeroes. */
  WRITE_ZEROES: 14,
  /** The device reports its wear. */
  LIFETIME: 15,
  /** Sectors can be erased permanently. */
  SECURE_ERASE: 16,
  /** The device may be zoned. */
  ZONED: 17,
} as const;

/** The name of a feature of block devices. */
export type BlkFeatureName = keyof typeof BlkFeature;

/** The features of block devices, by name. */
export const BlkFeatures = new FeatureTable<BlkFeatureName>('BlkFeatures', BlkFeature);

/** A set of features of a block device. */
export type BlkFeatureSet = FeatureSet<BlkFeatureName>;

/**
 * The configuration space, little-endian. Which fields are valid depends on the features.
 *
 * @see VIRTIO 1.4, 5.2.4
 */
export const BlkConfigLayout = new Layout('virtio_blk_config', {
  capacity: 'u64 read-only',
  sizeMax: 'u32 read-only',
  segMax: 'u32 read-only',
  cylinders: 'u16 read-only',
  heads: 'u8 read-only',
  sectors: 'u8 read-only',
  blkSize: 'u32 read-only',
  physicalBlockExp: 'u8 read-only',
  alignmentOffset: 'u8 read-only',
  minIoSize: 'u16 read-only',
  optIoSize: 'u32 read-only',
  writeback: 'u8',
  unused0: 'u8 read-only',
  numQueues: 'u16 read-only',
  maxDiscardSectors: 'u32 read-only',
  maxDiscardSeg: 'u32 read-only',
  discardSectorAlignment: 'u32 read-only',
  maxWriteZeroesSectors: 'u32 read-only',
  maxWriteZeroesSeg: 'u32 read-only',
  writeZeroesMayUnmap: 'u8 read-only',
  unused1: 'bytes3 read-only',
  maxSecureEraseSectors: 'u32 read-only',
  maxSecureEraseSeg: 'u32 read-only',
  secureEraseSectorAlignment: 'u32 read-only',
  zoneSectors: 'u32 read-only',
  maxOpenZones: 'u32 read-only',
  maxActiveZones: 'u32 read-only',
  maxAppendSectors: 'u32 read-only',
  writeGranularity: 'u32 read-only',
  model: 'u8 read-only',
  unused2: 'bytes3 read-only',
});

/**
 * The request types.
 *
 * @see VIRTIO 1.4, 5.2.6
 */
export const RequestType = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  GET_LIFETIME: 10,
  DISCARD: 11,
  WRITE_ZEROES: 13,
  SECURE_ERASE: 14,
  ZONE_APPEND: 15,
  ZONE_REPORT: 16,
  ZONE_OPEN: 18,
  ZONE_CLOSE: 20,
  ZONE_FINISH: 22,
  ZONE_RESET: 24,
  ZONE_RESET_ALL: 26,
} as const;

/** The name of a request type, for messages. */
export function requestName(type: number): string {
  if (type === RequestType.IN) return 'read (IN)';
  if (type === RequestType.OUT) return 'write (OUT)';
  const entry = Object.entries(RequestType).find(([, value]) => value === type);
  return entry ? entry[0] : `request ${type}`;
}

/** Whether the device writes the data of a request of this type. */
export function deviceWritesData(type: number): boolean {
  return (
    type === RequestType.IN ||
    type === RequestType.GET_ID ||
    type === RequestType.GET_LIFETIME ||
    type === RequestType.ZONE_REPORT
  );
}

/**
 * The statuses of requests.
 *
 * @see VIRTIO 1.4, 5.2.6
 */
export const RequestStatus = {
  OK: 0,
  IOERR: 1,
  UNSUPP: 2,
  ZONE_INVALID_CMD: 3,
  ZONE_UNALIGNED_WP: 4,
  ZONE_OPEN_RESOURCE: 5,
  ZONE_ACTIVE_RESOURCE: 6,
} as const;

/** The header of every request, little-endian. */
export const RequestHeader = new Layout('virtio_blk_req', { type: 'u32', reserved: 'u32', sector: 'u64' });

/** A segment of a discard, secure-erase or write-zeroes request; bit 0 of `flags` is `unmap`. */
export const RangeSegment = new Layout('virtio_blk_discard_write_zeroes', {
  sector: 'u64',
  numSectors: 'u32',
  flags: 'u32',
});

/** The answer to a GET_LIFETIME request. */
export const LifetimeInfo = new Layout('virtio_blk_lifetime', {
  preEolInfo: 'u16',
  deviceLifetimeEstTypA: 'u16',
  deviceLifetimeEstTypB: 'u16',
});

/** The size of the answer to a GET_ID request, in bytes. */
export const DEVICE_ID_SIZE = 20;

/** The header of the answer to a ZONE_REPORT request; zone descriptors follow. */
export const ZoneReport = new Layout('virtio_blk_zone_report', { nrZones: 'u64', reserved: 'bytes56' });

/** The descriptor of a zone in the answer to a ZONE_REPORT request. */
export const ZoneDescriptor = new Layout('virtio_blk_zone_descriptor', {
  zCap: 'u64',
  zStart: 'u64',
  zWp: 'u64',
  zType: 'u8',
  zState: 'u8',
  reserved: 'bytes38',
});
