/**
 * Connections of `@virtio/socket`, or anything like them, as streams of Node.js, so that `http`, `tls` and every library that
 * takes a socket can use them. The interface of a connection is declared here, so that this package does not depend on
 * `@virtio/socket`.
 */
import { Duplex } from 'node:stream';
import { VirtioError } from '@virtio/core';

/** The longest time that a timer of Node.js can have; with a longer one it would fire at once. */
const MAX_IDLE_MS = 0x7fff_ffff;

/** A connection that carries bytes both ways, such as a `VsockConnection`. */
export interface ByteConnection {
  /** The next bytes, `undefined` at the end. */
  readChunk(options?: { readonly signal?: AbortSignal }): Promise<Uint8Array | undefined>;
  /** Sends all bytes. */
  write(data: Uint8Array, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Tells the peer that no more will be sent, after all bytes were sent. */
  endWriting(): Promise<void>;
  /** Closes the connection, and waits until the peer knows. */
  close(): Promise<void>;
  /** Resets the connection at once. */
  abort(): void;
}

/** Options of {@link toDuplex}. */
export interface DuplexOptions {
  /** Whether this side can go on sending when the peer has ended its side (default false: this side then ends, too). */
  readonly allowHalfOpen?: boolean;
}

/** A duplex stream over a connection, with the methods of sockets that `http` and other libraries call. */
export class ConnectionDuplex extends Duplex {
  readonly #connection: ByteConnection;
  readonly #cancellation = new AbortController();
  #reading = false;
  #readEnded = false;
  #idleMs = 0;
  #idleTimer: NodeJS.Timeout | undefined;

  /** @internal use {@link toDuplex} */
  constructor(connection: ByteConnection, { allowHalfOpen = false }: DuplexOptions) {
    super({ allowHalfOpen });
    this.#connection = connection;
  }

  /**
   * Emits `timeout` each time after so many milliseconds without a byte in either direction; 0 for never. As with other sockets,
   * nothing else happens.
   *
   * @param milliseconds of 2^31 or more, 2^31 − 1, as with other sockets
   * @throws {@link VirtioError} `INVALID_PARAM` unless it is a number of 0 or more
   */
  setTimeout(milliseconds: number, listener?: () => void): this {
    if (!(Number.isFinite(milliseconds) && milliseconds >= 0)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `a stream cannot time out after ${String(milliseconds)} ms; give milliseconds, 0 for never`,
      );
    }
    this.#idleMs = Math.min(milliseconds, MAX_IDLE_MS);
    if (listener !== undefined) {
      if (milliseconds > 0) this.once('timeout', listener);
      else this.off('timeout', listener);
    }
    this.#active();
    return this;
  }

  /** Does nothing: packets are sent as they are written. */
  setNoDelay(): this {
    return this;
  }

  /** Does nothing: the device reports when a connection is gone. */
  setKeepAlive(): this {
    return this;
  }

  /** Does nothing: a stream that is read keeps the event loop alive. */
  ref(): this {
    return this;
  }

  /** Does nothing: a stream that is read keeps the event loop alive. */
  unref(): this {
    return this;
  }

  override _read(): void {
    if (this.#reading || this.#readEnded) return;
    this.#reading = true;
    void this.#fill();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#active();
    this.#settle(this.#connection.write(chunk, { signal: this.#cancellation.signal }), done);
  }

  override _writev(chunks: { readonly chunk: Buffer }[], done: (error?: Error | null) => void): void {
    // Small writes, such as the head of an answer and its body, go together.
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'buffer', done);
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#settle(this.#connection.endWriting(), done);
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#idleTimer);
    this.#cancellation.abort(error ?? undefined);
    if (error === null && this.#readEnded && this.writableFinished) {
      // Both directions have ended: it only remains to tell the peer.
      this.#connection.close().then(() => done(null), done);
      return;
    }
    this.#connection.abort();
    done(error);
  }

  /** Reads until the stream has enough. */
  async #fill(): Promise<void> {
    try {
      for (let wants = true; wants;) {
        const chunk = await this.#connection.readChunk({ signal: this.#cancellation.signal });
        if (this.destroyed) return;
        this.#active();
        if (chunk === undefined) {
          this.#readEnded = true;
          this.push(null);
          return;
        }
        wants = this.push(chunk);
      }
    } catch (error) {
      if (!this.destroyed) this.destroy(error as Error);
    } finally {
      this.#reading = false;
    }
  }

  /** Restarts the time that the stream may be idle. */
  #active(): void {
    clearTimeout(this.#idleTimer);
    if (this.#idleMs <= 0 || this.destroyed) return;
    this.#idleTimer = setTimeout(() => {
      this.emit('timeout');
      this.#active();
    }, this.#idleMs);
    this.#idleTimer.unref();
  }

  #settle(promise: Promise<void>, done: (error?: Error | null) => void): void {
    promise.then(() => done(), done);
  }
}

/**
 * Makes a `Duplex` of Node.js over a connection. It has the back-pressure of the connection; ending it tells the peer that no
 * more will be sent; destroying it before both sides are done resets the connection.
 *
 * @example
 * ```ts
 * import { toDuplex } from '@virtio/linux';
 * import type { VsockConnectionManager } from '@virtio/socket';
 * import { createServer } from 'node:http';
 *
 * export async function serve(sockets: VsockConnectionManager): Promise<void> {
 *   const server = createServer((_request, response) => response.end('hello\n'));
 *   for await (const connection of sockets.listen({ port: 80 })) {
 *     server.emit('connection', toDuplex(connection));
 *   }
 * }
 * ```
 */
export function toDuplex(connection: ByteConnection, options: DuplexOptions = {}): ConnectionDuplex {
  return new ConnectionDuplex(connection, options);
}
