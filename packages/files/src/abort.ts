/** Operations that a caller cancels with a signal. */
import { type AbortSignalLike, VirtioError } from '@virtio/core';

/** The error of an operation that was cancelled. */
export function abortError(signal: AbortSignalLike): VirtioError {
  return new VirtioError('ABORTED', 'the operation was cancelled by its caller', { cause: signal.reason });
}

/** Refuses a signal that is aborted already, also for a task that asks the server for nothing. */
export function refuseAborted(signal: AbortSignalLike | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}

/** Waits for a promise that does not reject, or until the signal is aborted. */
export async function settledOrAborted(
  promise: Promise<unknown>,
  signal: AbortSignalLike | undefined,
): Promise<void> {
  if (signal === undefined) {
    await promise;
    return;
  }
  if (signal.aborted) return;
  let abort = (): void => undefined;
  const aborted = new Promise<void>((resolve) => {
    abort = resolve;
  });
  signal.addEventListener('abort', abort);
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
