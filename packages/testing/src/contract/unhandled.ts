/**
 * Errors that listeners throw become unhandled rejections, so that they are visible without affecting other callers. A test runner
 * counts those as failures; on Node.js they are collected here instead.
 */

/** The part of Node.js's `process` that is needed. */
interface RejectionSource {
  listeners(event: 'unhandledRejection'): ((error: unknown) => void)[];
  removeAllListeners(event: 'unhandledRejection'): unknown;
  on(event: 'unhandledRejection', listener: (error: unknown) => void): unknown;
}

interface Platform {
  readonly process?: RejectionSource;
  readonly setImmediate?: (callback: () => void) => unknown;
}

/**
 * Runs something and collects its unhandled rejections.
 *
 * @returns the rejections, or `undefined` on a platform that does not report them
 */
export async function collectUnhandled(run: () => Promise<void>): Promise<readonly unknown[] | undefined> {
  const { process, setImmediate } = globalThis as unknown as Platform;
  if (process === undefined || setImmediate === undefined) {
    await run();
    return undefined;
  }
  const errors: unknown[] = [];
  const before = process.listeners('unhandledRejection');
  process.removeAllListeners('unhandledRejection');
  process.on('unhandledRejection', (error) => errors.push(error));
  try {
    await run();
    // They are reported when all microtasks have run.
    await new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));
  } finally {
    process.removeAllListeners('unhandledRejection');
    for (const listener of before) process.on('unhandledRejection', listener);
  }
  return errors;
}
