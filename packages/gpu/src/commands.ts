/**
 * The commands of the control queue as values: each is built and checked here, and sent by `request`, `requestSync` or `submit` of
 * {@link VirtioGpu}. They are for those who bring their own renderer; pictures on a display are easier with a `Framebuffer`.
 */
import {
  encodeUtf8,
  type FieldTable,
  type Layout,
  requireBytes,
  requireInteger,
  type Values,
  VirtioError,
} from '@virtio/core';
import { type PixelFormatNumber, pixelShifts } from './pixel-format.ts';
import {
  BlobFlag,
  BlobMemory,
  CmdSubmit,
  CtrlHeader,
  CtxCreate,
  DisplayOne,
  GetCapset,
  GetCapsetInfo,
  GetEdid,
  type GpuCommandName,
  GpuCommandType,
  type GpuFeatureName,
  GpuOkType,
  MAX_SCANOUTS,
  MemEntry,
  ResourceAttachBacking,
  ResourceCommand,
  ResourceCreate2d,
  ResourceCreate3d,
  ResourceCreateBlob,
  ResourceFlush,
  ResourceMapBlob,
  RespCapsetInfo,
  RespEdid,
  RespMapInfo,
  RespResourceUuid,
  SetScanout,
  SetScanoutBlob,
  TransferHost3d,
  TransferToHost2d,
} from './protocol.ts';

/** The bytes of a header. */
export const HEADER_SIZE: number = CtrlHeader.size;

/** What a command's numbers are held against when it is sent. */
export interface CommandLimits {
  /** The alignment of blobs in bytes: 1 unless BLOB_ALIGNMENT was negotiated. */
  readonly blobAlignment: number;
  /** The bytes of the host visible memory region; 0 if there is none. */
  readonly hostVisibleLength: number;
  /** The blobs that are mapped, or may be. */
  readonly mapped: Set<number>;
  /** The device for messages. */
  who(): string;
}

/** What the device answers to a command. */
export interface CommandAnswer<T> {
  /** The type of the answer. */
  readonly type: number;
  /** How many bytes there may be behind the header. */
  readonly size: number;
  /** How many of them there must be; what a sloppy device leaves out reads as zeros. */
  readonly least: number;
  /** Makes the result from what is behind the header; `length` bytes of it are the device's. */
  read(bytes: Uint8Array, length: number): T;
}

/** A command that is ready to be sent, and whose answer is a `T`. It can be sent more than once. */
export interface GpuCommand<T> {
  /** Its name in the specification. */
  readonly name: GpuCommandName;
  /** Its structure; the driver fills in the fence. */
  readonly request: Uint8Array;
  /** What follows the structure. It must not change until the command is done. */
  readonly data: Uint8Array | undefined;
  /** Whether the answer is to wait until the command is finished, unless its options say otherwise. */
  readonly fenced: boolean;
  /** The feature without which the device does not know it. */
  readonly needs: GpuFeatureName | undefined;
  readonly answer: CommandAnswer<T>;
  /** Holds its numbers against those of the device. */
  readonly check: ((limits: CommandLimits) => void) | undefined;
  /** What is known of blobs when it is sent, carried out, or refused. */
  readonly track: CommandTrack | undefined;
}

/** How a command changes what is known of blobs. */
export interface CommandTrack {
  sent?(limits: CommandLimits): void;
  done?(limits: CommandLimits): void;
  refused?(limits: CommandLimits): void;
}

/** A piece of the guest's memory, as the device sees it. */
export interface MemoryEntry {
  /** The address for the device. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

/** A rectangle. Pixel 0, 0 is the upper left one. */
export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** The display at a scanout. */
export interface Display extends Rect {
  /** The number of the scanout. */
  readonly scanout: number;
  /** Whether the viewer has it switched on. If not, its size is usually 0. */
  readonly enabled: boolean;
  /** Flags that the specification does not define. */
  readonly flags: number;
}

/** What a device knows of a capability set. */
export interface CapsetInfo {
  /** See {@link Capset}; 0 if there is none. */
  readonly capsetId: number;
  readonly maxVersion: number;
  /** Bytes. */
  readonly maxSize: number;
}

const U32 = 0xffff_ffff;
const SAFE = Number.MAX_SAFE_INTEGER;
/** The bytes of `debug_name`. */
const NAME_SIZE = 64;
const ENTRY = MemEntry.size;
/** The most entries that fit their count and our arrays; devices have lower limits (QEMU: 16384). */
const MAX_ENTRIES = 1 << 20;

const NO_DATA: CommandAnswer<void> = {
  ...{ type: GpuOkType.OK_NODATA, size: 0, least: 0 },
  read: () => undefined,
};

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** Checks an unsigned 32-bit number. */
function u32(command: GpuCommandName, name: string, value: number, min = 0, max = U32): number {
  return requireInteger(command, name, value, min, max);
}

/** Checks an unsigned number of 64 bits, of which JavaScript counts 53. */
function u64(command: GpuCommandName, name: string, value: number, min = 0): bigint {
  return BigInt(requireInteger(command, name, value, min, SAFE));
}

function build<F extends FieldTable, T>(
  name: GpuCommandName,
  layout: Layout<F>,
  values: Partial<Values<F>>,
  answer: CommandAnswer<T>,
  options: Partial<Pick<GpuCommand<T>, 'data' | 'fenced' | 'needs' | 'check' | 'track'>> & {
    readonly contextId?: number;
  } = {},
): GpuCommand<T> {
  const request = new Uint8Array(layout.size);
  const view = viewOf(request);
  layout.write(view, 0, values);
  view.setUint32(CtrlHeader.offset.type, GpuCommandType[name], true);
  view.setUint32(CtrlHeader.offset.ctxId, options.contextId ?? 0, true);
  const { data, fenced = false, needs, check, track } = options;
  return { name, request, data, fenced, needs, answer, check, track };
}

function rectOf(name: GpuCommandName, { x, y, width, height }: Rect): Rect {
  return {
    x: u32(name, 'x', x),
    y: u32(name, 'y', y),
    width: u32(name, 'width', width),
    height: u32(name, 'height', height),
  };
}

function resourceId(name: GpuCommandName, id: number): number {
  return u32(name, 'resourceId', id, 1);
}

function formatOf(name: GpuCommandName, format: number): number {
  if (pixelShifts(format) !== undefined) return format;
  throw new VirtioError(
    'INVALID_PARAM',
    `${name}: there is no format ${String(format)}; see PixelFormat for those that there are`,
  );
}

function encodeEntries(
  name: GpuCommandName,
  entries: readonly MemoryEntry[],
  min: number,
): Uint8Array | undefined {
  u32(name, 'the number of entries', entries.length, min, MAX_ENTRIES);
  if (entries.length === 0) return undefined;
  const bytes = new Uint8Array(entries.length * ENTRY);
  const view = viewOf(bytes);
  entries.forEach(({ address, length }, n) => {
    MemEntry.write(view, n * ENTRY, {
      addr: u64(name, 'the address of an entry', address),
      length: u32(name, 'the length of an entry', length, 1),
    });
  });
  return bytes;
}

/** Asks where the displays of all 16 scanouts are; those that the device has not are disabled. */
export function getDisplayInfo(): GpuCommand<readonly Display[]> {
  const { size, offset } = DisplayOne;
  return build(
    'GET_DISPLAY_INFO',
    CtrlHeader,
    {},
    {
      ...{ type: GpuOkType.OK_DISPLAY_INFO, size: MAX_SCANOUTS * size, least: size },
      read(bytes) {
        const view = viewOf(bytes);
        return Array.from({ length: MAX_SCANOUTS }, (_, scanout): Display => {
          const field = (name: keyof typeof offset): number =>
            view.getUint32(scanout * size + offset[name], true);
          return {
            ...{ scanout, enabled: field('enabled') !== 0, x: field('x'), y: field('y') },
            ...{ width: field('width'), height: field('height'), flags: field('flags') },
          };
        });
      },
    },
  );
}

/** Asks for the EDID of a scanout: 0 to 1024 bytes. Needs EDID. */
export function getEdid(scanout: number): GpuCommand<Uint8Array> {
  const name = 'GET_EDID';
  const { offset, size } = RespEdid;
  const from = offset.edid - HEADER_SIZE;
  const answer: CommandAnswer<Uint8Array> = {
    ...{ type: GpuOkType.OK_EDID, size: size - HEADER_SIZE, least: from },
    read(bytes, length) {
      const told = viewOf(bytes).getUint32(offset.size - HEADER_SIZE, true);
      return bytes.slice(from, Math.min(from + told, Math.max(length, from)));
    },
  };
  return build(name, GetEdid, { scanout: u32(name, 'scanout', scanout) }, answer, { needs: 'EDID' });
}

/** Creates a 2D resource on the host. */
export function resourceCreate2d(options: {
  /** An id that no other resource has: {@link VirtioGpu.nextResourceId}. */
  readonly resourceId: number;
  readonly format: PixelFormatNumber;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
}): GpuCommand<void> {
  const name = 'RESOURCE_CREATE_2D';
  const values = {
    resourceId: resourceId(name, options.resourceId),
    format: formatOf(name, options.format),
    width: u32(name, 'width', options.width, 1),
    height: u32(name, 'height', options.height, 1),
  };
  return build(name, ResourceCreate2d, values, NO_DATA);
}

/** Destroys a resource. */
export function resourceUnref(id: number): GpuCommand<void> {
  return ofResource('RESOURCE_UNREF', id, {
    fenced: true,
    track: { done: ({ mapped }) => mapped.delete(id) },
  });
}

/** Shows a rectangle of a resource on a scanout; resource 0 switches the scanout off. */
export function setScanout(scanout: number, id: number, rect: Rect): GpuCommand<void> {
  const name = 'SET_SCANOUT';
  return build(
    name,
    SetScanout,
    {
      ...rectOf(name, rect),
      scanoutId: u32(name, 'scanout', scanout),
      resourceId: u32(name, 'resourceId', id),
    },
    NO_DATA,
  );
}

/** Shows what has changed in a rectangle of a resource on all scanouts that it is shown on. */
export function resourceFlush(id: number, rect: Rect): GpuCommand<void> {
  const name = 'RESOURCE_FLUSH';
  const values = { ...rectOf(name, rect), resourceId: resourceId(name, id) };
  return build(name, ResourceFlush, values, NO_DATA, { fenced: true });
}

/**
 * Copies a rectangle from the backing of a 2D resource to the host.
 *
 * @param offset where its first pixel is in the backing, in bytes; rows are as far apart as the resource is wide
 */
export function transferToHost2d(id: number, rect: Rect, offset: number): GpuCommand<void> {
  const name = 'TRANSFER_TO_HOST_2D';
  const values = {
    ...rectOf(name, rect),
    offset: u64(name, 'offset', offset),
    resourceId: resourceId(name, id),
  };
  return build(name, TransferToHost2d, values, NO_DATA, { fenced: true });
}

/** Gives a resource memory of the guest. The pieces follow one another, and must stay until they are detached. */
export function resourceAttachBacking(id: number, entries: readonly MemoryEntry[]): GpuCommand<void> {
  const name = 'RESOURCE_ATTACH_BACKING';
  const data = encodeEntries(name, entries, 1);
  const values = { resourceId: resourceId(name, id), nrEntries: entries.length };
  return build(name, ResourceAttachBacking, values, NO_DATA, { data });
}

/** Takes its memory from a resource: once this is answered the device no longer uses it. */
export function resourceDetachBacking(id: number): GpuCommand<void> {
  return ofResource('RESOURCE_DETACH_BACKING', id, { fenced: true });
}

/** Asks for a capability set by its index, which is below {@link VirtioGpu.capsets}. */
export function getCapsetInfo(index: number): GpuCommand<CapsetInfo> {
  const name = 'GET_CAPSET_INFO';
  const size = RespCapsetInfo.size - HEADER_SIZE;
  return build(
    name,
    GetCapsetInfo,
    { capsetIndex: u32(name, 'index', index) },
    {
      ...{ type: GpuOkType.OK_CAPSET_INFO, size, least: size },
      read(bytes) {
        const view = viewOf(bytes);
        const field = (key: 'capsetId' | 'capsetMaxVersion' | 'capsetMaxSize'): number =>
          view.getUint32(RespCapsetInfo.offset[key] - HEADER_SIZE, true);
        return {
          ...{ capsetId: field('capsetId'), maxVersion: field('capsetMaxVersion') },
          maxSize: field('capsetMaxSize'),
        };
      },
    },
  );
}

/** The most bytes of a capability set that are asked for. */
const MAX_CAPSET = 1 << 20;

/** Asks for a capability set. Of `info`, the size is how many bytes of an answer there is room for. */
export function getCapset(
  info: Pick<CapsetInfo, 'capsetId' | 'maxSize'>,
  version: number,
): GpuCommand<Uint8Array> {
  const name = 'GET_CAPSET';
  const values = {
    capsetId: u32(name, 'capsetId', info.capsetId, 1),
    capsetVersion: u32(name, 'version', version),
  };
  return build(name, GetCapset, values, {
    ...{ type: GpuOkType.OK_CAPSET, size: u32(name, 'maxSize', info.maxSize, 1, MAX_CAPSET), least: 0 },
    read: (bytes, length) => bytes.slice(0, length),
  });
}

/** Gives a resource a UUID of 16 bytes, by which other devices know it. Needs RESOURCE_UUID. */
export function resourceAssignUuid(id: number): GpuCommand<Uint8Array> {
  const name = 'RESOURCE_ASSIGN_UUID';
  const size = RespResourceUuid.size - HEADER_SIZE;
  const answer: CommandAnswer<Uint8Array> = {
    ...{ type: GpuOkType.OK_RESOURCE_UUID, size, least: size },
    read: (bytes) => bytes.slice(0, size),
  };
  return build(name, ResourceCommand, { resourceId: resourceId(name, id) }, answer, {
    needs: 'RESOURCE_UUID',
  });
}

/** Creates a resource of bytes. Needs RESOURCE_BLOB, and VIRGL if it is in the host's memory. */
export function resourceCreateBlob(options: {
  readonly resourceId: number;
  /** One of {@link BlobMemory}. */
  readonly memory: number;
  /** A set of {@link BlobFlag}. */
  readonly flags?: number;
  /** Bytes: a multiple of {@link VirtioGpu.blobAlignment}. */
  readonly size: number;
  /** Of a blob in the host's memory: the object of the context that it is made from. */
  readonly blobId?: number;
  readonly contextId?: number;
  /** Memory of the guest, for blobs that have some; it can be attached later, too. */
  readonly entries?: readonly MemoryEntry[];
}): GpuCommand<void> {
  const name = 'RESOURCE_CREATE_BLOB';
  const { memory, size, flags = 0, blobId = 0, contextId = 0, entries = [] } = options;
  u32(name, 'memory', memory, BlobMemory.GUEST, BlobMemory.HOST3D_GUEST);
  if (memory === BlobMemory.HOST3D && entries.length > 0) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${name}: a blob in the host's memory alone has no entries; leave them out`,
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
    check: (limits) => checkAligned(name, 'size', size, limits),
  });
}

/** Shows a rectangle of a blob on a scanout. Needs RESOURCE_BLOB. */
export function setScanoutBlob(options: {
  readonly scanout: number;
  readonly resourceId: number;
  readonly rect: Rect;
  /** The picture in the blob, in pixels. */
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormatNumber;
  /** Bytes from a row to the next, by plane; formats of one plane have one. */
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

/** Creates a rendering context. Needs VIRGL. */
export function ctxCreate(options: {
  /** An id that no other context has. */
  readonly contextId: number;
  /** A name for people, of 64 bytes in UTF-8 at most. */
  readonly debugName?: string;
  /** The capability set whose commands it takes; 0 leaves it to the device. Needs CONTEXT_INIT. */
  readonly capsetId?: number;
}): GpuCommand<void> {
  const name = 'CTX_CREATE';
  const { capsetId = 0, debugName = '' } = options;
  const bytes = encodeUtf8(debugName);
  u32(name, 'the length of debugName', bytes.length, 0, NAME_SIZE);
  const values = {
    nlen: bytes.length,
    contextInit: u32(name, 'capsetId', capsetId, 0, 0xff),
    debugName: bytes,
  };
  return build(name, CtxCreate, values, NO_DATA, {
    needs: capsetId === 0 ? 'VIRGL' : 'CONTEXT_INIT',
    contextId: context(name, options.contextId),
  });
}

/** Destroys a rendering context. Needs VIRGL. */
export function ctxDestroy(contextId: number): GpuCommand<void> {
  const name = 'CTX_DESTROY';
  return build(name, CtrlHeader, {}, NO_DATA, { needs: 'VIRGL', contextId: context(name, contextId) });
}

/** Lets a context use a resource. Needs VIRGL. */
export function ctxAttachResource(contextId: number, id: number): GpuCommand<void> {
  const name = 'CTX_ATTACH_RESOURCE';
  return ofResource(name, id, { needs: 'VIRGL', contextId: context(name, contextId) });
}

/** Takes a resource from a context. Needs VIRGL. */
export function ctxDetachResource(contextId: number, id: number): GpuCommand<void> {
  const name = 'CTX_DETACH_RESOURCE';
  return ofResource(name, id, { needs: 'VIRGL', contextId: context(name, contextId) });
}

/** A 3D resource. What the numbers mean is for the renderer on the host to say. */
export interface Resource3d {
  readonly resourceId: number;
  readonly target: number;
  readonly format: number;
  readonly bind: number;
  readonly width: number;
  readonly height: number;
  readonly depth?: number;
  readonly arraySize?: number;
  readonly lastLevel?: number;
  readonly samples?: number;
  /** See {@link RESOURCE_FLAG_Y_0_TOP}. */
  readonly flags?: number;
}

/** Creates a 3D resource. Needs VIRGL. */
export function resourceCreate3d(options: Resource3d): GpuCommand<void> {
  const name = 'RESOURCE_CREATE_3D';
  const { depth = 1, arraySize = 1, lastLevel = 0, samples = 0, flags = 0 } = options;
  const values = {
    resourceId: resourceId(name, options.resourceId),
    target: u32(name, 'target', options.target),
    format: u32(name, 'format', options.format),
    bind: u32(name, 'bind', options.bind),
    width: u32(name, 'width', options.width, 1),
    height: u32(name, 'height', options.height, 1),
    depth: u32(name, 'depth', depth, 1),
    arraySize: u32(name, 'arraySize', arraySize),
    lastLevel: u32(name, 'lastLevel', lastLevel),
    nrSamples: u32(name, 'samples', samples),
    flags3d: u32(name, 'flags', flags),
  };
  return build(name, ResourceCreate3d, values, NO_DATA, { needs: 'VIRGL' });
}

/** What is copied of a 3D resource. */
export interface Transfer3d {
  readonly contextId: number;
  readonly resourceId: number;
  /** The box in the resource. */
  readonly x?: number;
  readonly y?: number;
  readonly z?: number;
  readonly width: number;
  readonly height: number;
  readonly depth?: number;
  /** Where it begins in the backing, in bytes. */
  readonly offset?: number;
  readonly level?: number;
  /** Bytes from a row to the next; 0 for as many as the box has. */
  readonly stride?: number;
  readonly layerStride?: number;
}

/** Copies from the backing of a 3D resource to the host. Needs VIRGL. */
export function transferToHost3d(options: Transfer3d): GpuCommand<void> {
  return transfer3d('TRANSFER_TO_HOST_3D', options);
}

/** Copies a 3D resource to its backing. Needs VIRGL. */
export function transferFromHost3d(options: Transfer3d): GpuCommand<void> {
  return transfer3d('TRANSFER_FROM_HOST_3D', options);
}

/**
 * Has a context carry out a stream of commands. Needs VIRGL.
 *
 * @param stream must not change until the answer is there
 */
export function submit3d(contextId: number, stream: Uint8Array): GpuCommand<void> {
  const name = 'SUBMIT_3D';
  requireBytes(name, stream);
  return build(name, CmdSubmit, { size: u32(name, 'the length of the stream', stream.length, 1) }, NO_DATA, {
    ...{ data: stream, fenced: true, needs: 'VIRGL', contextId: context(name, contextId) },
  });
}

/**
 * Maps a blob of the host's memory at an offset of {@link VirtioGpu.hostVisible}. Needs RESOURCE_BLOB and that region.
 *
 * @param offset bytes: a multiple of {@link VirtioGpu.blobAlignment}
 * @returns a command whose answer is how to cache it, one of {@link MapCache}
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
      sent: ({ mapped }) => mapped.add(id),
      refused: ({ mapped }) => mapped.delete(id),
    },
    check(limits) {
      needHostVisible(name, limits);
      checkAligned(name, 'offset', offset, limits);
      if (limits.mapped.has(id)) {
        throw new VirtioError(
          'ALREADY_USED',
          `${limits.who()}: ${name} of resource ${id}, which is mapped; unmap it first`,
        );
      }
      if (offset < limits.hostVisibleLength) return;
      throw new VirtioError(
        'INVALID_PARAM',
        `${limits.who()}: ${name} at offset ${offset}; the host visible memory region has ${limits.hostVisibleLength} bytes`,
      );
    },
  });
}

/** Unmaps a blob. Needs RESOURCE_BLOB and the host visible memory region. */
export function resourceUnmapBlob(id: number): GpuCommand<void> {
  const name = 'RESOURCE_UNMAP_BLOB';
  return ofResource(name, id, {
    needs: 'RESOURCE_BLOB',
    check: (limits) => needHostVisible(name, limits),
    track: { done: ({ mapped }) => mapped.delete(id) },
  });
}

function ofResource(
  name: GpuCommandName,
  id: number,
  options: Partial<Pick<GpuCommand<void>, 'fenced' | 'needs' | 'check' | 'track'>> & {
    readonly contextId?: number;
  },
): GpuCommand<void> {
  return build(name, ResourceCommand, { resourceId: resourceId(name, id) }, NO_DATA, options);
}

function transfer3d(
  name: 'TRANSFER_TO_HOST_3D' | 'TRANSFER_FROM_HOST_3D',
  options: Transfer3d,
): GpuCommand<void> {
  const { x = 0, y = 0, z = 0, depth = 1, offset = 0, level = 0, stride = 0, layerStride = 0 } = options;
  const values = {
    ...rectOf(name, { x, y, width: options.width, height: options.height }),
    z: u32(name, 'z', z),
    depth: u32(name, 'depth', depth),
    offset: u64(name, 'offset', offset),
    resourceId: resourceId(name, options.resourceId),
    level: u32(name, 'level', level),
    stride: u32(name, 'stride', stride),
    layerStride: u32(name, 'layerStride', layerStride),
  };
  return build(name, TransferHost3d, values, NO_DATA, {
    ...{ fenced: true, needs: 'VIRGL', contextId: context(name, options.contextId) },
  });
}

function context(name: GpuCommandName, id: number): number {
  return u32(name, 'contextId', id, 1);
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
    `${limits.who()}: ${name} with ${what} ${value}; it has to be a multiple of ${limits.blobAlignment}, see blobAlignment`,
  );
}

function needHostVisible(name: GpuCommandName, limits: CommandLimits): void {
  if (limits.hostVisibleLength > 0) return;
  throw new VirtioError(
    'UNSUPPORTED',
    `${limits.who()}: ${name} needs a host visible memory region, which the device does not have`,
  );
}
