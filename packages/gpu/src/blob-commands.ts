/** Commands for blobs: resources of bytes, in the guest's memory or the host's. */
import { VirtioError } from '@virtio/core';
import {
  build,
  type CommandAnswer,
  type CommandLimits,
  encodeEntries,
  formatOf,
  type GpuCommand,
  HEADER_SIZE,
  type MemoryEntry,
  NO_DATA,
  ofResource,
  type Rect,
  rectOf,
  resourceId,
  u32,
  u64,
  viewOf,
} from './command.ts';
import { type PixelFormatNumber } from './pixel-format.ts';
import {
  BlobFlag,
  BlobMemory,
  type GpuCommandName,
  GpuOkType,
  ResourceCreateBlob,
  ResourceMapBlob,
  RespMapInfo,
  SetScanoutBlob,
} from './protocol.ts';

/** Creates a resource of bytes. Needs RESOURCE_BLOB, and VIRGL if it is in the host's memory. */
export function resourceCreateBlob(options: {
  readonly resourceId: number;
  /** One of {@link BlobMemory}. */
  readonly memory: number;
  /** A set of {@link BlobFlag}. */
  readonly flags?: number;
  /** Bytes: a multiple of {@link VirtioGpu.blobAlignment}. */
  readonly size: number;
  /** For a blob in the host's memory: the object of the context that it is made from. */
  readonly blobId?: number;
  readonly contextId?: number;
  /** The guest's memory, for blobs that have some; it can also be attached later. */
  readonly entries?: readonly MemoryEntry[];
}): GpuCommand<void> {
  const name = 'RESOURCE_CREATE_BLOB';
  const { memory, size, flags = 0, blobId = 0, contextId = 0, entries = [] } = options;
  u32(name, 'memory', memory, BlobMemory.GUEST, BlobMemory.HOST3D_GUEST);
  if (memory === BlobMemory.HOST3D && entries.length > 0) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${name}: a blob that is only in the host's memory has no entries; leave them out`,
    );
  }
  const data = encodeEntries(name, entries, 0);
  const all = BlobFlag.USE_MAPPABLE | BlobFlag.USE_SHAREABLE | BlobFlag.USE_CROSS_DEVICE;
  const values = {
    resourceId: resourceId(name, options.resourceId),
    blobMem: memory,
    blobFlags: u32(name, 'flags', flags, 0, all),
    nrEntries: entries.length,
    blobId: u64(name, 'blobId', blobId),
    size: u64(name, 'size', size, 1),
  };
  return build(name, ResourceCreateBlob, values, NO_DATA, {
    ...{ data, needs: 'RESOURCE_BLOB', contextId: u32(name, 'contextId', contextId) },
    check(limits) {
      if (memory !== BlobMemory.GUEST && !limits.has('VIRGL')) {
        throw new VirtioError(
          'UNSUPPORTED',
          `${limits.who()}: ${name} of a blob in the host's memory needs VIRGL, which was not negotiated`,
        );
      }
      checkAligned(name, 'size', size, limits);
    },
    track: {
      sent: ({ blobs }) => blobs.creating(values.resourceId, size),
      done: ({ blobs }, order) => blobs.created(values.resourceId, order),
      refused: ({ blobs }, order) => blobs.notCreated(values.resourceId, order),
    },
  });
}

/** Shows a rectangle of a blob on a scanout. Needs RESOURCE_BLOB. */
export function setScanoutBlob(options: {
  readonly scanout: number;
  readonly resourceId: number;
  readonly rect: Rect;
  /** The width of the picture in the blob, in pixels. */
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormatNumber;
  /** The bytes from one row to the next, by plane; formats with one plane have one number. */
  readonly strides: readonly number[];
  /** Where the planes begin, in bytes. */
  readonly offsets?: readonly number[];
}): GpuCommand<void> {
  const name = 'SET_SCANOUT_BLOB';
  const values = {
    ...rectOf(name, options.rect),
    scanoutId: u32(name, 'scanout', options.scanout),
    resourceId: resourceId(name, options.resourceId),
    blobWidth: u32(name, 'width', options.width, 1),
    blobHeight: u32(name, 'height', options.height, 1),
    format: formatOf(name, options.format),
    strides: planes(name, 'strides', options.strides),
    offsets: planes(name, 'offsets', options.offsets ?? []),
  };
  return build(name, SetScanoutBlob, values, NO_DATA, { needs: 'RESOURCE_BLOB' });
}

/**
 * Maps a blob of the host's memory at an offset in {@link VirtioGpu.hostVisible}. Needs RESOURCE_BLOB and that region.
 *
 * @param offset in bytes: a multiple of {@link VirtioGpu.blobAlignment}
 * @returns a command whose result says how to cache the blob: one of {@link MapCache}
 */
export function resourceMapBlob(id: number, offset: number): GpuCommand<number> {
  const name = 'RESOURCE_MAP_BLOB';
  const values = { resourceId: resourceId(name, id), offset: u64(name, 'offset', offset) };
  const size = RespMapInfo.size - HEADER_SIZE;
  const answer: CommandAnswer<number> = {
    ...{ type: GpuOkType.OK_MAP_INFO, size, least: 4 },
    read: (bytes) => viewOf(bytes).getUint32(0, true) & 0x0f,
  };
  return build(name, ResourceMapBlob, values, answer, {
    needs: 'RESOURCE_BLOB',
    track: {
      sent: ({ blobs, blobAlignment }) =>
        blobs.mapped({ resourceId: id, offset, size: Math.max(blobs.sizeOf(id), blobAlignment) }),
      refused: ({ blobs }, order) => blobs.unmapped(id, order),
    },
    check(limits) {
      needHostVisible(name, limits);
      checkAligned(name, 'offset', offset, limits);
      checkPlace(name, id, offset, limits);
    },
  });
}

/** Unmaps a blob. Needs RESOURCE_BLOB and the host visible memory region. */
export function resourceUnmapBlob(id: number): GpuCommand<void> {
  const name = 'RESOURCE_UNMAP_BLOB';
  return ofResource(name, id, {
    needs: 'RESOURCE_BLOB',
    check: (limits) => needHostVisible(name, limits),
    track: { sent: ({ blobs }) => blobs.next(), done: ({ blobs }, order) => blobs.unmapped(id, order) },
  });
}

/** Up to four numbers. */
function planes(name: GpuCommandName, what: string, values: readonly number[]): Uint8Array {
  u32(name, `the number of ${what}`, values.length, 0, 4);
  const bytes = new Uint8Array(16);
  const view = viewOf(bytes);
  values.forEach((value, plane) => view.setUint32(4 * plane, u32(name, what, value), true));
  return bytes;
}

function checkAligned(name: GpuCommandName, what: string, value: number, limits: CommandLimits): void {
  if (value % limits.blobAlignment === 0) return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${limits.who()}: ${name} with ${what} ${value}, which must be a multiple of ${limits.blobAlignment}; see blobAlignment`,
  );
}

/** A blob can be mapped once, inside the region, and not over another. One whose size is not known takes at least one byte. */
function checkPlace(name: GpuCommandName, id: number, offset: number, limits: CommandLimits): void {
  const { blobs, hostVisibleLength } = limits;
  if (blobs.mappingOf(id) !== undefined) {
    throw new VirtioError(
      'ALREADY_USED',
      `${limits.who()}: ${name} of resource ${id}, which is already mapped; unmap it first`,
    );
  }
  const size = Math.max(blobs.sizeOf(id), limits.blobAlignment);
  if (offset > hostVisibleLength - size) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${limits.who()}: ${name} of resource ${id}, which has ${size} bytes, at offset ${offset}; the host visible memory region ` +
        `has ${hostVisibleLength} bytes`,
    );
  }
  const other = blobs.mappedAt(offset, size);
  if (other === undefined) return;
  throw new VirtioError(
    'ALREADY_USED',
    `${limits.who()}: ${name} of resource ${id}, which has ${size} bytes, at offset ${offset}; resource ${other.resourceId} is ` +
      `mapped at ${other.offset}, with ${other.size} bytes; unmap that first, or use another offset`,
  );
}

function needHostVisible(name: GpuCommandName, limits: CommandLimits): void {
  if (limits.hostVisibleLength > 0) return;
  throw new VirtioError(
    'UNSUPPORTED',
    `${limits.who()}: ${name} needs a host visible memory region, which the device does not have`,
  );
}
