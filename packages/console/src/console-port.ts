/**
 * One port: a stream of bytes in each direction, in three forms. The non-blocking ones (`try…`, `recv`) do what is possible
 * now; the synchronous and the asynchronous ones repeat that until it is done, and differ only in how they wait.
 */
import {
  encodeUtf8,
  requireBytes,
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { PortSlot } from './port-slot.ts';
import type { Receiver } from './receiver.ts';
import { readableOf, type ReadableStreamClass, writableOf, type WritableStreamClass } from './streams.ts';

/** The size of a console in characters. */
export interface ConsoleSize {
  /** Characters of a line. */
  readonly columns: number;
  /** Lines. */
  readonly rows: number;
}

/** The state of a port; the driver changes it as messages arrive. */
export interface PortState {
  name: string | undefined;
  isConsole: boolean;
  hostOpen: boolean;
  open: boolean;
  size: ConsoleSize | undefined;
  removed: boolean;
}

/** What a port needs from its driver. */
export interface PortHost {
  /** Why the device no longer works, or `undefined`. */
  failure(): VirtioError | undefined;
  /** The transport, for messages. */
  readonly transport: Transport;
  /** Takes control messages that have arrived. */
  look(): void;
  /** Tells the device whether the port is open on this side. */
  announceOpen(port: ConsolePort, open: boolean): void;
}

/** The largest chunk, in bytes. */
const MAX_CHUNK = 65536;

/**
 * A port of a console device.
 *
 * Reading: the data that the far side sent before it closed the port is a session. At its end, `read` returns 0 and `readLine` and
 * `readChunk` return `undefined` once; the next call waits for the next session. A device with only one port has no sessions, and
 * neither has a console.
 *
 * Writing: bytes that are written while the far side is closed would be lost, so writes wait until it is open; but not on a console,
 * which must be usable at any time.
 *
 * @example
 * ```ts
 * import type { ConsolePort } from '@virtio/console';
 *
 * export async function echo(port: ConsolePort): Promise<void> {
 *   using open = port.open();
 *   for await (const line of open.lines()) await port.write(`you said: ${line}\n`);
 * }
 * ```
 *
 * @see VIRTIO 1.4, 5.3.6
 */
export class ConsolePort implements Disposable, AsyncIterable<Uint8Array<ArrayBuffer>> {
  /** The number of the port. */
  readonly id: number;

  readonly #host: PortHost;
  readonly #slot: PortSlot;
  readonly #state: Readonly<PortState>;
  readonly #receiver: Receiver;
  /** The pending writes, oldest first, so that their bytes are not mixed. */
  readonly #writes: object[] = [];
  /** This side was open once, and was closed. */
  #closed = false;

  /** @internal ports come from {@link VirtioConsole} */
  constructor(host: PortHost, slot: PortSlot, state: PortState, receiver: Receiver) {
    this.id = slot.id;
    this.#host = host;
    this.#slot = slot;
    this.#state = state;
    this.#receiver = receiver;
  }

  /** The name that the device gave the port; it may come a moment after the port itself. */
  get name(): string | undefined {
    return this.#state.name;
  }

  /** Whether the port is a console rather than a generic serial port. */
  get isConsole(): boolean {
    return this.#state.isConsole;
  }

  /** The size of the console, if the device has reported it. */
  get size(): ConsoleSize | undefined {
    return this.#state.size;
  }

  /** Whether a program of the host has the far side open. Always true for a device with only one port, which cannot report it. */
  get hostOpen(): boolean {
    return this.#state.hostOpen;
  }

  /** Whether this side is open: by {@link ConsolePort.open}, or from the start for a console. */
  get isOpen(): boolean {
    return this.#state.open;
  }

  /** Whether the device has removed the port. What was received before can still be read. */
  get removed(): boolean {
    return this.#state.removed;
  }

  /** How many bytes can be read without waiting. */
  get available(): number {
    this.#drainReceiver();
    return this.#receiver.available;
  }

  /** Whether the device has used all written bytes. */
  get flushed(): boolean {
    this.#drainTransmitter();
    return this.#slot.transmit.idle;
  }

  /**
   * Opens this side and tells the device, which then lets its far side send.
   *
   * @returns the port, for `using`: disposing closes it
   * @throws {@link VirtioError} `DEVICE_REMOVED`, or why the device no longer works
   */
  open(): this {
    this.#checkPresent();
    if (this.#state.open) return this;
    if (this.#closed) {
      // What the device had sent when it learned that the port was closed is not for whoever opens it now.
      this.#drop();
      this.#closed = false;
    }
    this.#host.announceOpen(this, true);
    return this;
  }

  /** Closes this side and tells the device. Data that was received and not read is dropped; calls that wait throw `NOT_READY`. */
  close(): void {
    if (!this.#state.open || this.#state.removed || this.#host.failure() !== undefined) return;
    this.#closed = true;
    this.#host.announceOpen(this, false);
    // A listener may have opened it again: what came since then is not dropped.
    if (!this.isOpen) this.#drop();
    this.#slot.wake();
  }

  /** The same as {@link ConsolePort.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Waits until a program of the host has the far side open. Throws as {@link ConsolePort.read} does. */
  async waitForHost(options?: WaitOptions): Promise<void> {
    while (!this.#may(options, this.#hasHost)) await this.#slot.receive.wait(options);
  }

  /** Spins until a program of the host has the far side open. Throws as {@link ConsolePort.readSync} does. */
  waitForHostSync(options?: SpinOptions): void {
    this.#spin(this.#hasHost, options, 'a program at the far side');
  }

  /**
   * The next byte, if there is one.
   *
   * @param pop whether to take it (default), or to leave it
   * @returns the byte, or -1
   * @throws {@link VirtioError} why nothing more will come, once everything was read
   */
  recv(pop = true): number {
    if (!this.#look()) return -1;
    const byte = this.#receiver.peek();
    if (pop && byte >= 0) this.#receiver.skip(1);
    return byte;
  }

  /**
   * Copies received bytes, as many as `into` holds, and leaves them for {@link ConsolePort.skip} or any other read.
   *
   * @returns how many bytes: 0 if there is nothing now, and never more than the driver keeps (`readAhead`)
   * @throws {@link VirtioError} as {@link ConsolePort.tryRead} does
   */
  peek(into: Uint8Array): number {
    requireBytes(this.#host.transport, into);
    return this.#look() ? this.#receiver.copy(into) : 0;
  }

  /**
   * Drops received bytes.
   *
   * @returns how many: all that there are if there are fewer than `count`
   * @throws {@link VirtioError} as {@link ConsolePort.tryRead} does
   */
  skip(count: number): number {
    requireInteger(this.#host.transport, 'count', count, 0, Number.MAX_SAFE_INTEGER);
    return this.#look() ? this.#receiver.skip(count) : 0;
  }

  /**
   * Reads received bytes, as many as `into` holds.
   *
   * @returns how many bytes: 0 if there is nothing now
   * @throws {@link VirtioError} why nothing more will come, once everything was read
   */
  tryRead(into: Uint8Array): number {
    requireBytes(this.#host.transport, into);
    return this.#look() ? this.#take(into) : 0;
  }

  /** Reads received bytes into a new array; `undefined` if there are none now. Throws as {@link ConsolePort.tryRead} does. */
  tryReadChunk(): Uint8Array<ArrayBuffer> | undefined {
    return this.#look() ? this.#takeChunk() : undefined;
  }

  /**
   * Reads the next line if it is complete: up to a newline, or to the end of the session. Invalid UTF-8 becomes U+FFFD.
   *
   * @returns the line without its end (`\n` or `\r\n`)
   * @throws {@link VirtioError} `UNSUPPORTED` if it is longer than what the driver keeps (`readAhead`), and as
   * {@link ConsolePort.tryRead} does
   */
  tryReadLine(): string | undefined {
    this.#drainReceiver();
    const line = this.#receiver.readLine();
    if (line === undefined && !this.#passEnd()) this.#checkReadable();
    return line;
  }

  /** Waits until there is something to read, or the end of a session. Throws as {@link ConsolePort.read} does. */
  async waitForData(options?: WaitOptions): Promise<void> {
    while (!this.#may(options, this.#isReady)) await this.#slot.receive.wait(options);
  }

  /** The same as {@link ConsolePort.waitForData}, spinning. */
  waitForDataSync(options?: SpinOptions): void {
    this.#spin(this.#isReady, options, 'data');
  }

  /**
   * Waits until there is data, and reads as much as `into` holds.
   *
   * @returns how many bytes; 0 at the end of a session, or for an empty array
   * @throws {@link VirtioError} `NOT_READY` if this side is not open, `DEVICE_REMOVED` once all is read, `ABORTED`, `UNSUPPORTED`
   * without interrupts, `INVALID_PARAM` if the memory of the array is transferred meanwhile, or why the device no longer works. Nothing
   * was taken then
   */
  async read(into: Uint8Array, options?: WaitOptions): Promise<number> {
    requireBytes(this.#host.transport, into);
    if (into.length === 0) return 0;
    while (!this.#may(options, this.#isReady)) await this.#slot.receive.wait(options);
    // 0 would say that the session has ended.
    if (into.length === 0) throw this.#emptied();
    return this.#passEnd() ? 0 : this.#take(into);
  }

  /** The same as {@link ConsolePort.read}, spinning. `NOT_READY` also if nothing comes in the time allowed. */
  readSync(into: Uint8Array, options?: SpinOptions): number {
    requireBytes(this.#host.transport, into);
    if (into.length === 0) return 0;
    this.waitForDataSync(options);
    // A listener may have transferred it; 0 would say that the session has ended.
    if (into.length === 0) throw this.#emptied();
    return this.#passEnd() ? 0 : this.#take(into);
  }

  /** Waits until there is data, and reads it into a new array; `undefined` at the end of a session. Throws as {@link ConsolePort.read} does. */
  async readChunk(options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const turn = this.#slot.receive.fairTurn();
    if (turn !== undefined) await turn;
    while (!this.#may(options, this.#isReady)) await this.#slot.receive.wait(options);
    return this.#passEnd() ? undefined : this.#takeChunk();
  }

  /** The same as {@link ConsolePort.readChunk}, spinning. */
  readChunkSync(options?: SpinOptions): Uint8Array<ArrayBuffer> | undefined {
    this.waitForDataSync(options);
    return this.#passEnd() ? undefined : this.#takeChunk();
  }

  /**
   * Waits until there are `count` bytes, and reads them into a new array.
   *
   * @param count 1 to what the driver keeps (`readAhead`)
   * @returns the bytes; fewer if the session ends first, `undefined` if it has ended
   * @throws {@link VirtioError} `INVALID_PARAM`, and as {@link ConsolePort.read}; nothing was taken then
   */
  async readExact(count: number, options?: WaitOptions): Promise<Uint8Array<ArrayBuffer> | undefined> {
    this.#checkCount(count);
    const has = (): boolean => this.#has(count);
    while (!this.#may(options, has)) await this.#slot.receive.wait(options);
    return this.#passEnd() ? undefined : this.#takeChunk(count);
  }

  /** The same as {@link ConsolePort.readExact}, spinning. */
  readExactSync(count: number, options?: SpinOptions): Uint8Array<ArrayBuffer> | undefined {
    this.#checkCount(count);
    this.#spin(() => this.#has(count), options, `${count} bytes`);
    return this.#passEnd() ? undefined : this.#takeChunk(count);
  }

  /** Waits for a line and reads it, as {@link ConsolePort.tryReadLine} does; `undefined` at the end of a session. */
  async readLine(options?: WaitOptions): Promise<string | undefined> {
    const turn = this.#slot.receive.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      requireWaitable(this.#host.transport, options);
      const line = this.#line();
      if (line !== undefined) return line.text;
      await this.#slot.receive.wait(options);
    }
  }

  /** The same as {@link ConsolePort.readLine}, spinning. */
  readLineSync(options?: SpinOptions): string | undefined {
    let line: { readonly text: string | undefined } | undefined;
    this.#spin(() => (line ??= this.#line()) !== undefined, options, 'a line');
    return line?.text;
  }

  /** All chunks of a session. */
  async *chunks(options?: WaitOptions): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
    for (;;) {
      const chunk = await this.readChunk(options);
      if (chunk === undefined) return;
      yield chunk;
    }
  }

  /** The same as {@link ConsolePort.chunks}. */
  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, undefined> {
    return this.chunks();
  }

  /** All lines of a session. */
  async *lines(options?: WaitOptions): AsyncGenerator<string, undefined> {
    for (;;) {
      const line = await this.readLine(options);
      if (line === undefined) return;
      yield line;
    }
  }

  /**
   * A Web Stream of a session.
   *
   * @param ReadableStream the class of the platform, or of a library
   *
   * @example
   * ```ts
   * import type { ConsolePort } from '@virtio/console';
   *
   * export const text = (port: ConsolePort): ReadableStream<string> =>
   *   port.readable(ReadableStream<Uint8Array<ArrayBuffer>>).pipeThrough(new TextDecoderStream());
   * ```
   */
  readable<S>(ReadableStream: ReadableStreamClass<S>): S {
    return readableOf(this, ReadableStream);
  }

  /**
   * A Web Stream to the far side: of bytes, or of text.
   *
   * @param WritableStream the class of the platform, or of a library
   */
  writable<S>(WritableStream: WritableStreamClass<S>): S {
    return writableOf(this, WritableStream);
  }

  /**
   * Sends as many bytes as there is room for now. They are copied.
   *
   * @returns how many
   * @throws {@link VirtioError} `NOT_READY` if this side is not open, `DEVICE_REMOVED`, or why the device no longer works
   */
  tryWrite(bytes: Uint8Array): number {
    requireBytes(this.#host.transport, bytes);
    this.#drainTransmitter();
    this.#checkPresent();
    this.#checkOpen();
    return this.#hasReader() ? this.#slot.transmit.write(bytes) : 0;
  }

  /**
   * Sends all bytes, or text as UTF-8, and waits until they are available to the device. Writes do not mix: each begins when the previous
   * one ends, and one that is cancelled before that sends nothing. Do not change the bytes in the meantime.
   *
   * @throws {@link VirtioError} as {@link ConsolePort.tryWrite} does, `ABORTED`, `UNSUPPORTED` without interrupts, `INVALID_PARAM` if
   * the bytes are transferred or resized meanwhile; a part of them may have been sent
   */
  async write(data: Uint8Array | string, options?: WaitOptions): Promise<void> {
    const bytes = this.#bytesOf(data);
    this.#checkPresent();
    requireWaitable(this.#host.transport, options);
    const { transport } = this.#host;
    const { transmit } = this.#slot;
    const write = {};
    this.#writes.push(write);
    try {
      const { length } = bytes;
      while (this.#writes[0] !== write) await transmit.wait(options);
      for (let sent = 0; ;) {
        requireWaitable(transport, options);
        if (bytes.length !== length) throw this.#resized(sent, length);
        sent += this.tryWrite(bytes.subarray(sent));
        if (sent === length) return;
        await transmit.wait(options);
      }
    } finally {
      this.#writes.splice(this.#writes.indexOf(write), 1);
      transmit.wake();
    }
  }

  /** The same as {@link ConsolePort.write}, spinning. `NOT_READY` also after `options.timeoutMs`. */
  writeSync(data: Uint8Array | string, options?: SpinOptions): void {
    const bytes = this.#bytesOf(data);
    const { length } = bytes;
    let sent = 0;
    const done = (): boolean => {
      if (bytes.length !== length) throw this.#resized(sent, length);
      sent += this.tryWrite(bytes.subarray(sent));
      return sent === length;
    };
    this.#spin(done, options, 'room for all bytes');
  }

  /**
   * Waits until the device has used all bytes that were written before the call, not those that others write meanwhile.
   *
   * @throws {@link VirtioError} `DEVICE_REMOVED`, `ABORTED`, `UNSUPPORTED` without interrupts, or why the device no longer works
   */
  async flush(options?: WaitOptions): Promise<void> {
    const before = [...this.#writes];
    let sends = -1;
    // Others may go on writing meanwhile: their bytes are not waited for.
    const done = (): boolean => {
      if (before.some((write) => this.#writes.includes(write))) return false;
      if (sends < 0) ({ sends } = this.#slot.transmit);
      return this.#drained(sends);
    };
    while (!this.#may(options, done)) await this.#slot.transmit.wait(options);
  }

  /** The same as {@link ConsolePort.flush}, spinning. */
  flushSync(options?: SpinOptions): void {
    const { sends } = this.#slot.transmit;
    this.#spin(() => this.#drained(sends), options, 'the end of the output');
  }

  #bytesOf(data: Uint8Array | string): Uint8Array {
    if (typeof data === 'string') return encodeUtf8(data);
    requireBytes(this.#host.transport, data);
    return data;
  }

  #checkCount(count: number): void {
    requireInteger(this.#host.transport, 'count', count, 1, this.#receiver.capacity);
  }

  /** Whether `count` bytes can be read, or the session has ended before. Throws if there will never be so many. */
  #has(count: number): boolean {
    this.#drainReceiver();
    if (this.#receiver.available >= count || this.#receiver.ends) return true;
    this.#checkReadable();
    return false;
  }

  /** Waits for what control messages may bring, too. */
  #spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void {
    const look = (): boolean => {
      if (done()) return true;
      this.#host.look();
      return done();
    };
    this.#slot.receive.spin(look, options, `${awaited} of port ${this.id}`);
  }

  /** Whether a caller with a promise can go on. A caller that has cancelled takes nothing, even if it was woken before. */
  #may(options: WaitOptions | undefined, done: () => boolean): boolean {
    requireWaitable(this.#host.transport, options);
    return done();
  }

  /** Whether there is something to read, or the end of a session. Throws if there never will be. */
  readonly #isReady = (): boolean => {
    this.#drainReceiver();
    if (this.#receiver.ready) return true;
    this.#checkReadable();
    return false;
  };

  /** Whether there is something to read. The end of a session is passed by. */
  #look(): boolean {
    return this.#isReady() && (!this.#passEnd() || this.#isReady()) && !this.#receiver.atEnd;
  }

  #passEnd(): boolean {
    if (!this.#receiver.atEnd) return false;
    this.#receiver.passEnd();
    return true;
  }

  #take(into: Uint8Array): number {
    return this.#receiver.read(into);
  }

  #takeChunk(most = MAX_CHUNK): Uint8Array<ArrayBuffer> {
    const chunk = new Uint8Array(Math.min(this.#receiver.available, most));
    this.#take(chunk);
    return chunk;
  }

  /** A line, or the end of a session as a line without text. */
  #line(): { readonly text: string | undefined } | undefined {
    this.#drainReceiver();
    const text = this.#receiver.readLine();
    if (text !== undefined || this.#passEnd()) return { text };
    this.#checkReadable();
    return undefined;
  }

  /** Whether the device has used the first buffers that were sent: `sends` of them. */
  #drained(sends: number): boolean {
    this.#drainTransmitter();
    if (this.#slot.transmit.hasUsedFirst(sends)) return true;
    this.#checkPresent();
    return false;
  }

  readonly #hasHost = (): boolean => {
    this.#checkPresent();
    return this.#state.hostOpen;
  };

  /** Whether bytes that are sent now reach a program of the host. */
  #hasReader(): boolean {
    return this.#state.isConsole || this.#state.hostOpen;
  }

  /** Drops what was received. */
  #drop(): void {
    this.#drainReceiver();
    this.#receiver.clear();
  }

  #drainReceiver(): void {
    if (!this.#state.removed) this.#slot.receive.drain();
  }

  #drainTransmitter(): void {
    if (!this.#state.removed) this.#slot.transmit.drain();
  }

  #resized(sent: number, length: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#who()}: the bytes were transferred or resized while they were being written; ${sent} of ${length} were sent. Do not change ` +
        'them before the write has ended',
    );
  }

  #emptied(): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#who()}: the array was transferred or resized while data was waited for, and holds nothing now; what came can still be ` +
        'read. Leave the array as it is until the read has ended',
    );
  }

  #checkReadable(): void {
    this.#checkPresent();
    this.#checkOpen();
  }

  #checkPresent(): void {
    const failure = this.#host.failure();
    if (failure !== undefined) throw failure;
    if (this.#state.removed) {
      throw new VirtioError('DEVICE_REMOVED', `${this.#who()} was removed; wait for it to be added again`);
    }
  }

  #checkOpen(): void {
    if (!this.#state.open) {
      throw new VirtioError('NOT_READY', `${this.#who()} is not open on this side; open() it first`);
    }
  }

  #who(): string {
    const name = this.#state.name === undefined ? '' : ` "${this.#state.name}"`;
    return `${this.#host.transport.who()}: port ${this.id}${name}`;
  }
}
