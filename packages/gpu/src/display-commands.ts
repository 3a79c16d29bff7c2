/** Commands for pictures on displays: display information, 2D resources, and scanouts. */
import {
  build,
  type CommandAnswer,
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
  CtrlHeader,
  DisplayOne,
  GetEdid,
  GpuOkType,
  MAX_SCANOUTS,
  ResourceAttachBacking,
  ResourceCommand,
  ResourceCreate2d,
  ResourceFlush,
  RespEdid,
  RespResourceUuid,
  SetScanout,
  TransferToHost2d,
} from './protocol.ts';

/** The display at a scanout. */
export interface Display extends Rect {
  /** The number of the scanout. */
  readonly scanout: number;
  /** Whether it is switched on. If not, its size is usually 0. */
  readonly enabled: boolean;
  /** Flags that the specification does not define. */
  readonly flags: number;
}

/** Asks for the displays of all 16 scanouts; scanouts that the device does not have are disabled. */
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
    track: { sent: ({ blobs }) => blobs.next(), done: ({ blobs }, order) => blobs.destroyed(id, order) },
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

/** Updates a rectangle of a resource on all scanouts that show it. */
export function resourceFlush(id: number, rect: Rect): GpuCommand<void> {
  const name = 'RESOURCE_FLUSH';
  const values = { ...rectOf(name, rect), resourceId: resourceId(name, id) };
  return build(name, ResourceFlush, values, NO_DATA, { fenced: true });
}

/**
 * Copies a rectangle from the backing of a 2D resource to the host.
 *
 * @param offset where its first pixel is in the backing, in bytes; the stride is that of the whole resource
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

/** Attaches memory of the guest to a resource. The entries are used one after the other, and must remain until they are detached. */
export function resourceAttachBacking(id: number, entries: readonly MemoryEntry[]): GpuCommand<void> {
  const name = 'RESOURCE_ATTACH_BACKING';
  const data = encodeEntries(name, entries, 1);
  const values = { resourceId: resourceId(name, id), nrEntries: entries.length };
  return build(name, ResourceAttachBacking, values, NO_DATA, { data });
}

/** Detaches the memory of a resource: once this is answered, the device no longer uses it. */
export function resourceDetachBacking(id: number): GpuCommand<void> {
  return ofResource('RESOURCE_DETACH_BACKING', id, { fenced: true });
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
