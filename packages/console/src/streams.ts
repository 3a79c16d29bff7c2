/**
 * Web Streams of a port. Streams are not part of ECMAScript, so the caller passes their classes: those of the platform, or of a
 * library in an engine that has none. The types here describe such a class as far as it is used.
 */
import type { AbortSignalLike, WaitOptions } from '@virtio/core';

/** What a `ReadableStream` gives its source. */
export interface ChunkController {
  /** Hands a chunk to the reader. */
  enqueue(chunk: Uint8Array<ArrayBuffer>): void;
  /** Ends the stream. */
  close(): void;
}

/** What a `ReadableStream` is made from. */
export interface ChunkSource {
  pull(controller: ChunkController): Promise<void>;
  cancel(reason?: unknown): void;
}

/** The class `ReadableStream`, as far as it is needed. */
export type ReadableStreamClass<S> = new (
  source: ChunkSource,
  strategy: { readonly highWaterMark: number },
) => S;

/** What a `WritableStream` is made from. */
export interface ChunkSink {
  /** @param controller may have a `signal` that is aborted when the stream is, even during a write */
  write(chunk: Uint8Array | string, controller: object): Promise<void>;
  close(): Promise<void>;
}

/** The class `WritableStream`, as far as it is needed. */
export type WritableStreamClass<S> = new (sink: ChunkSink) => S;

/** Where chunks come from: a port. */
export interface ChunkReader {
  readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/** Where chunks go: a port. */
export interface ChunkWriter {
  write(data: Uint8Array | string, options?: WaitOptions): Promise<void>;
  flush(options?: WaitOptions): Promise<void>;
}

/** Cancels waits when a stream is cancelled. */
class Cancellation implements AbortSignalLike {
  aborted = false;
  reason: unknown;
  readonly #listeners = new Set<() => void>();

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.delete(listener);
  }

  abort(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
    for (const listener of [...this.#listeners]) listener();
  }
}

/**
 * Makes a stream of what comes in. It asks for a chunk only when its reader does (a high water mark of 0), so a reader that
 * stops makes the far side stop.
 */
export function readableOf<S>(reader: ChunkReader, ReadableStream: ReadableStreamClass<S>): S {
  const cancellation = new Cancellation();
  const source: ChunkSource = {
    async pull(controller) {
      const chunk = await reader.readChunk({ signal: cancellation });
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
    cancel(reason) {
      cancellation.abort(reason);
    },
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}

/** Makes a stream to the far side. A write ends when all of its bytes are available to the device; closing ends when it has used them. */
export function writableOf<S>(writer: ChunkWriter, WritableStream: WritableStreamClass<S>): S {
  const sink: ChunkSink = {
    write: (chunk, controller) =>
      writer.write(chunk, { signal: (controller as { readonly signal?: AbortSignalLike }).signal }),
    close: () => writer.flush(),
  };
  return new WritableStream(sink);
}
