/** Makes connections: the front end connects to the back end's socket, or the back end connects to the front end's. */
import { rmSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { VirtioError } from '@virtio/core';
import { type EventPoller, UnixListener, UnixSocket } from '@virtio/linux';

/** The first pause between two attempts, and the longest, in milliseconds. */
const PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 500;

/** Makes connections. */
export interface Dialer extends Disposable {
  /**
   * Waits for a connection. Does not keep the event loop alive.
   *
   * @param again whether there was a connection before: then it waits for a back end that is not there yet
   * @throws {@link VirtioError} `NO_DEVICE`, `PERMISSION_DENIED`, `NOT_READY`; the signal's `ABORTED`
   */
  dial(again: boolean, signal: AbortSignal): Promise<UnixSocket>;
}

/** Connects to a socket on which the back end listens. */
export class Client implements Dialer {
  readonly #path: string;
  readonly #timeoutMs: number;

  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  async dial(again: boolean, signal: AbortSignal): Promise<UnixSocket> {
    const deadline = Date.now() + this.#timeoutMs;
    for (let pause = PAUSE_MS; ; pause = Math.min(2 * pause, LONGEST_PAUSE_MS)) {
      throwIfAborted(signal);
      try {
        const socket = UnixSocket.connect(this.#path);
        if (socket !== undefined) return socket;
        if (!again && Date.now() >= deadline) {
          throw new VirtioError(
            'NOT_READY',
            `${this.#path} did not accept a connection within ${this.#timeoutMs} ms; the back end hangs, or serves ` +
              'another front end: restart it',
          );
        }
      } catch (error) {
        if (!(again && VirtioError.is(error, 'NO_DEVICE'))) throw error;
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
  readonly #path: string;
  readonly #poller: EventPoller;
  readonly #listener: UnixListener;
  #wake: (() => void) | undefined;

  constructor(path: string, poller: EventPoller) {
    this.#path = path;
    this.#poller = poller;
    removeDeadSocket(path);
    this.#listener = new UnixListener(path);
    poller.watch(this.#listener.fd, () => this.#wake?.());
  }

  async dial(_again: boolean, signal: AbortSignal): Promise<UnixSocket> {
    for (;;) {
      throwIfAborted(signal);
      const socket = this.#listener.accept();
      if (socket !== undefined) return socket;
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
    rmSync(this.#path, { force: true });
  }
}

/** Removes a socket that a program left behind, unless another program listens on it. */
function removeDeadSocket(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  try {
    UnixSocket.connect(path)?.[Symbol.dispose]();
  } catch (error) {
    if (VirtioError.is(error, 'NO_DEVICE')) rmSync(path, { force: true });
  }
}

function throwIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return;
  const { reason } = signal as { reason: unknown };
  throw VirtioError.is(reason)
    ? reason
    : new VirtioError('ABORTED', 'opening a vhost-user device was cancelled', { cause: reason });
}
