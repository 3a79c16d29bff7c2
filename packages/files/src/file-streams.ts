/**
 * Streams of a file: async iterables of pieces and of lines, and an underlying sink for a `WritableStream`. They need nothing that is
 * not in ECMAScript.
 */
import { type AbortSignalLike, decodeUtf8, requireInteger } from '@virtio/core';
import { CLIENT, checkSize } from './check.ts';
import type { ReadStreamOptions, WriteStreamOptions } from './handle-options.ts';
import { type Data, toBytes } from './options.ts';
import { refuse } from './file-error.ts';

const DEFAULT_PIECE = 524288;
const MAX_PIECE = 0x7fff_ffff;

/** How many pieces of a stream are read ahead. */
const READ_AHEAD = 4;

/** The longest line. */
const MAX_LINE = 16777216;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;

/** The source of pieces: a file handle. */
interface Source {
  read(
    buffer: Uint8Array,
    options: { readonly position: number; readonly signal: AbortSignalLike | undefined },
  ): Promise<{ readonly bytesRead: number }>;
}

/** The destination of pieces: a file handle. */
interface Target {
  write(
    data: Uint8Array,
    options: { readonly position: number | null; readonly signal: AbortSignalLike | undefined },
  ): Promise<unknown>;
}

/**
 * Reads a file piece by piece, a few ahead.
 *
 * @throws {@link VirtioError} `INVALID_PARAM`, at once
 */
export function readPieces(
  file: Source,
  { start = 0, end, highWaterMark = DEFAULT_PIECE, signal }: ReadStreamOptions,
): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
  requireInteger(CLIENT, 'highWaterMark', highWaterMark, 1, MAX_PIECE);
  checkSize('start', start);
  const last = end === undefined || end === Infinity ? Infinity : checkSize('end', end);
  return pieces(file, start, last, highWaterMark, signal);
}

async function* pieces(
  file: Source,
  start: number,
  end: number,
  highWaterMark: number,
  signal: AbortSignalLike | undefined,
): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
  const ahead: Promise<Uint8Array<ArrayBuffer>>[] = [];
  let next = start;
  const piece = async (position: number): Promise<Uint8Array<ArrayBuffer>> => {
    const buffer = new Uint8Array(Math.min(highWaterMark, end + 1 - position));
    let length = 0;
    while (length < buffer.length) {
      const part = buffer.subarray(length);
      const { bytesRead } = await file.read(part, { position: position + length, signal });
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.subarray(0, length);
  };
  try {
    for (;;) {
      while (ahead.length < READ_AHEAD && next <= end) {
        const reading = piece(next);
        reading.catch(() => undefined);
        ahead.push(reading);
        next += highWaterMark;
      }
      const first = ahead.shift();
      if (first === undefined) return undefined;
      const bytes = await first;
      if (bytes.length > 0) yield bytes;
      if (bytes.length < highWaterMark) return undefined;
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}

/** Splits pieces into lines. */
export async function* splitLines(
  pieces: AsyncIterable<Uint8Array>,
  path: string,
): AsyncGenerator<string, undefined> {
  let begun: Uint8Array[] = [];
  let length = 0;
  for await (const piece of pieces) {
    let start = 0;
    for (let end = piece.indexOf(LINE_FEED); end >= 0; end = piece.indexOf(LINE_FEED, start)) {
      yield toLine([...begun, piece.subarray(start, end)]);
      begun = [];
      length = 0;
      start = end + 1;
    }
    if (start === piece.length) continue;
    begun.push(piece.subarray(start));
    length += piece.length - start;
    if (length > MAX_LINE) throw refuse('EOVERFLOW', 'read', path);
  }
  if (begun.length > 0) yield toLine(begun);
  return undefined;
}

/** The text of a line that may have arrived in parts. */
function toLine(parts: readonly Uint8Array[]): string {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return decodeUtf8(bytes.at(-1) === CARRIAGE_RETURN ? bytes.subarray(0, -1) : bytes);
}

/** Writes a file piece by piece; an underlying sink for `WritableStream`. */
export class FileSink {
  readonly #file: Target;
  readonly #signal: AbortSignalLike | undefined;
  #next: number | null;
  #bytesWritten = 0;

  /** @internal use `FileHandle.createWriteStream` */
  constructor(file: Target, { start, signal }: WriteStreamOptions) {
    this.#file = file;
    this.#next = start === undefined ? null : checkSize('start', start);
    this.#signal = signal;
  }

  /** How many bytes were written. */
  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  /**
   * Writes a piece after the previous one.
   *
   * @param chunk the piece; it belongs to the device until the promise settles. Text becomes UTF-8.
   * @param controller the controller of a `WritableStream`, whose signal cancels the write when the stream is aborted
   */
  async write(chunk: Data, controller?: object): Promise<void> {
    const signal = this.#signal ?? (controller as { readonly signal?: AbortSignalLike } | undefined)?.signal;
    const bytes = toBytes(chunk);
    const { length } = bytes;
    const position = this.#next;
    if (position !== null) this.#next = position + length;
    await this.#file.write(bytes, { position, signal });
    this.#bytesWritten += length;
  }
}
