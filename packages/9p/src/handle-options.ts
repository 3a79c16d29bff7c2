/** What the methods of a file handle are told, and the defaults of it. */
import { type AbortSignalLike, requireBytes, VirtioError } from '@virtio/core';
import { LockType } from './messages.ts';
import { checkSize } from './operations.ts';
import { CLIENT, type SignalOption } from './options.ts';

/** Where in a buffer and where in a file to read or write. */
export interface TransferOptions extends SignalOption {
  /** The first byte of the buffer (default 0). */
  readonly offset?: number | undefined;
  /** How many bytes (default: to the end of the buffer). */
  readonly length?: number | undefined;
  /** Bytes from the start of the file (default, and for `null`: the file's own position, which moves on then). */
  readonly position?: number | null | undefined;
}

/** A part of a file, for a stream. */
export interface ReadStreamOptions extends SignalOption {
  /** The first byte (default 0). */
  readonly start?: number;
  /** The last byte, inclusive as in `node:fs` (default: the end of the file). */
  readonly end?: number;
  /** The most bytes of a piece (default 524,288). */
  readonly highWaterMark?: number;
}

/** Where a stream writes to a file. */
export interface WriteStreamOptions extends SignalOption {
  /** Where its first byte goes (default: to the file's own position, which moves on then). */
  readonly start?: number;
}

/** A lock on a part of a file. */
export interface LockOptions {
  /** `read` can be shared with other readers, `write` with nobody (default `write`). */
  readonly type?: 'read' | 'write';
  /** The first byte (default 0). */
  readonly start?: number;
  /** How many bytes; 0, the default, for all from `start` on. */
  readonly length?: number;
  /** Who asks: locks of one process do not stand in each other's way (default 1). */
  readonly process?: number;
  /** The name of this client, as other clients see it (default `virtio`). */
  readonly client?: string;
}

/** A lock that somebody holds. */
export interface HeldLock {
  /** Whether others may read meanwhile. */
  readonly type: 'read' | 'write';
  /** The first byte. */
  readonly start: number;
  /** How many bytes; 0 for all from `start` on. */
  readonly length: number;
  /** Who has it. */
  readonly process: number;
  /** The name of that one's client. */
  readonly client: string;
}

/** The parts of a call of `read` or `write`, with defaults. */
export interface Transfer {
  readonly part: Uint8Array;
  readonly position: number | null;
}

export function lockRequest(
  { type = 'write', start = 0, length = 0, process = 1, client = 'virtio' }: LockOptions,
  number: number = type === 'read' ? LockType.READ : LockType.WRITE,
): { type: number; start: number; length: number; process: number; client: string } {
  return { type: number, start: checkSize(start), length: checkSize(length), process, client };
}

/** A position in a file, or `null` for the file's own. */
export function checkPosition(position: number | null): number | null {
  return position === null ? null : checkSize(position);
}

export function signalOf(options: TransferOptions | number | undefined): AbortSignalLike | undefined {
  return typeof options === 'object' ? options.signal : undefined;
}

export function toTransfer(
  buffer: Uint8Array,
  options: TransferOptions | number | undefined,
  length: number | undefined,
  position: number | null | undefined,
): Transfer {
  requireBytes(CLIENT, buffer);
  const values = typeof options === 'object' ? options : { offset: options, length, position };
  const offset = values.offset ?? 0;
  const count = values.length ?? buffer.length - offset;
  if (
    !(Number.isInteger(offset) && Number.isInteger(count) && offset >= 0 && count >= 0) ||
    offset + count > buffer.length
  ) {
    throw new VirtioError(
      'INVALID_PARAM',
      `asked for ${count} bytes at ${offset} of a buffer of ${buffer.length}; they must lie inside it`,
    );
  }
  const at = checkPosition(values.position ?? null);
  if (at !== null) checkSize(at + count);
  return { part: buffer.subarray(offset, offset + count), position: at };
}
