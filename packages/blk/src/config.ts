/**
 * The configuration space as plain values: only the fields that are valid with the negotiated features. They are checked once, so
 * that no later code divides by a zero from the device.
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
  /** The number of cylinders. */
  readonly cylinders: number;
  /** The number of heads, each with a track on every cylinder. */
  readonly heads: number;
  /** The number of sectors of a track. */
  readonly sectors: number;
}

/** The sizes and offsets at which the disk works best. The last three are in logical blocks of `blockSize` bytes. */
export interface BlkTopology {
  /** A physical block is 2 to the power of this many logical blocks. */
  readonly physicalBlockExp: number;
  /** The first logical block that is at the start of a physical one. */
  readonly alignmentOffset: number;
  /** The suggested minimum size of a transfer. */
  readonly minIoSize: number;
  /** The suggested maximum size of a transfer; 0 if the device does not report it. */
  readonly optIoSize: number;
}

/** The limits of one discard, write-zeroes or secure-erase request. */
export interface RangeLimits {
  /** The maximum number of sectors of 512 bytes in a segment. */
  readonly maxSectors: number;
  /** The maximum number of segments in a request. */
  readonly maxSegments: number;
  /** The alignment at which longer ranges are split, in sectors of 512 bytes. */
  readonly alignment: number;
}

/** The limits of one write-zeroes request. */
export interface WriteZeroesLimits extends RangeLimits {
  /** Whether a request with `unmap` may deallocate the sectors. The device may change this. */
  readonly mayUnmap: boolean;
}

/**
 * The characteristics of a zoned disk.
 *
 * @see VIRTIO 1.4, 5.2.4
 */
export interface ZonedCharacteristics {
  /** Whether sequential zones must be written in order (`host-managed`) or should be (`host-aware`). */
  readonly model: 'host-managed' | 'host-aware';
  /** The size of a zone in sectors of 512 bytes. The last zone may be smaller. */
  readonly zoneSectors: number;
  /** The maximum number of zones that are open at once; 0: no limit. */
  readonly maxOpenZones: number;
  /** The maximum number of zones that are active at once, i.e. open or closed (partly written); 0: no limit. */
  readonly maxActiveZones: number;
  /** The maximum number of sectors of 512 bytes that one append may write; 0: the device cannot append. */
  readonly maxAppendSectors: number;
  /** The offset and size of writes to sequential zones must be multiples of this, in bytes. */
  readonly writeGranularity: number;
}

/**
 * The configuration of the device.
 *
 * @see VIRTIO 1.4, 5.2.4
 */
export interface BlkConfig {
  /**
   * The size of the disk in sectors of 512 bytes. At most 2^53 - 1 (4 EiB); the rest of a larger disk cannot be reached.
   */
  readonly capacity: number;
  /** The maximum size of a segment in bytes; `Infinity` if the device does not limit it. Longer buffers are split. */
  readonly sizeMax: number;
  /** The maximum number of segments of data in one request; 1 if the device does not report it. */
  readonly segMax: number;
  /** The block size of the disk in bytes; 512 if the device does not report it. */
  readonly blockSize: number;
  /** The number of request queues of the device. */
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

/** The configuration before it was read from the device. */
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

/** The maximum number of range segments in one request, even if the device allows more. */
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
      `${transport.who()}: ${field.name} is ${value}, which is not valid; the device is broken`,
    );
  };

  const blockSize = features.has('BLK_SIZE') ? read(fields.blkSize) : 512;
  insist(blockSize >= 512 && Number.isInteger(Math.log2(blockSize)), fields.blkSize, blockSize);
  const numQueues = features.has('MQ') ? read(fields.numQueues) : 1;
  insist(numQueues > 0, fields.numQueues, numQueues);

  // A limit of zero would make the feature useless; other drivers read it as no limit (sectors, bytes) or as one (segments).
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
    // Without the feature, devices in use are only sure to accept one segment, and Linux sends one.
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
