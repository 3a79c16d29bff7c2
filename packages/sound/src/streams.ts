/**
 * Web Streams of PCM streams. Streams are not part of ECMAScript, so the caller passes their classes: those of the platform, or of a
 * library in an engine that has none. The types here describe such a class as far as it is used.
 */
import { type AbortSignalLike, VirtioError, type WaitOptions } from '@virtio/core';
import type { PcmFormatName } from './formats.ts';
import { bytesFor, wholeFrameBytes } from './pcm-data.ts';
import type { PcmData } from './samples.ts';

/** The controller that a `ReadableStream` passes to its source. */
export interface ChunkController {
  /** Hands a chunk to the reader. */
  enqueue(chunk: Uint8Array<ArrayBuffer>): void;
  /** Ends the stream. */
  close(): void;
}

/** The source of a `ReadableStream`. */
export interface ChunkSource {
  pull(controller: ChunkController): Promise<void>;
  cancel(reason?: unknown): Promise<void>;
}

/** The class `ReadableStream`, as far as it is needed. */
export type ReadableStreamClass<S> = new (
  source: ChunkSource,
  strategy: { readonly highWaterMark: number },
) => S;

/** The sink of a `WritableStream`. */
export interface ChunkSink {
  /** @param controller may have a `signal`, which aborts when the stream is aborted, even during a write or the end */
  start(controller: object): void;
  write(chunk: PcmData): Promise<void>;
  close(): Promise<void>;
  abort(reason?: unknown): Promise<void>;
}

/** The class `WritableStream`, as far as it is needed. */
export type WritableStreamClass<S> = new (sink: ChunkSink) => S;

/** Where chunks come from: a capture. */
export interface ChunkReader {
  readonly parameters: { readonly periodBytes: number };
  readonly closed: boolean;
  read(into: Uint8Array, options?: WaitOptions): Promise<number>;
  stop(): Promise<void>;
}

/** Where chunks go: a playback. */
export interface ChunkWriter {
  readonly parameters: { readonly format: PcmFormatName };
  readonly frameBytes: number;
  readonly closed: boolean;
  write(data: Uint8Array, options?: WaitOptions): Promise<void>;
  drain(options?: WaitOptions): Promise<void>;
  stop(): Promise<void>;
}

/** Makes a stream of captured frames. It asks for a period only when its reader does (a high water mark of 0). */
export function readableOf<S>(reader: ChunkReader, ReadableStream: ReadableStreamClass<S>): S {
  const source: ChunkSource = {
    async pull(controller) {
      const chunk = new Uint8Array(reader.parameters.periodBytes);
      const count = await reader.read(chunk);
      if (count === 0) controller.close();
      else controller.enqueue(count === chunk.length ? chunk : chunk.slice(0, count));
    },
    async cancel() {
      // A pull that waits ends with the stream.
      if (!reader.closed) await reader.stop();
    },
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}

/** Makes a stream to play. A write ends when all of its bytes are in the buffer; closing ends when the device has played them. */
export function writableOf<S>(writer: ChunkWriter, WritableStream: WritableStreamClass<S>): S {
  // A chunk may end in the middle of a frame.
  let rest: Uint8Array = new Uint8Array(0);
  const unit = wholeFrameBytes(writer.frameBytes);
  let signal: AbortSignalLike | undefined;
  const stop = async (): Promise<void> => {
    if (!writer.closed) await writer.stop();
  };
  const sink: ChunkSink = {
    start(controller) {
      ({ signal } = controller as { readonly signal?: AbortSignalLike });
    },
    write: async (chunk) => {
      const bytes = bytesFor('a chunk of the stream', writer.parameters.format, chunk);
      let joined = bytes;
      if (rest.length > 0) {
        joined = new Uint8Array(rest.length + bytes.length);
        joined.set(rest);
        joined.set(bytes, rest.length);
      }
      const whole = joined.length - (joined.length % unit);
      // Not `slice`: that of Node's `Buffer` copies nothing, and the chunk is its writer's.
      rest = Uint8Array.from(joined.subarray(whole));
      if (whole > 0) await writer.write(joined.subarray(0, whole), { signal });
    },
    close: async () => {
      try {
        await writer.drain({ signal });
      } catch (error) {
        // A stream that is aborted while it ends does not call `abort`.
        if (signal?.aborted === true) await stop();
        throw error;
      }
      if (rest.length === 0) return;
      throw new VirtioError(
        'INVALID_PARAM',
        `the stream ended with ${rest.length} bytes of a frame of ${writer.frameBytes}; they were not played`,
      );
    },
    abort: stop,
  };
  return new WritableStream(sink);
}
