/**
 * The configuration space as plain values: only the fields that are valid with the negotiated features, checked once, so that
 * nothing later divides by a zero that the device made up.
 */
import {
  type Field,
  type FieldType,
  type FieldValue,
  type ReadableField,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { BlkConfigLayout, type BlkFeatureSet } from './protocol.ts';

/** Legacy CHS geometry. */
export interface BlkGeometry {
  /** How many cylinders. */
  readonly cylinders: number;
  /** Heads, each with a track on every cylinder. */
  readonly heads: number;
  /** Sectors of a track. */
  readonly sectors: number;
}

/** At which sizes and offsets the disk works best. The last three are in logical blocks of `blockSize` bytes. */
export interface BlkTopology {
  /** A physical block is 2 to the power of this many logical blocks. */
  readonly physicalBlockExp: number;
  /** The first logical block that begins a physical one. */
  readonly alignmentOffset: number;
  /** The smallest transfer that is efficient. */
  readonly minIoSize: number;
  /** The largest transfer that is efficient; 0 if the device does not say. */
  readonly optIoSize: number;
}

/** What one discard, write-zeroes or secure-erase request can hold. */
export interface RangeLimits {
  /** The most sectors of 512 bytes in a segment. */
  readonly maxSectors: number;
  /** The most segments in a request. */
  readonly maxSegments: number;
  /** Where longer ranges are best cut, in sectors of 512 bytes. */
  readonly alignment: number;
}

/** What one write-zeroes request can hold. */
export interface WriteZeroesLimits extends RangeLimits {
  /** Whether a request that allows it may give storage back. The device may change its mind. */
  readonly mayUnmap: boolean;
}

/**
 * How a zoned disk behaves.
 *
 * @see VIRTIO 1.4, 5.2.4
 */
export interface ZonedCharacteristics {
  /** Whether sequential zones must be written in order (`host-managed`) or should be (`host-aware`). */
  readonly model: 'host-managed' | 'host-aware';
  /** The size of a zone in sectors of 512 bytes. The last zone may be smaller. */
  readonly zoneSectors: number;
  /** How many zones may be open at once; 0: any number. */
  readonly maxOpenZones: number;
  /** How many zones may be open or closed (partly written) at once; 0: any number. */
  readonly maxActiveZones: number;
  /** The most sectors of 512 bytes that one append may write; 0: the device cannot append. */
  readonly maxAppendSectors: number;
  /** What offset and size of writes to sequential zones are multiples of, in bytes. */
  readonly writeGranularity: number;
}

/**
 * What the device says of itself.
 *
 * @see VIRTIO 1.4, 5.2.4
 */
export interface BlkConfig {
  /**
   * The size of the disk in sectors of 512 bytes. A number: of a disk beyond 2^53 - 1 sectors (4 EiB), what lies beyond cannot
   * be reached.
   */
  readonly capacity: number;
  /** The most bytes in one segment; `Infinity` if the device does not limit them. Longer buffers are cut. */
  readonly sizeMax: number;
  /** The most segments of data in one request; 1 if the device does not say. */
  readonly segMax: number;
  /** The block size of the disk in bytes; 512 if the device does not say. */
  readonly blockSize: number;
  /** How many request queues the device has. */
  readonly numQueues: number;
  /** Undefined unless GEOMETRY was negotiated. */
  readonly geometry: BlkGeometry | undefined;
  /** Undefined unless TOPOLOGY was negotiated. */
  readonly topology: BlkTopology | undefined;
  /** Undefined unless DISCARD was negotiated. */
  readonly discard: RangeLimits | undefined;
  /** Undefined unless WRITE_ZEROES was negotiated. */
  readonly writeZeroes: WriteZeroesLimits | undefined;
  /** Undefined unless SECURE_ERASE was negotiated. */
  readonly secureErase: RangeLimits | undefined;
  /** Undefined unless ZONED was negotiated and the disk is zoned. */
  readonly zoned: ZonedCharacteristics | undefined;
}

/** What is known of a device before it was asked. */
export const UNREAD_CONFIG: BlkConfig = {
  capacity: 0,
  sizeMax: Infinity,
  segMax: 1,
  blockSize: 512,
  numQueues: 1,
  geometry: undefined,
  topology: undefined,
  discard: undefined,
  writeZeroes: undefined,
  secureErase: undefined,
  zoned: undefined,
};

/** More segments than this are not sent in one request, whatever the device allows. */
const MOST_SEGMENTS = 256;

const MODELS = [undefined, 'host-managed', 'host-aware'] as const;

/** The number of the host-managed model. */
export const HOST_MANAGED = 1;

/**
 * Reads the fields that are valid with the negotiated features.
 *
 * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL`, `CONFIG_SPACE_MISSING`, or `INVALID_DEVICE` for values that make no sense
 */
export function readBlkConfig(transport: Transport, features: BlkFeatureSet): BlkConfig {
  return transport.readConsistent(() => readFields(transport, features));
}

function readFields(transport: Transport, features: BlkFeatureSet): BlkConfig {
  const { fields } = BlkConfigLayout;
  const read = <T extends FieldType>(field: ReadableField<T>): FieldValue<T> =>
    transport.readConfigSpace(field);
  const insist = (holds: boolean, field: Field, value: number): void => {
    if (holds) return;
    throw new VirtioError(
      'INVALID_DEVICE',
      `${transport.who()}: ${field.name} is ${value}, which no driver can work with; the device is broken`,
    );
  };

  const blockSize = features.has('BLK_SIZE') ? read(fields.blkSize) : 512;
  insist(blockSize >= 512 && Number.isInteger(Math.log2(blockSize)), fields.blkSize, blockSize);
  const numQueues = features.has('MQ') ? read(fields.numQueues) : 1;
  insist(numQueues > 0, fields.numQueues, numQueues);

  // A limit of zero would forbid what its feature is for; other drivers take it for none (sectors, bytes) or one (segments).
  const limits = (sectors: number, segments: number, alignment: number): RangeLimits => ({
    maxSectors: sectors === 0 ? 0xffffffff : sectors,
    maxSegments: Math.min(Math.max(1, segments), MOST_SEGMENTS),
    alignment: Math.max(1, alignment),
  });

  let zoned: ZonedCharacteristics | undefined;
  if (features.has('ZONED')) {
    const number = read(fields.model);
    insist(number < MODELS.length, fields.model, number);
    const model = MODELS[number];
    if (model !== undefined) {
      zoned = {
        model,
        zoneSectors: read(fields.zoneSectors),
        maxOpenZones: read(fields.maxOpenZones),
        maxActiveZones: read(fields.maxActiveZones),
        maxAppendSectors: read(fields.maxAppendSectors),
        writeGranularity: read(fields.writeGranularity),
      };
      insist(zoned.zoneSectors > 0, fields.zoneSectors, zoned.zoneSectors);
      insist(zoned.writeGranularity > 0, fields.writeGranularity, zoned.writeGranularity);
    }
  }
  return {
    capacity: Math.min(Number(read(fields.capacity)), Number.MAX_SAFE_INTEGER),
    sizeMax: (features.has('SIZE_MAX') && read(fields.sizeMax)) || Infinity,
    // Without the feature one segment is what devices in use are sure to take, and what Linux sends.
    segMax: features.has('SEG_MAX') ? Math.max(1, read(fields.segMax)) : 1,
    blockSize,
    numQueues,
    geometry: features.has('GEOMETRY')
      ? { cylinders: read(fields.cylinders), heads: read(fields.heads), sectors: read(fields.sectors) }
      : undefined,
    topology: features.has('TOPOLOGY')
      ? {
          physicalBlockExp: read(fields.physicalBlockExp),
          alignmentOffset: read(fields.alignmentOffset),
          minIoSize: read(fields.minIoSize),
          optIoSize: read(fields.optIoSize),
        }
      : undefined,
    discard: features.has('DISCARD')
      ? limits(
          read(fields.maxDiscardSectors),
          read(fields.maxDiscardSeg),
          read(fields.discardSectorAlignment),
        )
      : undefined,
    writeZeroes: features.has('WRITE_ZEROES')
      ? {
          ...limits(read(fields.maxWriteZeroesSectors), read(fields.maxWriteZeroesSeg), 1),
          mayUnmap: read(fields.writeZeroesMayUnmap) !== 0,
        }
      : undefined,
    secureErase: features.has('SECURE_ERASE')
      ? limits(
          read(fields.maxSecureEraseSectors),
          read(fields.maxSecureEraseSeg),
          read(fields.secureEraseSectorAlignment),
        )
      : undefined,
    zoned,
  };
}
