/**
 * Operations of several requests or waits. Each is written once, as a generator of steps, and runs with promises or spinning.
 */
import type { SoundCommand } from './commands.ts';

/** A step that waits for a condition, which is checked whenever the queue of periods has changed. */
export interface Pause {
  readonly until: () => boolean;
  /** The name of the condition in messages. */
  readonly awaited: string;
  /** The queue to drain before each check. */
  readonly at: { drain(): void };
}

/** A request to be sent, or a wait. */
export type Step = SoundCommand<unknown> | Pause;

/** A sequence of steps with a result. */
export type Steps<T> = Generator<Step, T, unknown>;

/** A step: sends a request and gets its result. */
export function* ask<T>(command: SoundCommand<T>): Steps<T> {
  return (yield command) as T;
}

/** Runs steps with promises. */
export async function carryOut<T>(steps: Steps<T>, perform: (step: Step) => Promise<unknown>): Promise<T> {
  let result = steps.next();
  while (result.done !== true) {
    let value: unknown;
    try {
      value = await perform(result.value);
    } catch (error) {
      result = steps.throw(error);
      continue;
    }
    result = steps.next(value);
  }
  return result.value;
}

/** Runs steps synchronously. */
export function carryOutSync<T>(steps: Steps<T>, perform: (step: Step) => unknown): T {
  let result = steps.next();
  while (result.done !== true) {
    let value: unknown;
    try {
      value = perform(result.value);
    } catch (error) {
      result = steps.throw(error);
      continue;
    }
    result = steps.next(value);
  }
  return result.value;
}
