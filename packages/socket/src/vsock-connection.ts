/**
 * The connection object of the caller. The non-blocking forms (`try…`) do what is possible now; the synchronous and the asynchronous
 * forms repeat that until it is done, and differ only in how they wait.
 */
import { requireInteger, type SpinOptions, spinTime, VirtioError, type WaitOptions } from '@virtio/core';
import type { ConnectionPort, MessageOptions, VsockMessage } from './connection-port.ts';
import { ConnectionReader } from './connection-reader.ts';
import type { ConnectionEnd, ConnectionPhase } from './connection-state.ts';
import { ConnectionWriter } from './connection-writer.ts';
import type { Connection, VsockAddress } from './connection.ts';
import { VsockShutdown } from './protocol.ts';
import { readableOf, type ReadableStreamClass, writableOf, type WritableStreamClass } from './streams.ts';
import type { VirtioSocket } from './virtio-socket.ts';

/**
 * A connection. {@link VsockConnectionManager.connect} and {@link VsockListener} make it.
 *
 * Reads return `0` or `undefined` when the peer has shut down its sending side, or both; they throw `SOCKET_RESET` if the peer ended
 * the connection in another way, as data may be missing then. Data received before that can always be read first.
 *
 * Streams are read with `read…` and `readChunk…`, seqpacket sockets with `readMessage…`; both are written with `write…`, of which each
 * call sends one message on a seqpacket socket.
 */
export class VsockConnection implements Disposable, AsyncDisposable, AsyncIterable<Uint8Array<ArrayBuffer>> {
  readonly #connection: Connection;
  readonly #driver: VirtioSocket;
  readonly #port: ConnectionPort;
  readonly #reader: ConnectionReader;
  readonly #writer: ConnectionWriter;

  /** @internal */
  constructor(connection: Connection, driver: VirtioSocket, port: ConnectionPort) {
    this.#connection = connection;
    this.#driver = driver;
    this.#port = port;
    this.#reader = new ConnectionReader(connection, port);
    this.#writer = new ConnectionWriter(connection, driver, port);
  }

  /** The peer's address. */
  get peer(): VsockAddress {
    return this.#connection.peer;
  }

  /** The address on this side. */
  get local(): VsockAddress {
    return { cid: this.#driver.guestCid, port: this.#connection.localPort };
  }

  /** The port on this side. */
  get localPort(): number {
    return this.#connection.localPort;
  }

  /** The type of the socket: a byte stream, or messages. */
  get type(): 'stream' | 'seqpacket' {
    return this.#connection.isSeqpacket ? 'seqpacket' : 'stream';
  }

  /** The phase of the connection. */
  get phase(): ConnectionPhase {
    this.#port.drain();
    return this.#connection.state.phase;
  }

  /** Why the connection is over, or `undefined` if it is not. */
  get end(): ConnectionEnd | undefined {
    this.#port.drain();
    return this.#connection.state.end;
  }

  /** Whether the connection is established. */
  get isEstablished(): boolean {
    return this.phase === 'established';
  }

  /** Bytes that can be read without waiting. */
  get available(): number {
    this.#port.drain();
    return this.#connection.buffer.length;
  }

  /** Messages that can be read without waiting. */
  get availableMessages(): number {
    this.#port.drain();
    return this.#connection.buffer.messages;
  }

  /** The bytes that can be sent now: the room that the peer has reported. */
  get sendCredit(): number {
    this.#port.drain();
    return this.#connection.state.canSend ? this.#connection.credit.free : 0;
  }

  /** The bytes that the peer may still send before this side reads some. */
  get receiveCredit(): number {
    return this.#connection.receiveCredit.free;
  }

  /** What this side and the peer have shut down: bits of {@link VsockShutdown}. */
  get shutdowns(): { readonly local: number; readonly peer: number } {
    const { localShutdown: local, peerShutdown: peer } = this.#connection.state;
    return { local, peer };
  }

  // Reading

  /**
   * Reads what was received, as much as `into` holds.
   *
   * @returns the number of bytes; 0 if there is nothing now, and also at the end: see {@link VsockConnection.atEnd}
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED` for a seqpacket socket; once all is read `SOCKET_RESET`,
   * `SOCKET_PROTOCOL`, `SOCKET_ABORTED`, `SOCKET_REFUSED`, `SOCKET_TIMED_OUT`, `SOCKET_TRANSPORT_RESET`, or why the device no longer works
   */
  tryRead(into: Uint8Array): number {
    return this.#reader.tryRead(into);
  }

  /**
   * Waits until there is data, and reads as much as `into` holds.
   *
   * @returns the number of bytes; 0 at the end, or for an empty array
   * @throws {@link VirtioError} as {@link VsockConnection.tryRead} does, `ABORTED`, `UNSUPPORTED` without interrupts
   */
  read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    return this.#reader.read(into, options);
  }

  /** The same as {@link VsockConnection.read}, spinning. Throws also `NOT_READY`. */
  readSync(into: Uint8Array, options?: SpinOptions): number {
    return this.#reader.readSync(into, options);
  }

  /** Reads what was received into a new array; `undefined` if there is nothing now. Throws as {@link VsockConnection.tryRead} does. */
  tryReadChunk(): Uint8Array<ArrayBuffer> | undefined {
    return this.#reader.tryReadChunk();
  }

  /**
   * Waits until there is data, and reads it into a new array of at most 64 KiB; on a seqpacket socket, a whole message.
   *
   * @returns `undefined` at the end
   * @throws {@link VirtioError} as {@link VsockConnection.read} does
   */
  readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#reader.readChunk(options);
  }

  /** The same as {@link VsockConnection.readChunk}, spinning. Throws also `NOT_READY`. */
  readChunkSync(options?: SpinOptions): Uint8Array<ArrayBuffer> | undefined {
    return this.#reader.readChunkSync(options);
  }

  /** Reads the next message, if it is complete. Throws as {@link VsockConnection.tryRead} does, `UNSUPPORTED` for a stream. */
  tryReadMessage(): VsockMessage | undefined {
    return this.#reader.tryReadMessage();
  }

  /** Waits for a message; `undefined` at the end. Throws as {@link VsockConnection.read} does, `UNSUPPORTED` for a stream. */
  readMessage(options?: WaitOptions): Promise<VsockMessage | undefined> {
    return this.#reader.readMessage(options);
  }

  /** The same as {@link VsockConnection.readMessage}, spinning. Throws also `NOT_READY`. */
  readMessageSync(options?: SpinOptions): VsockMessage | undefined {
    return this.#reader.readMessageSync(options);
  }

  /** Whether all was read and nothing more can come. Throws if the connection did not end cleanly. */
  get atEnd(): boolean {
    return this.#reader.atEnd;
  }

  /** All chunks, or messages, to the end. */
  async *chunks(options?: WaitOptions): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
    for (;;) {
      const chunk = await this.readChunk(options);
      if (chunk === undefined) return;
      yield chunk;
    }
  }

  /** The same as {@link VsockConnection.chunks}. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
    return this.chunks();
  }

  // Writing

  /**
   * Sends as many bytes as there is room for now, here and at the peer. They are copied.
   *
   * @returns how many; 0 while another write is pending
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED` for a seqpacket socket, `SOCKET_SHUTDOWN` if one side has shut this
   * direction down, and what {@link VsockConnection.tryRead} throws
   */
  tryWrite(bytes: Uint8Array): number {
    return this.#writer.tryWrite(bytes);
  }

  /**
   * Sends a whole message, if there is room for it now, here and at the peer.
   *
   * @returns whether it was sent
   * @throws {@link VirtioError} as {@link VsockConnection.tryWrite} does, `UNSUPPORTED` for a stream, `SOCKET_MESSAGE_TOO_LONG` if the
   * peer's buffer cannot hold it, or the transmit buffers of the device cannot hold it at once
   */
  tryWriteMessage(bytes: Uint8Array, options?: MessageOptions): boolean {
    return this.#writer.tryWriteMessage(bytes, options);
  }

  /**
   * Sends all bytes, or text as UTF-8, and waits until they are available to the device. Writes do not mix: each begins when the previous
   * one ends, and one that is cancelled before that sends nothing. Do not change the bytes in the meantime.
   *
   * @param options for a seqpacket socket also whether the message ends a record
   * @throws {@link VirtioError} as {@link VsockConnection.tryWrite} and {@link VsockConnection.tryWriteMessage} do, `ABORTED`,
   * `UNSUPPORTED` without interrupts; some of the bytes may have been sent. A message that was sent in part cannot be finished later,
   * so the connection is aborted then.
   */
  write(data: Uint8Array | string, options?: WaitOptions & MessageOptions): Promise<void> {
    return this.#writer.write(data, options);
  }

  /** The same as {@link VsockConnection.write}, spinning. Throws also `NOT_READY`. */
  writeSync(data: Uint8Array | string, options?: SpinOptions & MessageOptions): void {
    this.#writer.writeSync(data, options);
  }

  // Credit

  /** Sends the peer a `CREDIT_UPDATE`. The connection does this itself when necessary. */
  updateCredit(): void {
    this.#port.drain();
    this.#connection.updateCredit();
  }

  /** Sends the peer a `CREDIT_REQUEST`, unless one is unanswered. Writes do this themselves. */
  requestCredit(): void {
    this.#port.drain();
    this.#connection.askForCredit();
  }

  // The end

  /**
   * Tells the peer at once that this side will not send, or not receive, any more. In the second case, received data is dropped. After both,
   * the peer confirms by ending the connection.
   *
   * @param hints bits of {@link VsockShutdown} (default both)
   * @throws {@link VirtioError} `INVALID_PARAM`, `ALREADY_USED` if that would cut off a pending write
   */
  shutdown(hints: number = VsockShutdown.BOTH): void {
    requireInteger(this.#driver.transport, 'hints', hints, 1, VsockShutdown.BOTH);
    this.#port.drain();
    if ((hints & VsockShutdown.SEND) !== 0) this.#checkIdle();
    this.#shutdown(hints);
  }

  /** Tells the peer that this side will not receive any more; received data is dropped. */
  endReading(): void {
    this.#shutdown(VsockShutdown.RECEIVE);
  }

  /**
   * Waits until the connection is established and for all writes, then tells the peer that this side will not send any more. What the peer
   * sends can still be read.
   */
  async endWriting(): Promise<void> {
    const { state, watchers } = this.#connection;
    await this.#writer.idle();
    for (;;) {
      this.#port.drain();
      if (state.phase !== 'connecting') break;
      await watchers.wait();
    }
    this.#shutdown(VsockShutdown.SEND);
  }

  /**
   * Waits for all writes, shuts down both directions, and waits until the peer confirms that. Data that was received and not read is
   * dropped. If the peer does not confirm within the manager's `closeTimeoutMs`, the connection is reset.
   *
   * @throws {@link VirtioError} `ABORTED`, after which the connection still ends by itself; `UNSUPPORTED` without interrupts
   */
  async close(options?: WaitOptions): Promise<void> {
    const { state, watchers } = this.#connection;
    const shutdown = (): void => {
      this.#shutdown(VsockShutdown.SEND);
      this.#shutdown(VsockShutdown.BOTH);
    };
    try {
      await this.#writer.idle(options);
    } catch (error) {
      // The peer may be slow, and the caller has no more time for it.
      void this.#writer.idle().then(shutdown, () => undefined);
      throw error;
    }
    shutdown();
    for (;;) {
      this.#port.drain();
      if (state.phase === 'closed') return;
      await watchers.wait(options);
    }
  }

  /**
   * The same as {@link VsockConnection.close}, spinning. If the peer does not confirm within `timeoutMs`, the connection is reset.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`; `ALREADY_USED` if a promise of a write is pending, which cannot go on while this spins
   */
  closeSync(options?: SpinOptions): void {
    const { state } = this.#connection;
    spinTime(this.#driver.transport, options);
    this.#port.drain();
    this.#checkIdle();
    this.#shutdown(VsockShutdown.BOTH);
    try {
      this.#port.spin(() => state.phase === 'closed', options, 'the end of the connection');
    } catch (error) {
      if (!VirtioError.is(error, 'NOT_READY')) throw error;
      this.#connection.abort('timed-out');
    }
  }

  /** Waits until the connection is over, and returns why. Throws `ABORTED`, `UNSUPPORTED` without interrupts. */
  async waitForEnd(options?: WaitOptions): Promise<ConnectionEnd> {
    const { state, watchers } = this.#connection;
    for (;;) {
      this.#port.drain();
      if (state.end !== undefined) return state.end;
      await watchers.wait(options);
    }
  }

  /** Ends the connection at once with an `RST`. Received data is dropped; calls that wait throw `SOCKET_ABORTED`. */
  abort(): void {
    this.#connection.abort('aborted');
  }

  /** The same as {@link VsockConnection.abort}; does nothing if the connection is over. */
  [Symbol.dispose](): void {
    this.abort();
  }

  /** The same as {@link VsockConnection.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  // Web Streams

  /**
   * A Web Stream of received data, in chunks or messages. Use it instead of the calls that read.
   *
   * @param ReadableStream the class of the platform, or of a library
   *
   * @example
   * ```ts
   * import type { VsockConnection } from '@virtio/socket';
   *
   * export const text = (connection: VsockConnection): ReadableStream<string> =>
   *   connection.readable(ReadableStream<Uint8Array<ArrayBuffer>>).pipeThrough(new TextDecoderStream());
   * ```
   */
  readable<S>(ReadableStream: ReadableStreamClass<S>): S {
    return readableOf(this, ReadableStream);
  }

  /**
   * A Web Stream to the peer: of bytes, or of text. Closing it leaves the other direction open.
   *
   * @param WritableStream the class of the platform, or of a library
   */
  writable<S>(WritableStream: WritableStreamClass<S>): S {
    return writableOf(this, WritableStream);
  }

  /** @internal Whether it ended and has nothing to read. */
  get isVoid(): boolean {
    const { state, buffer } = this.#connection;
    return state.phase === 'closed' && buffer.length === 0 && buffer.messages === 0;
  }

  #shutdown(hints: number): void {
    this.#connection.shutdown(hints);
  }

  #checkIdle(): void {
    if (!this.#writer.isBusy) return;
    throw new VirtioError(
      'ALREADY_USED',
      `${this.#connection.name}: a write is pending; wait for it, or use abort()`,
    );
  }
}
