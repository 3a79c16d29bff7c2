/**
 * A client of QEMU's machine protocol: commands with promises, events with listeners. The npm registry has no
 * maintained one, and the protocol is small: JSON objects, a greeting, one negotiation.
 */
import type { Socket } from 'node:net';
import { HarnessError } from '../errors.ts';
import { lineSplitter } from '../run.ts';

/** An event that QEMU sent. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Reply {
  readonly id?: number;
  readonly QMP?: unknown;
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
}

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** A connection to one QEMU. */
export class QmpClient {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeting = Promise.withResolvers<undefined>();
  #nextId = 1;
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#greeting.promise.catch(() => undefined);
    socket.setEncoding('utf8').on(
      'data',
      lineSplitter((line) => this.#take(line)),
    );
    socket.on('error', () => undefined);
    socket.on('close', () => this.#end());
  }

  /** Waits for the greeting and ends the negotiation of capabilities. */
  static async connect(socket: Socket): Promise<QmpClient> {
    const client = new QmpClient(socket);
    await client.#greeting.promise;
    await client.execute('qmp_capabilities');
    return client;
  }

  /**
   * Runs a command.
   *
   * @returns what QEMU returned
   * @throws {@link HarnessError} `QMP_FAILED` with QEMU's own words, or if QEMU is gone
   */
  async execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    if (this.#closed) throw gone(command);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const id = this.#nextId++;
    this.#pending.set(id, { command, resolve, reject });
    this.#socket.write(
      `${JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }), id })}\n`,
    );
    return promise;
  }

  /** Calls `listener` for each event from now on. Returns the function that ends it. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Waits for the next event of that name which `matches`. */
  async waitFor(
    name: string,
    matches: (data: QmpEvent['data']) => boolean = () => true,
    timeoutMs = 10_000,
  ): Promise<QmpEvent> {
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>();
    const timer = setTimeout(
      () => reject(new HarnessError('QMP_FAILED', `QEMU sent no ${name} within ${timeoutMs / 1000} s.`)),
      timeoutMs,
    );
    const stop = this.onEvent((event) => {
      if (event.event === name && matches(event.data)) resolve(event);
    });
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      stop();
    }
  }

  #take(line: string): void {
    let reply: Reply;
    try {
      reply = JSON.parse(line) as Reply;
    } catch {
      return;
    }
    if (reply.QMP !== undefined) this.#greeting.resolve(undefined);
    if (reply.event !== undefined) {
      for (const listener of this.#listeners) listener({ event: reply.event, data: reply.data ?? {} });
    }
    const pending = reply.id === undefined ? undefined : this.#pending.get(reply.id);
    if (reply.id === undefined || pending === undefined) return;
    this.#pending.delete(reply.id);
    if (reply.error === undefined) pending.resolve(reply.return);
    else {
      pending.reject(
        new HarnessError('QMP_FAILED', `QMP ${pending.command}: ${reply.error.desc} (${reply.error.class})`),
      );
    }
  }

  #end(): void {
    this.#closed = true;
    this.#greeting.reject(gone('connect'));
    for (const pending of this.#pending.values()) pending.reject(gone(pending.command));
    this.#pending.clear();
  }
}

function gone(command: string): HarnessError {
  return new HarnessError('QMP_FAILED', `QMP ${command}: QEMU has ended.`);
}
