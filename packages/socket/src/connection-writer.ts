/**
 * Writes to a connection, in packets as large as there is room here and at the peer. Writes run one after the other, so that their bytes
 * are not mixed.
 */
import {
  encodeUtf8,
  requireBytes,
  requireWaitable,
  type SpinOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { ConnectionPort, MessageOptions } from './connection-port.ts';
import type { Connection } from './connection.ts';
import { VsockHeader, VsockOp, VsockSeqFlags } from './protocol.ts';
import type { VirtioSocket } from './virtio-socket.ts';
import { WaitLine } from './wait-line.ts';

/** One header for all data packets: it is filled and encoded at once. */
const HEADER = new VsockHeader();

/** The writing half of a connection. */
export class ConnectionWriter {
  readonly #connection: Connection;
  readonly #driver: VirtioSocket;
  readonly #port: ConnectionPort;
  /** The last of the pending writes. */
  #writing: Promise<void> = Promise.resolve();
  #writes = 0;

  constructor(connection: Connection, driver: VirtioSocket, port: ConnectionPort) {
    this.#connection = connection;
    this.#driver = driver;
    this.#port = port;
  }

  /** Whether a write is pending. */
  get isBusy(): boolean {
    return this.#writes > 0;
  }

  /** Waits for all writes, however they end. */
  async idle(options?: WaitOptions): Promise<void> {
    if (this.isBusy) await this.#turn(this.#writing, options);
  }

  tryWrite(bytes: Uint8Array): number {
    this.#checkStream(bytes);
    this.#port.drain();
    this.#connection.checkWritable();
    if (this.#writes > 0) return 0;
    const sent = this.#send(bytes, 0, 0);
    if (sent > 0) this.#driver.kick();
    return sent;
  }

  tryWriteMessage(bytes: Uint8Array, options?: MessageOptions): boolean {
    this.#checkMessages(bytes);
    this.#port.drain();
    const { state, credit } = this.#connection;
    this.#connection.checkWritable();
    if (this.#writes > 0 || state.phase === 'connecting') return false;
    this.#checkMessage(bytes.length);
    const packets = Math.max(1, Math.ceil(bytes.length / this.#driver.maxData));
    if (packets > this.#driver.mostRoom) {
      throw new VirtioError(
        'SOCKET_MESSAGE_TOO_LONG',
        `${this.#connection.name}: a message of ${bytes.length} bytes takes ${packets} packets, and ${this.#driver.mostRoom} can be ` +
          'sent at once; use write or writeSync, which wait for room',
      );
    }
    if (credit.free < bytes.length) {
      this.#connection.askForCredit();
      return false;
    }
    this.#port.beforeSend();
    if (this.#connection.due !== 0) return false;
    if (this.#driver.room < packets) return false;
    this.#sendMessage(bytes, 0, options);
    this.#driver.kick();
    return true;
  }

  write(data: Uint8Array | string, options?: WaitOptions & MessageOptions): Promise<void> {
    const before = this.#writing;
    const written = this.#writeAll(data, before, options);
    // A write that is cancelled while it waits for its turn ends before those in front of it do.
    this.#writing = written.then(undefined, () => before);
    return written;
  }

  writeSync(data: Uint8Array | string, options?: SpinOptions & MessageOptions): void {
    const bytes = this.#bytesOf(data);
    if (this.#writes > 0) {
      throw new VirtioError(
        'ALREADY_USED',
        `${this.#connection.name}: another write is pending; wait for it first, so that their bytes do not mix`,
      );
    }
    this.#writes += 1;
    const { length } = bytes;
    let at = 0;
    try {
      const done = (): boolean => (at = this.#advance(bytes, length, at, options)) < 0;
      this.#port.spin(done, options, 'room for data at the peer');
    } catch (error) {
      this.#endPartialMessage(at);
      throw error;
    } finally {
      this.#writes -= 1;
    }
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
    const { length } = bytes;
    let at = 0;
    try {
      if (!isFirst) await this.#turn(before, options);
      for (;;) {
        this.#port.drain();
        const { wakes } = writers;
        at = this.#advance(bytes, length, at, options);
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

  /** Waits for the writes until then. */
  async #turn(before: Promise<void>, options: WaitOptions | undefined): Promise<void> {
    const line = new WaitLine(this.#port.waiting);
    let isNext = false;
    void before.then(() => {
      isNext = true;
      line.wake();
    });
    while (!isNext) await line.wait(options);
  }

  /** Sends what can be sent of `length` bytes from `at` on. Returns where to continue, or -1 if all was sent. */
  #advance(bytes: Uint8Array, length: number, at: number, options: MessageOptions | undefined): number {
    const connection = this.#connection;
    connection.checkWritable();
    if (bytes.length !== length) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${connection.name}: the array had ${length} bytes when the write began, and has ${bytes.length} now; do not change it ` +
          'before the write ends',
      );
    }
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
    connection.checkWritable();
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
      const number = this.#takeBuffer();
      if (number < 0) break;
      connection.fill(HEADER, VsockOp.RW, at + length === bytes.length ? lastFlags : 0);
      driver.sendBuffer(number, HEADER, bytes, at, length);
      // Counted now that the device has them, not before.
      credit.sent(length);
      at += length;
    }
    return at - from;
  }

  /** Sends what can be sent of a message from `at` on. Returns where to continue, or -1 if all was sent. */
  #sendMessage(bytes: Uint8Array, at: number, options: MessageOptions | undefined): number {
    const flags = VsockSeqFlags.EOM | (options?.endOfRecord === true ? VsockSeqFlags.EOR : 0);
    if (bytes.length > 0) {
      const next = at + this.#send(bytes, at, flags);
      return next === bytes.length ? -1 : next;
    }
    this.#port.beforeSend();
    this.#connection.checkWritable();
    if (this.#connection.due !== 0) {
      this.#port.awaitRoom();
      return 0;
    }
    const number = this.#takeBuffer();
    if (number < 0) return 0;
    this.#connection.fill(HEADER, VsockOp.RW, flags);
    this.#driver.sendBuffer(number, HEADER, undefined, 0, 0);
    return -1;
  }

  /** Takes a transmit buffer; if there is none, writers are woken when there is one, and -1 is returned. */
  #takeBuffer(): number {
    const number = this.#driver.takeBuffer();
    if (number >= 0) return number;
    // The device may have failed, and ended the connection.
    this.#connection.checkWritable();
    this.#port.awaitRoom();
    return -1;
  }

  /** A message that was sent in part can never be finished. */
  #endPartialMessage(at: number): void {
    if (at > 0 && this.#connection.isSeqpacket) this.#connection.abort('aborted');
  }

  #checkStream(bytes: Uint8Array): void {
    requireBytes(this.#connection.transport, bytes);
    if (!this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries messages; use readMessage and write or tryWriteMessage`,
    );
  }

  #checkMessages(bytes: Uint8Array): void {
    requireBytes(this.#connection.transport, bytes);
    if (this.#connection.isSeqpacket) return;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.#connection.name} carries a byte stream without messages; use read and write`,
    );
  }
}
