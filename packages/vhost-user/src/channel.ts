/**
 * The socket to the back end: requests go out, answers come back in the same order. Sending does not block: what the kernel does
 * not take yet is queued. An answer that does not come in time ends the connection, as later answers could not be told apart.
 *
 * There are two ways to wait for an answer: promises, for opening and reconnecting; and synchronous waits with a time limit, for
 * what core's `Transport` does synchronously: negotiation, reset, memory.
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

/** Options of {@link Channel}. */
export interface ChannelOptions {
  /** The name of the back end, for messages. */
  readonly who: string;
  /** How long an answer may take, in milliseconds. */
  readonly timeoutMs: number;
  /** Called once when the connection is lost, unless the channel was disposed. */
  readonly onLost: (error: VirtioError) => void;
}

/** A request and, later, its answer. */
export class Pending<T> {
  readonly name: FrontendRequestName;
  readonly parse: Parser<T>;
  /** As of `performance.now()`: the clock of the system may be set meanwhile. */
  readonly deadline: number;
  /** The answer, once {@link Pending.done} is true. */
  value: T | undefined;
  /** The error, if there is no answer. */
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
   * The answer, which must have arrived.
   *
   * @throws {@link VirtioError} the error, if there is no answer
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

/** Another socket that {@link Channel} serves during a synchronous wait. */
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
  #heard = false;
  /** Served during a synchronous wait: the back end may send a request before it answers. */
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

  /** Whether the other side has said anything. */
  get heard(): boolean {
    return this.#heard;
  }

  /** Adds another socket that is served during a synchronous wait. */
  lookAfter(aside: Aside): void {
    this.#asides.push(aside);
  }

  /** Sends a request that is not answered. */
  send(name: FrontendRequestName, payload: Uint8Array, descriptors: readonly number[] = []): void {
    this.#send(encodeMessage(FrontendRequest[name], payload), descriptors);
  }

  /** Sends a request that has an answer. */
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
   * Waits synchronously until requests are answered.
   *
   * @throws {@link VirtioError} the reason why the connection was lost: `NOT_READY` after the time limit, `DEVICE_REMOVED`,
   * `DEVICE_MISBEHAVED`
   */
  settle(pending: readonly Pending<unknown>[]): void {
    this.pump();
    for (const one of pending) {
      while (!one.done) {
        const left = one.deadline - performance.now();
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

  /** Receives what has arrived and sends what is queued. */
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
              'ended, or refused a request: see its messages',
          );
        }
        this.#heard = true;
        const message = this.#reader.push(received.bytes, received.descriptors);
        if (message !== undefined) this.#handle(message);
      }
    } catch (error) {
      this.lose(this.#explain(error));
    }
  };

  /** Ends the connection: all pending requests end with `error`. */
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
    const pending = new Pending(name, parse, performance.now() + this.#options.timeoutMs);
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
      // The other side is gone; receiving reports that, after the last messages.
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
          `answered request ${message.request} when ${next === undefined ? 'no request' : next.name} was expected`,
        );
      }
      if ((message.flags & HeaderFlag.REPLY) === 0) {
        throw new VirtioError('DEVICE_MISBEHAVED', `answered ${next.name} without the reply flag`);
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
    this.#timer = setTimeout(this.#expire, Math.max(0, first.deadline - performance.now())).unref();
  }

  readonly #expire = (): void => {
    // An answer that is there already came in time; only the event loop was late.
    this.pump();
    const [first] = this.#pending;
    if (first === undefined || this.#lost !== undefined) return;
    if (performance.now() < first.deadline) {
      this.#arm();
      return;
    }
    this.lose(
      new VirtioError(
        'NOT_READY',
        `${this.#options.who} did not answer ${first.name} within ${this.#options.timeoutMs} ms. It hangs, or serves ` +
          'another front end: end that one, or restart the back end',
      ),
    );
  };

  #explain(error: unknown): VirtioError {
    if (VirtioError.is(error, 'DEVICE_MISBEHAVED')) {
      return new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#options.who} ${error.message}. It is no longer trusted, and the connection is closed`,
      );
    }
    if (VirtioError.is(error)) return error;
    return new VirtioError('SYSTEM_ERROR', `the connection to ${this.#options.who} failed`, { cause: error });
  }
}
