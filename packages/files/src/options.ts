/** The options that operations share, in the shape of those of `node:fs`. */
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

/** Options of the synchronous form of a method: those of its form with promises, but `timeoutMs` in place of `signal`. */
export type SyncOptions<O> = Omit<O, 'signal'> & SpinOptions;

/** The encoding of text: UTF-8. */
export type Encoding = 'utf8' | 'utf-8';

/** Options of `readFile`, for bytes. */
export interface ReadFileOptions extends WaitOptions {
  readonly encoding?: null | undefined;
  /** How the file is opened (default `r`). */
  readonly flag?: OpenFlags;
}

/** Options of `readFile`, for text. */
export interface ReadTextOptions extends WaitOptions {
  readonly encoding: Encoding;
  /** How the file is opened (default `r`). */
  readonly flag?: OpenFlags;
}

/** Options of `writeFile` and `appendFile`. */
export interface WriteFileOptions extends WaitOptions {
  /** How the file is opened (default `w`; `a` of `appendFile`). */
  readonly flag?: OpenFlags;
  /** The permissions of a new file (default 0o666, less the umask). */
  readonly mode?: number;
}

/** Data to write; text becomes UTF-8. */
export type Data = string | Uint8Array;

/** Data to write piece by piece. */
export type DataStream = Iterable<Data> | AsyncIterable<Data>;

/** Options of `copyFile`. */
export interface CopyFileOptions extends WaitOptions {
  /** Whether the target must not exist yet (default false). */
  readonly exclusive?: boolean;
}

/** Options of `mkdir`. */
export interface MkdirOptions extends WaitOptions {
  /** Whether missing parents are made as well, and an existing directory is not an error (default false). */
  readonly recursive?: boolean;
  /** The permissions (default 0o777, less the umask). */
  readonly mode?: number;
}

/** Options of `readdir`. */
export interface ReaddirOptions extends WaitOptions {
  /** Whether to return entries as `Dirent` (default false: as names). */
  readonly withFileTypes?: boolean;
  /**
   * Whether the directories below are listed as well (default false). Links are not followed. Names are paths relative to `path`; a
   * `Dirent` has its own name, and the path of its directory in `parentPath`.
   */
  readonly recursive?: boolean;
}

/** Options of `rm`. */
export interface RmOptions extends WaitOptions {
  /** Whether a directory is removed with its contents (default false). */
  readonly recursive?: boolean;
  /** Whether a file that does not exist is ignored (default false). */
  readonly force?: boolean;
}

/** Options of `setxattr`. */
export interface SetxattrOptions extends WaitOptions {
  /** `create`: it must not exist yet; `replace`: it must exist (default: either). */
  readonly only?: 'create' | 'replace';
}

export function toBytes(data: unknown): Uint8Array {
  if (typeof data === 'string') return encodeUtf8(data);
  requireBytes(CLIENT, data);
  return data;
}

/**
 * The bytes of data to write, piece by piece. Data of a wrong type is refused at once, before a file is opened for it.
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

/** Data that was read, as bytes or as text. */
export function decodeAs(
  bytes: Uint8Array<ArrayBuffer>,
  encoding: Encoding | null | undefined,
): Uint8Array<ArrayBuffer> | string {
  if (encoding === undefined || encoding === null) return bytes;
  const known: readonly string[] = ['utf8', 'utf-8'] satisfies Encoding[];
  if (known.includes(encoding)) return decodeUtf8(bytes);
  throw new VirtioError(
    'INVALID_PARAM',
    `'${encoding as string}' is not a supported encoding; read bytes, or 'utf8'`,
  );
}

/** Options of `readFile`, for bytes or text. */
interface AnyReadOptions extends WaitOptions, SpinOptions {
  readonly encoding?: Encoding | null | undefined;
  readonly flag?: OpenFlags;
}

/** Options that may be given as the encoding alone. */
export function readOptions(options: AnyReadOptions | Encoding | null | undefined): AnyReadOptions {
  return typeof options === 'string' ? { encoding: options } : (options ?? {});
}
