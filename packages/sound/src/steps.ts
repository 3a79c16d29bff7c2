/**
 * What takes several requests or waits is written once, as a generator of steps, and carried out with promises or by spinning.
 */
import type { SoundCommand } from './commands.ts';

/** A step that waits until something holds; it is looked at again whenever the queue of periods moves. */
export interface Pause {
  readonly until: () => boolean;
  /** What is waited for, for the message. */
  readonly awaited: string;
  /** Where it is seen. */
  readonly at: { drain(): void };
}

/** A request to be sent, or a wait. */
export type Step = SoundCommand<unknown> | Pause;

/** Steps that lead to a result. */
export type Steps<T> = Generator<Step, T, unknown>;

/** Sends a request; its result is that of the device. */
export function* ask<T>(command: SoundCommand<T>): Steps<T> {
  return (yield command) as T;
}

/** Carries steps out with promises. */
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

/** Carries steps out at once. */
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
