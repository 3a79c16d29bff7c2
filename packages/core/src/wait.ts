/** What all waits with promises share: they need interrupts, and their caller can cancel them, by a signal as those of the DOM. */
import { VirtioError } from './errors.ts';
import type { Transport } from './transport.ts';

/** The part of the DOM's `AbortSignal` that is needed here, as engines without an operating system have no such class. */
export interface AbortSignalLike {
  /** Whether the wait is cancelled. */
  readonly aborted: boolean;
  /** Why, for the `cause` of the error. */
  readonly reason?: unknown;
  /** Adds a listener for the cancellation. */
  addEventListener(type: 'abort', listener: () => void): void;
  /** Removes it. */
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** What calls that wait with a promise may be told. */
export interface WaitOptions {
  /** Cancels the wait, which then rejects with `ABORTED`. Nothing is lost: the next call goes on where this one was. */
  readonly signal?: AbortSignalLike | undefined;
}

/**
 * Throws unless somebody will tell a promise that it can be kept.
 *
 * @throws {@link VirtioError} `UNSUPPORTED` if the transport has no interrupts
 */
export function requireInterrupts(transport: Transport): void {
  if (transport.interrupts !== undefined) return;
  throw new VirtioError(
    'UNSUPPORTED',
    `${transport.who()}: this transport has no interrupts, so no promise can be kept. Use the synchronous or the ` +
      'non-blocking form, or give the transport PollingInterrupts',
  );
}

/** The two ends of a promise that somebody waits for. */
export interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: VirtioError) => void;
}

/**
 * Gives one who waits a way out.
 *
 * @param transport for the message of the error
 * @param leave takes the waiter out of the line that it waits in, before it is rejected with `ABORTED`
 * @throws {@link VirtioError} `ABORTED` if the signal says so already
 */
export function cancellable(
  { resolve, reject }: Waiter,
  transport: Transport,
  signal: AbortSignalLike | undefined,
  leave: () => void,
): Waiter {
  if (signal === undefined) return { resolve, reject };
  if (signal.aborted) throw abortError(transport, signal);
  const aborted = (): void => {
    signal.removeEventListener('abort', aborted);
    leave();
    reject(abortError(transport, signal));
  };
  signal.addEventListener('abort', aborted);
  return {
    resolve: () => {
      signal.removeEventListener('abort', aborted);
      resolve();
    },
    reject: (error) => {
      signal.removeEventListener('abort', aborted);
      reject(error);
    },
  };
}

/**
 * Gives a promise a way out. What the promise stands for goes on when the wait is cancelled: whoever calls this has to see to
 * what comes of it.
 *
 * @param transport for the message of the error
 * @returns a promise that settles as the given one does, or rejects with `ABORTED` when the signal says so
 */
export function abortable<T>(
  transport: Transport,
  promise: Promise<T>,
  { signal }: WaitOptions = {},
): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      signal.removeEventListener('abort', aborted);
      reject(abortError(transport, signal));
    };
    promise.finally(() => signal.removeEventListener('abort', aborted)).then(resolve, reject);
    if (signal.aborted) aborted();
    else signal.addEventListener('abort', aborted);
  });
}

function abortError(transport: Transport, signal: AbortSignalLike): VirtioError {
  return new VirtioError('ABORTED', `${transport.who()}: the wait was cancelled by its caller`, {
    cause: signal.reason,
  });
}
