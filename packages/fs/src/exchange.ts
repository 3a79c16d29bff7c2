/**
 * The requests of a client: sending and receiving as tasks, and running tasks in two ways, with promises and spinning.
 *
 * A request has a tag, and with it a piece of DMA memory for its message and its reply, until the device has used its buffers.
 * Data of reads and writes is transferred directly from and to the caller's buffer.
 */
import {
  type AbortSignalLike,
  type FieldTable,
  type Layout,
  requireSignal,
  requireWaitable,
  spin,
  type SpinOptions,
  type Values,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  abortError,
  CHECK,
  FileError,
  HOLD,
  refuseAborted,
  ROOM,
  settledOrAborted,
  type Task,
} from '@virtio/files';
import {
  ENTRY_OPCODES,
  In,
  IN_HEADER_SIZE,
  InHeader,
  Opcode,
  OPEN_OPCODES,
  Out,
  OUT_HEADER_SIZE,
  OutHeader,
  ROOT_ID,
} from './protocol.ts';
import type { VirtioFs } from './virtio-fs.ts';

/** The most requests in flight. */
const MAX_TAGS = 64;

/** The memory of a tag: half for the message, half for the reply. */
const AREA_SIZE = 16384;
const HALF = AREA_SIZE / 2;

/** The largest total length of the names in one message, in bytes. */
const MAX_NAMES = HALF - 256;

const EINTR = 4;
const ENAMETOOLONG = 36;
/** The largest error number of Linux. */
const MAX_ERRNO = 4095;

/** What {@link Exchange.runSync} spins with when an answer has not arrived in time. */
const ONE_LOOK: SpinOptions = { timeoutMs: 0 };

// The state of a tag.
const FREE = 0;
const IN_FLIGHT = 1;
const DONE = 2;
/** No task takes the answer. */
const ORPHAN = 3;

/** A request. */
export interface Call<I extends FieldTable, O extends FieldTable> {
  readonly opcode: number;
  /** The node of the file or the directory. */
  readonly nodeid: bigint;
  readonly layout: Layout<I>;
  readonly values: Partial<Values<I>>;
  /** The structure after the header of the reply. */
  readonly out: Layout<O>;
  /** The names after the arguments; a zero byte is added to each. */
  readonly names?: readonly Uint8Array[];
  /** The data after that, which is not copied. */
  readonly data?: Uint8Array;
  /** The buffer for the data after `out` in the reply. */
  readonly room?: Uint8Array;
  /** The group of a new file. */
  readonly gid?: number;
}

/** The reply to a request. */
export interface Reply<O extends FieldTable> {
  readonly values: Values<O>;
  /** How many bytes of the room were filled. */
  readonly count: number;
}

/** The user for whom requests are sent, for their headers. */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
}

interface Tag {
  readonly message: Uint8Array<ArrayBuffer>;
  readonly reply: Uint8Array<ArrayBuffer>;
  state: number;
  token: number;
  epoch: number;
  unique: number;
  opcode: number;
  out: Layout<FieldTable>;
  room: number;
  /** The error of a request that the device lost, or whose reply makes no sense. */
  failure: unknown;
  length: number;
  interrupted: boolean;
  /** The request, and its session. */
  nodeid: bigint;
  session: number;
  done: Promise<void> | undefined;
  resolve: (() => void) | undefined;
  /** For an orphan: called when its answer has arrived. */
  then: (() => void) | undefined;
}

/** Sends FUSE requests and receives the replies. */
export class Exchange {
  readonly device: VirtioFs;

  readonly #tags: Tag[] = [];
  readonly #waiters: (() => void)[] = [];
  /** Messages for the hiprio queue for which there was no room. */
  readonly #priority: Uint8Array[] = [];
  #credentials: Credentials = { uid: 0, gid: 0 };
  #unique = 0;
  /** The epoch of the device in which the session began; -1: there is no session. */
  #epoch = -1;
  #session = 0;
  #awaited = 0;
  #deafen: (() => void) | undefined;

  /** @throws {@link VirtioError} `UNSUPPORTED` if the device has room for no request */
  constructor(device: VirtioFs) {
    this.device = device;
    if (device.capacity < 1) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${device.transport.who()}: its queue has no room for a request; give the device a larger one`,
      );
    }
  }

  /** The most requests that tasks can have in flight. */
  get capacity(): number {
    return Math.min(MAX_TAGS, this.device.capacity);
  }

  /** How many requests are in flight, or have answers that no task has taken. */
  get inFlight(): number {
    return this.#tags.filter(({ state }) => state !== FREE).length;
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
    this.#credentials = credentials;
    this.#epoch = this.device.epoch;
    this.#session += 1;
    this.#priority.length = 0;
    const memory = this.device.messageMemory(this.capacity * AREA_SIZE);
    for (let i = this.#tags.length; i < this.capacity; i += 1) {
      const at = i * AREA_SIZE;
      this.#tags.push({
        message: memory.subarray(at, at + HALF),
        reply: memory.subarray(at + HALF, at + AREA_SIZE),
        state: FREE,
        token: -1,
        epoch: 0,
        unique: 0,
        opcode: 0,
        out: In.none,
        room: 0,
        failure: undefined,
        length: 0,
        interrupted: false,
        nodeid: 0n,
        session: 0,
        done: undefined,
        resolve: undefined,
        then: undefined,
      });
    }
    this.look();
  }

  /** Ends the session: fids that are left are stale, and nothing is sent any more, as the device may have another client. */
  end(): void {
    this.#epoch = -1;
    this.#session += 1;
    this.#priority.length = 0;
  }

  /**
   * Runs a task with promises.
   *
   * @throws {@link VirtioError} `ABORTED`; `UNSUPPORTED` on a transport without interrupts; `INVALID_PARAM` for a signal of a wrong type;
   * what the task throws
   */
  async run<V>(task: Task<V>, { signal }: WaitOptions = {}): Promise<V> {
    requireWaitable(this.device.transport);
    requireSignal(this.device.transport, signal);
    refuseAborted(signal);
    let aborted = false;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) await this.#room(aborted ? undefined : signal);
        else if (wait >= HOLD) {
          await this.#answeredOrAborted(this.#tag(wait - HOLD), aborted ? undefined : signal);
        } else if (wait !== CHECK) await this.#answered(this.#tag(wait), signal);
        // Only once: the clean-up is not cancelled.
        if (signal?.aborted === true && !aborted && this.#isCancellable(wait)) {
          aborted = true;
          throw abortError(signal);
        }
      } catch (error) {
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    if (this.isCurrent) this.device.kickSoon();
    return step.value;
  }

  /**
   * Runs a task and spins until it ends.
   *
   * @throws {@link VirtioError} `NOT_READY`, `QUEUE_FULL`; what the task throws
   */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    let time = options;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) this.#roomSync(time);
        else if (wait !== CHECK) {
          const tag = this.#tag(wait % HOLD);
          this.#spin(() => tag.state === DONE, time);
        }
      } catch (error) {
        if (VirtioError.is(error, 'NOT_READY')) time = ONE_LOOK;
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    if (this.isCurrent) this.device.kick();
    return step.value;
  }

  /**
   * Sends a request and waits for its reply.
   *
   * @param hold whether it is sent even if the task was cancelled, as it cleans up; the task may end before it is answered
   */
  *call<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, hold = false): Task<Reply<O>> {
    const tag = yield* this.send(call, hold);
    return yield* this.receive(tag, call, hold);
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

  /** Sends a request if a tag is free. @returns the tag, or -1 */
  trySend<I extends FieldTable, O extends FieldTable>(call: Call<I, O>): number {
    const { device } = this;
    if (device.failure !== undefined) throw device.failure;
    if (this.#epoch < 0) throw notConnected();
    if (this.#epoch !== device.epoch) {
      throw new VirtioError(
        'DEVICE_RESET',
        `${device.transport.who()} was reset, and the server's session is over; mount it again`,
      );
    }
    this.look();
    const index = this.#tags.findIndex(({ state }) => state === FREE);
    if (index < 0) return -1;
    this.#transmit(this.#tag(index), call);
    return index;
  }

  /** Like {@link Exchange.trySend}, for a task with requests in flight: -1 also without memory or room in the queue, as the task will free some. */
  trySendMore<I extends FieldTable, O extends FieldTable>(call: Call<I, O>): number {
    try {
      return this.trySend(call);
    } catch (error) {
      if (VirtioError.is(error, 'DMA_ERROR') || VirtioError.is(error, 'QUEUE_FULL')) return -1;
      throw error;
    }
  }

  /** Waits for the reply to a request. @param then called once the server no longer works on it, also if the task ends before that */
  *receive<I extends FieldTable, O extends FieldTable>(
    index: number,
    { out, opcode }: Call<I, O>,
    hold = false,
    then?: () => void,
  ): Task<Reply<O>> {
    const tag = this.#tag(index);
    try {
      yield hold ? index + HOLD : index;
    } catch (error) {
      // The device may still have its buffers.
      this.#orphan(tag, then);
      throw error;
    }
    const { length, reply, failure, interrupted, room } = tag;
    this.#free(tag);
    then?.();
    if (failure !== undefined) throw failure as Error;
    const view = new DataView(reply.buffer, reply.byteOffset, reply.length);
    if (length === 0) {
      // virtiofsd ends a session without a reply.
      if (opcode === Opcode.DESTROY) return { values: out.read(view, OUT_HEADER_SIZE), count: 0 };
      throw this.lie(opcode, 'there is none');
    }
    const error = -view.getInt32(OutHeader.offset.error, true);
    if (error !== 0) {
      if (error < 0 || error > MAX_ERRNO) throw this.lie(opcode, `its error is ${-error}`);
      if (error === EINTR && interrupted) {
        throw new VirtioError('ABORTED', 'the operation was cancelled by its caller');
      }
      throw new FileError(error, operation(opcode));
    }
    const size = OUT_HEADER_SIZE + out.size;
    if (length < size || length > size + room) {
      throw this.lie(opcode, `it has ${length} bytes instead of ${size} to ${size + room}`);
    }
    return { values: out.read(view, OUT_HEADER_SIZE), count: length - size };
  }

  /** Waits for the reply to a request and ignores it: buffers must not be released while a request uses them. */
  *discard(index: number): Task<void> {
    try {
      yield index;
      this.#dropAnswer(this.#tag(index));
    } catch {
      this.#orphan(this.#tag(index), undefined);
    }
  }

  /** Sends a request whose answer is not needed, if a tag is free. @param then called when the answer has arrived */
  drop<I extends FieldTable, O extends FieldTable>(call: Call<I, O>, then: () => void): boolean {
    const tag = this.trySend(call);
    if (tag < 0) return false;
    this.#orphan(this.#tag(tag), then);
    return true;
  }

  /** Tells the server to forget lookups of a node [5.11.6.2]. */
  forget(nodeid: bigint, nlookup: number): void {
    if (!this.isCurrent) return;
    const message = new Uint8Array(IN_HEADER_SIZE + In.forget.size);
    this.#header(message, Opcode.FORGET, nodeid, message.length);
    In.forget.write(new DataView(message.buffer), IN_HEADER_SIZE, { nlookup: BigInt(nlookup) });
    this.#sendPriority(message);
  }

  /** Waits until all requests whose answers are not needed are answered. */
  *quiesce(): Task<void> {
    for (;;) {
      this.look();
      const index = this.#tags.findIndex(({ state, then }) => state === ORPHAN && then !== undefined);
      if (index < 0) return;
      // A task takes it again, and waits for it.
      const tag = this.#tag(index);
      const { then } = tag;
      tag.state = IN_FLIGHT;
      try {
        yield index + HOLD;
      } catch (error) {
        this.#orphan(tag, then);
        throw error;
      }
      this.#free(tag);
      then?.();
    }
  }

  /** Takes the device's answers. */
  look(): void {
    for (const tag of this.#tags) if (tag.state === IN_FLIGHT || tag.state === ORPHAN) this.#lookAt(tag);
    while (this.#priority.length > 0 && this.#trySendPriority(this.#priority[0] as Uint8Array)) {
      this.#priority.shift();
    }
    this.#listen();
  }

  /** The error of a reply that makes no sense. */
  lie(opcode: number, what: string): VirtioError {
    return new VirtioError(
      'DEVICE_MISBEHAVED',
      `${this.device.transport.who()}: the server's reply to ${operation(opcode)} makes no sense: ${what}`,
    );
  }

  #tag(index: number): Tag {
    return this.#tags[index] as Tag;
  }

  #header(message: Uint8Array, opcode: number, nodeid: bigint, len: number, gid?: number): void {
    this.#unique = this.#unique >= 2 ** 52 ? 2 : this.#unique + 2;
    const { uid, gid: own } = this.#credentials;
    InHeader.write(new DataView(message.buffer, message.byteOffset, message.length), 0, {
      len,
      opcode,
      unique: BigInt(this.#unique),
      nodeid,
      uid,
      gid: gid ?? own,
      pid: 1,
    });
  }

  #transmit<I extends FieldTable, O extends FieldTable>(tag: Tag, call: Call<I, O>): void {
    const { opcode, nodeid, layout, values, out, names = [], data, room } = call;
    const { message } = tag;
    const view = new DataView(message.buffer, message.byteOffset, message.length);
    layout.write(view, IN_HEADER_SIZE, values);
    let length = IN_HEADER_SIZE + layout.size;
    for (const name of names) {
      if (length + name.length + 1 > MAX_NAMES) throw new FileError(ENAMETOOLONG, operation(opcode));
      message.set(name, length);
      message[length + name.length] = 0;
      length += name.length + 1;
    }
    const whole = data !== undefined && data.length > 0 ? data : undefined;
    const target = room !== undefined && room.length > 0 ? room : undefined;
    this.#header(message, opcode, nodeid, length + (whole?.length ?? 0), call.gid);
    tag.unique = this.#unique;
    tag.opcode = opcode;
    tag.room = target?.length ?? 0;
    tag.failure = undefined;
    tag.interrupted = false;
    tag.nodeid = nodeid;
    tag.session = this.#session;
    tag.out = out;
    tag.epoch = this.device.epoch;
    tag.token = this.device.submitRequest(
      message.subarray(0, length),
      tag.reply.subarray(0, OUT_HEADER_SIZE + out.size),
      whole,
      target,
      { kick: false },
    );
    tag.state = IN_FLIGHT;
    this.device.kickSoon();
  }

  /** Takes the answer to a request, if it is there. */
  #lookAt(tag: Tag): void {
    const { device } = this;
    try {
      if (tag.epoch === device.epoch && !device.isDone(tag.token)) return;
      tag.length = device.complete(tag.token);
    } catch (error) {
      tag.failure =
        tag.epoch === device.epoch
          ? error
          : new VirtioError('DEVICE_RESET', `${device.transport.who()} was reset: mount it again`);
    }
    const { then, resolve } = tag;
    if (tag.state === ORPHAN) {
      this.#dropAnswer(tag);
      then?.();
      return;
    }
    tag.state = DONE;
    if (resolve === undefined) return;
    tag.resolve = undefined;
    tag.done = undefined;
    this.#awaited -= 1;
    resolve();
  }

  /**
   * Frees a tag whose answer no task takes. The server would keep the node that was looked up and the file that was opened until the
   * session ends, so they are released.
   */
  #dropAnswer(tag: Tag): void {
    const { opcode, failure, length, session } = tag;
    const view = new DataView(tag.reply.buffer, tag.reply.byteOffset, tag.reply.length);
    const made = ENTRY_OPCODES.includes(opcode);
    const opened = OPEN_OPCODES.includes(opcode);
    const out = opcode === Opcode.CREATE ? Out.create : made ? Out.entry : Out.open;
    const good =
      (made || opened) &&
      failure === undefined &&
      session === this.#session &&
      length >= OUT_HEADER_SIZE + out.size &&
      view.getInt32(OutHeader.offset.error, true) === 0;
    const nodeid = good && made ? Out.entry.read(view, OUT_HEADER_SIZE).nodeid : tag.nodeid;
    const fh = good && opened ? view.getBigUint64(OUT_HEADER_SIZE + (made ? Out.entry.size : 0), true) : 0n;
    this.#free(tag);
    if (!good) return;
    const forget = (): void => {
      if (made && nodeid !== 0n && nodeid !== ROOT_ID) this.forget(nodeid, 1);
    };
    try {
      const release = opcode === Opcode.OPENDIR ? Opcode.RELEASEDIR : Opcode.RELEASE;
      const call = { opcode: release, nodeid, layout: In.release, values: { fh }, out: Out.none };
      if (opened && this.isCurrent && this.drop(call, forget)) return;
    } catch (error) {
      if (!VirtioError.is(error)) throw error;
    }
    forget();
  }

  #free(tag: Tag): void {
    tag.state = FREE;
    tag.then = undefined;
    tag.failure = undefined;
    this.#waiters.shift()?.();
  }

  #orphan(tag: Tag, then: (() => void) | undefined): void {
    if (tag.state === DONE) {
      this.#dropAnswer(tag);
      then?.();
      return;
    }
    // Its caller may use the buffer for the data again. Other replies are needed, as they may name what must be released.
    if (tag.room > 0) this.device.disown(tag.token);
    tag.state = ORPHAN;
    tag.then = then;
  }

  /** Listens for answers while a task waits with a promise. */
  #listen(): void {
    const wanted = this.#awaited > 0 || this.#waiters.length > 0;
    if (wanted === (this.#deafen !== undefined)) return;
    if (!wanted) {
      this.#deafen?.();
      this.#deafen = undefined;
      return;
    }
    const look = (): void => this.look();
    const ends = [this.device.on('used', look), this.device.on('lost', look)];
    this.#deafen = () => {
      for (const end of ends) end();
    };
  }

  /** Whether a task that waited for `wait` can be cancelled: one whose request is interrupted takes the reply first. */
  #isCancellable(wait: number): boolean {
    return wait === CHECK || wait === ROOM || (wait >= HOLD && this.#tag(wait - HOLD).state !== DONE);
  }

  /** Begins to wait for an answer that is not there yet. */
  #await(tag: Tag): Promise<void> {
    if (tag.done === undefined) {
      tag.done = new Promise((resolve) => {
        tag.resolve = resolve;
      });
      this.#awaited += 1;
    }
    this.#listen();
    return tag.done;
  }

  /** Waits for an answer, or until the caller aborts: the request goes on then, and nobody waits for it. */
  async #answeredOrAborted(tag: Tag, signal: AbortSignalLike | undefined): Promise<void> {
    this.look();
    if (tag.state === DONE) return;
    const done = this.#await(tag);
    await settledOrAborted(done, signal);
    if (tag.done === done) {
      tag.done = undefined;
      tag.resolve = undefined;
      this.#awaited -= 1;
    }
    this.#listen();
  }

  /** Waits for an answer. If the caller aborts, this interrupts the request, and still waits for the answer. */
  async #answered(tag: Tag, signal: AbortSignalLike | undefined): Promise<void> {
    this.look();
    if (tag.state === DONE) return;
    const done = this.#await(tag);
    const abort = (): void => this.#interrupt(tag);
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort);
    try {
      await done;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.#listen();
    }
  }

  /** Asks the server to end a request early. The server still answers that request, with EINTR if it was interrupted. */
  #interrupt(tag: Tag): void {
    if (tag.state !== IN_FLIGHT || tag.interrupted || !this.isCurrent) return;
    tag.interrupted = true;
    const message = new Uint8Array(IN_HEADER_SIZE + In.interrupt.size);
    this.#header(message, Opcode.INTERRUPT, 0n, message.length);
    In.interrupt.write(new DataView(message.buffer), IN_HEADER_SIZE, { unique: BigInt(tag.unique) });
    this.#sendPriority(message);
  }

  #sendPriority(message: Uint8Array): void {
    if (this.#priority.length > 0 || !this.#trySendPriority(message)) this.#priority.push(message);
  }

  /** Sends a message without an answer, if there is room and memory for it now. */
  #trySendPriority(message: Uint8Array): boolean {
    if (!this.isCurrent) return false;
    try {
      return this.device.sendPriority(message);
    } catch (error) {
      // Memory may be short, or the device may have failed; the next request reports that.
      if (!VirtioError.is(error)) throw error;
      return false;
    }
  }

  async #room(signal: AbortSignalLike | undefined): Promise<void> {
    let wake = (): void => undefined;
    const free = new Promise<void>((resolve) => {
      wake = resolve;
    });
    this.#waiters.push(wake);
    this.look();
    const leave = (): void => {
      const place = this.#waiters.indexOf(wake);
      if (place >= 0) this.#waiters.splice(place, 1);
      wake();
    };
    signal?.addEventListener('abort', leave);
    if (this.#tags.some(({ state }) => state === FREE) || !this.isCurrent || signal?.aborted === true) {
      leave();
    }
    try {
      await free;
    } finally {
      signal?.removeEventListener('abort', leave);
      this.#listen();
    }
  }

  #roomSync(time: SpinOptions | undefined): void {
    const isFree = (): boolean => this.#tags.some(({ state }) => state === FREE);
    this.look();
    if (!isFree() && !this.#tags.some(({ state }) => state === ORPHAN)) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.device.transport.who()}: requests with promises use all ${this.capacity} tags; wait until one of them ends`,
      );
    }
    this.#spin(isFree, time);
  }

  #spin(done: () => boolean, time: SpinOptions | undefined): void {
    const { device } = this;
    const looked = (): boolean => {
      this.look();
      return done();
    };
    try {
      if (device.failure === undefined) device.kick();
      spin(device.transport, looked, time, 'the answer of the file server');
    } catch (error) {
      if (VirtioError.is(error) && error.code !== 'NOT_READY' && error.code !== 'INVALID_PARAM') {
        device.fail(error);
      }
      throw error;
    }
  }
}

const OPERATIONS = new Map<number, string>(
  Object.entries(Opcode).map(([name, number]) => [number, name.toLowerCase()]),
);

function operation(opcode: number): string {
  return OPERATIONS.get(opcode) ?? `request ${opcode}`;
}

/** The error of a client that has no session. */
export function notConnected(): VirtioError {
  return new VirtioError(
    'NOT_READY',
    'this FUSE client is not connected; run its task connect(), or mount the file system again',
  );
}
