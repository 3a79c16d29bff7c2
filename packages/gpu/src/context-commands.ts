/** Commands for rendering: capability sets, contexts, 3D resources, streams. */
import { encodeUtf8, requireBytes } from '@virtio/core';
import {
  build,
  type GpuCommand,
  HEADER_SIZE,
  NO_DATA,
  ofResource,
  rectOf,
  resourceId,
  u32,
  u64,
  viewOf,
} from './command.ts';
import {
  CmdSubmit,
  CtrlHeader,
  CtxCreate,
  GetCapset,
  GetCapsetInfo,
  type GpuCommandName,
  GpuOkType,
  ResourceCreate3d,
  RespCapsetInfo,
  TransferHost3d,
} from './protocol.ts';

/** A capability set of a device. */
export interface CapsetInfo {
  /** See {@link Capset}; 0 if there is none. */
  readonly capsetId: number;
  readonly maxVersion: number;
  /** The size of the set in bytes. */
  readonly maxSize: number;
}

/** Asks for information on a capability set by its index, which is below {@link VirtioGpu.capsets}. */
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

/** The largest capability set that is asked for, in bytes. */
const MAX_CAPSET = 1 << 20;

/** Asks for a capability set. `info.maxSize` is the room for the answer, in bytes. */
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

/** The size of `debug_name`, in bytes. */
const NAME_SIZE = 64;

/** Creates a rendering context. Needs VIRGL. */
export function ctxCreate(options: {
  /** An id that no other context has. */
  readonly contextId: number;
  /** A name for debugging, at most 64 bytes in UTF-8. */
  readonly debugName?: string;
  /** The capability set whose commands it takes; 0 leaves the choice to the device. Needs CONTEXT_INIT. */
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

/** Detaches a resource from a context. Needs VIRGL. */
export function ctxDetachResource(contextId: number, id: number): GpuCommand<void> {
  const name = 'CTX_DETACH_RESOURCE';
  return ofResource(name, id, { needs: 'VIRGL', contextId: context(name, contextId) });
}

/** A 3D resource. The renderer on the host defines the meaning of the numbers. */
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

/** The part of a 3D resource that is copied. */
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
  /** Where its copy begins in the backing, in bytes. */
  readonly offset?: number;
  readonly level?: number;
  /** The bytes from one row to the next; 0 means as many as a row of the box has. */
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
 * Submits a stream of commands to a context. Needs VIRGL.
 *
 * @param stream must not change before the answer
 */
export function submit3d(contextId: number, stream: Uint8Array): GpuCommand<void> {
  const name = 'SUBMIT_3D';
  requireBytes(name, stream);
  return build(name, CmdSubmit, { size: u32(name, 'the length of the stream', stream.length, 1) }, NO_DATA, {
    ...{ data: stream, fenced: true, needs: 'VIRGL', contextId: context(name, contextId) },
  });
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
