/**
 * Tags: the numbers of a client's requests, and the wait for their answers.
 *
 * A tag is used again only when the device has given the request's buffers back. A request that no task waits for any more keeps its tag
 * until then.
 */
import { type AbortSignalLike, type Transport, VirtioError } from '@virtio/core';
import { HOLD, ROOM, type Task } from './task.ts';

/** A device to which a client sends requests. */
export interface TagDevice {
  /** Its transport. */
  readonly transport: Transport;
  /** Why it no longer works, until it is reset. */
  readonly failure: VirtioError | undefined;
  /** How often it was reset. */
  readonly epoch: number;
  /** How many requests it has room for. */
  readonly capacity: number;
  /** How many requests it has. */
  readonly inFlight: number;
  /** Whether a request can be completed. */
  isDone(token: number): boolean;
  /** Ends a request. Returns the bytes of the reply. */
  complete(token: number): number;
  /** Takes what was answered. */
  drain(): void;
  /** Notifies the device of all requests that were submitted. */
  kick(): void;
  /** The same when the current turn of the event loop ends. */
  kickSoon(): void;
  /** Calls a listener when requests are done, or all were lost. Returns a function that removes it. */
  on(event: 'used' | 'lost', listener: () => void): () => void;
  /** The device no longer works. */
  fail(error: VirtioError): void;
}

/** Options of {@link Tags}. */
export interface TagsOptions {
  /** The most requests in flight. */
  readonly most: number;
  /** The number of tags that only cancellations get, so that these are sent when all else is stuck (default 0). */
  readonly reserved?: number;
  /** Called when answers were looked for. */
  readonly looked?: () => void;
}

/** A request that no task waits for. */
interface Orphan {
  readonly tag: number;
  /** Takes its answer, and releases the tag. */
  readonly finish: () => void;
  /** Whether {@link Tags.quiesce} waits for it. */
  readonly wanted: boolean;
}

/** In the place of the token of a request whose answer was taken. */
const TAKEN = -1;

/** The tags of a client. */
export class Tags {
  /** How many there are. */
  readonly count: number;

  readonly #device: TagDevice;
  readonly #reserved: number;
  readonly #looked: (() => void) | undefined;
  readonly #free: number[] = [];
  // By tag: the device's token, the epoch that it belongs to, and what tasks with promises wait for.
  readonly #tokens: Int32Array;
  readonly #epochs: Float64Array;
  readonly #promises: (Promise<void> | undefined)[] = [];
  readonly #resolves: ((() => void) | undefined)[] = [];
  #awaited = 0;
  readonly #orphans: Orphan[] = [];
  /** Requests for which there was no tag, and that no task waits for. Each returns whether it was sent. */
  readonly #unsent: (() => boolean)[] = [];
  /** Who waits for a tag: tasks, and cancellations. */
  readonly #waiters: (() => void)[] = [];
  readonly #cancellers: (() => void)[] = [];
  /** Ends listening to the device; `undefined` while nobody waits. */
  #deafen: (() => void) | undefined;

  /** @throws {@link VirtioError} `UNSUPPORTED` if the device has room for too few requests */
  constructor(device: TagDevice, { most, reserved = 0, looked }: TagsOptions) {
    this.#device = device;
    this.#reserved = reserved;
    this.#looked = looked;
    this.count = Math.min(most, device.capacity);
    if (this.count <= reserved) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${device.transport.who()}: its queue has room for ${this.count} requests, a file system needs ${reserved + 1}; give the device ` +
          'a larger queue',
      );
    }
    this.#tokens = new Int32Array(this.count).fill(TAKEN);
    this.#epochs = new Float64Array(this.count);
    for (let tag = this.count - 1; tag >= 0; tag -= 1) this.#free.push(tag);
  }

  /** The most requests that tasks can have in flight. */
  get capacity(): number {
    return this.count - this.#reserved;
  }

  /** How many requests are in flight, or have answers that were not taken. */
  get inFlight(): number {
    return this.count - this.#free.length;
  }

  /** Whether a task can send a request. */
  get hasRoom(): boolean {
    return this.#free.length > this.#reserved;
  }

  /** Whether there are requests that no task waits for. */
  get hasOrphans(): boolean {
    return this.#orphans.length > 0;
  }

  /** Takes a free tag for a request, or returns -1. Either {@link Tags.sent} or {@link Tags.release} follows. */
  take(): number {
    return this.hasRoom ? (this.#free.pop() as number) : -1;
  }

  /** The same for a cancellation. */
  takeReserved(): number {
    return this.#free.pop() ?? -1;
  }

  /** The request of a tag was submitted. */
  sent(tag: number, token: number): void {
    this.#tokens[tag] = token;
    this.#epochs[tag] = this.#device.epoch;
  }

  /** The device's token of a request. */
  token(tag: number): number {
    return this.#tokens[tag] as number;
  }

  /** Whether a request has ended: it was answered or lost, or its answer was taken. */
  isDone(tag: number): boolean {
    const token = this.#tokens[tag] as number;
    return token === TAKEN || this.#isLost(tag) || this.#device.isDone(token);
  }

  /**
   * Takes the answer to a request that is done; {@link Tags.release} follows.
   *
   * @param request its name, for messages
   * @returns what the device's `complete` returns
   * @throws {@link VirtioError} `DEVICE_RESET`, or why the request was lost
   */
  complete(tag: number, request: string): number {
    const device = this.#device;
    if (!this.#isLost(tag)) return device.complete(this.#tokens[tag] as number);
    throw (
      device.failure ??
      new VirtioError(
        'DEVICE_RESET',
        `${device.transport.who()} was reset; it is unknown whether ${request} was carried out`,
      )
    );
  }

  /** Frees a tag. */
  release(tag: number): void {
    this.#tell(tag);
    this.#tokens[tag] = TAKEN;
    this.#free.push(tag);
    this.wake();
  }

  /** No task waits for a request any more: `finish` takes its answer when it comes, and releases the tag. */
  orphan(tag: number, finish: () => void, wanted: boolean): void {
    this.#orphans.push({ tag, finish, wanted });
  }

  /** Sends a request that no task waits for as soon as there is a tag for it. @param send returns whether it was sent */
  sendLater(send: () => boolean): void {
    this.#unsent.push(send);
  }

  /** The session ends: drops requests that were not sent yet, and wakes the tasks that wait for a tag, which they cannot use any more. */
  end(): void {
    this.#unsent.length = 0;
    for (const wake of this.#waiters.splice(0)) wake();
    this.#deafenIfIdle();
  }

  /** Waits until the requests that no task waits for, and whose answers are wanted, were sent and answered. */
  *quiesce(): Task<void> {
    for (;;) {
      this.sweep();
      const orphan = this.#orphans.find(({ wanted }) => wanted);
      if (orphan !== undefined) {
        yield orphan.tag + HOLD;
      } else if (this.#unsent.length > 0 && !this.hasRoom) {
        yield ROOM;
      } else {
        return;
      }
    }
  }

  /** Takes the answers that no task waits for. */
  sweep(): void {
    if (this.#orphans.length > 0) {
      for (const orphan of this.#orphans.splice(0)) {
        if (this.isDone(orphan.tag)) orphan.finish();
        else this.#orphans.push(orphan);
      }
    }
    if (this.#unsent.length > 0) this.wake();
    this.#looked?.();
  }

  /**
   * Waits for the end of a request; several may wait for one. The device is notified of all requests when this turn of the event loop
   * ends.
   */
  done(tag: number): Promise<void> {
    this.#device.kickSoon();
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
   * tag may be that of another request, which is left alone.
   */
  undone(tag: number, promise: Promise<void>): void {
    if (this.#promises[tag] !== promise) return;
    this.#tell(tag);
    this.#deafenIfIdle();
  }

  /** Waits until a task may be able to send, or `signal` is aborted. */
  async room(signal?: AbortSignalLike): Promise<void> {
    this.sweep();
    if (!this.hasRoom) await this.#join(this.#waiters, signal);
  }

  /** Waits until there is a tag for a cancellation. */
  async roomToCancel(): Promise<void> {
    this.sweep();
    while (this.#free.length === 0) await this.#join(this.#cancellers, undefined);
  }

  /**
   * Wakes who waits for a tag, if one is free: cancellations first, for which the last tags are reserved, then requests that no task waits
   * for, then tasks.
   */
  wake(): void {
    if (this.#free.length > 0 && this.#cancellers.length > 0) {
      this.#cancellers.shift()?.();
      return;
    }
    while (this.hasRoom) {
      const send = this.#unsent.shift();
      if (send === undefined) break;
      if (!send()) {
        this.#unsent.unshift(send);
        break;
      }
      this.#device.kickSoon();
    }
    if (this.hasRoom) this.#waiters.shift()?.();
  }

  readonly #look = (): void => {
    for (let tag = 0; this.#awaited > 0 && tag < this.count; tag += 1) {
      if (this.#resolves[tag] !== undefined && this.isDone(tag)) this.#tell(tag);
    }
    this.sweep();
    this.#deafenIfIdle();
  };

  /** All requests are lost: who waits for a tag learns of it by trying to send. */
  readonly #lost = (): void => {
    for (let tag = 0; tag < this.count; tag += 1) this.#tell(tag);
    for (const wake of [...this.#cancellers.splice(0), ...this.#waiters.splice(0)]) wake();
    this.#deafenIfIdle();
  };

  /** Whether a reset has ended a request, answered or not: its token is invalid. */
  #isLost(tag: number): boolean {
    return this.#epochs[tag] !== this.#device.epoch;
  }

  /** Waits in a line for a tag. */
  async #join(line: (() => void)[], signal: AbortSignalLike | undefined): Promise<void> {
    this.#device.kickSoon();
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        resolve();
        // When the turn ends: a signal of the caller's own may call the file system, whose requests are being looked at.
        void Promise.resolve().then(() => {
          signal?.removeEventListener('abort', abort);
        });
      };
      const abort = (): void => {
        const place = line.indexOf(wake);
        // Who was woken meanwhile has left the line.
        if (place < 0) return;
        line.splice(place, 1);
        wake();
        this.#deafenIfIdle();
      };
      // In the line first, as such a signal may call its listener at once.
      line.push(wake);
      this.#listen();
      signal?.addEventListener('abort', abort);
      if (signal?.aborted === true) abort();
    });
  }

  /** Wakes those who wait for a request that has ended. */
  #tell(tag: number): void {
    const resolve = this.#resolves[tag];
    this.#promises[tag] = undefined;
    this.#resolves[tag] = undefined;
    if (resolve === undefined) return;
    this.#awaited -= 1;
    resolve();
  }

  /** Takes answers and losses while somebody waits: that enables interrupts, and keeps the event loop alive. */
  #listen(): void {
    if (this.#deafen !== undefined) return;
    const answered = this.#device.on('used', this.#look);
    const lost = this.#device.on('lost', this.#lost);
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
}
