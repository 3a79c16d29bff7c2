/**
 * Tags: the numbers by which the client tells its requests apart, and what belongs to each.
 *
 * Each tag has a piece of DMA memory for its message and its reply, so that small messages need no sharing. Data of
 * reads and writes above what fits there goes straight from and to the caller's buffer.
 *
 * A tag is used again only when the device has given its buffers back. What nobody waits for any more (the clunk of a fid that
 * was dropped, a request whose time was over) keeps its tag until then.
 */
import { type AbortSignalLike, VirtioError } from '@virtio/core';
import { encodeMessage, MalformedError, UnencodableError } from './codec.ts';
import { refuse } from '@virtio/files';
import { type Fields, type Message, type MessageValues, NO_TAG, R, T } from './protocol.ts';
import { DATA_OFFSET, readReply } from './reply.ts';
import type { Virtio9p } from './virtio-9p.ts';

/** How many requests can be in flight, one of them a cancellation. */
const MAX_TAGS = 64;

/** Tags that are kept for cancellations, so that these get through when all else is stuck. */
export const RESERVED_TAGS = 1;

/** The memory of a tag: half for the message, half for the reply. */
const AREA_SIZE = 16384;
const HALF = AREA_SIZE / 2;

/** What the header of a read or write may take of a message, by the custom of the protocol. */
export const IO_HEADER_SIZE = 24;

/** Data up to this length is copied through the memory of its tag. */
const INLINE = HALF - IO_HEADER_SIZE;

/** Data that goes with a request. */
export interface RequestData {
  /** What follows the message. */
  readonly data?: Uint8Array;
  /** Where the data of the reply goes. */
  readonly room?: Uint8Array;
}

/** A request that nobody waits for. */
interface Orphan {
  readonly tag: number;
  /** Takes its reply. */
  readonly finish: () => void;
  /** Whether {@link Tags.firstOrphan} finds it. */
  readonly wanted: boolean;
}

/** The tags of a client. */
export class Tags {
  /** The device below. */
  readonly device: Virtio9p;
  /** How many there are. */
  readonly count: number;
  /** The largest message, as negotiated. */
  limit = HALF;

  readonly #message: Uint8Array<ArrayBuffer>[] = [];
  readonly #reply: Uint8Array<ArrayBuffer>[] = [];
  readonly #free: number[] = [];
  // By tag: the device's token and the epoch that it belongs to, the room for data and its size then, whether a cancellation was sent, the
  // tag as the server sees it, the message's name, and what those who wait with promises wait for.
  readonly #tokens = new Int32Array(MAX_TAGS);
  readonly #epochs = new Float64Array(MAX_TAGS);
  readonly #rooms: (Uint8Array | undefined)[] = [];
  readonly #roomSizes = new Float64Array(MAX_TAGS);
  readonly #cancelled = new Uint8Array(MAX_TAGS);
  readonly #onWire = new Uint16Array(MAX_TAGS);
  readonly #names: string[] = [];
  readonly #promises: (Promise<void> | undefined)[] = [];
  readonly #resolves: ((() => void) | undefined)[] = [];
  #awaited = 0;
  readonly #orphans: Orphan[] = [];
  /** Who waits for a free tag: tasks, and cancellations. */
  readonly #waiters: (() => void)[] = [];
  readonly #cancellers: (() => void)[] = [];
  /** Ends listening to the device; `undefined` while nobody waits. */
  #deafen: (() => void) | undefined;

  /** @throws {@link VirtioError} `UNSUPPORTED` if the device has room for too few requests */
  constructor(device: Virtio9p) {
    this.device = device;
    this.count = Math.min(MAX_TAGS, device.capacity);
    if (this.count <= RESERVED_TAGS) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${device.transport.who()}: its queue has room for ${this.count} requests; a client needs ${RESERVED_TAGS + 1}`,
      );
    }
    for (let tag = this.count - 1; tag >= 0; tag -= 1) this.#free.push(tag);
  }

  /** How many are free. */
  get free(): number {
    return this.#free.length;
  }

  /**
   * Begins a session: allocates memory if there is none yet, and ends what a reset has ended.
   *
   * @throws {@link VirtioError} `DMA_ERROR`
   */
  restart(): void {
    if (this.#message.length === 0) {
      const memory = this.device.messageMemory(MAX_TAGS * AREA_SIZE);
      for (let tag = 0; tag < this.count; tag += 1) {
        const at = tag * AREA_SIZE;
        this.#message.push(memory.subarray(at, at + HALF));
        this.#reply.push(memory.subarray(at + HALF, at + AREA_SIZE));
      }
    }
    this.sweep();
    this.limit = HALF;
  }

  /**
   * Sends a request with a tag of those that are free; there must be one. The device sees it after a kick.
   *
   * @returns the tag
   * @throws {@link VirtioError} `INVALID_PARAM` for values that the message cannot hold, `QUEUE_FULL`, `DMA_ERROR`, or why the device
   * no longer works
   */
  transmit<F extends Fields>(
    message: Message<F>,
    values: MessageValues<F>,
    { data, room }: RequestData,
  ): number {
    const { device } = this;
    const tag = this.#free.pop() as number;
    const area = this.#message[tag] as Uint8Array;
    const reply = this.#reply[tag] as Uint8Array;
    try {
      const target = area.subarray(0, Math.min(HALF, this.limit));
      let length = encodeMessage(target, wireTag(message, tag), message, values, data?.length);
      let requestData = data;
      if (data !== undefined && data.length <= INLINE) {
        area.set(data, length);
        length += data.length;
        requestData = undefined;
      }
      const direct = isDirect(room);
      this.#tokens[tag] = device.submitRequest(
        area.subarray(0, length),
        direct ? reply.subarray(0, DATA_OFFSET) : reply,
        requestData,
        direct ? room : undefined,
        LATER,
      );
    } catch (error) {
      this.#release(tag);
      throw error instanceof UnencodableError ? refuse(error.code, message.name) : error;
    }
    this.#epochs[tag] = device.epoch;
    this.#rooms[tag] = room;
    this.#roomSizes[tag] = room?.length ?? 0;
    this.#cancelled[tag] = 0;
    this.#onWire[tag] = wireTag(message, tag);
    this.#names[tag] = message.name;
    return tag;
  }

  /** Whether a request has ended: it was answered or lost, or its reply was taken already. */
  isDone(tag: number): boolean {
    const token = this.#tokens[tag] as number;
    return token === TAKEN || this.isLost(tag) || this.device.isDone(token);
  }

  /** Whether a reset has ended a request, answered or not: its token is void. */
  isLost(tag: number): boolean {
    return this.#epochs[tag] !== this.device.epoch;
  }

  /**
   * Ends a request that is done, and reads its reply. The tag is free afterwards.
   *
   * @throws {@link VirtioError} `DEVICE_RESET`, `DEVICE_MISBEHAVED`, `ABORTED` if it was cancelled, or why the request was lost
   */
  finish<G extends Fields>(tag: number, message: Message<G>): MessageValues<G> {
    const { device } = this;
    const name = this.#names[tag] as string;
    try {
      if (this.isLost(tag)) {
        throw (
          device.failure ??
          new VirtioError(
            'DEVICE_RESET',
            `${device.transport.who()} was reset; it is unknown whether ${name} was carried out`,
          )
        );
      }
      const length = device.complete(this.#tokens[tag] as number);
      if (length === 0) throw this.#unanswered(tag, name);
      const room = this.#rooms[tag];
      if (room !== undefined && room.length !== this.#roomSizes[tag]) {
        throw new VirtioError(
          'INVALID_PARAM',
          `${device.transport.who()}: the buffer for ${name} was transferred or resized meanwhile, so the data of the server is lost; do not ` +
            'change it before the call has ended',
        );
      }
      return readReply(this.#reply[tag] as Uint8Array, length, {
        message,
        tag: wireTag(message, tag),
        request: name,
        room,
        direct: isDirect(room),
      });
    } catch (error) {
      if (!(error instanceof MalformedError)) throw error;
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${device.transport.who()}: the server's reply to ${name} makes no sense: ${error.message}. Whether the request ` +
          'was carried out is not known',
      );
    } finally {
      this.#release(tag);
    }
  }

  /** Leaves a request to itself; `finish` takes its reply when it comes. */
  orphan(tag: number, finish: () => void): void {
    this.#orphans.push({ tag, finish, wanted: true });
  }

  /** Leaves a request to itself whose reply does not matter, and may never come. */
  abandon(tag: number): void {
    const finish = (): void => {
      try {
        this.finish(tag, R.flush);
      } catch {
        return;
      }
    };
    this.device.disown(this.#tokens[tag] as number);
    this.#orphans.push({ tag, finish, wanted: false });
    this.sweep();
  }

  /** A request that was left to itself and whose reply is wanted, or -1. */
  get firstOrphan(): number {
    return this.#orphans.find(({ wanted }) => wanted)?.tag ?? -1;
  }

  /** Ends the requests that nobody waits for and that are done. */
  sweep(): void {
    if (this.#orphans.length === 0) return;
    for (const orphan of this.#orphans.splice(0)) {
      if (this.isDone(orphan.tag)) orphan.finish();
      else this.#orphans.push(orphan);
    }
  }

  /** Waits for the end of a request; several may wait for one. The device is told of all requests when this turn ends. */
  done(tag: number): Promise<void> {
    this.device.kickSoon();
    if (this.isDone(tag)) return Promise.resolve();
    const promise = (this.#promises[tag] ??= new Promise<void>((resolve) => {
      this.#resolves[tag] = resolve;
      this.#awaited += 1;
    }));
    this.#listen();
    return promise;
  }

  /**
   * The caller of {@link Tags.done}, which returned `promise`, no longer waits. Others who wait for the same request look again; by now the
   * tag may be that of another one, which is left alone.
   */
  undone(tag: number, promise: Promise<void>): void {
    if (this.#promises[tag] !== promise) return;
    this.#tell(tag);
    this.#deafenIfIdle();
  }

  /** Waits until more than `reserved` tags may be free, or `signal` is aborted. */
  async room(reserved: number, signal?: AbortSignalLike): Promise<void> {
    this.sweep();
    if (this.free > reserved) return;
    const waiters = reserved === 0 ? this.#cancellers : this.#waiters;
    this.device.kickSoon();
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      const abort = (): void => {
        waiters.splice(waiters.indexOf(wake), 1);
        wake();
        this.#deafenIfIdle();
      };
      signal?.addEventListener('abort', abort);
      waiters.push(wake);
      this.#listen();
    });
  }

  /** The tag of a request as the server sees it. */
  onWire(tag: number): number {
    return this.#onWire[tag] as number;
  }

  /** Marks a request that a cancellation was sent for: that it ends without a reply is no lie then. */
  cancelled(tag: number): void {
    this.#cancelled[tag] = 1;
  }

  /** Wakes who waits for a tag, if one is free: first a cancellation, for which the last tag is kept. */
  wake(): void {
    if (this.free === 0) return;
    if (this.#cancellers.length > 0) this.#cancellers.shift()?.();
    else if (this.free > RESERVED_TAGS) this.#waiters.shift()?.();
  }

  /** Whether a request was sent after which a kick is due: for what ends a task without waiting. */
  get hasOrphans(): boolean {
    return this.#orphans.length > 0;
  }

  /** Looks what was answered, for those who wait with promises. */
  readonly look = (): void => {
    for (let tag = 0; this.#awaited > 0 && tag < this.count; tag += 1) {
      if (this.#resolves[tag] !== undefined && this.isDone(tag)) this.#tell(tag);
    }
    this.sweep();
    this.#deafenIfIdle();
  };

  #release(tag: number): void {
    this.#tell(tag);
    this.#tokens[tag] = TAKEN;
    this.#rooms[tag] = undefined;
    this.#free.push(tag);
    this.wake();
  }

  /** Tells those who wait for a request that it has ended. */
  #tell(tag: number): void {
    const resolve = this.#resolves[tag];
    this.#promises[tag] = undefined;
    this.#resolves[tag] = undefined;
    if (resolve === undefined) return;
    this.#awaited -= 1;
    resolve();
  }

  #unanswered(tag: number, name: string): Error {
    if (this.#cancelled[tag] === 0) return new MalformedError('it is empty');
    return new VirtioError(
      'ABORTED',
      `${name} was cancelled by its caller; the server has not carried it out`,
    );
  }

  /** Takes answers and losses while a caller waits: that asks for interrupts, and keeps the event loop alive. */
  #listen(): void {
    if (this.#deafen !== undefined) return;
    const answered = this.device.on('used', this.look);
    const lost = this.device.on('lost', this.#lost);
    this.#deafen = () => {
      answered();
      lost();
    };
  }

  #deafenIfIdle(): void {
    if (this.#awaited > 0 || this.#waiters.length > 0 || this.#cancellers.length > 0) return;
    const deafen = this.#deafen;
    this.#deafen = undefined;
    deafen?.();
  }

  /** All requests are lost: who waits for a tag learns of it by trying to send. */
  readonly #lost = (): void => {
    for (let tag = 0; tag < this.count; tag += 1) this.#tell(tag);
    for (const wake of [...this.#cancellers.splice(0), ...this.#waiters.splice(0)]) wake();
    this.#deafenIfIdle();
  };
}

const LATER = { kick: false };

/** In the place of the token of a request whose reply was taken. */
const TAKEN = -1;

/** Whether the device puts data where it belongs, so that it need not be copied there. */
function isDirect(room: Uint8Array | undefined): boolean {
  return room !== undefined && room.length > INLINE;
}

function wireTag(message: Message, tag: number): number {
  return message.type === T.version.type || message.type === R.version.type ? NO_TAG : tag;
}
