/**
 * The constants and structures of the specification: feature bits, configuration space, requests and their answers. Numbers and
 * tables only.
 */
import { type FeatureSet, FeatureTable, Layout } from '@virtio/core';

/**
 * The feature bits of GPU devices, by number.
 *
 * @see VIRTIO 1.4, 5.7.3
 */
export const GpuFeature = {
  /** The device has rendering contexts and 3D resources. */
  VIRGL: 0,
  /** The device has an EDID for each scanout. */
  EDID: 1,
  /** Resources can be given UUIDs, for export to other devices. */
  RESOURCE_UUID: 2,
  /** Resources can be blobs of bytes, in memory of the guest or of the host. */
  RESOURCE_BLOB: 3,
  /** Contexts have types, and timelines of fences. Needs VIRGL. */
  CONTEXT_INIT: 4,
  /** `blob_alignment` says how blobs are aligned. Needs RESOURCE_BLOB. */
  BLOB_ALIGNMENT: 5,
} as const;

/** The name of a feature of GPU devices. */
export type GpuFeatureName = keyof typeof GpuFeature;

/** The features of GPU devices with their names. */
export const GpuFeatures: FeatureTable<GpuFeatureName> = new FeatureTable<GpuFeatureName>(
  'GpuFeatures',
  GpuFeature,
);

/** A set of features of a GPU device. */
export type GpuFeatureSet = FeatureSet<GpuFeatureName>;

/** The index of the control queue. */
export const CONTROL_QUEUE = 0;
/** The index of the cursor queue. */
export const CURSOR_QUEUE = 1;

/** The largest number of scanouts of a device. */
export const MAX_SCANOUTS = 16;

/** The width and the height of a cursor's image in pixels. @see VIRTIO 1.4, 5.7.6.6 */
export const CURSOR_SIZE = 64;

/** The size of a pixel in bytes, in every format. */
export const BYTES_PER_PIXEL = 4;

/** The configuration space. @see VIRTIO 1.4, 5.7.4 */
export const GpuConfig = new Layout('virtio_gpu_config', {
  eventsRead: 'u32 read-only',
  eventsClear: 'u32 write-only',
  numScanouts: 'u32 read-only',
  numCapsets: 'u32 read-only',
  blobAlignment: 'u32 read-only',
});

/** The bits of `events_read` and `events_clear`. */
export const GpuEvent = {
  /** The arrangement or the size of the displays has changed. */
  DISPLAY: 1,
} as const;

/** The shared memory region in which blobs of the host are mapped. @see VIRTIO 1.4, 5.7.5 */
export const HOST_VISIBLE_REGION = 1;

/** The types of commands, by their names in the specification. @see VIRTIO 1.4, 5.7.6.7 */
export const GpuCommandType = {
  GET_DISPLAY_INFO: 0x0100,
  RESOURCE_CREATE_2D: 0x0101,
  RESOURCE_UNREF: 0x0102,
  SET_SCANOUT: 0x0103,
  RESOURCE_FLUSH: 0x0104,
  TRANSFER_TO_HOST_2D: 0x0105,
  RESOURCE_ATTACH_BACKING: 0x0106,
  RESOURCE_DETACH_BACKING: 0x0107,
  GET_CAPSET_INFO: 0x0108,
  GET_CAPSET: 0x0109,
  GET_EDID: 0x010a,
  RESOURCE_ASSIGN_UUID: 0x010b,
  RESOURCE_CREATE_BLOB: 0x010c,
  SET_SCANOUT_BLOB: 0x010d,
  CTX_CREATE: 0x0200,
  CTX_DESTROY: 0x0201,
  CTX_ATTACH_RESOURCE: 0x0202,
  CTX_DETACH_RESOURCE: 0x0203,
  RESOURCE_CREATE_3D: 0x0204,
  TRANSFER_TO_HOST_3D: 0x0205,
  TRANSFER_FROM_HOST_3D: 0x0206,
  SUBMIT_3D: 0x0207,
  RESOURCE_MAP_BLOB: 0x0208,
  RESOURCE_UNMAP_BLOB: 0x0209,
  UPDATE_CURSOR: 0x0300,
  MOVE_CURSOR: 0x0301,
} as const;

/** The name of a command. */
export type GpuCommandName = keyof typeof GpuCommandType;

/** The types of answers that say that a command was carried out. */
export const GpuOkType = {
  OK_NODATA: 0x1100,
  OK_DISPLAY_INFO: 0x1101,
  OK_CAPSET_INFO: 0x1102,
  OK_CAPSET: 0x1103,
  OK_EDID: 0x1104,
  OK_RESOURCE_UUID: 0x1105,
  OK_MAP_INFO: 0x1106,
} as const;

/** The types of answers that say that a command failed. */
export const GpuErrorType = {
  /** Any other reason. */
  ERR_UNSPEC: 0x1200,
  /** The host is out of memory. */
  ERR_OUT_OF_MEMORY: 0x1201,
  /** There is no such scanout. */
  ERR_INVALID_SCANOUT_ID: 0x1202,
  /** There is no such resource, or the id is in use. */
  ERR_INVALID_RESOURCE_ID: 0x1203,
  /** There is no such context, or the id is in use. */
  ERR_INVALID_CONTEXT_ID: 0x1204,
  /** A number is out of range: a rectangle outside its resource, an unknown format. */
  ERR_INVALID_PARAMETER: 0x1205,
} as const;

/** The end of the range of error types. */
export const ERROR_TYPES_END = 0x1300;

/** The flags of a header. */
export const GpuFlag = {
  /** The device answers only when the command is finished. */
  FENCE: 1,
  /** `ring_idx` names a timeline of the context. */
  INFO_RING_IDX: 2,
} as const;

/** The highest index of a context's timeline. */
export const MAX_RING_INDEX = 63;

/** Where the memory of a blob is. @see VIRTIO 1.4, 5.7.6.8 */
export const BlobMemory = {
  /** The guest's memory. */
  GUEST: 1,
  /** The host's memory, allocated by a rendering context. */
  HOST3D: 2,
  /** The host's memory, with a shadow of it in the guest's. */
  HOST3D_GUEST: 3,
} as const;

/** The intended uses of a blob. */
export const BlobFlag = {
  /** It will be mapped. */
  USE_MAPPABLE: 1,
  /** It will be shared between instances of drivers. */
  USE_SHAREABLE: 2,
  /** It will be shared with other devices. */
  USE_CROSS_DEVICE: 4,
} as const;

/** How a mapped blob must be cached. */
export const MapCache = {
  NONE: 0,
  CACHED: 1,
  UNCACHED: 2,
  /** Write-combining. */
  WC: 3,
} as const;

/** Known capability sets by number. @see VIRTIO 1.4, 5.7.6.8 */
export const Capset = {
  VIRGL: 1,
  VIRGL2: 2,
  GFXSTREAM: 3,
  VENUS: 4,
  CROSS_DOMAIN: 5,
} as const;

/** The origin of a 3D resource is its upper left corner. */
export const RESOURCE_FLAG_Y_0_TOP = 1;

const header = {
  type: 'u32',
  flags: 'u32',
  fenceId: 'u64',
  ctxId: 'u32',
  ringIdx: 'u8',
  padding0: 'bytes3',
} as const;

const rect = { x: 'u32', y: 'u32', width: 'u32', height: 'u32' } as const;

/** The header of every request and every answer. @see VIRTIO 1.4, 5.7.6.7 */
export const CtrlHeader = new Layout('virtio_gpu_ctrl_hdr', header);

/** The display of one scanout, in the answer to GET_DISPLAY_INFO. */
export const DisplayOne = new Layout('virtio_gpu_display_one', { ...rect, enabled: 'u32', flags: 'u32' });

/** GET_EDID. */
export const GetEdid = new Layout('virtio_gpu_get_edid', { ...header, scanout: 'u32', padding: 'u32' });

/** The answer to GET_EDID. */
export const RespEdid = new Layout('virtio_gpu_resp_edid', {
  ...header,
  size: 'u32',
  padding: 'u32',
  edid: 'bytes1024',
});

/** RESOURCE_CREATE_2D. */
export const ResourceCreate2d = new Layout('virtio_gpu_resource_create_2d', {
  ...header,
  resourceId: 'u32',
  format: 'u32',
  width: 'u32',
  height: 'u32',
});

/** The structure of commands with only a resource id: RESOURCE_UNREF, RESOURCE_DETACH_BACKING, RESOURCE_ASSIGN_UUID, RESOURCE_UNMAP_BLOB, CTX_ATTACH_RESOURCE, CTX_DETACH_RESOURCE. */
export const ResourceCommand = new Layout('virtio_gpu_resource_unref', {
  ...header,
  resourceId: 'u32',
  padding: 'u32',
});

/** SET_SCANOUT. */
export const SetScanout = new Layout('virtio_gpu_set_scanout', {
  ...header,
  ...rect,
  scanoutId: 'u32',
  resourceId: 'u32',
});

/** RESOURCE_FLUSH. */
export const ResourceFlush = new Layout('virtio_gpu_resource_flush', {
  ...header,
  ...rect,
  resourceId: 'u32',
  padding: 'u32',
});

/** TRANSFER_TO_HOST_2D. */
export const TransferToHost2d = new Layout('virtio_gpu_transfer_to_host_2d', {
  ...header,
  ...rect,
  offset: 'u64',
  resourceId: 'u32',
  padding: 'u32',
});

/** RESOURCE_ATTACH_BACKING, before its entries. */
export const ResourceAttachBacking = new Layout('virtio_gpu_resource_attach_backing', {
  ...header,
  resourceId: 'u32',
  nrEntries: 'u32',
});

/** A piece of the guest's memory. */
export const MemEntry = new Layout('virtio_gpu_mem_entry', { addr: 'u64', length: 'u32', padding: 'u32' });

/** GET_CAPSET_INFO. */
export const GetCapsetInfo = new Layout('virtio_gpu_get_capset_info', {
  ...header,
  capsetIndex: 'u32',
  padding: 'u32',
});

/** The answer to GET_CAPSET_INFO. */
export const RespCapsetInfo = new Layout('virtio_gpu_resp_capset_info', {
  ...header,
  capsetId: 'u32',
  capsetMaxVersion: 'u32',
  capsetMaxSize: 'u32',
  padding: 'u32',
});

/** GET_CAPSET. */
export const GetCapset = new Layout('virtio_gpu_get_capset', {
  ...header,
  capsetId: 'u32',
  capsetVersion: 'u32',
});

/** The answer to RESOURCE_ASSIGN_UUID. */
export const RespResourceUuid = new Layout('virtio_gpu_resp_resource_uuid', { ...header, uuid: 'bytes16' });

/** RESOURCE_CREATE_BLOB, before its entries. */
export const ResourceCreateBlob = new Layout('virtio_gpu_resource_create_blob', {
  ...header,
  resourceId: 'u32',
  blobMem: 'u32',
  blobFlags: 'u32',
  nrEntries: 'u32',
  blobId: 'u64',
  size: 'u64',
});

/** SET_SCANOUT_BLOB. */
export const SetScanoutBlob = new Layout('virtio_gpu_set_scanout_blob', {
  ...header,
  ...rect,
  scanoutId: 'u32',
  resourceId: 'u32',
  blobWidth: 'u32',
  blobHeight: 'u32',
  format: 'u32',
  padding: 'u32',
  strides: 'bytes16',
  offsets: 'bytes16',
});

/** CTX_CREATE. */
export const CtxCreate = new Layout('virtio_gpu_ctx_create', {
  ...header,
  nlen: 'u32',
  contextInit: 'u32',
  debugName: 'bytes64',
});

/** RESOURCE_CREATE_3D; the specification leaves its fields to Linux's header. */
export const ResourceCreate3d = new Layout('virtio_gpu_resource_create_3d', {
  ...header,
  resourceId: 'u32',
  target: 'u32',
  format: 'u32',
  bind: 'u32',
  width: 'u32',
  height: 'u32',
  depth: 'u32',
  arraySize: 'u32',
  lastLevel: 'u32',
  nrSamples: 'u32',
  flags3d: 'u32',
  padding: 'u32',
});

/** TRANSFER_TO_HOST_3D and TRANSFER_FROM_HOST_3D; the specification leaves its fields to Linux's header. */
export const TransferHost3d = new Layout('virtio_gpu_transfer_host_3d', {
  ...header,
  x: 'u32',
  y: 'u32',
  z: 'u32',
  width: 'u32',
  height: 'u32',
  depth: 'u32',
  offset: 'u64',
  resourceId: 'u32',
  level: 'u32',
  stride: 'u32',
  layerStride: 'u32',
});

/** SUBMIT_3D, before the stream of commands. */
export const CmdSubmit = new Layout('virtio_gpu_cmd_submit', { ...header, size: 'u32', padding: 'u32' });

/** RESOURCE_MAP_BLOB. */
export const ResourceMapBlob = new Layout('virtio_gpu_resource_map_blob', {
  ...header,
  resourceId: 'u32',
  padding: 'u32',
  offset: 'u64',
});

/** The answer to RESOURCE_MAP_BLOB. */
export const RespMapInfo = new Layout('virtio_gpu_resp_map_info', {
  ...header,
  mapInfo: 'u32',
  padding: 'u32',
});

/** UPDATE_CURSOR and MOVE_CURSOR. @see VIRTIO 1.4, 5.7.6.10 */
export const UpdateCursor = new Layout('virtio_gpu_update_cursor', {
  ...header,
  scanoutId: 'u32',
  x: 'u32',
  y: 'u32',
  padding1: 'u32',
  resourceId: 'u32',
  hotX: 'u32',
  hotY: 'u32',
  padding: 'u32',
});
