/**
 * The requests of a client: sending and receiving as tasks, and running tasks in two ways, with promises and spinning.
 * A task that runs with promises can be cancelled; its requests in flight are then flushed by the protocol's own means.
 */
import {
  type AbortSignalLike,
  requireSignal,
  requireWaitable,
  spin,
  type SpinOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  abortError,
  CHECK,
  FileError as P9Error,
  HOLD,
  refuseAborted,
  ROOM,
  settledOrAborted,
  type Task,
} from '@virtio/files';
import type { FidTable, P9Fid } from './fid.ts';
import { type Fields, type Message, type MessageValues, R, T } from './protocol.ts';
import { type RequestData, RESERVED_TAGS, Tags } from './tags.ts';
import type { Virtio9p } from './virtio-9p.ts';

const NO_DATA: RequestData = {};

/** What {@link Exchange.runSync} spins with when an answer has not come in time. */
const ONE_LOOK: SpinOptions = { timeoutMs: 0 };

/** Sends messages of 9P2000.L and receives the replies. */
export class Exchange {
  /** The device below. */
  readonly device: Virtio9p;

  readonly #fids: FidTable;
  readonly #tags: Tags;
  /** The epoch of the device in which the session began; another one means that it is over. -1: there is no session. */
  #epoch = -1;

  /**
   * @param fids the fids of the client, whose numbers are released when the server has answered their clunks
   * @throws {@link VirtioError} `UNSUPPORTED` if the device has room for too few requests
   */
  constructor(device: Virtio9p, fids: FidTable) {
    this.device = device;
    this.#fids = fids;
    this.#tags = new Tags(device);
  }

  /** The most requests that tasks can have in flight. */
  get capacity(): number {
    return this.#tags.count - RESERVED_TAGS;
  }

  /** How many requests are in flight. */
  get inFlight(): number {
    return this.#tags.count - this.#tags.free;
  }

  /** The largest message, as negotiated. */
  set limit(bytes: number) {
    this.#tags.limit = bytes;
  }

  /**
   * Begins anew: forgets fids, and requests that a reset of the device has ended.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(): void {
    this.#tags.restart();
    this.#epoch = this.device.epoch;
    this.#fids.restart();
  }

  /** Ends the session: fids that are left are stale, and nothing is sent any more, as the device may have another client. */
  end(): void {
    this.#epoch = -1;
    this.#fids.restart();
  }

  /** Whether a fid belongs to the session that is going on. */
  isCurrent(fid: P9Fid): boolean {
    return fid.session === this.#fids.session && this.#epoch === this.device.epoch;
  }

  /**
   * Carries a task out with promises.
   *
   * @param options `signal` cancels it: requests in flight are flushed, and the promise rejects when the server has answered that
   * @returns what the task returns
   * @throws {@link VirtioError} `ABORTED`; `UNSUPPORTED` on a transport without interrupts; what the task throws
   */
  async run<V>(task: Task<V>, { signal }: WaitOptions = {}): Promise<V> {
    requireWaitable(this.device.transport);
    requireSignal(this.device.transport, signal);
    refuseAborted(signal);
    const tags = this.#tags;
    let aborted = false;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) await tags.room(RESERVED_TAGS, signal?.aborted === true ? undefined : signal);
        else if (wait >= HOLD) await this.#done(wait - HOLD, aborted ? undefined : signal);
        else if (wait !== CHECK) await this.#doneOrCancelled(wait, signal);
        // Once: what tidies up afterwards is not cancelled.
        if (signal?.aborted === true && !aborted && isCancellable(wait, tags)) {
          aborted = true;
          // A tag that this task was woken for goes to the next one.
          tags.wake();
          throw abortError(signal);
        }
      } catch (error) {
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    if (tags.hasOrphans) this.device.kickSoon();
    return step.value;
  }

  /**
   * Carries a task out and spins meanwhile.
   *
   * @param options `timeoutMs`: how long the server may take for an answer (default 60,000)
   * @throws {@link VirtioError} `NOT_READY` if it takes longer, `QUEUE_FULL` if tasks that run with promises have all tags; what
   * the task throws
   */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    const { device } = this;
    const tags = this.#tags;
    let time = options;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) this.#roomSync(time);
        else if (wait !== CHECK) this.#spin(() => tags.isDone(wait % HOLD), time);
      } catch (error) {
        // A server that let the time of one answer pass does not get as much again for each of the others in flight.
        if (VirtioError.is(error, 'NOT_READY')) time = ONE_LOOK;
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    tags.look();
    if (tags.hasOrphans && device.failure === undefined) device.kick();
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
    this.#tags.sweep();
    return this.#tags.free <= RESERVED_TAGS ? -1 : this.#tags.transmit(message, values, data);
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
      yield hold ? tag + HOLD : tag;
    } catch (error) {
      // The device may still have its buffers.
      this.#tags.abandon(tag);
      throw error;
    }
    return this.#tags.finish(tag, reply);
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
        this.#tags.orphan(tag, () => {
          this.#clunked(tag, fid);
        });
        return;
      }
      yield* this.call(T.clunk, { fid: fid.id }, R.clunk, true);
      this.#fids.release(fid.id);
    } catch (error) {
      // The server forgets a fid even if it reports an error.
      if (P9Error.is(error)) this.#fids.release(fid.id);
    }
  }

  /** Waits until the server has forgotten all fids that were dropped. */
  *quiesce(): Task<void> {
    for (;;) {
      this.#tags.sweep();
      const tag = this.#tags.firstOrphan;
      if (tag < 0) return;
      yield tag + HOLD;
    }
  }

  /** The error of a reply that makes no sense. */
  lie(message: Message, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.device.transport.who()}: the server's reply to ${message.name} makes no sense: ${what}`,
    );
  }

  /** The clunk of a fid that was dropped is answered. */
  #clunked(tag: number, { id }: P9Fid): void {
    try {
      this.#tags.finish(tag, R.clunk);
    } catch (error) {
      // After an answer that makes no sense the server may still know the fid: its number is not used again.
      if (!P9Error.is(error)) return;
    }
    this.#fids.release(id);
  }

  #checkSession(message: Message): void {
    if (this.device.failure !== undefined) throw this.device.failure;
    if (this.#epoch === this.device.epoch) return;
    if (this.#epoch < 0) throw notConnected();
    throw new VirtioError(
      'DEVICE_RESET',
      `${this.device.transport.who()} was reset, and the server has forgotten all fids that ${message.name} could use; ` +
        'connect to it again',
    );
  }

  #roomSync(time: SpinOptions | undefined): void {
    const tags = this.#tags;
    tags.sweep();
    if (tags.free <= RESERVED_TAGS && !tags.hasOrphans) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.device.transport.who()}: requests with promises use all ${this.capacity} tags; wait until one of them ends`,
      );
    }
    this.#spin(() => {
      tags.sweep();
      return tags.free > RESERVED_TAGS;
    }, time);
  }

  #spin(done: () => boolean, time: SpinOptions | undefined): void {
    const { device } = this;
    try {
      // It fails if the device has; then all requests are done.
      if (device.failure === undefined) device.kick();
      spin(device.transport, done, time, 'the answer of the 9P server');
    } catch (error) {
      if (VirtioError.is(error) && error.code !== 'NOT_READY' && error.code !== 'INVALID_PARAM') {
        device.fail(error);
      }
      throw error;
    }
  }

  /** Waits for an answer, or until the caller loses interest; the request goes on then. */
  async #done(tag: number, signal: AbortSignalLike | undefined): Promise<void> {
    const done = this.#tags.done(tag);
    await settledOrAborted(done, signal);
    this.#tags.undone(tag, done);
  }

  /** Waits for an answer, and has the request flushed if the caller loses interest. */
  async #doneOrCancelled(tag: number, signal: AbortSignalLike | undefined): Promise<void> {
    await this.#done(tag, signal);
    if (this.#tags.isDone(tag)) return;
    await this.#flush(tag);
    await this.#tags.done(tag);
  }

  /** Tells the server to forget about a request, and waits until it says so. The request's buffers come back in any case. */
  async #flush(oldTag: number): Promise<void> {
    const tags = this.#tags;
    tags.cancelled(oldTag);
    while (tags.free === 0) await tags.room(0);
    if (this.device.failure !== undefined) throw this.device.failure;
    const tag = tags.transmit(T.flush, { oldTag: tags.onWire(oldTag) }, NO_DATA);
    await tags.done(tag);
    try {
      tags.finish(tag, R.flush);
    } catch (error) {
      // A flush cannot fail; a server that says so all the same has ended it.
      if (!P9Error.is(error)) throw error;
    }
  }
}

/** The error of a client that has no session. */
export function notConnected(): VirtioError {
  return new VirtioError(
    'NOT_READY',
    'this 9P client is not connected; run its task connect(), or mount the file system again',
  );
}

/** Whether a task that waited can be cancelled now: a request that is flushed takes its reply first. */
function isCancellable(wait: number, tags: Tags): boolean {
  return wait === CHECK || (wait >= HOLD && !tags.isDone(wait - HOLD));
}
