/**
 * A connection as its user has it. The non-blocking forms (`try…`) do what is possible now; the synchronous and the asynchronous ones
 * repeat that until it is done, and differ only in how they wait.
 */
import {
  encodeUtf8,
  requireBytes,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  spinTime,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { Connection, VsockAddress } from './connection.ts';
import type { ConnectionEnd, ConnectionPhase } from './connection-state.ts';
import { VsockHeader, VsockOp, VsockSeqFlags, VsockShutdown } from './protocol.ts';
import { readableOf, type ReadableStreamClass, writableOf, type WritableStreamClass } from './streams.ts';
import type { VirtioSocket } from './virtio-socket.ts';
import { type Waiting, WaitLine } from './wait-line.ts';

/** What a connection needs of its manager. */
export interface ConnectionPort {
  readonly waiting: Waiting;
  drain(): void;
  /** Sends what is due first, so that data keep their place behind it. */
  beforeSend(): void;
  /** Wakes those who write when there is room for packets. */
  awaitRoom(): void;
  spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void;
}

/** A message of a seqpacket socket. */
export interface VsockMessage {
  readonly data: Uint8Array<ArrayBuffer>;
  /** Whether it ends a record. */
  readonly endOfRecord: boolean;
}

/** Options of a message that is sent. */
export interface MessageOptions {
  /** Whether it ends a record (default false). */
  readonly endOfRecord?: boolean;
}

/** The most that one chunk holds, in bytes. */
const MAX_CHUNK = 65_536;

/** A header for all data packets: it is filled and written to memory in one go. */
const HEADER = new VsockHeader();

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
  /** The last write that is under way, so that the bytes of several are not mixed. */
  #writing: Promise<void> = Promise.resolve();
  #writes = 0;

  /** @internal */
  constructor(connection: Connection, driver: VirtioSocket, port: ConnectionPort) {
    this.#connection = connection;
    this.#driver = driver;
    this.#port = port;
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
    requireBytes(this.#driver.transport, into);
    this.#requireStream();
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#take(into) : 0;
  }

  /**
   * Waits until there is something, and takes as much as `into` holds.
   *
   * @returns how many bytes; 0 at the end, or for an empty array
   * @throws {@link VirtioError} as {@link VsockConnection.tryRead} does, `ABORTED`, `UNSUPPORTED` without interrupts
   */
  async read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    requireBytes(this.#driver.transport, into);
    this.#requireStream();
    if (into.length === 0) return 0;
    return this.#whenData(() => this.#take(into), 0, options);
  }

  /** The same as {@link VsockConnection.read}, spinning. Throws also `NOT_READY`. */
  readSync(into: Uint8Array, options?: SpinOptions): number {
    requireBytes(this.#driver.transport, into);
    this.#requireStream();
    if (into.length === 0) return 0;
    return this.#whenDataSync(() => this.#take(into), 0, options);
  }

  /** Takes what there is as a new array, `undefined` if there is nothing now. Throws as {@link VsockConnection.tryRead} does. */
  tryReadChunk(): Uint8Array<ArrayBuffer> | undefined {
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#takeChunk() : undefined;
  }

  /**
   * Waits until there is something, and takes it as a new array of at most 64 KiB, or as a whole message of a seqpacket socket.
   *
   * @returns `undefined` at the end
   * @throws {@link VirtioError} as {@link VsockConnection.read} does
   */
  async readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#whenData(() => this.#takeChunk(), undefined, options);
  }

  /** The same as {@link VsockConnection.readChunk}, spinning. Throws also `NOT_READY`. */
  readChunkSync(options?: SpinOptions): Uint8Array<ArrayBuffer> | undefined {
    return this.#whenDataSync(() => this.#takeChunk(), undefined, options);
  }

  /** Takes the next message, if there is a whole one. Throws as {@link VsockConnection.tryRead} does, `UNSUPPORTED` for a stream. */
  tryReadMessage(): VsockMessage | undefined {
    this.#requireMessages();
    this.#port.drain();
    return this.#connection.readiness === 'data' ? this.#takeMessage() : undefined;
  }

  /** Waits for a message; `undefined` at the end. Throws as {@link VsockConnection.read} does, `UNSUPPORTED` for a stream. */
  async readMessage(options?: WaitOptions): Promise<VsockMessage | undefined> {
    this.#requireMessages();
    return this.#whenData(() => this.#takeMessage(), undefined, options);
  }

  /** The same as {@link VsockConnection.readMessage}, spinning. Throws also `NOT_READY`. */
  readMessageSync(options?: SpinOptions): VsockMessage | undefined {
    this.#requireMessages();
    return this.#whenDataSync(() => this.#takeMessage(), undefined, options);
  }

  /** Whether all was read and nothing more can come. Throws if the connection did not end as it should. */
  get atEnd(): boolean {
    this.#port.drain();
    return this.#connection.readiness === 'end';
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
    requireBytes(this.#driver.transport, bytes);
    this.#requireStream();
    this.#port.drain();
    this.#connection.checkWritable();
    if (this.#writes > 0) return 0;
    const sent = this.#send(bytes, 0, 0);
    if (sent > 0) this.#driver.kick();
    return sent;
  }

  /**
   * Sends a whole message, if there is room for it now, here and at the peer.
   *
   * @returns whether it was sent
   * @throws {@link VirtioError} as {@link VsockConnection.tryWrite} does, `UNSUPPORTED` for a stream, `SOCKET_MESSAGE_TOO_LONG` if the
   * peer's buffer cannot hold it
   */
  tryWriteMessage(bytes: Uint8Array, options?: MessageOptions): boolean {
    requireBytes(this.#driver.transport, bytes);
    this.#requireMessages();
    this.#port.drain();
    const { state, credit } = this.#connection;
    this.#connection.checkWritable();
    if (this.#writes > 0 || state.phase === 'connecting') return false;
    this.#checkMessage(bytes.length);
    if (credit.free < bytes.length) {
      this.#connection.askForCredit();
      return false;
    }
    this.#port.beforeSend();
    if (this.#connection.due !== 0) return false;
    if (this.#driver.room < Math.max(1, Math.ceil(bytes.length / this.#driver.maxData))) return false;
    this.#sendMessage(bytes, 0, options);
    this.#driver.kick();
    return true;
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
    const before = this.#writing;
    const written = this.#writeAll(data, before, options);
    // A write that is cancelled while it waits for its turn ends before those in front of it do.
    this.#writing = written.then(undefined, () => before);
    return written;
  }

  /** The same as {@link VsockConnection.write}, spinning. Throws also `NOT_READY`. */
  writeSync(data: Uint8Array | string, options?: SpinOptions & MessageOptions): void {
    const bytes = this.#bytesOf(data);
    if (this.#writes > 0) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#connection.name}: another write is under way; wait for it, bytes of two must not mix`,
      );
    }
    this.#writes += 1;
    let at = 0;
    try {
      const done = (): boolean => (at = this.#advance(bytes, at, options)) < 0;
      this.#port.spin(done, options, 'room at the peer');
    } catch (error) {
      this.#endPartialMessage(at);
      throw error;
    } finally {
      this.#writes -= 1;
    }
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
    if ((hints & VsockShutdown.SEND) !== 0 && this.#writes > 0) {
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
    await this.#writing.catch(() => undefined);
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

  #requireStream(): void {
    if (!this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries messages; use readMessage and write or tryWriteMessage`,
    );
  }

  #requireMessages(): void {
    if (this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries a stream of bytes without messages; use read and write`,
    );
  }

  /** Takes data as soon as there are some, or returns `end`. Another reader may have taken what woke this one. */
  async #whenData<T, E>(take: () => T, end: E, options: WaitOptions | undefined): Promise<T | E> {
    const connection = this.#connection;
    requireWaitable(this.#driver.transport, options);
    for (;;) {
      this.#port.drain();
      const { readiness } = connection;
      if (readiness !== 'nothing') return readiness === 'data' ? take() : end;
      await connection.readers.wait(options);
    }
  }

  /** The same, spinning. */
  #whenDataSync<T, E>(take: () => T, end: E, options: SpinOptions | undefined): T | E {
    const connection = this.#connection;
    spinTime(connection.name, options);
    this.#port.drain();
    if (connection.readiness === 'nothing') {
      this.#port.spin(() => connection.readiness !== 'nothing', options, 'data of the peer');
    }
    return connection.readiness === 'data' ? take() : end;
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

  #bytesOf(data: Uint8Array | string): Uint8Array {
    if (typeof data === 'string') return encodeUtf8(data);
    requireBytes(this.#driver.transport, data);
    return data;
  }

  async #writeAll(
    data: Uint8Array | string,
    before: Promise<void>,
    options: (WaitOptions & MessageOptions) | undefined,
  ): Promise<void> {
    const bytes = this.#bytesOf(data);
    this.#connection.checkWritable();
    requireWaitable(this.#driver.transport, options);
    const { writers } = this.#connection;
    const isFirst = this.#writes === 0;
    this.#writes += 1;
    let at = 0;
    try {
      if (!isFirst) await this.#turn(before, options);
      for (;;) {
        this.#port.drain();
        const { wakes } = writers;
        at = this.#advance(bytes, at, options);
        if (at < 0) return;
        // The peer may have answered within the call.
        if (writers.wakes === wakes) await writers.wait(options);
      }
    } catch (error) {
      this.#endPartialMessage(at);
      throw error;
    } finally {
      this.#writes -= 1;
    }
  }

  /** Waits for the writes before this one. */
  async #turn(before: Promise<void>, options: WaitOptions | undefined): Promise<void> {
    const line = new WaitLine(this.#port.waiting);
    let isNext = false;
    void before.then(() => {
      isNext = true;
      line.wake();
    });
    while (!isNext) await line.wait(options);
  }

  /** Sends what can be sent of `bytes` from `at` on. Returns where to go on, or -1 if all was sent. */
  #advance(bytes: Uint8Array, at: number, options: MessageOptions | undefined): number {
    const connection = this.#connection;
    connection.checkWritable();
    if (connection.isSeqpacket) {
      if (connection.state.phase === 'connecting') return at;
      if (at === 0) this.#checkMessage(bytes.length);
      const next = this.#sendMessage(bytes, at, options);
      this.#driver.kick();
      return next;
    }
    if (at === bytes.length) return -1;
    const next = at + this.#send(bytes, at, 0);
    if (next > at) this.#driver.kick();
    return next === bytes.length ? -1 : next;
  }

  #checkMessage(length: number): void {
    const { peerBufAlloc } = this.#connection.credit;
    if (length <= peerBufAlloc) return;
    throw new VirtioError(
      'SOCKET_MESSAGE_TOO_LONG',
      `${this.#connection.name}: a message of ${length} bytes does not fit the peer's buffer of ${peerBufAlloc}; send shorter ones`,
    );
  }

  /** Sends packets of bytes from `from` on, as far as there is room here and at the peer. Returns how many bytes. */
  #send(bytes: Uint8Array, from: number, lastFlags: number): number {
    const connection = this.#connection;
    const { credit, state } = connection;
    const driver = this.#driver;
    if (state.phase === 'connecting') return 0;
    this.#port.beforeSend();
    // What is due comes first.
    if (connection.due !== 0) {
      this.#port.awaitRoom();
      return 0;
    }
    let at = from;
    while (at < bytes.length) {
      const length = Math.min(bytes.length - at, credit.free, driver.maxData);
      if (length === 0) {
        connection.askForCredit();
        break;
      }
      const number = driver.takeBuffer();
      if (number < 0) {
        this.#port.awaitRoom();
        break;
      }
      connection.fill(HEADER, VsockOp.RW, at + length === bytes.length ? lastFlags : 0);
      driver.sendBuffer(number, HEADER, bytes, at, length);
      // Counted now that the device has them, not before.
      credit.sent(length);
      at += length;
    }
    return at - from;
  }

  /** Sends what can be sent of a message from `at` on. Returns where to go on, or -1 if all was sent. */
  #sendMessage(bytes: Uint8Array, at: number, options: MessageOptions | undefined): number {
    const flags = VsockSeqFlags.EOM | (options?.endOfRecord === true ? VsockSeqFlags.EOR : 0);
    if (bytes.length > 0) {
      const next = at + this.#send(bytes, at, flags);
      return next === bytes.length ? -1 : next;
    }
    this.#port.beforeSend();
    const number = this.#connection.due === 0 ? this.#driver.takeBuffer() : -1;
    if (number < 0) {
      this.#port.awaitRoom();
      return 0;
    }
    this.#connection.fill(HEADER, VsockOp.RW, flags);
    this.#driver.sendBuffer(number, HEADER, undefined, 0, 0);
    return -1;
  }

  /** A message that was sent in part can never be finished. */
  #endPartialMessage(at: number): void {
    if (at > 0 && this.#connection.isSeqpacket) this.#connection.abort('aborted');
  }

  #shutdown(hints: number): void {
    this.#connection.shutdown(hints);
  }
}
