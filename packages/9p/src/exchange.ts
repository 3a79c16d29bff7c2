/**
 * The requests of a 9P2000.L client: tags, message memory, sending and receiving, waiting in two ways, and cancelling.
 *
 * Each tag has a piece of DMA memory for its message and its reply, so that small messages need no sharing. Data of
 * reads and writes above what fits there goes straight from and to the caller's buffer.
 *
 * A tag is used again only when the device has given its buffers back and, if its request was cancelled, the server has
 * answered the cancellation. One tag is kept for cancellations, so that these get through when all else is stuck.
 */
import { type AbortSignalLike, type SpinOptions, VirtioError } from '@virtio/core';
import { encodeMessage, MalformedError, Reader, UnencodableError } from './codec.ts';
import type { FidTable, P9Fid } from './fid.ts';
import { type Fields, HEADER_SIZE, type Message, type MessageValues, NO_TAG, R, T } from './protocol.ts';
import { P9Error, refuse } from './p9-error.ts';
import { CHECK, HOLD, ROOM, type Task } from './task.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** How many requests can be in flight, one of them a cancellation. */
const MAX_TAGS = 64;
const RESERVED_TAGS = 1;

/** The memory of a tag: half for the message, half for the reply. */
const AREA_SIZE = 16384;
const HALF = AREA_SIZE / 2;

/** What the header of a read or write may take of a message, by the custom of the protocol. */
export const IO_HEADER_SIZE = 24;

/** Data up to this length is copied through the memory of its tag. */
const INLINE = HALF - IO_HEADER_SIZE;

/** The bytes of `Rread` and `Rreaddir` before their data; an error has as many. */
const DATA_OFFSET = HEADER_SIZE + 4;

/** Data that goes with a request. */
export interface RequestData {
  /** What follows the message. */
  readonly data?: Uint8Array;
  /** Where the data of the reply goes. */
  readonly room?: Uint8Array;
}

const NO_DATA: RequestData = {};

/** A task that waits for a tag to be free. */
interface Waiter {
  readonly wake: () => void;
}

/** A `Tclunk` whose answer nobody waits for. */
interface Clunk {
  readonly tag: number;
  readonly id: number;
  readonly session: number;
}

/** Sends messages of 9P2000.L and receives the replies. */
export class Exchange {
  /** The device below. */
  readonly device: Virtio9p;
  /** The largest message, as negotiated. */
  limit = HALF;

  readonly #fids: FidTable;
  readonly #tags: number;
  /** The epoch of the device in which the session began; another one means that it is over. */
  #epoch = -1;

  readonly #message: Uint8Array<ArrayBuffer>[] = [];
  readonly #reply: Uint8Array<ArrayBuffer>[] = [];
  readonly #free: number[] = [];
  readonly #waiters: Waiter[] = [];
  readonly #cancellers: Waiter[] = [];
  readonly #clunks: Clunk[] = [];
  // By tag: the device's token and the epoch that it belongs to, the room for data, whether a cancellation was sent, the
  // message's name, and what those who wait with promises wait for.
  readonly #tokens = new Int32Array(MAX_TAGS);
  readonly #epochs = new Float64Array(MAX_TAGS);
  readonly #rooms: (Uint8Array | undefined)[] = [];
  readonly #cancelled = new Uint8Array(MAX_TAGS);
  readonly #names: string[] = [];
  readonly #promises: (Promise<void> | undefined)[] = [];

  /**
   * @param fids the fids of the client, whose numbers are released when the server has answered their clunks
   * @throws {@link VirtioError} `UNSUPPORTED` if the device has room for too few requests
   */
  constructor(device: Virtio9p, fids: FidTable) {
    this.device = device;
    this.#fids = fids;
    const tags = Math.min(MAX_TAGS, device.capacity);
    if (tags <= RESERVED_TAGS) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${device.transport.who()}: its queue has room for ${tags} requests; a client needs ${RESERVED_TAGS + 1}`,
      );
    }
    for (let tag = tags - 1; tag >= 0; tag -= 1) this.#free.push(tag);
    this.#tags = tags;
  }

  /** The most requests that tasks can have in flight. */
  get capacity(): number {
    return this.#tags - RESERVED_TAGS;
  }

  /** How many requests are in flight. */
  get inFlight(): number {
    return this.#tags - this.#free.length;
  }

  /**
   * Carries a task out with promises.
   *
   * @param task what to do
   * @param signal cancels it: requests in flight are flushed, and the promise rejects when the server has answered that
   * @returns what the task returns
   * @throws {@link VirtioError} `ABORTED`; `UNSUPPORTED` on a transport without interrupts; what the task throws
   */
  async run<V>(task: Task<V>, signal?: AbortSignalLike): Promise<V> {
    if (this.device.transport.interrupts === undefined) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.device.transport.who()}: this transport has no interrupts, so no promise can be kept. Use the synchronous ` +
          'form, or give the transport PollingInterrupts',
      );
    }
    let aborted = false;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === CHECK) {
          if (signal?.aborted === true && !aborted) {
            aborted = true;
            // A tag that this task was woken for goes to the next one.
            this.#wake();
            throw abortError(signal);
          }
        } else if (wait === ROOM) {
          await this.#room(RESERVED_TAGS, signal);
        } else if (wait >= HOLD) {
          await this.#done(wait - HOLD);
        } else {
          await this.#doneOrCancelled(wait, signal);
        }
      } catch (error) {
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    if (this.#clunks.length > 0) this.device.flushSoon();
    return step.value;
  }

  /**
   * Carries a task out and spins meanwhile.
   *
   * @throws {@link VirtioError} `NOT_READY` if an answer takes too long, `QUEUE_FULL` if tasks that run with promises have all
   * tags; what the task throws
   */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    const { device } = this;
    let spin = options;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) {
          this.#roomSync(spin);
        } else if (wait !== CHECK) {
          device.flush();
          device.waitSync(this.#token(wait % HOLD), spin);
        }
      } catch (error) {
        // A server that let the time of one answer pass does not get as much again for each of the others in flight.
        if (VirtioError.is(error, 'NOT_READY')) spin = { timeoutMs: 0 };
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    if (this.#clunks.length > 0 && device.failure === undefined) device.flush();
    return step.value;
  }

  /**
   * Sends a request and waits for its reply.
   *
   * @param hold whether it is sent even if the task was cancelled, and not flushed: for what tidies up
   */
  *call<F extends Fields, G extends Fields>(
    message: Message<F>,
    values: MessageValues<F>,
    reply: Message<G>,
    hold = false,
  ): Task<MessageValues<G>> {
    const tag = yield* this.send(message, values, NO_DATA, hold);
    return yield* this.receive(tag, reply, hold);
  }

  /** Waits for a free tag and sends a request. */
  *send<F extends Fields>(
    message: Message<F>,
    values: MessageValues<F>,
    data: RequestData = NO_DATA,
    hold = false,
  ): Task<number> {
    for (;;) {
      if (!hold) yield CHECK;
      const tag = this.trySend(message, values, data);
      if (tag >= 0) return tag;
      yield ROOM;
    }
  }

  /**
   * Sends a request if a tag is free.
   *
   * @returns the tag, or -1
   */
  trySend<F extends Fields>(
    message: Message<F>,
    values: MessageValues<F>,
    data: RequestData = NO_DATA,
  ): number {
    this.#checkSession(message);
    if (this.#clunks.length > 0) this.#sweep();
    if (this.#free.length <= RESERVED_TAGS) return -1;
    return this.#transmit(this.#free.pop() as number, message, values, data);
  }

  /**
   * As {@link Exchange.trySend}, for tasks that have requests in flight already: where DMA memory is scarce (the limit of locked
   * memory of a Linux process is often 8 MiB), they make do with what they have.
   */
  trySendMore<F extends Fields>(message: Message<F>, values: MessageValues<F>, data: RequestData): number {
    try {
      return this.trySend(message, values, data);
    } catch (error) {
      if (VirtioError.is(error, 'DMA_ERROR')) return -1;
      throw error;
    }
  }

  /** Waits for the reply to a request and reads its fields; data goes to the room that was given. */
  *receive<G extends Fields>(tag: number, reply: Message<G>, hold = false): Task<MessageValues<G>> {
    try {
      this.#checkEpoch(tag);
      yield hold ? tag + HOLD : tag;
      this.#checkEpoch(tag);
    } catch (error) {
      this.#lose(tag);
      throw error;
    }
    return this.#decode(tag, reply);
  }

  /**
   * Waits for the reply to a request, whatever it is: for what is in flight when a task fails, as buffers may be given back to
   * the caller only when no request uses them any more.
   */
  *discard(tag: number): Task<void> {
    try {
      // What is expected does not matter: the tag is free afterwards in any case.
      yield* this.receive(tag, R.flush);
    } catch {
      return;
    }
  }

  /** Has the server forget a fid, without waiting for its answer if possible. What goes wrong has no consequence. */
  *drop(fid: P9Fid): Task<void> {
    if (!fid.live) return;
    fid.live = false;
    if (!this.isCurrent(fid)) return;
    try {
      const tag = this.trySend(T.clunk, { fid: fid.id });
      if (tag >= 0) {
        this.#clunks.push({ tag, id: fid.id, session: fid.session });
        return;
      }
      yield* this.call(T.clunk, { fid: fid.id }, R.clunk, true);
      this.#fids.release(fid.id);
    } catch (error) {
      // The server forgets a fid even if it reports an error.
      if (P9Error.is(error)) this.#fids.release(fid.id);
    }
  }

  /** Waits until the server has answered all that nobody waits for. */
  *quiesce(): Task<void> {
    for (;;) {
      this.#sweep();
      const [clunk] = this.#clunks;
      if (clunk === undefined) return;
      yield clunk.tag + HOLD;
    }
  }

  /** Whether a fid belongs to the session that is going on. */
  isCurrent(fid: P9Fid): boolean {
    return fid.session === this.#fids.session && this.#epoch === this.device.epoch;
  }

  /**
   * Begins anew: forgets fids, and requests that a reset of the device has ended.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(): void {
    if (this.#message.length === 0) {
      const memory = this.device.messageMemory(MAX_TAGS * AREA_SIZE);
      for (let tag = 0; tag < this.#tags; tag += 1) {
        const at = tag * AREA_SIZE;
        this.#message.push(memory.subarray(at, at + HALF));
        this.#reply.push(memory.subarray(at + HALF, at + AREA_SIZE));
      }
    }
    this.#sweep();
    this.#epoch = this.device.epoch;
    this.#fids.restart();
    this.limit = HALF;
  }

  /** The error of a reply that makes no sense. */
  lie(message: Message, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.device.transport.who()}: the server's reply to ${message.name} makes no sense: ${what}`,
    );
  }

  #transmit<F extends Fields>(
    tag: number,
    message: Message<F>,
    values: MessageValues<F>,
    { data, room }: RequestData,
  ): number {
    const { device } = this;
    const area = this.#message[tag] as Uint8Array;
    const reply = this.#reply[tag] as Uint8Array;
    try {
      const wireTag = message.type === T.version.type ? NO_TAG : tag;
      const target = area.subarray(0, Math.min(HALF, this.limit));
      const end = encodeMessage(target, wireTag, message, values, data?.length);
      let request = end;
      let requestData = data;
      if (data !== undefined && data.length <= INLINE) {
        area.set(data, end);
        request += data.length;
        requestData = undefined;
      }
      const direct = room !== undefined && room.length > INLINE;
      this.#tokens[tag] = device.submit(
        area.subarray(0, request),
        direct ? reply.subarray(0, DATA_OFFSET) : reply,
        requestData,
        direct ? room : undefined,
      );
    } catch (error) {
      this.#release(tag);
      throw error instanceof UnencodableError ? refuse(error.code, message.name) : error;
    }
    this.#epochs[tag] = device.epoch;
    this.#rooms[tag] = room;
    this.#cancelled[tag] = 0;
    this.#names[tag] = message.name;
    this.#promises[tag] = undefined;
    return tag;
  }

  /** Ends a request and reads its reply. The tag is free afterwards. */
  #decode<G extends Fields>(tag: number, expected: Message<G>): MessageValues<G> {
    const room = this.#rooms[tag];
    const name = this.#names[tag] as string;
    try {
      const length = this.device.complete(this.#token(tag));
      if (length === 0) throw this.#unanswered(tag, name);
      const reply = this.#reply[tag] as Uint8Array;
      const direct = room !== undefined && room.length > INLINE;
      return read(reply, length, tag, expected, name, room, direct);
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.device.transport.who()}: the server's reply to ${name} makes no sense: ${error.message}. Whether the request ` +
          'was carried out is not known',
      );
    } finally {
      this.#release(tag);
    }
  }

  #unanswered(tag: number, name: string): Error {
    if (this.#cancelled[tag] === 0) return new MalformedError('it is empty');
    return new VirtioError(
      'ABORTED',
      `${name} was cancelled by its caller; the server has not carried it out`,
    );
  }

  #token(tag: number): number {
    return this.#tokens[tag] as number;
  }

  #release(tag: number): void {
    this.#rooms[tag] = undefined;
    this.#free.push(tag);
    this.#wake();
  }

  /** Wakes who waits for a tag: first a cancellation, for which the last tag is kept. */
  #wake(): void {
    if (this.#free.length === 0) return;
    if (this.#cancellers.length > 0) this.#cancellers.shift()?.wake();
    else if (this.#free.length > RESERVED_TAGS) this.#waiters.shift()?.wake();
  }

  /** Nobody waits for a request any more, but the device may still have its buffers. */
  #lose(tag: number): void {
    if (this.#epochs[tag] !== this.device.epoch) this.#release(tag);
    else this.device.abandon(this.#token(tag), () => this.#release(tag));
  }

  #checkSession(message: Message): void {
    if (this.device.failure !== undefined) throw this.device.failure;
    if (this.#epoch === this.device.epoch) return;
    throw new VirtioError(
      'DEVICE_RESET',
      `${this.device.transport.who()} was reset, and the server has forgotten all that ${message.name} could refer to; ` +
        'connect to it again',
    );
  }

  /** A reset has ended a request, whether it was answered or not: the device's token is no longer this one's. */
  #checkEpoch(tag: number): void {
    if (this.#epochs[tag] === this.device.epoch) return;
    throw new VirtioError(
      'DEVICE_RESET',
      `${this.device.transport.who()} was reset; whether ${this.#names[tag] ?? ''} was carried out is not known`,
    );
  }

  /** Ends the clunks that were answered in the meantime. */
  #sweep(): void {
    let kept = 0;
    for (const clunk of this.#clunks) {
      if (this.#endClunk(clunk)) continue;
      this.#clunks[kept] = clunk;
      kept += 1;
    }
    this.#clunks.length = kept;
  }

  #endClunk({ tag, id, session }: Clunk): boolean {
    if (this.#epochs[tag] !== this.device.epoch) {
      this.#release(tag);
      return true;
    }
    if (!this.device.isDone(this.#token(tag))) return false;
    try {
      this.#decode(tag, R.clunk);
    } catch (error) {
      // After an answer that makes no sense the server may still know the fid: its number is not used again.
      if (!P9Error.is(error)) return true;
    }
    if (session === this.#fids.session) this.#fids.release(id);
    return true;
  }

  #roomSync(options: SpinOptions | undefined): void {
    this.#sweep();
    if (this.#free.length > RESERVED_TAGS) return;
    const [clunk] = this.#clunks;
    if (clunk === undefined) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.device.transport.who()}: requests that wait with promises have all ${this.capacity} tags; let one of them end`,
      );
    }
    this.device.flush();
    this.device.waitSync(this.#token(clunk.tag), options);
  }

  /** Waits until more than `reserved` tags may be free. */
  async #room(reserved: number, signal?: AbortSignalLike): Promise<void> {
    this.#sweep();
    if (this.#free.length > reserved) return;
    const [clunk] = this.#clunks;
    if (clunk !== undefined) {
      await this.#done(clunk.tag);
      return;
    }
    const waiters = reserved === 0 ? this.#cancellers : this.#waiters;
    await new Promise<void>((resolve) => {
      const waiter: Waiter = {
        wake: () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        },
      };
      const abort = (): void => {
        waiters.splice(waiters.indexOf(waiter), 1);
        waiter.wake();
      };
      signal?.addEventListener('abort', abort);
      waiters.push(waiter);
    });
  }

  /** Waits for an answer. Several may wait for one, as for a clunk that makes room. */
  #done(tag: number): Promise<void> {
    this.device.flushSoon();
    this.#promises[tag] ??= this.device.done(this.#token(tag));
    return this.#promises[tag];
  }

  /** Waits for an answer, and has the request flushed if the caller loses interest. */
  async #doneOrCancelled(tag: number, signal: AbortSignalLike | undefined): Promise<void> {
    const done = this.#done(tag);
    if (signal === undefined) return done;
    // It is awaited last; until then a rejection is no one's fault.
    done.catch(() => undefined);
    if (!signal.aborted) {
      let abort = (): void => undefined;
      const aborted = new Promise<void>((resolve) => {
        abort = resolve;
      });
      signal.addEventListener('abort', abort);
      try {
        await Promise.race([done, aborted]);
      } finally {
        signal.removeEventListener('abort', abort);
      }
    }
    if (signal.aborted && !this.device.isDone(this.#token(tag))) await this.#cancel(tag);
    return done;
  }

  /** Tells the server to forget about a request, and waits until it says so. The request's buffers come back in any case. */
  async #cancel(oldTag: number): Promise<void> {
    this.#cancelled[oldTag] = 1;
    while (this.#free.length === 0) await this.#room(0);
    const tag = this.#transmit(this.#free.pop() as number, T.flush, { oldTag }, NO_DATA);
    try {
      await this.#done(tag);
      this.#checkEpoch(tag);
    } catch (error) {
      this.#lose(tag);
      throw error;
    }
    try {
      this.#decode(tag, R.flush);
    } catch (error) {
      // A flush cannot fail; a server that says so all the same has ended it.
      if (!P9Error.is(error)) throw error;
    }
  }
}

/** Reads a reply: header, fields, and data into the room for it. */
function read<G extends Fields>(
  reply: Uint8Array,
  length: number,
  tag: number,
  expected: Message<G>,
  name: string,
  room: Uint8Array | undefined,
  direct: boolean,
): MessageValues<G> {
  const reader = new Reader(reply.subarray(0, Math.min(length, reply.length, direct ? DATA_OFFSET : HALF)));
  const header = reader.fields({ size: 'u32', type: 'u8', tag: 'u16' });
  const wireTag = expected.type === R.version.type ? NO_TAG : tag;
  if (header.tag !== wireTag) throw new MalformedError(`its tag is ${header.tag}, not ${wireTag}`);
  if (header.type === R.error.type) {
    const { errno } = reader.fields(R.error.fields);
    if (errno === 0 || length !== DATA_OFFSET) throw new MalformedError('it is an error without a number');
    throw new P9Error(errno, name);
  }
  if (header.type !== expected.type) {
    throw new MalformedError(`its type is ${header.type}, not ${expected.type} (${expected.name})`);
  }
  const values = reader.fields(expected.fields);
  if (room === undefined) {
    if (reader.left > 0) throw new MalformedError(`${reader.left} bytes follow its fields`);
    return values;
  }
  const { count } = values as unknown as { readonly count: number };
  if (count > room.length || length !== DATA_OFFSET + count) {
    throw new MalformedError(
      `it counts ${count} bytes of data in a message of ${length}, where ${room.length} were asked for`,
    );
  }
  if (!direct) room.set(reply.subarray(DATA_OFFSET, DATA_OFFSET + count));
  return values;
}

function abortError(signal: AbortSignalLike): VirtioError {
  return new VirtioError('ABORTED', 'the operation was cancelled by its caller', { cause: signal.reason });
}
