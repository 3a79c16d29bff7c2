/**
 * Web Streams of a connection. Streams are not part of ECMAScript, so the caller passes their classes: those of the platform, or of a
 * library in an engine that has none. The types here describe such a class as far as it is used.
 */
import type { AbortSignalLike, WaitOptions } from '@virtio/core';
import { Cancellation } from './cancellation.ts';

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
  cancel(reason?: unknown): void;
}

/** The class `ReadableStream`, as far as it is needed. */
export type ReadableStreamClass<S> = new (
  source: ChunkSource,
  strategy: { readonly highWaterMark: number },
) => S;

/** The sink of a `WritableStream`. */
export interface ChunkSink {
  /** @param controller may have a `signal`, which aborts when the stream is aborted, even during a write */
  write(chunk: Uint8Array | string, controller: object): Promise<void>;
  close(): Promise<void>;
  abort(reason?: unknown): void;
}

/** The class `WritableStream`, as far as it is needed. */
export type WritableStreamClass<S> = new (sink: ChunkSink) => S;

/** A connection, as far as streams need it. */
export interface Duplex {
  readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined>;
  write(data: Uint8Array | string, options?: WaitOptions): Promise<void>;
  endReading(): void;
  endWriting(): Promise<void>;
  abort(): void;
}

/**
 * Makes a stream of received data. It asks for a chunk only when its reader does (a high water mark of 0), so the peer stops when
 * the reader stops. Cancelling it tells the peer that nothing more will be received.
 */
export function readableOf<S>(connection: Duplex, ReadableStream: ReadableStreamClass<S>): S {
  const cancellation = new Cancellation();
  const source: ChunkSource = {
    async pull(controller) {
      const chunk = await connection.readChunk({ signal: cancellation });
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
    cancel(reason) {
      cancellation.abort(reason);
      connection.endReading();
    },
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}

/**
 * Makes a stream to the peer. A write ends when all of its bytes are available to the device; closing tells the peer that no more
 * will be sent, aborting resets the connection.
 */
export function writableOf<S>(connection: Duplex, WritableStream: WritableStreamClass<S>): S {
  const sink: ChunkSink = {
    write: (chunk, controller) =>
      connection.write(chunk, { signal: (controller as { readonly signal?: AbortSignalLike }).signal }),
    close: () => connection.endWriting(),
    abort: () => connection.abort(),
  };
  return new WritableStream(sink);
}
