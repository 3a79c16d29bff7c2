/**
 * The type of commands of the control queue: the structure, the answer of the device, and the limits that its numbers are checked
 * against; and the functions that build commands.
 */
import { type FieldTable, type Layout, requireInteger, type Values, VirtioError } from '@virtio/core';
import type { Blobs } from './blobs.ts';
import { pixelShifts } from './pixel-format.ts';
import {
  CtrlHeader,
  type GpuCommandName,
  GpuCommandType,
  type GpuFeatureName,
  GpuOkType,
  MemEntry,
  ResourceCommand,
} from './protocol.ts';

/** The size of a header, in bytes. */
export const HEADER_SIZE: number = CtrlHeader.size;

/** The limits that a command's numbers are checked against when it is sent. */
export interface CommandLimits {
  /** The alignment of blobs in bytes: 1 unless BLOB_ALIGNMENT was negotiated. */
  readonly blobAlignment: number;
  /** The size of the host visible memory region in bytes; 0 if there is none. */
  readonly hostVisibleLength: number;
  /** The blobs of the device. */
  readonly blobs: Blobs;
  /** Whether a feature was negotiated. */
  has(feature: GpuFeatureName): boolean;
  /** The device's name in messages. */
  who(): string;
}

/** The answer of the device to a command. */
export interface CommandAnswer<T> {
  /** The type of the answer. */
  readonly type: number;
  /** The largest size after the header, in bytes. */
  readonly size: number;
  /** How many of these bytes there must be; missing ones are read as zeros. */
  readonly least: number;
  /** Makes the result from the bytes after the header; the device wrote `length` of them. */
  read(bytes: Uint8Array, length: number): T;
}

/** A command that is ready to be sent, and whose result is a `T`. It can be sent more than once. */
export interface GpuCommand<T> {
  /** Its name in the specification. */
  readonly name: GpuCommandName;
  /** Its structure; the driver fills in the fence. */
  readonly request: Uint8Array;
  /** What follows the structure. It must not change until the command is done. */
  readonly data: Uint8Array | undefined;
  /** Whether the device answers only when the command is finished, unless the options say otherwise. */
  readonly fenced: boolean;
  /** The feature that it needs. */
  readonly needs: GpuFeatureName | undefined;
  readonly answer: CommandAnswer<T>;
  /** Checks its numbers against the limits of the device. */
  readonly check: ((limits: CommandLimits) => void) | undefined;
  /** The changes to the known blobs when it is sent, carried out, or refused. */
  readonly track: CommandTrack | undefined;
}

/** How a command changes the known blobs. */
export interface CommandTrack {
  /** @returns the number of the command in the order of all, for the others */
  sent?(limits: CommandLimits): number;
  done?(limits: CommandLimits, order: number): void;
  refused?(limits: CommandLimits, order: number): void;
}

/** A piece of the guest's memory, as the device sees it. */
export interface MemoryEntry {
  /** The address for the device. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
}

/** A rectangle in pixels. Pixel 0, 0 is in the upper left corner. */
export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

const U32 = 0xffff_ffff;
const SAFE = Number.MAX_SAFE_INTEGER;
const ENTRY = MemEntry.size;
/** The largest number of entries that is sent; devices have lower limits (QEMU: 16384). */
const MAX_ENTRIES = 1 << 20;

export const NO_DATA: CommandAnswer<void> = {
  ...{ type: GpuOkType.OK_NODATA, size: 0, least: 0 },
  read: () => undefined,
};

export const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** Checks an unsigned 32-bit number. */
export function u32(command: GpuCommandName, name: string, value: number, min = 0, max = U32): number {
  return requireInteger(command, name, value, min, max);
}

/** Checks an unsigned 64-bit number, of which JavaScript numbers hold 53 bits. */
export function u64(command: GpuCommandName, name: string, value: number, min = 0): bigint {
  return BigInt(requireInteger(command, name, value, min, SAFE));
}

export function build<F extends FieldTable, T>(
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

export function rectOf(name: GpuCommandName, { x, y, width, height }: Rect): Rect {
  return {
    x: u32(name, 'x', x),
    y: u32(name, 'y', y),
    width: u32(name, 'width', width),
    height: u32(name, 'height', height),
  };
}

export function resourceId(name: GpuCommandName, id: number): number {
  return u32(name, 'resourceId', id, 1);
}

export function formatOf(name: GpuCommandName, format: number): number {
  if (pixelShifts(format) !== undefined) return format;
  throw new VirtioError(
    'INVALID_PARAM',
    `${name}: there is no format ${String(format)}; use one of PixelFormat`,
  );
}

export function encodeEntries(
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

export function ofResource(
  name: GpuCommandName,
  id: number,
  options: Partial<Pick<GpuCommand<void>, 'fenced' | 'needs' | 'check' | 'track'>> & {
    readonly contextId?: number;
  },
): GpuCommand<void> {
  return build(name, ResourceCommand, { resourceId: resourceId(name, id) }, NO_DATA, options);
}
