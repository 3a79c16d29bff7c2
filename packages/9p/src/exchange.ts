/** The requests of a client: a session, and sending and receiving as tasks. */
import { type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import { CHECK, FileError as P9Error, HOLD, ROOM, Tags, type Task, TaskRunner } from '@virtio/files';
import type { FidTable, P9Fid } from './fid.ts';
import { Messages, type RequestData } from './messages.ts';
import { type Fields, type Message, type MessageValues, R, T } from './protocol.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** How many requests can be in flight, one of them a cancellation. */
const MAX_TAGS = 64;
const RESERVED_TAGS = 1;

const NO_DATA: RequestData = {};

/** Sends messages of 9P2000.L and receives the replies. */
export class Exchange {
  /** The device below. */
  readonly device: Virtio9p;
  /** The tags of the requests. */
  readonly tags: Tags;

  readonly #fids: FidTable;
  readonly #messages: Messages;
  readonly #runner: TaskRunner;
  /** The epoch of the device in which the session began; another one means that it is over. -1: there is no session. */
  #epoch = -1;

  /**
   * @param fids the fids of the client, whose numbers are released when the server has answered their clunks
   * @throws {@link VirtioError} `UNSUPPORTED` if the device has room for too few requests
   */
  constructor(device: Virtio9p, fids: FidTable) {
    this.device = device;
    this.#fids = fids;
    this.tags = new Tags(device, { most: MAX_TAGS, reserved: RESERVED_TAGS });
    this.#messages = new Messages(device, this.tags);
    this.#runner = new TaskRunner(device, this.tags, (tag) => this.#flush(tag));
  }

  /** The largest message, as negotiated. */
  set limit(bytes: number) {
    this.#messages.limit = bytes;
  }

  /**
   * Begins anew: forgets fids, and requests that a reset of the device has ended.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(): void {
    this.#messages.restart();
    this.tags.end();
    this.tags.sweep();
    this.#epoch = this.device.epoch;
    this.#fids.restart();
  }

  /** Ends the session: fids that are left are stale, and nothing is sent any more, as the device may have another client. */
  end(): void {
    this.#epoch = -1;
    this.#fids.restart();
    this.tags.end();
  }

  /** Whether a fid belongs to the session that is going on. */
  isCurrent(fid: P9Fid): boolean {
    return fid.session === this.#fids.session && this.#epoch === this.device.epoch;
  }

  /** Runs a task with promises; see {@link TaskRunner.run}. */
  run<V>(task: Task<V>, options?: WaitOptions): Promise<V> {
    return this.#runner.run(task, options);
  }

  /** Runs a task and spins until it ends; see {@link TaskRunner.runSync}. */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    return this.#runner.runSync(task, options);
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
   * @param more whether the task has requests in flight already. Where DMA memory (the limit of locked memory of a Linux process is often
   * 8 MiB) or room in the queue is scarce, it makes do with these
   * @returns the tag, or -1
   */
  trySend<F extends Fields>(
    message: Message<F>,
    values: MessageValues<F>,
    data: RequestData = NO_DATA,
    more = false,
  ): number {
    const { tags } = this;
    this.#checkSession(message);
    tags.sweep();
    const tag = tags.take();
    if (tag < 0) return -1;
    try {
      this.#messages.transmit(tag, message, values, data);
      return tag;
    } catch (error) {
      if (more && isShortage(error)) return -1;
      throw error;
    }
  }

  /** Waits for the reply to a request and reads its fields; data goes to the room that was given. */
  *receive<G extends Fields>(tag: number, reply: Message<G>, hold = false): Task<MessageValues<G>> {
    try {
      yield hold ? tag + HOLD : tag;
    } catch (error) {
      // The device may still have its buffers.
      this.#abandon(tag);
      throw error;
    }
    return this.#messages.finish(tag, reply);
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

  /** Has the server forget a fid, without waiting for its answer, or for a tag. What goes wrong has no consequence. */
  drop(fid: P9Fid): void {
    if (!fid.live) return;
    fid.live = false;
    if (!this.isCurrent(fid) || this.#clunk(fid)) return;
    this.tags.sendLater(() => this.#clunk(fid));
  }

  /** The error of a reply that makes no sense. */
  lie(message: Message, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.device.transport.who()}: the server's reply to ${message.name} makes no sense: ${what}`,
    );
  }

  /** Sends the clunk of a fid that was dropped. Returns false if it has to be sent later. */
  #clunk(fid: P9Fid): boolean {
    try {
      this.#checkSession(T.clunk);
      const tag = this.tags.take();
      if (tag < 0) return false;
      this.#messages.transmit(tag, T.clunk, { fid: fid.id }, NO_DATA);
      const finish = (): void => {
        this.#clunked(tag, fid);
      };
      this.tags.orphan(tag, finish, true);
      return true;
    } catch (error) {
      return !isShortage(error);
    }
  }

  /** The clunk of a fid that was dropped is answered. */
  #clunked(tag: number, { id }: P9Fid): void {
    try {
      this.#messages.finish(tag, R.clunk);
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

  /** No task waits for a request any more; its reply does not matter, and may never come. */
  #abandon(tag: number): void {
    const finish = (): void => {
      try {
        this.#messages.finish(tag, R.flush);
      } catch {
        return;
      }
    };
    this.device.disown(this.tags.token(tag));
    this.tags.orphan(tag, finish, false);
    this.tags.sweep();
  }

  /** Tells the server to forget about a request, and waits until it says so. The request's buffers come back in any case. */
  async #flush(oldTag: number): Promise<void> {
    const { tags } = this;
    const messages = this.#messages;
    messages.cancelled(oldTag);
    let tag = tags.takeReserved();
    while (tag < 0) {
      await tags.roomToCancel();
      tag = tags.takeReserved();
    }
    if (tags.isDone(oldTag)) {
      tags.release(tag);
      return;
    }
    messages.transmit(tag, T.flush, { oldTag: messages.onWire(oldTag) }, NO_DATA);
    await tags.done(tag);
    try {
      messages.finish(tag, R.flush);
    } catch (error) {
      // A flush cannot fail; a server that says so all the same has ended it.
      if (!P9Error.is(error)) throw error;
    }
  }
}

/** Whether a request was not sent because DMA memory or room in the queue is short, and others will give some back. */
function isShortage(error: unknown): boolean {
  return VirtioError.is(error, 'DMA_ERROR') || VirtioError.is(error, 'QUEUE_FULL');
}

/** The error of a client that has no session. */
export function notConnected(): VirtioError {
  return new VirtioError(
    'NOT_READY',
    'this 9P client is not connected; run its task connect(), or mount the file system again',
  );
}
