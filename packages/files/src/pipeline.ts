/** Many requests of one kind as one task, of which a limited number is in flight. */
import { CHECK, ROOM, type Task, WINDOW } from './task.ts';

/** What {@link pipeline} does with each item. */
export interface Pipeline<T> {
  /**
   * Sends the request for an item. Returns its tag, or -1 without room.
   *
   * @param more whether the task has requests in flight, which will free a tag or memory
   */
  readonly trySend: (item: T, more: boolean) => number;
  /** Receives the answer to it; `false` ends the sending, but the answers to what was sent are still received. */
  readonly receive: (item: T, tag: number) => Task<boolean>;
  /** Waits for an answer and ignores it. */
  readonly discard: (tag: number) => Task<void>;
  /** How many are in flight (default {@link WINDOW}). */
  readonly window?: number | undefined;
}

/** Sends a request for each item, with many in flight, and handles the answers in the order of the items. */
export function* pipeline<T>(
  items: Iterable<T>,
  { trySend, receive, discard, window = WINDOW }: Pipeline<T>,
): Task<void> {
  const inFlight: { readonly item: T; readonly tag: number }[] = [];
  const source = items[Symbol.iterator]();
  let next = source.next();
  let more = true;
  let cancelled: unknown;
  try {
    while (inFlight.length > 0 || (more && next.done !== true)) {
      try {
        yield CHECK;
      } catch (error) {
        // The answers to what was sent still count.
        cancelled = error;
        more = false;
      }
      while (more && next.done !== true && inFlight.length < window) {
        // With requests of its own in flight, the task need not wait for a tag: it will free one itself.
        const tag = trySend(next.value, inFlight.length > 0);
        if (tag < 0) break;
        inFlight.push({ item: next.value, tag });
        next = source.next();
      }
      const first = inFlight.shift();
      if (first !== undefined) more = (yield* receive(first.item, first.tag)) && more;
      else if (more && next.done !== true) yield ROOM;
    }
  } finally {
    // After an error, buffers may be given back to the caller only when no request uses them any more.
    for (const { tag } of inFlight) yield* discard(tag);
  }
  if (cancelled !== undefined) throw cancelled as Error;
}
