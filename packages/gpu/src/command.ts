/**
 * What a command of the control queue is: its structure, what the device answers, and what its numbers are held against; and what all
 * commands are built with.
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

/** The bytes of a header. */
export const HEADER_SIZE: number = CtrlHeader.size;

/** What a command's numbers are held against when it is sent. */
export interface CommandLimits {
  /** The alignment of blobs in bytes: 1 unless BLOB_ALIGNMENT was negotiated. */
  readonly blobAlignment: number;
  /** The bytes of the host visible memory region; 0 if there is none. */
  readonly hostVisibleLength: number;
  /** What is known of blobs. */
  readonly blobs: Blobs;
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

const U32 = 0xffff_ffff;
const SAFE = Number.MAX_SAFE_INTEGER;
const ENTRY = MemEntry.size;
/** The most entries that fit their count and our arrays; devices have lower limits (QEMU: 16384). */
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

/** Checks an unsigned number of 64 bits, of which JavaScript counts 53. */
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
    `${name}: there is no format ${String(format)}; see PixelFormat for those that there are`,
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
