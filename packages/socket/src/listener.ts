/** A port on which connections are accepted. A peer is connected as soon as it asks; its connection waits here until it is accepted. */
import {
  requireWaitable,
  type SpinOptions,
  spinTime,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { VsockConnection } from './vsock-connection.ts';
import { type Waiting, WaitLine } from './wait-line.ts';

/** The parameters of a listener. */
export interface ListenerSpec {
  readonly port: number;
  /** One of {@link VsockType}. */
  readonly type: number;
  readonly backlog: number;
  readonly bufferSize: number;
}

/** What a listener needs from its manager. */
export interface ListenerHost {
  readonly waiting: Waiting;
  drain(): void;
  fairTurn(): Promise<void> | undefined;
  spin(done: () => boolean, options: SpinOptions | undefined, awaited: string): void;
  checkUsable(): void;
  close(): void;
}

/**
 * A port on which connections are accepted. {@link VsockConnectionManager.listen} makes it.
 *
 * @example
 * ```ts
 * import type { VsockConnectionManager } from '@virtio/socket';
 *
 * export async function greet(sockets: VsockConnectionManager): Promise<void> {
 *   using listener = sockets.listen({ port: 1234 });
 *   for await (const connection of listener) {
 *     await connection.write(`hello, port ${connection.peer.port}\n`);
 *     await connection.close();
 *   }
 * }
 * ```
 */
export class VsockListener implements Disposable, AsyncIterable<VsockConnection> {
  /** The port. */
  readonly port: number;
  /** @internal One of {@link VsockType}. */
  readonly type: number;
  /** @internal The receive buffer of each connection, in bytes. */
  readonly bufferSize: number;

  readonly #backlog: number;
  readonly #transport: Transport;
  readonly #host: ListenerHost;
  readonly #waiters: WaitLine;
  #pending: VsockConnection[] = [];
  #closed = false;

  /** @internal */
  constructor({ port, type, backlog, bufferSize }: ListenerSpec, transport: Transport, host: ListenerHost) {
    this.port = port;
    this.type = type;
    this.bufferSize = bufferSize;
    this.#backlog = backlog;
    this.#transport = transport;
    this.#host = host;
    this.#waiters = new WaitLine(host.waiting);
  }

  /** How many connections wait to be accepted. */
  get pending(): number {
    this.#host.drain();
    this.#dropOver();
    return this.#pending.length;
  }

  /** Whether the listener was closed. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Takes the next connection, if there is one.
   *
   * @throws {@link VirtioError} `SOCKET_CLOSED` if the listener is closed, or why the device no longer works
   */
  tryAccept(): VsockConnection | undefined {
    this.#host.drain();
    this.#dropOver();
    const next = this.#pending.shift();
    if (next !== undefined) return next;
    if (this.#closed) {
      throw new VirtioError(
        'SOCKET_CLOSED',
        `${this.#transport.who()}: the listener of port ${this.port} was closed; listen again`,
      );
    }
    this.#host.checkUsable();
    return undefined;
  }

  /** Waits for a connection. Throws as {@link VsockListener.tryAccept} does, `ABORTED`, `UNSUPPORTED` without interrupts. */
  async accept(options?: WaitOptions): Promise<VsockConnection> {
    const turn = this.#host.fairTurn();
    if (turn !== undefined) await turn;
    for (;;) {
      // Also after a wait: who has cancelled it takes no connection.
      requireWaitable(this.#transport, options);
      const connection = this.tryAccept();
      if (connection !== undefined) return connection;
      await this.#waiters.wait(options);
    }
  }

  /** The same as {@link VsockListener.accept}, spinning. Throws also `NOT_READY`. */
  acceptSync(options?: SpinOptions): VsockConnection {
    spinTime(this.#transport, options);
    let connection = this.tryAccept();
    if (connection === undefined) {
      this.#host.spin(() => (connection = this.tryAccept()) !== undefined, options, 'a connection');
    }
    return connection as VsockConnection;
  }

  /** All connections as they arrive, until the listener is closed. Leaving the loop closes it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<VsockConnection, undefined> {
    try {
      while (!this.#closed) {
        const connection = this.tryAccept();
        if (connection === undefined) {
          await this.#waiters.wait();
          continue;
        }
        yield connection;
        const turn = this.#host.fairTurn();
        if (turn !== undefined) await turn;
      }
    } finally {
      this.close();
    }
  }

  /** Stops listening. Connections that wait to be accepted are aborted; accepted ones continue. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.close();
    for (const connection of this.#pending.splice(0)) connection.abort();
    this.#waiters.wake();
  }

  /** The same as {@link VsockListener.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal Whether another connection may wait. */
  get hasRoom(): boolean {
    if (this.#pending.length >= this.#backlog) this.#dropOver();
    return !this.#closed && this.#pending.length < this.#backlog;
  }

  /** @internal A peer has connected. */
  add(connection: VsockConnection): void {
    this.#pending.push(connection);
    this.#waiters.wake();
  }

  /** @internal Removes a connection that its caller has already. */
  take(connection: VsockConnection): void {
    this.#pending = this.#pending.filter((other) => other !== connection);
  }

  /** @internal Wakes callers that wait. */
  wake(): void {
    this.#waiters.wake();
  }

  /** Drops waiting connections that ended without data to read. */
  #dropOver(): void {
    if (this.#pending.some((connection) => connection.isVoid)) {
      this.#pending = this.#pending.filter((connection) => !connection.isVoid);
    }
  }
}
