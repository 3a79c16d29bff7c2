/** The options that operations share, in the manner of `node:fs`. */
import {
  decodeUtf8,
  encodeUtf8,
  requireBytes,
  type SpinOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { CLIENT } from './check.ts';
import type { OpenFlags } from './open-flags.ts';

/** Options of the form of a call that spins: those of its form with promises, with `timeoutMs` in place of `signal`. */
export type SyncOptions<O> = Omit<O, 'signal'> & SpinOptions;

/** The one encoding of text that there is. */
export type Encoding = 'utf8' | 'utf-8';

/** How a file is read as bytes. */
export interface ReadFileOptions extends WaitOptions {
  readonly encoding?: null | undefined;
  /** How it is opened (default `r`). */
  readonly flag?: OpenFlags;
}

/** How a file is read as text. */
export interface ReadTextOptions extends WaitOptions {
  readonly encoding: Encoding;
  /** How it is opened (default `r`). */
  readonly flag?: OpenFlags;
}

/** How a file is written. */
export interface WriteFileOptions extends WaitOptions {
  /** How it is opened (default `w`). */
  readonly flag?: OpenFlags;
  /** Its permissions, if it is new (default 0o666, less the umask). */
  readonly mode?: number;
}

/** What can be written: text becomes UTF-8. */
export type Data = string | Uint8Array;

/** What can be written piece by piece. */
export type DataStream = Iterable<Data> | AsyncIterable<Data>;

/** How a file is copied. */
export interface CopyFileOptions extends WaitOptions {
  /** Whether the target must not exist yet (default false). */
  readonly exclusive?: boolean;
}

/** How a directory is made. */
export interface MkdirOptions extends WaitOptions {
  /** Whether missing directories above it are made as well, and an existing one is no error (default false). */
  readonly recursive?: boolean;
  /** Its permissions (default 0o777, less the umask). */
  readonly mode?: number;
}

/** How a directory is listed. */
export interface ReaddirOptions extends WaitOptions {
  /** Whether entries come as `Dirent` (default false: as names). */
  readonly withFileTypes?: boolean;
  /**
   * Whether the directories below are listed as well (default false). Links are not followed. Names are paths from the directory
   * that is listed; a `Dirent` has its own name, and the path of its directory in `parentPath`.
   */
  readonly recursive?: boolean;
}

/** How files are removed. */
export interface RmOptions extends WaitOptions {
  /** Whether a directory is removed with all that it holds (default false). */
  readonly recursive?: boolean;
  /** Whether it is no error if there is nothing to remove (default false). */
  readonly force?: boolean;
}

/** How an extended attribute is set. */
export interface SetxattrOptions extends WaitOptions {
  /** `create`: it must not exist yet; `replace`: it must exist. By default either will do. */
  readonly only?: 'create' | 'replace';
}

export function toBytes(data: unknown): Uint8Array {
  if (typeof data === 'string') return encodeUtf8(data);
  requireBytes(CLIENT, data);
  return data;
}

/**
 * All bytes of what can be written, piece by piece. What cannot be is refused at once, before a file is opened for it.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function toChunks(data: Data | Iterable<Data>): Iterable<Uint8Array> {
  const several = typeof data === 'object' && !ArrayBuffer.isView(data) && isIterable(data);
  return several ? eachToBytes(data) : [toBytes(data)];
}

function* eachToBytes(data: Iterable<Data>): Generator<Uint8Array, undefined> {
  for (const piece of data) yield toBytes(piece);
  return undefined;
}

function isIterable(data: unknown): data is Iterable<Data> {
  return typeof data === 'object' && data !== null && Symbol.iterator in data;
}

export function isAsyncIterable(data: unknown): data is AsyncIterable<Data> {
  return typeof data === 'object' && data !== null && Symbol.asyncIterator in data;
}

/** What was read, as it was asked for. */
export function decodeAs(
  bytes: Uint8Array<ArrayBuffer>,
  encoding: Encoding | null | undefined,
): Uint8Array<ArrayBuffer> | string {
  if (encoding === undefined || encoding === null) return bytes;
  const known: readonly string[] = ['utf8', 'utf-8'] satisfies Encoding[];
  if (known.includes(encoding)) return decodeUtf8(bytes);
  throw new VirtioError(
    'INVALID_PARAM',
    `'${encoding as string}' is no encoding here; read bytes, or 'utf8'`,
  );
}

/** What reading can be told, in either form. */
interface AnyReadOptions extends WaitOptions, SpinOptions {
  readonly encoding?: Encoding | null | undefined;
  readonly flag?: OpenFlags;
}

/** Options that may be given as the encoding alone. */
export function readOptions(options: AnyReadOptions | Encoding | null | undefined): AnyReadOptions {
  return typeof options === 'string' ? { encoding: options } : (options ?? {});
}
