/**
 * A connection as its user has it. The non-blocking forms (`try…`) do what is possible now; the synchronous and the asynchronous ones
 * repeat that until it is done, and differ only in how they wait.
 */
import { requireInteger, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
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
 * Reading ends with `0` or `undefined` when the peer has shut down its sending side, or both; it throws `SOCKET_RESET` if the peer ended
 * the connection in another way, as data may be missing then. What was received before can be read first in any case.
 *
 * Streams are read with `read…` and `readChunk…`, seqpacket sockets with `readMessage…`; both are written with `write…`, where each call
 * sends one message of a seqpacket socket.
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

  /** Whether it carries bytes or messages. */
  get type(): 'stream' | 'seqpacket' {
    return this.#connection.isSeqpacket ? 'seqpacket' : 'stream';
  }

  /** Where it is on its way. */
  get phase(): ConnectionPhase {
    this.#port.drain();
    return this.#connection.state.phase;
  }

  /** Why it is over, `undefined` if it is not. */
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

  /** Bytes that the peer has room for, as far as it has told: so many can be sent. */
  get sendCredit(): number {
    this.#port.drain();
    return this.#connection.state.canSend ? this.#connection.credit.free : 0;
  }

  /** Bytes that the peer may still send before some are read. */
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
   * Takes what there is, as much as `into` holds.
   *
   * @returns how many bytes; 0 if there is nothing now, and also at the end, which {@link VsockConnection.atEnd} tells
   * @throws {@link VirtioError} `INVALID_PARAM`, `UNSUPPORTED` for a seqpacket socket; once all is read `SOCKET_RESET`,
   * `SOCKET_PROTOCOL`, `SOCKET_ABORTED`, `SOCKET_REFUSED`, `SOCKET_TIMED_OUT`, `SOCKET_TRANSPORT_RESET`, or why the device no longer works
   */
  tryRead(into: Uint8Array): number {
    return this.#reader.tryRead(into);
  }

  /**
   * Waits until there is something, and takes as much as `into` holds.
   *
   * @returns how many bytes; 0 at the end, or for an empty array
   * @throws {@link VirtioError} as {@link VsockConnection.tryRead} does, `ABORTED`, `UNSUPPORTED` without interrupts
   */
  read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    return this.#reader.read(into, options);
  }

  /** The same as {@link VsockConnection.read}, spinning. Throws also `NOT_READY`. */
  readSync(into: Uint8Array, options?: SpinOptions): number {
    return this.#reader.readSync(into, options);
  }

  /** Takes what there is as a new array, `undefined` if there is nothing now. Throws as {@link VsockConnection.tryRead} does. */
  tryReadChunk(): Uint8Array<ArrayBuffer> | undefined {
    return this.#reader.tryReadChunk();
  }

  /**
   * Waits until there is something, and takes it as a new array of at most 64 KiB, or as a whole message of a seqpacket socket.
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

  /** Takes the next message, if there is a whole one. Throws as {@link VsockConnection.tryRead} does, `UNSUPPORTED` for a stream. */
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

  /** Whether all was read and nothing more can come. Throws if the connection did not end as it should. */
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
   * @returns how many; 0 while another write is under way
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
   * peer's buffer cannot hold it
   */
  tryWriteMessage(bytes: Uint8Array, options?: MessageOptions): boolean {
    return this.#writer.tryWriteMessage(bytes, options);
  }

  /**
   * Sends all bytes, or text as UTF-8, and waits until the device has them. Writes do not mix: each begins when the one before is done,
   * and one that is cancelled before that sends nothing. Do not change the bytes in the meantime.
   *
   * @param options for a seqpacket socket also whether the message ends a record
   * @throws {@link VirtioError} as {@link VsockConnection.tryWrite} and {@link VsockConnection.tryWriteMessage} do, `ABORTED`,
   * `UNSUPPORTED` without interrupts; a part of the bytes may have been sent. A message that was sent in part cannot be finished later,
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

  /** Tells the peer how much room there is. The connection does so by itself when it matters. */
  updateCredit(): void {
    this.#port.drain();
    this.#connection.updateCredit();
  }

  /** Asks the peer how much room it has, unless that was asked and not answered. Writes do so by themselves. */
  requestCredit(): void {
    this.#port.drain();
    this.#connection.askForCredit();
  }

  // The end

  /**
   * Tells the peer at once that this side will not send, or not receive, any more. What was received is dropped in the second case. When
   * both are said, the peer confirms by ending the connection.
   *
   * @param hints bits of {@link VsockShutdown} (default both)
   * @throws {@link VirtioError} `INVALID_PARAM`, `ALREADY_USED` while a write is under way that would be cut
   */
  shutdown(hints: number = VsockShutdown.BOTH): void {
    requireInteger(this.#driver.transport, 'hints', hints, 1, VsockShutdown.BOTH);
    this.#port.drain();
    if ((hints & VsockShutdown.SEND) !== 0 && this.#writer.isBusy) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#connection.name}: a write is under way; wait for it, or use abort()`,
      );
    }
    this.#shutdown(hints);
  }

  /** Tells the peer that this side will not receive any more; what was received is dropped. */
  endReading(): void {
    this.#shutdown(VsockShutdown.RECEIVE);
  }

  /** Waits for all writes, then tells the peer that this side will not send any more. What the peer sends can still be read. */
  async endWriting(): Promise<void> {
    await this.#writer.idle();
    this.#shutdown(VsockShutdown.SEND);
  }

  /**
   * Waits for all writes, tells the peer that this is the end, and waits until it confirms that. What was received and not read is
   * dropped. A peer that does not confirm in the manager's `closeTimeoutMs` is not waited for any longer.
   *
   * @throws {@link VirtioError} `ABORTED`, after which the connection still ends in its time; `UNSUPPORTED` without interrupts
   */
  async close(options?: WaitOptions): Promise<void> {
    const { state, watchers } = this.#connection;
    await this.endWriting();
    this.#shutdown(VsockShutdown.BOTH);
    for (;;) {
      this.#port.drain();
      if (state.phase === 'closed') return;
      await watchers.wait(options);
    }
  }

  /** The same as {@link VsockConnection.close}, spinning. A peer that does not confirm in `timeoutMs` gets an `RST`. */
  closeSync(options?: SpinOptions): void {
    const { state } = this.#connection;
    this.#shutdown(VsockShutdown.BOTH);
    try {
      this.#port.spin(() => state.phase === 'closed', options, 'the end of the connection');
    } catch (error) {
      if (!VirtioError.is(error, 'NOT_READY')) throw error;
      this.#connection.abort('timed-out');
    }
  }

  /** Waits until the connection is over, in whatever way, and tells in which. Throws `ABORTED`, `UNSUPPORTED` without interrupts. */
  async waitForEnd(options?: WaitOptions): Promise<ConnectionEnd> {
    const { state, watchers } = this.#connection;
    for (;;) {
      this.#port.drain();
      if (state.end !== undefined) return state.end;
      await watchers.wait(options);
    }
  }

  /** Ends the connection at once with an `RST`. What was received is dropped; who waits gets `SOCKET_ABORTED`. */
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
   * A Web Stream of what comes in, in chunks or messages. Use it in place of the calls that read.
   *
   * @param ReadableStream the class, which the platform or a library has
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
   * @param WritableStream the class, which the platform or a library has
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
}
