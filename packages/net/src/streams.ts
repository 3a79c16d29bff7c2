/**
 * Web Streams of packets. Streams are not part of ECMAScript, so the caller passes their classes: those of the platform, or of a library
 * in an engine that has none. The types here describe such a class as far as it is used.
 */
import type { AbortSignalLike, WaitOptions } from '@virtio/core';
import type { ReceivedPacket } from './received-packet.ts';

/** The controller that a `ReadableStream` passes to its source. */
export interface FrameController {
  /** Hands a packet to the reader. */
  enqueue(frame: Uint8Array<ArrayBuffer>): void;
}

/** The source of a `ReadableStream`. */
export interface FrameSource {
  pull(controller: FrameController): Promise<void>;
  cancel(reason?: unknown): void;
}

/** The class `ReadableStream`, as far as it is needed. */
export type ReadableStreamClass<S> = new (
  source: FrameSource,
  strategy: { readonly highWaterMark: number },
) => S;

/** The sink of a `WritableStream`. */
export interface FrameSink {
  /** @param controller may have a `signal`, which aborts when the stream is aborted, even during a write or the end */
  start(controller: object): void;
  write(frame: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** The class `WritableStream`, as far as it is needed. */
export type WritableStreamClass<S> = new (sink: FrameSink) => S;

/** Where packets come from and go to: a driver. */
export interface FramePort {
  receive(options?: WaitOptions): Promise<ReceivedPacket>;
  tryReceive(): ReceivedPacket | undefined;
  send(frame: Uint8Array, options?: WaitOptions): Promise<void>;
  flush(options?: WaitOptions): Promise<void>;
}

/** How many packets are handed on at once, if so many are there. */
const BATCH = 32;

/** Cancels waits. */
export class Cancellation implements AbortSignalLike {
  aborted = false;
  reason: unknown;
  readonly #listeners = new Set<() => void>();

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners.delete(listener);
  }

  abort(reason?: unknown): void {
    this.aborted = true;
    this.reason = reason;
    for (const listener of [...this.#listeners]) listener();
  }
}

/**
 * Makes a stream of received packets, each chunk a copy of one packet. It asks for packets only when its reader does, so a reader
 * that stops leaves them with the device.
 */
export function readableOf<S>(port: FramePort, ReadableStream: ReadableStreamClass<S>): S {
  const cancellation = new Cancellation();
  const source: FrameSource = {
    async pull(controller) {
      let packet: ReceivedPacket | undefined = await port.receive({ signal: cancellation });
      for (let count = 0; packet !== undefined; count += 1) {
        try {
          controller.enqueue(packet.copy());
        } finally {
          packet.release();
        }
        packet = count < BATCH - 1 ? port.tryReceive() : undefined;
      }
    },
    cancel(reason) {
      cancellation.abort(reason);
    },
  };
  return new ReadableStream(source, { highWaterMark: 0 });
}

/** Makes a stream that sends packets. A write ends when there was room for the packet; closing ends when the device has used all of them. */
export function writableOf<S>(port: FramePort, WritableStream: WritableStreamClass<S>): S {
  let signal: AbortSignalLike | undefined;
  return new WritableStream({
    start(controller) {
      ({ signal } = controller as { readonly signal?: AbortSignalLike });
    },
    write: (frame) => port.send(frame, { signal }),
    close: () => port.flush({ signal }),
  });
}
