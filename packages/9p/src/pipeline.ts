/** Many requests of one kind as one task, with a window of them in flight. */
import { CHECK, type Task, WINDOW } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { Fields, Message, MessageValues } from './protocol.ts';
import type { RequestData } from './tags.ts';

/** What {@link pipeline} does with each item. */
export interface Pipeline<I, F extends Fields> {
  /** The request for an item. */
  readonly request: (item: I) => [Message<F>, MessageValues<F>, RequestData?];
  /** Receives the answer to it; `false` ends the sending, the answers that are on their way are still received. */
  readonly receive: (item: I, tag: number) => Task<boolean>;
  /** How many are in flight (default {@link WINDOW}). */
  readonly window?: number;
}

/** Sends a request for each item, many in flight, and handles the answers in the order of the items. */
export function* pipeline<I, F extends Fields>(
  exchange: Exchange,
  items: Iterable<I>,
  { request, receive, window = WINDOW }: Pipeline<I, F>,
): Task<void> {
  const inFlight: { readonly item: I; readonly tag: number }[] = [];
  const source = items[Symbol.iterator]();
  let next = source.next();
  let more = true;
  let cancelled: unknown;
  try {
    while (inFlight.length > 0 || (more && next.done !== true)) {
      try {
        yield CHECK;
      } catch (error) {
        // The answers that are on their way still count.
        cancelled = error;
        more = false;
      }
      while (more && next.done !== true && inFlight.length < window) {
        const [message, values, data] = request(next.value);
        // With requests of its own in flight, the task need not wait for a tag: it will free one itself.
        const tag =
          inFlight.length === 0
            ? yield* exchange.send(message, values, data)
            : exchange.trySendMore(message, values, data ?? {});
        if (tag < 0) break;
        inFlight.push({ item: next.value, tag });
        next = source.next();
      }
      const first = inFlight.shift();
      if (first === undefined) break;
      more = (yield* receive(first.item, first.tag)) && more;
    }
  } finally {
    // After an error, buffers may be given back to the caller only when no request uses them any more.
    for (const { tag } of inFlight) yield* exchange.discard(tag);
  }
  if (cancelled !== undefined) throw cancelled as Error;
}
