/**
 * Operations of several commands, one after the other. Each is written once, as a generator that yields commands and receives their
 * results; it runs with promises or spinning.
 */
import { cancellable, type SpinOptions, type WaitOptions } from '@virtio/core';
import type { CommandQueue } from './command-queue.ts';
import type { GpuCommand } from './command.ts';

/** A sequence of commands whose result is a `T`. */
export type Steps<T> = Generator<GpuCommand<unknown>, T, unknown>;

/** A step: sends a command and gets its result. */
export function* ask<T>(command: GpuCommand<T>): Steps<T> {
  return (yield command) as T;
}

/**
 * Runs a sequence with promises. If its caller cancels, the promise rejects at once; the sequence gets an error when the pending
 * command is answered, and can then clean up while no command is with the device. That no longer keeps the event loop alive, as the
 * device may never answer.
 */
export async function runSteps<T>(queue: CommandQueue, steps: Steps<T>, options?: WaitOptions): Promise<T> {
  const signal = options?.signal;
  // A call that is refused here must not have begun. A device that no longer works is for the sequence, which may have memory to keep.
  if (queue.requests.failure === undefined) queue.requests.checkWaitable(options);
  if (signal === undefined) return drive(queue, steps, options);
  return new Promise((resolve, reject) => {
    let release = (): void => undefined;
    cancellable({ resolve, reject }, queue.transport, signal, {
      enter: (waiter) => {
        release = queue.hold();
        drive(queue, steps, options).finally(release).then(waiter.resolve, waiter.reject);
      },
      leave: () => {
        release();
      },
    });
  });
}

async function drive<T>(queue: CommandQueue, steps: Steps<T>, options: WaitOptions | undefined): Promise<T> {
  // With a signal, the caller holds.
  const answer = { holds: options?.signal === undefined };
  let next = steps.next();
  while (next.done !== true) {
    let result: unknown;
    try {
      result = await queue.request(next.value, answer);
      queue.requests.checkWaitable(options);
    } catch (error) {
      next = steps.throw(error);
      continue;
    }
    next = steps.next(result);
  }
  return next.value;
}

/** Runs a sequence spinning. The timeout applies to each command. */
export function runStepsSync<T>(queue: CommandQueue, steps: Steps<T>, options?: SpinOptions): T {
  queue.requests.checkSpin(options);
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
