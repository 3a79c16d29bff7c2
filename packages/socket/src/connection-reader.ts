/** Reads from a connection: takes received data at once, or waits for some. */
import {
  requireBytes,
  requireWaitable,
  type SpinOptions,
  spinTime,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { ConnectionPort, VsockMessage } from './connection-port.ts';
import type { Connection } from './connection.ts';

/** The largest chunk, in bytes. */
const MAX_CHUNK = 65_536;

/** The reading half of a connection. */
export class ConnectionReader {
  readonly #connection: Connection;
  readonly #port: ConnectionPort;

  constructor(connection: Connection, port: ConnectionPort) {
    this.#connection = connection;
    this.#port = port;
  }

  tryRead(into: Uint8Array): number {
    this.#checkStream(into);
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#take(into) : 0;
  }

  async read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    this.#checkStream(into);
    if (into.length === 0) return 0;
    return this.#whenData(() => this.#takeLate(into), 0, options);
  }

  readSync(into: Uint8Array, options?: SpinOptions): number {
    this.#checkStream(into);
    if (into.length === 0) return 0;
    return this.#whenDataSync(() => this.#takeLate(into), 0, options);
  }

  tryReadChunk(): Uint8Array<ArrayBuffer> | undefined {
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#takeChunk() : undefined;
  }

  async readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#whenData(() => this.#takeChunk(), undefined, options);
  }

  readChunkSync(options?: SpinOptions): Uint8Array<ArrayBuffer> | undefined {
    return this.#whenDataSync(() => this.#takeChunk(), undefined, options);
  }

  tryReadMessage(): VsockMessage | undefined {
    this.#checkMessages();
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#takeMessage() : undefined;
  }

  async readMessage(options?: WaitOptions): Promise<VsockMessage | undefined> {
    this.#checkMessages();
    return this.#whenData(() => this.#takeMessage(), undefined, options);
  }

  readMessageSync(options?: SpinOptions): VsockMessage | undefined {
    this.#checkMessages();
    return this.#whenDataSync(() => this.#takeMessage(), undefined, options);
  }

  get atEnd(): boolean {
    this.#port.drain();
    return this.#connection.readiness === 'end';
  }

  /**
   * Takes data as soon as there is some, or returns `end`. Checking and taking are one step, as another reader may have taken the data
   * that woke this one.
   */
  async #whenData<T, E>(take: () => T, end: E, options: WaitOptions | undefined): Promise<T | E> {
    const connection = this.#connection;
    const turn = this.#port.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no data.
      requireWaitable(connection.transport, options);
      this.#port.drain();
      const { readiness } = connection;
      if (readiness !== 'nothing') return readiness === 'data' ? take() : end;
      await connection.readers.wait(options);
    }
  }

  /** The same, spinning. */
  #whenDataSync<T, E>(take: () => T, end: E, options: SpinOptions | undefined): T | E {
    const connection = this.#connection;
    spinTime(connection.transport, options);
    this.#port.drain();
    if (connection.readiness === 'nothing') {
      this.#port.spin(() => connection.readiness !== 'nothing', options, 'data from the peer');
    }
    return connection.readiness === 'data' ? take() : end;
  }

  /** Takes data for a caller that has waited. */
  #takeLate(into: Uint8Array): number {
    // 0 would say that this is the end.
    if (into.length === 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#connection.name}: the memory to read into was transferred while the call waited; nothing was read`,
      );
    }
    return this.#take(into);
  }

  #take(into: Uint8Array): number {
    const count = this.#connection.buffer.read(into);
    this.#connection.consumed(count);
    return count;
  }

  #takeChunk(): Uint8Array<ArrayBuffer> {
    if (this.#connection.isSeqpacket) return this.#takeMessage().data;
    const chunk = new Uint8Array(Math.min(MAX_CHUNK, this.#connection.buffer.length));
    this.#take(chunk);
    return chunk;
  }

  #takeMessage(): VsockMessage {
    const { length = 0, eor = false } = this.#connection.buffer.takeMessage() ?? {};
    const data = new Uint8Array(length);
    this.#take(data);
    return { data, endOfRecord: eor };
  }

  #checkStream(into: Uint8Array): void {
    requireBytes(this.#connection.transport, into);
    if (!this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries messages; use readMessage and write or tryWriteMessage`,
    );
  }

  #checkMessages(): void {
    if (this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries a byte stream without messages; use read and write`,
    );
  }
}
