/** Waits that a signal ends at once, also where what is waited for knows nothing of signals and may never come. */

/** The result of `work`, or the reason of the signal as an error if it is aborted before. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- as AbortSignal.throwIfAborted
      reject(signal.reason);
    };
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => {
      signal.removeEventListener('abort', stop);
    });
  });
}

/** The pieces of a source, until the signal is aborted: then it throws the reason, even if the next piece never comes. */
export async function* interruptible<T>(
  source: AsyncIterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T, undefined> {
  const pieces = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next: IteratorResult<T, unknown> = await orAborted(pieces.next(), signal);
      if (next.done === true) return undefined;
      yield next.value;
    }
  } finally {
    // Not waited for, as it waits for the next piece.
    pieces.return?.().catch(() => undefined);
  }
}
