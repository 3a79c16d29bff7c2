/**
 * The socket to the back end: requests go out, answers come back in the same order. Nothing blocks: what the kernel does not take
 * waits here, and an answer that does not come in time ends the connection, as answers could not be told apart afterwards.
 *
 * Requests can be waited for in two ways. Promises are for opening and reconnecting. In place, with a limit, is for what
 * core's `Transport` does in place: negotiation, reset, memory.
 */
import { VirtioError } from '@virtio/core';
import {
  type EventPoller,
  pollDescriptors,
  PollEvents,
  type UnixSocket,
  closeDescriptor,
} from '@virtio/linux';
import { type Parser, parseU64 } from './answers.ts';
import { encodeMessage, type Message, MessageReader } from './message.ts';
import { FrontendRequest, type FrontendRequestName, HeaderFlag } from './protocol.ts';

/** What {@link Channel} may be told. */
export interface ChannelOptions {
  /** Who the back end is, for messages. */
  readonly who: string;
  /** How long an answer may take, in milliseconds. */
  readonly timeoutMs: number;
  /** Told once that the connection is gone, unless the channel was disposed. */
  readonly onLost: (error: VirtioError) => void;
}

/** A request and, later, its answer. */
export class Pending<T> {
  readonly name: FrontendRequestName;
  readonly parse: Parser<T>;
  readonly deadline: number;
  /** The answer, once {@link Pending.done} is true. */
  value: T | undefined;
  /** Why there is none. */
  error: VirtioError | undefined;
  done = false;
  #listeners: (() => void)[] = [];

  constructor(name: FrontendRequestName, parse: Parser<T>, deadline: number) {
    this.name = name;
    this.parse = parse;
    this.deadline = deadline;
  }

  /** The answer, as a promise. */
  async answer(): Promise<T> {
    if (!this.done) await new Promise<void>((resolve) => this.#listeners.push(resolve));
    return this.take();
  }

  /**
   * The answer, which must be there.
   *
   * @throws {@link VirtioError} why there is none
   */
  take(): T {
    if (this.error !== undefined) throw this.error;
    return this.value as T;
  }

  /** @internal */
  finish(): void {
    this.done = true;
    for (const listener of this.#listeners.splice(0)) listener();
  }
}

/** What {@link Channel} looks after while somebody waits in place. */
export interface Aside {
  /** -1 when it is closed. */
  readonly fd: number;
  readonly pump: () => void;
}

interface Outgoing {
  bytes: Uint8Array;
  descriptors: readonly number[];
}

/** The connection to a back end. */
export class Channel implements Disposable {
  readonly #socket: UnixSocket;
  readonly #poller: EventPoller;
  readonly #options: ChannelOptions;
  readonly #reader = new MessageReader();
  readonly #pending: Pending<unknown>[] = [];
  readonly #outgoing: Outgoing[] = [];
  #timer: NodeJS.Timeout | undefined;
  #lost: VirtioError | undefined;
  /** Looked after while somebody waits in place: the back end may ask us something before it answers. */
  readonly #asides: Aside[] = [];

  constructor(socket: UnixSocket, poller: EventPoller, options: ChannelOptions) {
    this.#socket = socket;
    this.#poller = poller;
    this.#options = options;
    poller.watch(socket.fd, this.pump, true);
  }

  /** Why the connection is gone, if it is. */
  get lost(): VirtioError | undefined {
    return this.#lost;
  }

  /** Another socket that is looked after while somebody waits in place. */
  lookAfter(aside: Aside): void {
    this.#asides.push(aside);
  }

  /** Sends a request that is not answered. */
  send(name: FrontendRequestName, payload: Uint8Array, descriptors: readonly number[] = []): void {
    this.#send(encodeMessage(FrontendRequest[name], payload), descriptors);
  }

  /** Sends a request that has an answer of its own. */
  ask<T>(name: FrontendRequestName, payload: Uint8Array, parse: Parser<T>): Pending<T> {
    return this.#ask(name, encodeMessage(FrontendRequest[name], payload), [], parse);
  }

  /** Sends a request and asks the back end to acknowledge it, with `REPLY_ACK`: 0 is success. */
  confirm(
    name: FrontendRequestName,
    payload: Uint8Array,
    descriptors: readonly number[] = [],
  ): Pending<bigint> {
    const bytes = encodeMessage(FrontendRequest[name], payload, HeaderFlag.NEED_REPLY);
    return this.#ask(name, bytes, descriptors, parseU64);
  }

  /**
   * Waits in place until requests are answered.
   *
   * @throws {@link VirtioError} why the connection was lost: `NOT_READY` if the time was up, `DEVICE_REMOVED`,
   * `DEVICE_MISBEHAVED`
   */
  settle(pending: readonly Pending<unknown>[]): void {
    this.pump();
    for (const one of pending) {
      while (!one.done) {
        const left = one.deadline - Date.now();
        if (left <= 0) {
          this.#expire();
          continue;
        }
        const own = PollEvents.IN | (this.#outgoing.length > 0 ? PollEvents.OUT : 0);
        const waits: [number, number][] = [[this.#socket.fd, own]];
        for (const { fd } of this.#asides) if (fd >= 0) waits.push([fd, PollEvents.IN]);
        pollDescriptors(waits, left);
        for (const aside of this.#asides) aside.pump();
        this.pump();
      }
      if (one.error !== undefined) throw one.error;
    }
  }

  /** Takes what has come and sends what has waited. */
  readonly pump = (): void => {
    try {
      this.#flush();
      while (this.#lost === undefined) {
        const received = this.#socket.receive(this.#reader.needed);
        if (received === undefined) return;
        if (received.bytes.length === 0) {
          throw new VirtioError(
            'DEVICE_REMOVED',
            `${this.#options.who} has closed the connection${this.#reader.partial ? ' in the middle of a message' : ''}; it ` +
              'ended, or refused what it was asked: see what it says. Dispose its driver, and open the device anew',
          );
        }
        const message = this.#reader.push(received.bytes, received.descriptors);
        if (message !== undefined) this.#handle(message);
      }
    } catch (error) {
      this.lose(this.#explain(error));
    }
  };

  /** Ends the connection: all that is pending gets `error`. */
  lose(error: VirtioError): void {
    if (this.#lost !== undefined) return;
    this.#end(error);
    this.#options.onLost(error);
  }

  [Symbol.dispose](): void {
    if (this.#lost !== undefined) return;
    this.#end(new VirtioError('DISPOSED', `the connection to ${this.#options.who} is closed`));
  }

  #end(error: VirtioError): void {
    this.#lost = error;
    clearTimeout(this.#timer);
    this.#poller.unwatch(this.#socket.fd);
    this.#socket[Symbol.dispose]();
    for (const fd of this.#reader.takeDescriptors()) closeDescriptor(fd);
    this.#outgoing.length = 0;
    for (const pending of this.#pending.splice(0)) {
      pending.error = error;
      pending.finish();
    }
  }

  #ask<T>(
    name: FrontendRequestName,
    bytes: Uint8Array,
    descriptors: readonly number[],
    parse: Parser<T>,
  ): Pending<T> {
    const pending = new Pending(name, parse, Date.now() + this.#options.timeoutMs);
    if (this.#lost !== undefined) {
      pending.error = this.#lost;
      pending.finish();
      return pending;
    }
    this.#pending.push(pending);
    if (this.#pending.length === 1) this.#arm();
    this.#send(bytes, descriptors);
    return pending;
  }

  #send(bytes: Uint8Array, descriptors: readonly number[]): void {
    if (this.#lost !== undefined) return;
    this.#outgoing.push({ bytes, descriptors });
    try {
      this.#flush();
    } catch (error) {
      this.lose(this.#explain(error));
    }
  }

  #flush(): void {
    for (let next = this.#outgoing[0]; next !== undefined; next = this.#outgoing[0]) {
      const sent = this.#socket.send(next.bytes, next.descriptors);
      // The other side is gone; receiving tells it, after what it said last.
      if (sent <= 0) return;
      if (sent === next.bytes.length) this.#outgoing.shift();
      else {
        next.bytes = next.bytes.subarray(sent);
        next.descriptors = [];
      }
    }
  }

  #handle(message: Message): void {
    try {
      const [next] = this.#pending;
      if (next === undefined || message.request !== FrontendRequest[next.name]) {
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `answered request ${message.request} when ${next === undefined ? 'nothing' : next.name} was asked`,
        );
      }
      if ((message.flags & HeaderFlag.REPLY) === 0) {
        throw new VirtioError('DEVICE_MISBEHAVED', `answered ${next.name} without the flag of an answer`);
      }
      next.value = next.parse(message);
      this.#pending.shift();
      this.#arm();
      next.finish();
    } finally {
      for (const fd of message.descriptors.splice(0)) closeDescriptor(fd);
    }
  }

  /** The oldest request has the earliest deadline. */
  #arm(): void {
    clearTimeout(this.#timer);
    const [first] = this.#pending;
    if (first === undefined) return;
    this.#timer = setTimeout(this.#expire, Math.max(0, first.deadline - Date.now())).unref();
  }

  readonly #expire = (): void => {
    // What is there already was in time; only the event loop was late.
    this.pump();
    const [first] = this.#pending;
    if (first === undefined || this.#lost !== undefined) return;
    if (Date.now() < first.deadline) {
      this.#arm();
      return;
    }
    this.lose(
      new VirtioError(
        'NOT_READY',
        `${this.#options.who} was asked ${first.name} and did not answer within ${this.#options.timeoutMs} ms. It hangs, or serves ` +
          'another front end: end that one, or start the back end anew',
      ),
    );
  };

  #explain(error: unknown): VirtioError {
    if (VirtioError.is(error, 'DEVICE_MISBEHAVED')) {
      return new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#options.who} ${error.message}. It is not trusted any more; the connection is closed`,
      );
    }
    if (VirtioError.is(error)) return error;
    return new VirtioError('SYSTEM_ERROR', `the connection to ${this.#options.who} failed`, { cause: error });
  }
}
