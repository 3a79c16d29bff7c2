/**
 * What takes several commands, one after the other, is written once as a generator that yields commands and gets their results;
 * it is run with promises or spinning.
 */
import type { SpinOptions, WaitOptions } from '@virtio/core';
import type { CommandQueue } from './command-queue.ts';
import type { GpuCommand } from './command.ts';

/** A course of commands that ends with a `T`. */
export type Steps<T> = Generator<GpuCommand<unknown>, T, unknown>;

/** A step: sends a command and gets its result. */
export function* ask<T>(command: GpuCommand<T>): Steps<T> {
  return (yield command) as T;
}

/**
 * Runs a course with promises. If its caller cancels, the promise rejects at once; the course learns of it by an error when the
 * command under way is answered, and so can tidy up behind a device that has no command any more.
 */
export function runSteps<T>(queue: CommandQueue, steps: Steps<T>, options?: WaitOptions): Promise<T> {
  const signal = options?.signal;
  if (signal === undefined) return drive(queue, steps, options);
  return new Promise((resolve, reject) => {
    queue.requests.checkWaitable(options);
    const aborted = (): void => {
      signal.removeEventListener('abort', aborted);
      try {
        queue.requests.checkWaitable(options);
      } catch (error) {
        const reason = error as Error;
        reject(reason);
      }
    };
    signal.addEventListener('abort', aborted);
    drive(queue, steps, options)
      .finally(() => signal.removeEventListener('abort', aborted))
      .then(resolve, reject);
  });
}

async function drive<T>(queue: CommandQueue, steps: Steps<T>, options: WaitOptions | undefined): Promise<T> {
  let next = steps.next();
  while (next.done !== true) {
    let result: unknown;
    try {
      result = await queue.request(next.value);
      queue.requests.checkWaitable(options);
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(result);
  }
  return next.value;
}

/** Runs a course spinning. Each command may take the time allowed. */
export function runStepsSync<T>(queue: CommandQueue, steps: Steps<T>, options?: SpinOptions): T {
  let next = steps.next();
  while (next.done !== true) {
    let result: unknown;
    try {
      result = queue.requestSync(next.value, options);
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(result);
  }
  return next.value;
}
