/**
 * What all waits with promises have in common: they need interrupts, and the caller can cancel them by a signal like the DOM's
 * `AbortSignal`.
 */
import type { Named } from '../check.ts';
import type { Transport } from '../device/transport.ts';
import { VirtioError } from '../errors.ts';
import { show } from '../show.ts';

/** The part of the DOM's `AbortSignal` that is needed here, as engines without an operating system have no such class. */
export interface AbortSignalLike {
  /** Whether the wait is cancelled. */
  readonly aborted: boolean;
  /** The reason, for the `cause` of the error. */
  readonly reason?: unknown;
  /** Adds a listener for the cancellation. */
  addEventListener(type: 'abort', listener: () => void): void;
  /** Removes the listener. */
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** Options of calls that wait with a promise. */
export interface WaitOptions {
  /** Cancels the wait, which then rejects with `ABORTED`. */
  readonly signal?: AbortSignalLike | undefined;
}

/**
 * Throws unless a caller can wait with a promise: the transport must have interrupts, and the caller must not have cancelled
 * already.
 *
 * @throws {@link VirtioError} `UNSUPPORTED` if the transport has no interrupts, `ABORTED`, `INVALID_PARAM` for a `signal` that is
 * not one
 */
export function requireWaitable(transport: Transport, options?: WaitOptions): void {
  if (transport.interrupts === undefined) {
    throw new VirtioError(
      'UNSUPPORTED',
      `${transport.who()}: this transport has no interrupts, so a promise would never settle. Use the synchronous or the ` +
        'non-blocking form, or give the transport PollingInterrupts',
    );
  }
  const signal = options?.signal;
  requireSignal(transport, signal);
  if (signal?.aborted === true) throw abortError(transport, signal);
}

/**
 * Throws if the value is neither a signal nor `undefined`, which callers without types may give.
 *
 * @param named the device for the message
 * @throws {@link VirtioError} `INVALID_PARAM`
 */
export function requireSignal(named: Named, value: unknown): asserts value is AbortSignalLike | undefined {
  if (value === undefined) return;
  if (
    typeof value === 'object' &&
    value !== null &&
    'addEventListener' in value &&
    typeof value.addEventListener === 'function' &&
    'removeEventListener' in value &&
    typeof value.removeEventListener === 'function'
  ) {
    return;
  }
  throw new VirtioError(
    'INVALID_PARAM',
    `${typeof named === 'string' ? named : named.who()}: signal is ${show(value)}; give an AbortSignal, or leave it out`,
  );
}

/** The functions that settle a promise. */
export interface Waiter<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

/** The place where a caller waits. */
export interface WaitPlace<T> {
  /** The caller begins to wait. */
  enter(waiter: Waiter<T>): void;
  /** The caller has cancelled, and no longer waits. It is rejected afterwards. */
  leave(): void;
}

/**
 * Waits, and ends the wait early with `ABORTED` when its signal is aborted. The signal may be an object of the caller's, which
 * calls its listener inside `addEventListener` or throws there: so the caller waits before the signal is listened to.
 *
 * @param transport for the message of the error
 */
export function cancellable<T>(
  { resolve, reject }: Waiter<T>,
  transport: Transport,
  signal: AbortSignalLike | undefined,
  place: WaitPlace<T>,
): void {
  if (signal === undefined) {
    place.enter({ resolve, reject });
    return;
  }
  let ended = false as boolean;
  const ending =
    <V>(settle: (value: V) => void) =>
    (value: V): void => {
      ended = true;
      // When the turn ends: it may call the driver or throw, and the driver may be in the middle of a reset.
      void Promise.resolve().then(() => {
        signal.removeEventListener('abort', aborted);
      });
      settle(value);
    };
  const fail = ending(reject);
  const leave = (error: unknown): void => {
    if (ended) return;
    place.leave();
    fail(error);
  };
  const aborted = (): void => {
    leave(abortError(transport, signal));
  };
  place.enter({ resolve: ending(resolve), reject: fail });
  if (ended) return;
  try {
    signal.addEventListener('abort', aborted);
    // Before, which a listener is not told.
    if (signal.aborted) aborted();
  } catch (error) {
    leave(error);
  }
}

function abortError(transport: Transport, signal: AbortSignalLike): VirtioError {
  return new VirtioError('ABORTED', `${transport.who()}: the wait was cancelled by its caller`, {
    cause: signal.reason,
  });
}
