/** Options of the methods of a file handle, and their defaults. */
import { requireBytes, requireInteger, VirtioError, type WaitOptions } from '@virtio/core';
import { CLIENT, checkSize, MAX_U32, requireChoice, requireString } from './check.ts';
import type { SyncOptions } from './options.ts';
import { LockType } from './numbers.ts';

/** Options of `read` and `write`: the part of the buffer, and the position in the file. */
export interface TransferOptions extends WaitOptions {
  /** The first byte of the buffer (default 0). */
  readonly offset?: number | undefined;
  /** How many bytes (default: to the end of the buffer). */
  readonly length?: number | undefined;
  /** Bytes from the start of the file (default, and for `null`: the file's own position, which then advances). */
  readonly position?: number | null | undefined;
}

/** Options of `createReadStream` and `readLines`. */
export interface ReadStreamOptions extends WaitOptions {
  /** The first byte (default 0). */
  readonly start?: number;
  /** The last byte, inclusive as in `node:fs` (default: the end of the file). */
  readonly end?: number;
  /** The largest piece, in bytes (default 524,288). */
  readonly highWaterMark?: number;
}

/** Options of `createWriteStream`. */
export interface WriteStreamOptions extends WaitOptions {
  /** The position of the first byte (default: the file's own position, which then advances). */
  readonly start?: number;
}

/** Options of `lock`, `unlock` and `getLock`. */
export interface LockOptions extends WaitOptions {
  /** `read` is shared with other readers, `write` is exclusive (default `write`). */
  readonly type?: 'read' | 'write';
  /** The first byte (default 0). */
  readonly start?: number;
  /** How many bytes; 0 means all from `start` on (default 0). */
  readonly length?: number;
  /** The number of the process: locks of one process do not conflict (default 1). */
  readonly process?: number;
  /** The name of this client, which other clients see (default `virtio`). */
  readonly client?: string;
}

/** A lock that is held. */
export interface HeldLock {
  /** `read` is shared with other readers, `write` is exclusive. */
  readonly type: 'read' | 'write';
  /** The first byte. */
  readonly start: number;
  /** How many bytes; 0 means all from `start` on. */
  readonly length: number;
  /** The number of the process that holds it. */
  readonly process: number;
  /** The name of the client of that process. */
  readonly client: string;
}

/** The arguments of a call of `read` or `write`, with defaults. */
export interface Transfer extends Part {
  readonly position: number | null;
}

/** A buffer of the caller, and its length when the call began, as the caller may resize it meanwhile. */
export interface Part {
  readonly part: Uint8Array;
  readonly length: number;
}

export function lockRequest(
  { type = 'write', start = 0, length = 0, process = 1, client = 'virtio' }: SyncOptions<LockOptions>,
  number?: number,
): { type: number; start: number; length: number; process: number; client: string } {
  requireChoice('the type of a lock', type, ['read', 'write']);
  requireString('client', client);
  return {
    type: number ?? (type === 'read' ? LockType.READ : LockType.WRITE),
    start: checkSize('start', start),
    length: checkSize('length', length),
    process: requireInteger(CLIENT, 'process', process, 0, MAX_U32),
    client,
  };
}

/** Checks where `length` bytes are read or written: a position in the file, or `null` for the file's own. */
function checkPosition(position: number | null, length: number): number | null {
  if (position === null) return null;
  checkSize('position + length', checkSize('position', position) + length);
  return position;
}

/** A vectored call of {@link Part}s at a position, `null` for the file's own. */
export interface Vector {
  readonly parts: readonly Part[];
  readonly position: number | null;
}

/** The buffers of a vectored call: a copy, as the caller may change the array while they are in use. */
export function toVector(buffers: readonly Uint8Array[], position: number | null): Vector {
  const given: unknown = buffers;
  if (!Array.isArray(given)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${CLIENT}: buffers is of type ${typeof given}; give an array of Uint8Array`,
    );
  }
  const parts = Array.from(buffers, (part) => {
    requireBytes(CLIENT, part);
    return { part, length: part.length };
  });
  const total = parts.reduce((sum, { length }) => sum + length, 0);
  return { parts, position: checkPosition(position, total) };
}

export function toTransfer(
  buffer: Uint8Array,
  options: SyncOptions<TransferOptions> | number | undefined,
  length: number | undefined,
  position: number | null | undefined,
): Transfer {
  requireBytes(CLIENT, buffer);
  const values = typeof options === 'object' ? options : { offset: options, length, position };
  const offset = requireInteger(CLIENT, 'offset', values.offset ?? 0, 0, buffer.length);
  const rest = buffer.length - offset;
  const count = requireInteger(CLIENT, 'length', values.length ?? rest, 0, rest);
  const at = checkPosition(values.position ?? null, count);
  return { part: buffer.subarray(offset, offset + count), length: count, position: at };
}
