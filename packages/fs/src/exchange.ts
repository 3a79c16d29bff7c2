/** The requests of a client: a session, and sending and receiving as tasks. */
import { type FieldTable, type Layout, type SpinOptions, VirtioError, type WaitOptions } from '@virtio/core';
import { CHECK, HOLD, refuse, ROOM, Tags, type Task, TaskRunner } from '@virtio/files';
import { type Call, type Credentials, type Gain, Messages, nameOf, type Reply } from './messages.ts';
import { PriorityLine } from './priority.ts';
import { In, Opcode, Out, ROOT_ID } from './protocol.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** The most requests in flight. */
const MAX_TAGS = 64;

const nothing = (): void => undefined;

/** Sends FUSE requests and receives the replies. */
export class Exchange {
  readonly device: VirtioFs;
  /** The tags of the requests. */
  readonly tags: Tags;

  readonly #messages: Messages;
  readonly #priority: PriorityLine;
  readonly #runner: TaskRunner;
  /** The epoch of the device in which the session began; -1: there is no session. */
  #epoch = -1;
  #session = 0;

  /** @throws {@link VirtioError} `UNSUPPORTED` if the device has room for no request */
  constructor(device: VirtioFs) {
    this.device = device;
    this.#priority = new PriorityLine(device);
    this.tags = new Tags(device, {
      most: MAX_TAGS,
      looked: () => {
        if (this.isCurrent) this.#priority.retry();
      },
    });
    this.#messages = new Messages(device, this.tags);
    this.#runner = new TaskRunner(device, this.tags, (tag) => {
      this.#interrupt(tag);
      return undefined;
    });
  }

  /** The number of the session: fids of an earlier one mean nothing to the server. */
  get session(): number {
    return this.#session;
  }

  /** Whether the last session has not ended. */
  get isCurrent(): boolean {
    return this.#epoch === this.device.epoch && this.device.failure === undefined;
  }

  /** Begins a session. @throws {@link VirtioError} `DMA_ERROR` */
  restart(credentials: Credentials): void {
    this.#messages.restart(credentials);
    this.end();
    this.#epoch = this.device.epoch;
    this.tags.sweep();
  }

  /** Ends the session: fids that are left are stale, and nothing is sent any more, as the device may have another client. */
  end(): void {
    this.#epoch = -1;
    this.#session += 1;
    this.#priority.clear();
    this.tags.end();
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
   * @param hold whether it is sent even if the task was cancelled, as it cleans up; the task may end before it is answered
   */
  *call<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, hold = false): Task<Reply<O>> {
    const tag = yield* this.send(call, hold);
    return yield* this.receive(tag, call.out, hold);
  }

  /** Waits for a free tag and sends a request. */
  *send<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, hold = false): Task<number> {
    for (;;) {
      if (!hold) yield CHECK;
      const tag = this.trySend(call);
      if (tag >= 0) return tag;
      yield ROOM;
    }
  }

  /**
   * Sends a request if a tag is free.
   *
   * @param more whether the task has requests in flight already, which will give back memory and room in the queue if these are short
   * @returns the tag, or -1
   */
  trySend<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, more = false): number {
    const { tags } = this;
    this.#checkSession(call);
    tags.sweep();
    const tag = tags.take();
    if (tag < 0) return -1;
    try {
      this.#messages.transmit(tag, call);
      return tag;
    } catch (error) {
      if (more && isShortage(error)) return -1;
      throw error;
    }
  }

  /**
   * Waits for the reply to a request.
   *
   * @param then called once the server no longer works on it, also if the task ends before that
   */
  *receive<O extends FieldTable>(tag: number, out: Layout<O>, hold = false, then = nothing): Task<Reply<O>> {
    try {
      yield hold ? tag + HOLD : tag;
    } catch (error) {
      // The device may still have its buffers.
      this.#abandon(tag, then);
      throw error;
    }
    try {
      return this.#messages.finish(tag, out);
    } finally {
      then();
    }
  }

  /** Waits for the reply to a request and ignores it: buffers must not be released while a request uses them. */
  *discard(tag: number): Task<void> {
    try {
      yield tag;
    } catch {
      // It did not come in time.
    }
    this.#abandon(tag, nothing);
  }

  /**
   * Sends a request without waiting for the reply, or for a tag. Errors are ignored.
   *
   * @param then called once the server no longer works on it
   */
  drop<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, then: () => void): void {
    if (!this.#tryDrop(call, then)) this.tags.sendLater(() => this.#tryDrop(call, then));
  }

  /** Tells the server to forget lookups of a node [5.11.6.2]. */
  forget(nodeid: bigint, nlookup: number): void {
    if (this.isCurrent) this.#priority.send(this.#messages.forget(nodeid, nlookup));
  }

  /** The error of a reply that makes no sense. */
  lie(opcode: number, what: string): VirtioError {
    return this.#messages.lie(opcode, what);
  }

  /** Sends a request whose reply no task takes. Returns false if it has to be sent later. */
  #tryDrop<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, then: () => void): boolean {
    try {
      this.#checkSession(call);
      const tag = this.tags.take();
      if (tag < 0) return false;
      this.#messages.transmit(tag, call);
      this.#orphan(tag, then, true);
    } catch (error) {
      if (isShortage(error)) return false;
      then();
    }
    return true;
  }

  /** No task takes the reply to a request any more. */
  #abandon(tag: number, then: () => void): void {
    this.#messages.disown(tag);
    this.#orphan(tag, then, then !== nothing);
    this.tags.sweep();
  }

  #orphan(tag: number, then: () => void, wanted: boolean): void {
    const finish = (): void => {
      const gain = this.#messages.finishUnclaimed(tag);
      then();
      if (gain?.session === this.#session) this.#giveBack(gain);
    };
    this.tags.orphan(tag, finish, wanted);
  }

  /**
   * Releases what an answer has told of that no task took: the server would keep the node that was looked up and the file that was opened
   * until the session ends.
   */
  #giveBack({ nodeid, lookedUp, fh, directory, session }: Gain): void {
    const forget = (): void => {
      if (lookedUp && nodeid !== 0n && nodeid !== ROOT_ID) this.forget(nodeid, 1);
    };
    if (fh === undefined) {
      forget();
      return;
    }
    const opcode = directory ? Opcode.RELEASEDIR : Opcode.RELEASE;
    this.drop({ opcode, nodeid, session, layout: In.release, values: { fh }, out: Out.none }, forget);
  }

  /** Asks the server to end a request early. It still answers that request, with `EINTR` if it was interrupted. */
  #interrupt(tag: number): void {
    if (!this.isCurrent) return;
    const message = this.#messages.interrupt(tag);
    if (message !== undefined) this.#priority.send(message);
  }

  #checkSession<I extends FieldTable, O extends FieldTable>({ session, opcode }: Call<I, O>): void {
    const { device } = this;
    if (device.failure !== undefined) throw device.failure;
    if (this.#epoch < 0) throw notConnected();
    if (this.#epoch !== device.epoch) {
      throw new VirtioError(
        'DEVICE_RESET',
        `${device.transport.who()} was reset, and the server's session is over; mount it again`,
      );
    }
    // Numbers of nodes and handles of an earlier session may be those of other files now.
    if (session !== undefined && session !== this.#session) throw refuse('ESTALE', nameOf(opcode));
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
    'this FUSE client is not connected; run its task connect(), or mount the file system again',
  );
}
