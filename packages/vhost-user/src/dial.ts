/** Makes connections: the front end connects to the back end's socket, or the back end connects to the front end's. */
import { rmSync, type Stats, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { VirtioError } from '@virtio/core';
import { type EventPoller, UnixListener, UnixSocket } from '@virtio/linux';

/** The first pause between two attempts, and the longest, in milliseconds. */
const PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 500;

/** Makes connections. */
export interface Dialer extends Disposable {
  /** Whether it listens: then programs that are no back ends may connect. */
  readonly listens: boolean;

  /**
   * Waits for a connection. Does not keep the event loop alive.
   *
   * @param again whether there was a connection before: then it waits for a back end that is not there yet
   * @param waits called with the reason why there is no connection yet, whenever that becomes known
   * @throws {@link VirtioError} `NO_DEVICE`, `PERMISSION_DENIED`, `NOT_READY`; the signal's `ABORTED`
   */
  dial(again: boolean, signal: AbortSignal, waits?: (reason: VirtioError) => void): Promise<UnixSocket>;
}

/** Connects to a socket on which the back end listens. */
export class Client implements Dialer {
  readonly listens = false;
  readonly #path: string;
  readonly #timeoutMs: number;

  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  async dial(
    again: boolean,
    signal: AbortSignal,
    waits?: (reason: VirtioError) => void,
  ): Promise<UnixSocket> {
    const deadline = performance.now() + this.#timeoutMs;
    for (let pause = PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      throwIfAborted(signal);
      try {
        const socket = UnixSocket.connect(this.#path);
        if (socket !== undefined) return socket;
        if (performance.now() >= deadline) {
          const reason = new VirtioError(
            'NOT_READY',
            `${this.#path} did not accept a connection within ${this.#timeoutMs} ms; the back end hangs, or serves ` +
              'another front end: restart it',
          );
          if (!again) throw reason;
          waits?.(reason);
        }
      } catch (error) {
        if (!(again && VirtioError.is(error, 'NO_DEVICE'))) throw error;
        waits?.(error);
      }
      await delay(pause, undefined, { ref: false, signal }).catch(() => undefined);
    }
  }

  [Symbol.dispose](): void {
    // There is nothing that outlives a call.
  }
}

/** Listens on a socket to which the back end connects. */
export class Server implements Dialer {
  readonly listens = true;
  readonly #path: string;
  readonly #poller: EventPoller;
  readonly #listener: UnixListener;
  /** The socket's file, which another program may replace. */
  readonly #file: Stats | undefined;
  #wake: (() => void) | undefined;

  constructor(path: string, poller: EventPoller) {
    this.#path = path;
    this.#poller = poller;
    removeDeadSocket(path);
    this.#listener = new UnixListener(path);
    this.#file = fileAt(path);
    try {
      poller.watch(this.#listener.fd, () => this.#wake?.());
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  async dial(
    _again: boolean,
    signal: AbortSignal,
    waits?: (reason: VirtioError) => void,
  ): Promise<UnixSocket> {
    for (;;) {
      throwIfAborted(signal);
      const socket = this.#listener.accept();
      if (socket !== undefined) return socket;
      waits?.(
        new VirtioError(
          'NO_DEVICE',
          `no back end has connected to ${this.#path} since; start one that connects to this socket`,
        ),
      );
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#wake = undefined;
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#wake = wake;
        signal.addEventListener('abort', wake);
      });
    }
  }

  [Symbol.dispose](): void {
    this.#poller.unwatch(this.#listener.fd);
    this.#listener[Symbol.dispose]();
    const file = fileAt(this.#path);
    if (file?.ino === this.#file?.ino && file?.dev === this.#file?.dev) rmSync(this.#path, { force: true });
  }
}

/** The file at a path. If there is none, or the path makes no sense, listening there reports it. */
function fileAt(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}

/**
 * Removes a socket that a program left behind.
 *
 * @throws {@link VirtioError} `ALREADY_USED` if another program listens on it
 */
function removeDeadSocket(path: string): void {
  if (fileAt(path)?.isSocket() !== true) return;
  try {
    UnixSocket.connect(path)?.[Symbol.dispose]();
  } catch (error) {
    if (VirtioError.is(error, 'NO_DEVICE')) rmSync(path, { force: true });
    return;
  }
  throw new VirtioError(
    'ALREADY_USED',
    `another program listens on ${path} already; end it, or choose another path`,
  );
}

/** @throws {@link VirtioError} `ABORTED` */
export function throwIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return;
  const { reason } = signal as { reason: unknown };
  throw VirtioError.is(reason)
    ? reason
    : new VirtioError('ABORTED', 'opening a vhost-user device was cancelled', { cause: reason });
}
